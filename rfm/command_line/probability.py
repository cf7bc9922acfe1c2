"""``rfm probability``: how likely a region is, and how many events are to be expected in it."""

import argparse
from typing import TYPE_CHECKING, Any

from rfm.command_line.arguments import (
    add_batch_size,
    add_condition,
    add_output,
    add_run,
    add_seed,
    number,
    path,
    positive,
    positive_number,
)
from rfm.command_line.messages import report, report_columns
from rfm.command_line.rate_arguments import add_rate, rate_of, rate_text
from rfm.command_line.solver_option import add_error, density_solver

if TYPE_CHECKING:
    from rfm.regions import Probability, Rate, Region

SUMMARY = "print the probability of a region, with its error, and expected numbers of events"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `run`."""
    add_run(parser)
    region = parser.add_mutually_exclusive_group(required=True)
    region.add_argument(
        "--box",
        nargs="+",
        metavar="NAME=VALUE",
        help="south=30 north=40 west=-10 east=20 on the sphere, in degrees, eastwards from\nwest to east, over the "
        "date line too; phi=-90..-30 psi=100..-160 on a torus,\nx=0..2 in space, in the columns and units of the run; "
        "the rest is left open",
    )
    region.add_argument(
        "--ball",
        nargs="+",
        type=number,
        metavar="NUMBER",
        help="a centre in the columns of the run, then a radius: latitude, longitude and\nkilometres on the earth; "
        "degrees on other spheres, on tori and for rotations;\nelsewhere the unit of the metric",
    )
    region.add_argument(
        "--polygon",
        type=path,
        metavar="FILE",
        help="GeoJSON with polygons; edges are straight in longitude and latitude",
    )
    add_condition(parser)
    add_rate(parser)
    parser.add_argument(
        "--horizon",
        nargs="+",
        type=positive_number,
        metavar="YEARS",
        default=[1.0, 10.0, 50.0],
        help="with --years: in how long a time one event is to come at least (default: 1 10 50)",
    )
    parser.add_argument(
        "--tolerance", type=positive_number, default=1e-3, help="relative error to reach (default: 0.001)"
    )
    parser.add_argument(
        "--evaluations", type=positive, default=20_000, help="densities to compute at most (default: 20,000)"
    )
    parser.add_argument(
        "--draws",
        type=positive,
        metavar="COUNT",
        help="draws to compare with, or to count where a region\ncannot be integrated over (default: 2,000, or 20,000)",
    )
    add_seed(parser)
    add_error(parser, "nats")
    add_batch_size(parser)
    add_output(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print the probability of a region."""
    from dataclasses import replace

    import torch

    from rfm.command_line.fitted_runs import load_run
    from rfm.command_line.given_conditions import check_required, given_condition
    from rfm.command_line.region_arguments import ball_in_words, region_of
    from rfm.grids import on_earth
    from rfm.regions import probability

    flow, data = load_run(arguments)
    region = region_of(arguments, flow, data)
    condition = given_condition(flow, arguments)
    check_required(flow, condition, arguments)
    rate = rate_of(arguments, data)
    found = probability(
        flow,
        region,
        condition=condition,
        tolerance=arguments.tolerance,
        evaluations=arguments.evaluations,
        draws=arguments.draws,
        solver=density_solver(arguments, flow, data, condition, arguments.evaluations),
        generator=torch.Generator(flow._dtype_and_device()[1]).manual_seed(arguments.seed),
        batch_size=arguments.batch_size,
        progress=not arguments.quiet,
    )
    if arguments.ball is not None:
        found = replace(found, region=ball_in_words(flow.manifold, data.coordinates, arguments.ball))
    area = _area_km2(region) if on_earth(data.coordinates) else None
    record, lines = found.record(), [found.describe()]
    if area is not None:
        record |= {"area_km2": area, "mean_density_per_km2": found.value / area}
        lines.append(f"area {area:,.0f} km2; {found.value / area:.4g} per km2 on average")
    if rate is not None:
        expected, more = _expected(found, rate, area, arguments.horizon)
        record |= expected
        lines += more
    report(arguments, record, "\n".join(lines))
    report_columns(arguments, data)


def _area_km2(region: "Region") -> float | None:
    """Return the area of a region of the earth; None where it is not known."""
    from rfm.grids import geography_of

    volume, unit = region.volume, geography_of(region.manifold).kilometres
    return None if volume is None or unit is None else volume * unit**2


def _expected(
    found: "Probability", rate: "Rate", area: float | None, horizons: list[float]
) -> tuple[dict[str, Any], list[str]]:
    """Return the numbers of events to be expected, for JSON and in lines."""
    value, low, high = rate.expected(found.value, found.interval_95)
    record: dict[str, Any] = {"events_per_year": value, "events_per_year_interval_95": [low, high]}
    lines = [rate_text(rate), f"{value:.4g} per year in the region (95 % interval {low:.4g} to {high:.4g})"]
    if area is not None:
        record["events_per_km2_year"] = value / area
        lines[-1] += f", {value / area:.4g} per km2 and year"
    record["at_least_one"] = {}
    for years in horizons:
        p, least, most = rate.at_least_one(found.value, years, found.interval_95)
        record["at_least_one"][f"{years:g}"] = {"probability": p, "interval_95": [least, most]}
        time = f"{years:g} year{'s' * (years != 1)}"
        lines.append(f"at least one in {time}: probability {p:.4g} (95 % interval {least:.4g} to {most:.4g})")
    lines.append("events are taken as independent and equally frequent at all times; the density, as it was fitted")
    return record, lines
