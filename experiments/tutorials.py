"""Run the tutorials and keep what they print and draw: ``python -m experiments.tutorials [plane sphere ...]``.

A tutorial is a page of `docs/tutorials`, one file that reads as documentation, runs, and opens in Jupyter. Its blocks
of Python are cells, run in order in one namespace. What a cell prints stands in the block of text after it, which this
command writes; the figures that cells leave open are saved in turn as ``images/tutorials/PAGE-1.png`` and so on, and
the page shows each by a link of its own. ``--notebooks FOLDER`` writes them as notebooks, outputs included; with the
package jupytext Jupyter opens the pages themselves.
"""

import argparse
import base64
import contextlib
import io
import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "docs" / "tutorials"
IMAGES = FOLDER.parent / "images" / "tutorials"

_CELL = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```\n)?", re.MULTILINE | re.DOTALL)
_FIGURE = re.compile(r"!\[[^\]]*\]\(\.\./images/tutorials/(?P<file>[\w-]+\.png)\)")
_DPI = 80


@dataclass(frozen=True)
class Cell:
    """A block of code of a page, and what it printed.

    Args:
        code: Python.
        output: what it printed when it ran last; empty for nothing.
        start: where it begins in the page.
        end: where it, with its output, ends.
    """

    code: str
    output: str
    start: int
    end: int


def pages() -> list[Path]:
    """Return the tutorials, in the order of the index."""
    index = (FOLDER / "index.md").read_text(encoding="utf-8")
    return [FOLDER / name for name in dict.fromkeys(re.findall(r"\]\((\w[\w-]*\.md)\)", index))]


def cells(text: str) -> list[Cell]:
    """Return the cells of a page."""
    return [Cell(m["code"], m["output"] or "", m.start(), m.end()) for m in _CELL.finditer(text)]


def figures(text: str) -> list[str]:
    """Return the names of the pictures that a page shows."""
    return [match["file"] for match in _FIGURE.finditer(text)]


def run(page: Path, images: Path) -> str:
    """Run a page, save its figures in a folder, and return its text with the outputs as they are now.

    Raises:
        ValueError: for a page that does not show exactly the figures that it draws.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    text = page.read_text(encoding="utf-8")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    written, last, drawn = "", 0, list[str]()
    for cell in cells(text):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            # At its own line of the page, which a traceback then names.
            lines = text.count("\n", 0, cell.start) + 1
            exec(compile("\n" * lines + cell.code, str(page), "exec"), namespace)
        for number in pyplot.get_fignums():
            drawn.append(f"{page.stem}-{len(drawn) + 1}.png")
            pyplot.figure(number).savefig(images / drawn[-1], dpi=_DPI)
        pyplot.close("all")
        output = f"\n```text\n{printed.getvalue().rstrip()}\n```\n" if printed.getvalue().strip() else ""
        written += f"{text[last : cell.start]}```python\n{cell.code}```\n{output}"
        last = cell.end
    if drawn != figures(text):
        raise ValueError(f"tutorials: {page.name} draws {drawn} and shows {figures(text)}; link each where it is drawn")
    return written + text[last:]


def notebook(page: Path) -> dict[str, Any]:
    """Return a page as a notebook of Jupyter (format 4.5), with the outputs that it stores."""
    text = page.read_text(encoding="utf-8")
    parts, last = list[dict[str, Any]](), 0
    for cell in cells(text):
        parts.extend(_markdown(text[last : cell.start]))
        stream = {"output_type": "stream", "name": "stdout", "text": cell.output}
        outputs = [stream] if cell.output else []
        parts.append(_part("code", cell.code, execution_count=None, outputs=outputs))
        last = cell.end
    parts.extend(_markdown(text[last:]))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    numbered = [{"id": f"cell-{i}", **part} for i, part in enumerate(parts)]
    return {"cells": numbered, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def _markdown(text: str) -> Iterator[dict[str, Any]]:
    if not text.strip():
        return
    attached = {}
    for name in figures(text):
        data = base64.b64encode((IMAGES / name).read_bytes()).decode()
        attached[name] = {"image/png": data}
    # A notebook leaves its folder: pictures travel in it, and pages are named by where the site would have them.
    source = re.sub(r"\(\.\./images/tutorials/", "(attachment:", text.strip("\n") + "\n")
    yield _part("markdown", source, **({"attachments": attached} if attached else {}))


def _part(kind: str, source: str, **more: Any) -> dict[str, Any]:
    return {"cell_type": kind, "metadata": {}, "source": source.rstrip("\n"), **more}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the pages that are named, or all; or write notebooks."""
    parser = argparse.ArgumentParser(prog="python -m experiments.tutorials", description=__doc__)
    parser.add_argument("names", nargs="*", help="pages without their ending (default: all)")
    parser.add_argument("--notebooks", type=Path, metavar="FOLDER", help="write notebooks there, and run nothing")
    options = parser.parse_args(arguments)
    for page in pages():
        if options.names and page.stem not in options.names:
            continue
        if options.notebooks is not None:
            options.notebooks.mkdir(parents=True, exist_ok=True)
            target = options.notebooks / f"{page.stem}.ipynb"
            target.write_text(json.dumps(notebook(page), indent=1), encoding="utf-8")
            print(target)
            continue
        IMAGES.mkdir(parents=True, exist_ok=True)
        start = time.process_time()
        text = run(page, IMAGES)
        page.write_text(text, encoding="utf-8")
        print(f"{page.name}: {time.process_time() - start:.0f} seconds of the processor")


if __name__ == "__main__":
    main()
