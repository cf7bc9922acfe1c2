"""Ideas for better densities beside the defaults of ``rfm.fit``: ``python -m experiments.density_trials``.

Airports (equal places together) and floods (deduplicated), 1,000 steps each, refined as `rfm.fit` does:

- Muon for the hidden matrices of the default network, AdamW for the rest (Jordan et al., Muon, 2024);
- bumps about training points at geometric widths, in place of sines of random projections;
- targets averaged over the batch: the mean of the velocities to all data points of a batch, given the noisy point, in
  closed form along geodesics of the sphere (Xu, Tong and Jaakkola, Stable Target Field, 2023, arXiv:2302.00670);
- a bag of two flows, the second on a bootstrap sample of the training points (Breiman, Bagging predictors, 1996);
- no refinement, which tells what the refinement costs.

Each trial of each split is kept, so that a run that was killed goes on where it was.

    python -m experiments.density_trials [--seeds 2] [--steps 1000] [--out docs/benchmarks/density-trials.md]
"""

import argparse
import contextlib
import json
import math
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import rfm
from experiments import earth
from experiments.density_study import Problem
from manifolds import Manifold
from rfm.metrics import paired_difference
from rfm.sources import KernelMixture, Source
from rfm.training import default_field

SETS = {"airports": "group", "flood": "deduplicated"}
BASE, BOOTSTRAP, BAG, UNREFINED = "default", "one-of-the-bag", "bag of two", "no-refinement"
TRIALS = (UNREFINED, "Muon", "bumps", "averaged-targets", BOOTSTRAP)
_CENTRES = 512
_PAGE = """\
# Ideas for better densities

- command: `python -m experiments.density_trials --datasets {datasets} --trials {trials} --seeds {seeds} --steps {steps}
  --out {out}`
- date: {date}; {machine} CPU, one thread; torch {torch}; seeds from 0
- seconds are those of the processor, of the fit and of its refinement; test NLL in nats with respect to the Riemannian
  volume, of the flow alone and refined, mean over the seeds; differences of refined flows are paired by test point,
  with 95 % intervals clustered by place over all seeds

{table}
"""
_HEADER = (
    "| data | trial | seconds | flow | refined | refined minus default | refined minus adaptive kernels |\n"
    "|---|---|---:|---:|---:|---:|---:|"
)


class MuonBeside(torch.optim.AdamW):
    """AdamW, but for hidden matrices Muon of the same learning rate, in the scale of AdamW's updates."""

    def __init__(self, params: Any, lr: float, **settings: Any) -> None:
        params = list(params)
        super().__init__(params, lr=lr, **settings)
        self.hidden = [p for p in params if p.ndim == 2 and min(p.shape) >= 64]
        self.muon = torch.optim.Muon(self.hidden, lr=lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update hidden matrices, then what else has a gradient."""
        for group in self.muon.param_groups:
            group["lr"] = float(self.param_groups[0]["lr"])
        self.muon.step()
        gradients = [p.grad for p in self.hidden]
        for p in self.hidden:
            p.grad = None
        super().step(closure)
        for p, gradient in zip(self.hidden, gradients, strict=True):
            p.grad = gradient


class Bumps(nn.Module):
    """A network of the default's size that reads ``exp(k (<x, c> - 1))`` about centres, k geometric from 3.

    Args:
        manifold: a sphere.
        centres: ``(m, n + 1)``.
        finest: the inverse of the finest scale, in radians.
    """

    def __init__(self, manifold: Manifold, centres: Tensor, finest: float, width: int = 192, depth: int = 3) -> None:
        super().__init__()
        self.manifold = manifold
        self.register_buffer("centres", centres)
        self.register_buffer("k", torch.logspace(0.5, 2 * math.log10(finest), len(centres)))
        self.waves = nn.Linear(9, width * (depth + 1))
        self.coarse = nn.Linear(manifold.embed_dim, width, bias=False)
        self.fine = nn.Linear(len(centres), width, bias=False)
        self.hidden = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(depth))
        self.last = nn.Linear(width, manifold.field_dim)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    centres: Tensor
    k: Tensor

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the velocity at ``x`` ``(*batch, n + 1)``, tangent there."""
        turns = math.pi * t[..., None] * 2.0 ** torch.arange(4, device=t.device, dtype=x.dtype)
        time_waves = torch.cat([t[..., None], turns.sin(), turns.cos()], dim=-1)
        biases = self.waves(time_waves).unflatten(-1, (len(self.hidden) + 1, -1)).unbind(-2)
        bumps = (self.k * (x @ self.centres.mT - 1)).exp()
        h = biases[0] + self.coarse(x) + self.fine(2 * bumps - 1)
        for layer, bias in zip(self.hidden, biases[1:], strict=True):
            h = h + bias + layer(nn.functional.silu(h))
        return self.manifold.proju(x, self.last(nn.functional.silu(h)))


def averaged_targets(
    field: Callable[..., Tensor], source: Source, x_0: Tensor, x_1: Tensor, t: Tensor, **given: Any
) -> Tensor:
    """Return the loss of a batch against the mean velocity to all of its data points, on the two-sphere.

    From a uniform point, a geodesic to y is at time t at x with a density proportional to
    ``sin(d) / sin((1 - t) d) / (1 - t)`` where ``d = dist(x, y) / (1 - t)`` is at most pi, and to 0 beyond.
    """
    m = source.manifold
    x = m.geodesic(x_0, x_1, t)[0]
    remaining = (1 - t)[:, None]
    far = m.dist(x[:, None], x_1).clamp(min=1e-6)
    d = far / remaining
    weights = torch.where(d < math.pi, d.clamp(max=math.pi).sin() / far.sin(), 0.0)
    # The point's own end is possible by construction; rounding may put it beyond.
    weights = weights + 1e-12 * torch.eye(len(x), dtype=x.dtype, device=x.device)
    weights = weights / weights.sum(1, keepdim=True)
    u = (weights[..., None] * m.logmap(x[:, None], x_1) / remaining[..., None]).sum(1)
    return (field(x, t) - u).square().sum(-1).mean()


@contextlib.contextmanager
def muon() -> Iterator[None]:
    """Let `rfm.fit` train with `MuonBeside`."""
    with mock.patch.object(torch.optim, "AdamW", MuonBeside):
        yield


class Trials:
    """The trials of one split, each of which is read where it was run before.

    Args:
        problem: the data and their splits.
        seed: of the split and the fits.
        steps: of each fit.
        folder: where results are kept.
    """

    def __init__(self, problem: Problem, seed: int, steps: int, folder: Path) -> None:
        self.problem, self.seed, self.steps, self.folder = problem, seed, steps, folder
        self.rows = problem.split(seed)
        self.train, self.validation, self.test = (problem.points[part] for part in self.rows)
        self.found: dict[str, tuple[dict[str, Tensor], float]] = {}

    def run(self, names: Sequence[str]) -> None:
        """Run the default and these trials, but what was run before."""
        trials: dict[str, Callable[[], rfm.Flow]] = {
            BASE: lambda: self._fit(BASE),
            UNREFINED: lambda: self._fit(UNREFINED, refine=False),
            "Muon": self._muon,
            "bumps": lambda: self._fit("bumps", field=self._bumps()),
            "averaged-targets": lambda: self._fit("averaged-targets", objective=averaged_targets),
            BOOTSTRAP: self._bootstrap,
        }
        for name in (BASE, *names):
            self._keep(name, trials[name])
        if BOOTSTRAP not in names:
            return
        (a, first), (b, second) = self.found[BASE], self.found[BOOTSTRAP]
        both = {key: torch.logaddexp(a[key], b[key]) - math.log(2) for key in a if key != "kernels"}
        self.found[BAG] = both, first + second

    def _keep(self, name: str, fit: Callable[[], rfm.Flow]) -> None:
        scores, record = (self.folder / f"{name}.{kind}" for kind in ("safetensors", "json"))
        if not record.exists():
            flow = fit()
            last = flow.history[-1]
            seconds = last["cpu_seconds"] + last.get("refinement_seconds", 0.0)
            log_prob = {"flow": flow.base.log_prob(self.test).double(), "refined": flow.log_prob(self.test).double()}
            if name == BASE:
                kernels = KernelMixture.adaptive(self.problem.manifold, self.train, self.validation)
                log_prob["kernels"] = kernels.log_prob(self.test).double()
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file(log_prob, scores)
            record.write_text(json.dumps({"seconds": seconds}) + "\n", encoding="utf-8")
            print(self.folder, name, f"{seconds:.0f} s", {k: f"{-float(p.mean()):.3f}" for k, p in log_prob.items()})
        self.found[name] = load_file(scores), json.loads(record.read_text(encoding="utf-8"))["seconds"]

    def _fit(self, name: str, train: Tensor | None = None, **settings: Any) -> rfm.Flow:
        train = self.train if train is None else train
        kept: dict[str, Any] = {"out": self.folder / f"{name}-fit", "resume": True}
        return rfm.fit(
            torch.cat([train, self.validation]),
            self.problem.manifold,
            validation=torch.arange(len(train), len(train) + len(self.validation)),
            steps=self.steps,
            seed=self.seed,
            progress=False,
            device="cpu",
            training=rfm.Training(clock=time.process_time),
            **{**kept, **settings},
        )

    def _muon(self) -> rfm.Flow:
        # A checkpoint would not hold its momenta.
        with muon():
            return self._fit("Muon", out=None, resume=False)

    def _bumps(self) -> Bumps:
        draw = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(self.seed))[:_CENTRES]
        finest = default_field(self.problem.manifold, self.train).max_frequency
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            return Bumps(self.problem.manifold, self.train[draw].float(), finest)

    def _bootstrap(self) -> rfm.Flow:
        generator = torch.Generator().manual_seed(100 + self.seed)
        return self._fit(BOOTSTRAP, self.train[torch.randint(len(self.train), (len(self.train),), generator=generator)])


def table(found: dict[str, list[Trials]]) -> str:
    """Return the results as Markdown."""
    lines = [_HEADER]
    for dataset, splits in found.items():
        groups = splits[0].problem.groups[torch.cat([one.rows.test for one in splits])]

        def joined(name: str, key: str, splits: list[Trials] = splits) -> Tensor:
            return torch.cat([one.found[name][0][key] for one in splits])

        def minus(p: Tensor, q: Tensor, groups: Tensor = groups) -> str:
            gain = paired_difference(-p, -q, groups=groups)
            return f"{gain.mean:+.3f} [{gain.interval_95[0]:+.3f}, {gain.interval_95[1]:+.3f}]"

        for name in splits[0].found:
            seconds = sum(one.found[name][1] for one in splits) / len(splits)
            flow, refined = joined(name, "flow"), joined(name, "refined")
            cells = [f"{seconds:.0f}", f"{-float(flow.mean()):.3f}", "", "", ""]
            if name != UNREFINED:
                beside_default = "" if name == BASE else minus(refined, joined(BASE, "refined"))
                cells[2:] = [
                    f"{-float(refined.mean()):.3f}",
                    beside_default,
                    minus(refined, joined(BASE, "kernels")),
                ]
            lines.append(f"| {dataset} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the trials, print the table, and write the page if requested."""
    parser = argparse.ArgumentParser(prog="python -m experiments.density_trials", description=__doc__.split("\n")[0])
    parser.add_argument("--datasets", nargs="+", choices=SETS, default=list(SETS), help="default: both")
    parser.add_argument("--trials", nargs="+", choices=TRIALS, default=list(TRIALS), help="default: all")
    parser.add_argument("--seeds", type=int, default=2, help="number of splits, seeded from 0 (default 2)")
    parser.add_argument("--steps", type=int, default=1000, help="steps of each fit (default 1000)")
    parser.add_argument("--runs", type=Path, default=Path("runs/density-trials"), help="folder of the results")
    parser.add_argument("--out", type=Path, help="markdown file to write")
    parser.add_argument("--quick", action="store_true", help="one split of a few points and steps, to see that it runs")
    options = parser.parse_args(arguments)
    every = 1
    if options.quick:
        options.seeds, options.steps, every = 1, 8, 20
    torch.set_num_threads(1)
    found = {}
    for dataset in options.datasets:
        split = SETS[dataset]
        problem = earth.problem(dataset, split, options.seeds, every)
        found[f"{dataset}, {split}"] = [
            Trials(problem, seed, options.steps, options.runs / f"{dataset}-{seed}-{options.steps}")
            for seed in range(options.seeds)
        ]
    # All sets of one seed first.
    for seed in range(options.seeds):
        for splits in found.values():
            splits[seed].run(options.trials)
    text = table(found)
    print(text)
    if options.out:
        own: dict[str, Any] = {"seeds": options.seeds, "steps": options.steps, "out": options.out}
        own |= {"datasets": " ".join(options.datasets), "trials": " ".join(options.trials)}
        page = _PAGE.format(date=date.today(), machine=platform.machine(), torch=torch.__version__, table=text, **own)
        options.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
