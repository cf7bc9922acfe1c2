"""Protein chains: the sets, their split, and the geometry of backbones."""

import math
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import structure_texts as texts
import torch

from manifolds import SE3
from rfm.datasets import DatasetError
from rfm.datasets.download import find
from rfm.proteins import backbones, chain_sets, complexes
from rfm.training.chain_batches import length_buckets, padding

needs_data = pytest.mark.skipif("RFM_DATA" not in os.environ, reason="RFM_DATA names no folder of data sets")
needs_cgdms = pytest.mark.skipif(find_spec("cgdms") is None, reason="the package cgdms is not installed")


@pytest.fixture(scope="module")
def chains() -> chain_sets.Chains:
    return chain_sets.backbones()


def motion(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = SE3().rotations.random_uniform(generator=generator, dtype=torch.float64)
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3], pose[:3, 3] = x, torch.randn(3, generator=generator, dtype=torch.float64) * 20
    return pose


# Geometry.


def test_frames_are_poses_that_turn_with_the_atoms() -> None:
    atoms = torch.randn(7, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    frames, pose = backbones.frames_from_atoms(atoms), motion()
    SE3().check_point(frames)
    turned = SE3().act(pose, atoms)
    assert torch.allclose(backbones.frames_from_atoms(turned), pose @ frames, atol=1e-12)
    # Algorithm 21: C on the first axis, N in the upper half of the plane of the first two.
    local = SE3().act(SE3().inverse(frames)[:, None], atoms)
    assert bool((local[:, 2, 0] > 0).all())
    assert torch.allclose(local[:, 2, 1:], torch.zeros(7, 2, dtype=torch.float64), atol=1e-12)
    assert bool((local[:, 0, 1] > 0).all())
    assert torch.allclose(local[:, 0, 2], torch.zeros(7, dtype=torch.float64), atol=1e-12)


def test_ideal_atoms_have_the_stated_lengths_and_angles() -> None:
    frames = backbones.frames_from_atoms(
        torch.randn(6, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    )
    n, ca, c, o = backbones.atoms_from_frames(frames).unbind(-2)

    def angle(a: torch.Tensor, b: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        u, v = torch.nn.functional.normalize(a - b, dim=-1), torch.nn.functional.normalize(d - b, dim=-1)
        return torch.acos((u * v).sum(-1))

    for found, wanted in (
        ((n - ca).norm(dim=-1), backbones.N_CA),
        ((c - ca).norm(dim=-1), backbones.CA_C),
        ((o - c).norm(dim=-1), backbones.C_O),
        (angle(n, ca, c), backbones.N_CA_C),
        (angle(ca, c, o), backbones.CA_C_O),
    ):
        assert torch.allclose(found, torch.full_like(found, wanted))
    # O is in the plane of CA, C and the next N, on the other side.
    planar = torch.linalg.det(torch.stack([ca[:-1] - c[:-1], n[1:] - c[:-1], o[:-1] - c[:-1]], 1))
    assert torch.allclose(planar, torch.zeros_like(planar), atol=1e-9)
    assert torch.allclose(
        backbones.dihedral(n[1:], ca[:-1], c[:-1], o[:-1]).abs(), torch.full((5,), math.pi, dtype=torch.float64)
    )
    last = backbones.dihedral(n[-1], ca[-1], c[-1], o[-1])
    assert torch.allclose(last, torch.tensor(backbones.LAST_PSI - math.pi, dtype=torch.float64))


def test_torsions_have_the_sign_of_the_iupac() -> None:
    """A quarter turn clockwise, seen from the near side, is positive."""
    a, b, c = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 0, -1]]).unbind(0)
    assert backbones.dihedral(a, b, c, torch.tensor([0.0, -1, -1])) == pytest.approx(math.pi / 2)


def helix(count: int) -> torch.Tensor:
    turn = torch.arange(count) * math.radians(100)
    return torch.stack([2.3 * turn.cos(), 2.3 * turn.sin(), 1.5 * torch.arange(count)], -1)


def test_helices_and_paired_strands() -> None:
    found = backbones.secondary_structure(helix(12))
    assert found.tolist() == [0, *[backbones.HELIX] * 10, 0]
    index = torch.arange(8.0)
    strand = torch.stack([3.4 * index, 0.9 * (-1) ** index, torch.zeros(8)], -1)
    assert backbones.secondary_structure(strand).tolist() == [0] * 8  # a strand without a partner is none
    back = strand.flip(0) + torch.tensor([0.0, 0, 4.8])
    sheet = backbones.secondary_structure(torch.cat([strand, back]))
    # The residues at the turn are too near along the chain to be partners.
    assert sheet[1:6].tolist() == [backbones.STRAND] * 5
    assert sheet[10:15].tolist() == [backbones.STRAND] * 5


# Data.


@needs_data
def test_the_real_chains_are_what_they_are_said_to_be(chains: chain_sets.Chains) -> None:
    assert len(chains) == 1788
    assert chains.left_out == {"length": 717, "break": 83}
    assert (int(chains.lengths.min()), int(chains.lengths.max())) == (40, 256)
    bonds = torch.cat([(c[1:, 0] - c[:-1, 2]).norm(dim=-1) for c in map(chains.chain, range(len(chains)))])
    assert float(bonds.max()) < chain_sets.PEPTIDE_BOND
    frames = chains.frames()
    SE3().check_point(frames)
    first = frames[: int(chains.lengths[0]), :3, 3]
    assert float(first.mean(0).norm()) < 1e-4


@needs_data
def test_clusters_never_cross_the_split(chains: chain_sets.Chains) -> None:
    split = chains.split()
    parts = [set(chains.clusters[rows].tolist()) for rows in split]
    assert len(set.union(*parts)) == sum(map(len, parts))
    assert sum(map(len, split)) == len(chains)
    assert len(split.test) == pytest.approx(179, abs=20)


@needs_data
def test_helices_and_strands_agree_with_those_stored_with_the_chains(chains: chain_sets.Chains) -> None:
    with np.load(find(chain_sets._FILE, chain_sets._SHA256)) as file:
        stored = {name: i for i, name in enumerate(file["id"].tolist())}
        theirs = np.stack([file["helix_fraction"], file["strand_fraction"]])
    some = range(0, len(chains), 6)
    kinds = [backbones.secondary_structure(chains.chain(i)[:, 1]) for i in some]
    ours = np.array([[float((k == kind).double().mean()) for k in kinds] for kind in (1, 2)])
    theirs = theirs[:, [stored[chains.names[i]] for i in some]]
    helix, strand = (np.corrcoef(a, b)[0, 1] for a, b in zip(ours, theirs, strict=True))
    assert helix > 0.97
    assert strand > 0.9
    assert np.abs(ours - theirs).mean() < 0.07


@needs_data
def test_batches_of_the_real_chains_pad_little(chains: chain_sets.Chains) -> None:
    assert len(length_buckets(chains.lengths)) == 13
    assert padding(chains.lengths) < 0.07


@needs_data
def test_ideal_atoms_stand_where_real_ones_do(chains: chain_sets.Chains) -> None:
    """Bond angles vary by some degrees between residues: a tenth of an Angstrom at N."""
    atoms = chains.chain(3)
    ideal = backbones.atoms_from_frames(backbones.frames_from_atoms(atoms))[:, :3]
    off = (ideal - atoms).norm(dim=-1)
    assert float(off[:, 1].max()) < 1e-4
    assert float(off.mean()) < 0.1


@needs_data
def test_real_torsions_lie_in_the_allowed_regions(chains: chain_sets.Chains) -> None:
    angles = torch.cat([backbones.torsions(chains.chain(i))[1:-1] for i in range(100)]).rad2deg()
    assert float((angles[:, 2].abs() > 150).double().mean()) > 0.98  # trans
    assert float((angles[:, 0] < 0).double().mean()) > 0.9


@needs_cgdms
def test_the_packaged_chains() -> None:
    chains = chain_sets.cgdms()
    assert len(chains) > 1500
    assert int(chains.lengths.max()) <= 100
    ca = chains.chain(0)[:, 1]
    assert float((ca[1:] - ca[:-1]).norm(dim=-1).median()) == pytest.approx(3.8, abs=0.05)


def test_a_folder_of_files_leaves_out_what_is_broken(tmp_path: Path) -> None:
    pytest.importorskip("gemmi")
    (tmp_path / "whole.pdb").write_text(texts.chain(45) + "END\n")
    (tmp_path / "short.pdb").write_text(texts.chain(8) + "END\n")
    broken = texts.chain(20) + "".join(texts.residue(i, "ALA", i + 1) for i in range(22, 45))
    (tmp_path / "broken.pdb").write_text(broken + "END\n")
    found = chain_sets.folder(tmp_path)
    assert found.names == ("whole:A",)
    assert found.left_out == {"length": 1, "break": 1}
    (tmp_path / "whole.pdb").unlink()
    with pytest.raises(DatasetError, match="none of 2 chains has 40 to 256 residues and no break"):
        chain_sets.folder(tmp_path)


def test_a_bad_file_is_named_and_left_out_of_a_folder(tmp_path: Path) -> None:
    pytest.importorskip("gemmi")
    (tmp_path / "whole.pdb").write_text(texts.chain(45) + texts.atom(90, "O", "HOH", 99, (1, 2, 3), hetero=True))
    (tmp_path / "empty.cif").write_text("")
    (tmp_path / "wrong.pdb").write_text(texts.chain(45).replace("   0.830", "     nan", 1))
    (tmp_path / "ragged.pdb").write_text(texts.chain(45) + texts.residue(45, "SER", 46, names=("N", "CA")))
    found = chain_sets.folder(tmp_path)
    assert found.names == ("ragged:A", "whole:A")
    assert found.left_out == {"length": 0, "break": 0, "file that cannot be used": 2}
    said = "\n".join(found.notes)
    for words in ("empty.cif: the file is empty", "wrong.pdb, line 2: 'nan'", "ragged:A: SER 46 has no C", "1 waters"):
        assert words in said
    for name in ("whole", "ragged"):
        (tmp_path / f"{name}.pdb").unlink()
    with pytest.raises(DatasetError, match="none of 2 files can be used"):
        chain_sets.folder(tmp_path)


def test_an_unknown_ligand_with_a_backbone_does_not_cost_its_file(tmp_path: Path) -> None:
    pytest.importorskip("gemmi")
    text = texts.chain(45) + texts.residue(60, "QQQ", 99, hetero=True)
    (tmp_path / "a.pdb").write_text(text)
    found = chain_sets.folder(tmp_path)
    assert found.names == ("a:A",)
    assert found.left_out == {"length": 0, "break": 0}
    assert "1 ligands QQQ, which have a backbone" in "\n".join(found.notes)


def dimer(first: int, second: int, shift: float) -> str:
    return texts.chain(first) + "TER\n" + texts.chain(second, chain="B", shift=shift)


def test_chains_of_a_file_or_of_a_listed_cluster_stay_together(tmp_path: Path) -> None:
    pytest.importorskip("gemmi")
    for name in ("one", "two", "three"):
        (tmp_path / f"{name}.pdb").write_text(dimer(45, 45, 12.0))
    assert chain_sets.folder(tmp_path).names == ("one:A", "one:B", "three:A", "three:B", "two:A", "two:B")
    assert chain_sets.folder(tmp_path).clusters.tolist() == [0, 0, 1, 1, 2, 2]
    table = tmp_path / "clusters.tsv"
    table.write_text("# representative, member\none_A\tone_A\none_A\ttwo\nx\tone:B\n\nx\tthree\n")
    assert chain_sets.folder(tmp_path, groups=table).clusters.tolist() == [0, 1, 1, 1, 0, 0]
    for text, message in (
        ("a one\n", "names no cluster for three:A, three:B, two:A, two:B"),
        ("a one\nb one\n", "line 2: one is in the clusters a and b"),
        ("a b c\n", "line 1: has 3 entries"),
    ):
        table.write_text(text)
        with pytest.raises(DatasetError, match=message):
            chain_sets.folder(tmp_path, groups=table)
    with pytest.raises(DatasetError, match="does not exist"):
        chain_sets.folder(tmp_path, groups=tmp_path / "none")


def test_complexes_keep_all_chains_as_they_lie(tmp_path: Path) -> None:
    pytest.importorskip("gemmi")
    (tmp_path / "pair.pdb").write_text(dimer(5, 4, 6.0))
    (tmp_path / "crossed.pdb").write_text(dimer(5, 4, 2.0))
    (tmp_path / "bad.pdb").write_text("")
    (crossed, pair), faults = complexes.read_complexes(tmp_path)
    assert len(faults) == 1
    assert "bad.pdb" in faults[0]
    assert (pair.name, [c.name for c in pair.chains], len(pair)) == ("pair", ["pair:A", "pair:B"], 9)
    assert pair.atoms.shape == (9, 3, 3)
    assert pair.chain_index.tolist() == [0] * 5 + [1] * 4
    # Sheets 6 Angstrom apart, residues 3.8: within 8 are those opposite, and their neighbours at 7.1.
    opposite = {(i, 5 + j) for i in range(5) for j in range(4) if abs(i - j) <= 1}
    assert {tuple(one) for one in pair.between_chains().tolist()} == opposite
    assert pair.interface.tolist() == list(range(9))
    assert (pair.clashes, crossed.clashes) == (0, 4)


def test_a_set_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RFM_DATA", str(tmp_path))
    monkeypatch.setenv("RFM_CACHE", str(tmp_path))
    with pytest.raises(DatasetError, match=r"protein/backbones\.npz is not there"):
        chain_sets.backbones()
    (tmp_path / "protein").mkdir()
    (tmp_path / "protein" / "backbones.npz").write_bytes(b"other")
    with pytest.raises(DatasetError, match="not the published file"):
        chain_sets.backbones()
