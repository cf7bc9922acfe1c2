"""How far and how straight points travel: lengths, kinetic energies, and the floor of the flow matching loss."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from manifolds import Manifold
from manifolds.arguments import check_instance, integer
from manifolds.numerics.precision import in_full_precision
from rfm.arrays import points_of
from rfm.couplings import Coupling, Independent
from rfm.flow import Flow
from rfm.integrators import Method
from rfm.metrics.estimates import Estimate, clustered_mean
from rfm.metrics.two_sample import wasserstein_distance
from rfm.paths import ConditionalPath

_NODES = 16


@dataclass(frozen=True)
class FlowMeasures:
    """What paths from start points to end points measure, means over ``n`` of them.

    The chain ``wasserstein_squared <= squared_distance <= energy`` and ``length^2 <= energy`` hold up to sampling.

    Args:
        length: of a path, in the unit of the metric.
        energy: the kinetic energy ``E int |dx_t|^2 dt``, its square.
        squared_distance: ``E dist(x_0, x_1)^2``: the transport cost of the coupling that the paths make.
        straightness: ``energy - squared_distance``, paired: 0 for shortest geodesics at constant speed alone. In flat
            space it is ``E int |dx_t - (x_1 - x_0)|^2 dt``, Liu et al., 2022, arXiv:2209.03003, equation 6.
        wasserstein_squared: the least cost of any pairing of the same points, an empirical squared distance; of so few
            points it is too large between distributions that are near each other.
        jensen_gap: ``E int |dx_t|^2 - |v|^2 dt`` with the marginal velocity v: how much the coupling lets paths cross,
            and the floor of the flow matching loss with uniform times; None where v is not known.
        excess_loss: ``E int |field - v|^2 dt``: the loss of a field above that floor; None where either is not given.
    """

    length: Estimate
    energy: Estimate
    squared_distance: Estimate
    straightness: Estimate
    wasserstein_squared: float
    jensen_gap: Estimate | None = None
    excess_loss: Estimate | None = None


@in_full_precision
@torch.no_grad()
def flow_measures(
    flow: Flow,
    count: int = 500,
    *,
    condition: Tensor | Mapping[str, Any] | None = None,
    generator: torch.Generator | None = None,
    solver: Method | None = None,
    nodes: int = _NODES,
) -> FlowMeasures:
    """Return the measures of the paths that draws from a flow's source take.

    Integrals over time are by Gauss and Legendre's rule, which is exact for polynomials of degree ``2 nodes - 1``.

    Args:
        flow: the flow.
        count: how many draws.
        condition: as for `rfm.Flow.sample`, one for all or ``(count, c)``.
        generator: source of randomness.
        solver: how to integrate; adaptive by default.
        nodes: times at which velocities are evaluated.
    """
    check_instance("flow_measures", "flow", flow, Flow, "Flow(manifold, field)")
    count, nodes = integer("flow_measures", "count", count), integer("flow_measures", "nodes", nodes)
    dtype, device = flow._dtype_and_device()
    manifold = flow.manifold
    x_0 = manifold.projx(flow.source.sample((count,), generator=generator, dtype=dtype, device=device))
    times, weights = _rule(nodes)
    x = flow.trajectory(x_0, [0.0, *times.tolist(), 1.0], condition=condition, solver=solver)
    speeds = torch.stack(
        [
            manifold.norm(x_t, flow.velocity(x_t, float(t), condition=condition)).double().cpu()
            for t, x_t in zip(times, x[1:-1], strict=True)
        ]
    )
    return _measured(manifold, x_0, x[-1], weights @ speeds, weights @ speeds.square())


@in_full_precision
@torch.no_grad()
def path_measures(
    path: ConditionalPath,
    x_0: Tensor,
    x_1: Tensor,
    *,
    coupling: Coupling = Independent(),
    marginal: Callable[[Tensor, Tensor], Tensor] | None = None,
    field: Callable[[Tensor, Tensor], Tensor] | None = None,
    generator: torch.Generator | None = None,
    nodes: int = _NODES,
) -> FlowMeasures:
    """Return the measures of the conditional paths between two samples, in the pairs that a coupling makes.

    Args:
        path: the conditional path.
        x_0: start points ``(n, *event_shape)``.
        x_1: end points, as many.
        coupling: pairs them; row by row by default.
        marginal: the velocity that conditional ones have on average, ``marginal(x, t)``, where it is known in closed
            form: then the floor of the loss is.
        field: a velocity field that was trained on these paths, whose loss above the floor is to be known.
        generator: source of randomness, for the coupling.
        nodes: times at which velocities are evaluated; see `flow_measures`.

    Raises:
        ValueError: for samples of unequal size, or a field without a marginal velocity to compare it with.
    """
    check_instance("path_measures", "path", path, ConditionalPath, "GeodesicPath(manifold)")
    manifold = path.manifold
    x_0, x_1 = points_of("path_measures", manifold, x_0), points_of("path_measures", manifold, x_1)
    if x_0.shape != x_1.shape or x_0.ndim != 1 + len(manifold.event_shape):
        raise ValueError(
            f"path_measures: needs as many start points as end points, (n, *event_shape), got {tuple(x_0.shape)} and "
            f"{tuple(x_1.shape)}; drop some"
        )
    if field is not None and marginal is None:
        raise ValueError(
            "path_measures: the loss of a field above its floor needs the marginal velocity; pass marginal="
        )
    pairs = coupling(x_0, x_1, generator=generator)
    x_0, x_1 = pairs.x_0, pairs.x_1
    times, weights = _rule(integer("path_measures", "nodes", nodes))
    speeds, gaps, excesses = [], [], []
    for t in times:
        sample = path.sample(x_0, x_1, torch.full((len(x_0),), float(t), dtype=x_0.dtype, device=x_0.device))
        squared = manifold.inner(sample.x_t, sample.dx_t, sample.dx_t)
        speeds.append(squared.sqrt())
        if marginal is not None:
            v = marginal(sample.x_t, sample.t)
            gaps.append(squared - manifold.inner(sample.x_t, v, v))
            if field is not None:
                error = field(sample.x_t, sample.t) - v
                excesses.append(manifold.inner(sample.x_t, error, error))
    over_time = [torch.stack(rows).double().cpu() for rows in (speeds, gaps, excesses) if rows]
    more = [clustered_mean(weights @ rows) for rows in over_time[1:]]
    return _measured(manifold, x_0, x_1, weights @ over_time[0], weights @ over_time[0].square(), *more)


def _measured(
    manifold: Manifold, x_0: Tensor, x_1: Tensor, length: Tensor, energy: Tensor, *more: Estimate
) -> FlowMeasures:
    squared = manifold.dist(x_0, x_1).double().cpu().square()
    straight = clustered_mean(energy - squared)
    least = wasserstein_distance(manifold, x_0, x_1, blocks=1).mean ** 2
    first, second, third = (clustered_mean(values) for values in (length, energy, squared))
    return FlowMeasures(first, second, third, straight, least, *more)


def _rule(nodes: int) -> tuple[Tensor, Tensor]:
    """Return times in (0, 1) and their weights, of Gauss and Legendre."""
    x, w = np.polynomial.legendre.leggauss(nodes)
    return torch.from_numpy((x + 1) / 2), torch.from_numpy(w / 2)
