"""The plan of the house: which room imports which, and through which files a call walks.

``python -m experiments.architecture`` reads the imports of the code as it stands, draws docs/images/architecture.png,
runs `rfm.fit`, `Flow.sample` and `Flow.log_prob` on a small example while it notes every function that is entered, and
replaces the tables of docs/architecture.md.
"""

import argparse
import ast
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import torch

ROOT = Path(__file__).parents[1]


@dataclass
class Room:
    """A folder of `rfm`, or a file beside the folders; or all of `manifolds`."""

    name: str
    files: int = 0
    lines: int = 0
    imports: set[str] = field(default_factory=set)


def rooms() -> dict[str, Room]:
    """Return the rooms with what they import, the public face and the start of ``python -m rfm`` left out."""
    graph: dict[str, Room] = {}
    for package in ("manifolds", "rfm"):
        for file in sorted((ROOT / package).rglob("*.py")):
            name = _room(file)
            if name in ("__init__", "__main__"):
                continue
            room = graph.setdefault(name, Room(name))
            text = file.read_text(encoding="utf-8")
            room.files += 1
            room.lines += text.count("\n")
            room.imports |= {target for target in _imported(text) if target != name}
    for room in graph.values():
        room.imports &= graph.keys()
    return graph


def _room(file: Path) -> str:
    package, *inside = file.relative_to(ROOT).with_suffix("").parts
    return "manifolds" if package == "manifolds" else inside[0]


def _imported(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for package, *inside in (name.split(".") for name in names):
            if package == "manifolds":
                yield "manifolds"
            elif package == "rfm":
                yield inside[0]


def floors(graph: dict[str, Room]) -> list[list[str]]:
    """Return the rooms by floor: each stands one above the highest room that it imports."""

    @cache
    def floor(name: str) -> int:
        return 1 + max((floor(below) for below in graph[name].imports), default=-1)

    levels: list[list[str]] = [[] for _ in range(1 + max(map(floor, graph)))]
    for name in sorted(graph):
        levels[floor(name)].append(name)
    return levels


def draw(graph: dict[str, Room], out: Path) -> None:
    """Draw the rooms floor by floor, the ground at the bottom, with an arrow from each to what it imports.

    Arrows to what another imported room imports too are left out. All stand on `manifolds`.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    above = ([name for name in level if name != "manifolds"] for level in floors(graph))
    levels = [level for level in above if level]
    figure = Figure(figsize=(10, 1.3 * len(levels)), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axis_off()
    widest = max(map(len, levels))
    place = {
        name: ((i + 0.5) * widest / len(level), floor)
        for floor, level in enumerate(levels, 1)
        for i, name in enumerate(level)
    }
    half, half_height = 0.38, 0.25
    colours = matplotlib.colormaps["tab10"]

    def box(name: str, x: float, y: float, half_width: float, edge: Any) -> None:
        room = graph[name]
        corner = (x - half_width, y - half_height)
        style = {"boxstyle": "round,pad=0.02", "facecolor": "white", "edgecolor": edge, "linewidth": 1.6, "zorder": 3}
        axes.add_patch(FancyBboxPatch(corner, 2 * half_width, 2 * half_height, **style))
        axes.text(x, y + 0.08, name, ha="center", va="center", fontsize=11, weight="bold", zorder=4)
        size = f"{_count(room.files, 'file')}, {room.lines:,} lines"
        axes.text(x, y - 0.12, size, ha="center", va="center", fontsize=8, zorder=4)

    box("manifolds", widest / 2, 0, widest / 2 - 0.12, "black")
    for number, (name, (x, y)) in enumerate(place.items()):
        box(name, x, y, half, colours(number % 10))
        direct = graph[name].imports - {"manifolds"}
        for below in direct - {further for other in direct for further in _reached(graph, other)}:
            to_x, to_y = place[below]
            # Arrows past other floors bend to the outside, so that they do not seem to end on the way.
            bend = 0.0 if y - to_y == 1 else 0.35 if x + to_x > widest else -0.35
            ends = (x, y - half_height - 0.03), (to_x, to_y + half_height + 0.03)
            arrow: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 13, "linewidth": 1.4}
            arrow |= {"color": colours(number % 10), "connectionstyle": f"arc3,rad={-bend}", "zorder": 2}
            axes.add_patch(FancyArrowPatch(*ends, **arrow))
    axes.set_xlim(-0.1, widest + 0.1)
    axes.set_ylim(-0.4, len(levels) + 0.4)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)


def _reached(graph: dict[str, Room], name: str) -> set[str]:
    """Return all rooms below one."""
    return graph[name].imports.union(*(_reached(graph, below) for below in graph[name].imports))


def walk(call: Callable[[], Any]) -> dict[str, set[str]]:
    """Return the functions that a call enters, by file, in the order in which the files are entered."""
    entered: dict[str, set[str]] = {}
    known = tuple(str(ROOT / package) for package in ("rfm", "manifolds"))

    def note(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        # Bodies of modules and of classes run when they are imported, which is no walk.
        if event == "call" and code.co_filename.startswith(known) and code.co_flags & 2:
            file = str(Path(code.co_filename).relative_to(ROOT))
            entered.setdefault(file, set()).add(code.co_qualname)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(before)
    return entered


def walks() -> dict[str, dict[str, set[str]]]:
    """Return how the three main calls walk through the files, on points of a sphere."""
    import rfm
    from manifolds import Sphere

    sphere = Sphere(2)
    points = sphere.random_uniform(300, generator=torch.Generator().manual_seed(0))
    flows: list[rfm.Flow] = []
    # Loaded now: names are when they are first used, and that is no part of the walk.
    fit_flow = rfm.fit

    def fit() -> None:
        flows.append(fit_flow(points, sphere, steps=4, batch_size=16, device="cpu", progress=False))

    walked = {"rfm.fit(points, Sphere(2))": walk(fit)}
    walked["flow.sample(8)"] = walk(lambda: flows[0].sample(8))
    walked["flow.log_prob(points)"] = walk(lambda: flows[0].log_prob(points[:8]))
    return walked


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _plan(graph: dict[str, Room]) -> str:
    rows = ["| floor | room | files | lines | imports |", "|---:|---|---:|---:|---|"]
    for number, level in reversed(list(enumerate(floors(graph)))):
        for name in level:
            room = graph[name]
            below = ", ".join(sorted(room.imports - {"manifolds"})) or "manifolds" * ("manifolds" in room.imports)
            rows.append(f"| {number} | `{name}` | {room.files} | {room.lines:,} | {below} |")
    return "\n".join(rows)


def _walked(walked: dict[str, dict[str, set[str]]]) -> str:
    parts = []
    for call, files in walked.items():
        functions = sum(map(len, files.values()))
        parts.append(f"**`{call}`** enters {len(files)} files and {functions} functions, in this order:\n")
        parts.append(", ".join(f"`{file}`" for file in files) + ".\n")
    return "\n".join(parts).rstrip()


def page(text: str, tables: dict[str, str]) -> str:
    """Return a page with what stands between ``<!-- name -->`` and ``<!-- end -->`` replaced by that table."""
    for name, table in tables.items():
        head, mark, rest = text.partition(f"<!-- {name} -->\n")
        _, end, tail = rest.partition("<!-- end -->")
        assert mark, name
        assert end, name
        text = f"{head}{mark}\n{table}\n\n{end}{tail}"
    return text


def main() -> None:
    """Draw the plan and fill in the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    docs = parser.parse_args().docs
    graph = rooms()
    draw(graph, docs / "images" / "architecture.png")
    file = docs / "architecture.md"
    file.write_text(
        page(file.read_text(encoding="utf-8"), {"rooms": _plan(graph), "walks": _walked(walks())}), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
