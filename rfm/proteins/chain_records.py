"""Chains and their residues, made of the atoms that a structure file lists.

An atom belongs to the residue of its number, insertion code and name, wherever it stands, unless that residue has such
an atom already: then it begins another one, if both turn out complete. A chain is all residues of one id up to TER (in
mmCIF: of one asymmetric unit). Where its numbers begin anew and no peptide bond leads there, another one begins.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from rfm.proteins.atom_records import (
    AtomFile,
    AtomRecord,
    StructureError,
    force_field_parent,
    gemmi,
    residue_number,
)

PEPTIDE_BOND = 2.0
"""The longest distance from C to the next N, Angstrom, that counts as a bond; bonds are 1.33 long."""
BACKBONE = ("N", "CA", "C")
_WITHIN = (0.5, 3.0)
"""Angstrom: how far N - CA and CA - C of one residue may be apart; they are 1.46 and 1.53 long."""
_ONE_PLACE = 2.0
"""Angstrom: two CA nearer than this are one residue's; those of neighbours are at least 2.8 apart."""


@dataclass(eq=False)
class Place:
    """A residue with its backbone.

    Args:
        residue: its name in the file.
        number: its number, without insertion code.
        label: with it, such as ``52A``.
        positions: N, CA, C, Angstrom; empty for a residue without a complete backbone.
        fault: why it has none, in words.
        occupancy: of the conformer that was taken.
        altlocs: labels of all that it has.
        hetero: it stands in HETATM records, and the file does not declare it part of a polymer.
        unknown: its name is no amino acid's, nor that of anything else that is known.
    """

    residue: str
    number: int
    label: str
    positions: list[list[float]]
    fault: str
    occupancy: float
    altlocs: frozenset[str]
    hetero: bool
    unknown: bool


@dataclass(eq=False)
class ChainRecords:
    """A chain: its residues with a backbone, what was left out of it, and which are of an unknown kind, in words."""

    name: str
    places: list[Place]
    left_out: list[str]
    unknown: list[str]


def chain_records(path: Path, atoms: AtomFile) -> tuple[list[ChainRecords], Counter[str]]:
    """Return the protein chains of a file, and how much of it is something else, by what it is.

    Raises:
        StructureError: a number is none, or a residue with a backbone that is no known amino acid is in the ATOM
            records of a chain. In HETATM records it is a residue of unknown kind, X, where a peptide bond joins it to
            the chain, and a ligand elsewhere.
    """
    counted: Counter[str] = Counter()
    segments: dict[tuple[str, str], list[Place]] = {}
    for key, records in _by_segment(atoms.records).items():
        residues = [one for one in _residues(records) if _is_residue(path, one, atoms.parents, counted)]
        if residues:
            segments[key] = _one_for_each_place(
                [_place(path, one, atoms.parents, counted) for one in residues], counted
            )
    chains: list[ChainRecords] = []
    for chain in dict.fromkeys(chain for chain, _ in segments):
        own = [places for (name, _), places in segments.items() if name == chain]
        parts = [part for segment in _with_late_residues(own, counted) for part in _cut_where_anew(segment)]
        for i, part in enumerate(parts):
            name = chain if i == 0 else f"{chain}.{i + 1}"
            complete = _without_lone_unknown([place for place in part if place.positions], counted)
            faults = [place.fault for place in part if place.fault]
            unknown = [f"{place.residue} {place.label}" for place in complete if place.unknown]
            chains.append(ChainRecords(name, _in_order(complete), faults, unknown))
    return chains, counted


def letter(residue: str, parents: dict[str, str]) -> str:
    """Return the letter of an amino acid or of its parent, X where there is none."""
    info = gemmi().find_tabulated_residue(_known_name(residue, parents))
    code = info.one_letter_code.upper() if info.found() else ""
    return code if code.strip() else "X"


# From atoms to residues.


@dataclass(eq=False)
class _Residue:
    """Atoms of one residue; those of the backbone by name and alternate location."""

    first: AtomRecord
    backbone: dict[tuple[str, str], AtomRecord] = field(default_factory=dict)
    repeated: list[str] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, str, str]:
        return self.first.number, self.first.insertion, self.first.residue

    def conformer(self, label: str) -> list[AtomRecord] | None:
        """Return N, CA and C at this location, or at the one that has no other; None if one is missing."""
        atoms = [self.backbone.get((name, label)) or self.backbone.get((name, "")) for name in BACKBONE]
        known = [atom for atom in atoms if atom is not None]
        return known if len(known) == len(BACKBONE) else None

    @property
    def altlocs(self) -> list[str]:
        return sorted({label for _, label in self.backbone})

    @property
    def complete(self) -> bool:
        return any(self.conformer(label) for label in self.altlocs)

    def absorb(self, other: "_Residue") -> None:
        """Take the atoms that are missing; others stay as they are."""
        for key, atom in other.backbone.items():
            if key in self.backbone:
                self.repeated.append(key[0])
            else:
                self.backbone[key] = atom


def _by_segment(records: Iterable[AtomRecord]) -> dict[tuple[str, str], list[AtomRecord]]:
    segments: dict[tuple[str, str], list[AtomRecord]] = {}
    for record in records:
        segments.setdefault((record.chain, record.part), []).append(record)
    return segments


def _residues(records: Iterable[AtomRecord]) -> list[_Residue]:
    latest: dict[tuple[str, str, str], _Residue] = {}
    residues: list[_Residue] = []
    for record in records:
        key = (record.number, record.insertion, record.residue)
        own = latest.get(key)
        at = (record.name, record.altloc)
        if own is None or at in own.backbone:
            own = latest[key] = _Residue(record)
            residues.append(own)
        if record.name in BACKBONE:
            own.backbone[at] = record
    merged: list[_Residue] = []
    for one in residues:
        if merged and merged[-1].key == one.key and not (merged[-1].complete and one.complete):
            merged[-1].absorb(one)
        else:
            merged.append(one)
    return merged


def _known_name(name: str, parents: dict[str, str]) -> str:
    known = gemmi().find_tabulated_residue(name).found()
    return name if known else force_field_parent(name) or parents.get(name, name)


def _is_residue(path: Path, residue: _Residue, parents: dict[str, str], counted: Counter[str]) -> bool:
    """Return whether this is an amino acid, and count what is none; an unknown one in a chain is an error."""
    first = residue.first
    info = gemmi().find_tabulated_residue(_known_name(first.residue, parents))
    if info.found() and info.is_amino_acid():
        # A free amino acid beside a protein is a ligand, which the file declares where it declares anything.
        if first.polymer is not False:
            return True
        counted["ligands and ions"] += 1
        return False
    if not info.found() and residue.complete and first.polymer is not False:
        if first.hetero:
            return True
        raise StructureError(
            f"{path}: chain {first.chain}: residue {first.residue} {first.number}{first.insertion} has a backbone, and "
            "is no amino acid; rename it to the amino acid that it is made from, or take it out"
        )
    kinds = {"waters": info.is_water(), "nucleotides": info.is_nucleic_acid()} if info.found() else {}
    counted[next((kind for kind, holds in kinds.items() if holds), "ligands and ions")] += 1
    return False


def _place(path: Path, residue: _Residue, parents: dict[str, str], counted: Counter[str]) -> Place:
    """Return the conformer whose N, CA and C are there most."""
    first, number = residue.first, residue_number(path, residue.first)
    label = f"{number}{residue.first.insertion}"
    best: tuple[float, list[AtomRecord]] = (-1.0, [])
    for altloc in residue.altlocs:
        atoms = residue.conformer(altloc)
        if atoms and (occupancy := sum(atom.weight(path) for atom in atoms) / len(atoms)) > best[0]:
            best = occupancy, atoms
    labels = [altloc for altloc in residue.altlocs if altloc]
    counted["alternate locations"] += max(len(labels) - 1, 0)
    counted["repeated atoms"] += len(residue.repeated)
    positions = [atom.position(path) for atom in best[1]]
    return Place(
        first.residue,
        number,
        label,
        [] if (fault := _fault(residue, positions)) else positions,
        f"{first.residue} {label} {fault}" if fault else "",
        best[0],
        frozenset(residue.altlocs),
        first.hetero and first.polymer is None,
        not gemmi().find_tabulated_residue(_known_name(first.residue, parents)).found(),
    )


def _fault(residue: _Residue, positions: list[list[float]]) -> str:
    """Return what is wrong with a backbone, in words."""
    if not positions:
        missing = [name for name in BACKBONE if all(name != other for other, _ in residue.backbone)]
        return f"has no {' or '.join(missing) or 'conformer with N, CA and C'}"
    for i, pair in enumerate(("N and CA", "CA and C")):
        if not _WITHIN[0] <= (length := math.dist(positions[i], positions[i + 1])) <= _WITHIN[1]:
            return f"has {pair} {length:.1f} Angstrom apart"
    return ""


# From residues to chains.


def _one_for_each_place(places: list[Place], counted: Counter[str]) -> list[Place]:
    """Return, of different residues at one place, the one that is there most of the time."""
    chosen: list[Place] = []
    for place in places:
        if chosen and _alternatives(chosen[-1], place):
            counted["alternate residues"] += 1
            chosen[-1] = max(chosen[-1], place, key=lambda one: one.occupancy if one.positions else -1.0)
        else:
            chosen.append(place)
    return chosen


def _alternatives(a: Place, b: Place) -> bool:
    if a.label != b.label:
        return False
    if "" not in a.altlocs | b.altlocs and a.altlocs.isdisjoint(b.altlocs):
        return True
    return bool(a.positions and b.positions) and math.dist(a.positions[1], b.positions[1]) < _ONE_PLACE


def _bonded(a: Place, b: Place) -> bool:
    return bool(a.positions and b.positions) and math.dist(a.positions[2], b.positions[0]) <= PEPTIDE_BOND


def _with_late_residues(segments: list[list[Place]], counted: Counter[str]) -> list[list[Place]]:
    """Return the chains of one id, with the HETATM residues that stand after them and are bonded to them.

    Those that are bonded to none are ligands.
    """
    chains = [segments[0]]
    for segment in segments[1:]:
        if not all(place.hetero for place in segment):
            chains.append(segment)
            continue
        for place in segment:
            home = next((c for c in chains if any(_bonded(place, o) or _bonded(o, place) for o in c)), None)
            if home is None:
                counted["ligands and ions"] += 1
            else:
                home.append(place)
    return chains


def _without_lone_unknown(places: list[Place], counted: Counter[str]) -> list[Place]:
    """Return residues without those of unknown kind that no peptide bond joins to another: ligands."""
    kept = []
    for place in places:
        if place.unknown and not any(_bonded(place, other) or _bonded(other, place) for other in places):
            counted[f"ligands {place.residue}, which have a backbone"] += 1
        else:
            kept.append(place)
    return kept


def _cut_where_anew(places: list[Place]) -> list[list[Place]]:
    """Cut a chain where its numbers go back without a bond, to a stretch that has a number of the chain again."""
    stretches: list[list[Place]] = [[]]
    for place in places:
        own = stretches[-1]
        if own and place.number < own[-1].number and not _bonded(own[-1], place):
            stretches.append([place])
        else:
            own.append(place)
    parts, had = [stretches[0]], {place.label for place in stretches[0]}
    for stretch in stretches[1:]:
        labels = {place.label for place in stretch}
        if had.isdisjoint(labels):
            parts[-1] += stretch
            had |= labels
        else:
            parts.append(stretch)
            had = labels
    return parts


def _in_order(places: list[Place]) -> list[Place]:
    """Return residues in the file's order, or in that of their numbers where fewer bonds are open then."""
    ordered = sorted(places, key=lambda place: place.number)
    return ordered if _open(ordered) < _open(places) else places


def _open(places: Sequence[Place]) -> int:
    return sum(not _bonded(a, b) for a, b in pairwise(places))
