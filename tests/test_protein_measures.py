"""Hydrogen bonds, packing and fragments: beside ideal structures, stored shares, and sums written out one by one."""

import itertools
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from manifolds import SO3
from rfm.proteins import COIL, HELIX, STRAND, atoms_from_frames, chain_sets, frames_from_atoms
from rfm.proteins.backbones import oxygens
from rfm.proteins.fragments import FragmentLibrary, contacts, stretches
from rfm.proteins.hydrogen_bonds import bonds_per_residue, dssp, hydrogen_bond_energies, hydrogen_bonds
from rfm.proteins.packing import contacts_per_residue, coordination, relative_contact_order
from rfm.proteins.superposition import rmsd

needs_data = pytest.mark.skipif("RFM_DATA" not in os.environ, reason="RFM_DATA names no folder of data sets")


def built(phi: float, psi: float, count: int) -> Tensor:
    """Return N, CA, C, O of a chain of ideal bonds with the same torsions everywhere, degrees: each atom from three."""
    bonds = {"N": (1.336, 117.2, psi), "CA": (1.459, 121.7, 180.0), "C": (1.525, 111.0, phi)}
    placed = [torch.tensor(p, dtype=torch.float64) for p in ((0.0, 1.4, 0.0), (0.0, 0.0, 0.0), (1.5, 0.0, 0.0))]
    for name in itertools.islice(itertools.cycle(("N", "CA", "C")), 3 * count - 3):
        length, angle, torsion = bonds[name]
        a, b, c = placed[-3:]
        axis = (c - b) / torch.linalg.vector_norm(c - b)
        normal = torch.linalg.cross(b - a, axis)
        normal /= torch.linalg.vector_norm(normal)
        aside = torch.linalg.cross(normal, axis)
        bend, turn = math.radians(180 - angle), math.radians(torsion)
        step = math.cos(bend) * axis + math.sin(bend) * (math.cos(turn) * aside + math.sin(turn) * normal)
        placed.append(c + length * step)
    atoms = torch.stack(placed).reshape(count, 3, 3)
    return torch.cat([atoms, oxygens(atoms)[:, None]], dim=1)


def test_energies_are_the_sums_of_four_charges() -> None:
    torch.manual_seed(0)
    atoms = built(-65.0, -40.0, 9)
    energy = hydrogen_bond_energies(atoms)
    for i, j in itertools.product(range(9), range(9)):
        if j in (0, i, i + 1):
            assert energy[i, j] == 0
            continue
        back = atoms[j - 1, 2] - atoms[j - 1, 3]
        h = atoms[j, 0] + 1.01 * back / back.norm()
        n, c, o = atoms[j, 0], atoms[i, 2], atoms[i, 3]
        charge = 0.42 * 0.20 * 332.0
        signs = ((o, n, 1), (c, h, 1), (o, h, -1), (c, n, -1))
        expected = max(-9.9, sum(sign * charge / float((p - q).norm()) for p, q, sign in signs))
        assert float(energy[i, j]) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("phi", "psi", "turn"), [(-62.0, -41.0, 4), (-57.0, -30.0, 3), (-65.0, -58.0, 5)])
def test_ideal_helices_bind_where_their_turns_are(phi: float, psi: float, turn: int) -> None:
    atoms = built(phi, psi, 16)
    bound = hydrogen_bonds(atoms)
    assert bool(bound.diagonal(turn)[:-1].all())
    structure = dssp(atoms)
    assert structure[turn + 1 : -turn - 1].tolist() == [HELIX] * (16 - 2 * turn - 2)
    assert int(structure[0]) == COIL
    assert bonds_per_residue(atoms) > 0.6
    prolines = torch.zeros(16, dtype=torch.bool)
    prolines[8] = True
    assert not bool(hydrogen_bonds(atoms, prolines)[:, 8].any())


def test_an_extended_chain_alone_is_coil() -> None:
    assert dssp(built(-120.0, 130.0, 12)).tolist() == [COIL] * 12
    assert bonds_per_residue(built(-120.0, 130.0, 12)) == 0.0


def by_rules(bound: np.ndarray) -> list[int]:
    """Return helices and strands by the words of the paper, one pair at a time."""
    n = len(bound)

    def b(i: int, j: int) -> bool:
        return 0 <= i < n and 0 <= j < n and bool(bound[i, j])

    kinds: dict[tuple[int, int], set[str]] = {}
    for i, j in itertools.product(range(n), range(n)):
        if abs(i - j) < 3:
            continue
        found = set()
        if (b(i - 1, j) and b(j, i + 1)) or (b(j - 1, i) and b(i, j + 1)):
            found.add("parallel")
        if (b(i, j) and b(j, i)) or (b(i - 1, j + 1) and b(j - 1, i + 1)):
            found.add("antiparallel")
        kinds[i, j] = found
    structure = [COIL] * n
    for (i, j), found in kinds.items():
        for kind, step in (("parallel", 1), ("antiparallel", -1)):
            along = ((i + 1, j + step), (i - 1, j - step))
            if kind in found and any(kind in kinds.get(pair, set()) for pair in along):
                structure[i] = STRAND
    for turn in (3, 4, 5):
        for i in range(1, n):
            if b(i - 1, i - 1 + turn) and b(i, i + turn):
                structure[i : i + turn] = [HELIX] * turn
    return structure


@needs_data
def test_helices_and_strands_follow_the_rules_on_real_chains() -> None:
    chains = chain_sets.backbones()
    for i in range(0, 1788, 180):
        atoms = chains.chain(i)
        assert dssp(atoms).tolist() == by_rules(hydrogen_bonds(atoms).numpy())


@needs_data
def test_helices_and_strands_agree_with_those_stored_with_the_chains() -> None:
    chains = chain_sets.backbones()
    with np.load(Path(os.environ["RFM_DATA"]) / "protein" / "backbones.npz") as file:
        row = {name: i for i, name in enumerate(file["id"].tolist())}
        stored = np.stack([file["helix_fraction"], file["strand_fraction"]], 1)
    rows = range(0, 1788, 18)
    structures = [dssp(chains.chain(i)) for i in rows]
    own = np.array([[float((s == kind).double().mean()) for kind in (HELIX, STRAND)] for s in structures])
    there = stored[[row[chains.names[i]] for i in rows]]
    for kind, least, off in ((0, 0.97, 0.05), (1, 0.88, 0.1)):
        assert np.corrcoef(own[:, kind], there[:, kind])[0, 1] > least
        assert np.abs(own[:, kind] - there[:, kind]).mean() < off
    # Frames keep the bonds of the files' own atoms, on the whole.
    rebuilt = [atoms_from_frames(frames_from_atoms(chains.chain(i))) for i in rows]
    a, b = (np.mean([bonds_per_residue(x) for x in xs]) for xs in (rebuilt, [chains.chain(i) for i in rows]))
    assert abs(a - b) < 0.03


def test_packing_of_points_that_can_be_counted() -> None:
    line = torch.stack([3.8 * torch.arange(8), torch.zeros(8), torch.zeros(8)], -1)
    assert coordination(line).tolist() == [2, 3, 4, 4, 4, 4, 3, 2]
    assert relative_contact_order(line) == 0.0
    hairpin = torch.cat([line, line.flip(0) + torch.tensor([0.0, 5.0, 0.0])])
    pairs = [(i, j) for i in range(16) for j in range(i + 3, 16) if float((hairpin[i] - hairpin[j]).norm()) < 8]
    assert relative_contact_order(hairpin) == pytest.approx(np.mean([j - i for i, j in pairs]) / 16)
    assert contacts_per_residue(hairpin, apart=12) == sum(j - i >= 12 for i, j in pairs) / 16


def test_rmsd_is_that_of_the_best_motion_and_knows_hands() -> None:
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(5, 9, 3, generator=generator, dtype=torch.float64)
    turn = SO3().random_uniform(5, generator=generator, dtype=torch.float64)
    moved = a @ turn.mT + torch.randn(5, 1, 3, generator=generator, dtype=torch.float64)
    assert float(rmsd(a, moved).max()) < 1e-6
    assert float(rmsd(a, -a).min()) > 0.3
    from scipy.spatial.transform import Rotation

    b = torch.randn(5, 9, 3, generator=generator, dtype=torch.float64)
    for i in range(5):
        one, two = ((x[i] - x[i].mean(0)).numpy() for x in (a, b))
        found = Rotation.align_vectors(one, two)[1] / math.sqrt(9)
        assert float(rmsd(a, b)[i]) == pytest.approx(found, rel=1e-6)


@needs_data
@pytest.mark.parametrize(("pieces", "typical", "least"), [(stretches, 0.7, 1.2), (contacts, 1.1, 1.6)])
def test_fragments_of_real_chains_recur_and_their_mirror_images_do_not(
    pieces: object, typical: float, least: float
) -> None:
    chains = chain_sets.backbones()
    split = chains.split()
    library = FragmentLibrary([chains.chain(i) for i in split.train[:400].tolist()], pieces, most=8000)  # type: ignore[arg-type]
    known = chains.chain(int(split.train[0]))
    everything = FragmentLibrary([known], pieces)  # type: ignore[arg-type]
    assert float(everything.nearest(known).max()) < 1e-3
    held_out = [chains.chain(i) for i in split.test[:12].tolist()]
    assert float(torch.cat([library.nearest(a) for a in held_out]).mean()) < typical
    assert float(torch.cat([library.nearest(-a) for a in held_out]).mean()) > least
    assert len(library.nearest(known[:4])) == 0
    with pytest.raises(ValueError, match="no such pieces"):
        FragmentLibrary([known[:4]], pieces)  # type: ignore[arg-type]
