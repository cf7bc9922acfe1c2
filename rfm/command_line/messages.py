"""Messages: results on stdout, progress and warnings on stderr."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rfm.command_line.run_folder import RunData
    from rfm.datasets import Table


def is_first_process() -> bool:
    """Return whether this process is the one of several that reports."""
    return os.environ.get("RANK", "0") == "0"


def report(arguments: argparse.Namespace, record: dict[str, Any], text: str) -> None:
    """Print a result, as JSON where requested."""
    if is_first_process():
        print(json.dumps(record, indent=1) if arguments.json else text)


def warn(arguments: argparse.Namespace, sentences: Sequence[str], everywhere: bool = False) -> None:
    """Print warnings on stderr, a sentence each: in the first process, or in each what it alone has found."""
    for sentence in sentences if everywhere or is_first_process() else ():
        print(f"rfm {arguments.command}: {sentence}", file=sys.stderr)


def progress_note(arguments: argparse.Namespace) -> Callable[[str], None]:
    """Return a function that reports progress in words, on stderr."""
    return lambda message: None if arguments.quiet else print(f"{message} ...", file=sys.stderr, flush=True)


def shows_progress(arguments: argparse.Namespace, total: int) -> bool:
    """Return whether there is enough to do for a bar to be of use."""
    return not arguments.quiet and total > arguments.batch_size and is_first_process()


def report_columns(arguments: argparse.Namespace, data: "RunData", table: "Table | None" = None) -> None:
    """Print on stderr which columns points are from, where stdout is not for it."""
    if is_first_process():
        print(f"rfm {arguments.command}: points from {data.coordinates.describe(table)}", file=sys.stderr)
