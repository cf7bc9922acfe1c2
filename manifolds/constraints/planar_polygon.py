"""Polygons with holes in the plane."""

from typing import Any

import torch
from torch import Tensor

from manifolds.arguments import check_instance
from manifolds.base import Manifold
from manifolds.constraints.polygon import Polygon, checked_rings
from manifolds.euclidean import Euclidean


class PlanarPolygon(Polygon):
    """Polygons with holes in the plane, such as mazes.

    Args:
        rings: corners ``(k, 2)`` of a ring, or of several: outer rings counterclockwise, holes clockwise, so that the
            inside is on the left of all. They may be closed by repeating the first corner. A single ring may run either
            way.

    Raises:
        ValueError: rings cross, have no area, or run the wrong way round.
    """

    def __init__(self, rings: Any) -> None:
        found = checked_rings("PlanarPolygon", rings, 2, "corners")
        for i, ring in enumerate(found):
            if abs(_signed_area(ring)) <= 1e-12 * float(ring.sub(ring.mean(0)).square().sum()):
                raise ValueError(f"PlanarPolygon: ring {i + 1} has no area; give corners that are not on one line")
        if len(found) == 1 and _signed_area(found[0]) < 0:
            found[0] = found[0].flip(0)
        super().__init__(found)

    def check_manifold(self, manifold: Manifold) -> None:
        check_instance("Bounded with a PlanarPolygon", "manifold", manifold, Euclidean, "Euclidean(2)")
        if manifold.dim != 2:
            raise ValueError(f"Bounded: a PlanarPolygon is a set of Euclidean(2), got {manifold}")

    def _edges(self) -> tuple[Tensor, Tensor, Tensor]:
        along = self.ends - self.starts
        length = along.norm(dim=1, keepdim=True)
        normals = torch.stack([-along[:, 1], along[:, 0]], -1) / length
        return normals, (self.starts + self.ends) / 2, length[:, 0] / 2

    def _seen(self, x: Tensor) -> tuple[Tensor, Tensor]:
        away = x[:, None, :] - self.middles
        h = (away * self.normals).sum(-1)
        return h, torch.atan2(2 * h.abs() * self.half_lengths, (away * away).sum(-1) - self.half_lengths**2)

    def _feet(self, x: Tensor) -> tuple[Tensor, Tensor]:
        along = self.ends - self.starts
        away = x[:, None, :] - self.starts
        share = ((away * along).sum(-1) / (along * along).sum(-1)).clamp(0, 1)
        return share, torch.linalg.vector_norm(away - share[..., None] * along, dim=-1)

    def _area(self) -> float:
        total = sum(_signed_area(torch.tensor(ring, dtype=torch.float64)) for ring in self.rings)
        if not total > 0:
            raise ValueError(
                f"PlanarPolygon: the rings bound an area of {total:.3g}; outer rings run counterclockwise, holes "
                "clockwise"
            )
        return total

    def _at(self, edge: Tensor, share: Tensor) -> Tensor:
        return self.starts[edge] + share[:, None] * (self.ends[edge] - self.starts[edge])

    def _moved(self, x: Tensor, direction: Tensor, length: float) -> Tensor:
        return x + length * direction / torch.linalg.vector_norm(direction, dim=-1, keepdim=True).clamp(min=1e-300)

    def _crossings(self, i: Tensor, j: Tensor) -> Tensor:
        a, b, c, d = self.starts[i], self.ends[i], self.starts[j], self.ends[j]
        scale = 1e-14 * float((self.starts - self.starts.mean(0)).square().sum(-1).max())
        return _apart(_turn(a, b, c), _turn(a, b, d), scale) & _apart(_turn(c, d, a), _turn(c, d, b), scale)

    def _is_convex(self) -> bool:
        after = self.ends.roll(-1, 0)
        return len(self.rings) == 1 and bool((_turn(self.starts, self.ends, after) >= 0).all())

    def _basis(self, x: Tensor) -> Tensor:
        return torch.eye(2, dtype=x.dtype, device=x.device)

    def _place(self, x: Tensor) -> str:
        return f"({float(x[0]):.6g}, {float(x[1]):.6g})"

    def _ring_areas(self) -> list[float]:
        return [_signed_area(self.starts.new_tensor(ring)) for ring in self.rings]

    def _surroundings(self, component: int) -> tuple[Tensor, Tensor]:
        """Return the ends of a box about a component."""
        corners = self.starts[self.of_ring == self._outer[component - 1]]
        return corners.amin(0), corners.amax(0)

    def _area_around(self, component: int) -> float:
        low, high = self._surroundings(component)
        return float((high - low).prod())

    def _drawn_around(
        self, component: int, count: int, generator: torch.Generator | None, device: torch.device
    ) -> Tensor:
        low, high = (ends.to(device) for ends in self._surroundings(component))
        return low + torch.rand(count, 2, generator=generator, dtype=torch.float64, device=device) * (high - low)

    _whole = 0.0

    def crosses(self, manifold: Manifold, x: Tensor, y: Tensor) -> Tensor:
        x, y = (z.double()[..., None, :] for z in torch.broadcast_tensors(x, y))
        return (
            (_turn(x, y, self.starts) * _turn(x, y, self.ends) < 0)
            & (_turn(self.starts, self.ends, x) * _turn(self.starts, self.ends, y) < 0)
        ).any(-1)


def _signed_area(ring: Tensor) -> float:
    near = ring - ring.mean(0)
    after = near.roll(-1, 0)
    return float((near[:, 0] * after[:, 1] - near[:, 1] * after[:, 0]).sum()) / 2


def _turn(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Return twice the area of triangles, positive where c is on the left of the way from a to b."""
    return (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (c[..., 0] - a[..., 0])


def _apart(p: Tensor, q: Tensor, least: float) -> Tensor:
    return ((p > least) & (q < -least)) | ((p < -least) & (q > least))
