"""Base distributions: where a flow starts."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from manifolds import Manifold

__all__ = ["Source", "Uniform", "WrappedNormal", "default_source"]


class Source(nn.Module, ABC):
    """A distribution on a manifold that can be sampled and scored.

    Args:
        manifold: where it lives.
    """

    def __init__(self, manifold: Manifold) -> None:
        super().__init__()
        self.manifold = manifold

    @abstractmethod
    def sample(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Return independent draws, ``(*shape, *event_shape)``."""

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density with respect to the Riemannian volume, in nats, ``(*batch)``."""


class Uniform(Source):
    """The uniform distribution on a manifold of finite volume.

    Raises:
        ValueError: if the manifold states no finite volume.
    """

    def __init__(self, manifold: Manifold) -> None:
        super().__init__(manifold)
        if manifold.volume is None:
            raise ValueError(f"Uniform: {manifold} has no finite volume; use another source, such as WrappedNormal")
        self._volume = manifold.volume

    def sample(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        return self.manifold.random_uniform(*shape, generator=generator, dtype=dtype, device=device)

    def log_prob(self, x: Tensor) -> Tensor:
        return torch.full_like(x.flatten(x.ndim - len(self.manifold.event_shape))[..., 0], -math.log(self._volume))


class WrappedNormal(Source):
    """A normal distribution in the tangent space at a point, carried to the manifold by the exponential map.

    The density is ``N(log_m(x); 0, scale^2) / |det d(exp_m)|`` (Mathieu & Nickel, Riemannian Continuous Normalizing
    Flows, 2020, arXiv:2006.10605, section 3), exact where the exponential map is one-to-one: on Euclidean, hyperbolic
    and symmetric positive definite spaces.

    Args:
        manifold: a manifold of infinite injectivity radius.
        mean: the point it is centred at, ``event_shape``.
        scale: standard deviation in every direction, in the unit of the metric.

    Raises:
        ValueError: if the injectivity radius is not infinite, ``scale`` is not positive, or ``mean`` is not one point.
    """

    mean: Tensor

    def __init__(self, manifold: Manifold, mean: Tensor, scale: float = 1.0) -> None:
        super().__init__(manifold)
        if manifold.injectivity_radius != math.inf:
            raise ValueError(
                f"WrappedNormal: the exponential map of {manifold} is not one-to-one, so its density would be a sum "
                "over images; use Uniform where the volume is finite, or a source made for this manifold"
            )
        if not 0 < scale < math.inf:
            raise ValueError(f"WrappedNormal: scale must be positive and finite, got {scale}")
        mean = torch.as_tensor(mean)
        if mean.shape != manifold.event_shape:
            raise ValueError(
                f"WrappedNormal: mean must be one point of {manifold}, of shape {tuple(manifold.event_shape)}, got "
                f"{tuple(mean.shape)}; pass one point, for example a mean over the data projected with projx"
            )
        manifold.check_point(mean)
        self.register_buffer("mean", mean)
        self.scale = float(scale)

    def sample(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        mean = self.mean.to(dtype=dtype or torch.get_default_dtype(), device=device)
        basis = self.manifold.tangent_basis(mean)
        coefficients = torch.randn(*shape, self.manifold.dim, generator=generator, dtype=mean.dtype, device=mean.device)
        return self.manifold.expmap(mean, self.scale * torch.tensordot(coefficients, basis, dims=1))

    def log_prob(self, x: Tensor) -> Tensor:
        mean = self.mean.to(x)
        u = self.manifold.logmap(mean, x)
        constant = self.manifold.dim * math.log(self.scale * math.sqrt(2 * math.pi))
        squared = self.manifold.inner(mean, u, u) / self.scale**2
        return -squared / 2 - constant - self.manifold.log_det_expmap(mean, u)


def default_source(manifold: Manifold, points: Tensor) -> Source:
    """Return the source a fit starts from unless told otherwise.

    It is `Uniform` where the volume is finite, and a `WrappedNormal` about the points where the injectivity radius is
    infinite.

    Args:
        manifold: the manifold of the data.
        points: the data ``(n, *event_shape)``, for the centre and width of a wrapped normal.

    Raises:
        ValueError: if the manifold has neither, naming what to supply.
    """
    if manifold.volume is not None:
        return Uniform(manifold)
    if manifold.injectivity_radius != math.inf:
        raise ValueError(
            f"{manifold} has no default source: its volume is not finite and its injectivity radius is not infinite; "
            "pass source=, for example a product of a uniform and a normal part"
        )
    centre = manifold.projx(points.mean(0))
    u = manifold.logmap(centre, points)
    scale = (manifold.inner(centre, u, u).mean() / manifold.dim).sqrt()
    return WrappedNormal(manifold, centre, float(scale) or 1.0)
