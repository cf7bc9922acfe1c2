"""What a policy did in environments that run side by side, and what it was worth."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from rfm.control.environments import Environments, Step
from rfm.control.flow_actor import FlowActor
from rfm.control.policy_ratio import generalised_advantages
from rfm.control.running_scale import RunningScale


class Rollout(NamedTuple):
    """Actions of several moments in n environments, with their advantages."""

    observations: Tensor
    """``(moments, n, o)``."""
    actions: Tensor
    """``(moments, n, *event_shape)``."""
    advantages: Tensor
    """``(moments, n)``."""
    values: Tensor
    """What was to be gained, as estimated afterwards ``(moments, n)``."""

    def batches(self, size: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Yield indices of actions, each once, in batches of equal size up to one."""
        n = self.advantages.numel()
        yield from torch.randperm(n, generator=generator).tensor_split(max(1, round(n / size)))

    def flat(self) -> Self:
        """Return it with moments and environments in one axis."""
        return type(self)(*(each.flatten(0, 1) for each in self))


class Runner:
    """Lets a policy act in environments, and keeps where they are, and the returns of episodes, between rollouts.

    Args:
        environments: where it acts.
        discount: of rewards.
        decay: of generalised advantages.
        generator: of the policy's noise.
    """

    def __init__(self, environments: Environments, discount: float, decay: float, generator: torch.Generator) -> None:
        self.environments, self.discount, self.decay, self.generator = environments, discount, decay, generator
        self.seen = environments.reset()
        self.episodes: list[float] = []
        """Sums of rewards of the episodes that ended since this was last emptied."""
        self.scale = RunningScale(1)
        """Spread of the discounted sums of rewards, in whose units values are."""
        self._discounted, self._sum = torch.zeros(environments.count), torch.zeros(environments.count)

    def run(self, actor: FlowActor, moments: int) -> Rollout:
        """Return what the policy does in so many moments."""
        found, steps = [], []
        for _ in range(moments):
            actor.scale.update(self.seen)
            actions = actor.act(self.seen, generator=self.generator)
            step = self.environments.step(actions)
            found.append((self.seen, actions))
            steps.append(step)
            self._count(step.reward, step.terminated | step.truncated)
            self.seen = step.observation
        observations, actions = (torch.stack(each) for each in zip(*found, strict=True))
        return Rollout(observations, actions, *self._advantages(actor, observations, steps))

    def _count(self, reward: Tensor, ended: Tensor) -> None:
        self._discounted = self.discount * self._discounted + reward
        self._sum += reward
        self.scale.update(self._discounted[:, None])
        self.episodes += self._sum[ended].tolist()
        self._sum[ended] = 0
        self._discounted[ended] = 0

    @torch.no_grad()
    def _advantages(self, actor: FlowActor, observations: Tensor, steps: Sequence[Step]) -> tuple[Tensor, Tensor]:
        _, rewards, terminated, truncated, final = (torch.stack(each) for each in zip(*steps, strict=True))
        values = actor.values(observations)
        cut = truncated & ~terminated
        # What follows the time limit is not gained, but could have been: its estimate takes its place.
        rewards = rewards / self.scale.std.to(rewards) + self.discount * actor.values(final) * cut
        last = actor.values(self.seen)
        advantages = generalised_advantages(rewards, values, last, terminated | truncated, self.discount, self.decay)
        return advantages, advantages + values
