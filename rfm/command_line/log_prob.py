"""``rfm log-prob``: the density at the points of a table."""

import argparse
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from rfm.command_line.arguments import add_batch_size, add_condition, add_run, add_table_output, positive
from rfm.command_line.messages import report_columns, shows_progress, warn
from rfm.command_line.solver_option import TRIED, add_error, chosen_solver

if TYPE_CHECKING:
    from torch import Tensor

    from rfm.datasets import Table

SUMMARY = "score the points of a table: log-density in nats, in row order"
_WARNINGS = 8
"""On conditions beyond the range of the data, at most."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `run`."""
    add_run(parser, packaged=True)
    parser.add_argument(
        "table",
        help="file with the same columns as the table that was fitted, or - for stdin; Parquet, Arrow, .npy and long\n"
        "texts are read part by part, also several by 'folder/*.parquet'",
    )
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
    from rfm.command_line.input_parts import input_parts, rows_of
    from rfm.command_line.output_parts import output_parts
    from rfm.command_line.table_output import checked_output
    from rfm.datasets import read_conditions
    from rfm.flow.progress import counting_bar

    flow, data = load_run(arguments)
    out = checked_output(arguments)
    own = data.coordinates
    source = input_parts(arguments, own)
    if arguments.columns:
        own = own.in_columns(source.first, arguments.columns)
    one = given_condition(flow, arguments)
    seen = set[str]()

    def given(table: "Table") -> "Tensor | None":
        if one is not None or flow.conditions is None:
            return one
        condition = read_conditions(table, flow.conditions)
        new = [sentence for sentence in flow.conditions.extrapolations(condition) if sentence not in seen]
        # A long table has its own range in each part.
        warn(arguments, new[: max(0, _WARNINGS - len(seen))])
        seen.update(new)
        return condition

    few = rows_of(source.first, 0, TRIED)
    solver = chosen_solver(
        arguments,
        sys.maxsize if source.total is None else source.total,
        "nats",
        lambda solver: flow.log_prob(own.points(few), condition=given(few), solver=solver),
        steps=arguments.steps,
    )
    show = shows_progress(arguments, arguments.part_rows if source.total is None else source.total)
    with (
        output_parts(arguments, out, source.total, source.files) as output,
        counting_bar(show, "log-prob", source.total or 0) as advance,
    ):
        for number, table in source.parts(output.is_due):
            scores = flow.log_prob(
                own.points(table),
                condition=given(table),
                steps=arguments.steps,
                solver=solver,
                batch_size=arguments.batch_size,
                progress=advance,
            )
            output.write(number, data.coordinates.score_columns(scores), {})
    report_columns(arguments, replace(data, coordinates=own), source.first)
