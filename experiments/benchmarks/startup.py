"""How long a user waits before anything happens: help, import, the first training step."""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from experiments.benchmarks.harness import Limit

_IMPORT = "import time, torch; start = time.perf_counter(); import rfm; print(time.perf_counter() - start)"
_FIRST_STEP = """
import time
import torch
start = time.perf_counter()
import rfm
from manifolds import Sphere
points = Sphere(2).random_uniform(10_000, generator=torch.Generator().manual_seed(0))
rfm.fit(points, Sphere(2), steps=1, validation=[0], device="cpu", progress=False)
print(time.perf_counter() - start)
"""


def limits(turns: int = 5) -> Iterator[Limit]:
    """Time new processes; the files they load are in the system's cache after the first."""
    yield Limit("`rfm --help`, whole process", _seconds(["-m", "rfm", "--help"], turns, printed=False), 0.3, "s")
    yield Limit("`import rfm` after `import torch`", _seconds(["-c", _IMPORT], turns), 0.3, "s")
    yield Limit(
        "`rfm.fit` of 10,000 points until after its first step and validation, with `import rfm`",
        _seconds(["-c", _FIRST_STEP], turns),
        3.0,
        "s",
    )


def _seconds(arguments: list[str], turns: int, printed: bool = True) -> float:
    """Return the median of what the processes print, or of how long they run."""
    values = []
    for turn in range(turns + 1):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
        spent = float(done.stdout) if printed else time.perf_counter() - start
        if turn:
            values.append(spent)
    return statistics.median(values)
