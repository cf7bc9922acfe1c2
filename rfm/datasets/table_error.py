"""What is wrong with a file or a table, in one sentence."""

import os
from collections.abc import Sequence


class TableError(ValueError):
    """A table that cannot be used; the message is one sentence: where, what, and the remedy.

    Args:
        message: the sentence.
        rows: the rows, counted from 0, that have the fault, where it is one of rows: without them the rest can be used.
        finding: the fault of these rows alone, for a report of what was skipped.
    """

    def __init__(self, message: str, rows: Sequence[int] = (), finding: str = "") -> None:
        super().__init__(message)
        self.rows, self.finding = rows, finding


def shown_path(path: str | os.PathLike[str]) -> str:
    """Return a path for a message, whatever its characters."""
    name = os.fspath(path)
    return name if name.isprintable() and name else repr(name)
