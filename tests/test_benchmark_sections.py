"""Measured sections as data: pages are made of the record, and nothing else."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.benchmarks import sections
from experiments.benchmarks.harness import HEADER, Row, write_page
from experiments.benchmarks.sections import PAGES, Section, blocks, collected, keep, read_record, rendered

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("page", [page for page in PAGES if (ROOT / page).exists()], ids=lambda page: page.stem)
def test_pages_show_what_the_record_holds(page: Path) -> None:
    record = read_record(ROOT / sections.RECORD)
    assert rendered(ROOT / page, record[page.as_posix()]) == (ROOT / page).read_text(encoding="utf-8")


def test_sections_come_back_from_the_page_that_they_make(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Own\n\nText.\n\n{sections.MEASURED}\n")
    line = Row("a thing, of 3", 0.1, 0.2, 0.5, 1.0, 1e-7, "error").line()
    body = f"Before.\n\n{HEADER}\n{line}\n\nAfter."
    first = Section(
        "One", "", "python x", "2026-12-01", "a CPU", 1, {"Python": "3.11", "torch": "2"}, blocks(body), 3.0
    )
    second = replace(first, title="Two", intro="Two lines\nof it.")
    keep(page, [first, second])
    assert collected(page) == [replace(first, seconds=None), replace(second, seconds=None)]
    assert page.read_text().startswith("# Own\n\nText.")
    keep(page, [replace(first, threads=2)])
    assert [section.threads for section in collected(page)] == [2, 1]
    table = json.loads((tmp_path / "page.json").read_text())[page.as_posix()][0]["body"][1]
    assert table["columns"][0] == "what"
    assert table["rows"][0][:3] == ["a thing, of 3", "100.00", "200.00"]


def test_a_page_of_one_section(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    write_page(page, "Title", "Why.", "python x", f"{HEADER}\n", ("pytest",))
    assert page.read_text().startswith("# Title\n\nWhy.\n\n- command: `python x`\n- date: ")
    assert "pytest" in collected(page)[0].versions
    page.write_text("# Title\n\nNo facts.\n")
    with pytest.raises(ValueError, match="run its command again"):
        collected(page)
