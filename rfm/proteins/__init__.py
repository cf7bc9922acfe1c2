"""Protein backbones: atoms and frames, bonds, motifs, files; how a flow of them is trained, and how they are drawn."""

from rfm.proteins import (
    backbones,
    chain_sets,
    clashes,
    clusters,
    complexes,
    fragments,
    hydrogen_bonds,
    motifs,
    packing,
    peptide_bonds,
    refolding,
    structures,
)
from rfm.proteins.backbones import (
    COIL,
    HELIX,
    STRAND,
    atoms_from_frames,
    frames_from_atoms,
    secondary_structure,
    torsions,
)
from rfm.proteins.chain_sets import Chains
from rfm.proteins.likelihoods import exact_log_prob
from rfm.proteins.loss import backbone_loss
from rfm.proteins.peptide_bonds import close_bonds
from rfm.proteins.sampling import ROTATION_RATE, Motif, sample_backbones
from rfm.proteins.superposition import rmsd, tm_score
from rfm.proteins.training import Settings, beta_times, new_flow, train

__all__ = [
    "COIL",
    "HELIX",
    "ROTATION_RATE",
    "STRAND",
    "Chains",
    "Motif",
    "Settings",
    "atoms_from_frames",
    "backbone_loss",
    "backbones",
    "beta_times",
    "chain_sets",
    "clashes",
    "close_bonds",
    "clusters",
    "complexes",
    "exact_log_prob",
    "fragments",
    "frames_from_atoms",
    "hydrogen_bonds",
    "motifs",
    "new_flow",
    "packing",
    "peptide_bonds",
    "refolding",
    "rmsd",
    "sample_backbones",
    "secondary_structure",
    "structures",
    "tm_score",
    "torsions",
    "train",
]
