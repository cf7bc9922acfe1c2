"""How much the study trains, and what a fit leaves."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import rfm


@dataclass(frozen=True)
class Budget:
    """How much is trained and measured.

    Args:
        points: training points of a plane.
        steps: optimiser steps of everything but the two below.
        batch: points per step.
        likelihood_steps: of training by maximum likelihood, each of which solves an equation.
        map_steps: of the flow map that is distilled from the flow.
        width: of the velocity networks, of three hidden layers.
        scored: test points that are scored at most.
        drawn: points of each sample that a classifier is to tell apart.
    """

    points: int = 4000
    steps: int = 1000
    batch: int = 512
    likelihood_steps: int = 100
    map_steps: int = 500
    width: int = 96
    scored: int = 800
    drawn: int = 2000


QUICK = Budget(points=200, steps=20, batch=32, likelihood_steps=2, map_steps=2, width=16, scored=20, drawn=60)


@dataclass(frozen=True)
class Fitted:
    """A fitted density.

    Args:
        log_prob: of points ``(n, dim)``.
        sample: so many points from a generator.
        parameters: number of trained ones.
        seconds: of the processor, for the training.
        flow: the flow, of those that solve an equation.
        jumps: whether the flow is a flow map.
    """

    log_prob: Callable[[Tensor], Tensor]
    sample: Callable[[int, torch.Generator], Tensor]
    parameters: int
    seconds: float
    flow: rfm.Flow | None = None
    jumps: bool = False
