"""A small velocity network for one action given a vector, for policies that are trained by acting."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from manifolds import Manifold
from manifolds.arguments import check_instance, integer
from rfm.field import Field
from rfm.networks.precision import in_precision_of_weights
from rfm.paths.times import check_times


class PolicyNetwork(nn.Module, Field):
    """A velocity field of actions given a vector, cheap enough for policy gradients.

    Layers of their own read the vector, once for all steps by which an action is drawn, and once for all draws of noise
    and time of a loss (`encoded`); two layers read the action and the time. The velocity is zero at first, so that
    a policy begins as its noise.

    Args:
        manifold: where an action lives.
        condition_dim: length of the vector, which should be standardised.
        width: of the layers.
    """

    needs_condition = True
    condition_dim: int

    def __init__(self, manifold: Manifold, condition_dim: int, width: int = 64) -> None:
        super().__init__()
        check_instance("PolicyNetwork", "manifold", manifold, Manifold, "Euclidean(2)")
        self.manifold = manifold
        self.condition_dim = integer("PolicyNetwork", "condition_dim", condition_dim)
        self.width = integer("PolicyNetwork", "width", width)
        self.seen = nn.Sequential(
            *(nn.Linear(self.condition_dim, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh()),
            nn.Linear(width, width),
        )
        self.time = nn.Linear(2 * _WAVES + 1, width, bias=False)
        self.action = nn.Linear(manifold.embed_dim, width, bias=False)
        self.hidden = nn.Linear(width, width)
        self.last = nn.Linear(width, manifold.field_dim)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    @in_precision_of_weights
    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """Return the velocity at ``x``, tangent there.

        Args:
            x: actions ``(*batch, *event_shape)``.
            t: times ``(*batch)``, or one for all, shape ``()``.
            condition: vectors ``(*batch, condition_dim)``.
        """
        return self.velocity_given(x, t, self.seen(condition))

    def encoded(self, condition: Tensor) -> tuple[Callable[..., Tensor], Tensor]:
        return _Given(self), self.seen(condition)

    @in_precision_of_weights
    def velocity_given(self, x: Tensor, t: Tensor, code: Tensor) -> Tensor:
        """Return the velocity at ``x``, given what the layers for the vector return ``(*batch, width)``."""
        check_times("PolicyNetwork", t, self.manifold.batch_shape(x))
        phase = t.unsqueeze(-1) * (math.pi * torch.arange(1, _WAVES + 1, dtype=t.dtype, device=t.device))
        waves = torch.cat([t.unsqueeze(-1), torch.sin(phase), torch.cos(phase)], dim=-1)
        h = nn.functional.silu(code + self.time(waves) + self.action(self.manifold.embed(x)))
        h = h + nn.functional.silu(self.hidden(h))
        return self.manifold.tangent_from_vector(x, self.last(h))


class _Given(Field):
    """The network from what its layers for the vector returned."""

    def __init__(self, network: PolicyNetwork) -> None:
        self.network = network

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:  # type: ignore[override]
        return self.network.velocity_given(x, t, condition)

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        yield from self.network.named_modules()


_WAVES = 4
