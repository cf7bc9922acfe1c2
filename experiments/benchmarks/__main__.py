"""``python -m experiments.benchmarks``: every comparison of speed, in one process, printed as ratios."""

import argparse
import platform
import sys
from datetime import date
from importlib import metadata
from pathlib import Path

import torch
from tqdm import tqdm

from experiments.benchmarks import divergence, path_sampling, startup, training_step
from experiments.benchmarks.harness import HEADER, LIMIT_HEADER

_PAGE = """\
# Speed

Medians over interleaved turns of both sides in one process; ratios are medians of the turns' ratios. A machine shared
with others gives times that vary, ratios much less.

- command: `python -m experiments.benchmarks --threads {threads} --out docs/benchmarks/speed.md`
- date: {date}; device: {device}; {threads} threads; float32; seed 0
- versions: {versions}

{table}

## What a user waits for

{limits}
"""


def main() -> None:
    """Run the comparisons, print the table, and write the page if asked."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks", description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch (default: 2)")
    parser.add_argument("--out", type=Path, help="markdown file to write")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    lines = [HEADER]
    for part in tqdm((path_sampling, divergence, training_step), desc="benchmarks", file=sys.stderr):
        for row in part.rows():
            lines.append(row.line())
            print(row.line(), flush=True)
    waits = [LIMIT_HEADER]
    for limit in startup.limits():
        waits.append(limit.line())
        print(limit.line(), flush=True)
    if arguments.out:
        packages = ("torch", "flow_matching")
        versions = ", ".join(f"{name} {_version(name)}" for name in packages)
        arguments.out.write_text(
            _PAGE.format(
                threads=arguments.threads,
                date=date.today(),
                device=f"{platform.machine()} CPU, {_processor()}",
                versions=f"Python {platform.python_version()}, {versions}",
                table="\n".join(lines),
                limits="\n".join(waits),
            )
        )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.processor()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
