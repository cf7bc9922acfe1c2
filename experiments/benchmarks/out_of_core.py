"""Fitting data larger than memory: peak memory, and steps per second beside the fit of a part in memory.

``python -m experiments.benchmarks.out_of_core --out docs/benchmarks/out-of-core.md`` writes a hundred million points of
the sphere to Parquet files (1.2 GB), fits them by ``rfm fit`` in a process of its own, whose peak memory the system
counts, times training steps on them and on a part in memory in turns, and deletes the files. The rows are sorted: each
row group is of another region, so that batches of neighbouring rows would not be of the distribution.
"""

import argparse
import json
import math
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import rfm
from experiments.benchmarks.harness import LIMIT_HEADER, Limit, write_page
from manifolds import Sphere
from rfm.networks import VelocityField
from rfm.objectives import FlowMatching
from rfm.sources import Uniform
from rfm.training import Budget, HashSplit, Survey, Training, survey

_ROWS, _FILES, _GROUP = 100_000_000, 10, 1_000_000
_STEPS, _BATCH = 2000, 512
_PART = 200_000
"""Rows that are fitted in memory, for the likelihood."""

INTRO = """\
`rfm fit` of points of the sphere in ten Parquet files, sorted by region, beside what fits into memory. **Peak memory**
is that of the process, everything that it loads included. **Steps** are those of the default network, batch 512, in
seconds of the processor, in turns in one process on one thread; those of the thread that reads ahead are added, which a
second core takes off the clock. **Likelihoods** are of the same rows, held out from both fits."""


def write_files(folder: Path, rows: int) -> None:
    """Write points about a centre that moves along the equator from row group to row group, in float32."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    generator = np.random.default_rng(0)
    schema = pa.schema([(name, pa.float32()) for name in "xyz"])
    group = min(_GROUP, rows // _FILES)
    for i in range(_FILES):
        with pq.ParquetWriter(folder / f"part{i}.parquet", schema, compression="none", use_dictionary=False) as writer:
            for start in range(0, rows // _FILES, group):
                longitude = 1.5 * math.pi * (i + start * _FILES / rows) / _FILES
                x = 0.3 * generator.standard_normal((group, 3), dtype=np.float32)
                x += np.array([math.cos(longitude), math.sin(longitude), 0.2], dtype=np.float32)
                x /= np.linalg.norm(x, axis=1, keepdims=True)
                writer.write_table(pa.table(dict(zip("xyz", x.T, strict=True)), schema=schema), row_group_size=group)


def fit_files(folder: Path, steps: int) -> dict[str, Any]:
    """Fit the files by the command line, in a process of its own; return its report, seconds and peak memory."""
    command = [sys.executable, "-m", "rfm", "fit", str(folder / "*.parquet"), "--manifold", "sphere"]
    options = ["--columns", "x", "y", "z", "--validation", "0.01", "--test-share", "0.01", "--keep-ties"]
    command += [
        *options,
        "--steps",
        str(steps),
        "--validations",
        "4",
        "--out",
        str(folder / "run"),
        "--json",
        "--quiet",
    ]
    started = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    # macOS counts bytes, Linux kilobytes.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    return json.loads(done.stdout) | {"clock": time.perf_counter() - started, "megabytes": peak}


def step_seconds(found: Survey, turns: int = 12, steps: int = 40) -> tuple[float, float, float]:
    """Return the processor's seconds per step on files and in memory, and those of reading, per step.

    Short turns alternate, of which none reads; the seconds of a window that is read are shared by its batches.
    """
    sphere, objective = Sphere(2), FlowMatching().on(Sphere(2))
    rows, source, cpu = found.rows, Uniform(sphere), torch.device("cpu")
    few, fixed = Budget(10**6, _BATCH, 1e-3, 0), Budget(1, _BATCH, 1e-3, 0)
    reads = []
    for window in rows.windows(sphere, few, torch.float32, cpu).plan(0)[:3]:
        started = time.process_time()
        part = rows.windows(sphere, few, torch.float32, cpu).read(window)
        reads.append((time.process_time() - started) * _BATCH / len(part.x))
    # A run of one step, which reads nothing ahead.
    windows, in_memory = rows.windows(sphere, fixed, torch.float32, cpu), part.x[:_PART]
    generator = torch.Generator()

    def drawn(step: int) -> Tensor:
        return in_memory[torch.randint(len(in_memory), (_BATCH,), generator=generator)]

    torch.manual_seed(0)
    field = VelocityField(sphere)
    optimizer = torch.optim.AdamW(field.parameters(), lr=1e-3, fused=True)

    def seconds(batch: Callable[[int], Tensor], count: int, first: int) -> float:
        started = time.process_time()
        for step in range(first, first + count):
            generator.manual_seed(step)
            x_1 = batch(step)
            x_0 = source.sample((_BATCH,), dtype=x_1.dtype, generator=generator)
            t = objective.draw_times((_BATCH,), dtype=x_1.dtype, generator=generator)
            objective(field, source, x_0, x_1, t, generator=generator).backward()
            optimizer.step()
            optimizer.zero_grad()
        return (time.process_time() - started) / count

    batches: tuple[Callable[[int], Tensor], ...] = (lambda step: windows.batch(step).x, drawn)
    pairs = []
    for turn in range(-1, turns):
        order = (0, 1) if turn % 2 else (1, 0)
        pair = {i: seconds(batches[i], steps, (turn + 1) * steps) for i in order}
        pairs += [pair] if turn >= 0 else []
    large, small = (statistics.median(pair[i] for pair in pairs) for i in (0, 1))
    return large, small, statistics.median(reads)


def lines(folder: Path, rows: int, steps: int) -> Iterator[str]:
    """Yield the lines of the tables."""
    sphere = Sphere(2)
    write_files(folder, rows)
    size = sum(path.stat().st_size for path in folder.glob("*.parquet"))
    own = fit_files(folder, steps)
    counts = own["rows"]
    yield (
        f"{sum(counts.values()):,} rows, {size / 1e9:.2f} GB; {counts['train']:,} train; {own['steps']:,} steps in "
        f"{own['seconds']:.0f} s, {own['clock']:.0f} s with the survey of all rows and the refinement."
    )
    yield ""
    yield LIMIT_HEADER
    yield Limit(f"peak memory of `rfm fit`, {sum(counts.values()):,} rows", own["megabytes"], 1074, "MB").line()
    points = rfm.datasets.open_points(str(folder / "*.parquet"), sphere, ["x", "y", "z"])
    started = time.process_time()
    found = survey(points, sphere, HashSplit(0, 0.01, 0.01), sample=(_PART, 2000, 10_000), progress=False)
    seconds = time.process_time() - started
    large, small, reads = step_seconds(found)
    yield Limit("seconds per step, files over memory", (large + reads) / small, 1.05, "").line()
    train_rows, held, test = (found.sample.take((found.sides == side).nonzero()[:, 0]) for side in range(3))
    x, held_rows = torch.cat([train_rows.x, held.x]), torch.arange(len(train_rows.x), len(train_rows.x) + len(held.x))
    settings: dict[str, Any] = {"refine": False, "training": Training(validations=4), "progress": False}
    in_memory = rfm.fit(x, sphere, validation=held_rows, steps=steps, device="cpu", **settings)
    difference = in_memory.log_prob(test.x) - rfm.Flow.load(folder / "run").base.log_prob(test.x)
    name = f"test NLL without refinement, files minus {len(train_rows.x):,} rows in memory"
    yield Limit(name, float(difference.mean()), 0.01, "nats").line()
    yield ""
    yield (
        f"A step takes {1e3 * large:.2f} ms on the files and {1e3 * small:.2f} ms in memory, and reading "
        f"{1e3 * reads:.3f} ms of the thread that reads ahead. The survey, a pass over all rows, takes {seconds:.0f} s."
    )


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks.out_of_core", description=__doc__)
    parser.add_argument("--rows", type=int, default=_ROWS, help=f"how many there are (default: {_ROWS:,})")
    parser.add_argument("--steps", type=int, default=_STEPS, help=f"of the fits (default: {_STEPS})")
    parser.add_argument("--folder", type=Path, default=Path("runs/out-of-core"), help="where the files are written")
    parser.add_argument("--out", type=Path, help="the page to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    shutil.rmtree(arguments.folder, ignore_errors=True)
    arguments.folder.mkdir(parents=True)
    text = []
    try:
        for line in lines(arguments.folder, arguments.rows, arguments.steps):
            print(line, flush=True)
            text.append(line)
    finally:
        shutil.rmtree(arguments.folder)
    if arguments.out is not None:
        command = f"python -m experiments.benchmarks.out_of_core --out {arguments.out}"
        write_page(arguments.out, "Data larger than memory", INTRO, command, "\n".join(text), ("pyarrow",))


if __name__ == "__main__":
    main()
