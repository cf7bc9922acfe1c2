"""PDB and mmCIF files: what is read, what is refused, and that what is written comes back."""

import gzip
from pathlib import Path

import pytest
import structure_texts as texts
import torch

from rfm.proteins.backbones import atoms_from_frames, frames_from_atoms
from rfm.proteins.structures import (
    StructureError,
    read_backbones,
    read_chain,
    read_chains,
    structure_files,
    write_chain,
)

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
    assert structure[0]["A"][0][1].element.name == "C"
    structure.setup_entities()
    assert len(structure[0]["A"].get_polymer()) == len(chain)


def test_what_is_written_says_its_sequence_and_no_cell(tmp_path: Path) -> None:
    chain = read_chain(made(tmp_path, texts.chain(6)))
    for suffix in ("pdb", "cif"):
        write_chain(tmp_path / f"out.{suffix}", chain.atoms, chain.sequence)
    text = (tmp_path / "out.pdb").read_text()
    assert "CRYST1" not in text
    assert "SEQRES   1 A    6  ALA GLY SER VAL LEU THR " in text
    block = gemmi.cif.read(str(tmp_path / "out.cif")).sole_block()
    assert not block.get_mmcif_category("_cell.")
    atoms = block.get_mmcif_category("_atom_site.")
    assert atoms["label_seq_id"] == [str(i + 1) for i in range(6) for _ in range(3)]
    assert all(atoms["label_asym_id"])
    assert all(atoms["label_entity_id"])
    assert block.get_mmcif_category("_entity_poly_seq.")["mon_id"] == ["ALA", "GLY", "SER", "VAL", "LEU", "THR"]


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


def test_an_unknown_hetero_residue_is_x_in_the_chain_and_a_ligand_beside_it(tmp_path: Path) -> None:
    inside = texts.residue(0, "ALA", 1) + texts.residue(1, "QQQ", 2, hetero=True) + texts.residue(2, "GLY", 3)
    beside = texts.residue(9, "ZZZ", 90, hetero=True)
    for text in (f"{inside}{beside}TER\n", f"{inside}TER\n{beside}"):
        found = read_backbones(made(tmp_path, text))
        [chain] = found.chains
        assert (chain.sequence, chain.unknown, chain.breaks) == ("AXG", ("QQQ 2",), ())
        assert sum(found.left_out.values()) == 1


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


def residues(numbers: list[int], shift: float = 0.0, **more: object) -> str:
    return "".join(texts.residue(i, texts.AMINO[i], n, shift=shift, **more) for i, n in enumerate(numbers))


TWO = {
    "TER": residues([1, 2, 3]) + "TER\n" + residues([1, 2, 3], 20),
    "TER, numbers that go on": residues([1, 2, 3]) + "TER\n" + residues([4, 5, 6], 20),
    "numbers that begin anew": residues([1, 2, 3]) + residues([1, 2, 3], 20),
    "numbers that begin anew, blank": residues([1, 2, 3], chain=" ") + residues([1, 2, 3], 20, chain=" "),
    "TER, blank": residues([1, 2, 3], chain=" ") + "TER\n" + residues([1, 2, 3], 20, chain=" "),
    "another name": residues([1, 2, 3]) + "TER\n" + residues([1, 2, 3], 20, chain="B"),
    "two letters": residues([1, 2, 3]).replace(" A ", "BA ") + "TER\n" + residues([1, 2, 3], 20),
}


@pytest.mark.parametrize("text", TWO.values(), ids=TWO)
def test_two_chains_are_two_whatever_tells_them_apart(tmp_path: Path, text: str) -> None:
    chains = read_chains(made(tmp_path, text))
    assert [(chain.sequence, chain.breaks) for chain in chains] == [("AGS", ())] * 2
    assert len({chain.name for chain in chains}) == 2
    assert [float(chain.atoms[0, 0, 2]) for chain in chains] == [0, 20]


def test_ter_ends_its_own_chain_alone(tmp_path: Path) -> None:
    first, last = ("".join(texts.residue(i, texts.AMINO[i], i + 1) for i in part) for part in (range(3), range(3, 6)))
    chains = read_chains(made(tmp_path, first + residues([1, 2, 3], 20, chain="B") + "TER\n" + last + "TER\n"))
    assert [(c.name, c.sequence, c.breaks) for c in chains] == [("made:A", "AGSVLT", ()), ("made:B", "AGS", ())]


def test_chains_that_begin_at_other_numbers_are_told_apart(tmp_path: Path) -> None:
    text = "".join(residues(numbers, 20.0 * k) for k, numbers in enumerate(([3, 4, 5], [1, 2, 3, 4], [2, 3], [1, 2])))
    chains = read_chains(made(tmp_path, text))
    assert [c.numbers for c in chains] == [("3", "4", "5"), ("1", "2", "3", "4"), ("2", "3"), ("1", "2")]
    assert all(c.breaks == () for c in chains)


@pytest.mark.parametrize(
    "numbers", [[51, 52, 52, 52, 53], [-1, 0, 1, 2, 3], [9998, 9999, 0, 1, 2], [7, 8, 9, 1, 2], [5, 5, 5, 5, 5]]
)
@pytest.mark.parametrize("one_name", [True, False])
def test_bonded_residues_are_one_chain_whatever_their_numbers(
    tmp_path: Path, numbers: list[int], one_name: bool
) -> None:
    text = "".join(texts.residue(i, "SER" if one_name else texts.AMINO[i], n) for i, n in enumerate(numbers))
    chain = read_chain(made(tmp_path, text))
    assert chain.numbers == tuple(map(str, numbers))
    assert chain.breaks == ()


def test_numbers_beyond_four_digits(tmp_path: Path) -> None:
    text = residues([9998, 9999]) + texts.residue(2, "SER", 7777).replace("A7777", "AA000")
    text += texts.residue(3, "VAL", 7777).replace("A7777 ", "A10001")
    assert read_chain(made(tmp_path, text)).numbers == ("9998", "9999", "10000", "10001")
    with pytest.raises(StructureError, match=r"line 1: '\*\*\*\*' is no residue number"):
        read_chains(made(tmp_path, residues([7777]).replace("A7777", "A****")))


FORCE_FIELDS = {
    "HIS": ["HSD", "HSE", "HSP", "HID", "HIE", "HIP", "HISD", "HISE"],
    "CYS": ["CYX", "CYM", "CYSH"],
    "ASP": ["ASH", "ASPH"],
    "GLU": ["GLH", "GLUH"],
    "LYS": ["LYN", "LYSH"],
    "ALA": ["NALA", "CALA"],
}


@pytest.mark.parametrize(("parent", "name"), [(p, n) for p, names in FORCE_FIELDS.items() for n in names])
def test_names_of_force_fields_are_amino_acids(tmp_path: Path, parent: str, name: str) -> None:
    middle = texts.residue(1, "QQQ", 2).replace("QQQ ", f"{name:4s}")
    chain = read_chain(made(tmp_path, texts.residue(0, "ALA", 1) + middle + texts.residue(2, "GLY", 3)))
    assert chain.sequence == f"A{gemmi.find_tabulated_residue(parent).one_letter_code}G"


def test_what_the_file_says_that_a_residue_is_made_from(tmp_path: Path) -> None:
    text = "MODRES 1ABC QQQ A    2  MET  MADE UP\n" + residues([1])
    chain = read_chain(made(tmp_path, text + texts.residue(1, "QQQ", 2, hetero=True) + texts.residue(2, "GLY", 3)))
    assert chain.sequence == "AMG"


@pytest.mark.parametrize("bad", ["     nan", "********", "     inf", "        ", "   1,234"])
def test_what_is_no_coordinate_is_refused_by_line(tmp_path: Path, bad: str) -> None:
    text = residues([1, 2, 3]).replace("   0.830", bad, 1)
    with pytest.raises(StructureError, match=r"line 2: .* is no coordinate \(atom CA of ALA 1, chain A\)"):
        read_chains(made(tmp_path, text))
    # What is not read may be wrong.
    water = texts.atom(90, "O", "HOH", 100, (1, 0.83, 3), hetero=True).replace("   0.830", bad)
    assert len(read_chain(made(tmp_path, residues([1, 2, 3]) + water))) == 3


def test_a_line_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    lines = residues([1, 2, 3]).splitlines()
    with pytest.raises(StructureError, match=r"line 9: nothing is no coordinate"):
        read_chains(made(tmp_path, "\n".join([*lines[:-1], lines[-1][:52]]) + "\n"))
    # Occupancy and what comes after it are not needed.
    assert len(read_chain(made(tmp_path, "".join(line[:54] + "\n" for line in lines)))) == 3


@pytest.mark.parametrize("name", ["empty.pdb", "empty.cif", "empty.cif.gz"])
@pytest.mark.parametrize("content", [b"", b"\n", b"data_nothing\n"])
def test_a_file_without_atoms_is_refused_in_a_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StructureError, match=r"is empty|lists no atoms|no residue has"):
        read_chains(tmp_path / name)


def test_line_ends_and_compression_make_no_difference(tmp_path: Path) -> None:
    text = residues([1, 2, 3])
    (tmp_path / "a.pdb").write_bytes(text.replace("\n", "\r\n").encode())
    (tmp_path / "b.pdb.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "c.pdb.gz").write_bytes(text.encode())
    for name in ("a.pdb", "b.pdb.gz", "c.pdb.gz"):
        assert read_chain(tmp_path / name).sequence == "AGS"
    (tmp_path / "b.pdb.gz").write_bytes(gzip.compress(text.encode())[:50])
    with pytest.raises(StructureError, match="cannot be read as a structure"):
        read_chains(tmp_path / "b.pdb.gz")


def test_atoms_and_residues_may_stand_in_any_order(tmp_path: Path) -> None:
    by_atom = "".join(texts.residue(i, texts.AMINO[i], i + 1, names=(n,)) for n in ("CA", "C", "N") for i in range(4))
    assert read_chain(made(tmp_path, by_atom)).sequence == "AGSV"
    late = texts.residue(0, "ALA", 1) + texts.residue(2, "GLY", 3) + "TER\n" + texts.residue(1, "MSE", 2, hetero=True)
    found = read_backbones(made(tmp_path, late + texts.residue(1, "GLU", 301, hetero=True, shift=30)))
    assert [(c.sequence, c.breaks) for c in found.chains] == [("AMG", ())]
    assert found.left_out == {"ligands and ions": 1}


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    first = residues([1, 2]) + texts.residue(2, "SER", 3) + texts.residue(2, "SER", 3, names=("CA",))
    first += texts.residue(3, "VAL", 4, names=("CA",)) + "TER\n" + residues([1, 2], 20, chain="B", names=("CA",))
    first += texts.residue(5, "DA", 9, chain="C") + texts.atom(90, "O", "HOH", 100, (1, 2, 3), hetero=True)
    first += texts.atom(91, "C1", "NAG", 101, (1, 2, 3), hetero=True)
    second = f"ENDMDL\nMODEL        2\n{residues([1, 2])}ENDMDL\n"
    found = read_backbones(made(tmp_path, "MODEL        1\n" + first + second))
    assert [(c.sequence, c.left_out) for c in found.chains] == [("AGS", ("VAL 4 has no N or C",))]
    assert found.left_out == {
        "residues without a backbone": 3,
        "nucleotides": 1,
        "waters": 1,
        "ligands and ions": 1,
        "repeated atoms": 1,
        "further models": 1,
    }


def test_atoms_that_were_never_placed_are_no_backbone(tmp_path: Path) -> None:
    unplaced = "".join(texts.atom(i, name, "SER", 2, (0, 0, 0)) for i, name in enumerate(("N", "CA", "C")))
    chain = read_chain(made(tmp_path, residues([1]) + unplaced + texts.residue(2, "GLY", 3)))
    assert (chain.sequence, chain.breaks) == ("AG", (1,))
    assert chain.left_out == ("SER 2 has N and CA 0.0 Angstrom apart",)


COLUMNS = (
    "group_PDB",
    "id",
    "type_symbol",
    "label_atom_id",
    "label_alt_id",
    "label_comp_id",
    "label_asym_id",
    "label_seq_id",
    "pdbx_PDB_ins_code",
    "Cartn_x",
    "Cartn_y",
    "Cartn_z",
    "occupancy",
    "auth_seq_id",
    "auth_asym_id",
)


def mmcif(asym: str, auth: str, without: tuple[str, ...] = ()) -> str:
    """Two chains of three residues, by what the archive and the authors call them, less some columns."""
    kept = [name for name in COLUMNS if not name.startswith(without)] if without else COLUMNS
    rows = []
    for k in range(2):
        for i in range(3):
            for atom in ("N", "CA", "C"):
                xyz = [f"{v + 20 * k * (axis == 2)}" for axis, v in enumerate(texts.position(i, atom))]
                label = ["ATOM", "1", atom[0], atom, ".", texts.AMINO[i], asym[k], str(i + 1), "?"]
                cells = dict(zip(COLUMNS, [*label, *xyz, "?", str(i + 1), auth[k]], strict=True))
                rows.append(" ".join(cells[name] for name in kept) + "\n")
    return "data_x\nloop_\n" + "".join(f"_atom_site.{name}\n" for name in kept) + "".join(rows)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (mmcif("AB", "AB"), ["A", "B"]),
        (mmcif("AB", "HH"), ["H", "H.2"]),
        (mmcif("AB", "XX", ("auth",)), ["A", "B"]),
        (mmcif("XX", "AB", ("label_asym", "label_seq")), ["A", "B"]),
        (mmcif("XX", "AA", ("label_asym", "label_seq")), ["A", "A.2"]),
        (mmcif("XX", "XX", ("label_asym", "label_seq", "auth_asym")), ["_", "_.2"]),
    ],
)
def test_chains_of_mmcif_by_whatever_ids_it_has(tmp_path: Path, text: str, names: list[str]) -> None:
    (tmp_path / "made.cif").write_text(text)
    chains = read_chains(tmp_path / "made.cif")
    assert [chain.name for chain in chains] == [f"made:{name}" for name in names]
    assert [(chain.sequence, chain.numbers, chain.breaks) for chain in chains] == [("AGS", ("1", "2", "3"), ())] * 2


@pytest.mark.parametrize("bad", ["?", "nan", "."])
def test_what_is_no_coordinate_in_mmcif_is_refused(tmp_path: Path, bad: str) -> None:
    (tmp_path / "made.cif").write_text(mmcif("AB", "AB").replace(" 0.83 ", f" {bad} ", 1))
    with pytest.raises(StructureError, match=r"is no coordinate \(atom CA of ALA 1, chain A\)"):
        read_chains(tmp_path / "made.cif")


def _empty(folder: Path) -> Path:
    empty = folder / "empty"
    empty.mkdir()
    return empty
