"""A surface made of triangles."""

from typing import Any

import torch
from torch import Tensor

from manifolds.base import Manifold
from manifolds.meshes.closest_triangle import TriangleTree, closest_on_triangles, closest_triangle
from manifolds.meshes.edge_continuity import corner_maps
from manifolds.meshes.flux import Flux, flux_of_divergence
from manifolds.meshes.heat import HeatFlow
from manifolds.meshes.laplacian import MeshLaplacian
from manifolds.meshes.mesh_spectrum import MeshSpectrum
from manifolds.meshes.straightest import walk
from manifolds.meshes.subdivision import midpoint_subdivision
from manifolds.meshes.surface import Surface, rows


class Mesh(Manifold):
    """A surface in R^3 made of triangles: a point is a position on it.

    Args:
        vertices: positions ``(V, 3)``.
        faces: indices of the corners of the faces ``(F, 3)``, all in the same sense.
    """

    vertices: Tensor
    faces: Tensor

    def __init__(self, vertices: Tensor, faces: Tensor) -> None:
        super().__init__(2, (3,))
        vertices, faces = torch.as_tensor(vertices).double(), torch.as_tensor(faces).long()
        self.register_buffer("vertices", vertices, persistent=False)
        self.register_buffer("faces", faces, persistent=False)
        self._surface = Surface.of(vertices, faces)
        self._tree = TriangleTree(self._surface.corners)
        self.volume = float(self._surface.area.sum())
        normal = self._surface.normal
        self._projector = torch.eye(3, dtype=normal.dtype) - normal[:, :, None] * normal[:, None]
        self._corner_maps = corner_maps(self._surface)
        self.laplacian = MeshLaplacian(vertices, faces)

    # Where points are.

    def closest_face(self, x: Tensor) -> Tensor:
        """Return the index of the face that is closest to each ambient point, ``(*batch)``; of several, the first."""
        tree = self._tree
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
        return self.position(*self.locate(x))

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
        turn = turn @ rows(self._projector, face).to(x.dtype)
        # Laid flat the geodesic ends at x + t u: its derivatives are turned ones of that sum.
        change = (x - x.detach()) + (step - step.detach())
        going = (left <= 0)[..., None].to(x.dtype)
        return y + going * (turn @ change[..., None])[..., 0], going * (turn @ u.expand_as(y)[..., None])[..., 0]

    # Coordinates for networks.

    def tangent_from_vector(self, x: Tensor, w: Tensor) -> Tensor:
        """Return the tangent vectors at ``x`` that are ambient ones ``w``, with the same flux on both sides of edges.

        See `manifolds.meshes.edge_continuity.corner_maps`: a field that is made so from a continuous ``w`` keeps mass.
        """
        face = self.closest_face(x)
        maps = rows(self._corner_maps, face).to(x.dtype)
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
        """Return the same surface as a finer mesh, every face in four, so many times over; see `midpoint_subdivision`."""
        vertices, faces = self.vertices, self.faces
        for _ in range(times):
            vertices, faces = midpoint_subdivision(vertices, faces)
        return Mesh(vertices, faces)

    def flux(self, divergence: Tensor, weight: Tensor) -> Flux:
        """Return the flux of a divergence that is given at the vertices, see `flux_of_divergence`."""
        return flux_of_divergence(self._surface, self.faces, divergence, weight)

    def vertex_areas(self) -> Tensor:
        """Return the integrals of the functions that are 1 at one vertex, 0 at the others and linear between, ``(V)``."""
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
        """Return the affine functions that are the barycentric coordinates of points in faces ``(*batch)``, ``(*batch, 3)``.

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
