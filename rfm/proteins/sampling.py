"""Drawing protein backbones from a flow of frames, as the field does it."""

from typing import NamedTuple

import torch
from torch import Tensor

from manifolds import CentredPoses
from rfm.flow import Flow
from rfm.integrators import GEODESIC_EULER, FixedStep
from rfm.networks import FrameField
from rfm.networks.frames import Amend
from rfm.proteins.backbones import atoms_from_frames
from rfm.proteins.chain_records import PEPTIDE_BOND
from rfm.proteins.clashes import separate
from rfm.proteins.motifs import ConstrainedFrames, MotifFlow
from rfm.proteins.peptide_bonds import close_bonds
from rfm.steering import Clocks, ExponentialClock, SelfConditioning, Steering

ROTATION_RATE, STEPS = 5.0, 50
"""Of the rotation schedule, and of the sampler, by default."""
_PAIRS = 2**19
"""Pairs of residues computed together, which bounds memory to about a gigabyte."""
_CLOSED_FROM, _ROUNDS = 0.3, 4
_CLEAR_ROUNDS, _FINAL_ROUNDS = 2, 30


class Motif(NamedTuple):
    """Residues that are given.

    Args:
        frames: theirs, ``(k, 4, 4)``, Angstrom.
        places: which residues of the backbone they are, counted from 0, ``(k,)``, ascending.
        sequence: their amino acids, one letter each; empty where they are not known.
    """

    frames: Tensor
    places: Tensor
    sequence: str = ""

    def broken(self) -> int | None:
        """Return the first residue, counted from 0, whose neighbour in the backbone is given and not bonded to it.

        Both stay as they are given, and would be welded where there is a gap.
        """
        atoms = atoms_from_frames(self.frames)
        apart = torch.linalg.vector_norm(atoms[1:, 0] - atoms[:-1, 2], dim=-1)
        welded = (self.places.diff() == 1).to(apart.device) & ~(apart <= PEPTIDE_BOND)
        broken = torch.nonzero(welded)
        return int(broken[0]) + 1 if len(broken) else None


def sample_backbones(
    flow: Flow,
    residues: int,
    count: int,
    *,
    steps: int = STEPS,
    rotation_rate: float | None = ROTATION_RATE,
    self_conditioning: bool = True,
    motif: Motif | None = None,
    close: bool = True,
    clear: bool = True,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> Tensor:
    """Return frames of backbones, ``(count, residues, 4, 4)``.

    Equal steps of Euler's method along geodesics, the last of which ends at what the network predicts. Rotations run
    ahead of positions, as ``1 - exp(-rate t)``, and arrive with them (`rfm.steering.ExponentialClock`): such samples
    follow no density that the flow could compute. From time 0.3 on bonds between residues are closed in each prediction
    before it is followed, and in the result (`rfm.proteins.close_bonds`): closed in the result alone, torsions pay
    for it. Bonds that are far apart may stay open, see `rfm.proteins.peptide_bonds.open_bonds`. Likewise residues whose
    atoms are too near each other are moved apart (`rfm.proteins.clashes.separate`), in each prediction and in the
    result: early enough for the network to build on it. With ``rotation_rate=None``, bonds and clashes left as they are
    and without self-conditioning they are those of `Flow.sample` with this solver.

    Args:
        flow: of a `rfm.networks.FrameField`, on `CentredPoses` of any number.
        residues: of each backbone.
        count: how many backbones.
        steps: evaluations of the network.
        rotation_rate: of the exponential schedule; None for the one that was trained.
        self_conditioning: give the network its last prediction.
        motif: residues that are given; the others are built around them.
        close: move residues as little as makes the bonds between them flat, trans and of ideal length.
        clear: move residues that overlap apart; only with ``close``.
        generator: source of randomness, on the device of the flow.
        progress: show on stderr how many are done.

    Raises:
        ValueError: if the flow is of another kind, or the motif does not fit: two of its residues are neighbours, say,
            and no peptide bond joins them.
    """
    if not isinstance(flow.manifold, CentredPoses) or not isinstance(flow.field, FrameField):
        raise ValueError(
            f"sample_backbones: takes a flow of a FrameField on CentredPoses, got a {type(flow.field).__name__} on "
            f"{flow.manifold}"
        )
    sized = flow.on(CentredPoses(residues, flow.manifold.length))
    held = torch.zeros(residues, dtype=torch.bool, device=next(flow.parameters()).device)
    if motif is not None:
        if (i := motif.broken()) is not None:
            raise ValueError(
                f"sample_backbones: the motif has a break: its residues at places {int(motif.places[i - 1])} and "
                f"{int(motif.places[i])} are neighbours, and no peptide bond joins them (C - N above {PEPTIDE_BOND} "
                "Angstrom); leave places between them"
            )
        held[motif.places.to(held.device)] = True
    amend = _closing(held, clear) if close else None
    if motif is not None:
        drawn: Flow | MotifFlow = MotifFlow(sized, motif.frames, motif.places, amend)
    else:
        drawn = Flow(sized.manifold, ConstrainedFrames(flow.field, amend=amend), sized.source)
    batch = max(1, _PAIRS // residues**2)
    steering: list[Steering] = [SelfConditioning()] if self_conditioning else []
    if rotation_rate is not None:
        steering.append(Clocks.of_poses(rotation=ExponentialClock(rotation_rate, lands=True)))
    frames: Tensor = drawn.sample(
        count,
        steering=steering,
        solver=FixedStep(GEODESIC_EULER, steps),
        batch_size=batch,
        generator=generator,
        progress=progress,
    )
    if not close:
        return frames
    parts = [separate(part, held, _FINAL_ROUNDS) if clear else part for part in frames.split(batch)]
    return torch.cat([close_bonds(part, held) for part in parts])


def _closing(held: Tensor, clear: bool) -> Amend:
    """Return what closes the bonds of predictions, and clears their clashes: of later ones, the first are no chains."""

    def amend(frames: Tensor, t: Tensor) -> Tensor:
        if float(t.min()) < _CLOSED_FROM:
            return frames
        closed = close_bonds(frames, held, _ROUNDS)
        return separate(closed, held, _CLEAR_ROUNDS) if clear else closed

    return amend
