"""The Stiefel manifold of orthonormal frames."""

import math

import torch
from torch import Tensor

from manifolds.arguments import integer
from manifolds.base import Manifold
from manifolds.matrices.orthonormal import (
    canonical_displacement,
    canonical_end,
    canonical_geodesic,
    complement,
    haar,
    polar,
)
from manifolds.matrices.stiefel_log import Connection, connect, entries, from_entries
from manifolds.numerics import differentiated, log_frames_volume
from manifolds.numerics.blocks import in_blocks


class Stiefel(Manifold):
    """Matrices with orthonormal columns, St(n, p), with the canonical metric tr(U' (I - X X' / 2) V).

    Points are ``(n, p)``. A tangent vector is ``X A + K`` with A skew and ``X' K = 0``; its squared length is
    ``|A|^2 / 2 + |K|^2``, so that a turn of two columns into each other by an angle a has length a, as has a turn of
    one column out of their span. (The metric of the ambient space counts the former twice.) ``Stiefel(n, 1)`` is the
    sphere; ``Stiefel(n, n - 1)`` is SO(n), whose last column follows from the others.
    The volume is the product of the areas of the unit spheres in n, n - 1, ... n - p + 1 dimensions.

    ``logmap`` is found by a solver, in a fixed number of iterations: see `solve_logmap` for whether it converged. It is
    a shortest geodesic where the distance is at most ``logmap_radius``: the stated injectivity radius for p = 1 and
    p = n - 1, and 0.95 of it elsewhere (as tested, not as proven). Farther apart it is some connecting geodesic, and
    next to the cut locus it may fail to arrive. ``injectivity_radius`` is pi for p = 1 and p = n - 1. Elsewhere it is
    sqrt(4/5) pi, the proven bound from curvature at most 5/4; the true one is at most 0.914 pi. First and second
    derivatives of ``logmap`` and ``dist`` are exact; third ones are not. Transport is the default, a projection.

    Args:
        n: dimension of the space that the columns lie in.
        p: number of columns, less than n.

    References:
        Edelman, Arias, Smith, The Geometry of Algorithms with Orthogonality Constraints, 1998,
        arXiv:physics/9806030, section 2.4 (metric, geodesics).
        Zimmermann, Stoye, High curvature means low-rank: on the sectional curvature of Grassmann and Stiefel manifolds
        and the underlying matrix trace inequalities, 2024, arXiv:2403.01879 (curvature).
        Absil, Mataigne, The ultimate upper bound on the injectivity radius of the Stiefel manifold, 2024,
        arXiv:2403.02079 (the two bounds on the injectivity radius).
    """

    def __init__(self, n: int, p: int) -> None:
        n, p = (integer(type(self).__name__, name, value, None) for name, value in (("n", n), ("p", p)))
        if not 1 <= p < n:
            raise ValueError(
                f"Stiefel: needs 1 <= p < n, got n {n} and p {p}; square matrices have two components, take "
                "Stiefel(n, n - 1) for the rotations of n dimensions, or SO3() in three"
            )
        super().__init__(n * p - p * (p + 1) // 2, (n, p))
        self.n = n
        self.p = p
        self.volume = math.exp(log_frames_volume(n, p))
        self.injectivity_radius = math.pi * (1.0 if p in (1, n - 1) else math.sqrt(0.8))
        # Near the bound a conjugate point may be, where the solver's equations lose rank.
        self.logmap_radius = self.injectivity_radius * (1.0 if p in (1, n - 1) else 0.95)

    # Projections.

    def projx(self, x: Tensor) -> Tensor:
        """Return the nearest matrix with orthonormal columns: the polar factor; one of them where it is not unique."""
        return polar(x)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        inner = x.mT @ u
        return u - x @ ((inner + inner.mT) / 2)

    # Metric.

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return (u * v).sum((-2, -1)) - ((x.mT @ u) * (x.mT @ v)).sum((-2, -1)) / 2

    # Geodesics.

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return canonical_end(x, *_split(x, u))

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the initial velocity of a geodesic from ``x`` to ``y``, the shortest within ``logmap_radius``."""
        return self._solve(x, y)[0]

    def solve_logmap(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``logmap(x, y)``, and whether the solver converged, per sample.

        Where it did, the geodesic ends at ``y`` to rounding. Where it did not, the vector is the best found. Of pairs
        drawn uniformly, those near each other's cut locus do not: a few in a thousand, one or two in a hundred for p of
        4 and more.

        Returns:
            Tangent vectors ``(*batch, n, p)`` and booleans ``(*batch)``.
        """
        u, last = self._solve(x, y)
        # The last step was a Newton step: what remains is its square.
        return u, last < torch.finfo(u.dtype).eps ** 0.5

    def shoot(self, x: Tensor, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return canonical_geodesic(x, *_split(x, u), self.lift(t))

    # Bases and volume.

    def tangent_basis(self, x: Tensor) -> Tensor:
        """Return ``X (E_ij - E_ji)``, then the columns of a basis of the complement in each column's place."""
        return torch.cat([self._turns(x), out_of_span(x)], dim=-3)

    def divergence_frame(self, x: Tensor) -> tuple[Tensor, Tensor]:
        turns, out = self._turns(x), out_of_span(x)
        # In the ambient metric, turns have length sqrt 2.
        return torch.cat([turns, out], dim=-3), torch.cat([turns / 2, out], dim=-3)

    def log_volume_derivative(self, x: Tensor, u: Tensor) -> Tensor:
        """Zero: the volume is that of the ambient metric times ``2^(-p (p - 1) / 4)``."""
        return torch.zeros_like((x * u)[..., 0, 0])

    def random_uniform(
        self,
        *shape: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Return draws from the one distribution that no rotation changes."""
        return haar(*shape, self.n, self.p, generator=generator, dtype=dtype, device=device)

    def extra_repr(self) -> str:
        return f"{self.n}, {self.p}"

    # Parts.

    def _solve(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logarithm, and the length of the last Newton step, a block of the batch at a time.

        The solver holds forty matrices for each pair of points.
        """
        x, y = torch.broadcast_tensors(x, y)
        return in_blocks(self._solve_block, x.shape[:-2], 40 * self.n * self.p, x, y)

    def _solve_block(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Do what `_solve` does, for the whole batch at once.

        A Newton step with the exact derivative of the exponential map, from a constant solution, has the value and the
        first derivatives of the implicit function; every further step, with that derivative kept, those of one order
        more.
        """
        found = connect(x, y)
        p = self.p
        k = found.frame[..., p:] @ found.generator[..., p:, :p]
        u = x @ found.generator[..., :p, :p] + k - x @ (x.mT @ k)
        correction = self._correction(found, x, y, u)
        last = torch.linalg.vector_norm(correction.detach(), dim=(-2, -1))
        u = self.proju(x, u + correction)
        if differentiated(x) or differentiated(y):
            again = self.proju(x, self._correction(found, x, y, u))
            u = u + (again - again.detach())
        return u, last

    def _correction(self, found: Connection, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        """Return the Newton correction of the velocity ``u``."""
        p = self.p
        missing = (y - x) - canonical_displacement(x, *_split(x, u))
        within = found.frame.mT @ missing
        turned = found.turn.mT @ within
        turned = torch.cat([(turned[..., :p, :] - turned[..., :p, :].mT) / 2, turned[..., p:, :]], dim=-2)
        values = (found.inverse @ entries(turned, p)[..., None])[..., 0]
        across = (missing - found.frame @ within) @ found.inverse_across
        return found.frame @ from_entries(values, found.frame.shape[-1], p)[..., :p] + across

    def _turns(self, x: Tensor) -> Tensor:
        """Return the tangent vectors that turn one column into another, ``(*batch, p (p - 1) / 2, n, p)``."""
        rows, columns = torch.tril_indices(self.p, self.p, offset=-1, device=x.device)
        eye = torch.eye(self.p, dtype=x.dtype, device=x.device)
        units = eye[rows][:, :, None] * eye[columns][:, None, :]
        return x[..., None, :, :] @ (units - units.mT)


def out_of_span(x: Tensor) -> Tensor:
    """Return an orthonormal basis of the matrices ``k`` with ``x' k = 0``, ``(*batch, (n - p) p, n, p)``."""
    n, p = x.shape[-2:]
    eye = torch.eye(p, dtype=x.dtype, device=x.device)
    basis = complement(x).mT[..., :, None, :, None] * eye[:, None, :]
    return basis.reshape(*x.shape[:-2], (n - p) * p, n, p)


def _split(x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Return the skew A and the K orthogonal to ``x`` of a tangent vector ``x A + K``."""
    inner = x.mT @ u
    return (inner - inner.mT) / 2, u - x @ inner
