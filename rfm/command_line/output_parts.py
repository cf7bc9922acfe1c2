"""A long output in parts, each a file until all are there: for a command that is killed, or has several processes.

A part depends on nothing but its number, so that it does not matter which process makes it, and when.
"""

import argparse
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rfm import datasets
from rfm.command_line.processes import meeting_point, rank, world
from rfm.command_line.table_output import Columns, output_writer, texts_of
from rfm.datasets.parquet_files import is_parquet_name, join_parquet, parquet_writer
from rfm.records.descriptions import read_json, write_json
from rfm.records.fingerprint import fingerprint

_RECORD = "parts.json"
_NOT_THE_RESULT = {"out", "force", "resume", "quiet", "work", "plot", "for_tables", "for_backbones"}
"""Arguments that do not change what is written."""


class OutputParts:
    """Where the parts of an output go.

    Args:
        write_all: writes a part behind the one before; None where parts are files.
        folder: of these.
        out: the file that they become.
        layout: how text is laid out.
    """

    def __init__(
        self,
        write_all: Callable[[Columns, Mapping[str, Sequence[Any]]], None] | None,
        folder: Path,
        out: Path | None,
        layout: datasets.Layout,
    ) -> None:
        self._write_all, self._folder, self._out, self._layout = write_all, folder, out, layout

    def is_due(self, number: int) -> bool:
        """Return whether this process is to make a part: its own, and not there yet."""
        return self._write_all is not None or (number % world() == rank() and not self._file(number).exists())

    def write(self, number: int, columns: Columns, conditions: Mapping[str, Sequence[Any]]) -> None:
        """Write a part."""
        if self._write_all is not None:
            self._write_all(columns, conditions)
            return
        texts = texts_of(conditions, self._layout)
        if is_parquet_name(self._out):
            with parquet_writer(self._file(number)) as write:
                write(columns, texts)
            return
        # Names stand at the head of the first part alone.
        layout = self._layout if number == 0 else datasets.Layout(self._layout.separator, None)
        datasets.write_table(self._file(number), list(columns), tuple(columns.values()), texts, layout)

    def join(self) -> None:
        """Make the parts one file."""
        parts = sorted(self._folder.glob("part-*"))
        assert self._out is not None
        if is_parquet_name(self._out):
            join_parquet(parts, self._out)
        else:
            unfinished = self._folder / "joined"
            with unfinished.open("wb") as target:
                for part in parts:
                    with part.open("rb") as source:
                        shutil.copyfileobj(source, target)
            unfinished.replace(self._out)
        shutil.rmtree(self._folder)

    def _file(self, number: int) -> Path:
        return self._folder / f"part-{number:09d}{'.parquet' if is_parquet_name(self._out) else '.csv'}"


@contextmanager
def output_parts(
    arguments: argparse.Namespace,
    out: Path | None,
    total: int | None,
    inputs: Sequence[str] = (),
    layout: datasets.Layout = datasets.CSV,
) -> Iterator[OutputParts]:
    """Yield where the parts of an output go; when all are written, they are put in place.

    Args:
        arguments: of the command, with ``resume``.
        out: the file to write; None for the standard output.
        total: how many rows there will be, None where that is not known.
        inputs: files that are read.
        layout: of text.

    Raises:
        ValueError: several processes without a file to write, or what an interrupted command left is of another one.
        FileExistsError: there is such, and it is neither to be gone on with nor replaced.
    """
    alone = out is None or arguments.json
    folder = Path() if out is None else out.with_name(f".{out.name}.parts")
    if alone and world() > 1:
        raise ValueError("several processes share the work by a file; give --out, and leave out --json")
    if alone and arguments.resume:
        raise ValueError("--resume goes on with a file; give --out, and leave out --json")
    if alone or (world() == 1 and total is not None and total <= arguments.part_rows and not folder.exists()):
        with output_writer(arguments, out, layout) as write:
            yield OutputParts(write, folder, out, layout)
        return
    with meeting_point() as meet:
        if rank() == 0:
            _begin(arguments, folder, _identity(arguments, inputs))
        meet()
        parts = OutputParts(None, folder, out, layout)
        yield parts
        meet()
        if rank() == 0:
            parts.join()
        meet()


def _identity(arguments: argparse.Namespace, inputs: Sequence[str]) -> str:
    """Return what decides on every part: the flow, the options, and the files that are read."""
    flow = (Path(arguments.run) / "flow.json").read_bytes()
    options = {name: value for name, value in vars(arguments).items() if name not in _NOT_THE_RESULT}
    files = [Path(name).stat() for name in inputs if Path(name).is_file()]
    return fingerprint(flow, options, [(file.st_size, file.st_mtime_ns) for file in files])


def _begin(arguments: argparse.Namespace, folder: Path, identity: str) -> None:
    """Make the folder of the parts, or take over the one of an interrupted command."""
    if folder.exists() and not arguments.resume:
        if not arguments.force:
            raise FileExistsError(
                f"--out {arguments.out}: {folder} holds parts of an interrupted command; use --resume to go on, or "
                "--force to begin again"
            )
        shutil.rmtree(folder)
    if (folder / _RECORD).exists() and read_json(folder / _RECORD).get("fingerprint") != identity:
        raise ValueError(
            f"--resume: {folder} holds parts of another command, flow or input; give the same ones, or use --force "
            "without --resume to begin again"
        )
    folder.mkdir(exist_ok=True)
    write_json(folder / _RECORD, {"fingerprint": identity})
