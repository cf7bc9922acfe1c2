"""What ``rfm fit`` reads where a table is larger than memory: a sample of it, and a survey of all rows."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from manifolds import SE3
from rfm import datasets
from rfm.command_line.messages import is_first_process, warn
from rfm.command_line.named_objects import length_of
from rfm.command_line.run_folder import RunData
from rfm.command_line.table_runs import TableRun, chosen, roles_of
from rfm.datasets.observations import Observations
from rfm.datasets.point_blocks import TablePoints, points_of_blocks
from rfm.datasets.skipped_rows import SkippedRows
from rfm.datasets.table_blocks import is_block_file, open_blocks
from rfm.training import HashSplit, survey

_LARGE = 5_000_000
"""Rows above which one file is not read into memory."""
_SAMPLE_ROWS = 100_000
_FORMATS = ("xyzw", "wxyz", "bunge", "matrix")


def is_large(tables: Sequence[str]) -> bool:
    """Return whether tables are read in blocks: several, a folder, a pattern, or one of many rows."""
    if len(tables) > 1 or Path(tables[0]).is_dir():
        return True
    if not Path(tables[0]).exists():
        return any(mark in tables[0] for mark in "*?[") and "#" not in tables[0]
    return is_block_file(tables[0]) and sum(open_blocks(tables[0]).sizes) > _LARGE


def read_large_run(arguments: argparse.Namespace) -> TableRun:
    """Return the manifold, a sample of the data, and the survey of all rows that ``rfm fit`` trains on.

    Raises:
        ValueError: for what cannot be fitted; the message names it.
    """
    _check_options(arguments)
    rows, roles = open_blocks(arguments.table), roles_of(arguments)
    skipped = SkippedRows() if arguments.skip_bad_rows else None
    table, (manifold, coordinates) = chosen(rows.sample(_SAMPLE_ROWS), arguments, arguments.format, roles, skipped)
    points = points_of_blocks(rows, table, coordinates, roles, arguments.skip_bad_rows)
    if isinstance(coordinates, datasets.Poses):
        length = arguments.length or length_of(coordinates.points(table)[:, :3, 3])
        manifold, points = SE3(length), replace(points, coordinates=replace(coordinates, length=length))
    elif arguments.length is not None:
        raise ValueError("--length is the unit of length of --manifold se3; leave it out")
    _warn_of_ties(arguments, points, table)
    split = HashSplit(arguments.seed, arguments.validation, arguments.test_share)
    found = survey(points, manifold, split, progress=not arguments.quiet and is_first_process())
    train, validation, test = ((found.sides == side).nonzero()[:, 0] for side in range(3))
    sample = found.sample
    data = RunData(
        sample.x,
        datasets.Split(train, validation, test),
        points.coordinates,
        f"{rows.name}, {len(sample.x):,} of {sum(found.counts):,} rows",
        found.rows.digest,
        sample.condition,
        sample.weights,
        sample.group,
    )
    # Of the rows that told what columns mean, which stand in their order.
    observations = Observations(
        table, points.coordinates, points.coordinates.points(table), points.conditions, groups=sample.group
    )
    return TableRun(manifold, data, observations, observations.unused(roles), found)


def _check_options(arguments: argparse.Namespace) -> None:
    """Raise ValueError for options that need all rows at once."""
    unknown = {
        "--mesh": arguments.mesh,
        "--inside": arguments.inside,
        "--start": arguments.start,
        "--format": arguments.format and arguments.format not in _FORMATS,
    }
    for option, given in unknown.items():
        if given:
            raise ValueError(f"{option} is for a table that fits into memory; leave it out, or fit a part of the rows")
    if not arguments.validation > 0:
        raise ValueError("--validation 0 fits six times to all points in memory; give a share, such as 0.01")


def _warn_of_ties(arguments: argparse.Namespace, points: TablePoints, table: datasets.Table) -> None:
    rounding = None if arguments.keep_ties else points.coordinates.rounding(table)
    if rounding is not None and is_first_process():
        words = rounding.describe(points.coordinates.columns, points.coordinates.unit)
        warn(
            arguments,
            [f"{words}; of a table larger than memory they are left as they are, equal ones held out together"],
        )


def describe_counts(run: TableRun) -> str:
    """Return how many rows there are of each side, as a line; empty where all are in memory."""
    if run.survey is None:
        return ""
    train, validation, test = run.survey.counts
    skipped = sum(run.survey.skipped.values())
    return (
        f"{train:,} rows train, {validation:,} validate, {test:,} test"
        f"{f', {skipped:,} are left out' if skipped else ''}; the folder keeps a sample of {len(run.data.points):,}\n"
    )
