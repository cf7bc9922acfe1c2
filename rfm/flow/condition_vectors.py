"""The condition vectors of a flow: from names to numbers, and to a row for each point."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from manifolds.arguments import integer
from rfm.arrays import tensor_of
from rfm.conditions import Conditions
from rfm.field import Field, as_field


def vectors_of(conditions: Conditions | None, condition: Tensor | Mapping[str, Any]) -> Tensor:
    """Return condition vectors, checked where it is known what they mean."""
    if isinstance(condition, Mapping):
        if conditions is None:
            raise ValueError(
                "Flow: this flow has no names for conditions; fit with condition={name: values}, or pass vectors"
            )
        vectors = conditions.encode(condition)
        for sentence in conditions.extrapolations(vectors):
            warnings.warn(f"Flow: {sentence}", stacklevel=6)
        return vectors
    vectors = tensor_of("Flow", "condition", condition)
    if conditions is not None and vectors.ndim:
        conditions.check(vectors)
    return vectors


def batches(
    x: Tensor, condition: Tensor | None, shape: torch.Size, batch_size: int
) -> list[tuple[Tensor, dict[str, Any]]]:
    """Return chunks of points ``x`` ``(n, *event_shape)``, of batch shape ``shape``, with their conditions."""
    batch_size = integer("Flow", "batch_size", batch_size, None)
    if batch_size < 1:
        raise ValueError(f"Flow: batch_size must be at least 1, got {batch_size}")
    chunks = x.split(batch_size)
    full = rows_of(condition, shape, x)
    if full is None:
        return [(chunk, {}) for chunk in chunks]
    return [(c, {"condition": own}) for c, own in zip(chunks, full.split(batch_size), strict=True)]


def rows_of(condition: Tensor | None, shape: torch.Size, like: Tensor) -> Tensor | None:
    """Return a condition for each point of a batch of shape ``shape``, ``(n, c)``, in the dtype of ``like``."""
    if condition is None:
        return None
    # As many axes as the points, or one vector: one row of a batch that happens to fit would be nobody's.
    fits = condition.ndim == 1 or condition.ndim == 1 + len(shape)
    if not fits or any(a not in (1, b) for a, b in zip(condition.shape[:-1], shape, strict=False)):
        raise ValueError(
            f"Flow: condition of shape {tuple(condition.shape)} does not fit points of batch shape {tuple(shape)}; "
            "give one vector (c,), or one per point"
        )
    return condition.to(like).expand(*shape, condition.shape[-1]).reshape(shape.numel(), condition.shape[-1])


def encoded(field: Field, condition: Tensor | None, x: Tensor) -> tuple[Field, Tensor | None]:
    """Return the field to follow and its condition; what the field has to encode first is encoded once."""
    if condition is None:
        if field.needs_condition:
            raise ValueError("Flow: this field needs to be told what it is conditional on; pass condition=")
        return field, None
    velocity, context = field.encoded(condition.to(x))
    return as_field(velocity), context


def check_field_reads(conditions: Conditions, field: Field) -> None:
    """Raise ValueError if a field that says how many labels the entries of its conditions have says something else."""
    if field.condition_dim is None:
        return
    labels = tuple(field.condition_labels or [0] * field.condition_dim)
    if labels != conditions.labels:
        raise ValueError(
            f"Flow: the conditions {', '.join(conditions.names)} have {list(conditions.labels)} labels, the field was "
            f"made for {list(labels)}; give it condition_dim={len(conditions.labels)} and condition_labels="
            f"{list(conditions.labels)}"
        )
