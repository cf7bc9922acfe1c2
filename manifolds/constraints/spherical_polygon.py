"""Polygons with holes on the sphere."""

import math
from typing import Any

import torch
from torch import Tensor

from manifolds.arguments import check_instance
from manifolds.base import Manifold
from manifolds.constraints.polygon import Polygon, checked_rings
from manifolds.sphere import Sphere


class SphericalPolygon(Polygon):
    """Polygons with holes on ``Sphere(2)``, such as a country or an ocean: edges are arcs of great circles.

    Nothing is special about the poles and the meridian of 180 degrees. What is meant by a ring is the side on its left,
    however large: a country's ring runs counterclockwise as seen from above, and the ocean's rings are the coasts, with
    the water on the left. ``rfm.regions.Polygon.from_geojson(...).constraint()`` makes one of a file.

    Args:
        rings: corners ``(k, 3)`` of a ring, unit vectors, or of several rings. They may be closed by repeating the
            first corner; arcs are shorter than half a turn.

    Raises:
        ValueError: corners are no unit vectors, rings cross, have no area, or contradict each other.
    """

    def __init__(self, rings: Any) -> None:
        found = checked_rings("SphericalPolygon", rings, 3, "unit vectors")
        for i, ring in enumerate(found):
            lengths = ring.norm(dim=1)
            if not bool(((lengths - 1).abs() < 1e-3).all()):
                raise ValueError(
                    f"SphericalPolygon: ring {i + 1} must consist of unit vectors, got lengths from "
                    f"{float(lengths.min()):.4g} to {float(lengths.max()):.4g}; make them from latitudes and "
                    "longitudes with Sphere.from_degrees"
                )
            # As given where they are unit vectors, so that a polygon is saved and loaded without a change.
            found[i] = torch.where((lengths - 1).abs()[:, None] < 1e-15, ring, ring / lengths[:, None])
            if bool((found[i] * found[i].roll(-1, 0)).sum(-1).min() < -1 + 1e-9):
                raise ValueError(f"SphericalPolygon: ring {i + 1} has an edge of half a turn; put a corner between")
        super().__init__(found)

    def check_manifold(self, manifold: Manifold) -> None:
        check_instance("Bounded with a SphericalPolygon", "manifold", manifold, Sphere, "Sphere(2)")
        if manifold.dim != 2:
            raise ValueError(f"Bounded: a SphericalPolygon is a set of Sphere(2), got {manifold}")

    def _edges(self) -> tuple[Tensor, Tensor, Tensor]:
        across = torch.linalg.cross(self.starts, self.ends)
        middles = self.starts + self.ends
        half = torch.atan2((self.ends - self.starts).norm(dim=1), middles.norm(dim=1))
        normals, middles = (a / a.norm(dim=1, keepdim=True) for a in (across, middles))
        return normals, middles, half

    def _seen(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = x @ self.normals.mT
        # cos(half) - <x, middle> without cancellation next to a short edge.
        apart = 1 - x @ self.middles.mT
        return h, torch.atan2(h.abs() * torch.sin(self.half_lengths), apart - 2 * torch.sin(self.half_lengths / 2) ** 2)

    def _feet(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = (x @ self.normals.mT).clamp(-1, 1)
        side = torch.linalg.cross(self.normals, self.middles)
        angle = torch.atan2(x @ side.mT, x @ self.middles.mT)
        share = ((angle / self.half_lengths + 1) / 2).clamp(0, 1)
        foot = self._points(share, side)
        chord = torch.linalg.vector_norm(x[:, None] - foot, dim=-1)
        distance = torch.where((share > 0) & (share < 1), torch.asin(h.abs()), 2 * torch.asin((chord / 2).clamp(max=1)))
        return share, distance

    def _points(self, share: Tensor, side: Tensor) -> Tensor:
        angle = (2 * share - 1) * self.half_lengths
        return torch.cos(angle)[..., None] * self.middles + torch.sin(angle)[..., None] * side

    def _area(self) -> float:
        r = -self.starts.mean(0)
        r = r / r.norm() if float(r.norm()) > 1e-6 else torch.tensor([0.6, 0.48, 0.64], dtype=torch.float64)
        a, b = self.starts, self.ends
        triple = (r * torch.linalg.cross(a, b)).sum(-1)
        below = 1 + a @ r + b @ r + (a * b).sum(-1)
        total = float(2 * torch.atan2(triple, below).sum())
        area = math.fmod(math.fmod(total, 4 * math.pi) + 4 * math.pi, 4 * math.pi)
        if min(area, 4 * math.pi - area) < 1e-14:
            raise ValueError("SphericalPolygon: the rings bound no area; give corners that are not on one great circle")
        return area

    def _at(self, edge: Tensor, share: Tensor) -> Tensor:
        middles = self.middles[edge]
        side = torch.linalg.cross(self.normals[edge], middles)
        angle = ((2 * share - 1) * self.half_lengths[edge])[:, None]
        return torch.cos(angle) * middles + torch.sin(angle) * side

    def _moved(self, x: Tensor, direction: Tensor, length: float) -> Tensor:
        u = direction - (direction * x).sum(-1, keepdim=True) * x
        u = u / torch.linalg.vector_norm(u, dim=-1, keepdim=True).clamp(min=1e-300)
        return math.cos(length) * x + math.sin(length) * u

    def _crossings(self, i: Tensor, j: Tensor) -> Tensor:
        a, b, c, d = self.starts[i], self.ends[i], self.starts[j], self.ends[j]
        n, m = self.normals[i], self.normals[j]
        across = _apart((n * c).sum(-1), (n * d).sum(-1)) & _apart((m * a).sum(-1), (m * b).sum(-1))
        # On the same side of the sphere: great circles meet in two antipodal points.
        meet = torch.linalg.cross(n, m)
        meet = meet * torch.sign((meet * self.middles[i]).sum(-1, keepdim=True))
        return across & ((meet * self.middles[j]).sum(-1) > 0)

    def _is_convex(self) -> bool:
        if len(self.rings) > 1 or float(self.volume or 0) > 2 * math.pi:
            return False
        after = self.ends.roll(-1, 0)
        return bool(((self.normals * after).sum(-1) >= -_LEAST).all())

    def _basis(self, x: Tensor) -> Tensor:
        return Sphere(2).tangent_basis(x)

    def _place(self, x: Tensor) -> str:
        latitude, longitude = Sphere.to_degrees(x)
        return f"latitude {float(latitude):.4f}, longitude {float(longitude):.4f}"

    def _ring_areas(self) -> list[float]:
        return [_ring_area(self.starts.new_tensor(ring)) for ring in self.rings]

    def _surroundings(self) -> tuple[Tensor, Tensor]:
        """Return centres and angles of caps about the components, ``(b, 3)`` and ``(b,)``: pi is all of the sphere."""
        centres, angles = [self.starts.new_tensor([0.0, 0.0, 1.0])], [self.starts.new_tensor(math.pi)]
        for i in self._outer:
            edges = self.of_ring == i
            corners = self.starts[edges]
            middle = corners.mean(0)
            middle = middle / middle.norm().clamp(min=1e-300)
            reach = 2 * torch.asin(((corners - middle).norm(dim=1).max() / 2).clamp(max=1))
            wide = float(reach) > 1.5
            centres.append(middle)
            angles.append(angles[0] if wide else reach + self.half_lengths[edges].max())
        return torch.stack(centres), torch.stack(angles)

    def _area_around(self, component: int) -> float:
        return 2 * math.pi * (1 - math.cos(float(self._surroundings()[1][component])))

    def _drawn_around(
        self, component: int, count: int, generator: torch.Generator | None, device: torch.device
    ) -> Tensor:
        centres, angles = (part[component].to(device) for part in self._surroundings())
        draw = torch.rand(count, 2, generator=generator, dtype=torch.float64, device=device)
        z = 1 - draw[:, :1] * (1 - torch.cos(angles))
        ring, phase = torch.sqrt((1 - z * z).clamp(min=0)), 2 * math.pi * draw[:, 1:]
        first, second = Sphere(2).tangent_basis(centres)
        return z * centres + ring * (torch.cos(phase) * first + torch.sin(phase) * second)

    _whole = 4 * math.pi
    _longest_layer = 0.25

    def crosses(self, manifold: Manifold, x: Tensor, y: Tensor) -> Tensor:
        x, y = torch.broadcast_tensors(x.double(), y.double())
        across = torch.linalg.cross(x, y)
        signs = [-(across @ self.starts.mT), across @ self.ends.mT, x @ self.normals.mT, -(y @ self.normals.mT)]
        above, below = (torch.stack([(s > 0) == side for s in signs]).all(0) for side in (True, False))
        return (above | below).any(-1)


def _ring_area(corners: Tensor) -> float:
    """Return the area on the left of a ring, less that of the sphere where it is more than half of it."""
    middle = corners.mean(0)
    middle = middle / middle.norm().clamp(min=1e-300)
    after = corners.roll(-1, 0)
    triple = torch.linalg.cross(corners, after) @ middle
    below = 1 + corners @ middle + after @ middle + (corners * after).sum(-1)
    area = float(2 * torch.atan2(triple, below).sum())
    return math.remainder(area, 4 * math.pi)


def _apart(p: Tensor, q: Tensor) -> Tensor:
    return ((p > _LEAST) & (q < -_LEAST)) | ((p < -_LEAST) & (q > _LEAST))


_LEAST = 1e-14
