"""The model, its training on pictures rendered as they are needed, and its exact likelihood of poses held out."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import rfm
from experiments.symsol.bodies import BODIES
from experiments.symsol.renderer import SIZE, render
from manifolds import SO3
from rfm.command_line.run_folder import RunData, is_run_folder
from rfm.conditions import Conditions, Picture
from rfm.datasets import Orientations, Split
from rfm.integrators import Adaptive, IntegrationError
from rfm.networks import Encoded, PictureEncoder, RotationVelocity
from rfm.paths.times import UniformAndLateTimes

PUBLISHED_MEASURE = math.log(8)
"""Added to a log-density with respect to a total volume of 8 pi^2, it is one for pi^2."""
SOLVER = Adaptive(atol=1e-3, rtol=1e-3)
VALIDATION_SOLVER = Adaptive(atol=1e-3, rtol=1e-3, max_steps=500)
"""A network that has just begun is rough; one that needs more steps than these is not worth the wait."""
VALIDATION_SEED = 10**6
CONDITIONS = Conditions((Picture("picture", SIZE),))
COORDINATES = Orientations(("qw", "qx", "qy", "qz"), "wxyz")


@dataclass(frozen=True)
class Settings:
    """What decides the result of a training run.

    Args:
        steps: optimiser steps.
        pictures: of each body in a batch.
        pairs: source points and times for each picture.
        learning_rate: its peak.
        width: channels of the encoder's first layer.
        hidden: width of the velocity network.
        held_out: poses of each body for validation.
        seed: of weights and batches.
    """

    steps: int = 4000
    pictures: int = 13
    pairs: int = 32
    learning_rate: float = 1.5e-3
    width: int = 32
    hidden: int = 128
    held_out: int = 80
    seed: int = 0


def new_flow(settings: Settings) -> rfm.Flow:
    """Return the model before training: one for all bodies, conditional on nothing but the picture."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        velocity = RotationVelocity(width=settings.hidden)
        encoder = PictureEncoder(SIZE, velocity.condition_dim, settings.width)
    return rfm.Flow(SO3(), Encoded(encoder, velocity), conditions=CONDITIONS)


def poses_and_pictures(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return random poses ``(bodies, count, 3, 3)`` and their pictures ``(bodies, count, size, size)``."""
    poses = SO3().random_uniform(len(BODIES), count, generator=generator, device=generator.device)
    return poses, torch.stack([render(body, own) for body, own in zip(BODIES, poses, strict=True)])


def batches(settings: Settings) -> Callable[[torch.Generator], tuple[Tensor, Tensor, Tensor, dict[str, Any]]]:
    """Return what draws the batch of a step: many source points and times for each picture."""
    source, times = rfm.sources.Uniform(SO3()), UniformAndLateTimes(finest=0.003)

    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
        poses, pictures = poses_and_pictures(settings.pictures, generator)
        x_1, pictures = poses.flatten(0, 1).unsqueeze(1), pictures.flatten(0, 1).unsqueeze(1)
        like: dict[str, Any] = {"generator": generator, "dtype": poses.dtype, "device": poses.device}
        x_0 = source.sample((len(x_1), settings.pairs), **like)
        # The times of a batch rise along its first axis: so each picture's are spread over all of them.
        order = torch.randperm(len(x_1), generator=generator, device=poses.device)
        t = times.sample((settings.pairs, len(x_1)), **like).mT[order]
        return x_0, x_1, t, {"condition": pictures}

    return draw


def log_likelihoods(field: Encoded, poses: Tensor, pictures: Tensor, solver: Adaptive = SOLVER) -> Tensor:
    """Return the log-densities of poses given their pictures, ``(*batch)`` in nats, in the published measure."""
    flow = rfm.Flow(SO3(), field)
    return flow.log_prob(poses, condition=pictures, solver=solver, batch_size=512) + PUBLISHED_MEASURE


def validation(settings: Settings) -> Callable[[nn.Module], float]:
    """Return the mean negative log-likelihood of held-out poses as a function of the field."""
    poses, pictures = poses_and_pictures(settings.held_out, torch.Generator().manual_seed(VALIDATION_SEED))

    def validate(field: nn.Module) -> float:
        assert isinstance(field, Encoded)
        device = next(field.parameters()).device
        try:
            return -float(
                log_likelihoods(field, poses.to(device), pictures.to(device), VALIDATION_SOLVER).double().mean()
            )
        except IntegrationError:
            return math.nan

    return validate


def trained(
    settings: Settings,
    out: Path | None,
    *,
    max_seconds: float | None = None,
    device: str | None = None,
    progress: bool | Callable[[float, dict[str, Any]], None] = True,
) -> rfm.Flow:
    """Train the model, or go on from what ``out`` holds, or load it where it is done.

    ``rfm sample``, ``rfm log-prob`` and ``rfm plot`` take the folder.
    """
    flow = rfm.fit_stream(
        batches(settings),
        new_flow(settings),
        validate=validation(settings),
        steps=settings.steps,
        seed=settings.seed,
        device=device,
        out=out,
        resume=out is not None,
        progress=progress,
        training=rfm.Training(settings.learning_rate, max_seconds, capture=True),
    )
    if out is not None and (flow.conditions is None or not is_run_folder(out)):
        flow.conditions = CONDITIONS
        flow.save(out)
        no_data().save(out)
    return flow


def no_data() -> RunData:
    """Return what a run folder says of data that are generated as they are needed: none are stored."""
    none = torch.zeros(0, dtype=torch.long)
    return RunData(torch.zeros(0, 3, 3), Split(none, none, none), COORDINATES, "symmetric solids")
