"""Protein backbones in PDB and mmCIF files, read and written by gemmi (the extra ``protein``).

Reading keeps, of each chain of the first model, the residues that have N, CA and C. Waters, ligands and nucleic acids
are no residues; modified amino acids count as what they are made from (MSE is a methionine). Of alternate locations the
one of highest occupancy is taken, the same for the three atoms; of different residues at one place, likewise. Residues
with insertion codes stand where the file has them. A residue without all three atoms is left out and named, and the
chain has a break there. Coordinates are in Angstrom.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rfm.datasets.download import DatasetError
from rfm.serialization import write_atomically

if TYPE_CHECKING:
    import gemmi

SUFFIXES = (".pdb", ".ent", ".cif", ".mmcif")
"""How names of structure files end, perhaps with ``.gz`` after it."""
PEPTIDE_BOND = 2.0
"""The longest distance from C to the next N, Angstrom, that counts as a bond; bonds are 1.33 long."""
ATOMS = ("N", "CA", "C", "O")
_BACKBONE = ATOMS[:3]


class StructureError(DatasetError):
    """A structure file that cannot be used; the message names file, chain and residue."""


@dataclass(frozen=True, eq=False)
class Chain:
    """The backbone of one chain.

    Args:
        name: the file's name and the chain's, such as ``1abc:A``.
        atoms: N, CA, C, ``(residues, 3, 3)`` float32, Angstrom.
        sequence: one letter per residue, X where there is none.
        numbers: the file's own residue numbers, with insertion codes, such as ``52A``.
        left_out: the residues without a whole backbone, each in words.
    """

    name: str
    atoms: Tensor = field(repr=False)
    sequence: str
    numbers: tuple[str, ...] = field(repr=False)
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def breaks(self) -> tuple[int, ...]:
        """The residues, counted from 0, that no peptide bond links to the one before."""
        gap = torch.linalg.vector_norm(self.atoms[1:, 0] - self.atoms[:-1, 2], dim=-1)
        return tuple((torch.nonzero(gap > PEPTIDE_BOND)[:, 0] + 1).tolist())


def read_chains(path: str | Path) -> list[Chain]:
    """Return the protein chains of a PDB or mmCIF file, which may be gzipped.

    Raises:
        StructureError: the file cannot be read, holds no protein backbone, or a residue that is no known amino acid
            stands in a protein chain with the atoms of one.
    """
    path = Path(path)
    structure = _read(path)
    chains = [chain for chain in (_chain(path, own) for own in structure[0]) if len(chain)] if len(structure) else []
    if not chains:
        raise StructureError(f"{path}: no residue has the atoms N, CA and C\ngive a file with protein backbones")
    return chains


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
        asked = "several chains" if name is None else f"no chain {name!r}"
        raise StructureError(f"{path}: has {asked}; its protein chains are {', '.join(known)}\nname one of them")
    return chains[known.index(name)]


def write_chain(path: str | Path, atoms: Tensor, sequence: str | None = None) -> None:
    """Write one backbone as chain A, in the format that the name's ending says: ``.pdb`` or ``.cif``.

    Args:
        path: the file, written whole or not at all.
        atoms: N, CA, C and perhaps O, ``(residues, 3 or 4, 3)``, Angstrom.
        sequence: one letter per residue; glycines by default, the residue that is backbone alone.

    Raises:
        ValueError: for another ending, or a chain that a PDB file has no room for.
    """
    path = Path(path)
    structure = _structure(path.stem, atoms.detach().double().cpu(), sequence or "G" * len(atoms))
    if path.suffix == ".pdb":
        if len(atoms) > 9999 or float(atoms.abs().max()) >= 9999:
            raise ValueError(f"{path}: a PDB file holds 9999 residues and coordinates below 9999 Angstrom; write .cif")
        write_atomically(path, lambda file: structure.write_pdb(str(file)))
    elif path.suffix == ".cif":
        write_atomically(path, lambda file: structure.make_mmcif_document().write_file(str(file)))
    else:
        raise ValueError(f"{path}: structures are written as .pdb or .cif; end the name so")


def structure_files(folder: str | Path) -> list[Path]:
    """Return the structure files directly in a folder, by name.

    Raises:
        StructureError: there is no such folder, or it holds none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise StructureError(f"{folder} is not a folder\ngive one that holds PDB or mmCIF files")
    files = sorted(p for p in folder.iterdir() if p.name.lower().removesuffix(".gz").endswith(SUFFIXES))
    if not files:
        raise StructureError(f"{folder} holds no file that ends in {', '.join(SUFFIXES)}\ngive a folder of structures")
    return files


def _read(path: Path) -> "gemmi.Structure":
    gemmi = _gemmi()
    if not path.is_file():
        raise StructureError(f"{path} does not exist\ngive a PDB or mmCIF file")
    try:
        return gemmi.read_structure(str(path), merge_chain_parts=True)
    except (RuntimeError, ValueError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise StructureError(f"{path}: cannot be read as a structure ({reason})\ngive a PDB or mmCIF file") from None


def _chain(path: Path, own: "gemmi.Chain") -> Chain:
    atoms, letters, numbers, left_out = [], [], [], []
    for number, places in groupby(own, key=lambda residue: str(residue.seqid)):
        residues = [residue for residue in places if _is_residue(path, own.name, residue)]
        if not residues:
            continue
        found = [(_conformer(residue), residue) for residue in residues]
        # Of different residues at one place, the one that is there most of the time.
        (occupancy, positions), residue = max(found, key=lambda one: one[0][0])
        if occupancy < 0:
            missing = [name for name in _BACKBONE if residue.find_atom(name, "*") is None]
            left_out.append(f"{residue.name} {number} has no {' or '.join(missing) or 'conformer with N, CA and C'}")
            continue
        atoms.append(positions)
        numbers.append(number)
        letters.append(_letter(residue.name))
    tensor = torch.tensor(atoms, dtype=torch.float32).reshape(-1, 3, 3)
    stem = path.name.removesuffix(".gz").rpartition(".")[0]
    return Chain(f"{stem}:{own.name}", tensor, "".join(letters), tuple(numbers), tuple(left_out))


def _is_residue(path: Path, chain: str, residue: "gemmi.Residue") -> bool:
    """Return whether this is an amino acid; an unknown one that a chain may hold is an error."""
    info = _gemmi().find_tabulated_residue(residue.name)
    if info.found():
        # A free amino acid beside a protein is a ligand, which the file says where it says anything.
        return bool(info.is_amino_acid() and residue.entity_type.name != "NonPolymer")
    whole = all(residue.find_atom(name, "*") is not None for name in _BACKBONE)
    if whole and residue.entity_type.name in ("Polymer", "Unknown"):
        raise StructureError(
            f"{path}: chain {chain}: residue {residue.name} {residue.seqid} has a backbone, and is no amino acid\n"
            "rename it to the amino acid that it is made from, or take it out"
        )
    return False


def _conformer(residue: "gemmi.Residue") -> tuple[float, list[list[float]]]:
    """Return occupancy and positions of the conformer whose N, CA and C are there most; occupancy -1 without one."""
    best: tuple[float, list[list[float]]] = (-1.0, [])
    for label in sorted({atom.altloc for atom in residue if atom.name in _BACKBONE}):
        chosen = [_atom(residue, name, label) for name in _BACKBONE]
        known = [atom for atom in chosen if atom is not None]
        if len(known) == len(_BACKBONE):
            occupancy = sum(atom.occ for atom in known) / len(known)
            if occupancy > best[0]:
                best = (occupancy, [atom.pos.tolist() for atom in known])
    return best


def _atom(residue: "gemmi.Residue", name: str, label: str) -> "gemmi.Atom | None":
    """Return the atom at this alternate location, or the one that has no other location."""
    named = [atom for atom in residue if atom.name == name and atom.element.name in ("N", "C")]
    for wanted in (label, "\0"):
        for atom in named:
            if atom.altloc == wanted:
                return atom
    return None


def _letter(name: str) -> str:
    letter = _gemmi().find_tabulated_residue(name).one_letter_code.upper()
    return letter if letter.strip() else "X"


def _structure(name: str, atoms: Tensor, sequence: str) -> "gemmi.Structure":
    gemmi = _gemmi()
    structure = gemmi.Structure()
    structure.name = name
    model, chain = gemmi.Model(1), gemmi.Chain("A")
    for number, (letter, positions) in enumerate(zip(sequence, atoms.tolist(), strict=True), start=1):
        chain.add_residue(_residue(number, letter, positions))
    model.add_chain(chain)
    structure.add_model(model)
    structure.setup_entities()
    return structure


def _residue(number: int, letter: str, positions: Sequence[Sequence[float]]) -> "gemmi.Residue":
    gemmi = _gemmi()
    residue = gemmi.Residue()
    residue.name = gemmi.expand_one_letter(letter, gemmi.ResidueKind.AA) or "UNK"
    residue.seqid = gemmi.SeqId(number, " ")
    residue.entity_type = gemmi.EntityType.Polymer
    for name, position in zip(ATOMS, positions, strict=False):
        atom = gemmi.Atom()
        atom.name, atom.element = name, gemmi.Element(name[0])
        atom.pos, atom.occ, atom.b_iso = gemmi.Position(*position), 1.0, 0.0
        residue.add_atom(atom)
    return residue


def _gemmi() -> Any:
    try:
        import gemmi
    except ImportError:
        raise StructureError(
            "structure files need the package gemmi\ninstall the extra: pip install 'riemannian-flow-matching[protein]'"
        ) from None
    return gemmi
