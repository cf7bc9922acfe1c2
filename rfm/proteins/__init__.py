"""Protein backbones: atoms and frames, bonds, motifs, the files that hold them, and how they are drawn from a flow."""

from rfm.proteins import backbones, chain_sets, motifs, peptide_bonds, structures
from rfm.proteins.backbones import atoms_from_frames, frames_from_atoms, secondary_structure, torsions
from rfm.proteins.peptide_bonds import close_bonds
from rfm.proteins.sampling import Motif, sample_backbones

__all__ = [
    "Motif",
    "atoms_from_frames",
    "backbones",
    "chain_sets",
    "close_bonds",
    "frames_from_atoms",
    "motifs",
    "peptide_bonds",
    "sample_backbones",
    "secondary_structure",
    "structures",
    "torsions",
]
