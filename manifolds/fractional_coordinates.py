"""Places of atoms in a crystal's cell."""

import math

import torch
from torch import Tensor

from manifolds.arguments import integer
from manifolds.base import Manifold
from manifolds.flat_torus import FlatTorus
from manifolds.kernel import Kernel
from manifolds.simplex import contrasts


class FractionalCoordinates(Manifold):
    """``k`` atoms in a periodic cell up to a common translation: the torus of their places modulo a group of shifts.

    Points are fractional coordinates ``(k, d)``, in units of the cell's edges, in [-1/2, 1/2). Which origin they have
    counts for nothing: points that differ by a common shift are one, and any of them may stand for it, so compare by
    `dist`. Tangent vectors have mean 0 over the atoms: they are the horizontal ones, along which no shift goes.

    The metric is that of the quotient, ``sum |u_i|^2`` of horizontal vectors; ``dist`` is the least over all shifts and
    all ways round the cell, found exactly. The space is flat and compact, of dimension ``(k - 1) d``; the volume is
    ``k^(-d / 2)``, one over that of the shifts. ``injectivity_radius`` is ``sqrt(1 - 1 / k) / 2``, half of the way of
    one atom round the cell with the others moving back. Where several ways are shortest, ``logmap`` takes always the
    same. Metric and volume are in fractions: lengths in a cell that is no cube are a matter of the cell (`SPD`).

    Atoms are told apart: permutations are no symmetry here.

    Args:
        k: number of atoms, at least 2.
        d: dimension of the cell.

    References:
        Jiao et al., Crystal Structure Prediction by Joint Equivariant Diffusion, 2023, arXiv:2309.04475; Miller et al.,
        FlowMM: Generating Materials with Riemannian Flow Matching, 2024, arXiv:2406.04713, section 4 (the torus
        modulo translations; there with the mean of the wrapped differences, which is not always the shortest way).
    """

    points_are_classes = True

    def __init__(self, k: int, d: int = 3) -> None:
        k, d = (integer(type(self).__name__, name, value) for name, value in (("k", k), ("d", d)))
        if k < 2:
            raise ValueError(f"FractionalCoordinates: takes at least 2 atoms, got {k}; one alone can be at the origin")
        super().__init__((k - 1) * d, (k, d))
        self.k, self.d = k, d
        self.volume = k ** (-d / 2)
        self.injectivity_radius = math.sqrt(1 - 1 / k) / 2

    # Projections.

    def projx(self, x: Tensor) -> Tensor:
        """Return coordinates in [-1/2, 1/2): no shift is undone, for no choice of an origin is continuous."""
        return _wrapped(x)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return _without_drift(u).expand(torch.broadcast_shapes(x.shape, u.shape))

    def _off(self, x: Tensor) -> Tensor:
        # The half, which tables and grids hold, is the same point as minus the half, and no edge off.
        return (x.abs() - 0.5).clamp(min=0)

    @property
    def _off_remedy(self) -> str:
        return "wrap fractions from 0 to 1 with FractionalCoordinates.projx"

    # Geodesics.

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return _wrapped(x + u)

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the shortest horizontal vector from ``x`` that ends at ``y`` or at a shift of it.

        Along each axis of the cell, the best shift leaves the differences on a part of the circle from one of them
        round to the one before it: of the k ways to cut the circle, that of least variance is taken.
        """
        step = _wrapped(y - x)
        with torch.no_grad():
            turns = _turns_of_least_variance(step)
        return _without_drift(step + turns)

    def shoot(self, x: Tensor, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        x_t = _wrapped(x + self.lift(t) * u)
        return x_t, u.expand_as(x_t)

    @property
    def transp_is_isometric(self) -> bool:
        """True: all tangent spaces are one, and the default transport, the projection to it, is parallel."""
        return True

    # Bases and volume.

    def tangent_basis(self, x: Tensor) -> Tensor:
        """Return moves of some atoms against the next, along each axis."""
        rows = contrasts(self.k, x)
        eye = torch.eye(self.d, dtype=x.dtype, device=x.device)
        basis = (rows[:, None, :, None] * eye[None, :, None, :]).flatten(0, 1)
        return basis.expand(*self.batch_shape(x), self.dim, self.k, self.d)

    def log_det_expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return torch.zeros_like((x + u)[..., 0, 0])

    def random_uniform(
        self,
        *shape: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        return torch.rand(*shape, self.k, self.d, generator=generator, dtype=dtype, device=device) - 0.5

    @property
    def kernel(self) -> Kernel:
        """Products of von Mises densities of the places relative to the first atom."""
        return _RelativeVonMises(self)

    # Coordinates for networks.

    def embed(self, x: Tensor) -> Tensor:
        """Return cosines and sines of the places relative to the first atom, which no common shift changes."""
        angle = self._relative_angles(x)
        return torch.cat([torch.cos(angle), torch.sin(angle)], dim=-1)

    @property
    def embed_dim(self) -> int:
        return 2 * self.dim

    def extra_repr(self) -> str:
        return f"{self.k}, {self.d}"

    def _relative_angles(self, x: Tensor) -> Tensor:
        return 2 * math.pi * (x[..., 1:, :] - x[..., :1, :]).flatten(-2)


class _RelativeVonMises(Kernel):
    manifold: FractionalCoordinates

    def log_normaliser(self, concentration: Tensor) -> Tensor:
        """That of the torus of relative angles, in units of which the volume is ``(2 pi)^-dim k^(-d / 2)``."""
        m = self.manifold
        angles = FlatTorus(m.dim)
        unit = math.log(m.volume or 1.0) - math.log(angles.volume or 1.0)
        return angles.kernel.log_normaliser(concentration) + unit

    def sample(self, x: Tensor, concentration: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return places about those of ``x``, the first atom where it is."""
        m = self.manifold
        centre = _wrapped(m._relative_angles(x) / (2 * math.pi)) * (2 * math.pi)
        drawn = FlatTorus(m.dim).kernel.sample(centre, concentration, generator) / (2 * math.pi)
        first = x[..., :1, :]
        others = drawn.unflatten(-1, (m.k - 1, m.d))
        first = first.expand(*others.shape[:-2], 1, m.d)
        return _wrapped(torch.cat([first, first + others], dim=-2))


def _wrapped(x: Tensor) -> Tensor:
    """Return ``x`` modulo 1 in [-1/2, 1/2), with derivative 1."""
    inside = x - torch.round(x.detach())
    return torch.where(inside >= 0.5, inside - 1, inside)


def _without_drift(u: Tensor) -> Tensor:
    """Return vectors ``(*batch, k, d)`` less their mean over the atoms."""
    return u - u.mean(-2, keepdim=True)


def _turns_of_least_variance(step: Tensor) -> Tensor:
    """Return 0 or 1 for each atom: the turns to add to differences in [-1/2, 1/2), so that they vary least.

    Adding 1 to the j least of k sorted numbers s changes the sum of squares about the mean by
    ``2 (s_1 + ... + s_j) + j - (2 j S + j^2) / k`` with S the sum of all.
    """
    k = step.shape[-2]
    ordered, order = step.sort(dim=-2, stable=True)
    j = torch.arange(1, k, dtype=step.dtype, device=step.device)[:, None]
    total = ordered.sum(-2, keepdim=True)
    change = 2 * ordered.cumsum(-2)[..., :-1, :] + j - (2 * j * total + j * j) / k
    change = torch.cat([torch.zeros_like(total), change], dim=-2)
    count = change.argmin(-2, keepdim=True)
    rank = order.argsort(dim=-2)
    return (rank < count).to(step.dtype)
