"""Discrete flow matching on a Markov chain, beside a flow on simplices: ``python -m experiments.discrete``.

Sequences of a chain whose law is known: every sequence has a probability, so that the law of what a discrete flow draws
is compared with it exactly, without draws. A flow on a power of simplices, which sees labels as corners, is assessed by
draws, and so are draws of the chain itself, which show what that comparison can tell apart.
"""

import argparse
import platform
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

import rfm
from manifolds import Power, Simplex
from rfm import discrete
from rfm.discrete import MaskedLabels, MixturePath, UniformLabels

_PAGE = """\
# Discrete flow matching

Sequences of {length} labels of {classes} kinds from a Markov chain: {states} sequences, each of known probability.
Three flows are trained on {data:,} of them. The discrete flows of `rfm.discrete` learn the posterior of each label by
cross-entropy and draw by jumps; their law is summed over all sequences on the way, so the figures have no sampling
error. The flow on `Power(Simplex({simplex}), {length})` sees a label as a corner of a simplex, moved a tenth of the way
to its centre; a draw's labels are its largest shares.

- command: `python -m experiments.discrete --steps {steps} --draws {draws} --out {out}`
- date: {date}; {machine} CPU, {threads} thread; Python {python}, torch {torch}; float32; seed {seed}
- {steps:,} optimiser steps of batches of {batch} for each; {seconds}
- total variation: half the sum of the absolute differences of two laws, 0 to 1; of all sequences, and of the pairs of
  neighbouring labels, averaged over the places. Independent labels with the right frequencies at each place are
  {independent:.3f} from the chain, {independent_pairs:.3f} in pairs
- nats: the Kullback-Leibler divergence of the law from the chain's, what the mean log-likelihood of data falls short of
  the best

{table}

**What is exact.** With the exact posterior the law of the draws converges to that of the data as one over the number of
steps, because labels that jump in one step do so independently of each other; the tests show it. A masked label jumps
once and is never corrected; a uniform one may jump again. In one step both draw all labels independently.

**Draws.** The last rows are of {draws:,} draws, whose law is known to the figure in the row of the chain itself and no
better; divergences cannot be estimated from them.
"""
_HEADER = (
    "| flow | steps of a draw | total variation | in pairs | nats |\n"
    "|---|---:|---:|---:|---:|"
)  # fmt: skip


class Chain(NamedTuple):
    """A Markov chain and the law of its sequences."""

    classes: int
    length: int
    law: Tensor
    """Probabilities in the order of ``sequences``, float64."""
    sequences: Tensor

    def draw(self, count: int, seed: int) -> Tensor:
        """Return sequences ``(count, length)``."""
        generator = torch.Generator().manual_seed(seed)
        return self.sequences[torch.multinomial(self.law, count, replacement=True, generator=generator)]

    def frequencies(self, x: Tensor) -> Tensor:
        """Return the shares of all sequences among ``x``."""
        powers = self.classes ** torch.arange(self.length - 1, -1, -1)
        return torch.bincount((x * powers).sum(-1), minlength=len(self.law)).double() / len(x)

    def pairs(self, law: Tensor) -> Tensor:
        """Return the laws of neighbouring labels, ``(length - 1, classes^2)``."""
        codes = self.sequences[:, :-1] * self.classes + self.sequences[:, 1:]
        zeros = torch.zeros(self.classes**2, dtype=torch.float64)
        return torch.stack([zeros.index_add(0, code, law) for code in codes.unbind(-1)])

    def independent(self) -> Tensor:
        """Return the law of independent labels with this law's frequencies at each place."""
        zeros = torch.zeros(self.classes, dtype=torch.float64)
        return torch.stack([zeros.index_add(0, c, self.law)[c] for c in self.sequences.unbind(-1)]).prod(0)

    def distances(self, law: Tensor) -> tuple[float, float]:
        """Return the total variation from ``law``, of sequences and of pairs."""
        pairs = (self.pairs(law) - self.pairs(self.law)).abs().sum(-1).mean() / 2
        return discrete.total_variation(law, self.law), float(pairs)


def markov_chain(classes: int, length: int, seed: int) -> Chain:
    """Return a chain with random transitions, most of which prefer one or two labels."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.softmax(torch.randn(classes, generator=generator, dtype=torch.float64), -1)
    move = torch.softmax(2 * torch.randn(classes, classes, generator=generator, dtype=torch.float64), -1)
    x = discrete.every_sequence(classes, length)
    law = start[x[:, 0]] * move[x[:, :-1], x[:, 1:]].prod(-1)
    return Chain(classes, length, law, x)


def simplex_draws(chain: Chain, data: Tensor, draws: int, steps: int, batch: int, seed: int) -> Tensor:
    """Return labels drawn by a flow on simplices."""
    m = Power(Simplex(chain.classes - 1), chain.length)
    corners = torch.nn.functional.one_hot(data, chain.classes).float()
    points = 0.9 * corners + 0.1 / chain.classes
    flow = rfm.fit(points, m, steps=steps, batch_size=batch, seed=seed, progress=False, device="cpu")
    return flow.sample(draws, generator=torch.Generator().manual_seed(seed)).argmax(-1)


def run(chain: Chain, arguments: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Train the flows and return the rows of the table, and how long each took."""
    data, batch, seed = chain.draw(arguments.data, arguments.seed + 1), arguments.batch, arguments.seed
    rows, seconds = [], []
    for name, source in (("masked", MaskedLabels(chain.classes)), ("uniform", UniformLabels(chain.classes))):
        start = time.perf_counter()
        flow = discrete.fit(data, MixturePath(source), steps=arguments.steps, batch_size=batch, seed=seed, progress=False)
        seconds.append(f"{name} {time.perf_counter() - start:.0f} s")
        _log(f"{name}: {seconds[-1]}, cross-entropy {flow.history[-1]['cross_entropy']:.4f}")
        for steps in arguments.jumps:
            law = flow.law(steps=steps)
            nats = float((chain.law * (chain.law / law).log()).sum())
            rows.append(_row(f"jumps, {name} source", str(steps), chain.distances(law), f"{nats:.4f}"))
    start = time.perf_counter()
    labels: dict[str, Callable[[], Tensor]] = {
        "simplex": lambda: simplex_draws(chain, data, arguments.draws, arguments.steps, batch, seed),
        "the chain itself": lambda: chain.draw(arguments.draws, seed + 2),
    }
    for name, draw in labels.items():
        rows.append(_row(name, "adaptive" if name == "simplex" else "", chain.distances(chain.frequencies(draw())), ""))
        if name == "simplex":
            seconds.append(f"simplex {time.perf_counter() - start:.0f} s with its draws")
    return rows, seconds


def _row(name: str, steps: str, distances: tuple[float, float], nats: str) -> str:
    return f"| {name} | {steps} | {distances[0]:.3f} | {distances[1]:.3f} | {nats} |"


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(argv: list[str] | None = None) -> None:
    """Run all, print the table, and write the page if requested."""
    parser = argparse.ArgumentParser(prog="python -m experiments.discrete", description=__doc__)
    parser.add_argument("--steps", type=int, default=1500, help="optimiser steps of each flow (default: 1500)")
    parser.add_argument("--data", type=int, default=20_000, help="training sequences (default: 20000)")
    parser.add_argument("--draws", type=int, default=20_000, help="of flows that are assessed so (default: 20000)")
    parser.add_argument("--batch", type=int, default=128, help="sequences in a batch (default: 128)")
    parser.add_argument("--jumps", type=int, nargs="+", default=[1, 5, 20, 80], help="steps of a draw")
    parser.add_argument("--classes", type=int, default=4, help="kinds of labels (default: 4)")
    parser.add_argument("--length", type=int, default=5, help="of the sequences (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="of everything (default: 0)")
    parser.add_argument("--quick", action="store_true", help="a small run that shows that all parts work")
    parser.add_argument("--out", type=Path, help="write the page here")
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.steps, arguments.data, arguments.draws, arguments.length = 150, 3000, 2000, 3
        arguments.jumps = [1, 20]
    torch.set_num_threads(1)
    chain = markov_chain(arguments.classes, arguments.length, arguments.seed)
    rows, seconds = run(chain, arguments)
    table = "\n".join([_HEADER, *rows])
    print(table)
    if arguments.out:
        arguments.out.write_text(_page(chain, arguments, table, seconds), encoding="utf-8")


def _page(chain: Chain, arguments: argparse.Namespace, table: str, seconds: list[str]) -> str:
    independent, independent_pairs = chain.distances(chain.independent())
    return _PAGE.format(
        length=chain.length,
        classes=chain.classes,
        states=len(chain.law),
        simplex=chain.classes - 1,
        data=arguments.data,
        steps=arguments.steps,
        batch=arguments.batch,
        draws=arguments.draws,
        out=arguments.out,
        seed=arguments.seed,
        threads=1,
        seconds=", ".join(seconds),
        table=table,
        independent=independent,
        independent_pairs=independent_pairs,
        date=date.today().isoformat(),
        machine=platform.machine(),
        python=platform.python_version(),
        torch=torch.__version__,
    )


if __name__ == "__main__":
    main()
