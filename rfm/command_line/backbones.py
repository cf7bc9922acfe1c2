"""``rfm sample`` for flows of protein backbones: structure files out, a motif in."""

import argparse
import re
from pathlib import Path

import torch
from torch import Tensor

from manifolds import CentredPoses
from rfm.flow import Flow
from rfm.models.packaged import unpacked
from rfm.proteins.backbones import atoms_from_frames, frames_from_atoms
from rfm.proteins.peptide_bonds import OPEN, open_bonds
from rfm.proteins.sampling import ROTATION_RATE, STEPS, Motif, sample_backbones
from rfm.proteins.structures import Chain, can_write_mmcif, read_chain, write_chain
from rfm.records.descriptions import read_json

_DRAWN = 16
_PART = 256
"""Backbones drawn before they are written, at most, which bounds memory."""
_SHOWN = 8


def holds_backbones(folder: Path) -> bool:
    """Return whether a folder holds a flow of backbones."""
    path = folder / "flow.json"
    manifold = read_json(path).get("manifold") if path.is_file() else None
    return isinstance(manifold, dict) and manifold.get("class") == f"manifolds.{CentredPoses.__name__}"


def sample_to_folder(arguments: argparse.Namespace) -> None:
    """Draw backbones, as PDB and mmCIF files in a folder."""
    from rfm.plotting import plot_backbone, save_figure

    if arguments.length is None:
        raise ValueError("backbones need a length; give --length RESIDUES")
    linear, rate = arguments.rotation_schedule == "linear", arguments.rotation_rate
    if linear and rate is not None:
        raise ValueError("--rotation-rate is of the exponential schedule; leave it out, or --rotation-schedule linear")
    rate = None if linear else rate or ROTATION_RATE
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    flow = unpacked(Flow.load(arguments.run)).to(device)
    folder = _folder(arguments)
    count, part = _DRAWN if arguments.n is None else arguments.n, min(_PART, arguments.part_rows)
    first, last, opened = "", "", list[str]()
    motifs = [None if arguments.motif is None else _motif(arguments.motif, n) for n in arguments.length]
    for residues, motif in zip(arguments.length, motifs, strict=True):
        generator = torch.Generator(device).manual_seed(arguments.seed)
        sequence = _sequence(residues, motif)
        for start in range(0, count, part):
            frames = sample_backbones(
                flow,
                residues,
                min(part, count - start),
                steps=arguments.steps or STEPS,
                rotation_rate=rate,
                motif=motif,
                close=not arguments.open_bonds,
                clear=not arguments.leave_clashes,
                generator=generator,
                progress=not arguments.quiet,
            )
            atoms = atoms_from_frames(frames).cpu()
            for i, chain in enumerate(atoms, start):
                last = _written(folder, residues, i, chain, sequence)
                first = first or last
            opened += _open(residues, start, open_bonds(frames))
            if start == 0:
                picture = plot_backbone(atoms[0], _stem(residues, 0))
                save_figure(picture, folder / f"{_stem(residues, 0)}.png")
    total = count * len(arguments.length)
    formats = " and ".join(_suffixes())
    print(f"{total} backbones, each as {formats}, from {first} to {last}; a picture of each length")
    if not can_write_mmcif():
        print(".cif needs the package gemmi; install the extra: pip install 'riemannian-flow-matching[protein]'")
    if opened:
        more = f" and {len(opened) - _SHOWN} more" if len(opened) > _SHOWN else ""
        print(f"bonds that stay open, C - N off by more than {OPEN} Angstrom: {'; '.join(opened[:_SHOWN])}{more}")


def _suffixes() -> tuple[str, ...]:
    return (".pdb", ".cif") if can_write_mmcif() else (".pdb",)


def _stem(residues: int, i: int) -> str:
    return f"length-{residues}-{i + 1:04d}"


def _written(folder: Path, residues: int, i: int, atoms: Tensor, sequence: str) -> str:
    stem = _stem(residues, i)
    for suffix in _suffixes():
        write_chain(folder / (stem + suffix), atoms, sequence)
    return f"{folder / stem}.pdb"


def _sequence(residues: int, motif: Motif | None) -> str:
    """Return the letters of a backbone: the motif's own, and glycines, of which nothing but backbone is known."""
    letters = ["G"] * residues
    if motif is not None:
        for place, letter in zip(motif.places.tolist(), motif.sequence, strict=True):
            letters[place] = letter
    return "".join(letters)


def _open(residues: int, start: int, opened: Tensor) -> list[str]:
    """Return in words which bonds of which chains, counted from ``start``, are open, ``(chains, residues - 1)``."""
    words = []
    for i, chain in enumerate(opened.cpu(), start):
        bonds = [f"{j + 1}-{j + 2}" for j in torch.nonzero(chain)[:, 0].tolist()]
        if bonds:
            more = f" and {len(bonds) - _SHOWN} more" if len(bonds) > _SHOWN else ""
            words.append(f"{_stem(residues, i)} at {', '.join(bonds[:_SHOWN])}{more}")
    return words


def _folder(arguments: argparse.Namespace) -> Path:
    """Return the folder to write to, created if it is missing, refused if it holds anything."""
    if arguments.out is None:
        raise ValueError("backbones are written to a folder; give --out FOLDER")
    folder = Path(arguments.out)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"--out {folder} is a file; name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not arguments.force:
        raise FileExistsError(f"--out {folder} is not empty; use --force to write into it, or another name")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _motif(parts: list[list[str]], residues: int) -> Motif:
    """Return the residues that ``--motif FILE RESIDUES PLACE`` means, given once or several times."""
    frames, places, letters, labels = list[Tensor](), list[Tensor](), "", list[str]()
    for file, which, place in parts:
        chain, first, last = _stretch(file, which, place)
        frames.append(frames_from_atoms(chain.atoms[first : last + 1]))
        places.append(torch.arange(last - first + 1) + int(place) - 1)
        letters += chain.sequence[first : last + 1]
        labels += [f"{chain.name} {number}" for number in chain.numbers[first : last + 1]]
    order = torch.cat(places)
    if bool((order.diff() <= 0).any()) or int(order[-1]) >= residues:
        raise ValueError(
            f"--motif: the places {', '.join(f'{int(p[0]) + 1}-{int(p[-1]) + 1}' for p in places)} must ascend, not "
            f"overlap, and end by residue {residues}; give others, or a larger --length"
        )
    motif = Motif(torch.cat(frames), order, letters)
    if (i := motif.broken()) is not None:
        raise ValueError(
            f"--motif: residues {labels[i - 1]} and {labels[i]} would be neighbours at {int(order[i])} and "
            f"{int(order[i]) + 1}, and no peptide bond joins them; leave places between them"
        )
    return motif


def _stretch(file: str, which: str, place: str) -> tuple[Chain, int, int]:
    """Return the chain that ``FILE CHAIN:FIRST-LAST`` means, and which of its residues are the ends."""
    match = re.fullmatch(r"([^:\s]+):(-?\d+[A-Za-z]?)(?:-(-?\d+[A-Za-z]?))?", which)
    if match is None or not re.fullmatch(r"[1-9]\d*", place):
        raise ValueError(
            f"--motif {file} {which} {place}: is no file, residues, place; write for example 1abc.pdb A:10-25 40"
        )
    chain = read_chain(file, match[1])
    ends = (match[2], match[3] or match[2])
    for number in ends:
        if (count := chain.numbers.count(number)) > 1:
            raise ValueError(f"--motif {file}: chain {match[1]} has {count} residues {number}; renumber the file")
        if number not in chain.numbers:
            left_out = f" with a backbone; left out: {', '.join(chain.left_out)}" if chain.left_out else ""
            raise ValueError(f"--motif {file}: chain {match[1]} has no residue {number}{left_out}; look into the file")
    first, last = map(chain.numbers.index, ends)
    if last < first:
        raise ValueError(f"--motif {file} {which}: ends before it begins; write the first residue first")
    for i in chain.breaks:
        if first < i <= last:
            apart = float(torch.linalg.vector_norm(chain.atoms[i, 0] - chain.atoms[i - 1, 2]))
            raise ValueError(
                f"--motif {file} {which}: the chain has a break between residues {chain.numbers[i - 1]} and "
                f"{chain.numbers[i]} (C - N {apart:.1f} Angstrom); give each side as a --motif of its own, with places "
                "between them"
            )
    return chain, first, last
