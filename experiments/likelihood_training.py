"""What maximum-likelihood training costs beside flow matching: ``python -m experiments.likelihood_training``.

One network, one data set (airports), one split. Flow matching, and `rfm.MaximumLikelihood` by backpropagation and by
the adjoint equation, are trained for equal steps; then flow matching once more, for as many seconds as backpropagation
took. Each run is a process of its own, whose peak memory is what the system counted. The test likelihood is exact, and
the same computation for all.
"""

import argparse
import json
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path

import torch

import rfm
from experiments.benchmarks.memory import peak_megabytes
from manifolds import Sphere
from rfm.datasets import group_split
from rfm.integrators import RK4, FixedStep
from rfm.metrics import negative_log_likelihood
from rfm.networks import VelocityField
from rfm.objectives import Objective

_PAGE = """\
# Maximum likelihood beside flow matching

- command: `python -m experiments.likelihood_training --steps {steps} --threads {threads} --out {out}`
- date: {date}; {machine} CPU, {threads} threads; Python {python}, torch {torch}; float32; seed 0
- data: airports, equal points on one side of the split; batch {batch}, width {width}, {depth} hidden layers; solve of
  each likelihood step: {solve} steps of Runge and Kutta's fourth-order method
- seconds are those of the training steps and the validations; NLL in nats per steradian, by an accurate solve with its
  standard error, and by the solve that training by likelihood uses

{table}

Backpropagation descends the likelihood *of its discrete solve*, and a field can make that better than its own true one:
where the last two columns part, take more steps, or the adjoint, whose gradient is that of the exact likelihood.
"""
_BATCH, _WIDTH, _DEPTH, _FEATURES, _SOLVE = 256, 64, 2, 128, 6
_HEADER = (
    "| objective | gradient | steps | seconds | seconds per step | peak memory, MB | test NLL, exact "
    f"| test NLL, {_SOLVE} steps |\n"
    "|---|---|---:|---:|---:|---:|---:|---:|"
)
_COARSE = FixedStep(RK4, _SOLVE)
_OBJECTIVES: dict[str, tuple[str, str, Objective | None]] = {
    "flow-matching": ("flow matching", "of the regression", None),
    "backpropagation": ("likelihood", "backpropagation", rfm.MaximumLikelihood(_COARSE)),
    "adjoint": ("likelihood", "adjoint", rfm.MaximumLikelihood(_COARSE, adjoint=True)),
}


def main() -> None:
    """Run all, print the table, and write the page if requested."""
    parser = argparse.ArgumentParser(prog="python -m experiments.likelihood_training", description=__doc__)
    parser.add_argument("--steps", type=int, default=300, help="optimiser steps of each objective (default: 300)")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch (default: 2)")
    parser.add_argument("--out", type=Path, help="markdown file to write")
    parser.add_argument("--one", nargs=3, metavar=("OBJECTIVE", "STEPS", "SECONDS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.one:
        name, steps, seconds = arguments.one
        print(json.dumps(_train(name, int(steps), float(seconds))))
        return
    lines = [_HEADER]
    print(_HEADER)
    allowed = 0.0
    # A cap of 0 seconds is none; the last run has as long as backpropagation had.
    for name, steps in (*((name, arguments.steps) for name in _OBJECTIVES), ("flow-matching", 10**6)):
        measured = _in_a_process(name, steps, allowed if steps == 10**6 else 0.0, arguments.threads)
        if name == "backpropagation":
            allowed = measured["seconds"]
        objective, gradient, _ = _OBJECTIVES[name]
        lines.append(
            f"| {objective} | {gradient} | {measured['steps']:.0f} | {measured['seconds']:.0f} | "
            f"{measured['seconds'] / measured['steps']:.3f} | {measured['megabytes']:.0f} | "
            f"{measured['nll']:.3f} ± {measured['standard_error']:.3f} | {measured['coarse_nll']:.3f} |"
        )
        print(lines[-1], flush=True)
    if arguments.out:
        arguments.out.write_text(
            _PAGE.format(
                steps=arguments.steps,
                threads=arguments.threads,
                out=arguments.out,
                date=date.today(),
                machine=platform.machine(),
                python=platform.python_version(),
                torch=torch.__version__,
                batch=_BATCH,
                width=_WIDTH,
                depth=_DEPTH,
                solve=_SOLVE,
                table="\n".join(lines),
            )
        )


def _in_a_process(name: str, steps: int, seconds: float, threads: int) -> dict[str, float]:
    command = [sys.executable, "-m", "experiments.likelihood_training", "--one", name, str(steps), str(seconds)]
    run = subprocess.run([*command, "--threads", str(threads)], stdout=subprocess.PIPE, check=True)
    measured: dict[str, float] = json.loads(run.stdout)
    return measured


def _train(name: str, steps: int, seconds: float) -> dict[str, float]:
    points = rfm.datasets.load("airports").points
    split = group_split(points, seed=0)
    index = torch.cat([split.train, split.validation])
    before = peak_megabytes()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        field = VelocityField(Sphere(2), width=_WIDTH, depth=_DEPTH, features=_FEATURES, max_frequency=16.0)
    flow = rfm.fit(
        points[index],
        Sphere(2),
        validation=torch.arange(len(split.train), len(index)),
        field=field,
        objective=_OBJECTIVES[name][2],
        steps=steps,
        training=rfm.Training(max_seconds=seconds or None),
        refine=False,
        batch_size=_BATCH,
        device="cpu",
    )
    megabytes = peak_megabytes() - before
    test = points[split.test]
    score = negative_log_likelihood(flow.log_prob(test), groups=test)
    coarse = negative_log_likelihood(flow.log_prob(test, solver=_COARSE))
    return {
        "steps": flow.history[-1]["step"],
        "seconds": flow.history[-1]["seconds"],
        "megabytes": megabytes,
        "nll": score.mean,
        "coarse_nll": coarse.mean,
        "standard_error": score.standard_error,
    }


if __name__ == "__main__":
    main()
