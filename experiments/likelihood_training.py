"""What training by maximum likelihood adds to flow matching: ``python -m experiments.likelihood_training``.

One network on three sets: airports on the sphere, the torsion angles of residues on the torus, the orientations of the
grains of a steel, whose density is the sharpest. Flow matching first; from there `rfm.MaximumLikelihood`. On airports
also flow matching for as long as both. Test likelihoods are by an accurate solve, the same for all.
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
from experiments import orientations
from manifolds import FlatTorus, Manifold, Sphere
from rfm import FlowMatching
from rfm.datasets import group_split
from rfm.integrators import Adaptive
from rfm.metrics import negative_log_likelihood, paired_difference
from rfm.networks import VelocityField
from rfm.objectives import Objective
from rfm.paths.times import UniformAndLateTimes
from rfm.sources import KernelMixture
from rfm.training import default_field

_PAGE = """\
# Maximum likelihood after flow matching

- command: `python -m experiments.likelihood_training --steps {steps} --likelihood-steps {likelihood_steps} --out {out}`
- date: {date}; {machine} CPU, one thread; Python {python}, torch {torch}; float32; seed 0
- data: equal places on one side of the split, of orientations blocks of the map; width {width}, {depth} hidden layers,
  {features} features; flow matching in batches of {matching_batch}, likelihood of {batch}; no kernels along the flow
- seconds are those of the processor, validations included; NLL in nats with respect to the Riemannian volume, by an
  accurate solve, with its standard error, clustered by place or block; the difference is paired, with its 95 % interval

{table}

*By its own solve* is the NLL that training by likelihood works with, the density of the discrete flow: the two agree.
Where flow matching has not converged, more of it gains more in the same time.
"""
_WIDTH, _DEPTH, _FEATURES = 128, 2, 256
_BATCHES = {False: 512, True: 256}
"""Of flow matching, and of likelihood."""

_DRAWN = 20_000
_CONCENTRATIONS = torch.logspace(0.5, 5, 16, dtype=torch.float64)
"""Of orientations, down to kernels of 0.2 degrees, finer than the measurement."""
_LIKELIHOOD = rfm.MaximumLikelihood()
_SOLVER = Adaptive(atol=1e-4, rtol=1e-4)
_HEADER = (
    "| data | training | steps | seconds | validation NLL | test NLL | minus flow matching "
    "| steps of the solve | by its own solve |\n|---|---|---:|---:|---:|---:|---:|---:|---:|"
)


@dataclass(frozen=True)
class Data:
    """What is trained on, validated on and tested on, and how flow matching begins."""

    name: str
    manifold: Manifold
    train: Tensor
    validation: Tensor
    test: Tensor
    groups: Tensor
    """Of the test points: equal rows depend on each other."""
    kernels: KernelMixture
    objective: FlowMatching
    max_frequency: float

    @classmethod
    def by_place(cls, name: str, manifold: Manifold, points: Tensor) -> "Data":
        """Return points split so that equal ones stay on one side, with 30 bandwidths and all defaults."""
        train, validation, test = (points[rows] for rows in group_split(points, seed=0))
        kernels = KernelMixture.mixture(manifold, train, validation)
        return cls(
            name,
            manifold,
            train,
            validation,
            test,
            test,
            kernels,
            FlowMatching(),
            default_field(manifold, train).max_frequency,
        )


def airports() -> Data:
    """Return places of airports."""
    return Data.by_place("airports", Sphere(2), rfm.datasets.load("airports").points)


def torsions() -> Data:
    """Return phi and psi of residues, every 47th of the list of protein torsions."""
    folder = os.environ.get("RFM_DATA")
    if folder is None:
        raise ValueError("set RFM_DATA to a folder that holds protein/torsions.tsv")
    with (Path(folder) / "protein" / "torsions.tsv").open(newline="") as file:
        rows = [(float(row[1]), float(row[2])) for row in csv.reader(file, delimiter="\t")]
    points = FlatTorus(2).projx(torch.tensor(rows[::47], dtype=torch.float64) * (math.pi / 180))
    return Data.by_place("torsions", FlatTorus(2), points)


def grains() -> Data:
    """Return orientations of grains as in `experiments.orientations`, without their phase, every second of the map.

    Trained on are draws from the kernels, tested blocks of the map, clustered by block.
    """
    measured = orientations.problem(1, every=2)
    split, points = measured.split(0), measured.points
    # Of a row every third point is a centre; a thousand points settle the weights of sixteen kernels.
    order = torch.randperm(len(split.validation), generator=torch.Generator().manual_seed(0))
    parts = (points[split.train[::3]], points[split.validation[order[:1000]]])
    kernels = KernelMixture.mixture(measured.manifold, *parts, concentrations=_CONCENTRATIONS)
    return Data(
        "orientations",
        measured.manifold,
        kernels.sample((_DRAWN,), torch.Generator().manual_seed(0), torch.float64),
        points[split.validation][:: len(split.validation) // 256],
        points[split.test],
        measured.groups[split.test],
        kernels,
        FlowMatching(times=UniformAndLateTimes(finest=0.003)),
        max_frequency=40.0,
    )


_SETS: dict[str, Callable[[], Data]] = {"airports": airports, "torsions": torsions, "orientations": grains}


@torch.no_grad()
def scores(flow: rfm.Flow, x: Tensor) -> Tensor:
    """Return log-densities by an accurate solve."""
    return flow.log_prob(x, solver=_SOLVER).double()


@torch.no_grad()
def own_log_prob(flow: rfm.Flow, steps: float, x: Tensor) -> Tensor:
    """Return log-densities by the solve, of so many steps, that likelihood was trained with."""
    trained = next(c for c in _LIKELIHOOD.candidates if c.solver_steps == steps)
    return trained.log_prob(flow.field, flow.source, x.float())


class Study:
    """The trainings of one set, a row of the table each.

    Args:
        data: the set.
        steps: of flow matching.
        likelihood_steps: of maximum likelihood.
    """

    def __init__(self, data: Data, steps: int, likelihood_steps: int) -> None:
        self.data, self.steps, self.likelihood_steps = data, steps, likelihood_steps
        self.reference: Tensor | None = None
        self.rows: list[str] = []

    def run(self, longer: bool) -> None:
        """Train and score all; with flow matching for as long as both, if requested."""
        data = self.data
        fitted = self._row("flow matching", self._field(), data.objective, self.steps)
        seconds = fitted.history[-1]["cpu_seconds"]
        refined = self._row("then likelihood", copy.deepcopy(fitted.field), _LIKELIHOOD, self.likelihood_steps)
        more = refined.history[-1]["cpu_seconds"] / seconds
        if longer:
            name = "flow matching for as long as both"
            self._row(name, self._field(), data.objective, round(self.steps * (1 + more)))
        self._add("kernels", {}, data.kernels.log_prob(data.test).double())

    def _field(self) -> VelocityField:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return VelocityField(
                self.data.manifold,
                width=_WIDTH,
                depth=_DEPTH,
                features=_FEATURES,
                max_frequency=self.data.max_frequency,
            )

    def _row(self, name: str, field: Any, objective: Objective, steps: int) -> rfm.Flow:
        train, validation, test = self.data.train, self.data.validation, self.data.test
        flow = rfm.fit(
            torch.cat([train, validation]),
            self.data.manifold,
            validation=torch.arange(len(train), len(train) + len(validation)),
            field=field,
            objective=objective,
            refine=False,
            steps=steps,
            batch_size=_BATCHES[objective.refines],
            device="cpu",
            progress=False,
        )
        last = flow.history[-1]
        best = min(record["validation_nll"] for record in flow.history if "validation_nll" in record)
        cells = {"steps": f"{last['step']}", "seconds": f"{last['cpu_seconds']:.0f}", "validation": f"{best:.3f}"}
        if objective.refines:
            cells["solve"] = f"{last['solver_steps']:.0f}"
            cells["own"] = f"{-float(own_log_prob(flow, last['solver_steps'], test).mean()):.3f}"
        self._add(name, cells, scores(flow, test))
        print(f"{flow.stopped}; validation {[round(r['validation_nll'], 3) for r in flow.history]}", flush=True)
        return flow

    def _add(self, name: str, cells: dict[str, str], log_p: Tensor) -> None:
        groups = self.data.groups
        score = negative_log_likelihood(log_p, groups=groups)
        difference = ""
        if self.reference is None:
            self.reference = log_p
        else:
            found = paired_difference(-log_p, -self.reference, groups=groups)
            low, high = found.interval_95
            difference = f"{found.mean:+.3f} [{low:+.3f}, {high:+.3f}]"
        before, after = (
            " | ".join(cells.get(key, "") for key in keys)
            for keys in (("steps", "seconds", "validation"), ("solve", "own"))
        )
        self.rows.append(
            f"| {self.data.name} | {name} | {before} | {score.mean:.3f} ± {score.standard_error:.3f} | {difference} | "
            f"{after} |"
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
                matching_batch=_BATCHES[False],
                batch=_BATCHES[True],
                table="\n".join(lines),
            )
        )


if __name__ == "__main__":
    main()
