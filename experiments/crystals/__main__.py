"""Crystals by one joint flow: types of atoms by jumps, places and cell by a velocity.

python -m experiments.crystals [--quick] [--out PAGE --figure FILE] [--run FOLDER]

Takes the crystals that pymatgen carries, ``pip install --no-deps pymatgen``; none is stored here.
"""

import argparse
import platform
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import torch

from experiments.crystals.baselines import scattered, shaken, shuffled
from experiments.crystals.data import Crystal, Split, load, split
from experiments.crystals.figure import draw
from experiments.crystals.measures import Measured, Row, measured, row
from experiments.crystals.model import Elements, NearestOrder, decoded, encoded, joint_flow, turned
from experiments.crystals.page import page, table_of
from rfm import Training
from rfm.discrete import JointFlow, fit_joint


def arguments_of(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the settings of a run."""
    parser = argparse.ArgumentParser(prog="python -m experiments.crystals", description=__doc__)
    parser.add_argument("--steps", type=int, default=1500, help="optimiser steps (default: 1500)")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="its peak (default: 0.002)")
    parser.add_argument("--label-weight", type=float, default=0.02, help="of the cross-entropy (default: 0.02)")
    parser.add_argument("--batch", type=int, default=32, help="crystals in a batch (default: 32)")
    parser.add_argument("--width", type=int, default=96, help="of the network (default: 96)")
    parser.add_argument("--layers", type=int, default=3, help="of attention (default: 3)")
    parser.add_argument("--most", type=int, default=12, help="atoms in a cell (default: 12)")
    parser.add_argument("--draws", type=int, default=300, help="crystals to draw (default: 300)")
    parser.add_argument("--solver-steps", type=int, default=100, help="of a draw (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of everything (default: 0)")
    parser.add_argument("--run", type=Path, help="folder of checkpoints, from which an interrupted run goes on")
    parser.add_argument("--quick", action="store_true", help="a small run that shows that all parts work")
    parser.add_argument("--out", type=Path, help="write the page here")
    parser.add_argument("--figure", type=Path, help="draw crystals and what they measure here")
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.steps, arguments.width, arguments.layers, arguments.most = 60, 32, 1, 6
        arguments.draws, arguments.solver_steps = 24, 10
    return arguments


def trained(parts: Split, elements: Elements, arguments: argparse.Namespace) -> JointFlow:
    """Return the flow of the training crystals."""
    flow = joint_flow(parts.train, elements, arguments.seed, arguments.width, arguments.layers)
    return fit_joint(
        turned(encoded(parts.train, elements)),
        flow,
        held_out=encoded([c for c in parts.validation if len(c.numbers) in flow.lengths], elements),
        label_weight=arguments.label_weight,
        coupling=NearestOrder(),
        steps=arguments.steps,
        batch_size=arguments.batch,
        seed=arguments.seed,
        out=arguments.run,
        resume=arguments.run is not None,
        device="cpu",
        progress=False,
        training=Training(learning_rate=arguments.learning_rate),
    )


def main(argv: Sequence[str] | None = None) -> list[Row]:
    """Train, draw, measure, print the table, and write page and figure if requested."""
    arguments = arguments_of(argv)
    torch.set_num_threads(1)
    crystals = load(arguments.most)
    elements, parts, started = Elements(crystals), split(crystals, arguments.seed), time.process_time()
    flow = trained(parts, elements, arguments)
    seconds = float(flow.history[-1]["cpu_seconds"])
    print(f"trained: {flow.stopped}, {seconds:.0f} s of the processor", file=sys.stderr)
    generator = torch.Generator().manual_seed(arguments.seed)
    drawn = decoded(flow.sample(arguments.draws, steps=arguments.solver_steps, generator=generator), elements)
    train, count, seed = parts.train, arguments.draws, arguments.seed
    sets: dict[str, Sequence[Crystal]] = {
        "real, held out": parts.test,
        "joint flow": drawn,
        "parts shuffled": shuffled(train, count, seed),
        "atoms scattered": scattered(train, count, seed),
        "training, shaken": shaken(train, count, seed),
        "training": train,
    }
    test = [measured(crystal) for crystal in parts.test]
    rows = [row(name, found, test, train) for name, found in sets.items()]
    print(table_of(rows))
    print(f"{time.process_time() - started:.0f} s of the processor in all", file=sys.stderr)
    if arguments.figure:
        _draw({name: sets[name] for name in list(sets)[:4]}, train, drawn, arguments.figure)
    if arguments.out:
        text = page(rows, parts, flow, arguments, date.today().isoformat(), platform.machine(), torch.__version__)
        arguments.out.write_text(text, encoding="utf-8")
    return rows


def _draw(sets: dict[str, Sequence[Crystal]], train: Sequence[Crystal], drawn: Sequence[Crystal], path: Path) -> None:
    known = np.stack([measured(crystal).distances for crystal in train])
    found: dict[str, list[Measured]] = {name: [measured(c) for c in crystals] for name, crystals in sets.items()}
    nearest = {
        name: [float(np.abs(known - m.distances).max(-1).min()) for m in measures] for name, measures in found.items()
    }
    # The first of each size, chosen by nothing else.
    sizes = sorted({len(crystal.numbers) for crystal in drawn})
    pictured = [next(crystal for crystal in drawn if len(crystal.numbers) == k) for k in sizes[:6]]
    draw(found, nearest, pictured, path)


if __name__ == "__main__":
    main()
