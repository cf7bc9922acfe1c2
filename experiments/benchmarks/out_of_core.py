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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import rfm
from experiments.benchmarks.harness import LIMIT_HEADER, Limit, write_page
from manifolds import Sphere
from rfm.flow import Flow
from rfm.networks import VelocityField
from rfm.objectives import FlowMatching
from rfm.training import Budget, HashSplit, Points, Run, Survey, Training, survey, train

_ROWS, _FILES, _GROUP = 100_000_000, 10, 1_000_000
_STEPS, _TIMED, _TURNS = 2000, 4100, 2
_PART = 200_000
"""Rows that are fitted in memory, for the likelihood."""

INTRO = """\
`rfm fit` of points of the sphere in ten Parquet files, sorted by region, beside what fits into memory. **Peak memory**
is that of the process, everything that it loads included. **Steps** are those of the default network, batch 512, as
`rfm.fit` takes them, timed in turns in one process on one thread; the processor's seconds count the thread that reads
ahead, the clock's do not where a second core is free. **Likelihoods** are of the same rows, held out from both fits."""


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


def timed_steps(found: Survey, part: Points | None, steps: int) -> tuple[float, float]:
    """Return the clock's and the processor's seconds per step, on the files or on a part of them in memory."""
    torch.manual_seed(0)
    sphere = Sphere(2)
    flow = Flow(sphere, VelocityField(sphere))
    stamps: list[tuple[float, float]] = []

    class _EnoughError(Exception):
        pass

    def report(spent: float, record: dict[str, object]) -> None:
        stamps.append((time.perf_counter(), time.process_time()))
        if len(stamps) == steps:
            raise _EnoughError

    budget = Budget(steps=10**6, batch_size=512, learning_rate=1e-3, seed=0, validations=1)
    data = found.sample if part is None else part
    data = Points(sphere.projx(data.x).float())
    run = Run(budget, device="cpu", progress=report)
    try:
        with run.launched():
            few = data.take(torch.arange(10))
            train(flow, data, few, run, objective=FlowMatching(), rows=found.rows if part is None else None)
    except _EnoughError:
        pass
    clock, processor = zip(stamps[9], stamps[-1], strict=True)
    return (clock[1] - clock[0]) / (steps - 10), (processor[1] - processor[0]) / (steps - 10)


def lines(folder: Path, rows: int, steps: int, timed: int) -> Iterator[str]:
    """Yield the lines of the tables."""
    sphere = Sphere(2)
    write_files(folder, rows)
    size = sum(path.stat().st_size for path in folder.glob("*.parquet"))
    own = fit_files(folder, steps)
    counts = own["rows"]
    yield (
        f"{sum(counts.values()):,} rows, {size / 1e9:.2f} GB; {counts['train']:,} train; {own['steps']:,} steps in "
        f"{own['seconds']:.0f} s, {own['clock']:.0f} s with the survey of all rows and the refinement.\n"
    )
    points = rfm.datasets.open_points(str(folder / "*.parquet"), sphere, ["x", "y", "z"])
    started = time.process_time()
    found = survey(points, sphere, HashSplit(0, 0.01, 0.01), sample=(_PART, 2000, 10_000), progress=False)
    seconds = time.process_time() - started
    train_rows, held, test = (found.sample.take((found.sides == side).nonzero()[:, 0]) for side in range(3))
    pairs = []
    for turn in range(_TURNS):
        pair = [timed_steps(found, part, timed) for part in ((None, train_rows) if turn % 2 else (train_rows, None))]
        pairs.append(pair if turn % 2 else pair[::-1])
    ratios = [statistics.median(large[i] / small[i] for large, small in pairs) for i in range(2)]
    flow = rfm.Flow.load(folder / "run")
    x = torch.cat([train_rows.x, held.x])
    held_rows = torch.arange(len(train_rows.x), len(x))
    training = Training(validations=4)
    small = rfm.fit(
        x, sphere, validation=held_rows, steps=steps, refine=False, training=training, progress=False, device="cpu"
    )
    difference = small.base.log_prob(test.x) - flow.base.log_prob(test.x)
    yield LIMIT_HEADER
    yield Limit(f"peak memory of `rfm fit`, {sum(counts.values()):,} rows", own["megabytes"], 1074, "MB").line()
    yield Limit("clock's seconds per step, files over memory", ratios[0], 1.05, "").line()
    yield Limit("processor's seconds per step, files over memory", ratios[1], 1.05, "").line()
    name = f"test NLL without refinement, files minus {len(train_rows.x):,} rows in memory"
    yield Limit(name, float(difference.mean()), 0.01, "nats").line()
    yield ""
    milliseconds = [1e3 * statistics.median(pair[i][0] for pair in pairs) for i in range(2)]
    yield (
        f"A step takes {milliseconds[0]:.2f} ms on the files and {milliseconds[1]:.2f} ms in memory. The survey, a "
        f"pass over all rows, takes {seconds:.0f} seconds of the processor."
    )


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks.out_of_core", description=__doc__)
    parser.add_argument("--rows", type=int, default=_ROWS, help=f"how many there are (default: {_ROWS:,})")
    parser.add_argument("--steps", type=int, default=_STEPS, help=f"of the fits (default: {_STEPS})")
    parser.add_argument("--timed", type=int, default=_TIMED, help=f"steps of a turn (default: {_TIMED})")
    parser.add_argument("--folder", type=Path, default=Path("runs/out-of-core"), help="where the files are written")
    parser.add_argument("--out", type=Path, help="the page to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    shutil.rmtree(arguments.folder, ignore_errors=True)
    arguments.folder.mkdir(parents=True)
    text = []
    try:
        for line in lines(arguments.folder, arguments.rows, arguments.steps, arguments.timed):
            print(line, flush=True)
            text.append(line)
    finally:
        shutil.rmtree(arguments.folder)
    if arguments.out is not None:
        command = f"python -m experiments.benchmarks.out_of_core --out {arguments.out}"
        write_page(arguments.out, "Data larger than memory", INTRO, command, "\n".join(text), ("pyarrow",))


if __name__ == "__main__":
    main()
