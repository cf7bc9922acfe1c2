"""Training of a discrete flow on sequences."""

from pathlib import Path

import torch
from torch import Tensor, nn

from manifolds.arguments import check_instance, integer, seed_of
from rfm.arrays import array_of
from rfm.discrete.flow import DiscreteFlow
from rfm.discrete.mixture_path import MixturePath
from rfm.discrete.posterior_network import PosteriorNetwork
from rfm.flow.progress import Report
from rfm.records.fingerprint import architecture
from rfm.training import Run, Training

_LEARNING_RATE = 2e-3
_VALIDATED = 2048
"""Sequences that validations look at, at most."""


def fit(
    sequences: Tensor,
    path: MixturePath,
    *,
    posterior: nn.Module | None = None,
    steps: int = 2000,
    batch_size: int = 256,
    validation: float = 0.1,
    seed: int = 0,
    device: torch.device | str | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool | Report = True,
    training: Training | None = None,
) -> DiscreteFlow:
    """Fit a discrete flow to sequences of labels, by the cross-entropy of the posterior; in one process.

    Args:
        sequences: data ``(n, length)``, whole numbers from 0 to ``path.source.classes - 1``.
        path: from noise to data, such as ``MixturePath(MaskedLabels(4))``.
        posterior: a network like `PosteriorNetwork`, which is the default; it is trained in place.
        steps: optimiser steps.
        batch_size: sequences per step.
        validation: share of the sequences held out; the weights of the least cross-entropy on them are kept.
        seed: of the network's first weights and every draw; global random state is left as it was.
        device: "cpu", "cuda", ...; the first GPU where there is one.
        out: folder for checkpoints and the saved flow.
        resume: go on from the checkpoint in ``out``, as in `rfm.fit`.
        progress: show a progress bar on stderr, or a function, as in `rfm.fit`.
        training: as for `rfm.fit`; the learning rate is 2e-3 by default.

    Returns:
        The flow, on the CPU, with ``history``: steps, losses and the cross-entropy on what was held out, in nats.

    Raises:
        ValueError: for sequences that are no table of labels, or too few.
        FileExistsError: if ``out`` holds a flow and neither ``resume`` nor ``Training.force`` is given.
    """
    check_instance("discrete.fit", "path", path, MixturePath, "MixturePath(MaskedLabels(4))")
    x, training = _checked(sequences, path.source.classes), Training() if training is None else training
    steps, batch_size = integer("discrete.fit", "steps", steps), integer("discrete.fit", "batch_size", batch_size)
    seed = seed_of("discrete.fit", seed)
    if posterior is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            posterior = PosteriorNetwork(path.source.states, path.source.classes, x.shape[1])
    flow = DiscreteFlow(training.converted(posterior), path, x.shape[1])
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    held = max(1, round(validation * len(x)))
    budget = training.budget(steps, batch_size, seed, _LEARNING_RATE)
    identity = [architecture(posterior), path, x, held]
    run = Run(budget, identity, training=training, out=out, resume=resume, device=device, progress=progress)
    if run.is_finished:
        assert run.folder is not None
        return DiscreteFlow.load(run.folder, posterior=posterior)
    with run.launched() as fabric:
        if fabric.world_size > 1:
            raise ValueError("discrete.fit: runs in one process; start it without torchrun")
        _train(flow, x[order[held:]], x[order[:held]][:_VALIDATED], run)
    return flow


def _train(flow: DiscreteFlow, data: Tensor, held_out: Tensor, run: Run) -> None:
    device, seed = run.fabric.device, run.budget.seed
    data, held_out, generator = data.to(device), held_out.to(device), torch.Generator(device)

    def loss(model: nn.Module, step: int, rank: int, world: int) -> Tensor:
        index = torch.randint(len(data), (run.budget.batch_size,), generator=generator, device=device)
        return flow.loss(data[index], generator=generator, posterior=model)

    @torch.no_grad()
    def validate(model: nn.Module) -> float:
        # On fixed draws of the path, so that only the network makes the difference.
        fixed = torch.Generator(device).manual_seed(seed + 1)
        return float(flow.loss(held_out, generator=fixed, posterior=model))

    capture = bool(run.training.capture)
    run.train(flow, loss, validate, generator=generator, capture=capture, measure="cross_entropy")


def _checked(sequences: Tensor, classes: int) -> Tensor:
    """Return sequences as whole numbers."""
    array = array_of("discrete.fit", "sequences", sequences)
    if array.dtype.kind not in "iu" or array.ndim != 2 or len(array) < 2:
        raise ValueError(
            f"discrete.fit: sequences must be a table (n, length) of whole numbers, of at least 2 rows, got "
            f"{array.dtype} of shape {array.shape}; number the labels from 0 and stack sequences of one length"
        )
    x = torch.from_numpy(array.astype("int64"))
    if int(x.min()) < 0 or int(x.max()) >= classes:
        raise ValueError(
            f"discrete.fit: labels must be 0 to {classes - 1}, got {int(x.min())} to {int(x.max())}; number them from "
            "0, or raise classes"
        )
    return x
