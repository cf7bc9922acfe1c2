"""What a training step of a flow of backbones minimises."""

import torch
from torch import Tensor, nn

from manifolds import CentredPoses
from rfm.objectives import endpoint_loss
from rfm.paths import GeodesicPath
from rfm.proteins.backbones import atoms_from_frames
from rfm.training.chain_batches import ChainBatch

LATEST = 0.1
"""Errors count as those of the velocity, ``1 / (1 - t)``, up to this time before the end."""
NEAR_ANGSTROM = 6.0
FROM_TIME, APART_FROM_TIME = 0.25, 0.5
ATOM_WEIGHT = 0.25
CLEAR_ANGSTROM = 4.0
"""CA of residues three or more apart in the row are hardly ever closer in real chains."""


def backbone_loss(model: nn.Module, batch: ChainBatch, length: float, previous: Tensor | None = None) -> Tensor:
    """Return the loss of each chain ``(n,)``: that of end points, of distances between atoms, and of clashes.

    The first is `rfm.endpoint_loss` over ``max(1 - t, 0.1)^2``, the flow matching loss but for the last tenth of the
    time, per residue that moves: squared radians plus squared Angstrom over ``length^2``. Residues that are padded or
    held are predicted to be where they are, which is right, and so add nothing.

    The second, in Angstrom^2 with weight 0.25, is the mean squared error of the distances between backbone atoms that
    are within 6 Angstrom in the data, from time 0.25 on: bonds and contacts, which a mean over frames blurs. From time
    0.5 on others count too that have come within 6 Angstrom, by what they lack to it. With it the prediction is no
    longer exactly the conditional mean that likelihoods presume (Yim et al., SE(3) diffusion model with application to
    protein backbone generation, 2023, arXiv:2302.02277, section 4.2).

    The third, in Angstrom^2 per residue, is the squared overlap of CA that are predicted within 4 Angstrom of each
    other, and nearer than they are in the data, of residues three or more apart in the row; its weight rises from 0 at
    time 0.25 to 1 at time 0.75.

    Args:
        model: a `rfm.networks.FrameField`.
        batch: padded chains.
        length: of the manifold, Angstrom.
        previous: the prediction that the network may build on.
    """
    path = GeodesicPath(CentredPoses(batch.x_1.shape[1], length))
    predicted: list[Tensor] = []

    def predictor(x: Tensor, t: Tensor) -> Tensor:
        predicted.append(model.endpoint(x, t, mask=batch.mask, held=batch.held, previous=previous))  # type: ignore[operator]
        return predicted[-1]

    frames = endpoint_loss(
        predictor,
        path,
        batch.x_0,
        batch.x_1,
        batch.t,
        reduction="none",
        weight=lambda t: (1 - t).clamp(min=LATEST) ** -2,
    )
    moving = (batch.mask & ~batch.held).sum(-1).clamp(min=1)
    late, apart = (batch.t > FROM_TIME).to(frames.dtype), batch.t > APART_FROM_TIME
    near = ATOM_WEIGHT * late * distance_error(predicted[0], batch.x_1, batch.mask, apart)
    # The early prediction is a mean over folds, which may well be crossed.
    settled = ((batch.t - FROM_TIME) / (1 - 2 * FROM_TIME)).clamp(0, 1)
    return frames / moving + near + settled * clash_error(predicted[0], batch.x_1, batch.mask)


def distance_error(predicted: Tensor, data: Tensor, mask: Tensor, apart: Tensor) -> Tensor:
    """Return the mean squared error of near distances between N, CA, C and O, Angstrom^2, ``(n,)``.

    Args:
        predicted: frames ``(n, longest, 4, 4)``.
        data: the true ones.
        mask: which are there ``(n, longest)``.
        apart: in which chains distances count that are near in the prediction alone ``(n,)``.
    """
    predicted_atoms, true_atoms = (atoms_from_frames(frames).flatten(-3, -2) for frames in (predicted, data))
    there = mask.repeat_interleave(4, dim=-1)
    there = there[:, :, None] & there[:, None, :]
    true = torch.cdist(true_atoms, true_atoms)
    near = (true < NEAR_ANGSTROM) & there
    # The root, and its derivative, at the diagonal, where both distances are 0.
    distance = torch.sqrt((predicted_atoms[:, :, None] - predicted_atoms[:, None, :]).square().sum(-1) + 1e-6)
    lacking = torch.where(there & apart[:, None, None], (NEAR_ANGSTROM - distance).clamp(min=0), 0.0)
    error = torch.where(near, distance - true, lacking)
    return error.square().sum((-2, -1)) / near.sum((-2, -1)).clamp(min=1)


def clash_error(predicted: Tensor, data: Tensor, mask: Tensor) -> Tensor:
    """Return the squared overlap of CA that are not neighbours, per residue, Angstrom^2, ``(n,)``.

    Args:
        predicted: frames ``(n, longest, 4, 4)``.
        data: the true ones.
        mask: which are there ``(n, longest)``.
    """
    ca, true = predicted[..., :3, 3], data[..., :3, 3]
    # The root, and its derivative, at the diagonal.
    distance = torch.sqrt((ca[:, :, None] - ca[:, None, :]).square().sum(-1) + 1e-6)
    clear = torch.cdist(true, true).clamp(max=CLEAR_ANGSTROM)
    pairs = (mask[:, :, None] & mask[:, None, :]).triu(3)
    overlap = torch.where(pairs, (clear - distance).clamp(min=0), 0.0)
    return overlap.square().sum((-2, -1)) / mask.sum(-1).clamp(min=1)
