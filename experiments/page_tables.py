"""Tables of a page that are written anew, between marks: ``<!-- name -->`` and ``<!-- end -->``."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path


def write_tables(page: Path, tables: Mapping[str, Sequence[str]]) -> None:
    """Replace what stands between the marks of each name, and leave the rest of the page.

    Args:
        page: Markdown.
        tables: lines by name.

    Raises:
        ValueError: if the page has no place for a name, or several.
    """
    text = page.read_text(encoding="utf-8")
    for name, lines in tables.items():
        before, *after = re.split(rf"<!-- {re.escape(name)} -->.*?<!-- end -->", text, flags=re.S)
        if len(after) != 1:
            raise ValueError(f"write_tables: {page} has {len(after)} places for {name}; give it one")
        text = "\n".join([f"{before}<!-- {name} -->", "", *lines, "", f"<!-- end -->{after[0]}"])
    page.write_text(text, encoding="utf-8")
