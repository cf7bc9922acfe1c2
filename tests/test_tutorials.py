"""The tutorials: pages that run, read as documentation and open in Jupyter."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.tutorials import FOLDER, IMAGES, cells, figures, main, notebook, pages, run

PAGES = pages()
pytestmark = pytest.mark.skipif(not PAGES, reason="the documentation is not part of this checkout")


def skeleton(text: str) -> str:
    """What a page says, without the digits and addresses that another machine may print otherwise."""
    return re.sub(r"\s+", " ", re.sub(r"0x[\da-f]+|[-+]?[\d.]+(?:e[-+]?\d+)?", "0", text))


def test_the_index_lists_every_page() -> None:
    assert {page.name for page in PAGES} == {page.name for page in FOLDER.glob("*.md")} - {"index.md"}
    navigation = (FOLDER.parents[1] / "mkdocs.yml").read_text(encoding="utf-8")
    assert all(f"tutorials/{page.name}" in navigation for page in PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_ends_with_what_to_read_next(page: Path) -> None:
    last = page.read_text(encoding="utf-8").rpartition("\n## ")[2]
    assert last.startswith("Read next\n")
    assert len(re.findall(r"\]\([\w./-]+\.md\)", last)) >= 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_stored_outputs_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    found = cells(text)
    assert len(found) == len(re.findall(r"^```python$", text, re.MULTILINE))
    assert all(bool(cell.output) == ("print(" in cell.code) for cell in found)
    names = figures(text)
    assert names == [f"{page.stem}-{i + 1}.png" for i in range(len(names))]
    assert all((IMAGES / name).stat().st_size < 150_000 for name in names)


def test_no_picture_is_left_over() -> None:
    shown = {name for page in PAGES for name in figures(page.read_text(encoding="utf-8"))}
    assert {file.name for file in IMAGES.glob("*.png")} == shown


def test_cells_pass_the_linter(tmp_path: Path) -> None:
    for page in PAGES:
        code = "\n".join(cell.code for cell in cells(page.read_text(encoding="utf-8")))
        (tmp_path / f"{page.stem.replace('-', '_')}.py").write_text(code, encoding="utf-8")
    settings = ["--isolated", "--line-length", "120", "--select", "E,F,W,B,UP,N,SIM,RUF,C4,PIE,RET"]
    # Imports stand where they are needed, as in notebooks.
    command = [sys.executable, "-m", "ruff", "check", *settings, "--ignore", "E402,N803,N806", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_a_run_stores_what_cells_print_and_draw(tmp_path: Path) -> None:
    page = tmp_path / "some.md"
    link = "![a line](../images/tutorials/some-1.png)"
    text = (
        f"# Title\n\n```python\na = 1\nprint(a)\n```\n\n```text\nold\n```\n\nThen.\n\n```python\nb = a\n```\n\n{link}\n"
    )
    page.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"draws \[\] and shows \['some-1.png'\]"):
        run(page, tmp_path)
    page.write_text(text.replace("b = a", "import matplotlib.pyplot as plt\nplt.plot([1, 2])"), encoding="utf-8")
    new = run(page, tmp_path)
    assert new == page.read_text(encoding="utf-8").replace("old", "1")
    assert (tmp_path / "some-1.png").exists()
    page.write_text("```python\na = 1\n```\n\n```text\nno longer printed\n```\n\nEnd.\n", encoding="utf-8")
    assert run(page, tmp_path) == "```python\na = 1\n```\n\nEnd.\n"


def test_pages_become_notebooks(tmp_path: Path) -> None:
    main(["--notebooks", str(tmp_path)])
    assert len(list(tmp_path.glob("*.ipynb"))) == len(PAGES)
    for page in PAGES:
        made = json.loads((tmp_path / f"{page.stem}.ipynb").read_text(encoding="utf-8"))
        assert made == notebook(page)
        assert (made["nbformat"], made["nbformat_minor"]) == (4, 5)
        text = page.read_text(encoding="utf-8")
        code = [part for part in made["cells"] if part["cell_type"] == "code"]
        assert [part["source"] + "\n" for part in code] == [cell.code for cell in cells(text)]
        assert all({"execution_count", "outputs", "metadata", "id"} <= set(part) for part in code)
        pictures = [name for part in made["cells"] for name in part.get("attachments", {})]
        assert pictures == figures(text)
        assert not any("../images" in part["source"] for part in made["cells"])


# Of NumPy, about tensors that are drawn as they are.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_runs_and_says_what_it_stores(page: Path, tmp_path: Path) -> None:
    """Claims are asserted in the cells themselves; another machine may print other digits, never other words."""
    text = run(page, tmp_path)
    assert skeleton(text) == skeleton(page.read_text(encoding="utf-8"))
