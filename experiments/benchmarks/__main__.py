"""``python -m experiments.benchmarks``: every comparison of speed, on one page.

Each part is a process of its own and puts its section into ``docs/benchmarks.json``, of which the page is made, as soon
as it is done. ``python -m experiments.benchmarks divergence`` runs one part again.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from experiments.benchmarks import (
    divergence,
    gpu,
    log_likelihood,
    memory,
    path_sampling,
    processes,
    startup,
    training_step,
    work_precision,
)
from experiments.benchmarks.harness import HEADER, LIMIT_HEADER, write_page

_PAGE, _THREADS = Path("docs/benchmarks.md"), 2


@dataclass(frozen=True)
class Part:
    """A section of the page.

    Args:
        title: its heading.
        lines: makes its lines one by one; an argument is the number of threads.
        peers: packages whose versions matter.
        intro: what to know to read it.
        on_gpu: whether it needs one; without one the section of an earlier run stays.
    """

    title: str
    lines: Callable[[int], Iterator[str]]
    peers: tuple[str, ...] = ()
    intro: str = ""
    on_gpu: bool = False


def _rows(module: object) -> Callable[[int], Iterator[str]]:
    def lines(threads: int) -> Iterator[str]:
        yield HEADER
        for row in module.rows():  # type: ignore[attr-defined]
            yield row.line()

    return lines


def _limits(threads: int) -> Iterator[str]:
    yield LIMIT_HEADER
    for limit in startup.limits():
        yield limit.line()


PARTS = {
    "path_sampling": Part("Path samples", _rows(path_sampling), ("flow_matching",)),
    "divergence": Part("Exact divergence", _rows(divergence)),
    "training_step": Part("Training", _rows(training_step)),
    "startup": Part("What a user waits for", _limits),
    "processes": Part("Two processes", processes.lines, intro=processes.INTRO),
    "log_likelihood": Part("Log-densities", _rows(log_likelihood), ("torchdiffeq",)),
    "work_precision": Part(
        "Work and precision", work_precision.lines, ("flow_matching", "torchdiffeq"), work_precision.INTRO
    ),
    "memory": Part("Peak memory", memory.lines, intro=memory.INTRO),
    "million": Part("One million points", memory.million_lines, intro=memory.MILLION_INTRO),
    "gpu": Part("On a GPU", gpu.lines, intro=gpu.INTRO, on_gpu=True),
}


def main() -> None:
    """Run the requested parts."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--threads", type=int, default=_THREADS, help=f"threads of PyTorch (default: {_THREADS})")
    parser.add_argument("--out", type=Path, default=_PAGE, help=f"the page to write into (default: {_PAGE})")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.parts) - set(PARTS)):
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    names = arguments.parts or _possible()
    failed = []
    if len(names) == 1:
        _run(names[0], arguments.threads, arguments.out)
    else:
        for name in tqdm(names, desc="benchmarks", file=sys.stderr):
            command = [sys.executable, "-m", "experiments.benchmarks", name, "--threads", str(arguments.threads)]
            command += ["--out", str(arguments.out)]
            failed += [name] if subprocess.run(command, check=False).returncode else []
    if failed:
        sys.exit(f"these parts failed: {', '.join(failed)}")


def _possible() -> list[str]:
    return [name for name, part in PARTS.items() if torch.cuda.is_available() or not part.on_gpu]


def _run(name: str, threads: int, page: Path) -> None:
    torch.set_num_threads(threads)
    part, lines = PARTS[name], []
    for line in part.lines(threads):
        lines.append(line)
        print(line, flush=True)
    options = "" if threads == _THREADS else f" --threads {threads}"
    command = f"python -m experiments.benchmarks {name}{options}"
    write_page(page, part.title, part.intro, command, "\n".join(lines), part.peers)


if __name__ == "__main__":
    main()
