"""The checks that `rfm.fit` makes of its arguments, and the tensors that it makes from them."""

import copy
import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from manifolds import Manifold
from manifolds.arguments import call_of, check_function, check_instance, integer, number, required, shown
from manifolds.checks import shape_remedy
from manifolds.numerics.precision import any_autocast, at_least_float32
from rfm.arrays import indices_of, tensor_of
from rfm.conditions import Conditions
from rfm.couplings import Coupling, Independent
from rfm.datasets.splits import group_labels, group_split
from rfm.integrators.velocities import check_velocity
from rfm.networks.modes import in_evaluation_mode
from rfm.networks.precision import precision_of_weights
from rfm.objectives import FlowMatching, Objective, objective_of
from rfm.objectives.objective import Loss
from rfm.sources import Source
from rfm.sources.base import check_same_manifold
from rfm.training.settings import Training
from rfm.training.weighted_points import Points

_LEAST_DIGITS = 1e-2
"""How much of the spread of a condition may be rounding."""

POINT_TOLERANCE = 1e-3
"""How far off the manifold data may be, relative to its size: tables round to a few digits."""


def encoded_condition(condition: Any, conditions: Conditions | None) -> tuple[Any, Conditions | None]:
    """Return condition vectors, or None, and what they mean if that is known."""
    if isinstance(condition, Mapping):
        try:
            conditions = conditions or Conditions.of(condition)
            return conditions.encode(condition), conditions
        except ValueError as error:
            raise ValueError(f"fit: {error}") from None
    if conditions is not None:
        if condition is None:
            raise ValueError("fit: conditions says what condition means, which is missing; pass condition= too")
        vectors = _tensor("condition", condition)
        vectors = vectors[:, None] if vectors.ndim == 1 else vectors
        try:
            conditions.check(vectors)
        except ValueError as error:
            raise ValueError(f"fit: {error}") from None
        return vectors, conditions
    return condition, None


def check_data(points: Any, manifold: Manifold, condition: Any, weights: Any) -> Points:
    """Return points, conditions and weights as tensors in float64; raise ValueError if they cannot be used."""
    x = _tensor("points", points)
    if x.ndim != 1 + len(manifold.event_shape) or x.shape[1:] != manifold.event_shape:
        raise ValueError(
            f"fit: points on {manifold} have shape (n, {', '.join(map(str, manifold.event_shape))}), got "
            f"{tuple(x.shape)}; {shape_remedy(manifold, x)}"
        )
    if len(x) < 2:
        raise ValueError(f"fit: needs at least two points, got {len(x)}; give it more data")
    manifold.check_point(x, tol=POINT_TOLERANCE)
    c = w = None
    if condition is not None:
        c = _tensor("condition", condition)
        c = c[:, None] if c.ndim == 1 else c
        if c.ndim != 2 or len(c) != len(x) or bool(c.isinf().any()):
            raise ValueError(
                f"fit: condition must hold one finite vector per point, ({len(x)}, c), got shape {tuple(c.shape)}"
                f"{' with infinite entries' if c.isinf().any() else ''}; use NaN where it is not known"
            )
    if weights is not None:
        w = _tensor("weights", weights)
        if w.shape != (len(x),) or not bool((w >= 0).all() and w.isfinite().all() and w.sum() > 0):
            raise ValueError(
                f"fit: weights must be {len(x)} finite numbers, none negative and not all zero, got shape "
                f"{tuple(w.shape)} and minimum {float(w.min()) if w.numel() else math.nan:g}; correct them"
            )
    return Points(x, c, w)


def _tensor(name: str, values: Any) -> Tensor:
    return tensor_of("fit", name, values, torch.float64).detach().cpu()


def check_shares(data: Points, train: Tensor, validation: Tensor) -> None:
    """Raise ValueError unless some training and some validation points, given by index, have weight."""
    if data.weights is None:
        return
    for name, index in (("training", train), ("validation", validation)):
        if len(index) and not bool(data.weights[index].sum() > 0):
            raise ValueError(f"fit: the weights of all {name} points are zero; hold out other points, or remove some")


def check_group_sides(data: Points, train: Tensor, validation: Tensor) -> None:
    """Raise ValueError if points of one group are both trained on and held out, given by index."""
    if data.group is None:
        return
    both = data.group[validation].unique()
    count = int(torch.isin(both, data.group[train]).sum())
    if count:
        raise ValueError(
            f"fit: {count} of the {len(both)} groups of the validation points have training points too, so that these "
            "points say nothing of other groups; hold out complete groups, or pass a share as validation"
        )


def check_digits(condition: Tensor, dtype: torch.dtype, conditions: Conditions | None) -> None:
    """Raise ValueError where a column of conditions differs in digits that the field's precision does not have."""
    mean = condition.nanmean(0)
    spread = (condition - mean).square().nanmean(0).sqrt()
    lost = (torch.finfo(dtype).eps * mean.abs() > _LEAST_DIGITS * spread) & (spread > 0)
    for i in lost.nonzero()[:, 0].tolist():
        name = f"column {i}" if conditions is None else conditions.entry_names[i]
        raise ValueError(
            f"fit: condition {name} is near {float(mean[i]):.6g} and varies by {float(spread[i]):.3g}, which "
            f"{str(dtype).removeprefix('torch.')} cannot tell apart; subtract its first value"
        )


def chosen_source(make: Any, manifold: Manifold, data: Points) -> Source:
    """Return the source that ``make`` makes from the training points; raise ValueError if it makes none.

    Their weights are passed as ``sample_weights``, where there are some and ``make`` has an argument of that name.
    """
    source = make
    # A class of sources, which is made from a manifold alone, is no such function.
    if callable(make) and not (inspect.isclass(make) and issubclass(make, Source) and len(required(make)) != 2):
        weighted = data.weights is not None and "sample_weights" in inspect.signature(make).parameters
        source = make(manifold, manifold.projx(data.x), **({"sample_weights": data.weights} if weighted else {}))
    if not isinstance(source, Source):
        raise ValueError(
            f"fit: source must be a rfm.sources.Source, or a function of manifold and points that returns one, got "
            f"{shown(source)}; pass {call_of(make) if inspect.isclass(make) else 'one of rfm.sources'}"
        )
    return source


def check_source(source: Source, manifold: Manifold) -> None:
    """Raise ValueError unless the source lives on the manifold and draws points of it."""
    check_same_manifold("fit", "source", source.manifold, manifold)
    draws = source.sample((4,), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    try:
        manifold.check_point(draws, tol=POINT_TOLERANCE)
    except ValueError as error:
        raise ValueError(f"fit: source draws no points of {manifold}; make it for this manifold; {error}") from None


def checked_objective(
    objective: Objective | Loss | None, coupling: Coupling = Independent(), owner: str = "fit"
) -> Objective:
    """Return the objective, flow matching by default; raise ValueError if it has no use for a coupling."""
    chosen = FlowMatching() if objective is None else objective_of(owner, objective)
    if coupling != Independent() and not chosen.pairs:
        raise ValueError(f"fit: {type(chosen).__name__} has no use for coupling; leave out either that or objective")
    return chosen


def check_splits(objective: Objective, processes: int) -> None:
    """Raise ValueError for an objective whose batches several processes cannot share."""
    if processes > 1 and not objective.splits:
        raise ValueError(
            f"objective runs in one process, there are {processes}; start it without torchrun, or leave objective out"
        )


def hold_out(
    points: Tensor, validation: float | Tensor | np.ndarray[Any, Any] | Sequence[int], seed: int
) -> tuple[Tensor, Tensor]:
    """Return the indices of training and validation points; a share of the points is held out with all their equals."""
    n = len(points)
    if np.ndim(validation):
        held_out = indices_of("fit", "validation", validation)
        first, last = int(held_out.min()), int(held_out.max())
        if first < 0 or last >= n:
            raise ValueError(f"fit: validation must hold indices from 0 to {n - 1}, got {first} to {last}")
        remaining = torch.ones(n, dtype=torch.bool)
        remaining[held_out] = False
        if not bool(remaining.any()):
            raise ValueError("fit: validation holds every point, none is left to train on; hold out fewer")
        return remaining.nonzero()[:, 0], held_out
    share = number("fit", "validation", validation)
    if not 0 <= share < 1:
        raise ValueError(f"fit: validation must be a share between 0 and 1, 0 for none, or indices, got {validation}")
    if share == 0:
        return torch.arange(n), torch.arange(0)
    try:
        split = group_split(points, seed, validation=share, test=0.0)
    except ValueError as error:
        raise ValueError(f"fit: {error}") from None
    return split.train, split.validation


def checked_groups(groups: Any, count: int) -> Tensor:
    """Return labels of groups as numbers ``(n,)``; raise ValueError unless there is one for each point."""
    try:
        labels = group_labels(groups)
    except (TypeError, ValueError) as error:
        raise ValueError(f"fit: groups: {error}") from None
    if len(labels) != count:
        raise ValueError(f"fit: groups must name one for each of the {count} points, got {len(labels)}")
    return labels


@torch.no_grad()
def check_field(
    where: str, field: nn.Module, manifold: Manifold, x: Tensor, t: Tensor, condition: dict[str, Any]
) -> None:
    """Raise ValueError unless a network gives each point a finite velocity that is tangent there, in evaluation mode.

    Args:
        where: the caller, for messages.
        field: the network; one whose last layer is zero is tried with other weights, in a copy.
        manifold: where the points live.
        x: points ``(*batch, *event_shape)``.
        t: times ``(*batch)``.
        condition: what the field is called with besides.
    """
    device = next(field.parameters()).device
    x, t = x.to(device), t.to(device)
    own = {name: value.to(x.device) if isinstance(value, Tensor) else value for name, value in condition.items()}
    with in_evaluation_mode(field), precision_of_weights(field):
        u = _velocity(field, x, t, own)
        check_velocity(where, manifold, x, u)
        if not bool(u.any()):
            u = _velocity(_disturbed(field), x, t, own)
            check_velocity(where, manifold, x, u)
    if not bool(u.isfinite().all()):
        raise ValueError(
            f"{where}: the field is not finite: {int((~u.isfinite()).sum())} of {u.numel()} entries; "
            "look for divisions by zero, and for conditions that it cannot take"
        )


def _velocity(field: nn.Module, x: Tensor, t: Tensor, condition: dict[str, Any]) -> Any:
    """Return what a network gives; of one that runs under autocast, in float32 or more."""
    u = field(x, t, **condition)
    return u.to(at_least_float32(u.dtype)) if any_autocast() and isinstance(u, Tensor) else u


def _disturbed(field: nn.Module) -> nn.Module:
    """Return a copy of a network whose parameters that are zero throughout are so no longer."""
    field, generator = copy.deepcopy(field), torch.Generator().manual_seed(0)
    for parameter in field.parameters():
        if not bool(parameter.any()):
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return field


def check_metric(manifold: Manifold, points: Tensor) -> None:
    """Raise ValueError if geodesics contradict the metric: the part of the checker that a wrong density depends on.

    Args:
        manifold: the manifold.
        points: points on it ``(n, *event_shape)``; a few are used.
    """
    parts = [part for part in manifold.modules() if isinstance(part, Manifold)]
    if all(_is_tested(part) for part in parts) or len(points) < 6:
        return
    from manifolds.testing import check_manifold
    from manifolds.testing.geodesics import acceleration_normal, gauss_lemma, speed_constant

    x = points[:: max(1, len(points) // 16)][:16]
    laws = (acceleration_normal, speed_constant, gauss_lemma)
    report = check_manifold(manifold, points=x, dtypes=(torch.float64,), laws=laws)
    if not report.passed:
        first = report.findings[0]
        raise ValueError(
            f"fit: {manifold} breaks its contract; run rfm check for all of it; the first law that fails is "
            f"{first.law}, {first.claim}: {first.found}"
        )


def _is_tested(manifold: Manifold) -> bool:
    """Return whether the library's own tests check it: adapters hold what others wrote."""
    package, _, module = type(manifold).__module__.partition(".")
    return package == "manifolds" and not module.startswith("interop")


def positive_integer(name: str, value: int | None, default: int) -> int:
    """Return a whole number, at least 1, or the default in place of None."""
    try:
        return default if value is None else integer("fit", name, value)
    except ValueError:
        raise ValueError(f"fit: {name} must be a whole number, at least 1, got {shown(value)}") from None


def check_objects(manifold: Any, coupling: Any, conditions: Any, training: Any) -> None:
    """Raise ValueError for a class, or a name of one, in place of an object."""
    check_instance("fit", "manifold", manifold, Manifold, "Sphere(2)")
    given = {
        "conditions": (conditions, Conditions, "Conditions.of(columns)"),
        "training": (training, Training, "Training()"),
    }
    for name, (value, kind, example) in given.items():
        if value is not None:
            check_instance("fit", name, value, kind, example)
    if coupling is None:
        raise ValueError("fit: coupling must be an object or a function, got None; leave it out for independent pairs")
    check_function("fit", "coupling", coupling, "OptimalTransport(manifold)")
