"""Densities on sets with a border: ``python -m experiments.borders [--quick]``.

Known densities that are high at a border, by six mechanisms; mazes; and with ``--earth``, which takes as long again,
earthquakes in the sea, floods on land and fires in the Americas. Rows are kept in ``--out``, and a run goes on where it
was interrupted.
"""

import argparse
import functools
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.borders import earth, mazes, mechanisms, on_triangles
from experiments.borders.known import KNOWN, Known
from experiments.borders.page import Budgets, page
from experiments.borders.pictures import draw
from manifolds import Bounded

MECHANISMS: dict[str, Callable[..., mechanisms.Fitted | None]] = {
    "damped, half of the ways reflected": mechanisms.damped,
    "damped, straight ways": functools.partial(mechanisms.damped, reflected=0.0),
    "mapped to R^n": mechanisms.mapped,
    "conditioned": mechanisms.conditioned,
    "spectral premetric": on_triangles.premetric,
    "heat kernel, closed form": on_triangles.closed_form,
}
SIMULATED = "spectral premetric"
"""Trained for the first seed alone, since each pair is solved."""
CATALOGUES: tuple[tuple[str, str, Callable[[], Any]], ...] = (
    ("earthquakes in the sea", "earthquake", earth.sea),
    ("floods on land", "flood", earth.land),
    ("fires in the Americas", "fire", earth.americas),
)
MODELS = ("bounded flow", "flow on the sphere, conditioned", "kernel density")
NEAR = 0.05
DRAWS = 500
"""Of each fit, to count those inside."""


class Store:
    """Rows in a folder, each computed once.

    Args:
        folder: where.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    def row(self, name: str, compute: Callable[[], dict[str, Any] | None]) -> dict[str, Any] | None:
        """Return the row of a name, computed now if it is not there."""
        file = self.folder / f"{name.replace(' ', '_').replace('/', '_')}.json"
        if not file.exists():
            print(name, flush=True)
            file.write_text(json.dumps(compute()))
        found: dict[str, Any] | None = json.loads(file.read_text())
        return found

    def keep(self, name: str, tensor: Tensor) -> None:
        """Keep points for the pictures."""
        torch.save(tensor, self.folder / f"{name}.pt")

    def points(self, name: str) -> Tensor:
        """Return points that were kept."""
        found: Tensor = torch.load(self.folder / f"{name}.pt")
        return found


def known_row(known: Known, name: str, steps: int, points: int, seed: int) -> dict[str, Any] | None:
    """Return what a mechanism makes of a known density; training points and fit are of the seed."""
    x, test = known.sample(points, 2 * seed), known.sample(points // 2, 1)
    fitted = MECHANISMS[name](known, x, mechanisms.Budget(steps), seed)
    if fitted is None:
        return None
    gap = known.log_prob(test) - fitted.log_prob(test)
    near = known.manifold.constraint.depth(test) < NEAR
    nodes, weights = known.nodes
    drawn = fitted.sample(min(DRAWS, points), 2)
    return {
        "set": known.name,
        "mechanism": name,
        "gap": float(gap.mean()),
        "error": float(gap.std()) / len(gap) ** 0.5,
        "gap_near": float(gap[near].mean()),
        "near": float(near.double().mean()),
        "inside": float(known.manifold.constraint.contains(drawn).double().mean()),
        "mass": fitted.mass,
        "integral": float((fitted.log_prob(nodes).exp() * weights).sum()),
        "seconds": fitted.seconds,
    }


def known_rows(store: Store, steps: int, points: int, seeds: int) -> list[dict[str, Any]]:
    """Return the rows of all mechanisms on all known densities, one for each seed."""
    found = []
    for make in KNOWN:
        known = make()
        for name in MECHANISMS:
            for seed in range(1 if name == SIMULATED else seeds):
                compute = functools.partial(known_row, known, name, steps, points, seed)
                row = store.row(f"{known.name} {name} {seed}", compute)
                found += [] if row is None else [row]
    return found


def earth_rows(store: Store, steps: int, samples: int) -> list[dict[str, Any]]:
    """Return the rows of the catalogues."""
    found = []
    for name, dataset, polygon in CATALOGUES:
        own = earth.catalogue(name, dataset, polygon())
        connected = own.manifold.constraint.is_connected
        for model in (*MODELS, *([earth.CLOSED_FORM] if connected else [])):

            def compute(own: earth.Catalogue = own, model: str = model) -> dict[str, Any]:
                row, sample = earth.measure(own, model, steps, samples)
                if model == MODELS[0]:
                    store.keep(f"{own.name} {model}", sample(1500, 3))
                counts = {"points": len(own.points), "outside": own.outside, "catalogue": own.name}
                return row._asdict() | counts | {"edges": len(own.manifold.constraint.starts)}  # type: ignore[arg-type]

            row = store.row(f"{name} {model}", compute)
            found += [] if row is None else [row]
    return found


def maze_rows(store: Store, steps: int, draws: int) -> list[dict[str, Any]]:
    """Return the rows of the mazes."""
    folder = Path(os.environ.get("RFM_DATA", "data")) / "mesh"
    found = []
    for name in ("maze_3x3", "maze_4x4"):

        def compute(name: str = name) -> dict[str, Any]:
            maze, _, ways = mazes.measure(name, folder / f"{name}.obj", steps, draws)
            store.keep(name, ways[:, :150].float())
            return maze._asdict()

        row = store.row(name, compute)
        found += [] if row is None else [row]
    return found


def maze(name: str) -> Bounded:
    """Return a maze by name."""
    return mazes.room(Path(os.environ.get("RFM_DATA", "data")) / "mesh" / f"{name}.obj")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what has not been, and write page and pictures where asked to."""
    parser = argparse.ArgumentParser(prog="python -m experiments.borders", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few steps and points, to see that it runs")
    parser.add_argument("--out", type=Path, default=Path("runs/borders"), help="folder of the rows")
    parser.add_argument("--steps", type=int, default=600, help="of training on known densities")
    parser.add_argument("--points", type=int, default=4000, help="training points of the known densities")
    parser.add_argument("--seeds", type=int, default=3, help="of points and fits of the known densities")
    parser.add_argument("--real-steps", type=int, default=1000, help="of training on the earth; twice as many in mazes")
    parser.add_argument("--earth", action="store_true", help="also measure the catalogues of the earth")
    parser.add_argument("--page", type=Path, help="file to write the page to")
    parser.add_argument("--figure", type=Path, help="file to draw the pictures to")
    parser.add_argument(
        "--part", choices=("mazes", "known", "earth"), help="measure this part alone, and write no page"
    )
    options = parser.parse_args(arguments)
    if options.quick:
        options.steps, options.points, options.real_steps, options.seeds = 10, 200, 10, 1
    torch.set_num_threads(1)
    store = Store(options.out)
    parts: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "mazes": lambda: maze_rows(store, 2 * options.real_steps, 200 if options.quick else 500),
        "known": lambda: known_rows(store, options.steps, options.points, options.seeds),
        "earth": lambda: earth_rows(store, options.real_steps, 200 if options.quick else 3000),
    }
    if options.part is not None:
        parts[options.part]()
        return
    found = {name: compute() for name, compute in parts.items() if options.earth or name != "earth"}
    budget = Budgets(options.steps, options.points, options.real_steps, options.seeds)
    text = page(found["known"], found.get("earth", []), found["mazes"], budget)
    print(text)
    if options.page is not None:
        options.page.write_text(text)
    if options.figure is not None:
        draw(options.figure, store.points, maze, options.earth)


if __name__ == "__main__":
    main()
