"""The von Mises-Fisher distribution on spheres."""

import math

import torch
from torch import Tensor

from manifolds import Sphere
from manifolds.arguments import number
from manifolds.numerics.constants import Constants
from rfm.arrays import points_of
from rfm.sources.base import Source, checked_point, draws


class VonMisesFisher(Source, Constants):
    """The distribution on a sphere with density proportional to ``exp(concentration <mean, x>)``.

    Concentration 0 is the uniform distribution; at a large one, k, it looks like a normal distribution of standard
    deviation ``1 / sqrt(k)`` in the tangent space at the mean. Samples and densities are exact for every k from 0 to
    1e8 and more: nothing is computed from ``<mean, x>`` itself, which is 1 to rounding there.

    Args:
        manifold: the sphere.
        mean: the mean direction, a unit vector ``(n + 1,)``.
        concentration: k, at least 0 and finite.

    Raises:
        ValueError: if the manifold is no sphere, ``mean`` not one point on it, or ``concentration`` negative or not
            finite.

    References:
        Wood: Simulation of the von Mises Fisher distribution, 1994, doi:10.1080/03610919408813161, algorithm VM*
        (sampling). Mardia, Jupp: Directional Statistics, 2000, doi:10.1002/9780470316979, section 9.3 (density).
    """

    manifold: Sphere
    mean: Tensor

    def __init__(self, manifold: Sphere, mean: Tensor, concentration: float) -> None:
        super().__init__(manifold)
        if not isinstance(manifold, Sphere):
            raise ValueError(
                f"VonMisesFisher: lives on a Sphere, got {manifold}; use IsotropicGaussianSO3 on rotations, "
                "WrappedNormal on the flat torus and where the injectivity radius is infinite"
            )
        self.concentration = number("VonMisesFisher", "concentration", concentration)
        if not 0 <= self.concentration < math.inf:
            raise ValueError(
                f"VonMisesFisher: concentration must be finite and at least 0, got {concentration}; for a density that "
                "is lowest at the mean pass its antipode"
            )
        self.constant("mean", checked_point("VonMisesFisher", "mean", manifold, mean))
        k = torch.tensor(self.concentration, dtype=torch.float64)
        self._log_normaliser = float(manifold.kernel.log_normaliser(k))

    def sample(
        self,
        shape: int | tuple[int, ...],
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        shape, mean = draws(self, shape, dtype), self.mean.to(device=device)
        k = torch.full(shape, self.concentration, dtype=mean.dtype, device=mean.device)
        return self.manifold.kernel.sample(mean, k, generator).to(dtype or torch.get_default_dtype())

    def log_prob(self, x: Tensor) -> Tensor:
        x = points_of("VonMisesFisher", self.manifold, x)
        chord = x.double() - self.mean.to(x.device)
        return (-self.concentration / 2 * (chord * chord).sum(-1) - self._log_normaliser).to(x.dtype)

    def extra_repr(self) -> str:
        return f"concentration={self.concentration:g}"
