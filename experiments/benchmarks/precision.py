"""Low precision: test likelihood and time of flows that are trained in each, on four manifolds.

python -m experiments.benchmarks.precision [--steps 1000] [--device cpu] [--out page.md]
"""

import argparse
import csv
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

import rfm
from experiments.benchmarks.harness import write_page
from manifolds import SO3, SPD, FlatTorus, Manifold, Sphere
from rfm.datasets import group_split, load, steel
from rfm.integrators import Adaptive, IntegrationError
from rfm.metrics import negative_log_likelihood, paired_difference
from rfm.networks import VelocityField
from rfm.training import default_field

PRECISIONS = ("32-true", "bf16-mixed", "bf16-true", "64-true")
_MOST, _VALIDATED, _TESTED = 4000, 96, 400
_SOLVER = Adaptive(atol=1e-3, rtol=1e-3)
"""That of validations: tighter ones resolve the rounding of weights in bfloat16 on positive definite matrices."""
_INTRO = """\
The same flow, data, seed and steps in each of Lightning Fabric's precisions: a field of width 64 with 128 features, on
batches of 256 pairs. **NLL**: mean over test points, in nats, of what training returned, evaluated in the precision of
its weights, at least float32 for all that is not a layer, by solves at a tolerance of 1e-3, with its
standard error; fields that fail to solve for some point have none.
**Worse than 32-true by**: the mean of the paired differences, with theirs. Runs differ by more than rounding, because
rounding grows along a training: `32-true, seed 1` says by how much another seed does; float64 draws other numbers of
the same seed. **Seconds** are of training, validations included; on a CPU small layers in bfloat16 are no faster."""


def earthquakes() -> Tensor:
    """Return places of earthquakes, ``(n, 3)``."""
    return load("earthquake").points


def torsions() -> Tensor:
    """Return phi and psi of residues, every 47th of the list of the protein torsions, radians ``(n, 2)``."""
    with (_folder() / "protein" / "torsions.tsv").open(newline="") as file:
        rows = [(float(row[1]), float(row[2])) for row in csv.reader(file, delimiter="\t")]
    return FlatTorus(2).projx(torch.tensor(rows[::47], dtype=torch.float64) * (math.pi / 180))


def orientations() -> Tensor:
    """Return orientations of crystals, every second of the map of steel, ``(n, 3, 3)``."""
    return steel().points[::2]


def tensors() -> Tensor:
    """Return diffusion tensors, 1e-3 mm^2/s, ``(n, 3, 3)``."""
    with np.load(_folder() / "spd" / "dti_tensors_spd3.npz") as file:
        return SPD(3).projx(torch.from_numpy(file["tensor"]).double())


DATA: dict[str, tuple[Manifold, Callable[[], Tensor]]] = {
    "earthquakes": (Sphere(2), earthquakes),
    "protein torsions": (FlatTorus(2), torsions),
    "crystal orientations": (SO3(), orientations),
    "diffusion tensors": (SPD(3), tensors),
}


def scores(
    manifold: Manifold, points: Tensor, precision: Any, steps: int, device: str, seed: int = 0
) -> tuple[Tensor | None, float]:
    """Return log-densities of test points under a flow trained in a precision, and the seconds that training took.

    They are None where the field, rounded as its weights are, cannot be integrated.
    """
    split = group_split(points, 0)
    # Few: on positive definite matrices a likelihood costs as much as the training.
    index = torch.cat([split.train, split.validation[:_VALIDATED]])
    fabric = Fabric(accelerator=device, devices=1, precision=precision)
    fabric.launch()
    with torch.random.fork_rng(devices=[]):
        usual = default_field(manifold, points[split.train])
        unit: dict[str, Any] = {} if manifold.volume is not None else {"offset": usual.offset, "scale": usual.scale}
        torch.manual_seed(seed)
        field = VelocityField(manifold, width=64, depth=2, features=128, max_frequency=16.0, **unit)
    start = time.perf_counter()
    flow = rfm.fit(
        points[index],
        manifold,
        field=field,
        validation=range(len(split.train), len(index)),
        refine=False,
        steps=steps,
        batch_size=256,
        seed=seed,
        training=rfm.Training(fabric=fabric),
        progress=False,
    )
    seconds = time.perf_counter() - start
    try:
        return flow.log_prob(points[split.test][:_TESTED], solver=_SOLVER).double(), seconds
    except IntegrationError:
        return None, seconds


def table(steps: int, device: str, names: Sequence[str] = tuple(DATA)) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    yield "| data | manifold | training points | precision | NLL | worse than 32-true by | seconds |"
    yield "|---|---|---:|---|---:|---:|---:|"
    for name in names:
        manifold, read = DATA[name]
        points = read()[:_MOST]
        count = len(group_split(points, 0).train)
        plain, _ = first = scores(manifold, points, "32-true", steps, device)
        assert plain is not None
        others = [(p, *scores(manifold, points, p, steps, device)) for p in PRECISIONS[1:]]
        others.append(("32-true, seed 1", *scores(manifold, points, "32-true", steps, device, seed=1)))
        for precision, log_p, seconds in [("32-true", *first), *others]:
            if log_p is None:
                yield f"| {name} | {manifold} | {count:,} | {precision} | cannot be integrated |  | {seconds:.0f} |"
                continue
            nll = negative_log_likelihood(log_p)
            worse = paired_difference(plain, log_p)
            paired = f"{worse.mean:+.4f} ± {worse.standard_error:.4f}" if log_p is not plain else ""
            yield (
                f"| {name} | {manifold} | {count:,} | {precision} | {nll.mean:.4f} ± {nll.standard_error:.4f} | "
                f"{paired} | {seconds:.0f} |"
            )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.precision", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--steps", type=int, default=1000, help="optimiser steps of each flow (default 1000)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where to train (default cpu)")
    parser.add_argument("--data", nargs="+", default=list(DATA), choices=list(DATA), help="all four by default")
    parser.add_argument("--out", type=Path, help="markdown file to write")
    options = parser.parse_args(arguments)
    lines = []
    for line in table(options.steps, options.device, options.data):
        lines.append(line)
        print(line, flush=True)
    if options.out:
        command = f"python -m experiments.benchmarks.precision --steps {options.steps} --out {options.out}"
        write_page(options.out, "Precision", _INTRO, command, "\n".join(lines), ("lightning-fabric",))


def _folder() -> Path:
    folder = os.environ.get("RFM_DATA")
    if folder is None:
        raise ValueError("precision: set RFM_DATA to the folder of the benchmark data")
    return Path(folder)


if __name__ == "__main__":
    main()
