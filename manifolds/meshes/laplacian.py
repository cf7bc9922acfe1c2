"""The Laplacian of a triangle mesh: cotangent weights, mixed Voronoi areas, eigenfunctions and solves."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class MeshLaplacian:
    """The Laplacian of piecewise linear functions on a mesh, which are given by their values at the vertices.

    With the stiffness matrix S and the diagonal matrix M of areas, ``M^-1 S`` is minus the Laplacian, free at a border
    (Neumann's condition). Eigenfunctions are orthonormal in M.

    Args:
        vertices: ``(V, 3)``.
        faces: ``(F, 3)``.
        robust: that of the intrinsic Delaunay triangulation of the same surface, whose weights are not negative however
            thin or obtuse the faces are; by robust-laplacian.

    References:
        Sharp & Crane, A Laplacian for nonmanifold triangle meshes, 2020, doi:10.1111/cgf.14069: the robust one.
        Pinkall & Polthier, Computing discrete minimal surfaces and their conjugates, Exp. Math. 2 (1993), 15-36.
        Meyer, Desbrun, Schroder & Barr, Discrete differential-geometry operators for triangulated 2-manifolds, 2003,
        section 3.3: the mixed areas.
    """

    def __init__(self, vertices: Tensor, faces: Tensor, robust: bool = False) -> None:
        self.count = len(vertices)
        corners = vertices[faces]
        to_next, to_last = corners.roll(-1, 1) - corners, corners.roll(-2, 1) - corners
        dot = (to_next * to_last).sum(-1)
        cross = torch.linalg.vector_norm(torch.linalg.cross(to_next, to_last), dim=-1)
        self.cotangents = dot / cross
        """Cotangents of the angles at the corners, ``(F, 3)``."""
        self.faces = faces
        self.mass = self._mixed_areas(dot, cross[:, :1] / 2, to_next, to_last)
        """Area of each vertex, ``(V)``; they sum to that of the surface."""
        self._kept: dict[Any, Any] = {}
        self.robust = robust
        if robust:
            self._kept["stiffness"], self.mass = _intrinsic_delaunay(vertices, faces)

    def _mixed_areas(self, dot: Tensor, area: Tensor, to_next: Tensor, to_last: Tensor) -> Tensor:
        # The circumcentric part at a corner: squared length of each side there, by the cotangent opposite to it.
        voronoi = (
            to_next.square().sum(-1) * self.cotangents.roll(-2, 1)
            + to_last.square().sum(-1) * self.cotangents.roll(-1, 1)
        ) / 8
        obtuse = dot < 0
        share = torch.where(obtuse, area / 2, torch.where(obtuse.any(-1, keepdim=True), area / 4, voronoi))
        return torch.zeros(self.count, dtype=dot.dtype, device=dot.device).index_add(
            0, self.faces.flatten(), share.flatten()
        )

    def stiffness(self) -> Any:
        """Return the matrix S as a `scipy.sparse.csc_matrix`, positive semi-definite, ``(V, V)``."""
        if "stiffness" not in self._kept:
            from scipy import sparse

            start, end = self.faces.roll(-1, 1).flatten(), self.faces.roll(-2, 1).flatten()
            half = self.cotangents.flatten().double() / 2
            # Each angle weights the edge opposite to it, both ways, and the two vertices of it.
            i, j = torch.cat([start, end, start, end]), torch.cat([end, start, start, end])
            entries = torch.cat([-half, -half, half, half])
            triples = entries.cpu().numpy(), (i.cpu().numpy(), j.cpu().numpy())
            self._kept["stiffness"] = sparse.coo_matrix(triples, shape=(self.count, self.count)).tocsc()
        return self._kept["stiffness"]

    def eigenpairs(self, k: int) -> tuple[Tensor, Tensor]:
        """Return the ``k`` smallest eigenvalues ``(k)``, ascending, and their eigenfunctions ``(V, k)``, in float64.

        The signs are such that the entry of largest size is positive.
        """
        known = self._kept.get("eigenpairs")
        if known is None or len(known[0]) < k:
            from scipy import sparse
            from scipy.sparse.linalg import eigsh

            mass = sparse.diags(self.mass.double().cpu().numpy()).tocsc()
            # Shifted below 0, where the matrix is singular, by little beside the second eigenvalue, which scales so.
            shift = -1e-6 / float(self.mass.sum())
            start = torch.linspace(1, 2, self.count, dtype=torch.float64).numpy()
            values, vectors = eigsh(self.stiffness(), k, mass, sigma=shift, v0=start)
            values, vectors = torch.from_numpy(values), torch.from_numpy(vectors)
            order = values.argsort()
            values, vectors = values[order].clamp(min=0), vectors[:, order]
            largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
            known = values, vectors * largest.sign()
            self._kept["eigenpairs"] = known
        values, vectors = known
        return values[:k].to(self.mass.device), vectors[:, :k].to(self.mass.device)

    def solver(self, shift: float) -> Callable[[Tensor], Tensor]:
        """Return a function that solves ``(S + shift M) u = b`` for ``b`` of shape ``(V)`` or ``(V, m)``.

        The matrix is factorized once. With a shift of 0, where constants are in its kernel, ``b`` has to sum to 0, and
        the solution is the one of mean 0.
        """
        key = "solver", shift
        if key not in self._kept:
            from scipy import sparse
            from scipy.sparse.linalg import splu

            mass = self.mass.double().cpu().numpy()
            small = shift if shift > 0 else 1e-10 / mass.sum()
            self._kept[key] = splu((self.stiffness() + small * sparse.diags(mass)).tocsc())
        factor = self._kept[key]

        def solve(b: Tensor) -> Tensor:
            u = torch.from_numpy(factor.solve(b.detach().double().cpu().numpy())).to(b)
            if shift > 0:
                return u
            mass = self.mass.to(b)
            return u - (mass @ u) / mass.sum()

        return solve

    def __getstate__(self) -> dict[str, Any]:
        """Return what makes the object what it is, without what it has computed so far."""
        return vars(self) | {"_kept": {"stiffness": self.stiffness()} if self.robust else {}}


def _intrinsic_delaunay(vertices: Tensor, faces: Tensor) -> tuple[Any, Tensor]:
    """Return stiffness and vertices' areas of the intrinsic Delaunay triangulation with the vertices of a mesh."""
    try:
        import robust_laplacian
    except ImportError:
        raise ImportError(
            "Mesh: robust=True needs robust-laplacian; install it with pip install 'riemannian-flow-matching[mesh]'"
        ) from None
    # Without a mollification: edges keep their lengths, and the surface its area.
    corners = vertices.double().cpu().numpy(), faces.cpu().numpy()
    stiffness, mass = robust_laplacian.mesh_laplacian(*corners, mollify_factor=0.0)
    return stiffness.tocsc(), torch.from_numpy(mass.diagonal().copy()).to(vertices)
