"""Tables of the command line: what ``rfm fit`` reads, what conditions mean, what the other commands write."""

import argparse
import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from manifolds import SE3, Manifold
from rfm import datasets
from rfm.command_line.named_objects import check_symmetry, length_of, named_manifold
from rfm.command_line.run_folder import RunData, kept_stream
from rfm.conditions import Conditions
from rfm.datasets.column_names import number_columns
from rfm.datasets.splits import group_split
from rfm.datasets.tables import Table, parse_number
from rfm.datasets.text_files import FileContent, read_once
from rfm.flow import Flow

_STANDARD_INPUT = "standard input"
_PART_ROWS = 65_536
"""Rows computed before they are written. Random draws depend on it, and so not on the size of batches."""

Columns = Mapping[str, np.ndarray[Any, Any]]


def read_run(arguments: argparse.Namespace) -> tuple[Manifold, RunData, Conditions | None, list[str]]:
    """Return the manifold, the data and the meaning of the conditions that the arguments of ``rfm fit`` name.

    And, last, the columns of numbers that are none of these.

    Raises:
        ValueError: for what cannot be fitted; the message names it.
    """
    file = read_input(arguments.table, Path(arguments.out) if arguments.resume else None)
    table, layout = datasets.read_points(file, arguments.format, minimum_rows=2)
    taken = [*(arguments.condition or ()), *([arguments.weights] if arguments.weights else ())]
    manifold = named_manifold(arguments.manifold, table, arguments.columns, arguments.radians, taken)
    if layout == "ang":
        _check_map(arguments.manifold, manifold, file)
    coordinates = datasets.choose_coordinates(manifold, table, arguments.columns, arguments.radians, layout, taken)
    unused = [key for key in number_columns(table, taken) if key not in coordinates.columns]
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
        hashlib.sha256(file.content).hexdigest(),
        condition,
        _weights(table, arguments.weights) if arguments.weights else None,
        blocks,
        stream=file.content if file.streamed else None,
    )
    return manifold, data, conditions, unused


def read_input(path: str, run: Path | None = None) -> FileContent:
    """Return a file that the command line names, read once; ``-`` is standard input.

    Args:
        path: the file, a pipe or ``-``.
        run: the folder of a run to resume: where nothing comes through a pipe any more, it has kept what came.
    """
    if path not in ("-", "/dev/stdin"):
        file = read_once(path)
    elif run is not None and sys.stdin.isatty():
        file = FileContent(_STANDARD_INPUT, b"", streamed=True)
    else:
        file = FileContent(_STANDARD_INPUT, sys.stdin.buffer.read(), streamed=True)
    kept = kept_stream(run) if run is not None and file.streamed and not file.content else None
    return file if kept is None else replace(file, content=kept)


def _check_map(name: str, manifold: Manifold, file: FileContent) -> None:
    """Compare the symmetry of a map with the manifold's; say what is not verified, and what is left out."""
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


def _weights(table: Table, column: str) -> Tensor:
    weights = table.numbers([column])[:, 0]
    if (weights < 0).any():
        row = int(np.flatnonzero(weights < 0)[0])
        raise table.error(row, f"weight {weights[row]:.6g} is negative", "weights are at least 0; correct that row")
    return torch.from_numpy(weights)


def _conditions_of(
    table: Table, arguments: argparse.Namespace, taken: Sequence[str]
) -> tuple[Conditions | None, Tensor | None]:
    """Return what the columns of ``--condition`` mean, and their vectors."""
    if arguments.condition:
        return datasets.find_conditions(table, arguments.condition, arguments.label or (), taken)
    if arguments.label:
        raise ValueError("--label says which columns of --condition hold labels; give --condition too")
    return None, None


# What --condition and --condition-file mean for a flow.


def given_condition(flow: Flow, arguments: argparse.Namespace) -> Tensor | None:
    """Return the condition vector ``(c,)`` that ``--condition`` means, or None; warn beyond the range of the data."""
    words = {}
    for word in arguments.condition:
        name, equals, value = word.partition("=")
        if not equals or name in words:
            fault = "is given twice" if name in words else "is not NAME=VALUE"
            raise ValueError(f"--condition {word!r} {fault}; write for example magnitude=6, each name once")
        words[name] = value
    if not words:
        return None
    conditions = _conditional(flow, arguments)
    vector = conditions.encode(words)
    warn(arguments, conditions.extrapolations(vector))
    return vector


def known_columns(flow: Flow, condition: Tensor | None) -> dict[str, list[Any]]:
    """Return the columns of conditions that some of the samples are drawn given, None where not known.

    One cell each for one condition ``(c,)``, else one for each sample.
    """
    if flow.conditions is None or condition is None:
        return {}
    columns = flow.conditions.decode(condition)
    return {name: cells for name, cells in columns.items() if any(cell is not None for cell in cells)}


def condition_file(flow: Flow, arguments: argparse.Namespace) -> Tensor:
    """Return the condition vectors ``(n, c)`` that ``--condition-file`` means; warn beyond the range of the data."""
    conditions = _conditional(flow, arguments)
    if arguments.n is not None:
        raise ValueError("-n and --condition-file both say how many samples to draw; give one of them")
    vectors = datasets.read_conditions(datasets.read_table(read_input(arguments.condition_file)), conditions)
    warn(arguments, conditions.extrapolations(vectors))
    return vectors


def _conditional(flow: Flow, arguments: argparse.Namespace) -> Conditions:
    if flow.conditions is None:
        raise ValueError(
            f"the flow in {arguments.run} knows no conditions by name; "
            "give none, or fit again with --condition and the columns"
        )
    return flow.conditions


def check_required(flow: Flow, condition: Tensor | None, arguments: argparse.Namespace) -> None:
    """Raise ValueError if a flow that must know a condition is given none."""
    if condition is None and flow.conditions is not None and flow.conditions.required:
        name = flow.conditions.required[0]
        raise ValueError(
            f"the flow in {arguments.run} is conditional on {flow.conditions.describe()}; give --condition {name}=FILE"
        )


def warn(arguments: argparse.Namespace, sentences: Sequence[str]) -> None:
    """Say sentences on stderr."""
    for sentence in sentences:
        print(f"rfm {arguments.command}: {sentence}", file=sys.stderr)


def nearest(conditions: Conditions, data: RunData, wanted: Tensor) -> Tensor:
    """Return the indices of the points with the wanted labels and, of those, the tenth with the nearest numbers."""
    assert data.condition is not None
    labels = torch.tensor([bool(count) for count in conditions.labels])
    known = ~wanted.isnan()
    alike = (data.condition == wanted)[:, labels & known].all(-1).nonzero()[:, 0]
    numbers = data.condition[alike][:, ~labels & known]
    if not numbers.shape[1]:
        return alike
    spread = (numbers - numbers.nanmean(0)).square().nanmean(0).sqrt()
    distance = ((numbers - wanted[~labels & known]) / torch.where(spread > 0, spread, 1.0)).square().sum(-1)
    order = distance.nan_to_num(torch.inf).argsort()
    return alike[order[: max(1, len(alike) // 10)]]


# What rfm sample and rfm log-prob write, part by part, in memory that no length exceeds.


def parts(total: int) -> Iterator[range]:
    """Yield the numbers of the rows that are computed and written together."""
    return (range(start, min(start + _PART_ROWS, total)) for start in range(0, total, _PART_ROWS))


def checked_output(arguments: argparse.Namespace) -> Path | None:
    """Return the file to write, refused if it exists."""
    if arguments.out is None:
        return None
    out = Path(arguments.out)
    if out.is_dir():
        raise IsADirectoryError(f"--out {out} is a folder; name a file in it")
    if out.exists() and not arguments.force:
        raise FileExistsError(f"--out {out} exists; use --force to replace it, or another name")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"--out {out}: the folder {out.parent} does not exist; make it first")
    return out


@contextmanager
def output_writer(
    arguments: argparse.Namespace, out: Path | None, layout: datasets.Layout = datasets.CSV
) -> Iterator[Callable[[Columns, Mapping[str, Sequence[Any]]], None]]:
    """Yield a function that writes columns of numbers, and of conditions, of one part after the other.

    A file is put in place when all is written; interrupted, what was there is there still.
    """
    target = sys.stdout if out is None else out
    if arguments.json:
        with datasets.json_writer(target) as write_json:
            yield lambda columns, given: write_json(
                {name: column.tolist() for name, column in columns.items()} | dict(given)
            )
        return
    with datasets.table_writer(target, layout) as write_table:

        def write(columns: Columns, given: Mapping[str, Sequence[Any]]) -> None:
            texts = {name: ["" if cell is None else str(cell) for cell in cells] for name, cells in given.items()}
            # The formats of tracks have no columns for conditions.
            write_table(list(columns), tuple(columns.values()), texts if layout == datasets.CSV else {})

        yield write
