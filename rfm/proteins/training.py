"""Training a flow of backbones of all lengths, in a folder: a kill interrupts it, and the same call continues."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from manifolds import CentredPoses
from rfm.flow import Flow
from rfm.networks import FrameField
from rfm.paths import GeodesicPath
from rfm.paths.times import DensityTimes
from rfm.proteins.chain_sets import Chains
from rfm.proteins.loss import backbone_loss
from rfm.records import architecture, write_json
from rfm.sources import CentredPoseSource, IsotropicGaussianSO3
from rfm.training import Budget, ChainBatches, Run, Training, step_seed

NOMINAL = 128
"""How many residues the manifold of the saved flow has; samplers choose their own number."""


@dataclass(frozen=True)
class Settings:
    """The settings of a training run of a flow of backbones.

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


def new_flow(settings: Settings) -> Flow:
    """Return the untrained flow, its weights drawn from the settings' seed."""
    manifold = CentredPoses(NOMINAL, settings.length)
    rotation = None if settings.igso3 is None else IsotropicGaussianSO3(torch.eye(3), settings.igso3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        field = FrameField(settings.length, settings.width, settings.pair_width, settings.depth)
    return Flow(manifold, field, CentredPoseSource(manifold, rotation))


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
                x_t = GeodesicPath(CentredPoses(batch.x_1.shape[1], self.length)).sample(*batch[:3]).x_t
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
    out: str | Path,
    settings: Settings | None = None,
    *,
    training: Training | None = None,
    device: str | None = None,
    progress: bool | Callable[[float, dict[str, Any]], None] = True,
) -> Flow:
    """Train a flow of backbones in a folder, or resume what was interrupted or capped there; return the flow.

    ::

        chains = rfm.proteins.chain_sets.folder("structures")
        flow = rfm.proteins.train(chains, "runs/proteins", training=rfm.Training(max_seconds=3600))
        frames = rfm.proteins.sample_backbones(flow, residues=100, count=8)

    The chains are split by their clusters (`Chains.split`): 80 % to train, 10 % to validate, 10 % never seen. The
    learning rate falls to zero by the end of the steps, or of the time where it is capped; a capped run that is resumed
    with a larger cap goes on at the rate of where it then stands.

    Args:
        chains: what to train on, as `rfm.proteins.chain_sets` reads them.
        out: the folder of the run.
        settings: what decides the result; by default those of the packaged flow.
        training: a cap on the time, a clock, a Fabric.
        device: see `rfm.fit`.
        progress: see `rfm.fit`.

    Raises:
        SavedFlowError: if the folder holds a run with other data or settings.
        FileExistsError: if it holds a finished flow.
    """
    settings, out = Settings() if settings is None else settings, Path(out)
    flow = new_flow(settings)
    assert isinstance(flow.field, FrameField)
    split = chains.split(settings.seed)
    training = Training() if training is None else training
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
        raise FileExistsError(f"{out} already holds a flow; choose another folder, or delete that one")
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


def _batches(flow: Flow, chains: Chains, settings: Settings, device: torch.device) -> ChainBatches:
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
