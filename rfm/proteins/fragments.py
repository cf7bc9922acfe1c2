"""How like those of real chains the pieces of a backbone are: the RMSD of each to the nearest real piece.

A piece is a stretch of nine residues, which is local structure, or two stretches of five that are in contact, which is
how they are packed. A chain that a sequence can fold into is made of pieces that recur in real chains: Simons et al.,
Assembly of protein tertiary structures from fragments with similar local sequences, 1997, doi:10.1006/jmbi.1997.0959;
Mackenzie, Zhou and Grigoryan, Tertiary alphabet for the observable protein structural universe, 2016,
doi:10.1073/pnas.1607178113. It says nothing of a sequence, and is no substitute for folding one.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rfm.proteins.superposition import rmsd

STRETCH, HALF = 9, 5
"""Residues of a local piece, and of each half of a pair in contact."""
_CONTACT, _APART = 8.0, 10
"""Angstrom between the middle CA of two halves; residues between them along the chain."""
_CANDIDATES = 24
"""Pieces that are superposed, those with the most similar inner distances."""


def stretches(ca: Tensor) -> Tensor:
    """Return the CA of all stretches of nine residues, ``(pieces, 9, 3)``, of a chain's ``(residues, 3)``."""
    return ca.unfold(0, STRETCH, 1).mT if len(ca) >= STRETCH else ca.new_zeros(0, STRETCH, 3)


def contacts(ca: Tensor) -> Tensor:
    """Return the CA of all pairs of stretches of five in contact, ``(pieces, 10, 3)``, the first one first.

    Their middles are ten or more apart in the row and within 8 Angstrom, and nearer than those of the pairs beside.
    """
    if len(ca) < HALF + _APART:
        return ca.new_zeros(0, 2 * HALF, 3)
    half = ca.unfold(0, HALF, 1).mT
    middle = half[:, HALF // 2]
    apart = torch.cdist(middle, middle)
    # Of neighbouring pairs, which are nearly one piece, that in closest contact stands for all.
    lowest = -torch.nn.functional.max_pool2d(-apart[None], 3, stride=1, padding=1)[0]
    first, second = torch.nonzero(((apart < _CONTACT) & (apart <= lowest)).triu(_APART), as_tuple=True)
    return torch.cat([half[first], half[second]], dim=-2)


class FragmentLibrary:
    """Pieces of real chains, and the RMSD of others to the nearest of them.

    The nearest is looked for among the 24 whose distances between CA are most alike, which mirror images share; these
    are superposed, and mirror images fall out. So the RMSD is an upper bound that is rarely above the least one.

    Args:
        chains: atoms N, CA, C, ... of real chains, each ``(residues, 3 or more, 3)``, Angstrom.
        pieces: which pieces: `stretches` or `contacts`.
        most: pieces to keep, drawn at random.
        seed: of that draw.
    """

    def __init__(
        self,
        chains: Sequence[Tensor],
        pieces: Callable[[Tensor], Tensor] = stretches,
        most: int = 20_000,
        seed: int = 0,
    ) -> None:
        every = torch.cat([pieces(chain[:, 1].float()) for chain in chains])
        chosen = torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))[:most]
        self.pieces, self.known = pieces, every[chosen]
        if not len(self.known):
            raise ValueError("FragmentLibrary: the chains have no such pieces; give longer ones, or more")
        self._distances = _inner_distances(self.known)

    def nearest(self, chain: Tensor) -> Tensor:
        """Return the RMSD of each piece of a chain to the nearest known one, ``(pieces,)``, Angstrom."""
        own = self.pieces(chain[:, 1].float())
        if not len(own):
            return own.new_zeros(0)
        unlike = torch.cdist(_inner_distances(own), self._distances)
        candidates = unlike.topk(min(_CANDIDATES, len(self.known)), largest=False).indices
        return rmsd(own[:, None].expand(*candidates.shape, -1, -1), self.known[candidates]).amin(-1)


def _inner_distances(points: Tensor) -> Tensor:
    i, j = torch.triu_indices(points.shape[-2], points.shape[-2], 2)
    return torch.linalg.vector_norm(points[:, i] - points[:, j], dim=-1)
