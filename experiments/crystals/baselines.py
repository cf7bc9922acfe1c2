"""What needs no flow: parts of training crystals put together at random, and training crystals shaken."""

from collections.abc import Sequence

import numpy as np

from experiments.crystals.data import Crystal

_SHAKEN, _STRAINED = 0.1, 0.02
"""Standard deviations of an atom's move, in angstroms in each direction, and of an edge's relative change."""


def shuffled(train: Sequence[Crystal], count: int, seed: int) -> list[Crystal]:
    """Return crystals whose types, places and cell are those of three training crystals of as many atoms."""
    rng, made = np.random.default_rng(seed), []
    for _ in range(count):
        k = len(train[int(rng.integers(len(train)))].numbers)
        same = [crystal for crystal in train if len(crystal.numbers) == k]
        types, places, cell = (same[int(rng.integers(len(same)))] for _ in range(3))
        made.append(Crystal(rng.permutation(types.numbers), places.fractions, cell.lattice))
    return made


def scattered(train: Sequence[Crystal], count: int, seed: int) -> list[Crystal]:
    """Return training crystals whose atoms are anywhere in their cell."""
    rng = np.random.default_rng(seed)
    picked = [train[i] for i in rng.integers(len(train), size=count)]
    return [Crystal(c.numbers, rng.random(c.fractions.shape), c.lattice) for c in picked]


def shaken(train: Sequence[Crystal], count: int, seed: int) -> list[Crystal]:
    """Return training crystals whose atoms are moved by 0.1 angstroms and whose edges by 2 %."""
    rng, made = np.random.default_rng(seed), []
    for i in rng.integers(len(train), size=count):
        c = train[i]
        moves = _SHAKEN * rng.standard_normal(c.fractions.shape) @ np.linalg.inv(c.lattice)
        strain = np.eye(3) + _STRAINED * rng.standard_normal((3, 3))
        made.append(Crystal(c.numbers, c.fractions + moves, c.lattice @ strain))
    return made
