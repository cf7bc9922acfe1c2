"""What ``--condition`` and ``--condition-file`` mean for a flow."""

import argparse
from typing import Any

import torch
from torch import Tensor

from rfm import datasets
from rfm.command_line.messages import warn
from rfm.command_line.run_folder import RunData
from rfm.command_line.table_runs import read_input
from rfm.conditions import Conditions
from rfm.flow import Flow


def given_condition(flow: Flow, arguments: argparse.Namespace) -> Tensor | None:
    """Return the condition vector ``(c,)`` that ``--condition`` means, or None; warn beyond the range of the data."""
    words = {}
    for word in arguments.condition:
        name, equals, value = word.partition("=")
        if not equals or name in words:
            fault = "is given twice" if name in words else "is not NAME=VALUE"
            raise ValueError(f"--condition {word!r} {fault}; write for example magnitude=6, each name once")
        words[name] = value
    if not words:
        return None
    conditions = _conditional(flow, arguments)
    vector = conditions.encode(words)
    warn(arguments, conditions.extrapolations(vector))
    return vector


def known_columns(flow: Flow, condition: Tensor | None) -> dict[str, list[Any]]:
    """Return the columns of conditions that some of the samples are drawn given, None where not known.

    One cell each for one condition ``(c,)``, else one for each sample.
    """
    if flow.conditions is None or condition is None:
        return {}
    columns = flow.conditions.decode(condition)
    return {name: cells for name, cells in columns.items() if any(cell is not None for cell in cells)}


def condition_file(flow: Flow, arguments: argparse.Namespace) -> Tensor:
    """Return the condition vectors ``(n, c)`` that ``--condition-file`` means; warn beyond the range of the data."""
    conditions = _conditional(flow, arguments)
    if arguments.n is not None:
        raise ValueError("-n and --condition-file both say how many samples to draw; give one of them")
    vectors = datasets.read_conditions(datasets.read_table(read_input(arguments.condition_file)), conditions)
    warn(arguments, conditions.extrapolations(vectors))
    return vectors


def _conditional(flow: Flow, arguments: argparse.Namespace) -> Conditions:
    if flow.conditions is None:
        raise ValueError(
            f"the flow in {arguments.run} knows no conditions by name; "
            "give none, or fit again with --condition and the columns"
        )
    return flow.conditions


def check_required(flow: Flow, condition: Tensor | None, arguments: argparse.Namespace) -> None:
    """Raise ValueError if a flow that must know a condition is given none."""
    if condition is None and flow.conditions is not None and flow.conditions.required:
        name = flow.conditions.required[0]
        raise ValueError(
            f"the flow in {arguments.run} is conditional on {flow.conditions.describe()}; give --condition {name}=FILE"
        )


def nearest(conditions: Conditions, data: RunData, condition: Tensor) -> Tensor:
    """Return the indices of the points with a condition's labels and, of those, the tenth with the nearest numbers."""
    assert data.condition is not None
    labels = torch.tensor([bool(count) for count in conditions.labels])
    known = ~condition.isnan()
    alike = (data.condition == condition)[:, labels & known].all(-1).nonzero()[:, 0]
    numbers = data.condition[alike][:, ~labels & known]
    if not numbers.shape[1]:
        return alike
    spread = (numbers - numbers.nanmean(0)).square().nanmean(0).sqrt()
    distance = ((numbers - condition[~labels & known]) / torch.where(spread > 0, spread, 1.0)).square().sum(-1)
    order = distance.nan_to_num(torch.inf).argsort()
    return alike[order[: max(1, len(alike) // 10)]]
