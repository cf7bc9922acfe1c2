"""``rfm log-prob``: the density at the points of a table."""

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from rfm.command_line.arguments import add_batch_size, add_condition, add_run, add_table_output, positive
from rfm.command_line.messages import report_columns, shows_progress, warn
from rfm.command_line.solver_option import TRIED, add_error, chosen_solver

if TYPE_CHECKING:
    from torch import Tensor

SUMMARY = "score the points of a table: log-density in nats, in row order"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `run`."""
    add_run(parser, packaged=True)
    parser.add_argument("table", help="file with the same columns as the table that was fitted, or - for stdin")
    parser.add_argument(
        "--columns",
        nargs="+",
        metavar="COLUMN",
        help="columns that hold the points, where they are called otherwise than in the table that was fitted;\nin the "
        "same order and units",
    )
    add_condition(parser, "; the table's columns by default")
    parser.add_argument(
        "--steps",
        type=positive,
        help="the density of what rfm sample draws with as many --steps, of a flow that rfm distil made",
    )
    add_error(parser, "nats")
    add_batch_size(parser)
    add_table_output(parser)


def run(arguments: argparse.Namespace) -> None:
    """Score the points of a table."""
    from rfm.command_line.fitted_runs import load_run
    from rfm.command_line.given_conditions import given_condition
    from rfm.command_line.table_output import checked_output, output_writer, parts
    from rfm.command_line.table_runs import read_input
    from rfm.datasets import read_conditions
    from rfm.flow.progress import counting_bar

    flow, data = load_run(arguments)
    out = checked_output(arguments)
    own = data.coordinates
    table = own.read(read_input(arguments.table))
    if arguments.columns:
        own = own.in_columns(table, arguments.columns)
    points = own.points(table)
    condition = given_condition(flow, arguments)
    if condition is None and flow.conditions is not None:
        condition = read_conditions(table, flow.conditions)
        warn(arguments, flow.conditions.extrapolations(condition))

    def given(part: slice) -> "Tensor | None":
        return condition if condition is None or condition.ndim == 1 else condition[part]

    first = slice(0, TRIED)
    solver = chosen_solver(
        arguments,
        len(points),
        "nats",
        lambda solver: flow.log_prob(points[first], condition=given(first), solver=solver),
        steps=arguments.steps,
    )
    show, total = shows_progress(arguments, len(points)), len(points)
    with output_writer(arguments, out) as write, counting_bar(show, "log-prob", total) as advance:
        for rows in parts(total, arguments.part_rows):
            part = slice(rows.start, rows.stop)
            scores = flow.log_prob(
                points[part],
                condition=given(part),
                steps=arguments.steps,
                solver=solver,
                batch_size=arguments.batch_size,
                progress=advance,
            )
            write(data.coordinates.score_columns(scores), {})
    report_columns(arguments, replace(data, coordinates=own), table)
