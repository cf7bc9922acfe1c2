"""Reflow: a flow trained again on the pairs that it makes, whose paths are straighter."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from manifolds.arguments import check_instance, integer, seed_of
from rfm.flow import Flow
from rfm.integrators import Method
from rfm.metrics import FlowMeasures, flow_measures
from rfm.training.fitting import fit
from rfm.training.loop import step_seed

_MEASURED = 500
_OWN = frozenset({"start", "pairs", "start_weights", "source", "coupling", "condition", "conditions", "seed"})
"""What `reflow` says to `fit` itself."""


@dataclass(frozen=True)
class Reflow:
    """What the rounds of a `reflow` have made.

    Args:
        flow: after the last round.
        measures: of the flow that was given, and after each round.
    """

    flow: Flow
    measures: tuple[FlowMeasures, ...]


def reflow(
    flow: Flow,
    n_pairs: int,
    *,
    rounds: int = 1,
    condition: Tensor | Mapping[str, Any] | None = None,
    solver: Method | None = None,
    seed: int = 0,
    **options: Any,
) -> Reflow:
    """Train a flow again on pairs of a draw from its source and the point that the flow carries it to.

    Conditional paths between such pairs cross less than those between independent ones, so the new flow is straighter
    and needs fewer steps: in flat space the transport cost of its coupling is no larger, for every convex cost (theorem
    3.5 of the paper). On a curved space the same is done along geodesics, where it is measured, not proven. The source
    stays as it is, and so the density of the new flow is exact; it is that of the model, no longer of the data.

    Liu, Gong, Liu, Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow, 2022,
    arXiv:2209.03003.

    Args:
        flow: a flow whose field is a `torch.nn.Module`; it stays as it is.
        n_pairs: how many pairs are drawn for each round.
        rounds: how often; each begins with the field of the one before.
        condition: of the pairs, for a conditional flow, ``(n_pairs, c)`` or by name, as for `rfm.Flow.sample`.
        solver: of the pairs; adaptive by default.
        seed: of the draws and of the training.
        options: for `rfm.fit`, such as ``steps``, ``objective``, ``validation`` and ``training``; ``out`` for one round
            alone.

    Raises:
        ValueError: for options that are not the caller's to choose here, or a field that cannot be trained.
    """
    check_instance("reflow", "flow", flow, Flow, "rfm.fit(points, manifold)")
    n_pairs, rounds = integer("reflow", "n_pairs", n_pairs, 4), integer("reflow", "rounds", rounds)
    seed = seed_of("reflow", seed)
    if not isinstance(flow.field, nn.Module):
        raise ValueError(
            f"reflow: the flow's field must be a torch.nn.Module, got {type(flow.field).__name__}; fit one"
        )
    if taken := sorted(_OWN & options.keys()):
        raise ValueError(f"reflow: {', '.join(taken)} follows from the flow; leave it out")
    if rounds > 1 and options.get("out") is not None:
        raise ValueError(
            f"reflow: out holds one flow, there are {rounds} rounds; call it once for each, or leave it out"
        )
    measures = [_measured(flow, condition, solver, seed)]
    for round_ in range(rounds):
        own = step_seed(seed, round_)
        dtype, device = flow._dtype_and_device()
        generator = torch.Generator(device).manual_seed(own)
        x_0 = flow.source.sample((n_pairs,), generator=generator, dtype=dtype, device=device)
        x_1 = flow.transport(x_0, condition=condition, solver=solver)
        flow = fit(
            x_1, flow.manifold, start=x_0, pairs=True, source=flow.source, field=copy.deepcopy(flow.field), seed=seed,
            condition=condition, conditions=flow.conditions, **options,
        )  # fmt: skip
        measures.append(_measured(flow, condition, solver, seed))
    return Reflow(flow, tuple(measures))


def _measured(
    flow: Flow, condition: Tensor | Mapping[str, Any] | None, solver: Method | None, seed: int
) -> FlowMeasures:
    """Return the measures of a flow at the first conditions, on the same draws at each round."""
    generator = torch.Generator(flow._dtype_and_device()[1]).manual_seed(seed)
    if condition is None:
        return flow_measures(flow, _MEASURED, generator=generator, solver=solver)
    if isinstance(condition, Mapping):
        some: Any = {name: values[:_MEASURED] for name, values in condition.items()}
        count = len(next(iter(some.values())))
    else:
        some = condition[:_MEASURED]
        count = len(some)
    return flow_measures(flow, count, condition=some, generator=generator, solver=solver)
