"""Uniform distributions on the parts of a set that is not connected."""

import math
from typing import Self

import torch
from torch import Tensor

from manifolds import Bounded
from manifolds.arguments import check_instance
from rfm.arrays import points_of, tensor_of
from rfm.sources.base import Source, draws


class PiecewiseUniform(Source):
    """The distribution that is uniform on each connected component of a bounded set, with a share for each.

    No flow leads from one component to another, an island or an inland sea: it keeps what lies in each, and so the
    source has to have the shares of the data.

    Args:
        manifold: the set.
        shares: of the components ``(c,)``, in the order of ``manifold.constraint.component_volumes``, not negative;
            they are divided by their sum.

    Raises:
        ValueError: there is not one for each component, or they have no sum.
    """

    manifold: Bounded

    def __init__(self, manifold: Bounded, shares: Tensor) -> None:
        super().__init__(manifold)
        check_instance("PiecewiseUniform", "manifold", manifold, Bounded, "Bounded(Sphere(2), polygon)")
        if manifold.constraint.is_connected:
            raise ValueError(f"PiecewiseUniform: {manifold} is connected; use Uniform")
        volumes = manifold.constraint.component_volumes
        self.shares = tensor_of("PiecewiseUniform", "shares", shares, torch.float64).detach()
        usable = self.shares.shape == volumes.shape and bool((self.shares >= 0).all() & self.shares.isfinite().all())
        if not usable or not float(self.shares.sum()) > 0 or bool((self.shares[volumes == 0] > 0).any()):
            raise ValueError(
                f"PiecewiseUniform: shares must be {len(volumes)} finite numbers, none negative, 0 where there is no "
                f"volume, and not all zero, got {self.shares.tolist()[:8]}; use PiecewiseUniform.fit(manifold, points)"
            )

    @classmethod
    def fit(cls, manifold: Bounded, points: Tensor, sample_weights: Tensor | None = None) -> Self:
        """Return the one whose shares are those of points, with one more point spread evenly over the set.

        Args:
            manifold: the set.
            points: ``(n, *event_shape)``.
            sample_weights: of the points ``(n,)``; equal by default.
        """
        volumes = manifold.constraint.component_volumes
        number = manifold.constraint.components(points_of("PiecewiseUniform", manifold, points)).to(volumes.device)
        w = torch.ones(len(number)) if sample_weights is None else sample_weights * (len(number) / sample_weights.sum())
        counts = torch.zeros_like(volumes).index_add_(0, number, w.to(volumes))
        return cls(manifold, (counts + volumes / volumes.sum()) / (len(number) + 1))

    def sample(
        self,
        shape: int | tuple[int, ...],
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        size = draws(self, shape, dtype)
        own = self.manifold.constraint.component_volumes.device if device is None else device
        shares = self.shares.to(own)
        count = size.numel()
        component = (
            torch.multinomial(shares, count, replacement=True, generator=generator) if count else shares[:0].long()
        )
        x = self.manifold.constraint.random_in(component, generator)
        x = self.manifold.projx(x.to(torch.get_default_dtype() if dtype is None else dtype))
        return x.reshape(*size, *self.manifold.event_shape)

    def log_prob(self, x: Tensor) -> Tensor:
        x = points_of("PiecewiseUniform", self.manifold, x)
        component = self.manifold.constraint.components(x)
        volumes = self.manifold.constraint.component_volumes
        log_p = (self.shares.to(volumes) / self.shares.sum()).log() - volumes.log()
        return torch.where(self.manifold.excludes(x), -math.inf, log_p[component].to(x.dtype))
