"""Peak memory of sampling and of log-densities, in chunks: ``python -m experiments.benchmarks memory``.

Each row is a process of its own, whose peak is what the system counted (``resource.getrusage``). The field is a network
of the default size with random weights, which follows fixed steps: what memory depends on is the number of points
computed together, not what they are. The part ``million`` draws and scores a million points, on two cores in some
minutes, and shows how long is left.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

import torch

from manifolds import Sphere
from rfm.flow import Flow
from rfm.integrators import RK4, FixedStep
from rfm.networks import VelocityField

INTRO = """\
What sampling and scoring add to the memory that is resident when they start. It depends on `batch_size`, the number of
points computed together, and hardly on how many there are. The field is a network of the default size with random
weights, followed for four steps of Runge and Kutta's fourth-order method."""

_HEADER = """\
| what | points | batch_size | seconds | peak memory above the start, MB |
|---|---:|---:|---:|---:|"""


MILLION_INTRO = """\
The same network and solver, a million points in the default chunks. While it runs it says on standard error how many
are done and how long is left."""


def lines(threads: int) -> Iterator[str]:
    """Yield the lines of the table."""
    sizes = ((8192, 1024), (8192, 4096), (8192, 8192), (32_768, 1024))
    yield from _table([(what, count, size) for what in ("sample", "log_prob") for count, size in sizes], threads, False)


def million_lines(threads: int) -> Iterator[str]:
    """Yield the lines of the table of a million points."""
    yield from _table([(what, 1_000_000, 4096) for what in ("sample", "log_prob")], threads, True)


def _table(cases: list[tuple[str, int, int]], threads: int, progress: bool) -> Iterator[str]:
    yield _HEADER
    for what, count, size in cases:
        measured = _in_a_process(what, count, size, threads, progress)
        yield f"| {what} | {count:,} | {size:,} | {measured['seconds']:.1f} | {measured['megabytes']:.0f} |"


def _in_a_process(what: str, count: int, size: int, threads: int, progress: bool) -> dict[str, float]:
    numbers = [str(number) for number in (count, size, threads, int(progress))]
    command = [sys.executable, "-m", "experiments.benchmarks.memory", what, *numbers]
    # stderr stays that of this process: it shows how long is left.
    measured: dict[str, float] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return measured


def _measure(what: str, count: int, size: int, threads: int, progress: int) -> dict[str, float]:
    torch.set_num_threads(threads)
    sphere, generator = Sphere(2), torch.Generator().manual_seed(0)
    field = VelocityField(sphere)
    torch.nn.init.normal_(field.last.weight, std=0.05, generator=generator)
    flow, solver = Flow(sphere, field), FixedStep(RK4, 4)
    # What loading, and a first solve of a few points, take is not counted.
    x = flow.sample(8, generator=generator, solver=solver)
    flow.log_prob(x, solver=solver)
    before, started = peak_megabytes(), time.perf_counter()
    if what == "sample":
        flow.sample(count, generator=generator, solver=solver, batch_size=size, progress=bool(progress))
    else:
        x = sphere.random_uniform(count, generator=generator)
        flow.log_prob(x, solver=solver, batch_size=size, progress=bool(progress))
    return {"seconds": time.perf_counter() - started, "megabytes": peak_megabytes() - before}


def peak_megabytes() -> float:
    """Return the peak of this process's resident memory in megabytes."""
    # macOS counts bytes, Linux kilobytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1], *(int(number) for number in sys.argv[2:]))))
