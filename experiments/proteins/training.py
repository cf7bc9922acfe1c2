"""Training: one command, which a kill interrupts and the same command continues."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import rfm
from experiments.proteins.loss import backbone_loss
from manifolds import CentredPoses
from rfm.networks import FrameField
from rfm.paths.times import DensityTimes
from rfm.proteins import Chains
from rfm.records import architecture, write_json
from rfm.sources import CentredPoseSource, IsotropicGaussianSO3
from rfm.training import Budget, ChainBatches, Run, step_seed

NOMINAL = 128
"""How many residues the manifold of the saved flow has; samplers choose their own number."""


@dataclass(frozen=True)
class Settings:
    """The settings of a run.

    Args:
        steps: optimiser steps.
        learning_rate: its peak.
        pairs: residue pairs in a batch.
        largest: the most chains in a batch.
        width: of the network.
        pair_width: of its pairs.
        depth: its blocks.
        length: of the manifold, and standard deviation of the positions at time 0, Angstrom.
        igso3: scale of the rotations at time 0, radians; uniform ones when None.
        self_conditioning: in which share of the steps the network is given its own prediction.
        motif_share: of the chains, how many have held residues.
        validations: during the run; each writes a checkpoint.
        seed: of all draws.
    """

    steps: int = 60_000
    learning_rate: float = 1e-3
    pairs: int = 32 * 1024
    largest: int = 32
    width: int = 128
    pair_width: int = 32
    depth: int = 6
    length: float = 10.0
    igso3: float | None = None
    self_conditioning: float = 0.75
    motif_share: float = 0.2
    validations: int = 100
    seed: int = 0


QUICK = Settings(steps=30, pairs=6 * 1024, largest=4, width=32, pair_width=16, depth=2, validations=3)


def new_flow(settings: Settings) -> rfm.Flow:
    """Return the untrained flow, its weights drawn from the settings' seed."""
    manifold = CentredPoses(NOMINAL, settings.length)
    rotation = None if settings.igso3 is None else IsotropicGaussianSO3(torch.eye(3), settings.igso3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        field = FrameField(settings.length, settings.width, settings.pair_width, settings.depth)
    return rfm.Flow(manifold, field, CentredPoseSource(manifold, rotation))


def beta_times() -> DensityTimes:
    """Return times of the density ``0.02 + 0.98 Beta(1.9, 1)``: what is decided late, bonds and contacts, counts more.

    Geffner et al., Proteina: scaling flow-based protein structure generative models, 2025, arXiv:2503.00710.
    """
    return DensityTimes(lambda t: 0.02 + 0.98 * 1.9 * t**0.9)


class Loss:
    """The loss of a step; in a share of them the network first runs without gradients, and builds on its output."""

    def __init__(self, batches: ChainBatches, length: float, self_conditioning: float) -> None:
        self.batches, self.length, self.self_conditioning = batches, length, self_conditioning

    def __call__(self, model: nn.Module, step: int, rank: int, world: int) -> Tensor:
        batch = self.batches.batch(step, rank, world)
        previous = None
        # Bits of another seed: the order of the buckets must not decide it.
        if (step_seed(self.batches.seed + 1, step) >> 20 & 1023) < 1024 * self.self_conditioning:
            with torch.no_grad():
                x_t = rfm.GeodesicPath(CentredPoses(batch.x_1.shape[1], self.length)).sample(*batch[:3]).x_t
                previous = model.endpoint(x_t, batch.t, mask=batch.mask, held=batch.held)  # type: ignore[operator]
        return backbone_loss(model, batch, self.length, previous).mean()


class Validation:
    """The mean loss over all validation chains, each at one time with one noise, always the same."""

    def __init__(self, batches: ChainBatches, length: float) -> None:
        generator = batches.generator.manual_seed(step_seed(batches.seed, 0))
        self.length, self.batches = length, []
        for bucket, longest in zip(batches.buckets, batches.longest, strict=True):
            for part in bucket.split(max(1, min(batches.largest, batches.pairs // longest**2))):
                self.batches.append(batches.noised(part, longest, generator))

    @torch.no_grad()
    def __call__(self, field: nn.Module) -> float:
        losses = [backbone_loss(field, batch, self.length) for batch in self.batches]
        return float(torch.cat(losses).double().mean())


def train(
    chains: Chains,
    settings: Settings,
    out: Path,
    *,
    training: rfm.Training | None = None,
    device: str | None = None,
    progress: bool | Callable[[float, dict[str, Any]], None] = True,
) -> rfm.Flow:
    """Train a flow in a folder, or go on with what was interrupted or capped there; return the finished flow.

    Args:
        chains: what to train on.
        settings: what decides the result.
        out: the folder.
        training: a cap on the time, a clock, a Fabric.
        device: see `rfm.fit`.
        progress: see `rfm.fit`.

    Raises:
        SavedFlowError: if the folder holds a run with other data or settings.
        FileExistsError: if it holds a finished flow.
    """
    flow = new_flow(settings)
    assert isinstance(flow.field, FrameField)
    split = chains.split(settings.seed)
    training = rfm.Training() if training is None else training
    # Never stopped early, though weights are those of the best validation: it is noisy, and hours are long.
    budget = Budget(
        settings.steps,
        0,
        settings.learning_rate,
        settings.seed,
        training.max_seconds,
        settings.validations,
        patience=settings.validations + 1,
    )
    identity = [architecture(flow.field), flow.source, asdict(settings), chains.atoms, *split]
    run = Run(budget, identity, training=training, out=out, resume=True, device=device, progress=progress)
    if run.is_finished:
        raise FileExistsError(f"{out} already holds a flow\nchoose another folder, or delete that one")
    out.mkdir(parents=True, exist_ok=True)
    write_record(out, settings, chains)
    with run.launched() as fabric:
        flow.source.to(fabric.device)
        batches = [_batches(flow, chains.take(rows), settings, fabric.device) for rows in split[:2]]
        run.train(
            flow,
            Loss(batches[0], settings.length, settings.self_conditioning),
            Validation(batches[1], settings.length),
            measure="validation_loss",
        )
    return flow


def write_record(out: Path, settings: Settings, chains: Chains) -> None:
    """Write what the run is trained on to ``proteins.json``."""
    record = {"settings": asdict(settings), "data": chains.source, "sha256": chains.sha256, "chains": len(chains)}
    write_json(out / "proteins.json", record | {"left_out": chains.left_out})


def smaller(settings: Settings, **changes: Any) -> Settings:
    """Return settings with those changes that are not None."""
    return replace(settings, **{name: value for name, value in changes.items() if value is not None})


def _batches(flow: rfm.Flow, chains: Chains, settings: Settings, device: torch.device) -> ChainBatches:
    assert isinstance(flow.source, CentredPoseSource)
    return ChainBatches(
        chains.frames().to(device),
        chains.lengths,
        flow.source,
        beta_times(),
        pairs=settings.pairs,
        largest=settings.largest,
        motif_share=settings.motif_share,
        by_residues=True,
        seed=settings.seed,
    )


def fabric(device: str | None, precision: Any) -> Any:
    """Return a launched Fabric of one process, for a precision."""
    from lightning_fabric import Fabric

    found = Fabric(accelerator=device or "auto", devices=1, precision=precision)
    found.launch()
    return found
