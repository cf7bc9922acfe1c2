"""Crystals that pymatgen carries: the prototypes of AFLOW's library, one real compound each, in primitive cells.

Mehl et al., The AFLOW Library of Crystallographic Prototypes: Part 1, 2017, arXiv:1607.02532.
"""

import gzip
import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, NamedTuple

import gemmi
import numpy as np
import spglib
from numpy.typing import NDArray

# Errors are to be raised, not printed and returned as None.
spglib.error.OLD_ERROR_HANDLING = False

_FILE = "pymatgen/analysis/prototypes/aflow_prototypes.json.gz"
_TIGHT = 1e-3
"""Within which symmetry is found in the prototypes themselves, in angstroms."""


class Crystal(NamedTuple):
    """Atoms in a periodic cell."""

    numbers: NDArray[np.int64]
    """Atomic numbers ``(k,)``."""
    fractions: NDArray[np.float64]
    """Places in units of the cell's edges ``(k, 3)``."""
    lattice: NDArray[np.float64]
    """The cell's edges as rows ``(3, 3)``, in angstroms."""

    @property
    def metric(self) -> NDArray[np.float64]:
        """Inner products of the edges ``(3, 3)``, in square angstroms."""
        return self.lattice @ self.lattice.T

    @property
    def volume_per_atom(self) -> float:
        """In cubic angstroms."""
        return abs(float(np.linalg.det(self.lattice))) / len(self.numbers)

    @property
    def formula(self) -> str:
        """The reduced formula, elements in the order of their numbers."""
        values, counts = np.unique(self.numbers, return_counts=True)
        divisor = np.gcd.reduce(counts)
        return "".join(
            f"{gemmi.Element(int(z)).name}{c // divisor if c > divisor else ''}"
            for z, c in zip(values, counts, strict=True)
        )

    @property
    def cell(self) -> tuple[list[list[float]], list[list[float]], list[int]]:
        """Edges, places and numbers as spglib takes them."""
        return self.lattice.tolist(), self.fractions.tolist(), self.numbers.tolist()

    def space_group(self, tolerance: float) -> int:
        """Return the number of the space group that spglib finds within a tolerance in angstroms; 0 for none."""
        try:
            found = spglib.get_symmetry_dataset(self.cell, symprec=tolerance)
        except spglib.error.SpglibError:
            return 0
        return 0 if found is None else int(found.number)


def load(most: int) -> list[Crystal]:
    """Return the crystals of 2 to ``most`` atoms in their primitive cells, each formula and space group once.

    Raises:
        SystemExit: pymatgen is not installed.
    """
    crystals: dict[tuple[str, int], Crystal] = {}
    with gzip.open(prototypes(), "rt", encoding="utf-8") as file:
        entries = json.load(file)
    for entry in entries:
        crystal = reduced(_read(entry["snl"]))
        if crystal is not None and 2 <= len(crystal.numbers) <= most:
            crystals.setdefault((crystal.formula, crystal.space_group(_TIGHT)), crystal)
    return list(crystals.values())


def prototypes() -> Path:
    """Return where pymatgen keeps the prototypes.

    Raises:
        SystemExit: it is not installed.
    """
    try:
        path = Path(str(distribution("pymatgen").locate_file(_FILE)))
    except PackageNotFoundError:
        raise SystemExit(
            "experiments.crystals: reads the crystals that the package pymatgen carries, which is not installed; "
            "pip install --no-deps pymatgen"
        ) from None
    if not path.exists():
        raise SystemExit(f"experiments.crystals: {path} does not exist; install pymatgen 2026.10.24")
    return path


def reduced(crystal: Crystal) -> Crystal | None:
    """Return a crystal in Niggli's reduced primitive cell, the shortest edge first; None where spglib finds none."""
    try:
        primitive = spglib.find_primitive(crystal.cell, symprec=_TIGHT)
        lattice, fractions, numbers = primitive or (crystal.lattice, crystal.fractions, crystal.numbers)
        edges = spglib.niggli_reduce(lattice)
    except spglib.error.SpglibError:
        return None
    if edges is None:
        return None
    places = np.asarray(fractions) @ np.asarray(lattice) @ np.linalg.inv(edges)
    return Crystal(np.asarray(numbers, dtype=np.int64), places - np.floor(places), np.asarray(edges, dtype=np.float64))


def _read(record: dict[str, Any]) -> Crystal:
    sites = record["sites"]
    numbers = np.array([gemmi.Element(site["species"][0]["element"]).atomic_number for site in sites])
    fractions = np.array([site["abc"] for site in sites], dtype=np.float64)
    return Crystal(numbers, fractions, np.array(record["lattice"]["matrix"], dtype=np.float64))


class Split(NamedTuple):
    """Crystals to train on, to choose weights by, and to compare with."""

    train: list[Crystal]
    validation: list[Crystal]
    test: list[Crystal]


def split(crystals: list[Crystal], seed: int) -> Split:
    """Return a fifth of the crystals for tests, a tenth for validation, and the rest."""
    order = np.random.default_rng(seed).permutation(len(crystals))
    test, validation = len(crystals) // 5, len(crystals) // 10
    shuffled = [crystals[i] for i in order]
    return Split(shuffled[test + validation :], shuffled[test : test + validation], shuffled[:test])
