"""Densities on meshes: piecewise linear ones, fitted to points by the heat kernel."""

import math
from typing import Any, Self

import torch
from torch import Tensor

from manifolds import Mesh
from manifolds.arguments import check_instance, integer
from manifolds.numerics.constants import Constants
from manifolds.numerics.precision import at_least_float32
from rfm.arrays import points_of, tensor_of
from rfm.sources.base import Source, draws
from rfm.sources.mixture_weights import likeliest_weights

_FACES = 20_000
"""Faces of the mesh that a density is fitted on, at least: a finer one gains a thousandth of a nat."""

_LEAST_SHARE = 1e-3
"""Share of a uniform background, at least, so that no point is impossible."""

_TIMES = 9

_FOLD = 5
"""One point in so many decides on the time, where there are no validation points."""


class MeshDensity(Source, Constants):
    """A density on a mesh that is linear in every face of the mesh, or of a finer one of the same surface.

    Samples and log-densities are exact, and so is its integral, 1.

    Args:
        manifold: the mesh.
        values: at the vertices of ``manifold.subdivided(subdivisions)``, not negative, ``(V,)``; divided by the
            integral, unless that is 1 already.
        subdivisions: how often each face is cut into four.

    Raises:
        ValueError: for values that are no density, or of another number.
    """

    values: Tensor
    _cumulative: Tensor

    def __init__(self, manifold: Mesh, values: Tensor, subdivisions: int = 0) -> None:
        check_instance("MeshDensity", "manifold", manifold, Mesh, "Mesh(vertices, faces)")
        super().__init__(manifold)
        self.subdivisions = integer("MeshDensity", "subdivisions", subdivisions, 0)
        self.fine = manifold.subdivided(self.subdivisions) if self.subdivisions else manifold
        p = tensor_of("MeshDensity", "values", values, torch.float64).detach()
        count = len(self.fine.vertices)
        if p.shape != (count,) or not bool((p.isfinite() & (p >= 0)).all()) or not bool((p > 0).any()):
            raise ValueError(
                f"MeshDensity: values must be one finite number for each of the {count} vertices of the mesh that is "
                f"subdivided {self.subdivisions} times, none negative and not all 0, got shape {tuple(p.shape)}; "
                "correct them"
            )
        areas = self.fine.vertex_areas().to(p)
        total = float(areas @ p)
        # As they are where they come from a saved density, so that saving does not change them.
        self.constant("values", p if abs(total - 1) <= 1e-14 * count else p / total)
        at_corners = self.values[self.fine.faces]
        self.constant("_cumulative", (self.fine.face_areas() * at_corners.mean(-1)).cumsum(0))

    @classmethod
    def fit(
        cls,
        manifold: Mesh,
        train: Tensor,
        validation: Tensor | None = None,
        *,
        sample_weights: Tensor | None = None,
        validation_weights: Tensor | None = None,
        times: Tensor | None = None,
        subdivisions: int | None = None,
        corrected: bool = True,
    ) -> Self:
        """Return the density of points that the heat kernel makes, for the time that makes validation likeliest.

        The points' masses flow as heat for a time t, a kernel of standard deviation ``sqrt(2 t)`` that follows the
        surface. Corrected, its bias is of fourth order in the width: the density is multiplied by the smoothed ratio of
        the points to it (Jones, Linton & Nielsen, A simple bias reduction method for density estimation, Biometrika 82
        (1995), 327-338), so that kernels may be broader. The share of a uniform background is chosen too.

        Args:
            manifold: a connected mesh.
            train: points ``(n, 3)``.
            validation: points to choose by, ``(m, 3)``; by default one in five of the points, drawn, and for the
                density then all.
            sample_weights: of the points ``(n,)``.
            validation_weights: of the validation points ``(m,)``.
            times: to choose from ``(k,)``, in squared units of length; by default nine, geometrically from the area of
                one face to a hundredth of that of the surface.
            subdivisions: of the mesh; by default so many that it has 20,000 faces.
            corrected: False for the heat kernel alone.

        Raises:
            ValueError: for what is no mesh, or no points on it.
        """
        check_instance("MeshDensity.fit", "manifold", manifold, Mesh, "Mesh(vertices, faces)")
        if subdivisions is None:
            subdivisions = max(0, math.ceil(math.log(_FACES / len(manifold.faces), 4)))
        fine = manifold.subdivided(subdivisions) if subdivisions else manifold
        points = _Located.of(fine, train, sample_weights)
        if validation is None:
            held = torch.randperm(len(train), generator=torch.Generator().manual_seed(0)) % _FOLD == 0
            fitted, scored = points.take(~held), points.take(held)
        else:
            fitted, scored = points, _Located.of(fine, validation, validation_weights)
        areas, volume = fine.vertex_areas(), fine.volume
        assert volume is not None
        if times is None:
            times = torch.logspace(math.log10(volume / len(fine.faces) / 8), math.log10(volume / 300), _TIMES)
        best: tuple[float, float, float] | None = None
        for time in times.tolist():
            p = _smoothed(fine, areas, fitted, time, corrected)
            log_p = torch.stack(
                [scored.at(p).clamp(min=1e-300).log(), torch.full_like(scored.weights, -math.log(volume))], -1
            )
            share = float(likeliest_weights(log_p, scored.weights, 100)[-1])
            share = min(max(_LEAST_SHARE, share), 1 - _LEAST_SHARE)
            mixed = torch.logaddexp(log_p[:, 0] + math.log1p(-share), log_p[:, 1] + math.log(share))
            score = float(scored.weights @ mixed)
            if best is None or score > best[0]:
                best = score, time, share
        assert best is not None
        _, time, share = best
        p = _smoothed(fine, areas, points, time, corrected)
        found = cls(manifold, (1 - share) * p + share / volume, subdivisions)
        found.time, found.background = time, share
        return found

    time: float | None = None
    """For how long heat flowed in `fit`."""
    background: float | None = None
    """The share of the uniform background in `fit`."""

    def sample(
        self,
        shape: int | tuple[int, ...],
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        size = draws(self, shape, dtype)
        own = self._cumulative.device
        like: dict[str, Any] = {"dtype": torch.float64, "device": own, "generator": generator}
        face = torch.searchsorted(self._cumulative, torch.rand(size, **like) * self._cumulative[-1], right=True)
        face = face.clamp(max=len(self._cumulative) - 1)
        # In a face the density is a mixture of the functions that are linear and 1 at one corner.
        share = self.values[self.fine.faces[face]].cumsum(-1)
        corner = (torch.rand(size, **like)[..., None] * share[..., -1:] > share).sum(-1).clamp(max=2)
        spacings = torch.rand(*size, 3, **like).sort(-1).values
        b = torch.diff(
            spacings, dim=-1, prepend=torch.zeros_like(spacings[..., :1]), append=torch.ones_like(spacings[..., :1])
        )
        # Dirichlet (2, 1, 1), with the 2 at the corner.
        b = torch.stack([b[..., 0] + b[..., 1], b[..., 2], b[..., 3]], -1)
        order = (torch.arange(3, device=own) - corner[..., None]) % 3
        x = self.fine.position(face, b.gather(-1, order))
        return x.to(dtype=dtype or torch.get_default_dtype(), device=device)

    def log_prob(self, x: Tensor) -> Tensor:
        x = points_of("MeshDensity", self.manifold, x)
        return self.density(x).log()

    def density(self, x: Tensor) -> Tensor:
        """Return the density at points ``(*batch, 3)``, per unit of area, ``(*batch)``."""
        x = x.to(at_least_float32(x.dtype))
        return self.fine.interpolate(self.values, x)

    def integral(self) -> float:
        """Return the integral of the density as it is evaluated, by quadrature over the faces: 1 but for rounding."""
        faces = torch.arange(len(self.fine.faces), device=self.values.device)[:, None]
        inner = self.values.new_full((3, 3), 1 / 6).fill_diagonal_(2 / 3)
        points = self.fine.position(faces, inner.expand(len(faces), 3, 3))
        return float(self.fine.face_areas() @ self.density(points).mean(-1))

    def entropy(self) -> float:
        """Return minus the mean of `log_prob`, in nats, by quadrature over the faces."""
        p = self.values[self.fine.faces] @ _QUADRATURE[:, :3].T.to(self.values)
        means = (-torch.special.xlogy(p, p)) @ _QUADRATURE[:, 3].to(self.values)
        return float((self.fine.face_areas() * means).sum())

    def extra_repr(self) -> str:
        return f"{len(self.values)} vertices"


class _Located:
    """Points in faces, with shares that add up to 1."""

    def __init__(self, corners: Tensor, barycentric: Tensor, weights: Tensor, count: int) -> None:
        self.corners, self.barycentric, self.weights, self.count = corners, barycentric, weights / weights.sum(), count

    @classmethod
    def of(cls, mesh: Mesh, points: Tensor, weights: Tensor | None) -> "_Located":
        x = points_of("MeshDensity.fit", mesh, points).detach().double()
        if x.ndim != 2 or not len(x):
            raise ValueError(
                f"MeshDensity.fit: points on a mesh have shape (n, 3) with n at least 1, got {tuple(x.shape)}; "
                "reshape them"
            )
        w = (
            torch.ones(len(x), dtype=torch.float64)
            if weights is None
            else tensor_of("MeshDensity.fit", "weights", weights)
        )
        if w.shape != (len(x),) or not bool((w.isfinite() & (w >= 0)).all()) or not bool((w > 0).any()):
            raise ValueError(
                f"MeshDensity.fit: weights must be one finite number for each of the {len(x)} points, none negative "
                f"and not all 0, got shape {tuple(w.shape)}; correct them"
            )
        face, barycentric = mesh.locate(x)
        if not bool((mesh.position(face, barycentric) - x).norm(dim=-1).max() <= 1e-3 * (1 + x.norm(dim=-1).min())):
            mesh.check_point(x, tol=1e-3)
        return cls(mesh.faces[face], barycentric, w.detach().double().to(x.device), len(mesh.vertices))

    def take(self, rows: Tensor) -> "_Located":
        return _Located(self.corners[rows], self.barycentric[rows], self.weights[rows], self.count)

    def at(self, values: Tensor) -> Tensor:
        """Return a piecewise linear function at the points."""
        return (values[self.corners] * self.barycentric).sum(-1)

    def masses(self, factors: Tensor) -> Tensor:
        """Return the points' masses times factors ``(n)``, shared among the vertices about them, ``(V)``."""
        shares = (self.weights * factors)[:, None] * self.barycentric
        return torch.zeros(self.count, dtype=shares.dtype, device=shares.device).index_add(
            0, self.corners.flatten(), shares.flatten()
        )


def _smoothed(mesh: Mesh, areas: Tensor, points: _Located, time: float, corrected: bool) -> Tensor:
    """Return the density of points smoothed for a time, at the vertices; its integral is 1."""
    flow = mesh.heat_flow(time)
    floor = _LEAST_SHARE / float(areas.sum())
    p = flow(points.masses(torch.ones_like(points.weights)) / areas)
    if corrected:
        p = p.clamp(min=floor)
        ratio = flow(points.masses(1 / points.at(p)) / areas)
        p = p * ratio
    p = p.clamp(min=0)
    return p / (areas @ p)


def _symmetric_rule() -> Tensor:
    """Return barycentric points and weights of a rule for integrands with a logarithm, ``(112, 4)``.

    In 16 parts of a triangle, the rule with 7 points that is exact to degree 5 (Radon 1948).
    """
    root = math.sqrt(15)
    a, b = (6 - root) / 21, (6 + root) / 21
    wa, wb = (155 - root) / 1200, (155 + root) / 1200
    rule = [(1 / 3, 1 / 3, 1 / 3, 9 / 40)]
    for c, w in ((a, wa), (b, wb)):
        rule += [(c, c, 1 - 2 * c, w), (c, 1 - 2 * c, c, w), (1 - 2 * c, c, c, w)]
    base = torch.tensor(rule, dtype=torch.float64)
    parts = torch.eye(3, dtype=torch.float64)[None]
    for _ in range(2):
        i, j, k = parts.unbind(1)
        x, y, z = (j + k) / 2, (k + i) / 2, (i + j) / 2
        parts = torch.cat([torch.stack(t, 1) for t in ((i, z, y), (j, x, z), (k, y, x), (x, y, z))])
    points = (base[None, :, :3] @ parts).reshape(-1, 3)
    return torch.cat([points, (base[:, 3] / len(parts)).repeat(len(parts))[:, None]], -1)


_QUADRATURE = _symmetric_rule()
