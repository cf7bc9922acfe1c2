"""Drawing protein backbones from a flow of frames, as the field does it."""

from typing import NamedTuple

import torch
from torch import Tensor

from manifolds import CentredPoses
from rfm.clocks import Clocks, ExponentialClock
from rfm.flow import Flow
from rfm.integrators import GEODESIC_EULER, FixedStep
from rfm.motifs import MotifFlow
from rfm.peptide_bonds import close_bonds

ROTATION_RATE = 10.0
_PAIRS = 2**19
"""Pairs of residues computed together, which bounds memory to about a gigabyte."""


class Motif(NamedTuple):
    """Residues that are given.

    Args:
        frames: theirs, ``(k, 4, 4)``, Angstrom.
        places: which residues of the backbone they are, counted from 0, ``(k,)``, ascending.
    """

    frames: Tensor
    places: Tensor


def sample_backbones(
    flow: Flow,
    residues: int,
    count: int,
    *,
    steps: int = 100,
    rotation_rate: float | None = ROTATION_RATE,
    self_conditioning: bool = True,
    motif: Motif | None = None,
    close: bool = True,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> Tensor:
    """Return frames of backbones, ``(count, residues, 4, 4)``.

    Equal steps of Euler's method along geodesics, the last of which ends at what the network predicts. Rotations run
    ahead of positions, as ``1 - exp(-rate t)``, and arrive with them (`rfm.clocks.ExponentialClock`): such samples
    follow no density that the flow could compute. Last, bonds between residues are closed (`close_bonds`). With
    ``rotation_rate=None``, open bonds and without self-conditioning they are those of `Flow.sample` with this solver.

    Args:
        flow: of a `rfm.networks.FrameField`, on `CentredPoses` of any number.
        residues: of each backbone.
        count: how many backbones.
        steps: evaluations of the network.
        rotation_rate: of the exponential schedule; None for the one that was trained.
        self_conditioning: give the network its last prediction.
        motif: residues that are given; the others are built around them.
        close: move residues as little as makes the bonds between them flat, trans and of ideal length.
        generator: source of randomness, on the device of the flow.
        progress: show on stderr how many are done.

    Raises:
        ValueError: if the flow is of another kind, or the motif does not fit.
    """
    if not isinstance(flow.manifold, CentredPoses):
        raise ValueError(f"sample_backbones: takes a flow on CentredPoses, got one on {flow.manifold}")
    sized = flow.on(CentredPoses(residues, flow.manifold.length))
    drawn = sized if motif is None else MotifFlow(sized, motif.frames, motif.places)
    batch = max(1, _PAIRS // residues**2)
    clock = None if rotation_rate is None else ExponentialClock(rotation_rate, lands=True)
    frames: Tensor = drawn.sample(
        count,
        clocks=None if clock is None else Clocks.of_poses(rotation=clock),
        self_conditioning=self_conditioning,
        solver=FixedStep(GEODESIC_EULER, steps),
        batch_size=batch,
        generator=generator,
        progress=progress,
    )
    if not close:
        return frames
    held = torch.zeros(residues, dtype=torch.bool, device=frames.device)
    if motif is not None:
        held[motif.places.to(held.device)] = True
    return torch.cat([close_bonds(part, held) for part in frames.split(batch)])
