"""Write the code of `docs/examples` into the pages that show it, so that they read the same in a repository as built.

A page shows an example by a comment before a block of code, which names a file and perhaps a section of it; the block
is written by this command, and a test holds it to be current. In a file, ``# --8<-- [start:name]`` and
``# --8<-- [end:name]`` are around a section.

    python -m experiments.inline_examples
"""

import re
import textwrap
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"

_NAME = r"(?P<name>[\w.]+)(?::(?P<section>\w+))?"
_BLOCK = re.compile(
    rf"^<!-- example: {_NAME} -->\n```(?P<language>\w+)\n(?P<code>.*?)^```$", flags=re.MULTILINE | re.DOTALL
)
_MARK = re.compile(r"^ *# --8<-- \[(?:start|end):\w+\]\n", flags=re.MULTILINE)
"""Between sections, where one lies within another."""


def example(name: str, section: str | None = None, folder: Path = DOCS / "examples") -> str:
    """Return the text of a file, or of a section of it, without the marks.

    Raises:
        ValueError: if there is no such file or section.
    """
    file = folder / name
    if not file.is_file():
        raise ValueError(f"inline_examples: there is no {name} in {folder.name}; name a file of that folder")
    text = file.read_text(encoding="utf-8")
    if section is not None:
        found = re.search(
            rf"^ *# --8<-- \[start:{section}\]\n(.*?)^ *# --8<-- \[end:{section}\]$", text, re.MULTILINE | re.DOTALL
        )
        if found is None:
            raise ValueError(f"inline_examples: {name} has no section {section}; put its start and end around one")
        text = found[1]
    return _MARK.sub("", textwrap.dedent(text)).strip("\n") + "\n"


def current(page: str, folder: Path = DOCS / "examples") -> str:
    """Return the text of a page with the blocks as the examples are now."""

    def block(match: re.Match[str]) -> str:
        head, _, _ = match[0].partition("\n")
        return f"{head}\n```{match['language']}\n{example(match['name'], match['section'], folder)}```"

    return _BLOCK.sub(block, page)


def main() -> None:
    """Bring all pages up to date, and say which were not."""
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        new = current(text)
        if new != text:
            page.write_text(new, encoding="utf-8")
            print(page.relative_to(DOCS.parent))


if __name__ == "__main__":
    main()
