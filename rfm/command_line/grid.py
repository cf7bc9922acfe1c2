"""``rfm grid``: the density on a grid, for other programs."""

import argparse

from rfm.command_line.arguments import (
    add_batch_size,
    add_condition,
    add_output,
    add_run,
    path,
    positive,
    positive_number,
)
from rfm.command_line.messages import report, report_columns
from rfm.command_line.rate_arguments import add_rate, rate_of, rate_text
from rfm.command_line.solver_option import add_error, density_solver

SUMMARY = "write the density on a grid: netCDF for xarray, QGIS and GMT, GeoTIFF, or a table"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `run`."""
    add_run(parser)
    parser.add_argument(
        "--out",
        type=path,
        metavar="FILE",
        required=True,
        help="file to write: .nc (netCDF), .tif (GeoTIFF, of the earth) or .csv",
    )
    parser.add_argument("--force", action="store_true", help="replace the file")
    parser.add_argument(
        "--resolution",
        type=positive_number,
        metavar="STEP",
        help="width of the cells: degrees that divide 90, or the unit of Euclidean\ncoordinates (default: about 20,000 "
        "cells, 80,000 where these are too coarse)",
    )
    parser.add_argument(
        "--average",
        type=positive,
        default=1,
        metavar="COUNT",
        help="with --resolution: points along each side of a cell, whose mean is its density,\nfor peaks narrower than "
        "cells (default: 1, its centre)",
    )
    parser.add_argument(
        "--window",
        nargs="+",
        metavar="NAME=LOW..HIGH",
        help="ranges of Euclidean coordinates, all of them (default: those of draws)",
    )
    add_condition(parser)
    add_rate(parser)
    add_error(parser, "nats")
    add_batch_size(parser)
    add_output(parser)


def run(arguments: argparse.Namespace) -> None:
    """Write the density on a grid."""
    from dataclasses import replace
    from pathlib import Path

    from rfm.command_line.fitted_runs import load_run
    from rfm.command_line.given_conditions import check_required, given_condition
    from rfm.command_line.region_arguments import window_of
    from rfm.command_line.table_output import checked_output
    from rfm.grids import cell_count, check_ending, density_grid, on_earth, write_grid

    flow, data = load_run(arguments)
    earth = on_earth(data.coordinates)
    check_ending(Path(arguments.out), earth)
    out = checked_output(arguments)
    assert out is not None
    cells = cell_count(flow.manifold, arguments.resolution) * arguments.average**flow.manifold.dim
    condition = given_condition(flow, arguments)
    check_required(flow, condition, arguments)
    rate = rate_of(arguments, data)
    if rate is not None and not earth:
        raise ValueError(
            f"rates are per square kilometre, of runs on the earth, not on {flow.manifold}; leave out --years"
        )
    found = density_grid(
        flow,
        resolution=arguments.resolution,
        average=arguments.average,
        limits=None if arguments.window is None else window_of(data.coordinates, arguments.window),
        coordinates=data.coordinates,
        condition=condition,
        solver=density_solver(arguments, flow, data, condition, cells),
        batch_size=arguments.batch_size,
        progress=not arguments.quiet,
    )
    words = [data.source, *([] if condition is None or flow.conditions is None else [flow.conditions.title(condition)])]
    found = replace(found, title=": ".join(filter(None, words)))
    text = found.describe()
    if rate is not None:
        found = found.with_rate(rate.per_year)
        text += f"\n{rate_text(rate)}"
    write_grid(found, out)
    record = {
        "out": str(out),
        "cells": {axis.name: len(axis) for axis in found.grid.axes},
        "variables": [unit.name for unit in found.units],
        "integral": found.integral,
    }
    report(arguments, record, f"{text}\n{out}")
    report_columns(arguments, data)
