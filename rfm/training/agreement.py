"""Whether the density that an objective trains on is that of the flow: where not, an optimiser descends the difference.

A solve by fixed steps has an error, and a loss by such a solve is minus the log-density plus that error. The two are
compared before the first step, where the number of steps may be chosen by it, and at every validation.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rfm.flow import Flow
from rfm.integrators import Adaptive, IntegrationError
from rfm.likelihood import LeavesDomainError, log_prob
from rfm.networks.modes import in_evaluation_mode
from rfm.networks.precision import precision_of_weights
from rfm.objectives import Objective
from rfm.training.loop import TrainingStoppedError
from rfm.training.weighted_points import Points

ACCURATE = Adaptive(atol=1e-4, rtol=1e-4)
"""A solve whose error is small beside the tolerance, also where that of a validation alone would not be."""

_AT_THE_START = 0.5
"""The share of the tolerance that is not to be used up before the first step."""


@torch.no_grad()
def agreeing(
    objective: Objective, flow: Flow, validation: Points, history: Sequence[dict[str, float]] = ()
) -> Objective:
    """Return the first of an objective's candidates whose log-density is that of the flow, up to half the tolerance.

    Where none is, it is the last; whether that will do is for the validation to say.

    Args:
        objective: see `rfm.objectives.Objective.candidates`.
        flow: as training finds it, on the device.
        validation: points to compare at, likewise.
        history: of a run that is resumed, whose candidate is taken again.
    """
    candidates = objective.candidates
    if len(candidates) == 1:
        return objective
    if history:
        return next(c for c in candidates if c.solver_steps == history[0]["solver_steps"])
    field, source, condition = flow.field, flow.source, condition_of(validation)
    with in_evaluation_mode(flow), precision_of_weights(flow):
        try:
            log_p = log_prob(field, source, validation.x, ACCURATE, **condition)
        except IntegrationError:
            return candidates[-1]
        for candidate in candidates:
            try:
                own = candidate.log_prob(field, source, validation.x, **condition)
            except LeavesDomainError:
                continue
            if own is None or abs(excess(validation, own, log_p)) <= _AT_THE_START * objective.tolerance:
                return candidate
    return candidates[-1]


def condition_of(points: Points) -> dict[str, Any]:
    """Return the keyword by which fields are given the condition of points, if there is one."""
    return {} if points.condition is None else {"condition": points.condition}


def excess(points: Points, trained: Tensor, log_p: Tensor) -> float:
    """Return by how many nats the negative log-likelihood that is trained on exceeds the true one, on average."""
    return float(points.shares @ (log_p.double() - trained.double()))


def check_agreement(objective: Objective, nats: float) -> None:
    """Raise TrainingStoppedError where the loss and the true negative log-likelihood differ by more than the tolerance.

    Args:
        objective: what is trained.
        nats: by how much.
    """
    if abs(nats) > objective.tolerance:
        steps = "" if objective.solver_steps is None else f" (steps of the solve: {objective.solver_steps})"
        raise TrainingStoppedError(
            f"the training loss and the true NLL of the validation points differ by {nats:+.3f} nats, more than "
            f"{objective.tolerance:g}{steps}: the optimiser gains from the error of the solve; take more steps, or a "
            f"larger penalty, in {type(objective).__name__}"
        )
