"""How far the loss of a trained field lies above the least that any field could have on the training points."""

import torch
from torch import Tensor

from manifolds.numerics.precision import in_full_precision
from rfm.couplings import Coupling, Independent
from rfm.flow import Flow
from rfm.objectives import Objective
from rfm.training.weighted_points import Points

_DRAWS = 256


@in_full_precision
@torch.no_grad()
def loss_above_floor(
    flow: Flow, data: Points, objective: Objective, x_0: Tensor, x_1: Tensor, t: Tensor
) -> dict[str, float]:
    """Return ``loss_floor`` and ``loss_above_floor`` of a flow's field, means over 256 of the draws given.

    Both are means over the same times and weights as the loss, whose expectation is their sum. The floor is that of the
    field that memorises the training points: one that generalises lies above it, most of all at late times.

    Args:
        flow: the flow, trained.
        data: all training points.
        objective: what it was trained with.
        x_0: draws from the source.
        x_1: draws from the data, not coupled to them.
        t: times as the objective draws them.

    """
    draws = (x_0[:_DRAWS], x_1[:_DRAWS], t[:_DRAWS])
    found = objective.floor(flow.field, flow.source, data.x, data.weights, *draws)
    assert found is not None, "see check_floor"
    return {"loss_floor": float(found.least.double().mean()), "loss_above_floor": float(found.above.double().mean())}


def check_floor(flow: Flow, data: Points, objective: Objective, coupling: Coupling) -> None:
    """Raise ValueError unless the least loss is known in closed form."""
    reason = ""
    if data.condition is not None or data.start is not None:
        reason = "with conditions or pairs it is that of another field"
    elif coupling != Independent():
        reason = f"{type(coupling).__name__} makes pairs that depend on the batch"
    elif not objective.has_floor(flow.source):
        reason = f"{type(objective).__name__} has none in closed form from {type(flow.source).__name__}"
    if reason:
        raise ValueError(f"fit: the floor of the loss is not known here: {reason}; leave out Training(floor=True)")
