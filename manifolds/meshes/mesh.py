"""A surface made of triangles."""

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from manifolds.base import Manifold
from manifolds.meshes.closest_triangle import closest_on_triangles, closest_triangle
from manifolds.meshes.connections import Connection, connect
from manifolds.meshes.defects import checked_mesh
from manifolds.meshes.flux import Flux, flux_of_divergence
from manifolds.meshes.heat import HeatFlow
from manifolds.meshes.laplacian import MeshLaplacian
from manifolds.meshes.mesh_spectrum import MeshSpectrum
from manifolds.meshes.straightest import walk
from manifolds.meshes.subdivision import midpoint_subdivision
from manifolds.meshes.surface import Surface, rows
from manifolds.meshes.tables import MeshTables
from manifolds.numerics import differentiated, safe_norm, tolerance


class Logarithm(NamedTuple):
    """What a search for paths found, sample by sample."""

    u: Tensor
    """Initial velocities ``(*batch, 3)``."""
    converged: Tensor
    """Whether the path is locally shortest, ``(*batch)``."""
    bends: Tensor
    """At how many vertices the path bends, ``(*batch)``; where at none it is the straightest geodesic of ``u``."""


class Mesh(Manifold):
    """A surface in R^3 made of triangles: a point is a position on it, with the metric of its faces.

    Closed or with a border; in one part, every edge with one or two faces that are turned alike. Read one from a file
    with ``rfm.datasets.read_mesh``.

    **Geodesics.** `expmap` follows the straightest geodesic: straight in every face, and straight on over every edge
    with its two faces laid flat. One that meets a vertex passes it on one side; one that comes to a border ends there.
    `logmap` finds a locally shortest path: it is never shorter than the distance, equal to it for most pairs, and
    seldom more than a few percent longer. `solve_logmap` says where the search ended.

    **Which laws hold.** A polyhedron is flat but at its vertices, where all of its curvature sits. Projections, metric,
    volume, transport, ``expmap`` and its derivatives are those of any manifold. But where the faces about a vertex have
    angles of more than 2 pi together, paths behind it go through it and bend there: straightest geodesics from the
    other side do not reach these points. There ``expmap(x, logmap(x, y))`` is not ``y``, though ``geodesic(x, y, 1)``
    is. And behind a vertex with angles of less than 2 pi shortest paths arrive on both sides of it, so that a cut locus
    begins there: no injectivity radius holds for all points, none is stated, and logarithms jump at lines which are
    everywhere on a fine mesh. Positions, which `embed` returns, have a kink where a geodesic crosses an edge. And the
    triangle inequality holds as far as paths are the shortest ones.

    **Fields.** Networks' ambient vectors become tangent in a way that keeps the flux continuous over edges, see
    `tangent_from_vector`. A plain function that calls ``proju`` instead does not: its flow loses mass at the edges, of
    which the divergence, that of the faces, knows nothing.

    Steps of solvers go along the surface, for which ``has_kinks`` is set: projected ones fall short at edges.

    Differentiation treats the faces that a point and a path lie in as given. There is no `kernel`: the normaliser of
    one would depend on its centre. `rfm.sources.MeshDensity` smooths points by the heat flow of the surface instead.

    Args:
        vertices: positions ``(V, 3)``, kept in float64.
        faces: indices of the corners of the faces ``(F, 3)``, all turned alike.
        closed: whether a border is an error.
        robust: whether spectrum and heat flow are those of the intrinsic Delaunay triangulation of the surface, for
            meshes with thin or obtuse faces; by robust-laplacian.

    Raises:
        ValueError: for what is no such surface, with what is wrong, where, and the remedy.

    References:
        Polthier & Schmies, Straightest geodesics on polyhedral surfaces, 1998, doi:10.1145/1185657.1185664.
    """

    vertices: Tensor
    faces: Tensor
    has_kinks = True

    def __init__(self, vertices: Tensor, faces: Tensor, *, closed: bool = False, robust: bool = False) -> None:
        super().__init__(2, (3,))
        vertices, faces = checked_mesh(vertices, faces, closed)
        self.closed, self.robust = bool(closed), bool(robust)
        self.register_buffer("vertices", vertices, persistent=False)
        self.register_buffer("faces", faces, persistent=False)
        self._tables = MeshTables(vertices, faces, self.robust)
        self.volume = float(self._surface.area.sum())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        exact = self.vertices
        super()._apply(fn, recurse)
        self.vertices = exact.to(self.vertices.device)
        if self.vertices.device != exact.device:
            self._tables = MeshTables(self.vertices, self.faces, self.robust)
        return self

    @property
    def laplacian(self) -> MeshLaplacian:
        """The Laplacian of functions given at the vertices: its matrices, spectrum and solves."""
        return self._tables.laplacian

    @property
    def has_border(self) -> bool:
        """Whether an edge has a face on one side only."""
        return bool((self._surface.neighbour < 0).any())

    @property
    def _surface(self) -> Surface:
        return self._tables.surface

    # Where points are.

    def closest_face(self, x: Tensor) -> Tensor:
        """Return the index of the face that is closest to each ambient point, ``(*batch)``; of several, the first."""
        tree = self._tables.tree
        corners, boxes = self._surface.corners.to(x.dtype), [b.to(x.dtype) for b in tree.boxes]
        return closest_triangle(x.detach().contiguous(), corners, tree.leaves, boxes)

    def locate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the closest face ``(*batch)`` and the barycentric coordinates ``(*batch, 3)`` of the closest point."""
        face = self.closest_face(x)
        return face, closest_on_triangles(x, rows(self._surface.corners, face).to(x.dtype))[0]

    def position(self, face: Tensor, barycentric: Tensor) -> Tensor:
        """Return the points with these barycentric coordinates ``(*batch, 3)`` in faces ``(*batch)``."""
        corners = rows(self._surface.corners, face).to(barycentric.dtype)
        return (barycentric[..., None] * corners).sum(-2)

    # Projections.

    def projx(self, x: Tensor) -> Tensor:
        """Return the closest point of the surface, by a tree of boxes about its faces.

        On the surface the derivative is the projection to the face's plane, on its edges too, where that is the one of
        the first of the faces; elsewhere it is that of the closest point, which may stay on an edge or a vertex.
        """
        face, barycentric = self.locate(x)
        y = self.position(face, barycentric)
        if not differentiated(x):
            return y
        fixed, size = y.detach(), x.detach().abs().amax(-1, keepdim=True)
        on = (x.detach() - fixed).abs().amax(-1, keepdim=True) <= tolerance(x.dtype) * size
        along = (rows(self._tables.projector, face).to(x.dtype) @ (x - x.detach())[..., None])[..., 0]
        return torch.where(on, fixed + along, y)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        normal = self.normal(x)
        return u - (u * normal).sum(-1, keepdim=True) * normal

    def normal(self, x: Tensor) -> Tensor:
        """Return the unit normal of the face that each point lies in, ``(*batch, 3)``."""
        return rows(self._surface.normal, self.closest_face(x)).to(x.dtype)

    def tangent_basis(self, x: Tensor) -> Tensor:
        return rows(self._surface.frame, self.closest_face(x)).to(x.dtype)

    # Geodesics.

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return self.shoot(x, u, u.new_ones(()))[0]

    def shoot(self, x: Tensor, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        step = t[..., None] * u
        face = self.closest_face(x)
        y, _, turn, left = walk(self._surface, x, step, face)
        turn = turn @ rows(self._tables.projector, face).to(x.dtype)
        # Laid flat the geodesic ends at x + t u: its derivatives are turned ones of that sum.
        change = (x - x.detach()) + (step - step.detach())
        going = (left <= 0)[..., None].to(x.dtype)
        return y + going * (turn @ change[..., None])[..., 0], going * (turn @ u.expand_as(y)[..., None])[..., 0]

    def pull_back(self, x: Tensor, u: Tensor, y: Tensor, v: Tensor) -> Tensor:
        # Along the geodesic of u itself, which passes a vertex on the side that expmap does: its faces laid flat.
        turn = walk(self._surface, x, u, self.closest_face(x))[2]
        return self.proju(x, (turn.mT @ v[..., None])[..., 0])

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the initial velocity of a locally shortest path from ``x`` to ``y``, as long as the path.

        Where the path bends at a vertex on its way, the straightest geodesic with this velocity goes straight on there
        and does not reach ``y``; `geodesic` does. NaN where no path was found: on different parts of a mesh.
        """
        return self.solve_logmap(x, y).u

    def solve_logmap(self, x: Tensor, y: Tensor) -> "Logarithm":
        """Return the logarithm, whether the path is locally shortest, and at how many vertices it bends."""
        x, y = torch.broadcast_tensors(x, y)
        found, face_x, _ = self._connected(x, y, x.new_zeros(x.shape[:-1]))
        first, length = self._first_and_length(found, x, y)
        u = (rows(self._tables.projector, face_x).to(x.dtype) @ first[..., None])[..., 0]
        stretch = torch.where(found.bends > 0, length / safe_norm(u).clamp(min=torch.finfo(x.dtype).tiny), 1.0)
        u = torch.where(torch.isfinite(found.length)[..., None], u * stretch[..., None], torch.nan)
        return Logarithm(u, found.converged, found.bends)

    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = torch.broadcast_tensors(x, y)
        found, _, _ = self._connected(x, y, x.new_zeros(x.shape[:-1]))
        return self._first_and_length(found, x, y)[1]

    def geodesic(self, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return position and velocity at time ``t`` of the path that `logmap` finds, which reaches ``y`` at time 1.

        Where it bends at vertices, its velocity turns there and keeps its size.
        """
        shape = torch.broadcast_shapes(x.shape[:-1], y.shape[:-1], t.shape)
        x, y, t = x.expand(*shape, 3), y.expand(*shape, 3), t.expand(shape)
        found, _, _ = self._connected(x, y, t)
        first, length = self._first_and_length(found, x, y)
        velocity = length[..., None] * found.direction
        # On a part between two bends a point only moves along it, by the change of t times the length less that of the
        # first part; on the first and the last one it is on a straightest geodesic from an end.
        along = t * length - torch.where(found.bends > 0, safe_norm(first), torch.zeros_like(length))
        middle = found.position + (along - along.detach())[..., None] * found.direction
        if not (differentiated(x) or differentiated(y)):
            return middle, velocity
        early, v_early = self.shoot(x, self.logmap(x, y), t)
        late, v_late = self.shoot(y, self.logmap(y, x), 1 - t)
        is_first, is_last = (found.part == 0)[..., None], ((found.part == found.bends) & (found.bends > 0))[..., None]
        moved = torch.where(is_first, early, torch.where(is_last, late, middle))
        v = torch.where(is_first, v_early, torch.where(is_last, -v_late, velocity))
        # The values of the path itself: at a vertex a geodesic from an end may take another side.
        fixed = found.length[..., None] * found.direction
        return found.position + (moved - moved.detach()), fixed + (v - v.detach())

    def transp(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        """Carry ``u`` along the path that `logmap` finds, in the faces that it crosses laid flat: an isometry."""
        shape = torch.broadcast_shapes(x.shape, y.shape, u.shape)
        x, y, u = x.expand(shape), y.expand(shape), u.expand(shape)
        found, _, _ = self._connected(x, y, x.new_zeros(shape[:-1]))
        return (found.turn @ u[..., None])[..., 0]

    def _connected(self, x: Tensor, y: Tensor, t: Tensor) -> tuple[Connection, Tensor, Tensor]:
        """Return the paths from ``x`` to ``y``, in the dtype of ``x``, and the faces of both."""
        face_x, face_y = self.closest_face(x), self.closest_face(y)
        given = (a.detach().contiguous() for a in (x, y, face_x, face_y, t))
        entries = connect(self._tables.paths.key, *given)
        found = Connection(*(a.to(x.dtype) if a.is_floating_point() else a for a in entries))
        # Exactly, so that a point is at distance 0 from itself.
        straight = (face_x == face_y) & (found.bends == 0)
        return found._replace(aim=torch.where(straight[..., None], y.detach(), found.aim)), face_x, face_y

    def _first_and_length(self, found: Connection, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first part of a path as a vector at ``x``, and the path's length, both with derivatives."""
        bent = found.bends > 0
        dy = (found.turn.mT @ (y - y.detach())[..., None])[..., 0]
        first = found.aim - x + torch.where(bent[..., None], torch.zeros_like(dy), dy)
        own = safe_norm(first)
        last = safe_norm(y - found.last_vertex)
        changes = (own - own.detach()) + (last - last.detach())
        return first, torch.where(bent, found.length + changes, torch.where(found.converged, own, found.length))

    # Coordinates for networks.

    def tangent_from_vector(self, x: Tensor, w: Tensor) -> Tensor:
        """Return the tangent vectors at ``x`` that are ambient ones ``w``, with the same flux on both sides of edges.

        See `manifolds.meshes.edge_continuity.corner_maps`: a field that is made so from a continuous ``w`` keeps mass.
        """
        face = self.closest_face(x)
        maps = rows(self._tables.corner_maps, face).to(x.dtype)
        barycentric = self._affine_barycentric(face, x)
        return (barycentric[..., None] * (maps @ w[..., None, :, None])[..., 0]).sum(-2)

    def _affine_barycentric(self, face: Tensor, x: Tensor) -> Tensor:
        gradients, corners = (rows(a, face).to(x.dtype) for a in (self._surface.gradients, self._surface.corners))
        return ((x[..., None, :] - corners.roll(-1, -2)) * gradients).sum(-1)

    # Volume.

    def random_uniform(
        self,
        *shape: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        like: dict[str, Any] = {"generator": generator, "device": device, "dtype": torch.float64}
        cumulative = self._surface.area.cumsum(0).to(device=device)
        face = torch.searchsorted(cumulative, torch.rand(shape, **like) * cumulative[-1], right=True)
        face = face.clamp(max=len(cumulative) - 1).to(self.faces.device)
        r, s = torch.rand(shape, **like).sqrt(), torch.rand(shape, **like)
        barycentric = torch.stack([1 - r, r * (1 - s), r * s], dim=-1).to(self.faces.device)
        return self.position(face, barycentric).to(device=device, dtype=dtype or torch.get_default_dtype())

    # Functions that are given at the vertices.

    def interpolate(self, values: Tensor, x: Tensor) -> Tensor:
        """Return a piecewise linear function at points.

        Args:
            values: at the vertices, ``(V, *shape)``.
            x: points ``(*batch, 3)``.

        Returns:
            ``(*batch, *shape)``.
        """
        face, barycentric = self.locate(x)
        at_corners = rows(values, rows(self.faces, face)).to(barycentric.dtype)
        weights = barycentric[(..., *(None,) * (values.ndim - 1))]
        return (weights * at_corners).sum(barycentric.ndim - 1)

    def gradient(self, values: Tensor, x: Tensor) -> Tensor:
        """Return the gradient of a piecewise linear function at points, which is constant in a face.

        Args:
            values: at the vertices, ``(V, *shape)``.
            x: points ``(*batch, 3)``.

        Returns:
            Tangent vectors ``(*batch, *shape, 3)``.
        """
        face = self.closest_face(x)
        at_corners = rows(values, rows(self.faces, face)).to(x.dtype)
        gradients = rows(self._surface.gradients, face).to(x.dtype)
        flat = at_corners.flatten(face.ndim + 1) if values.ndim > 1 else at_corners[..., None]
        return (flat.mT @ gradients).reshape(*face.shape, *values.shape[1:], 3)

    def eigenpairs(self, k: int) -> tuple[Tensor, Tensor]:
        """Return the ``k`` smallest eigenvalues of minus the Laplacian and their eigenfunctions at the vertices."""
        return self.laplacian.eigenpairs(k)

    def subdivided(self, times: int = 1) -> "Mesh":
        """Return the same surface as a finer mesh, every face in four, repeatedly; see `midpoint_subdivision`."""
        vertices, faces = self.vertices, self.faces
        for _ in range(times):
            vertices, faces = midpoint_subdivision(vertices, faces)
        return Mesh(vertices, faces, robust=self.robust)

    def flux(self, divergence: Tensor, weight: Tensor) -> Flux:
        """Return the flux of a divergence that is given at the vertices, see `flux_of_divergence`."""
        return flux_of_divergence(self._surface, self.faces, divergence, weight)

    def vertex_areas(self) -> Tensor:
        """Return the integrals of the piecewise linear functions that are 1 at one vertex, 0 at the others, ``(V)``."""
        share = (self._surface.area / 3)[:, None].expand_as(self.faces)
        return torch.zeros(len(self.vertices), dtype=share.dtype, device=share.device).index_add(
            0, self.faces.flatten(), share.flatten()
        )

    def heat_flow(self, time: float) -> HeatFlow:
        """Return the heat flow for a time, in squared units of length, of densities given at the vertices."""
        return HeatFlow(self.laplacian.stiffness(), self.vertex_areas(), time)

    def face_areas(self) -> Tensor:
        """Return the areas of the faces ``(F)``."""
        return self._surface.area

    def barycentric_in(self, face: Tensor, x: Tensor) -> Tensor:
        """Return the barycentric coordinates of points in faces ``(*batch)`` as affine functions, ``(*batch, 3)``.

        Beyond the face they go on, so they have the right derivatives at its sides.
        """
        return self._affine_barycentric(face, x)

    def rows_at_corners(self, values: Tensor, face: Tensor) -> Tensor:
        """Return values given at the vertices, ``(V, *shape)``, at the corners of faces, ``(*batch, 3, *shape)``."""
        return rows(values, rows(self.faces, face))

    def corner_gradients(self, face: Tensor) -> Tensor:
        """Return the gradients of the barycentric coordinates in faces ``(*batch)``, ``(*batch, 3, 3)``."""
        return rows(self._surface.gradients, face)

    @property
    def spectrum(self) -> MeshSpectrum:
        return MeshSpectrum(self)

    def extra_repr(self) -> str:
        return f"<{len(self.vertices):,} vertices, {len(self.faces):,} faces>"
