"""The loss of a posterior of labels."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rfm.discrete.mixture_path import LabelSource


def label_loss(logits: Tensor, x_t: Tensor, x_1: Tensor, source: LabelSource) -> Tensor:
    """Return the mean cross-entropy of a posterior, in nats per position: least at the exact one.

    Of a masked source only positions count that are masked: the others are known.

    Args:
        logits: of the data's labels, ``(n, length, classes)``.
        x_t: labels on the way ``(n, length)``.
        x_1: labels of the data ``(n, length)``.
        source: of the labels.
    """
    each = functional.cross_entropy(logits.flatten(0, 1), x_1.flatten(), reduction="none")
    masked = source.states > source.classes
    counts = (x_t == source.classes if masked else torch.ones_like(x_t)).flatten().to(each)
    return (counts * each).sum() / counts.sum().clamp(min=1)


def probabilities(logits: Tensor, x_t: Tensor, source: LabelSource) -> Tensor:
    """Return the posterior ``(n, length, classes)`` in float64: where the source is masked, certain at what is no mask.

    Args:
        logits: see `label_loss`.
        x_t: labels on the way.
        source: of the labels.
    """
    q = torch.softmax(logits.double(), dim=-1)
    if source.states == source.classes:
        return q
    known = functional.one_hot(x_t, source.states)[..., : source.classes].to(q)
    return torch.where((x_t < source.classes)[..., None], known, q)


def jumped(x: Tensor, q: Tensor, jump: float, generator: torch.Generator | None) -> Tensor:
    """Return labels of which each is drawn anew from ``q`` with probability ``jump``."""
    like: dict[str, Any] = {"generator": generator, "device": x.device}
    drawn = torch.multinomial(q.flatten(0, 1), 1, generator=generator).reshape(x.shape)
    return torch.where(torch.rand(x.shape, dtype=torch.float64, **like) < jump, drawn, x)


def spread_times(count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Return uniform times ``(count,)``, one in each of so many equal parts."""
    return (torch.arange(count, device=device) + torch.rand(count, generator=generator, device=device)) / count
