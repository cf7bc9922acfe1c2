"""Self-consistency: whether a sequence designed for a backbone folds back into it, by programs of others.

Three steps, each a file of theirs: backbones for ProteinMPNN, its sequences for ESMFold, and its structures read back.
Neither program is called here. A backbone counts as designable if one of its sequences folds to within 2 Angstrom
(RMSD of CA): Trippe et al., Diffusion probabilistic modeling of protein backbones in 3D for the motif-scaffolding
problem, 2022, arXiv:2206.04119.

References:
    Dauparas et al., Robust deep learning-based protein sequence design using ProteinMPNN, 2022,
    doi:10.1126/science.add2187: ``protein_mpnn_run.py`` reads a line of JSON for each backbone and writes
    ``seqs/NAME.fa``, of which the first entry is the input. Lin et al., Evolutionary-scale prediction of atomic-level
    protein structure with a language model, 2023, doi:10.1126/science.ade2574: ``esm-fold`` reads a FASTA file and
    writes ``HEADER.pdb`` for each entry, its confidence (pLDDT) in the place of B-factors.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rfm.datasets.download import DatasetError
from rfm.proteins.atom_records import StructureError, gemmi
from rfm.proteins.backbones import oxygens
from rfm.proteins.structures import ATOMS, SUFFIXES, read_chain, structure_files
from rfm.proteins.superposition import rmsd, tm_score
from rfm.records.descriptions import write_atomically

DESIGNABLE = 2.0
"""Angstrom."""
_LETTERS = frozenset("ACDEFGHIKLMNPQRSTVWYX")


@dataclass(frozen=True)
class Refolded:
    """How well one sequence folds back.

    Args:
        backbone: the backbone's name.
        design: the sequence's number, from 1.
        rmsd: of CA, Angstrom.
        tm: the TM-score, normalised by the backbone's length.
        confidence: mean pLDDT of its residues, 0 to 100.
        sequence: what was folded.
    """

    backbone: str
    design: int
    rmsd: float
    tm: float
    confidence: float
    sequence: str


def read_backbone_folder(folder: str | Path) -> dict[str, Tensor]:
    """Return the single-chain backbones of a folder by name, N, CA, C each, ``(residues, 3, 3)``, Angstrom.

    Of a file that is there as .pdb and .cif, as ``rfm sample`` writes it, one is read.

    Raises:
        StructureError: a file holds several chains, or cannot be read.
    """
    return {path.name.partition(".")[0]: read_chain(path).atoms for path in reversed(structure_files(folder))}


def write_mpnn_input(
    path: str | Path, backbones: Mapping[str, Tensor], sequences: Mapping[str, str] | None = None
) -> None:
    """Write backbones as ProteinMPNN's ``--jsonl_path`` takes them, as ``parse_multiple_chains.py`` would.

    Args:
        path: the file.
        backbones: N, CA, C and perhaps O of single chains by name, Angstrom.
        sequences: one letter per residue, where they are known; glycines otherwise.
    """
    lines = []
    for name, atoms in backbones.items():
        complete = atoms if atoms.shape[1] > 3 else torch.cat([atoms, oxygens(atoms)[:, None]], dim=1)
        coordinates = {
            f"{atom}_chain_A": [[round(x, 3) for x in place] for place in complete[:, i].double().tolist()]
            for i, atom in enumerate(ATOMS)
        }
        sequence = (sequences or {}).get(name, "G" * len(atoms))
        record = {"seq_chain_A": sequence, "coords_chain_A": coordinates, "name": name, "num_of_chains": 1}
        lines.append(json.dumps(record | {"seq": sequence}))
    write_atomically(Path(path), lambda file: _write(file, "\n".join(lines) + "\n"))


def read_designs(folder: str | Path, names: Sequence[str]) -> dict[str, list[str]]:
    """Return the sequences that ProteinMPNN designed, by backbone: all entries of ``NAME.fa`` but the first, its input.

    Args:
        folder: its output folder, or ``seqs`` in it.
        names: of the backbones.

    Raises:
        DatasetError: a file is missing, holds no design, or a sequence has letters that are no amino acids.
    """
    own = Path(folder)
    own = own / "seqs" if (own / "seqs").is_dir() else own
    return {name: _entries(own / f"{name}.fa") for name in names}


def _entries(path: Path) -> list[str]:
    if not path.is_file():
        raise DatasetError(f"{path} does not exist; run ProteinMPNN on all backbones, or name its --out_folder")
    parts = [part.partition("\n") for part in path.read_text(encoding="utf-8").split(">")[1:]]
    sequences = ["".join(body.split()).upper() for _, _, body in parts[1:]]
    if not sequences:
        raise DatasetError(f"{path} holds no sequence after its first, which is the input; run ProteinMPNN again")
    for sequence in sequences:
        if not sequence or (other := set(sequence) - _LETTERS):
            found = f"the letters {''.join(sorted(other))}" if sequence else "no letter"
            raise DatasetError(f"{path}: a sequence has {found}; give designs of single chains of amino acids")
    return sequences


def write_folding_input(path: str | Path, designs: Mapping[str, Sequence[str]]) -> None:
    """Write designed sequences as a FASTA file whose entries are ``NAME_1``, ``NAME_2``, ..."""
    entries = [f">{name}_{i}\n{one}\n" for name, own in designs.items() for i, one in enumerate(own, start=1)]
    write_atomically(Path(path), lambda file: _write(file, "".join(entries)))


def self_consistency(backbones: Mapping[str, Tensor], folded: str | Path) -> list[Refolded]:
    """Return how well folded sequences match their backbones, by name and number of the design.

    Args:
        backbones: N, CA, C, ... by name, Angstrom.
        folded: folder with ``NAME_1.pdb`` (or .cif), ``NAME_2.pdb``, ...

    Raises:
        StructureError: there is none for a backbone, or one has another number of residues.
    """
    found = []
    for name, atoms in backbones.items():
        files = _designs_of(Path(folded), name)
        if not files:
            raise StructureError(f"{folded} holds no {name}_1.pdb; fold the sequences of all backbones")
        found += [_compared(name, atoms, number, path) for number, path in files]
    return found


def _designs_of(folder: Path, name: str) -> list[tuple[int, Path]]:
    numbers = {}
    for path in sorted(folder.glob(f"{name}_*")):
        stem, _, suffix = path.name.partition(".")
        number = stem.removeprefix(f"{name}_")
        if number.isdecimal() and f".{suffix.lower()}" in SUFFIXES:
            numbers[int(number)] = path
    return sorted(numbers.items())


def _compared(name: str, atoms: Tensor, number: int, path: Path) -> Refolded:
    chain = read_chain(path)
    if len(chain) != len(atoms):
        raise StructureError(
            f"{path}: has {len(chain)} residues, and the backbone {name} has {len(atoms)}; fold sequences of its length"
        )
    apart = float(rmsd(chain.atoms[:, 1], atoms[:, 1]))
    return Refolded(name, number, apart, tm_score(atoms, chain.atoms), _confidence(path), chain.sequence)


def _confidence(path: Path) -> float:
    """Return the mean of the B-factors of CA, as a percentage: some versions write shares."""
    structure = gemmi().read_structure(str(path))
    values = [atom.b_iso for residue in structure[0].all() for atom in [residue.atom] if atom.name == "CA"]
    mean = sum(values) / len(values)
    return 100 * mean if max(values) <= 1 else mean


def designable_share(results: Sequence[Refolded]) -> float:
    """Return the share of backbones of which a sequence folds to within 2 Angstrom."""
    best: dict[str, float] = {}
    for one in results:
        best[one.backbone] = min(one.rmsd, best.get(one.backbone, float("inf")))
    return sum(value < DESIGNABLE for value in best.values()) / len(best)


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
