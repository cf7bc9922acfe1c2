"""The command line: train and report, or make a picture."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

import rfm
from experiments.symsol.bodies import BODIES, NAMES
from experiments.symsol.evaluation import report
from experiments.symsol.packaging import package
from experiments.symsol.renderer import render
from experiments.symsol.training import Settings, trained
from manifolds import SO3
from manifolds.rotations import wxyz_from_matrix

QUICK = Settings(steps=8, pictures=2, pairs=8, width=4, hidden=16, held_out=2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status, 2 for a request that cannot be met."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        options.run_command(options)
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.symsol", description="A flow on SO(3) conditional on a picture."
    )
    parser.set_defaults(run_command=_study)
    parser.add_argument("--run", type=Path, help="folder to keep the flow in, to go on from, and to load it from")
    parser.add_argument("--steps", type=int, default=Settings.steps, help=f"training steps (default {Settings.steps})")
    rate = Settings.learning_rate
    parser.add_argument("--learning-rate", type=float, default=rate, help=f"its peak (default {rate})")
    parser.add_argument("--max-minutes", type=float, help="a cap on the training time, by the clock")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches (default 0)")
    parser.add_argument("--device", default="cpu", help="to train on: cpu (default), or cuda")
    parser.add_argument("--quick", action="store_true", help="a run of seconds, which shows that all parts work")
    parser.add_argument("--figure", type=Path, help="PNG file for pictures and samples")
    commands = parser.add_subparsers(title="other commands", metavar="COMMAND")
    picture = commands.add_parser("picture", help="make a picture of a body at a random pose")
    picture.set_defaults(run_command=_picture)
    picture.add_argument("body", choices=NAMES)
    picture.add_argument("file", type=Path, help="PNG file to write")
    picture.add_argument("--seed", type=int, default=0, help="of the pose (default 0)")
    package = commands.add_parser("package", help="write a trained flow in half precision, with its card")
    package.set_defaults(run_command=_package)
    package.add_argument(
        "folder", type=Path, help="to write: rfm/models/symsol for the one that comes with the package"
    )
    return parser


def _package(options: argparse.Namespace) -> None:
    """Write what ``--run`` holds as a packaged model, whose figures are those of the weights as rounded."""
    if options.run is None:
        raise ValueError("package: say which run, --run runs/symsol before the word package")
    flow = rfm.Flow.load(options.run)
    sizes = (4, 1, 20) if options.quick else (400, 12, 600)
    package(flow, options.folder, *sizes)
    print(f"{options.folder}: {sum(file.stat().st_size for file in options.folder.iterdir()) / 1e6:.2f} MB")


def _study(options: argparse.Namespace) -> None:
    settings = (
        QUICK
        if options.quick
        else Settings(steps=options.steps, learning_rate=options.learning_rate, seed=options.seed)
    )
    cap = None if options.max_minutes is None else 60 * options.max_minutes
    flow = trained(settings, options.run, max_seconds=cap, device=options.device)
    print(f"{flow.stopped}\n", file=sys.stderr)
    print("| minutes | of one core | steps | mean log-likelihood, validation |\n|---:|---:|---:|---:|")
    for record in flow.history:
        if "validation_nll" in record:
            minutes, of_one_core = record["seconds"] / 60, record["cpu_seconds"] / 60
            print(f"| {minutes:.1f} | {of_one_core:.1f} | {record['step']} | {-record['validation_nll']:.2f} |")
    sizes = (4, 1, 20) if options.quick else (400, 12, 600)
    print("\n" + report(flow.to(options.device), *sizes))
    flow.cpu()
    if options.figure is not None:
        from experiments.symsol.figure import draw

        draw(flow, options.figure, samples=20 if options.quick else 1000)


def _picture(options: argparse.Namespace) -> None:
    from matplotlib.image import imsave

    _check_new(options.file)
    pose = SO3().random_uniform(1, generator=torch.Generator().manual_seed(options.seed))
    picture = render(BODIES[NAMES.index(options.body)], pose)[0]
    imsave(options.file, picture.numpy(), cmap="gray", vmin=0, vmax=1, format="png")
    print("true pose, quaternion w x y z:", *(f"{value:.6f}" for value in wxyz_from_matrix(pose[0]).tolist()))


def _check_new(path: Path) -> None:
    if path.exists():
        raise FileExistsError(f"{path} exists already, and nothing is overwritten; choose another name")
