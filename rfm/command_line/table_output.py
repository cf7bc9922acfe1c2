"""What ``rfm sample`` and ``rfm log-prob`` write, part by part, in memory that no length exceeds."""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rfm import datasets
from rfm.datasets.parquet_files import is_parquet_name, parquet_writer
from rfm.training import step_seed

Columns = Mapping[str, np.ndarray[Any, Any]]


def parts(total: int, rows: int) -> Iterator[range]:
    """Yield the numbers of the rows that are computed and written together, so many each."""
    return (range(start, min(start + rows, total)) for start in range(0, total, rows))


def part_seed(seed: int, number: int) -> int:
    """Return the seed of a part: that of the command for the first, unrelated ones for those that follow."""
    return seed if number == 0 else step_seed(seed, number)


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
    if is_parquet_name(out):
        assert out is not None
        with parquet_writer(out) as write_part:
            yield lambda columns, conditions: write_part(columns, texts_of(conditions, datasets.CSV))
        return
    with datasets.table_writer(target, layout) as write_table:
        yield lambda columns, conditions: write_table(
            list(columns), tuple(columns.values()), texts_of(conditions, layout)
        )


def texts_of(conditions: Mapping[str, Sequence[Any]], layout: datasets.Layout) -> dict[str, list[str]]:
    """Return columns of conditions as texts, empty where not known; the formats of tracks have none."""
    if layout != datasets.CSV:
        return {}
    return {name: ["" if cell is None else str(cell) for cell in cells] for name, cells in conditions.items()}
