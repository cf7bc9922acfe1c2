"""Protein backbones: atoms and frames, bonds, motifs, the files that hold them, and how they are drawn from a flow."""

from rfm.proteins import backbones, chain_sets, motifs, peptide_bonds, structures
from rfm.proteins.backbones import HELIX, STRAND, atoms_from_frames, frames_from_atoms, secondary_structure, torsions
from rfm.proteins.chain_sets import Chains
from rfm.proteins.peptide_bonds import close_bonds
from rfm.proteins.sampling import ROTATION_RATE, Motif, sample_backbones

__all__ = [
    "HELIX",
    "ROTATION_RATE",
    "STRAND",
    "Chains",
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
