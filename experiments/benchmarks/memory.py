"""Peak memory of sampling and of log-densities, in chunks: ``python -m experiments.benchmarks.memory``.

Each row is a process of its own, whose peak is what the system counted (``resource.getrusage``). The field is a network
of the default size with random weights, which follows fixed steps: what memory depends on is the number of points
computed together, not what they are. ``--million`` takes a million points, on two cores some tens of minutes, and shows
how long is left.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

from experiments.benchmarks.harness import write_page
from manifolds import Sphere
from rfm.flow import Flow
from rfm.integrators import RK4, FixedStep
from rfm.networks import VelocityField

_INTRO = """\
What sampling and scoring add to the memory that is resident when they start. It depends on `batch_size`, the number of
points computed together, and hardly on how many there are. The field is a network of the default size with random
weights, followed for four steps of Runge and Kutta's fourth-order method."""

_HEADER = """\
| what | points | batch_size | seconds | peak memory above the start, MB |
|---|---:|---:|---:|---:|"""


def main() -> None:
    """Print a table, or with ``--one`` measure in this process and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks.memory", description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch (default: 2)")
    parser.add_argument("--million", action="store_true", help="a million points, in the default chunks alone")
    parser.add_argument("--out", type=Path, help="markdown file to write")
    parser.add_argument("--one", nargs=3, metavar=("WHAT", "POINTS", "BATCH_SIZE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        what, count, size = arguments.one
        print(json.dumps(_measure(what, int(count), int(size), arguments.threads, arguments.million)))
        return
    if arguments.million:
        cases = [(what, 1_000_000, 4096) for what in ("sample", "log_prob")]
    else:
        cases = [
            (what, count, size)
            for what in ("sample", "log_prob")
            for count, size in ((8192, 1024), (8192, 4096), (8192, 8192), (32_768, 1024))
        ]
    lines = [_HEADER]
    print(_HEADER)
    for what, count, size in cases:
        found = _in_a_process(what, count, size, arguments.threads, arguments.million)
        lines.append(f"| {what} | {count:,} | {size:,} | {found['seconds']:.1f} | {found['megabytes']:.0f} |")
        print(lines[-1], flush=True)
    if arguments.out:
        torch.set_num_threads(arguments.threads)
        command = f"python -m experiments.benchmarks.memory{' --million' if arguments.million else ''}"
        write_page(arguments.out, "Peak memory", _INTRO, f"{command} --out {arguments.out}", "\n".join(lines))


def _in_a_process(what: str, count: int, size: int, threads: int, progress: bool) -> dict[str, float]:
    command = [sys.executable, "-m", "experiments.benchmarks.memory", "--one", what, str(count), str(size)]
    command += ["--threads", str(threads), *(["--million"] if progress else [])]
    # stderr stays that of this process: it shows how long is left.
    found: dict[str, float] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return found


def _measure(what: str, count: int, size: int, threads: int, progress: bool) -> dict[str, float]:
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
        flow.sample(count, generator=generator, solver=solver, batch_size=size, progress=progress)
    else:
        x = sphere.random_uniform(count, generator=generator)
        flow.log_prob(x, solver=solver, batch_size=size, progress=progress)
    return {"seconds": time.perf_counter() - started, "megabytes": peak_megabytes() - before}


def peak_megabytes() -> float:
    """Return the peak of this process's resident memory in megabytes."""
    # macOS counts bytes, Linux kilobytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


if __name__ == "__main__":
    main()
