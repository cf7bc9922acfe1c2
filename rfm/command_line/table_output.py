"""What ``rfm sample`` and ``rfm log-prob`` write, part by part, in memory that no length exceeds."""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rfm import datasets

Columns = Mapping[str, np.ndarray[Any, Any]]


def parts(total: int, rows: int) -> Iterator[range]:
    """Yield the numbers of the rows that are computed and written together, so many each."""
    return (range(start, min(start + rows, total)) for start in range(0, total, rows))


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
            yield lambda columns, conditions: write_json(
                {name: column.tolist() for name, column in columns.items()} | dict(conditions)
            )
        return
    with datasets.table_writer(target, layout) as write_table:

        def write(columns: Columns, conditions: Mapping[str, Sequence[Any]]) -> None:
            texts = {name: ["" if cell is None else str(cell) for cell in cells] for name, cells in conditions.items()}
            # The formats of tracks have no columns for conditions.
            write_table(list(columns), tuple(columns.values()), texts if layout == datasets.CSV else {})

        yield write
