"""Orientation given position on a camera's track: the conditional of a flow of poses beside a flow trained for it.

The conditional of a joint flow is its density divided by the integral over orientations, which
`rfm.Flow.posterior` estimates on the slice of the known position (`log_evidence`); the other flow is fitted to
orientations with the position as condition. Third come kernels on SE(3), whose conditional is a quotient of sums. Same
blocks of two seconds as `experiments.poses`, same test poses, log-scores in nats with respect to dR, paired and
clustered by block. A run that was killed goes on where it was.

    python -m experiments.pose_conditionals [--out runs/pose-conditionals] [--each 5] [--quick]
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import rfm
from experiments.poses import BLOCK_SECONDS, POSITIONS, TEST_SHARE, kernels, marginals
from manifolds import SE3, SO3
from rfm.command_line.named_objects import length_of
from rfm.command_line.run_folder import RunData
from rfm.conditions import Conditions
from rfm.datasets import Split, block_labels, desk, group_split
from rfm.metrics import negative_log_likelihood, paired_difference
from rfm.posterior import Slice

JOINT, TRAINED, KERNEL = "flow of poses, its conditional", "flow of orientations given positions", "kernels on SE(3)"
DRAWS = 200
"""Of a slice."""


def spread_over(index: Tensor, blocks: Tensor, each: int) -> Tensor:
    """Return so many rows of each block, evenly spread over its time."""
    chosen = []
    for block in blocks[index].unique():
        own = index[blocks[index] == block]
        chosen.append(own[torch.linspace(0, len(own) - 1, each + 2)[1:-1].round().long()])
    return torch.cat(chosen)


def fitted(poses: Tensor, split: Split, steps: int, out: Path, manifold: SE3) -> tuple[rfm.Flow, rfm.Flow]:
    """Return the flow of poses and the one of orientations given positions, fitted or as an earlier run left them."""
    index = torch.cat([split.train, split.validation])
    own: dict[str, Any] = {
        "validation": torch.arange(len(split.train), len(index)),
        # Kernels on top would be scored, not what the flows have learned.
        "refine": False,
        "steps": steps,
        "batch_size": 256,
        "resume": True,
    }
    known = dict(zip(POSITIONS, poses[:, :3, 3].mT, strict=True))
    conditions = Conditions.of(known)
    joint = rfm.fit(poses[index], manifold, out=out / "joint", **own)
    given: dict[str, Any] = {"condition": conditions.encode(known)[index], "conditions": conditions}
    return joint, rfm.fit(poses[index][:, :3, :3], SO3(), out=out / "orientation", **own, **given)


def conditional(flow: rfm.Flow, pose: Tensor, seed: int) -> dict[str, Any]:
    """Return the log-density of an orientation given its position under a flow of poses, and how it was found."""
    start = time.process_time()
    generator = torch.Generator().manual_seed(seed)
    # Of the density that is scored, at the tolerance of its default solver.
    draws = flow.posterior(None, DRAWS, known=Slice.of_position(pose[:3, 3]), generator=generator)
    joint = float(flow.log_prob(pose[None].float()))
    return {
        "log_prob": joint - draws.log_evidence,
        "worth": draws.effective_sample_size,
        "seconds": time.process_time() - start,
        "warnings": list(draws.warnings),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit both flows, score the test poses, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m experiments.pose_conditionals", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/pose-conditionals"), help="folder of flows and scores")
    parser.add_argument("--each", type=int, default=5, help="test poses of each block (default 5)")
    parser.add_argument("--steps", type=int, default=1500, help="optimiser steps of each flow (default 1500)")
    parser.add_argument("--quick", action="store_true", help="a pose of each block and a few steps")
    options = parser.parse_args(arguments)
    if options.quick:
        options.each, options.steps = 1, 16
    dataset = desk()
    poses, blocks = dataset.points, block_labels(dataset.seconds, (BLOCK_SECONDS,))
    split = group_split(blocks, 0, test=TEST_SHARE)
    m = SE3(length_of(poses[:, :3, 3]))
    every = 20 if options.quick else 2
    thinned = Split(split.train[::every], split.validation[::every], split.test)
    joint, trained = fitted(poses, thinned, options.steps, options.out, m)
    index = spread_over(split.test, blocks, options.each)
    found = []
    for seed, i in enumerate(index.tolist()):
        file = options.out / f"{i}.json"
        if not file.exists():
            file.write_text(json.dumps(conditional(joint, poses[i], seed)) + "\n", encoding="utf-8")
            print(f"{seed + 1} of {len(index)}", end="\r", file=sys.stderr, flush=True)
        found.append(json.loads(file.read_text(encoding="utf-8")))
    positions = dict(zip(POSITIONS, poses[index][:, :3, 3].mT, strict=True))
    mixture = kernels(m, RunData(poses, thinned, dataset.coordinates, dataset.name, dataset.sha256))
    of_position = marginals(mixture, m)[1]
    unit = 3 * torch.log(torch.tensor(m.length, dtype=torch.float64))
    scores = {
        JOINT: torch.tensor([own["log_prob"] for own in found], dtype=torch.float64),
        TRAINED: trained.log_prob(poses[index][:, :3, :3], condition=positions).double(),
        KERNEL: mixture.log_prob(poses[index]) - unit - of_position.log_prob(poses[index][:, :3, 3]),
    }
    print(table(scores, blocks[index]))
    worth, seconds = ([own[name] for own in found] for name in ("worth", "seconds"))
    warned = sum(bool(own["warnings"]) for own in found)
    print(
        f"\n{len(index)} slices: {DRAWS} draws worth {min(worth):.0f} to {max(worth):.0f} independent ones, in "
        f"{min(seconds):.1f} to {max(seconds):.1f} seconds of the processor; {warned} with a warning"
    )


def table(scores: dict[str, Tensor], blocks: Tensor) -> str:
    """Return the scores, and what they differ by from those of the conditional of the joint flow, as Markdown."""
    lines = ["| orientation given position | test NLL, nats | joint minus it | 95 % interval |", "|---|---:|---:|---|"]
    for model, log_prob in scores.items():
        nll = negative_log_likelihood(log_prob, groups=blocks)
        difference = paired_difference(-scores[JOINT], -log_prob, groups=blocks)
        low, high = difference.interval_95
        other = f"{difference.mean:+.2f} | {low:+.2f} to {high:+.2f}" if model != JOINT else " | "
        lines.append(f"| {model} | {nll.mean:.2f} ± {nll.error_text(2)} | {other} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
