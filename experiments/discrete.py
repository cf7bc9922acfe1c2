"""Discrete flow matching on a Markov chain, beside a flow on simplices: ``python -m experiments.discrete``.

Sequences of a chain whose law is known: every sequence has a probability, so that the law of what a discrete flow draws
is compared with it exactly, without draws. A flow on a power of simplices, which sees labels as corners, is assessed by
draws, and so are draws of the chain itself, which show what that comparison can tell apart.
"""

import argparse
import platform
import sys
import time
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

- command: `python -m experiments.discrete --steps {steps} --draws {draws} --seeds {seeds} --out {out}`
- date: {date}; {machine} CPU, {threads} thread; Python {python}, torch {torch}; float32; one chain, {seeds} seeds of
  training sequences, networks and draws
- {steps:,} optimiser steps of batches of {batch} for each; seconds of the processor, means over the seeds: {seconds}
- figures are means over the seeds, with the least and the largest
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


class Row(NamedTuple):
    """What a way to draw is measured by, with one seed."""

    name: str
    steps: str
    variation: float
    pairs: float
    nats: float | None = None


def run(chain: Chain, arguments: argparse.Namespace, seed: int, seconds: dict[str, list[float]]) -> list[Row]:
    """Train the flows with one seed and return their rows; note how long each took."""
    data, batch = chain.draw(arguments.data, seed + 1), arguments.batch
    rows = []
    for name, source in (("masked", MaskedLabels(chain.classes)), ("uniform", UniformLabels(chain.classes))):
        start = time.process_time()
        flow = discrete.fit(
            data, MixturePath(source), steps=arguments.steps, batch_size=batch, seed=seed, progress=False, device="cpu"
        )
        seconds.setdefault(name, []).append(time.process_time() - start)
        _log(f"seed {seed}, {name}: {seconds[name][-1]:.0f} s, cross-entropy {flow.history[-1]['cross_entropy']:.4f}")
        for steps in arguments.jumps:
            law = flow.law(steps=steps)
            nats = float((chain.law * (chain.law / law).log()).sum())
            rows.append(Row(f"jumps, {name} source", str(steps), *chain.distances(law), nats))
    start = time.process_time()
    drawn = simplex_draws(chain, data, arguments.draws, arguments.steps, batch, seed)
    seconds.setdefault("simplex with its draws", []).append(time.process_time() - start)
    _log(f"seed {seed}, simplex: {time.process_time() - start:.0f} s")
    rows.append(Row("simplex", "adaptive", *chain.distances(chain.frequencies(drawn))))
    itself = chain.draw(arguments.draws, seed + 1000)
    return [*rows, Row("the chain itself", "", *chain.distances(chain.frequencies(itself)))]


def table_of(runs: list[list[Row]]) -> str:
    """Return the table of several seeds' rows."""
    lines = []
    for same in zip(*runs, strict=True):
        columns = [[row.variation for row in same], [row.pairs for row in same]]
        nats = [row.nats for row in same if row.nats is not None]
        cells = [_cell(values, 3) for values in columns] + [_cell(nats, 4) if nats else ""]
        lines.append(f"| {same[0].name} | {same[0].steps} | {' | '.join(cells)} |")
    return "\n".join([_HEADER, *lines])


def _cell(values: list[float], digits: int) -> str:
    mean = f"{sum(values) / len(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"


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
    parser.add_argument("--seeds", type=int, default=1, help="how many, from 0 on (default: 1)")
    parser.add_argument("--chain", type=int, default=0, help="seed of the chain (default: 0)")
    parser.add_argument("--quick", action="store_true", help="a small run that shows that all parts work")
    parser.add_argument("--out", type=Path, help="write the page here")
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.steps, arguments.data, arguments.draws, arguments.length = 150, 3000, 2000, 3
        arguments.jumps = [1, 20]
    torch.set_num_threads(1)
    chain = markov_chain(arguments.classes, arguments.length, arguments.chain)
    seconds: dict[str, list[float]] = {}
    runs = []
    for seed in range(arguments.seeds):
        runs.append(run(chain, arguments, seed, seconds))
        table = table_of(runs)
        if arguments.out:
            arguments.out.write_text(_page(chain, arguments, len(runs), table, seconds), encoding="utf-8")
    print(table)


def _page(chain: Chain, arguments: argparse.Namespace, seeds: int, table: str, seconds: dict[str, list[float]]) -> str:
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
        seeds=seeds,
        threads=1,
        seconds=", ".join(f"{name} {sum(values) / len(values):.0f}" for name, values in seconds.items()),
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
