"""``rfm sample`` for flows of protein backbones: structure files out, a motif in."""

import argparse
import re
from pathlib import Path

import torch
from torch import Tensor

from manifolds import CentredPoses
from rfm.backbone_sampling import ROTATION_RATE, Motif, sample_backbones
from rfm.backbones import atoms_from_frames, frames_from_atoms
from rfm.datasets.structures import read_chain, write_chain
from rfm.flow import Flow
from rfm.serialization import read_json

_DRAWN = 16
_PART = 256
"""Backbones drawn before they are written, which bounds memory."""
_OPTIONS = ("length", "steps", "rotation_schedule", "rotation_rate", "motif", "open_bonds")
_REFUSED = {
    "log_prob": "--log-prob is not for backbones: their rotation schedule and self-conditioning change the density",
    "condition": "--condition is not for backbones: the flow has no conditions",
    "condition_file": "--condition-file is not for backbones: the flow has no conditions",
    "json": "--json is not for backbones, which are written as structure files",
}


def holds_backbones(folder: Path) -> bool:
    """Return whether a folder holds a flow of backbones."""
    path = folder / "flow.json"
    manifold = read_json(path).get("manifold") if path.is_file() else None
    return isinstance(manifold, dict) and manifold.get("class") == f"manifolds.{CentredPoses.__name__}"


def check_others(arguments: argparse.Namespace) -> None:
    """Raise ValueError if an option for backbones is given for a run of another kind."""
    for name in _OPTIONS:
        if getattr(arguments, name) not in (None, False):
            option = name.replace("_", "-")
            raise ValueError(
                f"--{option} is for flows of protein backbones, and {arguments.run} is another\nleave it out"
            )


def sample(arguments: argparse.Namespace) -> None:
    """``rfm sample``: backbones as PDB and mmCIF files in a folder."""
    from rfm.plotting import plot_backbone, save_figure

    for name, sentence in _REFUSED.items():
        if getattr(arguments, name):
            raise ValueError(f"{sentence}\nleave it out")
    if arguments.length is None:
        raise ValueError("backbones need a length\ngive --length RESIDUES")
    linear, rate = arguments.rotation_schedule == "linear", arguments.rotation_rate
    if linear and rate is not None:
        raise ValueError("--rotation-rate is of the exponential schedule\nleave it out, or --rotation-schedule linear")
    rate = None if linear else rate or ROTATION_RATE
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    flow = Flow.load(arguments.run).to(device)
    folder = _folder(arguments)
    count = _DRAWN if arguments.n is None else arguments.n
    first = last = ""
    for residues in arguments.length:
        generator = torch.Generator(device).manual_seed(arguments.seed)
        for start in range(0, count, _PART):
            frames = sample_backbones(
                flow,
                residues,
                min(_PART, count - start),
                steps=arguments.steps or 100,
                rotation_rate=rate,
                motif=None if arguments.motif is None else _motif(arguments.motif, residues),
                close=not arguments.open_bonds,
                generator=generator,
                progress=not arguments.quiet,
            )
            atoms = atoms_from_frames(frames).cpu()
            for i, chain in enumerate(atoms, start):
                last = _written(folder, residues, i, chain)
                first = first or last
            if start == 0:
                picture = plot_backbone(atoms[0], f"length-{residues}-0001")
                save_figure(picture, folder / f"length-{residues}-0001.png")
    total = count * len(arguments.length)
    print(f"{total} backbones, each as .pdb and .cif, from {first} to {last}; a picture of each length")


def _written(folder: Path, residues: int, i: int, atoms: Tensor) -> str:
    stem = f"length-{residues}-{i + 1:04d}"
    for suffix in (".pdb", ".cif"):
        write_chain(folder / (stem + suffix), atoms)
    return f"{folder / stem}.pdb"


def _folder(arguments: argparse.Namespace) -> Path:
    """Return the folder to write to, made if it is not there, refused if it holds anything."""
    if arguments.out is None:
        raise ValueError("backbones are written to a folder\ngive --out FOLDER")
    folder = Path(arguments.out)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"--out {folder} is a file\nname a folder")
    if folder.is_dir() and any(folder.iterdir()) and not arguments.force:
        raise FileExistsError(f"--out {folder} is not empty\nuse --force to write into it, or another name")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _motif(parts: list[list[str]], residues: int) -> Motif:
    """Return the residues that ``--motif FILE RESIDUES PLACE`` means, given once or several times."""
    frames, places = [], []
    for file, which, place in parts:
        found = re.fullmatch(r"(\w+):(-?\d+[A-Z]?)(?:-(-?\d+[A-Z]?))?", which)
        if found is None or not re.fullmatch(r"[1-9]\d*", place):
            raise ValueError(
                f"--motif {file} {which} {place}: is no file, residues, place\nwrite for example 1abc.pdb A:10-25 40"
            )
        chain = read_chain(file, found[1])
        for number in (found[2], found[3] or found[2]):
            if number not in chain.numbers:
                raise ValueError(f"--motif {file}: chain {found[1]} has no residue {number}\nlook into the file")
        first, last = (chain.numbers.index(number) for number in (found[2], found[3] or found[2]))
        if last < first:
            raise ValueError(f"--motif {file} {which}: ends before it begins\nwrite the first residue first")
        frames.append(frames_from_atoms(chain.atoms[first : last + 1]))
        places.append(torch.arange(last - first + 1) + int(place) - 1)
    order = torch.cat(places)
    if bool((order.diff() <= 0).any()) or int(order[-1]) >= residues:
        raise ValueError(
            f"--motif: the places {', '.join(f'{int(p[0]) + 1}-{int(p[-1]) + 1}' for p in places)} must ascend, not "
            f"overlap, and end by residue {residues}\ngive others, or a larger --length"
        )
    return Motif(torch.cat(frames), order)
