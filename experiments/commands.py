"""How long the commands take on one run: the table of seconds that a user waits.

Airports of the world, which come with the installation; the fit is that of `rfm fit` with its defaults. Seconds of the
processor are those of all threads of the command; the clock is that of the machine, which others may use too.

    python -m experiments.commands [--run runs/commands] [--quick]
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import rfm


def timed(arguments: Sequence[str]) -> tuple[float, float]:
    """Run a command; return its seconds by the clock and of the processor.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "rfm", *arguments, "--quiet"], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, spent


def measure(folder: Path, quick: bool) -> Iterator[tuple[str, float, float]]:
    """Yield what was done, and its seconds by the clock and of the processor."""
    run, table, points = folder / "run", folder / "airports.csv", folder / "points.csv"
    folder.mkdir(parents=True, exist_ok=True)
    degrees = rfm.datasets.load("airports").degrees
    rfm.datasets.write_table(table, ("latitude", "longitude"), degrees)
    count, scored = (2000, 500) if quick else (1_000_000, 100_000)
    few = ["--steps", "20", "--no-refine"] if quick else []
    if not run.exists():
        fit = ["fit", str(table), "--manifold", "sphere", "--out", str(run), "--columns", "latitude", "longitude", *few]
        yield f"rfm fit, {len(degrees):,} rows", *timed(fit)
    sample = ["sample", str(run), "-n", str(count), "--out", str(folder / "samples.csv"), "--force"]
    yield f"rfm sample -n {count:,}", *timed(sample)
    again = degrees[[i % len(degrees) for i in range(scored)]]
    rfm.datasets.write_table(points, ("latitude", "longitude"), again)
    score = ["log-prob", str(run), str(points), "--out", str(folder / "scores.csv"), "--force"]
    yield f"rfm log-prob, {scored:,} rows", *timed(score)
    coarse, rough = (["--resolution", "30"], ["--evaluations", "200"]) if quick else ([], [])
    grid = ["grid", str(run), "--out", str(folder / "density.nc"), "--force", *coarse]
    yield "rfm grid", *timed(grid)
    ball = ["probability", str(run), "--ball", "51.5", "0", "300", *rough]
    yield "rfm probability --ball 51.5 0 300", *timed(ball)
    if not quick:
        yield "rfm evaluate", *timed(["evaluate", str(run)])
        yield "rfm plot", *timed(["plot", str(run), "--out", str(folder / "map.png"), "--force"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Time the commands, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m experiments.commands", description=__doc__.split("\n")[0])
    parser.add_argument("--run", type=Path, default=Path("runs/commands"), help="folder (default runs/commands)")
    parser.add_argument("--quick", action="store_true", help="a few steps and points, to see that it runs")
    options = parser.parse_args(arguments)
    print("| command | clock, s | processor, s |\n|---|---:|---:|")
    for name, clock, processor in measure(options.run, options.quick):
        print(f"| `{name}` | {clock:.0f} | {processor:.0f} |", flush=True)


if __name__ == "__main__":
    main()
