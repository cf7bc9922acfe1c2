"""Protein backbones in PDB and mmCIF files (the extra ``protein``, but for writing PDB files).

Reading keeps, of each chain of the first model, the residues that have N, CA and C; what is not kept is counted, and
listed where it is a residue. Waters, ligands and nucleic acids are no residues; modified amino acids count as what they
are made from (MSE is a methionine), and the names that force fields give by protons as the amino acid (HSD is a
histidine). Of alternate locations the one of highest occupancy is taken, the same for the three atoms; of different
residues at one place, likewise. Residues with insertion codes stand where the file has them. A residue without all
three atoms is left out and listed, and the chain has a break there. Coordinates are in Angstrom.

A chain ends at TER, and where numbers begin anew without a peptide bond: see `rfm.proteins.chain_records`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rfm.proteins.atom_records import StructureError, gemmi, read_atoms
from rfm.proteins.chain_records import PEPTIDE_BOND, ChainRecords, chain_records, letter
from rfm.proteins.pdb_text import LARGEST, pdb_text
from rfm.records.descriptions import write_atomically

if TYPE_CHECKING:
    from gemmi import Residue, Structure
    from gemmi.cif import Document

SUFFIXES = (".pdb", ".ent", ".cif", ".mmcif")
"""How names of structure files end, perhaps with ``.gz`` after it."""
ATOMS = ("N", "CA", "C", "O")


@dataclass(frozen=True, eq=False)
class Chain:
    """The backbone of one chain.

    Args:
        name: the file's name and the chain's, such as ``1abc:A``.
        atoms: N, CA, C, ``(residues, 3, 3)`` float32, Angstrom.
        sequence: one letter per residue, X where there is none.
        numbers: the file's own residue numbers, with insertion codes, such as ``52A``.
        left_out: the residues without a complete backbone, each in words.
        unknown: the residues whose name is no amino acid's, each in words; in the sequence they are X.
    """

    name: str
    atoms: Tensor = field(repr=False)
    sequence: str
    numbers: tuple[str, ...] = field(repr=False)
    left_out: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def breaks(self) -> tuple[int, ...]:
        """The residues, counted from 0, that no peptide bond links to the one before."""
        gap = torch.linalg.vector_norm(self.atoms[1:, 0] - self.atoms[:-1, 2], dim=-1)
        return tuple((torch.nonzero(gap > PEPTIDE_BOND)[:, 0] + 1).tolist())


@dataclass(frozen=True, eq=False)
class Backbones:
    """What a structure file holds.

    Args:
        chains: the protein chains with a residue or more.
        left_out: how much was not read, by what it is, in words.
    """

    chains: tuple[Chain, ...]
    left_out: dict[str, int] = field(default_factory=dict)


def read_backbones(path: str | Path) -> Backbones:
    """Return the protein chains of a PDB or mmCIF file, which may be gzipped, and what else it holds.

    Raises:
        StructureError: the file cannot be read, holds no protein backbone, a number in a backbone is none, or a residue
            that is no known amino acid stands in the ATOM records of a chain with the atoms of one. (In HETATM records
            it is read as X where it is bonded to the chain, and counted as a ligand elsewhere.)
    """
    path = Path(path)
    atoms = read_atoms(path)
    records, left_out = chain_records(path, atoms)
    if atoms.models > 1:
        left_out["further models"] = atoms.models - 1
    stem = path.name[: -len(".gz")] if path.name.lower().endswith(".gz") else path.name
    chains = tuple(_chain(f"{stem.rpartition('.')[0]}:{one.name}", one, atoms.parents) for one in records)
    left_out["residues without a backbone"] += sum(len(one.left_out) for one in records)
    if not any(map(len, chains)):
        raise StructureError(f"{path}: no residue has the atoms N, CA and C; give a file with protein backbones")
    return Backbones(tuple(filter(len, chains)), {what: count for what, count in left_out.items() if count})


def read_chains(path: str | Path) -> list[Chain]:
    """Return the protein chains of a PDB or mmCIF file, which may be gzipped.

    Raises:
        StructureError: as `read_backbones`.
    """
    return list(read_backbones(path).chains)


def read_chain(path: str | Path, name: str | None = None) -> Chain:
    """Return one chain of a file: the one with this name, or the only one.

    Raises:
        StructureError: as `read_chains`; there is no such chain; or there are several and no name is given.
    """
    chains = read_chains(path)
    known = [chain.name.rpartition(":")[2] for chain in chains]
    if name is None and len(chains) == 1:
        return chains[0]
    if name not in known:
        finding = "several chains" if name is None else f"no chain {name!r}"
        more = f" and {len(known) - 12} more" if len(known) > 12 else ""
        listed = f"{', '.join(known[:12])}{more}"
        raise StructureError(f"{path}: has {finding}; its protein chains are {listed}; name one of them")
    return chains[known.index(name)]


def write_chain(path: str | Path, atoms: Tensor, sequence: str | None = None) -> None:
    """Write one backbone as chain A, in the format that the name's ending selects: ``.pdb`` or ``.cif``.

    Args:
        path: the file, written completely or not at all.
        atoms: N, CA, C and perhaps O, ``(residues, 3 or 4, 3)``, Angstrom.
        sequence: one letter per residue; glycines by default, the residue that is backbone alone.

    Raises:
        ValueError: for another ending, or a chain that a PDB file has no room for.
    """
    path, placed = Path(path), atoms.detach().double().cpu()
    letters = sequence or "G" * len(atoms)
    if path.suffix == ".pdb":
        if len(atoms) > LARGEST or float(atoms.abs().max()) >= LARGEST:
            raise ValueError(
                f"{path}: a PDB file holds {LARGEST} residues and coordinates below {LARGEST} Angstrom; write .cif"
            )
        text = pdb_text(placed, letters, ATOMS)
        write_atomically(path, lambda file: _write_text(file, text))
    elif path.suffix == ".cif":
        structure = _structure(path.stem, placed, letters)
        write_atomically(path, lambda file: _mmcif(structure).write_file(str(file)))
    else:
        raise ValueError(f"{path}: structures are written as .pdb or .cif; end the name so")


def can_write_mmcif() -> bool:
    """Return whether gemmi is installed, which writes .cif; .pdb needs nothing."""
    return find_spec("gemmi") is not None


def _write_text(file: Path, text: str) -> None:
    file.write_text(text, encoding="ascii")


def structure_files(folder: str | Path) -> list[Path]:
    """Return the structure files directly in a folder, by name.

    Raises:
        StructureError: there is no such folder, or it holds none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise StructureError(f"{folder} is not a folder; give one that holds PDB or mmCIF files")
    files = sorted(p for p in folder.iterdir() if p.name.lower().removesuffix(".gz").endswith(SUFFIXES))
    if not files:
        raise StructureError(f"{folder} holds no file that ends in {', '.join(SUFFIXES)}; give a folder of structures")
    return files


def _chain(name: str, records: ChainRecords, parents: dict[str, str]) -> Chain:
    atoms = torch.tensor([place.positions for place in records.places], dtype=torch.float32).reshape(-1, 3, 3)
    letters = "".join(letter(place.residue, parents) for place in records.places)
    numbers = tuple(place.label for place in records.places)
    return Chain(name, atoms, letters, numbers, tuple(records.left_out), tuple(records.unknown))


def _structure(name: str, atoms: Tensor, sequence: str) -> "Structure":
    library = gemmi()
    structure = library.Structure()
    structure.name = name
    model, chain = library.Model(1), library.Chain("A")
    for number, (one, positions) in enumerate(zip(sequence, atoms.tolist(), strict=True), start=1):
        chain.add_residue(_residue(number, one, positions))
    model.add_chain(chain)
    structure.add_model(model)
    structure.setup_entities()
    [entity] = structure.entities
    entity.full_sequence = [residue.name for residue in structure[0][0]]
    structure.assign_label_seq_id(force=True)
    return structure


def _mmcif(structure: "Structure") -> "Document":
    """Return the chain with its sequence; a single chain is in no crystal."""
    groups = gemmi().MmcifOutputGroups(True)
    groups.cell = groups.symmetry = False
    return structure.make_mmcif_document(groups)


def _residue(number: int, one: str, positions: Sequence[Sequence[float]]) -> "Residue":
    library = gemmi()
    residue = library.Residue()
    residue.name = library.expand_one_letter(one, library.ResidueKind.AA) or "UNK"
    residue.seqid = library.SeqId(number, " ")
    residue.entity_type = library.EntityType.Polymer
    for name, position in zip(ATOMS, positions, strict=False):
        atom = library.Atom()
        atom.name, atom.element = name, library.Element(name[0])
        atom.pos, atom.occ, atom.b_iso = library.Position(*position), 1.0, 0.0
        residue.add_atom(atom)
    return residue
