"""Polygons with holes on a surface: what those of the plane and of the sphere have in common.

**Border.** It consists of edges, geodesic segments that run with the inside on their left. Seen from a point x, all
that is needed of an edge is the integral of ``1 / |x - y|^2`` along it. Inversion about x maps the edge to an arc of a
circle (in the plane, and on the sphere, which becomes a plane) and the integral to its length, so it is ``angle / |h|``
with the distance h of x from the line, or from the plane of the great circle, and half the angle that the arc subtends
at its centre. The same angles, with the sign of h, say on which side of the border x is: the arcs and the corners
between them, whose angles inversion keeps, turn once round.

**Damping.** ``D = (I + layer / pi sum_i integral_i n_i n_i')^-1`` with the normals of the edges: a long straight wall
at distance d counts ``layer / d``, however many edges it is cut into, and walls that are far hardly count.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from manifolds.constraints.constraint import Constraint, by_rejection, numbers

_LAYER = 0.25
"""Width of the border layer, as a share of twice the area over the length of the border."""
_BLOCK = 2**21
"""Pairs of a point and an edge that are computed together."""
_CLOSEST = 1e-9
"""Distance from a wall below which it counts as that: the sum over edges would lose digits."""


class Polygon(Constraint):
    """A set bounded by rings of geodesic edges, with the inside on their left.

    Args:
        rings: corners of each ring, ``(k, c)``, the first not repeated at the end; float64.
    """

    starts: Tensor
    ends: Tensor
    normals: Tensor
    """Unit vectors to the left of the edges, in the plane, or normal to their great circles, ``(e, c)``."""
    middles: Tensor
    half_lengths: Tensor
    """Half the lengths of the edges ``(e,)``."""
    products: Tensor
    """``n n'`` of the normals, ``(e, c * c)``."""
    inside_turn: Tensor

    def __init__(self, rings: Sequence[Tensor]) -> None:
        super().__init__()
        self.rings = [ring.tolist() for ring in rings]
        self.constant("starts", torch.cat(list(rings)))
        self.constant("ends", torch.cat([ring.roll(-1, 0) for ring in rings]))
        for name, value in zip(("normals", "middles", "half_lengths"), self._edges(), strict=True):
            self.constant(name, value)
        self.constant("products", (self.normals[:, :, None] * self.normals[:, None, :]).flatten(1))
        self.constant("of_ring", torch.cat([torch.full((len(r),), i) for i, r in enumerate(rings)]))
        self.reach = float(self.starts.abs().max())
        numbers = torch.arange(len(self.starts)).split([len(ring) for ring in rings])
        self.constant("following", torch.cat([own.roll(-1, 0) for own in numbers]))
        before = torch.cat([own.roll(1, 0) for own in numbers])
        self.constant("bisectors", self.normals + self.normals[before])
        self._check_crossings()
        self.volume = self._area()
        self.constant("inside_turn", torch.zeros(()))
        self._orient()
        self._divide()
        self.layer = min(_LAYER * 2 * self.volume / float(2 * self.half_lengths.sum()), self._longest_layer)
        self.convex = self._is_convex()

    of_ring: Tensor
    following: Tensor
    """The number of the edge after each ``(e,)``."""
    bisectors: Tensor
    """Directions that halve the angles at the starts of edges ``(e, c)``."""

    # What the surface says.

    @abstractmethod
    def _edges(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return normals, middles and half lengths of the edges."""

    @abstractmethod
    def _seen(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return from points ``(n, c)`` the distances h from the edges' lines, and the angles, ``(n, e)`` each."""

    @abstractmethod
    def _feet(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the points of the edges nearest to ``x`` as shares of them ``(n, e)``, and their distances."""

    @abstractmethod
    def _area(self) -> float:
        """Return the area on the left of the rings."""

    @abstractmethod
    def _at(self, edge: Tensor, share: Tensor) -> Tensor:
        """Return the points at shares ``(n,)`` of edges ``(n,)``, ``(n, c)``."""

    @abstractmethod
    def _moved(self, x: Tensor, direction: Tensor, length: float) -> Tensor:
        """Return points a small length from ``x`` in directions that need not be of unit length."""

    @abstractmethod
    def _crossings(self, i: Tensor, j: Tensor) -> Tensor:
        """Return whether edges i and j, ``(n,)`` each, have a point in common that is inside of either."""

    @abstractmethod
    def _is_convex(self) -> bool:
        """Return whether shortest ways between points of the set stay in it."""

    @abstractmethod
    def _basis(self, x: Tensor) -> Tensor:
        """Return an orthonormal basis of the tangent space, ``(*batch, 2, c)``."""

    @abstractmethod
    def _place(self, x: Tensor) -> str:
        """Return a point in words."""

    # The constraint.

    def contains(self, x: Tensor) -> Tensor:
        flat = x.detach().double().reshape(-1, x.shape[-1])
        inside = torch.cat([self._inside(*self._seen(part)) for part in self._parts(flat)])
        return inside.reshape(x.shape[:-1])

    def depth(self, x: Tensor) -> Tensor:
        flat = x.double().reshape(-1, x.shape[-1])
        parts = []
        for part in self._parts(flat):
            distance = self._feet(part)[1].amin(-1)
            parts.append(torch.where(self._inside(*self._seen(part)), distance, -distance))
        return torch.cat(parts).reshape(x.shape[:-1]).to(x.dtype)

    def nearest(self, x: Tensor, margin: float) -> Tensor:
        flat = x.double().reshape(-1, x.shape[-1])
        parts = []
        for part in self._parts(flat):
            share, distance = self._feet(part)
            least, edge = distance.min(-1)
            foot = self._at(edge, torch.take_along_dim(share, edge[:, None], -1)[:, 0])
            # At a corner between the edges: along the line that halves its angle.
            near = (distance <= least[:, None] + margin).to(part.dtype)
            moved = self._moved(foot, near @ self.normals, margin)
            # Next to a sharp corner that way may lead across its other side: then from the corner itself.
            ahead = torch.take_along_dim(share, edge[:, None], -1)[:, 0] > 0.5
            corner = torch.where(ahead, self.following.long()[edge], edge)
            inward = self._moved(self.starts[corner], self.bisectors[corner], 2 * margin)
            moved = torch.where(self._inside(*self._seen(moved))[:, None], moved, inward)
            parts.append(torch.where(self._inside(*self._seen(part))[:, None], part, moved))
        y = torch.cat(parts).reshape(x.shape)
        return torch.where(self.contains(x)[..., None], x, y.to(x.dtype))

    def wall(self, x: Tensor) -> tuple[Tensor, Tensor]:
        flat = x.double().reshape(-1, x.shape[-1])
        feet, normals = [], []
        for part in self._parts(flat):
            share, distance = self._feet(part)
            edge = distance.argmin(-1)
            feet.append(self._at(edge, torch.take_along_dim(share, edge[:, None], -1)[:, 0]))
            normals.append(self.normals[edge])
        return torch.cat(feet).reshape(x.shape).to(x.dtype), torch.cat(normals).reshape(x.shape).to(x.dtype)

    def damped(self, x: Tensor, u: Tensor, layer: float | Tensor) -> Tensor:
        y, w = x.double(), u.double()
        flat = y.reshape(-1, y.shape[-1])
        rows = []
        for part in self._parts(flat):
            h, angle = self._seen(part)
            rows.append((angle / h.abs().clamp(min=_CLOSEST)) @ self.products)
        c = y.shape[-1]
        walls = torch.cat(rows).reshape(*y.shape[:-1], c, c)
        basis = self._basis(y)
        m = basis @ walls @ basis.mT * (layer / torch.pi)
        p, q, r = 1 + m[..., 0, 0], m[..., 0, 1], 1 + m[..., 1, 1]
        determinant = p * r - q * q
        a, b = (w[..., None, :] * basis).sum(-1).unbind(-1)
        first, second = (r * a - q * b) / determinant, (p * b - q * a) / determinant
        return (first[..., None] * basis[..., 0, :] + second[..., None] * basis[..., 1, :]).to(u.dtype)

    # Its components: each has one outer ring, whose left side is less than half of the sphere; number 0 has none, and
    # is what is left of the sphere outside of all others.

    @property
    def is_connected(self) -> bool:
        return int((self.component_volumes > 0).sum()) == 1

    def components(self, x: Tensor) -> Tensor:
        flat = x.detach().double().reshape(-1, x.shape[-1])
        found = torch.cat([self._component(part) for part in self._parts(flat)])
        return found.reshape(x.shape[:-1])

    def random_uniform(self, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        areas = self.component_volumes.to(device)
        drawn = torch.multinomial(areas, count, replacement=True, generator=generator) if count else areas.new_zeros(0)
        return self.random_in(drawn, generator)

    def random_in(self, components: Tensor, generator: torch.Generator | None) -> Tensor:
        x = self.starts.new_zeros(len(components), self.starts.shape[1]).to(components.device)
        for component in components.unique().tolist():
            own = components == component
            x[own] = self._random_in_one(int(component), int(own.sum()), generator, x.device)
        return x

    def _random_in_one(
        self, component: int, count: int, generator: torch.Generator | None, device: torch.device
    ) -> Tensor:
        def draw(k: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
            x = self._drawn_around(component, k, generator, device)
            x = x[self.contains(x)]
            return x[self.components(x) == component]

        share = float(self.component_volumes[component]) / self._area_around(component)
        return by_rejection(type(self).__name__, count, share, draw, generator, device)

    def _component(self, x: Tensor) -> Tensor:
        """Return the number of the smallest outer ring about each point and 1 more, 0 where there is none."""
        if not self._outer:
            return torch.zeros(len(x), dtype=torch.long, device=x.device)
        h, angle = self._seen(x)
        turns = h.new_zeros(len(x), len(self.rings)).index_add(
            1, self.of_ring.long(), torch.where(h < 0, -angle, angle)
        )
        inside = (turns - self.ring_turns).abs()[:, self._outer] < torch.pi / 2
        areas = self.ring_areas[self._outer].expand_as(inside)
        least, place = torch.where(inside, areas, torch.inf).min(-1)
        return torch.where(least.isfinite(), place + 1, 0)

    def _divide(self) -> None:
        """Find outer rings, and the volumes of components."""
        self.constant("ring_areas", torch.tensor(self._ring_areas()))
        self._outer = [i for i, area in enumerate(self.ring_areas.tolist()) if area > 0]
        edge = torch.tensor([int((self.of_ring == i).nonzero()[0]) for i in range(len(self.rings))])
        on = self._at(edge, torch.full((len(edge),), 0.5, dtype=torch.float64))
        step = 1e-6 * float(self.half_lengths.amin())
        left = self._moved(on, self.normals[edge], step)
        h, angle = self._seen(left)
        turns = h.new_zeros(len(left), len(self.rings)).index_add(
            1, self.of_ring.long(), torch.where(h < 0, -angle, angle)
        )
        self.constant("ring_turns", turns.diagonal().clone(memory_format=torch.contiguous_format))
        volumes = torch.zeros(len(self._outer) + 1, dtype=torch.float64)
        volumes.index_add_(0, self._component(left), self.ring_areas)
        if float(volumes[0]) < 0:
            volumes[0] += self._whole
        self.constant("component_volumes", volumes.clamp(min=0))

    _longest_layer: float = torch.inf
    _whole: float
    """Area of the surface, 0 where it is infinite: from what a part without an outer ring is cut."""

    ring_areas: Tensor
    ring_turns: Tensor

    @abstractmethod
    def _ring_areas(self) -> list[float]:
        """Return the areas on the left of each ring, less that of the surface where it is more than half of it."""

    @abstractmethod
    def _area_around(self, component: int) -> float:
        """Return the area of what `_drawn_around` draws from."""

    @abstractmethod
    def _drawn_around(
        self, component: int, count: int, generator: torch.Generator | None, device: torch.device
    ) -> Tensor:
        """Return points of a part of the surface that covers a component, evenly."""

    def extra_repr(self) -> str:
        edges = len(self.starts)
        return f"{len(self.rings)} ring{'s' if len(self.rings) > 1 else ''}, {edges} edges"

    # Parts.

    def _parts(self, x: Tensor) -> Sequence[Tensor]:
        return x.split(max(1, _BLOCK // len(self.starts)))

    def _turn(self, h: Tensor, angle: Tensor) -> Tensor:
        """Return half the angle by which the inverted border turns without its corners, ``(n,)``."""
        return torch.where(h < 0, -angle, angle).sum(-1)

    def _inside(self, h: Tensor, angle: Tensor) -> Tensor:
        return (self._turn(h, angle) - self.inside_turn).abs() < torch.pi / 2

    def _orient(self) -> None:
        """Find what the border turns by as seen from inside; raise ValueError where rings contradict each other."""
        step = 1e-6 * float(self.half_lengths.amin())
        half = torch.full((len(self.starts),), 0.5, dtype=torch.float64)
        on = self._at(torch.arange(len(self.starts)), half)
        left, right = (self._moved(on, side * self._normals_at(on), step) for side in (1, -1))
        turns = [torch.cat([self._turn(*self._seen(part)) for part in self._parts(side)]) for side in (left, right)]
        self.inside_turn = turns[0].median()
        bad = ((turns[0] - self.inside_turn).abs() > torch.pi / 2) | (
            (turns[1] - self.inside_turn).abs() < torch.pi / 2
        )
        if bool(bad.any()):
            edge = int(bad.nonzero()[0])
            raise ValueError(
                f"{type(self).__name__}: ring {int(self.of_ring[edge]) + 1} runs the wrong way round, or rings "
                f"contradict each other, at {self._place(on[edge])}; the inside is on the left of every ring: outer "
                "rings run counterclockwise, holes clockwise"
            )

    def _normals_at(self, x: Tensor) -> Tensor:
        return self.normals

    def _check_crossings(self) -> None:
        count = len(self.starts)
        for i, j in _pairs(count):
            crossing = self._crossings(i, j)
            if bool(crossing.any()):
                k = int(crossing.nonzero()[0])
                a, b = (self._at(e[k : k + 1], torch.full((1,), 0.5, dtype=torch.float64))[0] for e in (i, j))
                raise ValueError(
                    f"{type(self).__name__}: rings cross themselves or each other, the edges with middles "
                    f"{self._place(a)} and {self._place(b)}; repair them, as with shapely.make_valid"
                )


def checked_rings(owner: str, rings: Any, size: int, what: str) -> list[Tensor]:
    """Return rings as tensors ``(k, size)``, without the repetition of the first corner at the end.

    Args:
        owner: the polygon, for messages.
        rings: one ring, or several.
        size: of a corner.
        what: corners are, in words.

    Raises:
        ValueError: there is none, or one is no ring.
    """
    single = isinstance(rings, Tensor) and rings.ndim == 2
    if not single and not len(rings):
        raise ValueError(f"{owner}: there is no ring; give at least three {what}")
    if not single and not isinstance(rings, Tensor):
        single = numbers(owner, "the first corner", rings[0]).ndim == 1
    found = [numbers(owner, f"ring {i + 1}", ring) for i, ring in enumerate([rings] if single else rings)]
    for i, ring in enumerate(found):
        if ring.ndim != 2 or ring.shape[1] != size or not bool(ring.isfinite().all()):
            raise ValueError(f"{owner}: ring {i + 1} must be finite {what} (k, {size}), got shape {tuple(ring.shape)}")
        if len(ring) > 1 and torch.equal(ring[0], ring[-1]):
            found[i] = ring = ring[:-1]
        if len(ring) < 3:
            raise ValueError(f"{owner}: ring {i + 1} has {len(ring)} corners, and so no area; give at least three")
        repeated = (ring == ring.roll(-1, 0)).all(-1)
        if bool(repeated.any()):
            found[i] = ring[~repeated]
    return found


def _pairs(count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield all pairs of numbers below ``count``, some rows at a time."""
    rows = max(1, 2**20 // count)
    for first in range(0, count, rows):
        i = torch.arange(first, min(first + rows, count))
        pair = torch.cartesian_prod(i, torch.arange(count))
        pair = pair[pair[:, 0] < pair[:, 1]]
        if len(pair):
            yield pair[:, 0], pair[:, 1]
