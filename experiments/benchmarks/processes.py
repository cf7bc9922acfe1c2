"""Training in two processes beside one, each of one thread, at the same batch per process.

The processes exchange gradients by gloo, as ``torchrun --nproc-per-node 2`` makes them. Turns alternate. Before it is
timed, two processes and one take the same steps of the same batches, and their weights are compared.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator

from experiments.benchmarks.training_step import timed_training

INTRO = """\
Points trained on per second by two processes of one thread each, over those of one process of one thread, at the same
batch per process. The goal is 1.6 at least. The last column compares the norms of all
weights after as many steps on the same batches."""

_HEADER = """\
| what | one, ms per step | two, ms per step | scaling | goal, at least | reached | results compared |
|---|---:|---:|---:|---:|---|---|"""
_CASES = ((256, 512), (512, 512))
_GOAL = 1.6


def lines(threads: int, turns: int = 3, steps: int = 60) -> Iterator[str]:
    """Yield the lines of the table; every process has one thread, whatever ``threads``."""
    yield _HEADER
    for width, batch in _CASES:
        same = [_measure(n, width, 2 * batch, 20)["norm"] for n in (1, 2)]
        ones, twos = [], []
        for _ in range(turns):
            ones.append(_measure(1, width, batch, steps)["seconds"])
            twos.append(_measure(2, width, 2 * batch, steps)["seconds"])
        scaling = statistics.median(2 * one / two for one, two in zip(ones, twos, strict=True))
        yield (
            f"| training on S^2, batch {batch} per process, width {width} | {1e3 * statistics.median(ones):.1f} | "
            f"{1e3 * statistics.median(twos):.1f} | {scaling:.2f} | {_GOAL} | {'yes' if scaling >= _GOAL else 'no'} | "
            f"relative difference of weights' norms: {abs(same[0] - same[1]) / same[0]:.1e} |"
        )


def _measure(count: int, width: int, batch: int, steps: int) -> dict[str, float]:
    """Return seconds per step, and the norm of the weights, of processes that share batches of ``batch`` points."""
    own = ["-m", "experiments.benchmarks.processes", str(width), str(batch), str(steps)]
    several = ["-m", "torch.distributed.run", "--nproc-per-node", str(count), "--rdzv-backend", "c10d"]
    command = own if count == 1 else [*several, "--rdzv-endpoint", "localhost:0", *own]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"training in {count} processes failed:\n{done.stderr}")
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _worker(width: int, batch: int, steps: int) -> None:
    seconds, norm = timed_training(width, batch, steps)
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps({"seconds": seconds, "norm": norm}), flush=True)


if __name__ == "__main__":
    _worker(*(int(argument) for argument in sys.argv[1:]))
