"""``rfm fit``: a table in, a run folder out."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rfm.command_line.arguments import add_device, add_output, add_seed, path, positive, positive_number, share
from rfm.command_line.messages import report

if TYPE_CHECKING:
    from rfm.flow import Flow

SUMMARY = "fit a flow to the points of a table"

_MANIFOLD_HELP = """\
sphere: the earth or the sky, from latitude and longitude (ra and dec, glon and glat) in degrees,
or x, y, z; ellipsoid: the earth's, WGS 84; circle: one angle, in degrees; torus: one angle per
column; euclidean: plain columns; simplex: shares of a whole that sum to 1, or to 100;
so3: orientations, as Bunge's Euler angles (.ang, .ctf and the vendors' HDF5 too), quaternions or
matrices; of crystals with their Laue group: so3/m-3m (or so3/cubic), so3/m-3, so3/6/mmm (or
so3/hexagonal), so3/6/m, so3/4/mmm, so3/4/m, so3/-3m (half turns about x; so3/-31m about y),
so3/-3, so3/mmm, so3/2/m (the axis z is unique; so3/2/m-b: y), so3/-1; a point group, so3/432, or
without the stroke, so3/4mmm, too; se3: poses, also of TUM, KITTI and EuRoC tracks;
my_module:thing: a manifold of your own, an object or a class without arguments; the current
folder counts as importable"""

_SOURCE_HELP = """\
where the flow starts: uniform; wrapped-normal (fitted, not on a sphere); kernel (a mixture of
kernels around the training points); my_module:thing, a source or a function of manifold and
points (default: uniform where the volume is finite, else a wrapped normal)"""


_INSIDE_HELP = """\
where the points are, and all samples will be: for the sphere and for the plane a GeoJSON file of
polygons, in longitudes and latitudes or in the plane's coordinates; for a torus and Euclidean
space ranges of columns, such as phi=-180..0 x=0..1; rows outside are refused"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `run`."""
    parser.add_argument(
        "table",
        nargs="+",
        help="a point per row, - for stdin: text (comma, tab, semicolon or space separated), Parquet, Arrow,\n.xlsx, "
        "GeoJSON, GeoPackage, NetCDF, FITS, HDF5, .npy, maps of orientations, tracks; also compressed.\n"
        "FILE#PART names a sheet, layer, variable or group.\n"
        "Parquet, Arrow and .npy may be larger than memory: several files, a folder, 'folder/*.parquet', or one\n"
        "of more than 5 million rows",
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--manifold", metavar="NAME", help=_MANIFOLD_HELP)
    where.add_argument(
        "--mesh",
        type=path,
        metavar="FILE",
        help="instead of --manifold: a surface of triangles, .obj, .ply, .off or .stl, that points x, y, z lie on;\n"
        "those off it by at most 1 %% of its size are projected to it",
    )
    parser.add_argument("--inside", nargs="+", metavar="SET", help=_INSIDE_HELP)
    parser.add_argument(
        "--out", required=True, type=path, metavar="FOLDER", help="folder for the flow, its data and checkpoints"
    )
    _add_coordinates(parser)
    _add_conditions(parser)
    _add_repairs(parser)
    _add_training(parser)
    _add_test(parser)
    add_device(parser)
    add_seed(parser)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--resume", action="store_true", help="go on with an interrupted or capped run in --out")
    group.add_argument("--force", action="store_true", help="replace the flow in --out")
    add_output(parser)


def _add_coordinates(parser: argparse.ArgumentParser) -> None:
    """Add which columns hold the points, in which units and conventions."""
    parser.add_argument(
        "--columns",
        nargs="+",
        metavar="COLUMN",
        help="columns that hold the points, by name, or by number from 1;\nfound by name (lat, longitude, x, ...) or "
        "position by default",
    )
    unit = parser.add_mutually_exclusive_group()
    unit.add_argument("--radians", action="store_true", default=None, help="angles are in radians, not degrees")
    unit.add_argument(
        "--degrees",
        action="store_false",
        dest="radians",
        default=None,
        help="angles are in degrees, however small (default, unless the columns' names say radians)",
    )
    parser.add_argument(
        "--format",
        choices=("tum", "tum_ms", "tum_us", "tum_ns", "kitti", "euroc", "ang", "bunge", "xyzw", "wxyz", "matrix"),
        help="how the file (tum, kitti, euroc, ang) or the columns of a rotation (bunge, xyzw, wxyz, matrix)\nare "
        "written, where its header does not say; xyzw and wxyz are quaternions with the real part last or first;\n"
        "times of tum are in seconds, of tum_ns in nanoseconds",
    )
    parser.add_argument(
        "--length",
        type=positive_number,
        help="unit of length of --manifold se3, in which a metre, say, counts like a radian\n(default: the spread of "
        "the positions)",
    )


def _add_conditions(parser: argparse.ArgumentParser) -> None:
    """Add the columns of conditions and weights."""
    parser.add_argument(
        "--condition",
        nargs="+",
        metavar="COLUMN",
        help="columns the density is conditional on: numbers, times (2020-03-01), or text, which is labels;\nmonth:12 "
        "for numbers that come round after 12, time:year, time:week, time:day for times;\nempty cells are not known",
    )
    parser.add_argument(
        "--label", nargs="+", metavar="COLUMN", help="those of --condition whose numbers are labels, such as years"
    )
    parser.add_argument(
        "--weights", metavar="COLUMN", help="column of weights of the points, in training, validation and rfm evaluate"
    )


def _add_repairs(parser: argparse.ArgumentParser) -> None:
    """Add what is done about rows that cannot be used, or are equal by rounding."""
    parser.add_argument(
        "--skip-bad-rows",
        action="store_true",
        help="leave out rows that cannot be used, such as with missing or impossible values, and say which",
    )
    parser.add_argument(
        "--keep-ties",
        action="store_true",
        help="leave rounded points as they are, equal ones held out together; by default points that are\nequal "
        "because they are rounded are spread evenly over their cells, and split row by row",
    )


def _add_training(parser: argparse.ArgumentParser) -> None:
    """Add the source, the coupling, and how long to train."""
    parser.add_argument("--source", metavar="NAME", help=_SOURCE_HELP)
    parser.add_argument(
        "--start",
        metavar="FILE",
        help="table of start points, in the same columns: the flow carries them to the points, and has no density",
    )
    parser.add_argument("--pairs", action="store_true", help="row i of --start belongs to row i of the table")
    parser.add_argument("--start-weights", metavar="COLUMN", help="column of weights of the start points")
    parser.add_argument(
        "--coupling",
        choices=("independent", "optimal-transport", "sinkhorn", "unbalanced"),
        default="independent",
        help="pairing of source and data points in each batch (default: independent);\n"
        "sinkhorn is for large batches on a GPU; unbalanced leaves out points that are far from the other side",
    )
    parser.add_argument(
        "--steps", type=positive, help="optimiser steps (default: by the number of points, 2000 to 8000)"
    )
    parser.add_argument(
        "--likelihood-steps",
        type=positive,
        metavar="N",
        help="steps of maximum likelihood after flow matching, each some forty times as long\n(default: none); the "
        "best on validation is kept, the flow before them included",
    )
    parser.add_argument(
        "--more-steps",
        type=positive,
        metavar="N",
        help="go on with the finished run in --out for so many steps, from a third of the learning rate",
    )
    parser.add_argument("--batch-size", type=positive, help="pairs per step (default: 512)")
    parser.add_argument(
        "--validations", type=positive, default=16, help="how many, spread over the steps; each writes a checkpoint"
    )
    parser.add_argument(
        "--no-refine",
        action="store_false",
        dest="refine",
        help="leave the flow as trained, without kernels about the training points carried back along it",
    )
    parser.add_argument(
        "--floor",
        action="store_true",
        help="report how far the loss lies above the least that is possible on the training points",
    )
    parser.add_argument("--max-seconds", type=positive_number, help="cap on all of the training time (default: none)")


def _add_test(parser: argparse.ArgumentParser) -> None:
    """Add which points are held out."""
    parser.add_argument(
        "--test-share",
        type=share,
        default=0.1,
        help="share of the points held out for rfm evaluate (default: 0.1);\nequal points never cross the split",
    )
    parser.add_argument(
        "--validation",
        type=share,
        default=0.1,
        metavar="SHARE",
        help="share of the points that decides when to stop, and how to refine (default: 0.1);\n0 trains on these too, "
        "and fits six times: five hold out a part each, and decide",
    )
    parser.add_argument(
        "--groups",
        nargs="+",
        metavar="COLUMN",
        help="rows alike in these columns, such as storm_id or chain, are held out together",
    )
    parser.add_argument(
        "--blocks",
        nargs="+",
        metavar="COLUMN=SIZE",
        help="rows in one block of these columns, such as seconds=2 or x=30 y=30, are held out together:\n"
        "neighbours on a map or in time are no independent test",
    )


def run(arguments: argparse.Namespace) -> None:
    """Fit a flow to a table, and report the result."""
    from rfm.command_line.fit_remarks import remarks, warnings_before
    from rfm.command_line.fitted_runs import fitted_record, fitted_text, steps_done, train_run
    from rfm.command_line.large_runs import describe_counts, is_large, read_large_run
    from rfm.command_line.messages import is_first_process, warn
    from rfm.command_line.named_objects import coupling_by_name, source_by_name
    from rfm.command_line.table_runs import read_run

    # More steps go on with a run that is there, under the same settings.
    arguments.resume |= arguments.more_steps is not None
    run = read_large_run(arguments) if is_large(arguments.table) else read_run(arguments)
    manifold, data, conditions = run.manifold, run.data, run.observations.conditions
    if is_first_process():
        warn(arguments, list(warnings_before(run, arguments)))
    source = None if arguments.source is None else source_by_name(arguments.source)
    folder = Path(arguments.out)
    before = steps_done(folder) if arguments.resume else None
    coupling = coupling_by_name(arguments.coupling, manifold)
    flow = train_run(manifold, data, arguments, conditions, source, coupling, arguments.likelihood_steps, run.rows)
    record = fitted_record(flow, data, folder) | {
        "unused_columns": run.unused,
        "resumed_at_step": before,
        "skipped_rows": run.observations.skipped.lines_by_finding if run.survey is None else run.survey.skipped,
        **(
            {}
            if run.survey is None
            else {"rows": dict(zip(("train", "validation", "test"), run.survey.counts, strict=True))}
        ),
    }
    found = remarks(flow, run, folder)
    text = _resumed_text(flow, before) + describe_counts(run) + fitted_text(flow, data, folder)
    report(arguments, record | {"remarks": found}, "\n".join([text, *found]))


def _resumed_text(flow: "Flow", before: int | None) -> str:
    """Return what resuming a run at a step has done, as a line; nothing where none was resumed."""
    if before is None or not flow.history:
        return ""
    last = int(flow.history[-1]["step"])
    if last == before:
        return f"resumed at step {before}: nothing left to train, {flow.stopped}\n"
    return f"resumed at step {before}, trained to step {last}\n"
