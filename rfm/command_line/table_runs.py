"""What ``rfm fit`` reads: a table, and what its columns are."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from manifolds import SE3, Manifold, Mesh
from rfm import datasets
from rfm.command_line.inside import bounded, rows_inside
from rfm.command_line.messages import progress_note
from rfm.command_line.named_objects import check_symmetry, length_of, manifold_by_name
from rfm.command_line.run_folder import RunData, saved_stream
from rfm.command_line.start_table import start_of_table
from rfm.datasets.observations import Observations, Roles, days_or_numbers, observations_of
from rfm.datasets.skipped_rows import SkippedRows
from rfm.datasets.splits import group_split
from rfm.datasets.tables import Table, parse_number
from rfm.datasets.text_files import FileContent, read_once
from rfm.training import LargeTrainingSet, Survey

_STANDARD_INPUT = "standard input"
_LARGE_BYTES = 20_000_000
"""Of a file that takes more than a second or two to read."""


@dataclass(frozen=True)
class TableRun:
    """What the arguments of ``rfm fit`` name.

    Args:
        manifold: where the points live.
        data: the points, how they are split, and how their table is written.
        observations: the table itself, with what its columns are for.
        unused: the columns of numbers that are for nothing.
        survey: what all rows are, where the points are a sample of more than fit into memory.
    """

    manifold: Manifold
    data: RunData
    observations: Observations
    unused: list[str]
    survey: Survey | None = None

    @property
    def rows(self) -> LargeTrainingSet | None:
        """What batches are made of, where that is not the points."""
        return None if self.survey is None else self.survey.rows


def read_run(arguments: argparse.Namespace) -> TableRun:
    """Return the manifold, the data and what columns mean that the arguments of ``rfm fit`` name.

    Raises:
        ValueError: for what cannot be fitted; the message names it.
    """
    file = read_input(arguments.table[0], Path(arguments.out) if arguments.resume else None)
    if len(file.raw) > _LARGE_BYTES:
        progress_note(arguments)(f"reading {file.name} ({len(file.raw) / 1e6:,.0f} MB)")
    skipped = SkippedRows() if arguments.skip_bad_rows else None
    table, layout = datasets.read_points(file, arguments.format, minimum_rows=2, skipped=skipped)
    roles = roles_of(arguments)
    table, (manifold, coordinates) = chosen(table, arguments, layout, roles, skipped)
    manifold = bounded(arguments, manifold, coordinates)
    table = rows_inside(arguments, table, manifold, coordinates, skipped)
    if layout == "ang":
        _check_map(arguments.manifold, manifold, file)
    found = observations_of(table, coordinates, roles, skipped, not arguments.keep_ties, arguments.seed)
    if isinstance(manifold, Mesh):
        found = replace(found, points=datasets.points_on_surface(manifold, found.points, found.table))
    if isinstance(coordinates, datasets.Poses):
        manifold = SE3(length_of(found.points[:, :3, 3]) if arguments.length is None else arguments.length)
        found = replace(found, coordinates=replace(coordinates, length=manifold.length))
    elif arguments.inside:
        # Rounded points that are spread over their cells may come to lie beyond the border.
        found = replace(found, points=manifold.projx(found.points))
    if arguments.length is not None and not isinstance(coordinates, datasets.Poses):
        raise ValueError("--length is the unit of length of --manifold se3; leave it out")
    if arguments.blocks:
        _check_blocks(found, arguments.blocks)
    data = RunData(
        found.points,
        _split(found, arguments),
        found.coordinates,
        file.name if file.streamed else Path(file).name,
        file.sha256,
        found.condition,
        found.weights,
        found.groups,
        stream=file.raw if file.streamed else None,
        start=start_of_table(arguments, found.coordinates, len(found.points)),
        rounding="" if found.rounding is None else found.rounding.describe(coordinates.columns, coordinates.unit),
    )
    return TableRun(manifold, data, found, found.unused(roles))


def roles_of(arguments: argparse.Namespace) -> Roles:
    """Return what columns are for, by the options."""
    if arguments.label and not arguments.condition:
        raise ValueError("--label says which columns of --condition hold labels; give --condition too")
    if arguments.groups and arguments.blocks:
        raise ValueError("--groups and --blocks both say which rows are held out together; give one of them")
    return Roles(
        arguments.condition or (),
        arguments.label or (),
        arguments.weights or "",
        arguments.groups or (),
        _block_sizes(arguments.blocks or ()),
    )


def chosen(
    table: Table, arguments: argparse.Namespace, layout: str | None, roles: Roles, skipped: SkippedRows | None
) -> tuple[Table, tuple[Manifold, datasets.Coordinates]]:
    """Return the rows that can be used, the manifold, and the coordinates of its points."""
    mesh = None if arguments.mesh is None else datasets.read_mesh(arguments.mesh)

    def choose(rows: Table) -> tuple[Manifold, datasets.Coordinates]:
        reserved = roles.reserved(rows)
        if mesh is not None:
            manifold: Manifold = mesh
        else:
            manifold = manifold_by_name(arguments.manifold, rows, arguments.columns, arguments.radians, reserved)
        own = datasets.choose_coordinates(manifold, rows, arguments.columns, arguments.radians, layout, reserved)
        return manifold, own

    return (table, choose(table)) if skipped is None else skipped.apply(table, choose)


def read_input(path: str, run: Path | None = None) -> FileContent:
    """Return a file that the command line names, read once; ``-`` is standard input.

    Args:
        path: the file, a pipe or ``-``.
        run: the folder of a run to resume: where nothing comes through a pipe any more, its saved stream is read.
    """
    if path not in ("-", "/dev/stdin"):
        file = read_once(path)
    elif run is not None and sys.stdin.isatty():
        file = FileContent(_STANDARD_INPUT, b"", streamed=True)
    else:
        file = FileContent(_STANDARD_INPUT, sys.stdin.buffer.read(), streamed=True)
    saved = saved_stream(run) if run is not None and file.streamed and not file.raw else None
    return file if saved is None else replace(file, raw=saved)


def _check_map(name: str, manifold: Manifold, file: FileContent) -> None:
    """Compare the symmetry of a map with the manifold's; report what is not verified, and what is left out."""
    measured = datasets.read_orientation_map(file)
    notes = check_symmetry(name, manifold, measured)
    if measured.dropped:
        notes.append(f"{measured.dropped} of {measured.dropped + len(measured)} rows are not indexed, and left out")
    for note in notes:
        print(f"{measured.table.file}: {note}", file=sys.stderr)


def _block_sizes(words: Sequence[str]) -> dict[str, float]:
    """Return the size of a block in each column, for ``--blocks COLUMN=SIZE``."""
    sizes: dict[str, float] = {}
    for word in words:
        name, equals, value = word.rpartition("=")
        size = parse_number(value)
        if not equals or size is None or not 0 < size < float("inf") or name in sizes:
            raise ValueError(f"--blocks {word!r} is not COLUMN=SIZE; write for example x=30, in the column's unit")
        sizes[name] = size
    return sizes


def _check_blocks(found: Observations, words: Sequence[str]) -> None:
    """Raise ValueError where each place is a block of its own."""
    assert found.groups is not None
    places = np.stack([days_or_numbers(found.table, column) for column in _block_sizes(words)], axis=1)
    different = len(np.unique(places, axis=0))
    if len(found.groups.unique()) == different > 1:
        raise ValueError(
            f"--blocks {' '.join(words)} puts each of {different} places into a block of its own; "
            "give larger sizes, in the columns' units, or leave --blocks out: neighbours are then on both sides"
        )


def _split(found: Observations, arguments: argparse.Namespace) -> datasets.Split:
    """Return the rows that train, validate and test: equal points together, or those of a group."""
    rows = found.points if found.groups is None else found.groups
    validation, test = arguments.validation, arguments.test_share
    try:
        if validation > 0:
            return group_split(rows, arguments.seed, validation=validation, test=test)
        if test > 0:
            # Nothing validates: what would, trains.
            kept = group_split(rows, arguments.seed, validation=test, test=0.0)
            return datasets.Split(kept.train, kept.train[:0], kept.validation)
        order = torch.arange(len(rows))
        return datasets.Split(order, order[:0], order[:0])
    except ValueError as error:
        if found.groups is None:
            raise
        count = len(found.groups.unique())
        if arguments.blocks:
            what, remedy = f"--blocks makes {count} blocks", "make them smaller"
        else:
            what, remedy = f"--groups names {count} groups", "name a column in which they are more"
        raise ValueError(f"{what} of all rows ({error}); {remedy}") from None
