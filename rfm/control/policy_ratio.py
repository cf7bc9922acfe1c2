"""How much likelier a new flow makes an action: estimates from losses, for policy gradients.

Proximal policy optimisation needs the ratio of an action's densities under the new and the old policy. The density of a
flow takes a solve; FPO takes the difference of conditional flow matching losses for it, at noise and times that both
policies share. `rfm.likelihood.euler_log_prob` has the truth to compare with, of the few steps that acted.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from manifolds.arguments import integer, positive
from rfm.objectives import flow_matching_loss
from rfm.paths import ConditionalPath
from rfm.paths.times import TimeSampler, UniformTimes
from rfm.sources import Source

_FARTHEST = 20.0
"""Beyond which the logarithm of a ratio is cut, for no exponential to overflow."""


class LossDraws(NamedTuple):
    """Noise and times that the losses of an old and a new policy share, for each action."""

    noise: Tensor
    """``(draws, n, *event_shape)``."""
    times: Tensor
    """``(draws, n)``."""

    @classmethod
    def draw(
        cls,
        source: Source,
        count: int,
        actions: Tensor,
        times: TimeSampler | None = None,
        generator: torch.Generator | None = None,
    ) -> Self:
        """Return so many draws for each of the actions ``(n, *event_shape)``.

        Args:
            source: of noise.
            count: how many draws; 8 in FPO.
            actions: what the old policy did.
            times: how to draw times, uniformly by default.
            generator: source of randomness.
        """
        shape = (integer("LossDraws", "count", count), len(actions))
        like: dict[str, Any] = {"generator": generator, "dtype": actions.dtype, "device": actions.device}
        return cls(source.sample(shape, **like), (UniformTimes() if times is None else times).sample(shape, **like))

    def losses(
        self, field: Callable[..., Tensor], path: ConditionalPath, actions: Tensor, condition: Tensor | None = None
    ) -> Tensor:
        """Return the flow matching loss of each draw, ``(draws, n)``.

        Args:
            field: of the policy.
            path: from noise to actions.
            actions: ``(n, *event_shape)``.
            condition: what was seen ``(n, c)``.
        """
        x_1 = actions.expand(self.noise.shape)
        own: dict[str, Any] = (
            {} if condition is None else {"condition": condition.expand(*self.times.shape, condition.shape[-1])}
        )
        return flow_matching_loss(field, path, self.noise, x_1, self.times, "none", **own)


@dataclass(frozen=True)
class LossRatio:
    """The ratio of densities that differences of losses stand for: ``exp(scale (loss_old - loss_new))``.

    Args:
        per_draw: a ratio for each draw (FPO++) in place of one for each action, of the mean over its draws (FPO).
        scale: of losses, in nats. The loss is no bound of the log-density in nats but up to a weight of times, so no
            number is right everywhere; 1 in FPO.
        limit: beyond which a difference of losses is cut, as in FPO++.

    References:
        McAllister et al., Flow Matching Policy Gradients, 2025, arXiv:2507.21053 (FPO). FPO++: arXiv:2602.02481.
    """

    per_draw: bool = False
    scale: float = 1.0
    limit: float = _FARTHEST

    def __post_init__(self) -> None:
        for name in ("scale", "limit"):
            object.__setattr__(self, name, positive("LossRatio", name, getattr(self, name)))

    def log_ratio(self, old: Tensor, new: Tensor) -> Tensor:
        """Return the logarithm of the ratio, ``(n,)``, or ``(draws, n)`` for each draw.

        Args:
            old: losses of the policy that acted ``(draws, n)``; constants.
            new: losses of the policy in training, of the same draws.
        """
        difference = self.scale * (old.detach() - new)
        return (difference if self.per_draw else difference.mean(0)).clamp(-self.limit, self.limit)


@dataclass(frozen=True)
class ClippedSurrogate:
    """What a policy gradient step minimises, given ratios and advantages.

    Where an advantage is positive, or everywhere unless ``asymmetric``, minus PPO's ``min(r A, clip(r) A)``. Where it
    is negative and ``asymmetric``, minus SPO's ``r A - |A| (r - 1)^2 / (2 clip)``, whose gradient leads back to ratios
    near 1 where clipping has none.

    Args:
        clip: how far from 1 ratios count; .05 in FPO.
        asymmetric: as FPO++.

    References:
        Schulman et al., Proximal Policy Optimization Algorithms, 2017, arXiv:1707.06347, equation 7. Xie et al., Simple
        Policy Optimization, 2024, arXiv:2401.16025.
    """

    clip: float = 0.05
    asymmetric: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "clip", positive("ClippedSurrogate", "clip", self.clip))

    def __call__(self, log_ratio: Tensor, advantages: Tensor) -> Tensor:
        """Return the loss, a scalar.

        Args:
            log_ratio: ``(n,)`` or ``(draws, n)``.
            advantages: ``(n,)``.
        """
        ratio = log_ratio.exp()
        gain = torch.minimum(ratio * advantages, ratio.clamp(1 - self.clip, 1 + self.clip) * advantages)
        if self.asymmetric:
            penalised = ratio * advantages - advantages.abs() * (ratio - 1) ** 2 / (2 * self.clip)
            gain = torch.where(advantages < 0, penalised, gain)
        return -gain.mean()


def generalised_advantages(
    rewards: Tensor, values: Tensor, last_value: Tensor, ended: Tensor, discount: float = 0.99, decay: float = 0.95
) -> Tensor:
    """Return the generalised advantage estimates of steps, ``(moments, n)``.

    ``A_t = delta_t + discount decay (1 - ended_t) A_{t+1}`` with ``delta_t = r_t + discount (1 - ended_t) V_{t+1} -
    V_t``.

    Schulman et al., High-Dimensional Continuous Control Using Generalized Advantage Estimation, 2015, arXiv:1506.02438,
    equation 16.

    Args:
        rewards: of n environments ``(moments, n)``.
        values: estimates of the states before each step ``(moments, n)``.
        last_value: of the state after the last step ``(n,)``.
        ended: whether an episode ended by the step, so that what follows is another's ``(moments, n)``.
        discount: of rewards, gamma.
        decay: lambda, 0 for one step's difference and 1 for the sum of rewards minus the value.

    Raises:
        ValueError: for shapes that differ, or a discount or decay that is not from 0 to 1.
    """
    if not rewards.shape == values.shape == ended.shape or last_value.shape != rewards.shape[1:]:
        raise ValueError(
            f"generalised_advantages: rewards, values and ended have one shape (moments, n), last_value is (n,), got "
            f"{tuple(rewards.shape)}, {tuple(values.shape)}, {tuple(ended.shape)} and {tuple(last_value.shape)}"
        )
    if not (0 <= discount <= 1 and 0 <= decay <= 1) or math.isnan(discount + decay):
        raise ValueError(f"generalised_advantages: discount and decay are from 0 to 1, got {discount} and {decay}")
    going = 1 - ended.to(rewards.dtype)
    following = torch.cat([values[1:], last_value[None]])
    delta = rewards + discount * going * following - values
    advantage, found = torch.zeros_like(last_value), []
    for step, keeps in zip(delta.flip(0), going.flip(0), strict=True):
        advantage = step + discount * decay * keeps * advantage
        found.append(advantage)
    return torch.stack(found).flip(0)
