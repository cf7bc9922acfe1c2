"""``python -m experiments.benchmarks``: every comparison of speed, in one process, printed as ratios."""

import argparse
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from experiments.benchmarks import divergence, log_likelihood, path_sampling, startup, training_step
from experiments.benchmarks.harness import HEADER, LIMIT_HEADER, write_page

_INTRO = """\
Medians over interleaved turns of both sides in one process; ratios are medians of the turns' ratios. A machine shared
with others gives times that vary, ratios much less. Numbers are float32."""


def main() -> None:
    """Run the comparisons, print the tables, and write the page if asked."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks", description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch (default: 2)")
    parser.add_argument("--out", type=Path, help="markdown file to write")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    lines = [HEADER]
    parts = (path_sampling, divergence, training_step, log_likelihood)
    for part in tqdm(parts, desc="benchmarks", file=sys.stderr):
        for row in part.rows():
            lines.append(row.line())
            print(row.line(), flush=True)
    lines += ["", "## What a user waits for", "", LIMIT_HEADER]
    for limit in startup.limits():
        lines.append(limit.line())
        print(limit.line(), flush=True)
    if arguments.out:
        command = f"python -m experiments.benchmarks --threads {arguments.threads} --out {arguments.out}"
        write_page(arguments.out, "Speed", _INTRO, command, "\n".join(lines), ("flow_matching", "torchdiffeq"))


if __name__ == "__main__":
    main()
