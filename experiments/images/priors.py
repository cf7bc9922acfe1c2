"""The priors: flows of the pictures on a convolutional field, conditional on the class where there are classes."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import rfm
from experiments.images.pictures import Pictures, digits, mnist, phantoms, random_phantoms
from manifolds import Euclidean
from rfm.conditions import Conditions, Label
from rfm.networks import ConvolutionalField
from rfm.paths.times import UniformTimes
from rfm.sources import WrappedNormal
from rfm.steering import Guidance

_UNKNOWN = 0.15
"""Share of the training pictures whose class is withheld: with them the field learns the velocity without a class."""
_VALIDATION_PAIRS = 256


@dataclass(frozen=True)
class Prior:
    """A set of pictures, and how its flow is trained.

    Args:
        pictures: loads them.
        steps: optimiser steps.
        batch_size: pictures in a step.
        width: channels of the field's first level.
        patch: edge of the patches that are its first channels.
        learning_rate: its peak.
    """

    pictures: Callable[[], Pictures]
    steps: int
    batch_size: int = 64
    width: int = 32
    patch: int = 2
    learning_rate: float = 2e-3


PRIORS = {
    "digits": Prior(digits, steps=4000, width=16, patch=1),
    "mnist": Prior(mnist, steps=2500),
    "phantoms": Prior(phantoms, steps=2000, batch_size=48),
}


def train(name: str, out: Path | None, steps: int | None = None, progress: bool = True) -> rfm.Flow:
    """Train a prior, or go on from what ``out`` holds, or load it where it is done.

    Args:
        name: among `PRIORS`.
        out: folder; None keeps nothing.
        steps: instead of the prior's own.
        progress: show a bar.
    """
    prior = PRIORS[name]
    pictures = prior.pictures()
    return rfm.fit_stream(
        _Batches(pictures, prior.batch_size),
        _new_flow(pictures, prior),
        validate=_validation(pictures),
        steps=prior.steps if steps is None else steps,
        device="cpu",
        out=out,
        resume=out is not None,
        progress=progress,
        training=rfm.Training(prior.learning_rate),
    )


def with_classes(flow: rfm.Flow, labels: Tensor, guidance: float = 1.0) -> rfm.Flow:
    """Return the flow of pictures of known classes.

    Args:
        flow: conditional on the class.
        labels: row ``i`` of a batch ``(k n, pixels)`` is of the class ``i % n`` of these ``(n,)``.
        guidance: weight of `rfm.steering.Guidance` towards the class.
    """
    conditional = flow.field
    assert isinstance(conditional, ConvolutionalField)
    led = conditional if guidance == 1 else Guidance(guidance).applied_to(conditional)

    def field(x: Tensor, t: Tensor) -> Tensor:
        return led(x, t, condition=labels.to(x).repeat(len(x) // len(labels))[:, None])

    return rfm.Flow(flow.manifold, field, flow.source)


def _new_flow(pictures: Pictures, prior: Prior) -> rfm.Flow:
    space = Euclidean(math.prod(pictures.shape))
    classes = 0 if pictures.labels is None else 10
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        field = ConvolutionalField(pictures.shape, prior.width, patch=prior.patch, labels=classes)
    conditions = Conditions((Label("digit", tuple(map(str, range(classes)))),)) if classes else None
    return rfm.Flow(space, field, WrappedNormal(space, torch.zeros(space.dim)), conditions=conditions)


@dataclass(frozen=True)
class _Batches:
    """What draws the batch of a step: pictures with noise, times and, for most, their class."""

    pictures: Pictures
    size: int

    def __call__(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
        labels = self.pictures.labels
        if labels is None:
            x_1 = random_phantoms(self.size, generator)
            given: dict[str, Any] = {}
        else:
            rows = torch.randint(len(labels), (self.size,), generator=generator)
            x_1, own = self.pictures.train[rows], labels[rows, None].float()
            unknown = torch.rand(self.size, 1, generator=generator) < _UNKNOWN
            given = {"condition": own.masked_fill(unknown, math.nan)}
        t = UniformTimes().sample((self.size,), generator=generator)
        return torch.randn(x_1.shape, generator=generator), x_1, t, given


def _validation(pictures: Pictures) -> Callable[[nn.Module], float]:
    """Return the mean loss over pictures held out, without their class, always with the same noise."""
    generator = torch.Generator().manual_seed(3)
    x_1 = pictures.validation.repeat(-(-_VALIDATION_PAIRS // len(pictures.validation)), 1)[:_VALIDATION_PAIRS]
    x_0, t = torch.randn(x_1.shape, generator=generator), (torch.arange(len(x_1)) + 0.5) / len(x_1)
    t = t[torch.randperm(len(t), generator=generator)]

    @torch.no_grad()
    def loss(field: nn.Module) -> float:
        x_t = torch.lerp(x_0, x_1, t[:, None])
        return float((field(x_t, t) - (x_1 - x_0)).square().mean())

    return loss
