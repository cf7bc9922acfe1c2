"""Products of manifolds: different factors side by side."""

import functools
import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from manifolds.arguments import number, shown
from manifolds.base import Manifold
from manifolds.checks import check_shape, name_errors
from manifolds.composed.composite import Composite, product_of_volumes
from manifolds.coordinates import ProductCoordinates
from manifolds.kernel import Kernel, ProductKernel
from manifolds.lie_group import DirectProduct, LieGroup
from manifolds.numerics import differentiated, safe_sqrt


class Product(Composite):
    """The product of several manifolds, with the weighted sum of their metrics.

    A point is one vector ``(N,)``: the factors' points, flattened and concatenated in order; `split` and `join`
    convert. The metric is ``sum_i w_i <u_i, v_i>``: lengths in factor i are multiplied by ``sqrt(w_i)``, the volume by
    the product of the ``w_i^(d_i / 2)``. Weights do not change geodesics; they say how much a unit of length in one
    factor (radians, say) counts against a unit in another (metres). `embed` joins the factors' embeddings, unweighted.
    ``volume`` is None where it is infinite, unknown, or outside the range of a double.

    Args:
        factors: one manifold or more; a product may itself be a factor.
        weights: one positive number per factor, multiplying its squared metric; by default all 1.

    References:
        Lee, Introduction to Riemannian Manifolds (2nd edition, 2018), chapter 2, product metrics.
    """

    def __init__(self, *factors: Manifold, weights: Sequence[float] | None = None) -> None:
        if not factors or not all(isinstance(factor, Manifold) for factor in factors):
            raise ValueError(
                f"Product: factors must be manifolds, at least one, got {[shown(f) for f in factors]}; "
                "pass them one by one, as in Product(Sphere(2), FlatTorus(1))"
            )
        chosen = (1.0,) * len(factors) if weights is None else tuple(number("Product", "weight", w) for w in weights)
        if len(chosen) != len(factors) or not all(0 < w < math.inf for w in chosen):
            raise ValueError(
                f"Product: weights must be one positive finite number per factor, got {chosen} for {len(factors)} "
                "factors; they multiply the squared metric"
            )
        sizes = tuple(math.prod(factor.event_shape) for factor in factors)
        super().__init__(sum(factor.dim for factor in factors), (sum(sizes),))
        self.factors = nn.ModuleList(factors)
        self.weights = chosen
        self.sizes = sizes
        volumes = [f.volume and f.volume * w ** (f.dim / 2) for f, w in zip(factors, chosen, strict=True)]
        self.volume = product_of_volumes(volumes)
        self.points_are_classes = any(f.points_are_classes for f in factors)
        self.points_per_class = math.prod(f.points_per_class for f in factors)
        self.logmap_radius = min(math.sqrt(w) * f.logmap_radius for f, w in zip(factors, self.weights, strict=True))
        radii = [f.injectivity_radius for f in factors]
        self.injectivity_radius = (
            None
            if any(r is None for r in radii)
            else min(math.sqrt(w) * r for w, r in zip(chosen, radii, strict=True) if r is not None)
        )
        self.has_kinks = any(f.has_kinks for f in factors)
        self._coordinates = ProductCoordinates(self, [f.coordinates for f in factors], self.split, self.join)

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the factors' parts ``(*batch, *factor.event_shape)`` of points or vectors ``(*batch, N)``."""
        pieces = torch.split(x, list(self.sizes), dim=-1)
        return tuple(p.reshape(*p.shape[:-1], *f.event_shape) for p, f in zip(pieces, self._factors, strict=True))

    def join(self, *parts: Tensor) -> Tensor:
        """Return the points or vectors ``(*batch, N)`` with these parts, whose batch shapes broadcast."""
        if len(parts) != len(self.sizes):
            raise ValueError(f"{self}: join takes one part per factor, {len(self.sizes)}, got {len(parts)}")
        flat = [p.flatten(-len(f.event_shape)) for p, f in zip(parts, self._factors, strict=True)]
        batch = torch.broadcast_shapes(*(p.shape[:-1] for p in flat))
        return torch.cat([p.expand(*batch, p.shape[-1]) for p in flat], dim=-1)

    # Projections.

    def projx(self, x: Tensor) -> Tensor:
        return self.join(*(f.projx(a) for f, a in self._pairs(x)))

    def projx_jvp(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self._join_pairs([f.projx_jvp(a, b) for f, a, b in self._triples(x, v)])

    def outside(self, x: Tensor) -> Tensor | None:
        """Return whether any factor's part lies outside."""
        known = [o for o in (f.outside(a) for f, a in self._pairs(x)) if o is not None]
        return functools.reduce(torch.logical_or, known) if known else None

    def excludes(self, x: Tensor) -> Tensor | None:
        """Return whether any factor excludes its part."""
        known = [o for o in (f.excludes(a) for f, a in self._pairs(x)) if o is not None]
        return functools.reduce(torch.logical_or, known) if known else None

    def distance_to_border(self, x: Tensor) -> Tensor | None:
        """Return the distance to the nearest border of a factor, in the factor's weight."""
        pairs = zip(self.weights, self._pairs(x), strict=True)
        known = [math.sqrt(w) * b for w, (f, a) in pairs if (b := f.distance_to_border(a)) is not None]
        return functools.reduce(torch.minimum, known) if known else None

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return self.join(*(f.proju(a, b) for f, a, b in self._triples(x, u)))

    # Metric.

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        terms = [f.inner(a, b, c) for (f, a, b), c in zip(self._triples(x, u), self.split(v), strict=True)]
        return _sum([w * term for w, term in zip(self.weights, terms, strict=True)])

    @property
    def metric_is_induced(self) -> bool:
        """Whether every factor's metric is induced and every weight is 1."""
        return all(f.metric_is_induced for f in self._factors) and all(w == 1 for w in self.weights)

    def dist(self, x: Tensor, y: Tensor) -> Tensor:
        if differentiated(x) or differentiated(y):
            squares = [f.squared_dist(a, b) for f, a, b in self._triples(x, y)]
            return safe_sqrt(_sum([w * square for w, square in zip(self.weights, squares, strict=True)]))
        # The factors' own distances keep their accuracy.
        terms = [math.sqrt(w) * f.dist(a, b) for w, (f, a, b) in zip(self.weights, self._triples(x, y), strict=True)]
        return torch.linalg.vector_norm(torch.stack(torch.broadcast_tensors(*terms), dim=-1), dim=-1)

    # Geodesics.

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return self.join(*(f.expmap(a, b) for f, a, b in self._triples(x, u)))

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        return self.join(*(f.logmap(a, b) for f, a, b in self._triples(x, y)))

    def shoot(self, x: Tensor, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return self._join_pairs([f.shoot(a, b, t) for f, a, b in self._triples(x, u)])

    def geodesic(self, x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return self._join_pairs([f.geodesic(a, b, t) for f, a, b in self._triples(x, y)])

    def expmap_jvp(self, x: Tensor, u: Tensor, dx: Tensor, du: Tensor) -> tuple[Tensor, Tensor]:
        inputs = zip(self._factors, *map(self.split, (x, u, dx, du)), strict=True)
        return self._join_pairs([f.expmap_jvp(*parts) for f, *parts in inputs])

    def logmap_jvp(self, x: Tensor, y: Tensor, dx: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
        inputs = zip(self._factors, *map(self.split, (x, y, dx, dy)), strict=True)
        return self._join_pairs([f.logmap_jvp(*parts) for f, *parts in inputs])

    def pull_back(self, x: Tensor, u: Tensor, y: Tensor, v: Tensor) -> Tensor:
        inputs = zip(self._factors, *map(self.split, (x, u, y, v)), strict=True)
        return self.join(*(f.pull_back(*parts) for f, *parts in inputs))

    def transp(self, x: Tensor, y: Tensor, u: Tensor) -> Tensor:
        """Carry each part of ``u`` as its factor does: parallel transport where every factor's is."""
        return self.join(*(f.transp(a, b, c) for (f, a, b), c in zip(self._triples(x, y), self.split(u), strict=True)))

    @property
    def transp_is_isometric(self) -> bool:
        """Whether every factor's transport is."""
        return all(f.transp_is_isometric for f in self._factors)

    @property
    def solver_accuracy(self) -> float:  # type: ignore[override]
        """That of the least accurate factor."""
        return max(f.solver_accuracy for f in self._factors)

    # Bases and volume.

    def tangent_basis(self, x: Tensor) -> Tensor:
        blocks = [f.tangent_basis(a) / math.sqrt(w) for w, (f, a) in zip(self.weights, self._pairs(x), strict=True)]
        return self._block_diagonal(blocks)

    def divergence_frame(self, x: Tensor) -> tuple[Tensor, Tensor]:
        # The divergence does not see a constant factor of the volume, hence no weights.
        frames = [f.divergence_frame(a) for f, a in self._pairs(x)]
        return self._block_diagonal([e for e, _ in frames]), self._block_diagonal([w for _, w in frames])

    def divergence_probes(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        # Factor by factor: the frame of the whole product is mostly zeros.
        return self._join_pairs([f.divergence_probes(a, z) for f, a, z in self._triples(x, noise)])

    def log_volume_derivative(self, x: Tensor, u: Tensor) -> Tensor:
        return _sum([f.log_volume_derivative(a, b) for f, a, b in self._triples(x, u)])

    def log_det_expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return _sum([f.log_det_expmap(a, b) for f, a, b in self._triples(x, u)])

    def random_uniform(
        self,
        *shape: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        draws = [f.random_uniform(*shape, generator=generator, dtype=dtype, device=device) for f in self._factors]
        return self.join(*draws)

    @property
    def lie_group(self) -> LieGroup | None:
        """The direct product of the factors' groups; None unless every factor is one."""
        groups = [f.lie_group for f in self._factors]
        known = [g for g in groups if g is not None]
        return (
            DirectProduct(known, [f.dim for f in self._factors], self.split, self.join)
            if len(known) == len(groups)
            else None
        )

    @property
    def kernel(self) -> Kernel | None:
        """The product of the factors' kernels; None where a factor has none, or one that several centres share."""
        known = [kernel for f in self._factors if (kernel := f.kernel) is not None and kernel.centre_count == 1]
        # A kernel that is a sum over centres would make the product's one a sum over all combinations.
        if len(known) < len(self._factors):
            return None
        scale = sum(f.dim / 2 * math.log(w) for f, w in zip(self._factors, self.weights, strict=True))
        return ProductKernel(self, known, scale, self.split, self.join)

    # Checks, for the borders.

    def check_point(self, x: Tensor, tol: float | None = None) -> None:
        """Raise ValueError, naming the factor, unless every factor's part passes its own check."""
        check_shape(self, "points", x)
        for i, (f, a) in enumerate(self._pairs(x)):
            name_errors(f"factor {i} of {self}", f.check_point, a, tol=tol)

    def check_tangent(self, x: Tensor, u: Tensor, tol: float | None = None) -> None:
        """Raise ValueError, naming the factor, unless every factor's part of ``u`` passes its own check."""
        check_shape(self, "tangent vectors", u)
        for i, (f, a, b) in enumerate(self._triples(x, u)):
            name_errors(f"factor {i} of {self}", f.check_tangent, a, b, tol=tol)

    def extra_repr(self) -> str:
        weights = "" if all(w == 1 for w in self.weights) else f", weights={self.weights}"
        return ", ".join(map(repr, self._factors)) + weights

    @property
    def _factors(self) -> tuple[Manifold, ...]:
        return tuple(cast(Manifold, factor) for factor in self.factors)

    def _pairs(self, x: Tensor) -> list[tuple[Manifold, Tensor]]:
        return list(zip(self._factors, self.split(x), strict=True))

    def _triples(self, x: Tensor, y: Tensor) -> list[tuple[Manifold, Tensor, Tensor]]:
        return list(zip(self._factors, self.split(x), self.split(y), strict=True))

    def _join_pairs(self, pairs: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        return self.join(*(x_t for x_t, _ in pairs)), self.join(*(dx_t for _, dx_t in pairs))

    def _block_diagonal(self, blocks: list[Tensor]) -> Tensor:
        """Return ``(*batch, dim, N)`` from the factors' ``(*batch, d_i, *event_shape_i)``, zero off the blocks."""
        total, start, rows = sum(self.sizes), 0, []
        for f, size, block in zip(self._factors, self.sizes, blocks, strict=True):
            flat = block.flatten(-len(f.event_shape))
            rows.append(nn.functional.pad(flat, (start, total - start - size)))
            start += size
        return torch.cat(rows, dim=-2)


def _sum(terms: Sequence[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
