"""Rows that are left out of a table on request: counted, and named by their faults."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from rfm.datasets.table_error import TableError
from rfm.datasets.tables import Table, numbered_runs

_Result = TypeVar("_Result")
_NAMED_LINES = 10


class SkippedRows:
    """What was left out: for each fault the lines on which it was found."""

    def __init__(self) -> None:
        self.lines_by_finding: dict[str, list[int]] = {}

    def __len__(self) -> int:
        return sum(map(len, self.lines_by_finding.values()))

    def note(self, finding: str, lines: Sequence[int]) -> None:
        """Note rows that are left out.

        Args:
            finding: their fault, in words.
            lines: where they stand.
        """
        self.lines_by_finding.setdefault(finding, []).extend(lines)

    def apply(self, table: Table, use: Callable[[Table], _Result]) -> tuple[Table, _Result]:
        """Return a table without the rows that ``use`` refuses, and what it makes of the others.

        Args:
            table: the table.
            use: raises a `TableError` with ``rows`` for those it cannot use.

        Raises:
            TableError: it raises one that is not about rows, or no row is left.
        """
        while True:
            try:
                return table, use(table)
            except TableError as error:
                if not len(error.rows):
                    raise
                self.note(error.finding, [table.lines[row] for row in error.rows])
                table = table.without(error.rows)

    def describe(self, kept: int) -> str:
        """Return the counts and the first lines of each fault in words; ``kept`` is how many rows are left."""
        parts = []
        for finding, lines in self.lines_by_finding.items():
            runs = list(numbered_runs(lines[:_NAMED_LINES]))
            more = ", ..." if len(lines) > _NAMED_LINES else ""
            parts.append(f"{len(lines)} for {finding} (line{'s' * (len(lines) > 1)} {', '.join(runs)}{more})")
        return f"skipped {len(self)} of {len(self) + kept} rows: {'; '.join(parts)}"
