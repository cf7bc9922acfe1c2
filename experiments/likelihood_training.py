"""What training by maximum likelihood adds to flow matching: ``python -m experiments.likelihood_training``.

One network on two sets: airports on the sphere, the torsion angles of residues on the torus. Flow matching first; from
there `rfm.MaximumLikelihood`. On airports also flow matching for as long as both. Test likelihoods are by an accurate
solve, the same for all.
"""

import argparse
import copy
import csv
import math
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import rfm
from manifolds import FlatTorus, Manifold, Sphere
from rfm.datasets import Split, group_split
from rfm.integrators import Adaptive
from rfm.metrics import negative_log_likelihood, paired_difference
from rfm.networks import VelocityField
from rfm.objectives import Objective
from rfm.sources import KernelMixture
from rfm.training import default_field

_PAGE = """\
# Maximum likelihood after flow matching

- command: `python -m experiments.likelihood_training --steps {steps} --likelihood-steps {likelihood_steps} --out {out}`
- date: {date}; {machine} CPU, one thread; Python {python}, torch {torch}; float32; seed 0
- data: equal places on one side of the split; width {width}, {depth} hidden layers, {features} features; flow matching
  in batches of 512, likelihood of {batch}
- seconds are those of the processor, validations included; NLL in nats with respect to the Riemannian volume, by an
  accurate solve, with its standard error, clustered by place; the difference is paired, with its 95 % interval

{table}

*By its own solve* is the NLL that training by likelihood works with, the density of the discrete flow: the two agree.
Where flow matching has not converged, more of it gains more in the same time.
"""
_WIDTH, _DEPTH, _FEATURES, _LIKELIHOOD_BATCH = 128, 2, 256, 256
_LIKELIHOOD = rfm.MaximumLikelihood()
_SOLVER = Adaptive(atol=1e-4, rtol=1e-4)
_HEADER = (
    "| data | training | steps | seconds | validation NLL | test NLL | minus flow matching "
    "| by its own solve |\n|---|---|---:|---:|---:|---:|---:|---:|"
)


@dataclass(frozen=True)
class Data:
    """Points; equal ones stay on one side of the split."""

    name: str
    manifold: Manifold
    points: Tensor

    @property
    def split(self) -> Split:
        """Indices of training, validation and test points."""
        return group_split(self.points, seed=0)


def airports() -> Data:
    """Return places of airports."""
    points = rfm.datasets.load("airports").points
    return Data("airports", Sphere(2), points)


def torsions() -> Data:
    """Return phi and psi of residues, every 47th of the list of protein torsions."""
    folder = os.environ.get("RFM_DATA")
    if folder is None:
        raise ValueError("set RFM_DATA to a folder that holds protein/torsions.tsv")
    with (Path(folder) / "protein" / "torsions.tsv").open(newline="") as file:
        rows = [(float(row[1]), float(row[2])) for row in csv.reader(file, delimiter="\t")]
    points = FlatTorus(2).projx(torch.tensor(rows[::47], dtype=torch.float64) * (math.pi / 180))
    return Data("torsions", FlatTorus(2), points)


_SETS: dict[str, Callable[[], Data]] = {"airports": airports, "torsions": torsions}


@torch.no_grad()
def scores(flow: rfm.Flow, x: Tensor) -> Tensor:
    """Return log-densities by an accurate solve."""
    return flow.log_prob(x, solver=_SOLVER).double()


class Study:
    """The trainings of one set, a row of the table each.

    Args:
        data: the set.
        steps: of flow matching.
        likelihood_steps: of maximum likelihood.
    """

    def __init__(self, data: Data, steps: int, likelihood_steps: int) -> None:
        self.data, self.steps, self.likelihood_steps = data, steps, likelihood_steps
        split = data.split
        self.kept = torch.cat([split.train, split.validation])
        self.held = torch.arange(len(split.train), len(self.kept))
        self.train, self.validation, self.test = (data.points[rows] for rows in split)
        self.reference: Tensor | None = None
        self.rows: list[str] = []

    def run(self, longer: bool) -> None:
        """Train and score all; with what a divergence in place of the Jacobian does."""
        kernels = KernelMixture.mixture(self.data.manifold, self.train, self.validation)
        fitted = self._row("flow matching", self._field(), None, self.steps)
        seconds = fitted.history[-1]["cpu_seconds"]
        refined = self._row(
            "then likelihood", copy.deepcopy(fitted.field), _LIKELIHOOD, self.likelihood_steps, own=_LIKELIHOOD.log_prob
        )
        more = refined.history[-1]["cpu_seconds"] / seconds
        if longer:
            self._row("flow matching for as long as both", self._field(), None, round(self.steps * (1 + more)))
        self._add("kernels, 30 bandwidths", "", "", "", kernels.log_prob(self.test).double(), "")

    def _field(self) -> VelocityField:
        finest = default_field(self.data.manifold, self.train).max_frequency
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return VelocityField(
                self.data.manifold, width=_WIDTH, depth=_DEPTH, features=_FEATURES, max_frequency=finest
            )

    def _row(
        self,
        name: str,
        field: Any,
        objective: Objective | None,
        steps: int,
        own: Callable[..., Tensor] | None = None,
    ) -> rfm.Flow:
        flow = rfm.fit(
            self.data.points[self.kept],
            self.data.manifold,
            validation=self.held,
            field=field,
            objective=objective,
            steps=steps,
            batch_size=None if own is None else _LIKELIHOOD_BATCH,
            device="cpu",
            progress=False,
        )
        told = ""
        if own is not None:
            with torch.no_grad():
                told = f"{-float(own(flow.field, flow.source, self.test.float()).mean()):.3f}"
        last = flow.history[-1]
        best = min(record["validation_nll"] for record in flow.history if "validation_nll" in record)
        self._add(name, f"{last['step']}", f"{last['cpu_seconds']:.0f}", f"{best:.3f}", scores(flow, self.test), told)
        print(f"{flow.stopped}; validation {[round(r['validation_nll'], 3) for r in flow.history]}", flush=True)
        return flow

    def _add(self, name: str, steps: str, seconds: str, best: str, log_p: Tensor, told: str) -> None:
        score = negative_log_likelihood(log_p, groups=self.test)
        difference = ""
        if self.reference is None:
            self.reference = log_p
        elif steps:
            found = paired_difference(-log_p, -self.reference, groups=self.test)
            low, high = found.interval_95
            difference = f"{found.mean:+.3f} [{low:+.3f}, {high:+.3f}]"
        self.rows.append(
            f"| {self.data.name} | {name} | {steps} | {seconds} | {best} | "
            f"{score.mean:.3f} ± {score.standard_error:.3f} | {difference} | {told} |"
        )
        print(self.rows[-1], flush=True)


def main() -> None:
    """Run all, print the table, and write the page if requested."""
    parser = argparse.ArgumentParser(prog="python -m experiments.likelihood_training", description=__doc__)
    parser.add_argument("--steps", type=int, default=3000, help="steps of flow matching (default: 3000)")
    parser.add_argument("--likelihood-steps", type=int, default=120, help="steps of likelihood (default: 120)")
    parser.add_argument("--sets", nargs="+", choices=_SETS, default=_SETS, help="which sets (default: all)")
    parser.add_argument("--out", type=Path, help="markdown file to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = [_HEADER]
    for name in arguments.sets:
        study = Study(_SETS[name](), arguments.steps, arguments.likelihood_steps)
        study.run(longer=name == "airports")
        lines += study.rows
    if arguments.out:
        arguments.out.write_text(
            _PAGE.format(
                steps=arguments.steps,
                likelihood_steps=arguments.likelihood_steps,
                out=arguments.out,
                date=date.today(),
                machine=platform.machine(),
                python=platform.python_version(),
                torch=torch.__version__,
                width=_WIDTH,
                depth=_DEPTH,
                features=_FEATURES,
                batch=_LIKELIHOOD_BATCH,
                table="\n".join(lines),
            )
        )


if __name__ == "__main__":
    main()
