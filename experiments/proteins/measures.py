"""What is measured of backbones, real and drawn alike.

All take atoms N, CA, C, ... of chains, each ``(residues, 3 or more, 3)`` in Angstrom, and none looks at a sequence.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manifolds import FlatTorus
from rfm.metrics import Estimate, wasserstein_distance
from rfm.proteins import HELIX, STRAND, clashes, frames_from_atoms, secondary_structure, tm_score, torsions
from rfm.sources import KernelMixture

CA_DISTANCE, CA_WINDOW, CLASH = 3.8, 0.1, 3.0
"""Angstrom."""
Chains = Sequence[Tensor]


def ca_distances(chains: Chains) -> Tensor:
    """Return all distances between consecutive CA, Angstrom."""
    return torch.cat([torch.linalg.vector_norm(a[1:, 1] - a[:-1, 1], dim=-1) for a in chains])


def share_of_ca_distances(chains: Chains) -> float:
    """Return the share of consecutive CA that are 3.8 ± 0.1 Angstrom apart, as across a trans peptide bond."""
    return float(((ca_distances(chains) - CA_DISTANCE).abs() <= CA_WINDOW).double().mean())


def share_without_clash(chains: Chains) -> float:
    """Return the share of chains in which no two CA are within 3.0 Angstrom.

    Neighbours across a cis peptide bond, 2.95 Angstrom apart, are no clash: consecutive CA are left to
    `share_of_ca_distances`.
    """
    return float(np.mean([_closest(a[:, 1]) >= CLASH for a in chains]))


def share_without_overlap(chains: Chains) -> float:
    """Return the share of chains in which no backbone atoms overlap: `rfm.proteins.clashes.is_clear`.

    Stricter than `share_without_clash`: N, C and O count as well, and of real chains 19 in 20 pass.
    """
    return float(np.mean([bool(clashes.is_clear(frames_from_atoms(a))) for a in chains]))


def _closest(ca: Tensor) -> float:
    apart = torch.cdist(ca, ca)
    return float(apart[torch.ones_like(apart, dtype=torch.bool).triu(2)].min())


def structure_shares(chains: Chains) -> NDArray[np.float64]:
    """Return the shares of residues in helices and in strands of each chain, ``(chains, 2)``.

    By `rfm.proteins.backbones.secondary_structure`: distances between CA alone.
    """
    structures = [secondary_structure(a[:, 1]) for a in chains]
    return np.array([[float((s == kind).double().mean()) for kind in (HELIX, STRAND)] for s in structures])


def wasserstein_of_shares(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the 1-Wasserstein distance between chains' pairs of helix and strand share, Euclidean cost.

    Between sets of equal weight, by exact transport.
    """
    import ot

    cost = np.asarray(ot.dist(a, b, metric="euclidean"))
    return float(ot.emd2(np.full(len(a), 1 / len(a)), np.full(len(b), 1 / len(b)), cost))


def dihedrals(chains: Chains) -> Tensor:
    """Return phi and psi of all residues that have both, radians, ``(n, 2)``: points of ``FlatTorus(2)``."""
    return torch.cat([torsions(a.double())[1:-1, :2] for a in chains])


def torsion_distance(chains: Chains, others: Chains, residues: int = 1200, blocks: int = 4) -> Estimate:
    """Return the 1-Wasserstein distance between the phi and psi of two sets of chains, on ``FlatTorus(2)``, radians.

    Of as many residues, drawn at random, in blocks of which each is paired exactly; between two samples of one
    distribution it is not 0. A likelihood under real torsions would reward a chain of nothing but helix.
    """
    a, b = (FlatTorus(2).projx(dihedrals(x)) for x in (chains, others))
    count = min(residues, len(a), len(b)) // blocks * blocks
    generator = torch.Generator().manual_seed(0)
    x, y = (points[torch.randperm(len(points), generator=generator)[:count]] for points in (a, b))
    return wasserstein_distance(FlatTorus(2), x, y, order=1, blocks=blocks)


class RamachandranKernel:
    """A kernel density of phi and psi, fitted to real chains; it scores other chains in nats per residue.

    Args:
        chains: real ones.
        seed: which residues are taken.
        residues: how many.
    """

    def __init__(self, chains: Chains, seed: int = 0, residues: int = 4000) -> None:
        points = FlatTorus(2).projx(dihedrals(chains))
        some = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))[:residues]
        self.density = KernelMixture.fit(FlatTorus(2), points[some])

    def nll(self, chains: Chains, most: int = 10_000) -> float:
        """Return the mean negative log-density of the chains' angles, nats; of evenly spaced residues if many."""
        points = FlatTorus(2).projx(dihedrals(chains))
        some = torch.linspace(0, len(points) - 1, min(len(points), most)).round().long()
        return float(-self.density.log_prob(points[some]).mean())


def radius_of_gyration(chains: Chains) -> Tensor:
    """Return the root mean square distance of CA from their mean, Angstrom, ``(chains,)``."""
    return torch.stack([(a[:, 1] - a[:, 1].mean(0)).square().sum(-1).mean().sqrt() for a in chains])


def gyration_deviation(chains: Chains, real: Chains, within: float = 0.1) -> float:
    """Return the median over chains of the relative difference to what real chains of like length have.

    That is the median radius of gyration of the real chains within 10 % of the chain's length, or of the ten nearest in
    length. The sign shows whether chains are too wide or too tight.
    """
    own, other = radius_of_gyration(chains), radius_of_gyration(real)
    lengths = torch.tensor([len(a) for a in real], dtype=torch.float64)
    ratios = []
    for radius, chain in zip(own.tolist(), chains, strict=True):
        off = (torch.log(lengths / len(chain))).abs()
        near = off <= max(within, float(off.sort().values[min(9, len(off) - 1)]))
        ratios.append(radius / float(other[near].median()) - 1)
    return float(np.median(ratios))


def compact_and_clear(chains: Chains, real: Chains, within: float = 0.15) -> list[Tensor]:
    """Return the chains without overlap whose radius of gyration is within 15 % of real ones' of like length."""
    return [a for a in chains if abs(gyration_deviation([a], real)) <= within and share_without_overlap([a]) == 1]


def diversity(chains: Chains, pairs: int, seed: int = 0) -> float:
    """Return the mean TM-score of pairs of different chains: all of them, or so many at random; NaN for one chain."""
    n = len(chains)
    every = [(i, j) for i in range(n) for j in range(n) if i != j]
    if not every:
        return math.nan
    order = np.random.default_rng(seed).permutation(len(every))[:pairs]
    return float(np.mean([tm_score(chains[i], chains[j]) for i, j in (every[k] for k in order)]))


class NearestChain:
    """Finds which of many chains is most like a given one.

    Alignments are tried with those whose distances between CA along the chain are distributed most alike, and that are
    0.7 to 1.5 times as long: a search through all of them takes minutes per chain.

    Args:
        others: the chains.
        names: theirs.
        candidates: how many alignments are tried.
    """

    def __init__(self, others: Chains, names: Sequence[str], candidates: int = 20) -> None:
        self.others, self.names, self.candidates = others, names, candidates
        self.profiles = torch.stack([_profile(other) for other in others])
        self.lengths = torch.tensor([len(other) for other in others])

    def __call__(self, chain: Tensor) -> tuple[float, str]:
        """Return the highest TM-score that is found, and the name of the chain that has it."""
        share = self.lengths / len(chain)
        unlike = (self.profiles - _profile(chain)).abs().sum(-1)
        # Another length only where there is no other choice.
        unlike = unlike + 1e3 * ((share < 0.7) | (share > 1.5))
        order = unlike.argsort()[: self.candidates].tolist()
        return max((tm_score(chain, self.others[i]), self.names[i]) for i in order)


def _profile(chain: Tensor) -> Tensor:
    """Return a histogram of the distances between CA at several separations: alike for like folds."""
    ca = chain[:, 1].double()
    parts = []
    for apart in (4, 8, 16, 32):
        d = torch.linalg.vector_norm(ca[apart:] - ca[:-apart], dim=-1)
        parts.append(torch.histc(d, bins=20, min=0, max=4.0 * apart) / max(1, len(d)))
    return torch.cat(parts)
