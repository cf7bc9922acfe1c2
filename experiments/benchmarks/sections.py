"""Measured sections as data, of which the pages' tables are made: ``docs/benchmarks.json``.

``python -m experiments.benchmarks.sections`` writes the pages from the file again, ``--collect`` the file from them.
"""

import argparse
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RECORD = Path("docs/benchmarks.json")
PAGES = tuple(
    Path("docs") / name
    for name in (
        "benchmarks.md",
        *(f"benchmarks/{name}.md" for name in ("couplings", "geometry", "out-of-core", "precision")),
    )
)
"""The pages that are made of it; each page's own text stands before its first section."""
MEASURED = "<!-- Everything below is written by python -m experiments.benchmarks. -->"
_FACTS = re.compile(
    r"- command: `(?P<command>.*)`\n- date: (?P<date>\S+); device: (?P<device>.*); (?P<threads>\d+) threads; seed 0\n"
    r"- versions: (?P<versions>.*)\n\n"
)
_RULE = re.compile(r"\|( ?:?-+:? ?\|)+")

Block = dict[str, Any]
"""A ``text``, or a table: ``columns``, which of them are ``right``-aligned, and ``rows`` of cells as they are shown."""


@dataclass(frozen=True)
class Section:
    """What one command has measured.

    Args:
        title: a heading.
        intro: what is measured, and how.
        command: what was typed.
        date: in ISO 8601.
        device: what it ran on.
        threads: of PyTorch.
        versions: of Python and packages, by name.
        body: texts and tables, in order.
        seconds: that the command took; None where that is not known.
    """

    title: str
    intro: str
    command: str
    date: str
    device: str
    threads: int
    versions: Mapping[str, str]
    body: Sequence[Block]
    seconds: float | None = None

    def markdown(self, level: int) -> str:
        """Return the section as text below a heading of a level."""
        intro = f"{self.intro}\n\n" if self.intro else ""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return (
            f"{'#' * level} {self.title}\n\n{intro}- command: `{self.command}`\n"
            f"- date: {self.date}; device: {self.device}; {self.threads} threads; seed 0\n- versions: {versions}\n\n"
            + "\n\n".join(_shown(block) for block in self.body)
            + "\n"
        )

    @classmethod
    def of_markdown(cls, text: str) -> "Section":
        """Return the section that `markdown` made a text of.

        Raises:
            ValueError: it is none.
        """
        heading, _, rest = text.partition("\n\n")
        facts = _FACTS.search(rest)
        if facts is None:
            raise ValueError(f"{heading}: there are no lines with command, date and versions; run its command again")
        versions = dict(item.rsplit(" ", 1) for item in facts["versions"].split(", "))
        return cls(
            heading.lstrip("# "),
            rest[: facts.start()].strip(),
            facts["command"],
            facts["date"],
            facts["device"],
            int(facts["threads"]),
            versions,
            blocks(rest[facts.end() :]),
        )


def blocks(text: str) -> list[Block]:
    """Return a text as its paragraphs and tables."""
    return [_block(part) for part in text.strip().split("\n\n")]


def _block(text: str) -> Block:
    lines = text.split("\n")
    if len(lines) < 2 or not _RULE.fullmatch(lines[1]) or not all(line.startswith("|") for line in lines):
        return {"text": text}
    columns, rule, *rows = (_cells(line) for line in lines)
    return {"columns": columns, "right": [cell.endswith(":") for cell in rule], "rows": rows}


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]


def _shown(block: Block) -> str:
    if "text" in block:
        return str(block["text"])
    rule = "".join("---:|" if right else "---|" for right in block["right"])
    lines = ["".join(f" {cell} |" for cell in row) for row in (block["columns"], *block["rows"])]
    return "\n".join([f"|{lines[0]}", f"|{rule}", *(f"|{line}" for line in lines[1:])])


def record_of(page: Path) -> Path:
    """Return the record that a page is made of: that of the documentation, or one beside it."""
    return RECORD if page in PAGES else page.with_suffix(".json")


def read_record(path: Path = RECORD) -> dict[str, list[Section]]:
    """Return the sections of each page; none where nothing has been measured."""
    if not path.exists():
        return {}
    pages = json.loads(path.read_text(encoding="utf-8"))
    return {page: [Section(**section) for section in sections] for page, sections in pages.items()}


def keep(page: Path, sections: Iterable[Section]) -> None:
    """Put sections of a page into its record, in place of those of the same titles, and write the page."""
    path = record_of(page)
    record = read_record(path)
    name = page.as_posix()
    new = {section.title: section for section in sections}
    old = record.get(name, [])
    kept = [new.pop(section.title, section) for section in old]
    record[name] = [*kept, *new.values()]
    pages = {key: [asdict(section) for section in record[key]] for key in sorted(record)}
    path.write_text(json.dumps(pages, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page.write_text(rendered(page, record[name]), encoding="utf-8")


def rendered(page: Path, sections: Sequence[Section]) -> str:
    """Return the text of a page: one section, or its own text and several."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    if MEASURED not in text:
        return sections[0].markdown(1)
    head = text.partition(MEASURED)[0]
    return f"{head}{MEASURED}\n\n" + "\n".join(section.markdown(2) for section in sections)


def collected(page: Path) -> list[Section]:
    """Return the sections that a page shows."""
    text = page.read_text(encoding="utf-8")
    if MEASURED not in text:
        return [Section.of_markdown(text)]
    body = text.partition(MEASURED)[2].strip()
    return [Section.of_markdown(part) for part in re.split(r"\n\n(?=## )", body)]


def main() -> None:
    """Write the pages from the record, or the record from the pages."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks.sections", description=__doc__)
    parser.add_argument("--collect", action="store_true", help="write the record from what the pages show")
    arguments = parser.parse_args()
    for page in PAGES:
        if page.exists():
            own = collected(page) if arguments.collect else read_record().get(page.as_posix(), [])
            keep(page, own)


if __name__ == "__main__":
    main()
