"""FPO: policy gradients of flows, from rollouts."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from manifolds.arguments import check_instance, integer, number, positive
from rfm.control.environments import Environments
from rfm.control.flow_actor import FlowActor
from rfm.control.policy_ratio import ClippedSurrogate, LossDraws, LossRatio
from rfm.control.rollout import Rollout, Runner
from rfm.field import as_field
from rfm.paths import ConditionalPath
from rfm.paths.times import TimeSampler
from rfm.sources.base import check_same_manifold


class Iteration(NamedTuple):
    """Where training is after an iteration."""

    steps: int
    """Of environments, so far."""
    episodes: list[float]
    """Sums of rewards of the episodes that ended in it."""
    change: float
    """Mean absolute logarithm of the ratio after the last epoch."""


@dataclass(frozen=True)
class FPO:
    """Proximal policy optimisation of a `FlowActor`, with ratios from flow matching losses.

    An iteration lets the policy act, estimates advantages, standardised over the rollout, and takes several epochs of
    steps on the `ClippedSurrogate` of the `LossRatio`, and on the squared error of the value. Noise and times of the
    losses are drawn once in an iteration, for all of its epochs. Observations are standardised by what was seen so far,
    rewards by the spread of their discounted sums.

    Args:
        moments: how many steps each environment takes in an iteration.
        epochs: over these steps.
        batch_size: of actions, in a step of the optimiser.
        draws: of noise and time for an action.
        ratio: of the new policy to the old; ``LossRatio(per_draw=True)`` for FPO++.
        surrogate: what is minimised; ``ClippedSurrogate(asymmetric=True)`` for FPO++.
        times: of the losses, uniform by default.
        discount: of rewards.
        decay: of generalised advantages, lambda.
        learning_rate: of policy and value, by Adam; it falls to zero in a straight line.
        max_norm: of gradients, beyond which they are scaled down.

    References:
        McAllister et al., Flow Matching Policy Gradients, 2025, arXiv:2507.21053. FPO++: arXiv:2602.02481.
    """

    moments: int = 64
    epochs: int = 10
    batch_size: int = 256
    draws: int = 8
    ratio: LossRatio = field(default_factory=LossRatio)
    surrogate: ClippedSurrogate = field(default_factory=ClippedSurrogate)
    times: TimeSampler | None = None
    discount: float = 0.99
    decay: float = 0.95
    learning_rate: float = 3e-4
    max_norm: float = 0.5

    def __post_init__(self) -> None:
        for name in ("moments", "epochs", "batch_size", "draws"):
            object.__setattr__(self, name, integer("FPO", name, getattr(self, name)))
        for name in ("learning_rate", "max_norm"):
            object.__setattr__(self, name, positive("FPO", name, getattr(self, name)))
        for name in ("discount", "decay"):
            value = number("FPO", name, getattr(self, name))
            if not 0 <= value <= 1:
                raise ValueError(f"FPO: {name} must be from 0 to 1, got {value}; choose another")
            object.__setattr__(self, name, value)

    def train(
        self, actor: FlowActor, environments: Environments, steps: int, generator: torch.Generator
    ) -> Iterator[Iteration]:
        """Train a policy in place, and yield after each iteration.

        Args:
            actor: the policy.
            environments: where it acts.
            steps: of environments, all of them together, rounded up to full iterations.
            generator: source of randomness.

        Raises:
            ValueError: for an actor whose actions or observations are not those of the environments, or iterations of
                a single action.
        """
        check_instance("FPO.train", "actor", actor, FlowActor, "FlowActor(field, value, source, 3)")
        check_instance("FPO.train", "environments", environments, Environments, "GymnasiumEnvironments(vector)")
        check_same_manifold("FPO.train", "the actor's source", actor.source.manifold, environments.actions)
        if actor.scale.size != environments.observation_size:
            raise ValueError(
                f"FPO.train: the actor takes observations of {actor.scale.size} numbers, and those of the environments "
                f"have {environments.observation_size}; make it with observation_size={environments.observation_size}"
            )
        if self.moments * environments.count < 2:
            raise ValueError(
                "FPO.train: advantages are standardised over an iteration, which must have two actions or more, got 1; "
                "take more moments or environments"
            )
        runner = Runner(environments, self.discount, self.decay, generator)
        optimisers = [
            torch.optim.Adam(each.parameters(), self.learning_rate, fused=True) for each in (actor.field, actor.value)
        ]
        block = self.moments * environments.count
        count = -(-integer("FPO.train", "steps", steps) // block)
        for k in range(count):
            for each in optimisers:
                each.param_groups[0]["lr"] = self.learning_rate * (1 - k / count)
            runner.episodes = []
            change = self.improve(actor, runner.run(actor, self.moments).flat(), optimisers, generator)
            yield Iteration((k + 1) * block, runner.episodes, change)

    def improve(
        self, actor: FlowActor, rollout: Rollout, optimisers: list[torch.optim.Adam], generator: torch.Generator
    ) -> float:
        """Take an iteration's steps on a rollout with one axis, and return how far the ratios are from 1 at its end."""
        path, seen = actor.path, actor.scale(rollout.observations)
        draws = LossDraws.draw(actor.source, self.draws, rollout.actions, self.times, generator)
        with torch.no_grad():
            old = _losses(actor, draws, path, rollout.actions, seen)
        advantages = (rollout.advantages - rollout.advantages.mean()) / (rollout.advantages.std() + _LEAST)
        for _ in range(self.epochs):
            change = 0.0
            for index in rollout.batches(self.batch_size, generator):
                own = LossDraws(draws.noise[:, index], draws.times[:, index])
                new = _losses(actor, own, path, rollout.actions[index], seen[index])
                log_ratio = self.ratio.log_ratio(old[:, index], new)
                error = (actor.value(seen[index]).squeeze(-1) - rollout.values[index]).square().mean()
                losses = (self.surrogate(log_ratio, advantages[index]), error)
                for loss, module, optimiser in zip(losses, (actor.field, actor.value), optimisers, strict=True):
                    self._step(loss, module, optimiser)
                change += float(log_ratio.detach().abs().mean()) * len(index)
        return change / len(advantages)

    def _step(self, loss: Tensor, module: nn.Module, optimiser: torch.optim.Adam) -> None:
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), self.max_norm)
        optimiser.step()


def _losses(actor: FlowActor, draws: LossDraws, path: ConditionalPath, actions: Tensor, seen: Tensor) -> Tensor:
    """Return the losses of all draws; what is seen is encoded once for them."""
    field, code = as_field(actor.field).encoded(seen)
    return draws.losses(field, path, actions, code)


_LEAST = 1e-8
