"""``rfm regions``: the smallest regions that hold a given probability, and how many new points they hold."""

import argparse
from typing import TYPE_CHECKING, Any

from rfm.command_line.arguments import (
    add_batch_size,
    add_condition,
    add_output,
    add_run,
    add_seed,
    path,
    percentage,
    positive,
    positive_number,
)
from rfm.command_line.messages import report, report_columns
from rfm.command_line.solver_option import add_error, density_solver

if TYPE_CHECKING:
    from torch import Tensor

    from rfm.command_line.run_folder import RunData
    from rfm.flow import Flow
    from rfm.integrators import Method
    from rfm.regions import Coverage, Level, Outline

SUMMARY = "print highest-density regions, the share of test points in them, and write their outlines as GeoJSON"
_DRAWS = 4000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `run`."""
    add_run(parser, packaged=True)
    parser.add_argument(
        "--probabilities",
        nargs="+",
        type=percentage,
        metavar="PERCENT",
        default=[0.5, 0.9, 0.99],
        help="of the regions (default: 50 90 99)",
    )
    parser.add_argument("--out", type=path, metavar="FILE", help="GeoJSON file with the outlines, of the earth")
    parser.add_argument("--force", action="store_true", help="replace the file")
    parser.add_argument(
        "--resolution", type=positive_number, metavar="DEGREES", help="of the outlines, a divisor of 90"
    )
    parser.add_argument(
        "--draws", type=positive, default=_DRAWS, help=f"that levels are estimated from (default: {_DRAWS:,})"
    )
    add_condition(parser, "; without it, of each test point its own")
    add_seed(parser)
    add_error(parser, "nats")
    add_batch_size(parser)
    add_output(parser)


def run(arguments: argparse.Namespace) -> None:
    """Print highest-density regions."""
    import torch

    from rfm.command_line.fitted_runs import load_run
    from rfm.command_line.given_conditions import check_required, given_condition
    from rfm.command_line.table_output import checked_output
    from rfm.grids import cell_count, density_grid, on_earth
    from rfm.regions import HighestDensity, outlines, write_geojson

    flow, data = load_run(arguments)
    out = checked_output(arguments)
    earth = on_earth(data.coordinates)
    if out is not None and not earth:
        raise ValueError(
            f"--out {out} is to hold outlines on the earth, and the run is on {flow.manifold}; leave it out, or use "
            "rfm grid and its highest_density_probability"
        )
    condition = given_condition(flow, arguments)
    check_required(flow, condition, arguments)
    probabilities = sorted(set(arguments.probabilities))
    cells = cell_count(flow.manifold, arguments.resolution) if earth else 0
    solver = density_solver(arguments, flow, data, condition, arguments.draws + cells)
    shown: dict[str, Any] = {"solver": solver, "batch_size": arguments.batch_size, "progress": not arguments.quiet}
    generator = torch.Generator(flow._dtype_and_device()[1]).manual_seed(arguments.seed)
    regions = HighestDensity(flow, arguments.draws, condition=condition, generator=generator, **shown)
    levels = [regions.level(p) for p in probabilities]
    covered = _coverage(flow, data, probabilities, condition, solver, arguments)
    found: tuple[Outline, ...] = ()
    record, remarks = dict[str, Any](), list[str]()
    if earth:
        density = density_grid(
            flow, resolution=arguments.resolution, coordinates=data.coordinates, condition=condition, **shown
        )
        found = outlines(density, probabilities)[::-1]
        record, remarks = {"integral": density.integral}, [f"outlines are of {density.describe()}"]
    if out is not None:
        write_geojson(found[::-1], out)
    text = "\n".join([_table(levels, covered, found, data), *remarks])
    report(arguments, _record(levels, covered, found) | record, text)
    report_columns(arguments, data)


def _coverage(
    flow: "Flow",
    data: "RunData",
    probabilities: list[float],
    condition: "Tensor | None",
    solver: "Method | None",
    arguments: argparse.Namespace,
) -> "Coverage | None":
    """Return which share of the test points the regions hold; None where there are none, or a condition is given."""
    from rfm.regions import coverage

    test = data.split.test
    if not len(test) or condition is not None:
        return None
    blocks = data.blocks_at(test)
    return coverage(
        flow,
        data.points[test],
        probabilities=probabilities,
        groups=data.points[test] if blocks is None else blocks,
        weights=data.weights_at(test),
        solver=solver,
        batch_size=arguments.batch_size,
        **data.conditions_at(test),
    )


def _table(levels: "list[Level]", covered: "Coverage | None", found: "tuple[Outline, ...]", data: "RunData") -> str:
    """Return a row for each region."""
    import torch

    # In the run's first unit of densities.
    scores = torch.tensor([[level.log_density, *level.interval_95] for level in levels], dtype=torch.float64)
    unit, values = next(iter(data.coordinates.score_columns(scores.flatten()).items()))
    head = f"{'region':<8}{'log-density':>12}  {'95 % interval':<20}{'test points inside':<22}"
    lines = [head + ("area, km2" if found else "")]
    for i, level in enumerate(levels):
        border, low, high = values.reshape(-1, 3)[i]
        share = "not known"
        if covered is not None:
            own = covered.shares[i]
            share = f"{100 * own.mean:.1f} %" + (f" (error {100 * own.standard_error:.1f})" if own.has_error else "")
        row = f"{100 * level.probability:<4g} % {border:>13.3f}  {f'{low:.3f} to {high:.3f}':<20}{share:<22}"
        lines.append(row + (f"{found[i].area_km2:,.0f}" if found else ""))
    if covered is not None:
        lines.append(covered.describe())
    lines.append(f"log-densities at the regions' borders are in {unit.removeprefix('log_prob_').replace('_', ' ')}")
    return "\n".join(lines)


def _record(levels: "list[Level]", covered: "Coverage | None", found: "tuple[Outline, ...]") -> dict[str, Any]:
    rows: list[dict[str, Any]] = [
        {"probability": e.probability, "log_density": e.log_density, "interval_95": list(e.interval_95)} for e in levels
    ]
    for row, outline in zip(rows, found, strict=False):
        row["area_km2"] = outline.area_km2
    return {"regions": rows} | ({} if covered is None else {"test_coverage": covered.record()})
