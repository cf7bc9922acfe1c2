"""What ``rfm fit`` reads: a table, and what its columns are."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from manifolds import SE3, Manifold
from rfm import datasets
from rfm.command_line.named_objects import check_symmetry, length_of, manifold_by_name
from rfm.command_line.run_folder import RunData, saved_stream
from rfm.command_line.start_table import start_of_table, weights_of
from rfm.conditions import Conditions
from rfm.datasets.column_names import number_columns
from rfm.datasets.splits import group_split
from rfm.datasets.tables import Table, parse_number
from rfm.datasets.text_files import FileContent, read_once

_STANDARD_INPUT = "standard input"


def read_run(arguments: argparse.Namespace) -> tuple[Manifold, RunData, Conditions | None, list[str]]:
    """Return the manifold, the data and the meaning of the conditions that the arguments of ``rfm fit`` name.

    And, last, the columns of numbers that are none of these.

    Raises:
        ValueError: for what cannot be fitted; the message names it.
    """
    file = read_input(arguments.table, Path(arguments.out) if arguments.resume else None)
    table, layout = datasets.read_points(file, arguments.format, minimum_rows=2)
    reserved = [*(arguments.condition or ()), *([arguments.weights] if arguments.weights else ())]
    manifold = manifold_by_name(arguments.manifold, table, arguments.columns, arguments.radians, reserved)
    if layout == "ang":
        _check_map(arguments.manifold, manifold, file)
    coordinates = datasets.choose_coordinates(manifold, table, arguments.columns, arguments.radians, layout, reserved)
    unused = [key for key in number_columns(table, reserved) if key not in coordinates.columns]
    points = coordinates.points(table)
    if isinstance(coordinates, datasets.Poses):
        manifold = SE3(length_of(points[:, :3, 3]) if arguments.length is None else arguments.length)
        coordinates = replace(coordinates, length=manifold.length)
    elif arguments.length is not None:
        raise ValueError("--length is the unit of length of --manifold se3; leave it out")
    conditions, condition = _conditions_of(table, arguments, coordinates.columns)
    blocks = _blocks(table, arguments.blocks) if arguments.blocks else None
    data = RunData(
        points,
        _split(points, blocks, arguments),
        coordinates,
        file.name if file.streamed else Path(file).name,
        file.sha256,
        condition,
        weights_of(table, arguments.weights) if arguments.weights else None,
        blocks,
        stream=file.raw if file.streamed else None,
        start=start_of_table(arguments, coordinates, len(points)),
    )
    return manifold, data, conditions, unused


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


def _blocks(table: Table, words: Sequence[str]) -> Tensor:
    """Return the block of each row, for ``--blocks COLUMN=SIZE``."""
    sizes = {}
    for word in words:
        name, equals, value = word.rpartition("=")
        size = parse_number(value)
        if not equals or size is None or not 0 < size < float("inf") or name in sizes:
            raise ValueError(f"--blocks {word!r} is not COLUMN=SIZE; write for example x=30, in the column's unit")
        sizes[name] = size
    places = table.numbers(list(sizes))
    blocks = datasets.block_labels(places, list(sizes.values()))
    different = len(np.unique(places, axis=0))
    if len(blocks.unique()) == different > 1:
        raise ValueError(
            f"--blocks {' '.join(words)} puts each of {different} places into a block of its own; "
            "give larger sizes, in the columns' units, or leave --blocks out: neighbours are then on both sides"
        )
    return blocks


def _split(points: Tensor, blocks: Tensor | None, arguments: argparse.Namespace) -> datasets.Split:
    try:
        return group_split(points if blocks is None else blocks, arguments.seed, test=arguments.test_share)
    except ValueError as error:
        if blocks is None:
            raise
        raise ValueError(
            f"--blocks makes {len(blocks.unique())} blocks of all rows ({error}); make them smaller"
        ) from None


def _conditions_of(
    table: Table, arguments: argparse.Namespace, reserved: Sequence[str]
) -> tuple[Conditions | None, Tensor | None]:
    """Return what the columns of ``--condition`` mean, and their vectors."""
    if arguments.condition:
        return datasets.find_conditions(table, arguments.condition, arguments.label or (), reserved)
    if arguments.label:
        raise ValueError("--label says which columns of --condition hold labels; give --condition too")
    return None, None
