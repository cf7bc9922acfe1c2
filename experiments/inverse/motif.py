"""A motif of a backbone: two frames of a chain are measured, and the scaffold between and around them is sought.

The prior is what flow matching, learnt perfectly, makes of eight conformations of a fragment from real structures:
geodesic paths from a normal source, stopped short of the conformations so that each is left with some width. Given the
conformation the frames are independent, so posterior and evidence are products over frames: their truth needs no
training, no solve and no chain of draws.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import rfm
from experiments.inverse.problems import Problem
from manifolds import SE3, Power
from rfm.likelihood import score
from rfm.posterior import Measurement, operators
from rfm.proteins import frames_from_atoms
from rfm.sources import IsotropicGaussianSO3, PowerSource, RigidMotionSource

RESIDUES = 10
MOTIF = (2, 7)
"""The frames that are measured; the first of them is the origin of a fragment."""

ANGLE, POSITION = math.radians(10.0), 0.6
"""Noise of a measured frame: radians and Angstrom, standard deviations in every direction."""

TURN, SPREAD = 0.4, 3.0
"""Standard deviations of the source: radians, so few that no path to a conformation crosses a cut locus; Angstrom."""

END = 0.85
"""Where paths stop, as a share of them."""

REFERENCE = 16027
"""Number of the fragment whose motif is measured."""

POSE = SE3(length=3.0)
CHAIN = Power(POSE, RESIDUES)


def fragments() -> Tensor:
    """Return unbroken stretches of backbones, the first frame of the motif at the origin, ``(n, RESIDUES, 4, 4)``."""
    path = Path(os.environ.get("RFM_DATA", "data")) / "protein" / "backbones.npz"
    with np.load(path) as file:
        atoms, linked = torch.from_numpy(file["xyz"]), torch.from_numpy(file["linked_to_prev"])
    starts = torch.arange(0, len(atoms) - RESIDUES, 11)
    starts = starts[torch.stack([linked[starts + i] for i in range(1, RESIDUES)]).all(0)]
    frames = frames_from_atoms(atoms[starts[:, None] + torch.arange(RESIDUES)].double())
    return torch.linalg.solve(frames[:, MOTIF[0], None], frames)


def conformations(found: Tensor) -> Tensor:
    """Return eight chains ``(8, RESIDUES, 4, 4)``, each frame relative to that of the reference.

    The reference, three others that have its motif and four that have not: each as far from those before as any that
    turns no frame by more than 1.2 radians.

    Args:
        found: fragments ``(n, RESIDUES, 4, 4)``.
    """
    chains = torch.linalg.solve(found[REFERENCE], found)
    turned = POSE.rotations.dist(chains[..., :3, :3], torch.eye(3, dtype=chains.dtype))
    moved = chains[..., :3, 3].norm(dim=-1)
    misfit = ((turned / ANGLE).square() + (moved / POSITION).square())[:, MOTIF].sum(-1)
    near, chosen = (turned < 1.2).all(-1), [chains[REFERENCE]]
    for pool, count in ((chains[near & (misfit < 6)], 3), (chains[near & (misfit > 30)], 4)):
        for _ in range(count):
            apart = torch.stack([CHAIN.dist(pool, own) for own in chosen]).amin(0)
            chosen.append(pool[apart.argmax()])
    return CHAIN.projx(torch.stack(chosen))


@dataclass(frozen=True)
class Conformations:
    """What `rfm.marginal_velocity` is for geodesic paths to some chains, in a tenth of its time.

    Args:
        chains: ``(k, RESIDUES, 4, 4)``, equally likely.
    """

    chains: Tensor

    @property
    def source(self) -> PowerSource:
        """Normal rotations and positions about the origin, of each frame its own."""
        return PowerSource(CHAIN, RigidMotionSource(POSE, IsotropicGaussianSO3(torch.eye(3), TURN), SPREAD))

    def flow(self) -> rfm.Flow:
        """Return the flow."""
        return rfm.Flow(CHAIN, self.velocity, self.source)

    def paths(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return how likely paths to each chain pass ``x``, and what is left of them.

        Args:
            x: points ``(n, RESIDUES, 4, 4)``.
            t: times ``(n,)``.

        Returns:
            Log-densities ``(n, k)``, up to what is the same of all, rotation vectors in the frames and displacements
            from ``x`` to the chains, ``(n, k, RESIDUES, 3)`` each.
        """
        ends, left = self.chains.to(x), (1 - END * t)[:, None, None]
        ahead, back = ends[..., :3, :3], ends[..., :3, :3].mT @ x[:, None, :, :3, :3]
        sine = _sine(back)
        length = (sine.square().sum(-1) + 1e-12).sqrt()
        angle, axis = torch.atan2(length, (_trace(back) - 1) / 2), sine / length[..., None]
        # A path starts where its end is turned about that axis by more.
        start = angle / left
        along = ((axis[..., None, :] @ ahead)[..., 0, :] * axis).sum(-1)
        cosine, across = start.cos(), (axis * _sine(ahead)).sum(-1)
        trace = cosine * _trace(ahead) + (1 - cosine) * along - 2 * start.sin() * across
        off = torch.acos(((trace - 1) / 2).clamp(-1 + 1e-6, 1 - 1e-6))
        shift = ends[..., :3, 3] - x[:, None, :, :3, 3]
        moved = (ends[..., :3, 3] - shift / left[..., None]) / SPREAD
        log_p = (off / 2 / (off / 2).sin()).log() - off.square() / 2 / TURN**2 - moved.square().sum(-1) / 2
        log_p = log_p + 2 * ((start / 2).sin() / (angle / 2).sin() * left).abs().clamp(min=1e-6).log()
        # No path is longer than half a turn; the nearest is left.
        log_p = torch.where(start < math.pi, log_p, -1e3 * start)
        return log_p.sum(-1), -angle[..., None] * axis, shift

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the mean velocity of the paths that pass ``x`` ``(n, RESIDUES, 4, 4)`` at times ``t`` ``(n,)``."""
        log_p, turn, shift = self.paths(x, t.expand(len(x)))
        shares = torch.softmax(log_p, -1)[..., None, None] * END / (1 - END * t.expand(len(x)))[:, None, None, None]
        a, b, c = (shares * turn).sum(1).unbind(-1)
        zero = torch.zeros_like(a)
        spin = torch.stack([zero, -c, b, c, zero, -a, -b, a, zero], -1).reshape(*a.shape, 3, 3)
        top = torch.cat([x[..., :3, :3] @ spin, (shares * shift).sum(1)[..., None]], -1)
        return torch.cat([top, torch.zeros_like(top[..., :1, :])], -2)

    def score(self, x: Tensor, t: Tensor, velocity: Tensor) -> Tensor:
        """Return the gradient of the log-density at times ``t`` ``(n,)``, tangent at ``x``."""
        return score(lambda y: self.paths(y, t)[0].logsumexp(-1), CHAIN, x)

    def sample(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Return draws about the chains with these numbers ``(n,)``: ``(n, RESIDUES, 4, 4)``."""
        start = self.source.sample((len(rows),), generator, torch.float64)
        return CHAIN.geodesic(start, self.chains[rows], torch.full((len(rows),), END, dtype=torch.float64))[0]


def _sine(rotation: Tensor) -> Tensor:
    """Return axes times the sines of the angles, ``(*batch, 3)``."""
    pairs = ((2, 1), (0, 2), (1, 0))
    return torch.stack([rotation[..., i, j] - rotation[..., j, i] for i, j in pairs], -1) / 2


def _trace(rotation: Tensor) -> Tensor:
    return rotation[..., 0, 0] + rotation[..., 1, 1] + rotation[..., 2, 2]


def of_conformations(chains: Tensor, draws: int) -> Problem:
    """Return the problem of some conformations, the motif of the first of which is measured.

    Args:
        chains: ``(k, RESIDUES, 4, 4)``.
        draws: of each conformation, which the truth is made of.
    """
    prior, generator = Conformations(chains), torch.Generator().manual_seed(1)
    noise = torch.tensor([ANGLE] * 3 + [POSITION / POSE.length] * 3, dtype=torch.float64)
    eye = torch.eye(4)
    alone = Measurement(operators.displacement(POSE, eye), torch.zeros(6), noise)
    frames = operators.displacement(Power(POSE, len(MOTIF)), eye.expand(len(MOTIF), 4, 4), part=operators.frames(MOTIF))
    measurement = Measurement(frames, torch.zeros(6 * len(MOTIF)), noise.repeat(len(MOTIF)))
    # Of each conformation, and of each measured frame: poses, and how likely they are.
    poses = torch.stack([prior.sample(torch.full((draws,), k), generator)[:, MOTIF] for k in range(len(chains))])
    log_l = alone(poses)
    weights = torch.softmax((log_l.logsumexp(1)).sum(-1), 0)
    shares = torch.softmax(log_l, 1)

    def exact(n: int, generator: torch.Generator) -> Tensor:
        rows = torch.multinomial(weights, n, True, generator=generator)
        x = prior.sample(rows, generator)
        for i, frame in enumerate(MOTIF):
            for k in rows.unique():
                own = rows == k
                chosen = torch.multinomial(shares[k, :, i], int(own.sum()), True, generator=generator)
                x[own, frame] = poses[k, chosen, i]
        return x.float()

    ends = torch.full((len(chains),), END, dtype=torch.float64)
    centres = CHAIN.geodesic(eye.double().expand_as(chains), chains, ends)[0].float()

    def nearest(x: Tensor) -> Tensor:
        return torch.stack([CHAIN.dist(x, centre) for centre in centres]).argmin(0)

    return Problem(prior.flow(), measurement, exact, (nearest, weights), prior.score)


def motif(quick: bool) -> Problem:
    """Return a backbone of ten residues, two frames of which are measured."""
    return of_conformations(conformations(fragments()), 2000 if quick else 20_000)
