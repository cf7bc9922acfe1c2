"""Fluxes of given divergence on a mesh, whose normal component is the same on both sides of every edge."""

from dataclasses import dataclass

import torch
from torch import Tensor

from manifolds.meshes.surface import Surface, edges_of, rows


@dataclass(frozen=True)
class Flux:
    """A tangent field, quadratic in each face, whose divergence is a given piecewise linear function.

    In the face with corners ``v_i`` and centroid c it is ``a + g (x - c) / 2 + sum_i (g_i - g) b_i (x - v_i) / 3`` with
    barycentric coordinates ``b_i``, the divergence ``g_i`` at the corners and its mean g. The last sum has no component
    normal to any side. Nothing flows out at a border.
    """

    surface: Surface
    constant: Tensor
    """The vectors a, ``(F, 3)``."""
    divergence: Tensor
    """At the corners, ``(F, 3)``."""

    def at(self, face: Tensor, barycentric: Tensor, x: Tensor) -> Tensor:
        """Return the field at points, ``(*batch, 3)``.

        Args:
            face: that they lie in, ``(*batch)``.
            barycentric: their coordinates there, ``(*batch, 3)``.
            x: their positions, ``(*batch, 3)``.
        """
        corners, constant, g = (
            rows(a, face).to(x.dtype) for a in (self.surface.corners, self.constant, self.divergence)
        )
        mean = g.mean(-1, keepdim=True)
        spread = ((g - mean) * barycentric)[..., None] * (x[..., None, :] - corners)
        return constant + mean / 2 * (x - corners.mean(-2)) + spread.sum(-2) / 3


def flux_of_divergence(surface: Surface, faces: Tensor, divergence: Tensor, weight: Tensor) -> Flux:
    """Return the flux F of a given divergence with the least ``sum |F|^2 / weight``, up to the order of the elements.

    With the means of the divergence over faces it is the lowest-order Raviart-Thomas solution of the mixed problem,
    which follows from one sparse positive definite solve for nonconforming piecewise linear functions (Marini, An
    inexpensive method for the evaluation of the solution of the lowest order Raviart-Thomas mixed method, SIAM Journal
    on Numerical Analysis 22 (1985), 493-496).

    Args:
        surface: a connected one.
        faces: corners of the faces ``(F, 3)``.
        divergence: at the vertices ``(V)``; its integral is 0.
        weight: positive, of the faces ``(F)``.
    """
    from scipy import sparse
    from scipy.sparse.linalg import splu

    device = surface.area.device
    g = divergence.double()[faces]
    mean = g.mean(-1)
    _, edge = edges_of(faces)
    slopes = -2 * surface.gradients.double()
    local = (surface.area * weight)[:, None, None] * (slopes @ slopes.mT)
    pair = edge[:, :, None].expand_as(local), edge[:, None, :].expand_as(local)
    entries = (a.flatten().cpu().numpy() for a in (local, *pair))
    values, i, j = entries
    matrix = sparse.coo_matrix((values, (i, j))).tocsc()
    load = torch.zeros(matrix.shape[0], dtype=torch.float64, device=device)
    load.index_add_(0, edge.flatten(), (-mean * surface.area / 3)[:, None].expand_as(edge).flatten())
    potential = torch.zeros_like(load)
    # Constants are in the kernel: the first value is 0.
    factors = splu(matrix[1:, 1:], permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
    potential[1:] = torch.from_numpy(factors.solve(load[1:].cpu().numpy())).to(device)
    constant = weight[:, None] * (potential[edge][..., None] * slopes).sum(1)
    return Flux(surface, constant, g)
