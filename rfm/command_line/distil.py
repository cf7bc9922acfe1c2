"""``rfm distil``: a fitted run in, a run that draws in a few jumps out."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfm.command_line.arguments import (
    add_device,
    add_output,
    add_run,
    add_seed,
    number,
    path,
    positive,
    positive_number,
)
from rfm.command_line.messages import report

if TYPE_CHECKING:
    from torch import Tensor

    from rfm.flow import Flow
    from rfm.objectives import FlowMapObjective

SUMMARY = "train a fitted flow to jump, so that rfm sample --steps 1 draws in one evaluation"

_OBJECTIVES = {
    "semigroup": "Semigroup",
    "trajectories": "TrajectoryRegression",
    "lagrangian": "Lagrangian",
    "eulerian": "Eulerian",
    "mean-flow": "MeanFlow",
    "plain-mean-flow": "PlainMeanFlow",
    "align-your-flow": "AlignYourFlow",
    "consistency": "RiemannianConsistency",
}
_JUMPS = (1, 2, 4)
_COMPARED = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `run`."""
    add_run(parser)
    parser.add_argument("--out", required=True, type=path, metavar="FOLDER", help="folder for the new run")
    parser.add_argument(
        "--objective",
        choices=tuple(_OBJECTIVES),
        default="semigroup",
        help="what each step minimises beside flow matching (default: semigroup, the cheapest);\ntrajectories is "
        "regression on solved ones; consistency trains jumps to the data alone, for --steps 1",
    )
    parser.add_argument(
        "--invertibility",
        type=number,
        default=0.0,
        metavar="WEIGHT",
        help="of a penalty that makes jumps one-to-one, for their log-densities (default: 0; 1 is usual)",
    )
    parser.add_argument(
        "--guidance",
        type=number,
        default=1.0,
        help="distil the flow under classifier-free guidance of this weight (default: 1, none); the new\nrun has it "
        "built in, and is without the refinement",
    )
    parser.add_argument(
        "--points",
        type=positive,
        default=20_000,
        metavar="COUNT",
        help="samples of the flow that are drawn to train on (default: 20000)",
    )
    parser.add_argument("--steps", type=positive, default=4000, help="optimiser steps (default: 4000)")
    parser.add_argument("--batch-size", type=positive, help="pairs per step (default: 512)")
    parser.add_argument("--max-seconds", type=positive_number, help="cap on the training time (default: none)")
    add_device(parser)
    add_seed(parser)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--resume", action="store_true", help="go on with an interrupted or capped run in --out")
    group.add_argument("--force", action="store_true", help="replace the flow in --out")
    add_output(parser)


def run(arguments: argparse.Namespace) -> None:
    """Distil a run, and report how far its jumps are from where the field leads."""
    from rfm.command_line.fitted_runs import load_run, refuse_existing
    from rfm.command_line.messages import is_first_process
    from rfm.training import Training, distil

    flow, data = load_run(arguments)
    folder = Path(arguments.out)
    if folder.resolve() == Path(arguments.run).resolve():
        raise ValueError("--out is the run that is distilled, which stays as it is; choose another folder")
    refuse_existing(folder, arguments)
    train = data.conditions_at(data.split.train).get("condition")
    found = distil(
        flow,
        objective=_objective(arguments),
        points=arguments.points,
        condition=train,
        guidance=arguments.guidance,
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        seed=arguments.seed,
        device=arguments.device,
        out=folder,
        resume=arguments.resume,
        progress=not arguments.quiet,
        training=Training(max_seconds=arguments.max_seconds, force=arguments.force),
    )
    if is_first_process():
        data.save(folder)
    errors = _errors(found, train, arguments.seed)
    last = found.history[-1]
    record = {
        "run": str(folder),
        "distilled": str(arguments.run),
        "objective": arguments.objective,
        "guidance": arguments.guidance,
        "steps": last["step"],
        "seconds": last["seconds"],
        "validation_loss": min(h["validation_loss"] for h in found.history),
        "jump_errors": {str(count): error for count, error in errors.items()},
        "stopped": found.stopped,
    }
    jumps = ", ".join(f"{error:.2g} in {count}" for count, error in errors.items())
    text = (
        f"distilled in {last['seconds']:.0f} s; {found.stopped}\nroot mean square distance of samples from those of "
        f"a solve, in units of the metric, by the number of jumps: {jumps}\nrun: {folder}"
    )
    report(arguments, record, text)


def _objective(arguments: argparse.Namespace) -> "FlowMapObjective":
    from rfm import objectives

    options: dict[str, Any] = {"invertibility": arguments.invertibility}
    if arguments.invertibility:
        from rfm.paths.time_pairs import TimePairs

        # A map and its inverse are the same map with its times exchanged.
        options["spans"] = TimePairs(backward=0.5)
    found: FlowMapObjective = vars(objectives)[_OBJECTIVES[arguments.objective]](**options)
    return found


def _errors(flow: "Flow", condition: "Tensor | None", seed: int) -> "dict[int, float]":
    """Return the distance of jumps, by their number, from where a solve carries the same draws of the source."""
    import torch

    dtype, device = flow._dtype_and_device()
    generator = torch.Generator(device).manual_seed(seed)
    x_0 = flow.source.sample((_COMPARED,), generator=generator, dtype=dtype, device=device)
    own = None
    if condition is not None:
        own = condition[torch.randint(len(condition), (_COMPARED,), generator=generator, device=condition.device)]
    solved = flow.transport(x_0, condition=own)
    return {
        count: float(flow.manifold.squared_dist(flow.transport(x_0, condition=own, steps=count), solved).mean().sqrt())
        for count in _JUMPS
    }
