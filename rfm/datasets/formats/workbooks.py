"""Excel workbooks (.xlsx), by openpyxl: the values that were last computed, of one sheet."""

import datetime
import io
from typing import Any

from rfm.datasets.formats.file_format import FileFormat, chosen_part, package
from rfm.datasets.table_error import TableError, shown_path
from rfm.datasets.tables import Table
from rfm.datasets.text_files import FileContent, archived_names
from rfm.datasets.text_tables import is_header


def is_workbook(source: FileContent) -> bool:
    """Return whether a file is a zip archive with the parts of a workbook."""
    return any(name.startswith("xl/") for name in archived_names(source.content))


def _read(source: FileContent) -> Table:
    file = shown_path(source)
    book = package("openpyxl").load_workbook(io.BytesIO(source.content), read_only=True, data_only=True)
    sheets = {}
    for sheet in book.worksheets:
        rows = [(i, [_text(cell) for cell in row]) for i, row in enumerate(sheet.iter_rows(values_only=True), start=1)]
        rows = [(i, row) for i, row in rows if any(row)]
        if rows:
            sheets[sheet.title] = rows
    return _table(file, chosen_part(source, sheets, "sheet"))


def _table(file: str, rows: list[tuple[int, list[str]]]) -> Table:
    """Return the table in the rows of a sheet: empty columns at its edges, and lines before its header, are none."""
    most = max(sum(map(bool, row)) for _, row in rows)
    while most > 1 and sum(map(bool, rows[0][1])) == 1:
        rows = rows[1:]  # a title above the header
    used = max(max(i for i, cell in enumerate(row) if cell) for _, row in rows) + 1
    first = min(min(i for i, cell in enumerate(row) if cell) for _, row in rows)
    cells = [(i, [*row, *([""] * used)][first:used]) for i, row in rows]
    has_header = is_header(cells[0][1])
    names = tuple(cells[0][1]) if has_header else tuple(str(i + 1) for i in range(used - first))
    body = cells[1:] if has_header else cells
    if not body:
        raise TableError(f"{file}: the sheet has a header but no rows; add points, one in a row")
    table = Table.of_rows(file, names, has_header, [row for _, row in body], [i for i, _ in body])
    return Table(file, names, has_header, table.columns, table.lines, row_word="row")


def _text(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, datetime.datetime) and cell.time() == datetime.time():
        cell = cell.date()
    if isinstance(cell, datetime.date | datetime.time):
        return cell.isoformat()
    return str(cell).strip()


WORKBOOK = FileFormat("an Excel workbook (.xlsx)", is_workbook, _read, "tables")
