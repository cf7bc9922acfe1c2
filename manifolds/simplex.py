"""The probability simplex."""

import math

import torch
from torch import Tensor

from manifolds.arguments import integer
from manifolds.base import Manifold
from manifolds.kernel import Kernel
from manifolds.sphere import Sphere


class Simplex(Manifold):
    """Shares that sum to 1, ``(n + 1,)``, with the Fisher-Rao metric ``sum_i u_i v_i / p_i``.

    ``p -> 2 sqrt(p)`` is an isometry to the part of the sphere of radius 2 where no coordinate is negative. Distances
    are ``2 arccos(sum_i sqrt(p_i q_i))``, at most pi; the volume is half the area of the unit n-sphere; the uniform
    distribution is the symmetric Dirichlet distribution of parameter 1/2.

    **The border**, where a share is 0, is at a finite distance, see `distance_to_border`. Exact are: ``logmap``,
    ``geodesic`` and ``dist`` between any two points, also with zeros in the second, because shortest geodesics stay
    inside; ``expmap`` and ``shoot`` up to the border. There a geodesic is reflected: it goes on as the great circle
    does, with the squares of its coordinates, at constant speed, but is shortest no longer. So no injectivity radius
    holds everywhere, and none is stated. Vectors at a point of the border have no length: shares below 1e-30 count
    as 1e-30. `tangent_from_vector` gives velocities that vanish on the border, so that flows of networks never leave
    the simplex and have exact densities.

    Args:
        n: intrinsic dimension, one less than the number of shares.

    References:
        Amari, Nagaoka, Methods of Information Geometry, 2000, section 2.5. Davis et al., Fisher Flow Matching for
        Generative Modeling over Discrete Data, 2024, arXiv:2405.14664 (flows on the orthant).
    """

    def __init__(self, n: int) -> None:
        n = integer(type(self).__name__, "n", n)
        super().__init__(n, (n + 1,))
        self.n = n
        self.sphere = Sphere(n)
        self.volume = self.sphere.volume / 2 if self.sphere.volume else None

    # Projections.

    def projx(self, x: Tensor) -> Tensor:
        """Return ``x`` divided by its sum, negative entries first made 0; equal shares where nothing is left.

        Ratios are kept, so that small shares keep their digits: it is the nearest point in the metric at ``x``.
        """
        positive = x.clamp(min=_LEAST)
        empty = (x <= 0).all(-1, keepdim=True)
        positive = torch.where(empty, 1.0, positive)
        once = positive / positive.sum(-1, keepdim=True)
        return once / once.sum(-1, keepdim=True)

    def outside(self, x: Tensor) -> Tensor:
        """Return whether a share is negative."""
        return (x < 0).any(-1)

    def distance_to_border(self, x: Tensor) -> Tensor:
        """Return the distance to the nearest point at which a share is 0."""
        return 2 * torch.asin(self._root(x).amin(-1).clamp(max=1.0))

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """Return ``u - x sum(u)``, orthogonal in the metric."""
        return u - x * u.sum(-1, keepdim=True)

    # Metric.

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        root = self._root(x)
        return ((u / root) * (v / root)).sum(-1)

    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        return 2 * self.sphere.dist(self._root(x), self._root(y))

    # Geodesics.

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return self._shares(self.sphere.expmap(*self._lifted(x, u)))

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        root = self._root(x)
        return self._lowered(root, self.sphere.logmap(root, self._root(y)))

    def shoot(self, x: Tensor, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        z, dz = self.sphere.shoot(*self._lifted(x, u), t)
        return self._shares(z), self._lowered(z, dz)

    def geodesic(self, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        z, dz = self.sphere.geodesic(self._root(x), self._root(y), t)
        return self._shares(z), self._lowered(z, dz)

    def transp(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        """Carry ``u`` along the shortest geodesic (parallel transport, an isometry)."""
        root, w = self._lifted(x, u)
        end = self._root(y)
        return self._lowered(end, self.sphere.transp(root, end, w))

    # Bases and volume.

    def tangent_basis(self, x: Tensor) -> Tensor:
        root = self._root(x)
        return root[..., None, :] * self.sphere.tangent_basis(root)

    def divergence_frame(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return an orthonormal basis of the vectors of sum 0, in the plain dot product, twice."""
        basis = contrasts(self.n + 1, x).expand(*x.shape[:-1], self.n, self.n + 1)
        return basis, basis

    def log_volume_derivative(self, x: Tensor, u: Tensor) -> Tensor:
        """The volume has density ``prod_i x_i^(-1/2)``."""
        return -(u / x.clamp(min=_LEAST)).sum(-1) / 2

    def log_det_expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return self.sphere.log_det_expmap(*self._lifted(x, u))

    def random_uniform(
        self,
        *shape: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Return draws from the Dirichlet distribution with all parameters 1/2: squares of uniform unit vectors."""
        return self._shares(self.sphere.random_uniform(*shape, generator=generator, dtype=dtype, device=device))

    @property
    def kernel(self) -> Kernel | None:
        """Von Mises-Fisher densities of the roots and of all their mirror images; None above six shares."""
        return _Mirrored(self) if self.n <= 5 else None

    # Coordinates for networks.

    def embed(self, x: Tensor) -> Tensor:
        """Return the square roots of the shares."""
        return self._root(x)

    def tangent_from_vector(self, x: Tensor, w: Tensor) -> Tensor:
        """Return the projection of ``2 x_i w_i / sqrt(x_i + d)``, d an equal share.

        For shares above d it is about twice the velocity ``w`` of the root; next to the border the velocity of a share
        is in proportion to the share.
        """
        g = w / torch.sqrt(x + 1 / (self.n + 1))
        # A common part of g moves nothing. Without that of the largest share nothing cancels at a corner either.
        largest = x.argmax(-1, keepdim=True).expand(*g.shape[:-1], 1)
        g = g - torch.take_along_dim(g, largest, dim=-1)
        return 2 * x * (g - (x * g).sum(-1, keepdim=True))

    def extra_repr(self) -> str:
        return str(self.n)

    # Parts.

    def _root(self, x: Tensor) -> Tensor:
        return torch.sqrt(x.clamp(min=_LEAST))

    def _lifted(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return the root of ``x``, a unit vector, and its velocity."""
        root = self._root(x)
        return root, u / (2 * root)

    def _lowered(self, root: Tensor, w: Tensor) -> Tensor:
        return 2 * root * w

    def _shares(self, z: Tensor) -> Tensor:
        return z * z


class _Mirrored(Kernel):
    manifold: Simplex

    def __init__(self, manifold: Simplex) -> None:
        super().__init__(manifold)
        self.centre_count = 2 ** (manifold.n + 1)

    def log_normaliser(self, concentration: Tensor) -> Tensor:
        """Half the sphere's: the images' integrals over one orthant add up to that over all of them."""
        return self.manifold.sphere.kernel.log_normaliser(concentration) - math.log(2)

    def embed(self, x: Tensor) -> Tensor:
        """Return square roots, with the sign that `centres` give to mirror images."""
        return torch.sign(x) * torch.sqrt(x.abs())

    def centres(self, x: Tensor) -> Tensor:
        """Return ``x`` with all combinations of signs, ``(*batch, 2^(n + 1), n + 1)``."""
        count = self.manifold.n + 1
        bits = torch.arange(2**count, device=x.device)[:, None] >> torch.arange(count, device=x.device)
        return x[..., None, :] * (1 - 2 * (bits & 1)).to(x.dtype)

    def sample(self, x: Tensor, concentration: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return squares of draws about the root: folded at the border."""
        root = self.manifold.embed(x)
        return self.manifold._shares(self.manifold.sphere.kernel.sample(root, concentration, generator))


def contrasts(k: int, like: Tensor) -> Tensor:
    """Return Helmert's orthonormal contrasts of k things, ``(k - 1, k)``: rows of sum 0.

    Row i has ``1 / sqrt(i (i + 1))`` for the first i things, and balances it at the next.
    """
    i = torch.arange(1, k, dtype=like.dtype, device=like.device)[:, None]
    j = torch.arange(k, device=like.device)
    return torch.where(j < i, 1.0, torch.where(j == i, -i, 0.0)) / torch.sqrt(i * (i + 1))


_LEAST = 1e-30
"""A share that is 0: its root has a reciprocal in single precision."""
