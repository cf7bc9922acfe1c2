"""``rfm demo``: the main job on real data."""

import argparse
from pathlib import Path

from rfm.command_line.arguments import add_device, add_output, add_seed, path, positive_number
from rfm.command_line.messages import progress_note, report
from rfm.command_line.plot import draw

SUMMARY = "fit real data of the earth's surface, print a table, draw a map"
_DEMO_MARK = ".demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `run`."""
    parser.add_argument(
        "dataset",
        nargs="?",
        default="airports",
        choices=("airports", "volcano", "earthquake", "flood", "fire"),
        help="airports comes with the installation (default); the others are looked for in\nthe folder RFM_DATA, then "
        "downloaded",
    )
    parser.add_argument("--out", type=path, metavar="FOLDER", help="folder for everything (default: runs/demo-DATASET)")
    parser.add_argument(
        "--max-seconds", type=positive_number, default=150.0, help="cap on the training time (default: 150)"
    )
    add_device(parser)
    add_seed(parser)
    add_output(parser)


def run(arguments: argparse.Namespace) -> None:
    """Fit real data, score the flow and draw it."""
    from manifolds import Sphere
    from rfm import datasets
    from rfm.command_line.evaluation import evaluate
    from rfm.command_line.fitted_runs import fitted_record, fitted_text, train_run
    from rfm.command_line.run_folder import RunData
    from rfm.datasets.splits import group_split

    dataset = datasets.load(arguments.dataset)
    folder = Path(arguments.out or f"runs/demo-{dataset.name}")
    arguments.out, arguments.steps, arguments.batch_size, arguments.validations = str(folder), None, None, 16
    arguments.refine, arguments.more_steps, arguments.floor = True, None, False
    # A demo is to be run again and again; only what an earlier demo made is replaced.
    arguments.resume, arguments.force = False, _is_demo(folder)
    source = f"{dataset.name}: {dataset.source}"
    data = RunData(
        dataset.points, group_split(dataset.points, arguments.seed), dataset.coordinates, source, dataset.sha256
    )
    note = progress_note(arguments)
    note(f"{len(dataset.points)} points, {source}")
    flow = train_run(Sphere(2), data, arguments)
    (folder / _DEMO_MARK).touch()
    result = evaluate(flow, data, note)
    note("figure")
    figure = folder / "map.png"
    draw(
        flow,
        data.points,
        data,
        figure,
        f"{dataset.name.capitalize()}: {len(dataset.points):,} points, and a flow fitted to them",
    )
    text = f"{result.table()}\n{fitted_text(flow, data, folder)}\nmap: {figure}"
    report(arguments, fitted_record(flow, data, folder) | result.record() | {"map": str(figure)}, text)


def _is_demo(folder: Path) -> bool:
    from rfm.command_line.run_folder import is_run_folder

    return (folder / _DEMO_MARK).exists() or ((folder / "checkpoint.json").exists() and not is_run_folder(folder))
