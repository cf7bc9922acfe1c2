"""Paths inside a set where straight ways would leave it."""

import copy
import math
from dataclasses import dataclass
from functools import singledispatch
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from manifolds import Bounded, Manifold
from manifolds.arguments import check_instance, integer, number, seed_of
from rfm.paths.conditional import ConditionalPath, GeodesicPath, PathSample

_CANDIDATES = 6
"""Nodes next to an end that its way may begin at."""
_DETOUR = 1.5
"""Power of the length that an edge costs: above 1, so that ways do not all press against the same corners."""


@dataclass(frozen=True)
class BoundedPath(ConditionalPath):
    """Ways inside a bounded set: straight ones, ones reflected at the border, and ways round where it is in between.

    **Reflected.** Straight ways between points of a convex set hardly ever touch its border, so that on the way the
    density falls to zero there, in a layer that is thin where they begin and end, and which a network cannot resolve.
    Therefore a share of the pairs goes by the point of the border that mirrors ``x_0`` in the wall nearest to it.

    **Round.** Shortest ways round a corner all pass through the corner itself: their marginals have no density, and a
    field cannot learn them. Here the ways lead through nodes drawn evenly from the set, the cheapest ones on the graph
    of those that see each other, at constant speed; each batch has one of several graphs. A network cannot tell this
    from ways that are spread between the nodes, so they should be about as dense as the finest passage is wide.

    Where ``x_0`` and ``x_1`` lie in different connected components no path leads from one to the other. ``x_0`` is then
    replaced by a node of the component of ``x_1``, which is as uniform there.

    Args:
        manifold: the bounded set.
        reflected: share of the pairs whose way is reflected where that way stays inside.
        nodes: how many there are in each graph.
        graphs: how many graphs there are.
        seed: of the nodes, and of what batch has which.
    """

    manifold: Bounded
    reflected: float = 0.5
    nodes: int = 400
    graphs: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        check_instance("BoundedPath", "manifold", self.manifold, Bounded, "Bounded(Sphere(2), polygon)")
        for name, value in (("nodes", self.nodes), ("graphs", self.graphs)):
            object.__setattr__(self, name, integer("BoundedPath", name, value))
        object.__setattr__(self, "seed", seed_of("BoundedPath", self.seed))
        share = number("BoundedPath", "reflected", self.reflected)
        if not 0 <= share <= 1:
            raise ValueError(f"BoundedPath: reflected is a share of the pairs, from 0 to 1, got {share:g}")

    @property
    def starts_at_source(self) -> bool:
        return self.manifold.constraint.is_connected

    def sample(self, x_0: Tensor, x_1: Tensor, t: Tensor) -> PathSample:
        self._check_times(x_0, x_1, t)
        m = self.manifold
        batch = torch.broadcast_shapes(m.batch_shape(x_0), m.batch_shape(x_1), t.shape)
        x_0, x_1 = (x.expand(*batch, *m.event_shape) for x in (x_0, x_1))
        flat = [x.reshape(-1, *m.event_shape) for x in (x_0, x_1)]
        start, routes = self._routes(*flat)
        x_t, dx_t = _along(m, routes, t.expand(batch).reshape(-1))
        shape = (*batch, *m.event_shape)
        return PathSample(start.reshape(shape), x_1, t.expand(batch), x_t.reshape(shape), dx_t.reshape(shape))

    def _routes(self, x_0: Tensor, x_1: Tensor) -> tuple[Tensor, Tensor]:
        """Return where ways start, ``(n, *event_shape)``, and their corners ``(n, k, *event_shape)``."""
        if self.manifold.convex and self.manifold.constraint.is_connected:
            corners = torch.stack([x_0, x_1], 1)
        else:
            x_0, corners = self._graph(x_0).routes(x_0, x_1)
        chosen = _lots(x_0) < self.reflected
        # Those that go straight, and could as well be reflected.
        straight = (corners[:, 1:] == x_1[:, None]).flatten(2).all(-1).all(-1)
        at, fits = mirrored(self.manifold, x_0, x_1)
        at = torch.where(self.manifold.lift(chosen & straight & fits), at, x_0)
        return x_0, torch.cat([x_0[:, None], at[:, None], corners[:, 1:]], 1)

    def _graph(self, x_0: Tensor) -> "_Graph":
        """Return the graph that a batch has."""
        # Made when they are first needed: a path that is but described costs nothing.
        made = _GRAPHS.setdefault(self.manifold, {})
        key = (self.nodes, self.graphs, self.seed)
        if key not in made:
            generator = torch.Generator().manual_seed(self.seed)
            made[key] = [_Graph.drawn(self.manifold, self.nodes, generator) for _ in range(self.graphs)]
        lot = float(_lots(x_0[:1])[0]) if len(x_0) else 0.0
        return made[key][int(lot * self.graphs)].on(x_0.device)


class _Graph(NamedTuple):
    """Nodes of a set, and the cheapest ways between all of them."""

    manifold: Bounded
    nodes: Tensor
    components: Tensor
    cost: Tensor
    """Of the way between nodes ``(n, n)``; infinite where there is none."""
    before: Tensor
    """The node before the last on the way from the row's to the column's ``(n, n)``; negative where there is none."""

    @classmethod
    def drawn(cls, m: Bounded, count: int, generator: torch.Generator) -> "_Graph":
        from scipy.sparse.csgraph import shortest_path

        # On the CPU, whatever device the set has been moved to.
        constraint = copy.deepcopy(m.constraint).cpu()
        if constraint.is_connected:
            nodes = constraint.random_uniform(count, generator, torch.device("cpu"))
            numbers = constraint.components(nodes)
        else:
            volumes = constraint.component_volumes
            drawn = torch.multinomial(volumes, count, replacement=True, generator=generator)
            # Every component has some.
            numbers = torch.cat([drawn, (volumes > 0).nonzero()[:, 0].repeat(_CANDIDATES)])
            nodes = constraint.random_in(numbers, generator)
        n = len(nodes)
        i, j = torch.triu_indices(n, n, 1)
        pairs = zip(i.split(2048), j.split(2048), strict=True)
        parts = [constraint.crosses(m.m, nodes[a], nodes[b]) for a, b in pairs]
        length = m.m.dist(nodes[i], nodes[j])
        edges = torch.full((n, n), math.inf, dtype=torch.float64)
        edges[i, j] = torch.where(torch.cat(parts), math.inf, length**_DETOUR)
        edges = torch.minimum(edges, edges.mT)
        cost, before = shortest_path(edges.nan_to_num(posinf=0.0).numpy(), directed=False, return_predecessors=True)
        return cls(m, nodes, numbers, torch.from_numpy(cost), torch.from_numpy(before).long())

    def on(self, device: torch.device) -> "_Graph":
        """Return the graph with its tensors on a device."""
        moved = (part.to(device) for part in (self.nodes, self.components, self.cost, self.before))
        return _Graph(self.manifold, *moved)

    def routes(self, x_0: Tensor, x_1: Tensor) -> tuple[Tensor, Tensor]:
        """Return where ways to ``x_1`` start, ``(n, *event_shape)``, and their corners ``(n, k, *event_shape)``.

        Ways with fewer corners than others repeat their end.
        """
        m, constraint = self.manifold, self.manifold.constraint
        if not constraint.is_connected:
            x_0 = self._in_same_component(x_0, x_1)
        blocked = constraint.crosses(m.m, x_0, x_1).nonzero()[:, 0]
        straight = torch.stack([x_0, x_1], 1)
        if not len(blocked):
            return x_0, straight
        first, last, cost = self._ends(x_0[blocked], x_1[blocked])
        # A place from which no node is seen stays where it is.
        hidden = ~cost.isfinite()
        x_0 = x_0.index_copy(0, blocked[hidden], x_1[blocked[hidden]])
        ways = [last]
        while bool((ways[-1] != first)[~hidden].any()):
            step = self.before[first, ways[-1]]
            ways.append(torch.where((ways[-1] == first) | (step < 0), ways[-1], step))
        middle = self.nodes[torch.stack(ways[::-1], 1)].to(x_0)
        middle = torch.where(m.lift(hidden[:, None]), x_1[blocked][:, None], middle)
        shape = (len(x_0), middle.shape[1], *m.event_shape)
        corners = x_1[:, None].expand(shape).index_copy(0, blocked, middle)
        return x_0, torch.cat([x_0[:, None], corners, x_1[:, None]], 1)

    def _ends(self, x_0: Tensor, x_1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the first and the last node of the cheapest way, and its cost."""
        near, costs = zip(*(self._seen(x) for x in (x_0, x_1)), strict=True)
        between = self.cost[near[0][:, :, None], near[1][:, None, :]]
        total = (costs[0][:, :, None] + between + costs[1][:, None, :]).flatten(1)
        cost, place = total.min(1)
        k = near[1].shape[1]
        first = torch.take_along_dim(near[0], (place // k)[:, None], 1)[:, 0]
        return first, torch.take_along_dim(near[1], (place % k)[:, None], 1)[:, 0], cost

    def _seen(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nodes nearest to points, and the costs of the ways to them, infinite where they are not seen."""
        m = self.manifold
        distance = m.m.dist(x[:, None].double(), self.nodes)
        length, near = distance.topk(min(_CANDIDATES, len(self.nodes)), largest=False)
        crossing = m.constraint.crosses(m.m, x[:, None].double(), self.nodes[near])
        lost = crossing.all(1)
        if bool(lost.any()):
            # From a narrow place, any that is seen.
            far = distance[lost] + torch.where(
                m.constraint.crosses(m.m, x[lost][:, None].double(), self.nodes), math.inf, 0.0
            )
            length[lost], near[lost] = far.topk(length.shape[1], largest=False)
            crossing[lost] = length[lost].isinf()
        return near, torch.where(crossing, math.inf, length**_DETOUR)

    def _in_same_component(self, x_0: Tensor, x_1: Tensor) -> Tensor:
        here, there = (self.manifold.constraint.components(x) for x in (x_0, x_1))
        apart = (here != there).nonzero()[:, 0]
        if not len(apart):
            return x_0
        same = self.components == there[apart][:, None]
        rank = (_lots(x_0[apart]) * same.sum(1)).long()
        chosen = ((same.cumsum(1) == rank[:, None] + 1) & same).int().argmax(1)
        return x_0.index_copy(0, apart, self.nodes[chosen].to(x_0))


_GRAPHS: WeakKeyDictionary[Bounded, dict[tuple[int, int, int], list[_Graph]]] = WeakKeyDictionary()
"""Those that were made, by set: they follow from the arguments of a path."""


def _lots(x: Tensor) -> Tensor:
    """Return a number in [0, 1) for each of some points that were drawn, ``(n,)``: from digits that nothing depends on.

    So a path draws nothing of its own, and a run that is resumed goes on as it would have.
    """
    digits = x.detach().double().flatten(1)
    weights = torch.sqrt(torch.arange(2, digits.shape[1] + 2, dtype=torch.float64, device=x.device))
    return torch.remainder(digits @ weights * 65_537.0, 1.0)


def mirrored(m: Bounded, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return where the way from ``x`` to ``y`` by the wall nearest to ``x`` is reflected, and whether it stays inside.

    As by a plane mirror, in the coordinates of the tangent space at the wall; on a curved wall the nearest point of the
    set.
    """
    at, normal = m.constraint.wall(x)
    u, v = (m.constraint.logmap(m.m, at, z) for z in (x, y))
    h, k = (m.inner(at, w, normal).clamp(min=0) for w in (u, v))
    share = h / (h + k).clamp(min=torch.finfo(h.dtype).tiny)
    # On the straight way between the two at this share, as far above the wall as is taken off here.
    middle = u + m.lift(share) * (v - u)
    place = m.projx(m.expmap(at, middle - m.lift(m.inner(at, middle, normal)) * normal))
    if m.convex:
        return place, torch.ones_like(share, dtype=torch.bool)
    return place, ~(m.constraint.crosses(m.m, x, place) | m.constraint.crosses(m.m, place, y))


def _along(m: Manifold, corners: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return positions and velocities at times on ways by geodesics between corners, at constant speed."""
    lengths = m.dist(corners[:, :-1], corners[:, 1:])
    ends = lengths.cumsum(1)
    total = ends[:, -1:]
    place = t[:, None] * total
    # The first leg that has not ended; legs of no length are passed over.
    leg = ((ends <= place) & (ends < total)).sum(1, keepdim=True)
    own = torch.take_along_dim(lengths, leg, 1)[:, 0]
    start = torch.take_along_dim(ends, leg, 1)[:, 0] - own
    index = m.lift(leg)
    a, b = (torch.take_along_dim(c, index, 1)[:, 0] for c in (corners[:, :-1], corners[:, 1:]))
    share = ((place[:, 0] - start) / torch.where(own > 0, own, 1.0)).clamp(0, 1)
    x_t, dx_t = m.geodesic(a, b, share)
    return x_t, dx_t * m.lift(total[:, 0] / torch.where(own > 0, own, 1.0))


@singledispatch
def default_path(manifold: Manifold) -> ConditionalPath:
    """Return the path that a fit follows unless told otherwise: geodesics, in bounded sets a `BoundedPath`.

    A generic function: ``default_path.register(MyManifold)`` gives your own manifold another.
    """
    return GeodesicPath(manifold)


@default_path.register
def _(manifold: Bounded) -> ConditionalPath:
    return BoundedPath(manifold)
