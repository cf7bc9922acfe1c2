"""``rfm compare``: which of two fits is better at points that are new to both."""

import argparse
from typing import TYPE_CHECKING

from rfm.command_line.arguments import add_batch_size, add_output, add_seed
from rfm.command_line.messages import progress_note, report, shows_progress, warn

if TYPE_CHECKING:
    from rfm.command_line.comparison import Side
    from rfm.datasets import Table
    from rfm.datasets.text_files import FileContent

SUMMARY = "compare two fits at the points of a table: paired likelihoods, and samples of each"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `run`."""
    parser.add_argument("run_a", metavar="RUN_A", help="folder that rfm fit made")
    parser.add_argument("run_b", metavar="RUN_B", help="another one, on the same manifold")
    parser.add_argument(
        "table", help="text file with the columns of both runs, or - for stdin; best of points that neither has seen"
    )
    parser.add_argument("--manifold", metavar="MODULE:NAME", help="a manifold of your own, if both were fitted on one")
    parser.add_argument("--source", metavar="MODULE:NAME", help="a source of your own, if both were fitted from one")
    parser.add_argument(
        "--groups",
        metavar="COLUMN",
        help="column whose equal cells mark rows that are no independent observations,\nsuch as those of one storm "
        "(default: rows at one place)",
    )
    add_seed(parser)
    add_batch_size(parser)
    add_output(parser)


def run(arguments: argparse.Namespace) -> None:
    """Compare two runs."""
    import numpy as np

    from rfm.command_line.comparison import compare
    from rfm.command_line.table_runs import read_input
    from rfm.flow.progress import counting_bar

    # Read once: it may be a pipe.
    file = read_input(arguments.table)
    a, table = _side(arguments, arguments.run_a, file)
    b, _ = _side(arguments, arguments.run_b, file)
    if a.name == b.name:
        raise ValueError(f"{arguments.run_a} and {arguments.run_b} are one run; name two")
    groups, grouped = None, "place"
    if arguments.groups is not None:
        index = table.index(arguments.groups)
        groups, grouped = np.array([row[index] for row in table.rows]), arguments.groups
    show, total = shows_progress(arguments, len(a.points)), 2 * len(a.points)
    with counting_bar(show, "log-prob", total) as advance:
        found = compare(
            a,
            b,
            groups,
            grouped,
            seed=arguments.seed,
            batch_size=arguments.batch_size,
            note=progress_note(arguments),
            advance=advance,
        )
    warn(arguments, found.warnings)
    report(arguments, found.record(), found.table())


def _side(arguments: argparse.Namespace, folder: str, file: "FileContent") -> "tuple[Side, Table]":
    """Return a run with the points of the table, and the table."""
    import torch

    from rfm.command_line.comparison import Side
    from rfm.command_line.fitted_runs import load_run
    from rfm.datasets import read_conditions

    flow, data = load_run(argparse.Namespace(**vars(arguments) | {"run": folder, "model": None}))
    flow.source.check_density(f"rfm compare, {folder}")
    table = data.coordinates.read(file)
    points = data.coordinates.points(table)
    condition = None
    if flow.conditions is not None:
        condition = read_conditions(table, flow.conditions)
        warn(arguments, flow.conditions.extrapolations(condition))
    used = data.points[torch.cat([data.split.train, data.split.validation])]
    seen = {row.tobytes() for row in used.flatten(1).numpy() + 0.0}
    trained = sum(row.tobytes() in seen for row in points.flatten(1).numpy() + 0.0)
    return Side(folder.rstrip("/"), flow, points, condition, trained), table
