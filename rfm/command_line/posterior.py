"""``rfm posterior``: draws of a flow given measurements of its columns."""

import argparse
from typing import TYPE_CHECKING, Any

from rfm.command_line.arguments import (
    add_batch_size,
    add_condition,
    add_run,
    add_seed,
    add_table_output,
    path,
    positive,
)

if TYPE_CHECKING:
    from torch import Tensor

    from rfm.command_line.run_folder import RunData
    from rfm.flow import Flow

SUMMARY = "draw points given measurements of their columns, in the columns and units of the table that was fitted"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `run`."""
    add_run(parser)
    parser.add_argument(
        "--given",
        nargs="+",
        action="extend",
        required=True,
        metavar="COLUMN=VALUE±SD",
        help="what was measured of a column, with its standard deviation, in the units of the\ntable, such as "
        "latitude=10±2 or longitude=179+-5; may be given several times",
    )
    parser.add_argument("-n", type=positive, default=1000, metavar="COUNT", help="how many (default: 1000)")
    parser.add_argument(
        "--particles",
        type=positive,
        default=1024,
        help="that are tempered, at least (default: 1024, or as many as are drawn); more find rarer modes",
    )
    add_condition(parser)
    parser.add_argument("--plot", type=path, metavar="FILE", help="also draw prior and posterior to a PNG file")
    add_seed(parser)
    add_batch_size(parser)
    add_table_output(parser)


def run(arguments: argparse.Namespace) -> None:
    """Draw from the posterior."""
    import torch

    from rfm.command_line.column_measurements import column_likelihood
    from rfm.command_line.fitted_runs import load_run
    from rfm.command_line.given_conditions import check_required, given_condition, known_columns
    from rfm.command_line.messages import warn
    from rfm.command_line.table_output import checked_output, output_writer
    from rfm.flow.progress import counting_bar
    from rfm.posterior import Tempering

    flow, data = load_run(arguments)
    out = checked_output(arguments)
    likelihood = column_likelihood(arguments.given, data.coordinates)
    condition = given_condition(flow, arguments)
    check_required(flow, condition, arguments)
    generator = torch.Generator(flow._dtype_and_device()[1]).manual_seed(arguments.seed)
    with counting_bar(not arguments.quiet, "posterior", 100, "% of the likelihood") as advance:
        draws = flow.posterior(
            likelihood,
            arguments.n,
            method=Tempering(particles=arguments.particles, progress=advance),
            condition=condition,
            generator=generator,
            batch_size=arguments.batch_size,
        )
    known = known_columns(flow, condition)
    cells = {name: values * arguments.n for name, values in known.items()}
    with output_writer(arguments, out, data.coordinates.file_layout) as write:
        complete = {name: values for name, values in cells.items() if None not in values}
        columns = dict(data.coordinates.leading(arguments.n, complete))
        columns |= dict(zip(data.coordinates.names, data.coordinates.columns_of(draws.points).T, strict=True))
        write(columns, cells)
    if arguments.plot:
        _plot(arguments, flow, data, draws.points, condition)
    warn(arguments, draws.warnings)
    if not arguments.quiet:
        worth = f"{arguments.n} draws, worth {draws.effective_sample_size:.0f} independent ones"
        warn(arguments, (f"{worth}; log-evidence {draws.log_evidence:.2f} nats",))


def _plot(
    arguments: argparse.Namespace, flow: "Flow", data: "RunData", points: "Tensor", condition: "Tensor | None"
) -> None:
    from rfm.plotting import plot_flow, save_figure

    own: dict[str, Any] = {"coordinates": data.coordinates, "condition": condition, "labels": ("posterior", "prior")}
    figure = plot_flow(flow, points, title=f"given {', '.join(arguments.given)}", **own)
    save_figure(figure, arguments.plot)
