"""What a crystallographer asks of crystals: contacts, density, charges, symmetry, and whether they are new."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import gemmi
import numpy as np
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

from experiments.crystals.data import Crystal
from experiments.crystals.oxidation_states import balanced

_IMAGES = np.array(list(itertools.product((-2, -1, 0, 1, 2), repeat=3)))
_NEIGHBOURS = 12
_CLOSEST = 0.5
"""Below this distance, in angstroms, two atoms are no structure: the measure of Xie et al., Crystal Diffusion
Variational Autoencoder for Periodic Material Generation, 2021, arXiv:2110.06197."""
_TOUCHING = 0.75
"""Of the sum of covalent radii: the share of real crystals above it is in the table."""
TOLERANCE = 0.1
"""Within which symmetry is found, in angstroms."""
SAME = 0.1
"""Average minimum distances that differ by less than this, in angstroms, are those of one structure."""


class Measured(NamedTuple):
    """What one crystal measures."""

    closest: float
    """The shortest distance between atoms, in angstroms."""
    contact: float
    """The shortest distance over the sum of covalent radii, over all pairs."""
    volume: float
    """Per atom, in cubic angstroms."""
    density: float
    """In grams per cubic centimetre."""
    balanced: bool
    space_group: int
    distances: NDArray[np.float64]
    """Average minimum distances: from an atom to its first, second, ... twelfth neighbour, averaged over the atoms; no
    choice of a cell changes them. Widdowson et al., Average Minimum Distances of Periodic Point Sets, 2022,
    doi:10.46793/match.87-3.529W."""


def measured(crystal: Crystal) -> Measured:
    """Return what a crystal measures."""
    elements = [gemmi.Element(int(z)) for z in crystal.numbers]
    radii, mass = np.array([e.covalent_r for e in elements]), sum(e.weight for e in elements)
    steps = crystal.fractions[None, :, None] - crystal.fractions[:, None, None] + _IMAGES
    lengths = np.linalg.norm(steps @ crystal.lattice, axis=-1)
    # An atom is no neighbour of itself, but its images are.
    lengths[lengths < 1e-9] = np.inf
    contact = lengths / (radii[:, None] + radii)[..., None]
    ordered = np.sort(lengths.reshape(len(radii), -1), axis=1)[:, :_NEIGHBOURS]
    volume = abs(float(np.linalg.det(crystal.lattice)))
    return Measured(
        float(lengths.min()),
        float(contact.min()),
        volume / len(radii),
        mass / volume / 0.602214076,
        balanced(crystal.numbers),
        crystal.space_group(TOLERANCE),
        ordered.mean(0),
    )


class Row(NamedTuple):
    """What a set of crystals measures, beside held-out and training crystals."""

    name: str
    apart: float
    """Share whose atoms are 0.5 angstroms apart."""
    touching: float
    """Share whose contacts are at least 0.75 of the sum of radii."""
    balanced: float
    symmetric: float
    """Share with another space group than P1."""
    volume: float
    """Wasserstein distance of the volumes per atom to those held out, in cubic angstroms."""
    density: float
    """Likewise of the densities."""
    contact: float
    """Likewise of the contacts."""
    nearest: float
    """Median distance to the nearest training crystal of as many atoms, in angstroms."""
    repeated: float
    """Share with the formula of a training crystal and distances that are the same within 0.1 angstroms."""


def row(name: str, crystals: Sequence[Crystal], test: Sequence[Measured], train: Sequence[Crystal]) -> Row:
    """Return what a set of crystals measures."""
    found = [measured(crystal) for crystal in crystals]
    known, formulas = np.stack([measured(c).distances for c in train]), np.array([c.formula for c in train])
    gaps = [np.abs(known - m.distances).max(-1) for m in found]
    repeated = [
        bool((gap[formulas == crystal.formula] < SAME).any()) for gap, crystal in zip(gaps, crystals, strict=True)
    ]
    return Row(
        name,
        float(np.mean([m.closest >= _CLOSEST for m in found])),
        float(np.mean([m.contact >= _TOUCHING for m in found])),
        float(np.mean([m.balanced for m in found])),
        float(np.mean([m.space_group > 1 for m in found])),
        float(wasserstein_distance([m.volume for m in found], [m.volume for m in test])),
        float(wasserstein_distance([m.density for m in found], [m.density for m in test])),
        float(wasserstein_distance([m.contact for m in found], [m.contact for m in test])),
        float(np.median([gap.min() for gap in gaps])),
        float(np.mean(repeated)),
    )
