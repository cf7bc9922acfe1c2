"""The Laplacian's eigenfunctions on a manifold, as far as distances between them need these."""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from manifolds.numerics.precision import FullPrecision

Weight = Callable[[Tensor], Tensor]
"""From eigenvalues ``(k)`` to the weights of their eigenfunctions."""


class Spectrum(FullPrecision, ABC):
    """The eigenfunctions of minus the Laplacian, without the constant, orthonormal in the volume.

    The manifold holds it as its ``spectrum``. It gives sums over the first k of them, which do not depend on the choice
    of a basis: where k would cut through an eigenspace, the rest of it is taken too.
    """

    def anchor(self, y: Tensor, k: int) -> Tensor:
        """Return what is known of the points ``y`` once and for all, ``(*batch, ...)``; by default the points."""
        return y

    @abstractmethod
    def squared_distance(self, x: Tensor, anchor: Tensor, k: int, weight: Weight) -> tuple[Tensor, Tensor]:
        """Return ``sum_i weight(lambda_i) (phi_i(x) - phi_i(y))^2`` and its gradient at ``x``.

        Args:
            x: points ``(*batch, *event_shape)``.
            anchor: that of points ``y``.
            k: number of eigenfunctions.
            weight: of an eigenvalue.

        Returns:
            Sums ``(*batch)``, and tangent vectors of the shape of ``x``.
        """


class SphericalHarmonics(Spectrum):
    """Those of a unit sphere of n dimensions, by the addition theorem: no harmonic is evaluated by itself.

    The N harmonics of degree l have the eigenvalue ``l (l + n - 1)``, and ``sum (phi(x) - phi(y))^2`` over them is
    ``2 N / volume (1 - P_l(<x, y>))`` with the Gegenbauer polynomial that is 1 at 1.

    Müller, Spherical Harmonics, 1966, theorem 2.

    Args:
        n: dimension.
        volume: of the sphere.
    """

    def __init__(self, n: int, volume: float) -> None:
        self.n, self.volume = n, volume

    def squared_distance(self, x: Tensor, anchor: Tensor, k: int, weight: Weight) -> tuple[Tensor, Tensor]:
        n, alpha = self.n, (self.n - 1) / 2
        difference = x - anchor
        s = (difference * difference).sum(-1) / 2
        # q = 1 - P and its derivative by s = 1 - <x, y>, which is small where the points are near.
        before, q = torch.zeros_like(s), s
        slope_before, slope = torch.zeros_like(s), torch.ones_like(s)
        total, slopes, count = torch.zeros_like(s), torch.zeros_like(s), 0
        for degree in itertools.count(1):
            multiplicity = math.comb(degree + n, n) - math.comb(degree + n - 2, n)
            value = weight(x.new_tensor([float(degree * (degree + n - 1))]))[0]
            factor = 2 * multiplicity / self.volume * value
            total, slopes, count = total + factor * q, slopes + factor * slope, count + multiplicity
            if count >= k:
                break
            a, b, c = 2 * (degree + alpha), degree, degree + 2 * alpha
            q, before, slope, slope_before = (
                (a * (s + (1 - s) * q) - b * before) / c,
                q,
                (a * (1 - q + (1 - s) * slope) - b * slope_before) / c,
                slope,
            )
        toward = anchor - (x * anchor).sum(-1, keepdim=True) * x
        return total, -slopes[..., None] * toward


class PlaneWaves(Spectrum):
    """Those of a flat torus of circumference 2 pi: sine and cosine of ``<m, x>`` with the eigenvalue ``|m|^2``.

    Args:
        n: dimension.
    """

    def __init__(self, n: int) -> None:
        self.n = n

    def squared_distance(self, x: Tensor, anchor: Tensor, k: int, weight: Weight) -> tuple[Tensor, Tensor]:
        m = self._waves(k).to(x)
        half = (x - anchor) @ m.mT / 2
        w = weight((m * m).sum(-1)) * 8 / (2 * math.pi) ** self.n
        sine = torch.sin(half)
        return (sine * sine) @ w, (sine * torch.cos(half) * w) @ m

    def _waves(self, k: int) -> Tensor:
        """Return one of m and -m for the shortest vectors of whole numbers, at least k / 2, ``(count, n)``."""
        radius = 1
        while True:
            axis = torch.arange(-radius, radius + 1)
            m = torch.cartesian_prod(*([axis] * self.n)).reshape(-1, self.n)
            size = (m * m).sum(-1)
            # Within a ball all are there.
            inside = (size > 0) & (size <= radius * radius)
            if int(inside.sum()) >= k:
                break
            radius += 1
        m, size = m[inside], size[inside]
        order = size.argsort(stable=True)
        m, size = m[order], size[order]
        m = m[size <= size[k - 1]]
        first = torch.gather(m, 1, (m != 0).int().argmax(-1, keepdim=True))[:, 0]
        return m[first > 0]
