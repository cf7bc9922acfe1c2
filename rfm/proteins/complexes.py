"""Complexes: all chains of a structure file in its own coordinates, and where they touch.

For reading and measuring. The flows of this package draw single chains: each residue of theirs is bonded to the next.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rfm.proteins.atom_records import StructureError
from rfm.proteins.structures import Chain, read_backbones, structure_files

TOUCHING = 8.0
"""Angstrom: residues of two chains whose CA are at most this far apart are in contact."""
CLASH = 3.0
"""Angstrom: CA nearer than this clash."""


@dataclass(frozen=True, eq=False)
class Complex:
    """The chains of one file, as they lie in it.

    Args:
        name: the file's name without its ending.
        chains: those with a residue or more, in the file's order.
    """

    name: str
    chains: tuple[Chain, ...]

    def __len__(self) -> int:
        return sum(map(len, self.chains))

    @property
    def atoms(self) -> Tensor:
        """N, CA, C of all residues, chain after chain, ``(residues, 3, 3)``, Angstrom."""
        return torch.cat([chain.atoms for chain in self.chains])

    @property
    def chain_index(self) -> Tensor:
        """Which chain each residue belongs to, ``(residues,)``."""
        return torch.repeat_interleave(torch.arange(len(self.chains)), torch.tensor([len(c) for c in self.chains]))

    def between_chains(self, within: float = TOUCHING) -> Tensor:
        """Return the pairs of residues of different chains whose CA are at most this far apart, ``(pairs, 2)``.

        Residues are counted through all chains, the first of a pair is the lower one.
        """
        ca, chain = self.atoms[:, 1], self.chain_index
        near = (torch.cdist(ca, ca) <= within) & (chain[:, None] < chain)
        return torch.nonzero(near)

    @property
    def interface(self) -> Tensor:
        """The residues that touch another chain, counted through all chains, ascending."""
        return self.between_chains().unique()

    @property
    def clashes(self) -> int:
        """How many pairs of CA of different chains are within 3 Angstrom."""
        return len(self.between_chains(CLASH))


def read_complex(path: str | Path) -> Complex:
    """Return all protein chains of a PDB or mmCIF file; raises `StructureError` as `read_backbones` does."""
    chains = read_backbones(path).chains
    return Complex(chains[0].name.rpartition(":")[0], chains)


def read_complexes(folder: str | Path) -> tuple[list[Complex], list[str]]:
    """Return the complexes of a folder of structure files, and which files cannot be used and why, in sentences.

    Raises:
        StructureError: there is no such folder, it holds no structure file, or none can be used.
    """
    found, faults = list[Complex](), list[str]()
    files = structure_files(folder)
    for file in files:
        try:
            found.append(read_complex(file))
        except StructureError as error:
            faults.append(str(error))
    if not found:
        raise StructureError(f"the folder {folder}: none of {len(files)} files can be used; {faults[0]}")
    return found, faults
