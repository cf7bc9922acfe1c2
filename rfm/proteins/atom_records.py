"""Atoms as PDB and mmCIF files list them, one record for each, before anything is made of them.

PDB files are read by their columns, mmCIF by gemmi (the extra ``protein``). Nothing is merged and nothing is left out
but models after the first, which are counted. Numbers stay text until they are needed, so that only those that are used
can be wrong.

References:
    wwPDB, Protein Data Bank Contents Guide, version 3.30, 2012. Grosse-Kunstleve, Hybrid-36, 2007: residue numbers from
    10,000 on. mmCIF: the dictionary pdbx_v50.
"""

import gzip
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rfm.datasets.download import DatasetError

_MODIFIED = "_pdbx_struct_mod_residue."


class StructureError(DatasetError):
    """A structure file that cannot be used; the message names file, chain and residue."""


class AtomRecord(NamedTuple):
    """One atom; everything is text as in the file, without blanks around it."""

    where: str
    """In words: a line of a PDB file, an atom's number in mmCIF."""
    chain: str
    """The chain's id; ``_`` where it is blank and no segment is named either."""
    part: str
    """What else distinguishes chains of one id: how many TER ended one before, in mmCIF the asymmetric unit's id."""
    number: str
    insertion: str
    residue: str
    name: str
    altloc: str
    hetero: bool
    polymer: bool | None
    """Whether the file declares the residue part of a polymer; None where it declares nothing."""
    coordinates: tuple[str, str, str]
    occupancy: str

    def position(self, path: Path) -> list[float]:
        """Return where the atom is, Angstrom."""
        return [self._number(path, text, "coordinate") for text in self.coordinates]

    def weight(self, path: Path) -> float:
        """Return the occupancy, 1 where none is given."""
        return self._number(path, self.occupancy, "occupancy") if self.occupancy else 1.0

    def _number(self, path: Path, text: str, what: str) -> float:
        try:
            # In mmCIF the last digits' uncertainty may follow.
            value = float(re.sub(r"\(\d+\)$", "", text))
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            shown = repr(text) if text else "nothing"
            raise StructureError(
                f"{path}, {self.where}: {shown} is no {what} (atom {self.name} of {self.residue} {self.number}, chain "
                f"{self.chain}); repair or remove that residue"
            )
        return value


class AtomFile(NamedTuple):
    """The atoms of a file."""

    records: list[AtomRecord]
    """Those of the first model."""
    models: int
    parents: dict[str, str]
    """The parents of modified residues that the file declares, by name."""


def read_atoms(path: Path) -> AtomFile:
    """Read the atoms of a PDB or mmCIF file, which may be gzipped.

    Raises:
        StructureError: the file cannot be read.
    """
    text = _text(path)
    is_mmcif = path.name.lower().removesuffix(".gz").endswith((".cif", ".mmcif"))
    if is_mmcif or re.match(r"(\s|#.*\n)*data_", text):
        return _from_mmcif(path, text)
    return _from_pdb(text)


def residue_number(path: Path, record: AtomRecord) -> int:
    """Return a residue's number, which may be written as hybrid-36.

    Raises:
        StructureError: it is none.
    """
    text = record.number
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    if re.fullmatch(r"[A-Z][A-Z0-9]{3}", text):
        return int(text, 36) - 10 * 36**3 + 10**4
    if re.fullmatch(r"[a-z][a-z0-9]{3}", text):
        return int(text, 36) + 16 * 36**3 + 10**4
    raise StructureError(
        f"{path}, {record.where}: {text!r} is no residue number ({record.residue}, chain {record.chain}); "
        "number the residues, or write the structure as mmCIF"
    )


def _text(path: Path) -> str:
    if not path.is_file():
        raise StructureError(f"{path} does not exist; give a PDB or mmCIF file")
    try:
        content = path.read_bytes()
        # The content takes precedence over the name.
        content = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from None
    if not content.strip():
        raise StructureError(f"{path}: the file is empty; give a PDB or mmCIF file")
    return content.decode("utf-8", errors="replace")


def _unreadable(path: Path, error: Exception) -> StructureError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return StructureError(f"{path}: cannot be read as a structure ({reason}); give a PDB or mmCIF file")


# PDB.


def _from_pdb(text: str) -> AtomFile:
    lines = re.split(r"\r\n|\r|\n", text)
    long_names = _columns_of_long_names(lines)
    records, parents = list[AtomRecord](), dict[str, str]()
    models, ended, terminated = 0, True, Counter[str]()
    for i, line in enumerate(lines, start=1):
        kind = line[:6].rstrip()
        if kind in ("MODEL", "ENDMDL", "END"):
            ended = True
        elif kind == "TER" or kind.startswith("TER "):
            terminated.update(record.chain for record in records[-1:])
        elif kind == "MODRES":
            parents[line[12:15].strip()] = line[24:27].strip()
        elif kind in ("ATOM", "HETATM"):
            models, ended = models + ended, False
            if models == 1:
                record = _pdb_record(i, line, kind == "HETATM", line[20:22] in long_names)
                records.append(record._replace(part=str(terminated[record.chain])))
    return AtomFile(records, models, parents)


def _pdb_record(i: int, line: str, hetero: bool, long_name: bool) -> AtomRecord:
    # Two letters stand for a chain, unless the first is the fourth of a force field's name.
    chain = line[21:22] if long_name else line[20:22]
    number, insertion = line[22:26].strip(), line[26:27].strip()
    if insertion.isdigit() and len(number) == 4:
        number, insertion = number + insertion, ""
    # Coordinates that end before their columns do may have lost digits.
    complete = len(line.rstrip()) >= 54
    return AtomRecord(
        f"line {i}",
        chain.strip() or line[72:76].strip() or "_",
        "",
        number,
        insertion,
        line[17 : 21 if long_name else 20].strip().upper(),
        line[12:16].strip(),
        line[16:17].strip(),
        hetero,
        None,
        (line[30:38].strip(), line[38:46].strip(), line[46:54].strip() if complete else ""),
        line[54:60].strip(),
    )


def _columns_of_long_names(lines: list[str]) -> set[str]:
    """Return what stands in columns 21 and 22 of residues whose names have four letters, all of them known ones."""
    names: dict[str, set[str]] = {}
    for line in lines:
        if line.startswith(("ATOM", "HETATM")) and line[20:21].strip():
            names.setdefault(line[20:22], set()).add(line[17:21].strip().upper())
    return {columns for columns, residues in names.items() if all(force_field_parent(name) for name in residues)}


# mmCIF.


def _from_mmcif(path: Path, text: str) -> AtomFile:
    cif = gemmi().cif
    try:
        blocks = [block for block in cif.read_string(text) if block.get_mmcif_category("_atom_site.")]
    except (RuntimeError, ValueError) as error:
        raise _unreadable(path, error) from None
    if not blocks:
        raise StructureError(f"{path}: lists no atoms (_atom_site); give a file with protein backbones")
    atoms = list(_mmcif_rows(path, blocks[0]))
    records = [record for model, record in atoms if model == atoms[0][0]]
    # Each further block is a structure of its own.
    models = len({model for model, _ in atoms}) + len(blocks) - 1
    modified = blocks[0].get_mmcif_category(_MODIFIED)
    pairs = zip(modified.get("label_comp_id", ()), modified.get("parent_comp_id", ()), strict=False)
    return AtomFile(records, models, {name: parent for name, parent in pairs if name and parent})


def _mmcif_rows(path: Path, block: Any) -> Iterator[tuple[str, AtomRecord]]:
    """Yield each atom and its model; what the authors call a chain or residue goes before what the archive calls it."""
    table = block.get_mmcif_category("_atom_site.")
    size = len(next(iter(table.values())))

    def column(*names: str) -> list[str]:
        # An unknown value is None and one that does not apply is False.
        columns = [table[name] for name in names if name in table]
        return [next((cell for cell in cells if cell), "") for cells in zip(*columns, strict=True)] or [""] * size

    for axis in ("Cartn_x", "Cartn_y", "Cartn_z"):
        if axis not in table:
            raise StructureError(f"{path}: has no _atom_site.{axis}; give a file with coordinates")
    entities = block.get_mmcif_category("_entity.")
    types = dict(zip(entities.get("id", ()), entities.get("type", ()), strict=False))
    places = column("label_seq_id")
    rows = zip(
        column("id"),
        column("auth_asym_id", "label_asym_id"),
        column("label_asym_id"),
        column("auth_seq_id", "label_seq_id"),
        column("pdbx_PDB_ins_code"),
        column("auth_comp_id", "label_comp_id"),
        column("auth_atom_id", "label_atom_id"),
        column("label_alt_id"),
        column("group_PDB"),
        column("label_entity_id"),
        places,
        zip(column("Cartn_x"), column("Cartn_y"), column("Cartn_z"), strict=True),
        column("occupancy"),
        column("pdbx_PDB_model_num"),
        strict=True,
    )
    numbered = any(places)
    for serial, chain, asym, number, insertion, residue, name, altloc, group, entity, place, xyz, weight, model in rows:
        entity_type = types.get(entity)
        polymer = entity_type == "polymer" if entity_type else bool(place) if numbered else None
        yield (
            model,
            AtomRecord(
                f"atom {serial}",
                chain or "_",
                asym,
                number,
                insertion,
                residue.upper(),
                name,
                altloc,
                group == "HETATM",
                polymer,
                xyz,
                weight,
            ),
        )


# Names.

_FORCE_FIELD_NAMES = {
    "HIS": "HSD HSE HSP HID HIE HIP HISA HISB HISD HISE HISH HISP HIS1 HIS2",
    "CYS": "CYX CYM CYN CYS1 CYS2 CYSH CYSS",
    "ASP": "ASH ASPH ASPP",
    "GLU": "GLH GLUH GLUP",
    "LYS": "LYN LYP LYSH LYSN LSN",
    "ARG": "ARN ARGN",
    "TYR": "TYM",
}
_PARENTS = {name: parent for parent, names in _FORCE_FIELD_NAMES.items() for name in names.split()}


def force_field_parent(name: str) -> str | None:
    """Return the amino acid that Amber, CHARMM, GROMOS and OPLS call so: by its protons, or as the end of a chain."""
    if name in _PARENTS:
        return _PARENTS[name]
    end = name[1:] if len(name) == 4 and name[0] in "NC" else ""
    info = gemmi().find_tabulated_residue(end)
    return end if info.is_amino_acid() and info.is_standard() else _PARENTS.get(end)


def gemmi() -> Any:
    """Return the package.

    Raises:
        DatasetError: it is not installed.
    """
    try:
        import gemmi
    except ImportError:
        raise DatasetError(
            "structure files need the package gemmi; install the extra: pip install 'riemannian-flow-matching[protein]'"
        ) from None
    return gemmi
