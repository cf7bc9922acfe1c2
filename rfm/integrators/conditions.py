"""Which conditions belong to samples, and which are the same for all."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Shared:
    """A condition that is the same for all samples, as in ``integrate(..., edges=Shared(edges))``.

    The field gets ``value`` as it is. A bare tensor holds a row for each sample, whatever its shape looks like.

    Args:
        value: a tensor of any shape, or anything that holds some.
    """

    value: Any


def unmarked(condition: Mapping[str, Any]) -> dict[str, Any]:
    """Return conditions as a field takes them."""
    return {name: value.value if isinstance(value, Shared) else value for name, value in condition.items()}


def per_sample(condition: Mapping[str, Any], batch: torch.Size) -> dict[str, Tensor]:
    """Return the conditions that belong to samples, their batch axes flattened: the tensors that are not shared.

    Args:
        condition: by name.
        batch: batch shape of the points.

    Raises:
        ValueError: if a tensor has no row for each sample, or tensors or arrays are where they cannot follow them.
    """
    rows = {}
    for name, value in condition.items():
        if isinstance(value, Tensor):
            if value.shape[: len(batch)] != batch:
                raise ValueError(
                    f"integrate: condition {name} of shape {tuple(value.shape)} has no row for each sample of the "
                    f"batch {tuple(batch)}; expand it to {(*batch, '...')}, or pass rfm.Shared({name}) if it is the "
                    "same for all"
                )
            rows[name] = value.reshape(batch.numel(), *value.shape[len(batch) :])
        elif _holds_tensors(value):
            raise ValueError(
                f"integrate: condition {name} is a {type(value).__name__}, whose rows cannot follow their samples; "
                f"pass tensors under names of their own, or rfm.Shared({name}) if it is the same for all"
            )
    return rows


def _holds_tensors(value: Any) -> bool:
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, list | tuple):
        return any(isinstance(part, Tensor) or _holds_tensors(part) for part in value)
    return isinstance(value, np.ndarray)
