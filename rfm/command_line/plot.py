"""``rfm plot``: the picture of a run."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rfm.command_line.arguments import add_condition, add_run, path
from rfm.command_line.messages import report_columns

if TYPE_CHECKING:
    from torch import Tensor

    from rfm.command_line.run_folder import RunData
    from rfm.flow import Flow

SUMMARY = "draw a flow: a map, a Ramachandran plot, ... by manifold"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `run`."""
    add_run(parser)
    add_condition(parser, "; the data drawn are those nearest to it")
    parser.add_argument("--out", type=path, metavar="FILE", help="PNG file (default: density.png in the run's folder)")
    parser.add_argument("--force", action="store_true", help="replace the file")


def run(arguments: argparse.Namespace) -> None:
    """Draw a run."""
    from rfm.command_line.fitted_runs import load_run
    from rfm.command_line.given_conditions import check_required, given_condition, nearest
    from rfm.command_line.table_output import checked_output

    flow, data = load_run(arguments)
    arguments.out = arguments.out or str(Path(arguments.run) / "density.png")
    out = checked_output(arguments)
    assert out is not None
    condition = given_condition(flow, arguments)
    check_required(flow, condition, arguments)
    if condition is None:
        draw(flow, data.points, data, out, data.source)
    else:
        assert flow.conditions is not None
        near = data.points if data.condition is None else data.points[nearest(flow.conditions, data, condition)]
        draw(flow, near, data, out, f"{data.source}: {flow.conditions.title(condition) or 'nothing known'}", condition)
    report_columns(arguments, data)
    print(out)


def draw(
    flow: "Flow", points: "Tensor", data: "RunData", path: Path, title: str, condition: "Tensor | None" = None
) -> None:
    """Draw a flow and points to a file."""
    from rfm.plotting import plot_flow, save_figure

    some = points if len(points) else None
    save_figure(plot_flow(flow, some, title=title, coordinates=data.coordinates, condition=condition), path)
