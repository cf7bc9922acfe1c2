"""``python -m experiments.benchmarks.geometry``: the manifolds' maps at a million points, beside other libraries.

Every row is written to ``--rows`` as soon as it is measured, beside those that are there already: what was interrupted
goes on with ``--missing``, and what changed is measured again with ``--only``. The page is made of all rows. Compiling
takes most of the time; ``--prepare`` does nothing else, and leaves the programs in PyTorch's cache.
"""

import argparse
import statistics
import sys
import time
import warnings
from datetime import date
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from experiments.benchmarks.compiling import compiled_within
from experiments.benchmarks.harness import write_page
from experiments.benchmarks.maps import Function, Job, jobs, names
from experiments.benchmarks.peers import PEERS
from experiments.benchmarks.speed_rows import Form, Row, Rows

COMPILE_SECONDS = 180
"""Seconds of the processor that compiling one function may take; a peer that needs more is timed as it is, alone."""


# Timing.


def _measure(job: Job, threads: list[int], seconds: float) -> Row:
    """Time everybody's forms in turns, after comparing their results with ours."""
    functions = {"ours": job.ours} | job.others
    forms = _forms(functions, job.arguments)
    expected = job.ours(*job.arguments)
    differences = {}
    for name, function in functions.items():
        difference = job.same(function(*job.arguments), expected).abs()
        # Rotations by nearly pi have two logarithms: of a few points, the other one is as right.
        differences[name] = float(difference.flatten().kthvalue(int(0.999 * difference.numel())).values)
    forms_by_threads = {}
    for count in threads:
        torch.set_num_threads(count)
        times = _in_turns(forms, job.arguments, seconds)
        forms_by_threads[str(count)] = {n: Form(times[n, False], times.get((n, True))) for n in functions}
    wrong = sorted({*job.wrong, *(name for name, difference in differences.items() if not difference < 0.01)})
    return Row(str(date.today()), job.goal, wrong, differences, forms_by_threads)


def _forms(functions: dict[str, Function], arguments: tuple[Tensor, ...]) -> dict[tuple[str, bool], Function]:
    """Return every function as it is, and compiled where that works, by its name and whether it is compiled."""
    forms = {}
    for name, function in functions.items():
        forms[name, False] = function
        torch.compiler.reset()
        compiled = compiled_within(COMPILE_SECONDS, function, *arguments)
        if compiled is not None:
            forms[name, True] = compiled
    return forms


def _in_turns(
    forms: dict[tuple[str, bool], Function], arguments: tuple[Tensor, ...], seconds: float
) -> dict[tuple[str, bool], float]:
    """Return the median seconds of each, called in turns for so many seconds altogether.

    There are three turns at least, unless those take ten times as long.
    """
    times: dict[tuple[str, bool], list[float]] = {key: [] for key in forms}
    start, turns, spent = time.perf_counter(), 0, 0.0
    while spent < seconds or (turns < 3 and spent < 10 * seconds):
        # The order changes: who comes next finds the caches and the memory as the last one left them.
        for key in sorted(forms, reverse=turns % 2 == 1):
            begun = time.perf_counter()
            forms[key](*arguments)
            times[key].append(time.perf_counter() - begun)
        turns, spent = turns + 1, time.perf_counter() - start
    return {key: statistics.median(values) for key, values in times.items()}


# The page.

_INTRO = """\
Milliseconds for {points:,} points at once, float32: medians of calls made in turns, in one process, of everybody's
eager and compiled (`torch.compile`) forms. `-`: does not compile, or not within {limit} seconds. Results are compared
with ours first; the difference that 999 of 1000 numbers keep is shown. In brackets: a library whose values fail
[the accuracy table](accuracy.md) in that map, or differ from ours by more than a hundredth.

The last columns are the ratios to aim at: our eager form's time by that of the fastest eager peer whose values pass (at
most 1.2); our compiled form's by that of the fastest form of any peer whose values pass; and by that of the fastest
form of any peer, right or wrong (both below 1; for log and exp of rotations, below 0.5). Points are random: uniform on
compact manifolds, within radius 4 or so elsewhere."""

_PACKAGES = (*(p.distribution for p in PEERS), "geomstats")


def main() -> None:
    """Measure, print the rows, and write the page if requested."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks.geometry", description=__doc__)
    parser.add_argument("--points", type=int, default=1_000_000, help="points to a call (default: a million)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="threads of PyTorch (default: 1 2)")
    parser.add_argument("--seconds", type=float, default=2.0, help="time to spend on a row's turns (default: 2)")
    parser.add_argument("--only", default="", help="only maps whose name contains this")
    parser.add_argument("--missing", action="store_true", help="only maps that have no row yet")
    parser.add_argument("--prepare", action="store_true", help="compile everything, measure nothing")
    parser.add_argument("--rows", type=Path, default=Path("runs/geometry.json"), help="JSON of what was measured")
    parser.add_argument("--out", type=Path, help="markdown file to write")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    # One compiled program for every number of threads, compiled for the most.
    torch.set_num_threads(max(arguments.threads))
    torch._inductor.config.cpp.dynamic_threads = True
    try:
        rows = Rows.load(arguments.rows, arguments.points, _PACKAGES)
    except ValueError as error:
        sys.exit(str(error))
    with torch.no_grad():
        _fill(rows, arguments)
    if arguments.out:
        torch.set_num_threads(max(arguments.threads))
        threads = " ".join(map(str, arguments.threads))
        command = f"python -m experiments.benchmarks.geometry --points {arguments.points} --threads {threads}"
        intro = _INTRO.format(points=arguments.points, limit=COMPILE_SECONDS)
        body = rows.tables(names())
        write_page(arguments.out, "Speed of the maps", intro, f"{command} --out {arguments.out}", body, _PACKAGES)


def _fill(rows: Rows, arguments: argparse.Namespace) -> None:
    """Measure what is requested, and save the rows after each."""
    selected = [n for n in names() if arguments.only in n and not (arguments.missing and n in rows.rows)]
    for job in tqdm(jobs(arguments.points, "cpu", selected), total=len(selected), file=sys.stderr):
        if arguments.prepare:
            _forms({"ours": job.ours} | job.others, job.arguments)
            continue
        rows.rows[job.name] = _measure(job, arguments.threads, arguments.seconds)
        print("\n".join(rows.rows[job.name].line(job.name, str(t)) for t in arguments.threads), flush=True)
        rows.save(arguments.rows)


if __name__ == "__main__":
    main()
