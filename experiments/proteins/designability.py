"""What of designability can be measured without a network that folds sequences: bonds, packing, and fragments.

It is not designability: see `rfm.proteins.refolding` for that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rfm.proteins import HELIX, STRAND, fragments, hydrogen_bonds, packing

HEADER = """\
| chains | hydrogen bonds per residue | helix, strand by hydrogen bonds, % | CA within 10 Å | contacts per residue \
| relative contact order | RMSD to real fragments, Å: nine residues, two times five in contact |
|---|---:|---:|---:|---:|---:|---:|"""


@dataclass(frozen=True)
class Fragments:
    """Pieces of training chains: stretches, and pairs in contact."""

    local: fragments.FragmentLibrary
    in_contact: fragments.FragmentLibrary

    @classmethod
    def of(cls, chains: Sequence[Tensor]) -> "Fragments":
        """Return those of some chains, 20,000 of each kind at most."""
        return cls(
            fragments.FragmentLibrary(chains, fragments.stretches),
            fragments.FragmentLibrary(chains, fragments.contacts),
        )

    def mean_rmsd(self, chains: Sequence[Tensor]) -> tuple[float, float]:
        """Return the mean over pieces of the RMSD to the nearest one, of both kinds, Angstrom; NaN without pieces."""
        means = [torch.cat([library.nearest(a) for a in chains]).mean() for library in (self.local, self.in_contact)]
        return float(means[0]), float(means[1])


def row(name: str, chains: Sequence[Tensor], fragments: Fragments) -> str:
    """Return one line of the table."""
    structures = [hydrogen_bonds.dssp(a) for a in chains]
    helix, strand = (
        100 * np.mean([float((s == kind).double().mean()) for s in structures]) for kind in (HELIX, STRAND)
    )
    bonds = np.mean([hydrogen_bonds.bonds_per_residue(a) for a in chains])
    packed = np.mean([float(packing.coordination(a[:, 1]).double().mean()) for a in chains])
    touching = np.mean([packing.contacts_per_residue(a[:, 1]) for a in chains])
    order = np.mean([packing.relative_contact_order(a[:, 1]) for a in chains])
    local, in_contact = fragments.mean_rmsd(chains)
    return (
        f"| {name} | {bonds:.2f} | {helix:.0f}, {strand:.0f} | {packed:.1f} | {touching:.2f} | {order:.3f} | "
        f"{local:.2f}, {in_contact:.2f} |"
    )
