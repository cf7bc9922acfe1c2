"""A flow of protein backbones of any length: drawn, scored, and built around residues that are given."""

import torch

import rfm
from manifolds import CentredPoses
from rfm.integrators import GEODESIC_EULER, FixedStep
from rfm.networks import FrameField
from rfm.proteins.backbones import atoms_from_frames, frames_from_atoms
from rfm.proteins.sampling import Motif, sample_backbones
from rfm.sources import CentredPoseSource

# A flow such as `python -m experiments.proteins train` leaves in its folder, but small and not trained.
manifold = CentredPoses(128, length=10.0)
field = FrameField(length=10.0, width=32, pair_width=16, depth=2)
flow = rfm.Flow(manifold, field, CentredPoseSource(manifold))

# --8<-- [start:lengths]
short = flow.on(CentredPoses(20, 10.0))  # the same weights, another number of residues
frames = short.sample(2, solver=FixedStep(GEODESIC_EULER, 10))  # (2, 20, 4, 4), Angstrom
atoms = atoms_from_frames(frames)  # N, CA, C, O: (2, 20, 4, 3)
# --8<-- [end:lengths]
assert atoms.shape == (2, 20, 4, 3)

# --8<-- [start:likelihood]
estimate = short.log_prob(frames, estimator=rfm.Hutchinson(4), solver=FixedStep(GEODESIC_EULER, 10))
print(estimate.log_prob, estimate.standard_error)  # nats, in 6 * 20 - 3 dimensions
# --8<-- [end:likelihood]
assert bool(estimate.log_prob.isfinite().all())

# What is given must be bonded where it is neighbours: here four residues of a zigzag, N, CA and C in a plane.
residue = torch.tensor([[0.0, 0.0, 0.0], [1.2, 0.83, 0.0], [2.55, 0.1, 0.0]])
given = frames_from_atoms(residue + torch.arange(4.0)[:, None, None] * torch.tensor([3.8, 0.0, 0.0]))

# --8<-- [start:motif]
motif = Motif(given, places=torch.arange(12, 16))  # four residues, and where they are to stand
around = sample_backbones(flow, residues=40, count=2, steps=10, motif=motif)
# --8<-- [end:motif]
assert torch.equal(around[:, 12:16], given.expand(2, 4, 4, 4))
