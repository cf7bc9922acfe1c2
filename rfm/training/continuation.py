"""A finished fit that goes on: more steps from its weights, which are kept where none after are better."""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from manifolds.arguments import integer
from rfm.flow import Flow
from rfm.training.settings import Budget, Training

_FOLDER = "more"
_RATE = 1 / 3
"""Of the learning rate that the first steps had at most: its weights are near a minimum."""


def check_continuation(more_steps: int | None, out: str | Path | None, validation: Tensor) -> None:
    """Raise ValueError where a fit cannot go on for more steps."""
    if more_steps is None:
        return
    integer("fit", "more_steps", more_steps)
    if out is None:
        raise ValueError("fit: more_steps goes on with the flow in a folder; pass out")
    if not len(validation):
        raise ValueError(
            "fit: more_steps goes by validation points, and validation=0 leaves none; fit again with more steps"
        )


def continued(
    fit: Callable[..., Flow],
    flow: Flow,
    more_steps: int,
    validation: Tensor,
    budget: Budget,
    settings: Mapping[str, Any],
) -> Flow:
    """Return a finished flow after more steps, which replaces the one in the folder.

    Args:
        fit: `rfm.fit`.
        flow: the finished flow; its history goes before the new one.
        more_steps: how many.
        validation: indices of the validation points.
        budget: of the first steps.
        settings: the arguments of the fit.

    A run that a cap on the time stopped is not finished, and is returned as it is.
    """
    if (Path(settings["out"]) / "checkpoint.json").exists():
        return flow
    own = flow.base
    assert isinstance(own.field, nn.Module)
    training = settings["training"] or Training()
    folder = Path(settings["out"]) / _FOLDER
    found = fit(
        **{
            **settings,
            "field": own.field,
            "source": own.source if settings["start"] is None else settings["source"],
            "validation": validation,
            "steps": more_steps,
            "batch_size": budget.batch_size,
            "more_steps": None,
            "out": folder,
            "resume": folder.exists(),
            "training": replace(training, learning_rate=_RATE * budget.learning_rate, validate_start=True, force=False),
        }
    )
    before = flow.history[-1] if flow.history else {}
    # Steps and clocks go on from where they stood.
    found.history = flow.history + [
        {name: value + before.get(name, 0) if name in _COUNTED else value for name, value in record.items()}
        for record in found.history
    ]
    found.stopped = f"{found.stopped}, after {before.get('step', 0):g} before"
    if os.environ.get("RANK", "0") == "0":
        found.save(settings["out"])
        shutil.rmtree(folder, ignore_errors=True)
    return found


_COUNTED = ("step", "seconds", "cpu_seconds")
