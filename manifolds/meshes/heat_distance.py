"""Approximate geodesic distances from vertices, by the heat method."""

from typing import Any

import torch
from torch import Tensor

from manifolds.meshes.laplacian import MeshLaplacian
from manifolds.meshes.surface import Surface

_KEPT = 1 << 26
"""Numbers that are remembered, at most; in float32."""

_TOGETHER = 256
"""Sources that are solved for at a time."""


class HeatDistance:
    """Distances from vertices to all vertices, within a few percent: heat for a short time, its direction, a solve.

    Args:
        surface: of the mesh.
        faces: ``(F, 3)``.
        laplacian: of the mesh.

    References:
        Crane, Weischedel & Wardetzky, Geodesics in heat, 2013, doi:10.1145/2516971.2516977, algorithm 1.
    """

    def __init__(self, surface: Surface, faces: Tensor, laplacian: MeshLaplacian) -> None:
        self.surface, self.faces, self.laplacian = surface, faces, laplacian
        sides = surface.corners.roll(-1, 1) - surface.corners.roll(-2, 1)
        self.time = float(torch.linalg.vector_norm(sides, dim=-1).mean()) ** 2
        self._known: dict[str, Tensor] = {}

    def from_vertices(self, sources: Tensor) -> Tensor:
        """Return the distances from vertices ``(m)`` to all vertices, ``(m, V)``, in float32."""
        count = self.laplacian.count
        if "row" not in self._known:
            self._known["row"] = torch.full((count,), -1, dtype=torch.long, device=sources.device)
            self._known["table"] = torch.zeros(0, count, device=sources.device)
        row, table = self._known["row"], self._known["table"]
        missing = torch.unique(sources[row[sources] < 0])
        if len(missing):
            if (len(table) + len(missing)) * count > _KEPT:
                row.fill_(-1)
                table, missing = table[:0], torch.unique(sources)
            row[missing] = torch.arange(len(missing), device=sources.device) + len(table)
            new = [self._solved(part) for part in missing.split(_TOGETHER)]
            self._known["table"] = table = torch.cat([table, *new])
        return table[row[sources]]

    def _solved(self, sources: Tensor) -> Tensor:
        laplacian, surface = self.laplacian, self.surface
        heat = laplacian.mass.new_zeros(laplacian.count, len(sources))
        heat[sources, torch.arange(len(sources), device=sources.device)] = 1.0
        # (M + t S) u = delta, as (S + M / t) u = delta / t; its scale does not matter.
        u = laplacian.solver(1 / self.time)(heat)
        slope = torch.einsum("fim,fid->fmd", u[self.faces], surface.gradients)
        size = torch.linalg.vector_norm(slope, dim=-1, keepdim=True)
        unit = -slope / torch.where(size > 0, size, 1.0)
        # Minus the divergence, integrated against the functions that are 1 at a vertex: as the stiffness matrix is.
        flux = torch.einsum("fmd,fid->fim", unit, surface.gradients) * surface.area[:, None, None]
        against = torch.zeros_like(u).index_add_(0, self.faces.flatten(), flux.flatten(0, 1))
        distance = laplacian.solver(0.0)(against)
        return (distance - distance[sources, torch.arange(len(sources))]).T.float()

    def __getstate__(self) -> dict[str, Any]:
        """Return what makes the object what it is, without what it has computed so far."""
        return vars(self) | {"_known": {}}
