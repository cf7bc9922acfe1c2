"""PDB and mmCIF files: what is read, what is refused, and that what is written comes back."""

from pathlib import Path

import pytest
import structure_texts as texts
import torch

from rfm.backbones import atoms_from_frames, frames_from_atoms
from rfm.datasets.structures import StructureError, read_chain, read_chains, structure_files, write_chain

gemmi = pytest.importorskip("gemmi")


def made(folder: Path, text: str, name: str = "made.pdb") -> Path:
    path = folder / name
    path.write_text(text + "END\n")
    return path


def test_a_plain_chain(tmp_path: Path) -> None:
    chain = read_chain(made(tmp_path, texts.chain(6)))
    assert (chain.name, chain.sequence, chain.breaks, chain.left_out) == ("made:A", "AGSVLT", (), ())
    assert torch.allclose(chain.atoms[2, 1], torch.tensor(texts.position(2, "CA")))


@pytest.mark.parametrize("suffix", ["cif", "pdb"])
def test_what_is_written_comes_back(tmp_path: Path, suffix: str) -> None:
    chain = read_chain(made(tmp_path, texts.chain(6)))
    atoms = atoms_from_frames(frames_from_atoms(chain.atoms))
    write_chain(tmp_path / f"out.{suffix}", atoms, chain.sequence)
    back = read_chain(tmp_path / f"out.{suffix}")
    assert back.sequence == chain.sequence
    assert float((back.atoms - atoms[:, :3]).abs().max()) <= 5.1e-4
    structure = gemmi.read_structure(str(tmp_path / f"out.{suffix}"))
    assert [a.name for a in structure[0]["A"][0]] == ["N", "CA", "C", "O"]
    structure.setup_entities()
    assert len(structure[0]["A"].get_polymer()) == len(chain)


def test_the_same_chain_from_mmcif(tmp_path: Path) -> None:
    path = made(tmp_path, texts.chain(5))
    gemmi.read_structure(str(path)).make_mmcif_document().write_file(str(tmp_path / "other.cif"))
    ours, theirs = read_chain(path), read_chain(tmp_path / "other.cif")
    assert torch.equal(ours.atoms, theirs.atoms)
    assert (ours.sequence, ours.numbers) == (theirs.sequence, theirs.numbers)


def test_a_missing_atom_is_a_break_and_is_named(tmp_path: Path) -> None:
    text = texts.residue(0, "ALA", 1) + texts.residue(1, "SER", 2, names=("N", "CA")) + texts.residue(2, "GLY", 3)
    chain = read_chain(made(tmp_path, text))
    assert chain.numbers == ("1", "3")
    assert chain.breaks == (1,)
    assert chain.left_out == ("SER 2 has no C",)


def test_insertion_codes_keep_their_place(tmp_path: Path) -> None:
    places = [(52, " "), (52, "A"), (52, "B"), (53, " ")]
    text = "".join(texts.residue(i, texts.AMINO[i], n, insertion=c) for i, (n, c) in enumerate(places))
    chain = read_chain(made(tmp_path, text))
    assert chain.numbers == ("52", "52A", "52B", "53")
    assert chain.breaks == ()


def test_the_first_of_several_models(tmp_path: Path) -> None:
    models = [f"MODEL     {m + 1:4d}\n{texts.chain(4, shift=5.0 * m)}ENDMDL\n" for m in range(2)]
    chains = read_chains(made(tmp_path, "".join(models)))
    assert [len(c) for c in chains] == [4]
    assert float(chains[0].atoms[..., 2].abs().max()) == 0


def test_the_alternate_location_of_highest_occupancy_for_all_atoms(tmp_path: Path) -> None:
    text = texts.residue(0, "ALA", 1)
    text += texts.residue(1, "GLY", 2, altloc="A", occupancy=0.4) + texts.residue(
        1, "GLY", 2, altloc="B", occupancy=0.6, shift=0.5
    )
    chain = read_chain(made(tmp_path, text + texts.residue(2, "SER", 3)))
    assert torch.allclose(chain.atoms[1, :, 2], torch.tensor(0.5))
    assert torch.allclose(chain.atoms[[0, 2], :, 2], torch.tensor(0.0))


def test_one_of_two_residues_at_a_place(tmp_path: Path) -> None:
    text = texts.residue(0, "ALA", 1)
    text += texts.residue(1, "SER", 2, altloc="A", occupancy=0.3) + texts.residue(
        1, "VAL", 2, altloc="B", occupancy=0.7
    )
    assert read_chain(made(tmp_path, text + texts.residue(2, "GLY", 3))).sequence == "AVG"


def test_selenomethionine_is_methionine_and_water_is_nothing(tmp_path: Path) -> None:
    text = texts.residue(0, "ALA", 1) + texts.residue(1, "MSE", 2, hetero=True) + texts.residue(2, "GLY", 3)
    text += "TER\n" + texts.atom(90, "O", "HOH", 100, (1, 2, 3), hetero=True)
    chain = read_chain(made(tmp_path, text))
    assert chain.sequence == "AMG"
    assert chain.breaks == ()


def test_an_unknown_residue_is_refused_by_name(tmp_path: Path) -> None:
    text = texts.residue(0, "ALA", 1) + texts.residue(1, "QQQ", 7) + texts.residue(2, "GLY", 8)
    with pytest.raises(StructureError, match=r"made\.pdb: chain A: residue QQQ 7 has a backbone"):
        read_chains(made(tmp_path, text))


def test_a_calcium_ion_is_no_carbon(tmp_path: Path) -> None:
    ion = "HETATM   99 CA    CA A 200       1.000   2.000   3.000  1.00  0.00          CA  \n"
    assert len(read_chain(made(tmp_path, texts.chain(4) + "TER\n" + ion))) == 4


def test_chains_are_told_apart(tmp_path: Path) -> None:
    path = made(tmp_path, texts.chain(4) + "TER\n" + texts.chain(5, chain="B") + "TER\n")
    assert len(read_chain(path, "B")) == 5
    with pytest.raises(StructureError, match="several chains; its protein chains are A, B"):
        read_chain(path)
    with pytest.raises(StructureError, match="no chain 'C'"):
        read_chain(path, "C")


def test_what_is_no_structure_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(StructureError, match="does not exist"):
        read_chains(tmp_path / "none.pdb")
    with pytest.raises(StructureError, match=r"cannot be read|no residue"):
        read_chains(made(tmp_path, "these are words\n", "words.cif"))
    with pytest.raises(StructureError, match="no residue has the atoms N, CA and C"):
        read_chains(made(tmp_path, texts.chain(4, names=("CA",)), "trace.pdb"))
    with pytest.raises(StructureError, match="holds no file that ends in"):
        structure_files(_empty(tmp_path))


def _empty(folder: Path) -> Path:
    empty = folder / "empty"
    empty.mkdir()
    return empty
