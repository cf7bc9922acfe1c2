"""How good the samples of a run are, beside real chains that were held out.

Each figure is explained in `experiments.proteins.measures`. The real chains are rebuilt from their frames, as samples
are, so that ideal bond lengths and angles flatter neither.
"""

import math
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import rfm
from experiments.proteins import designability, measures
from experiments.proteins.measures import NearestChain, RamachandranKernel
from rfm.plotting import plot_backbone, save_figure
from rfm.proteins import ROTATION_RATE, Chains, atoms_from_frames, frames_from_atoms, sample_backbones
from rfm.records import read_json

STEPS = (10, 25, 50, 100)
SHORT, LONG = 128, 256
HEADER = """\
| chains | CA 3.8 ± 0.1 Å, % | without clash, %: up to 128 residues, up to 256 | without overlap, % | helix, % \
| strand, % | Wasserstein of shares | distance of torsions on T^2 | Ramachandran NLL, nats \
| radius of gyration, off by | TM between samples | TM to the nearest training chain: median, highest | s per chain |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|
| goal | 99 | 90, 75 | | | | below 0.12 | within twice that of real | within 0.2 of real | within 10 % | below 0.5 \
| median below 0.6 | |"""


@dataclass(frozen=True)
class Reference:
    """Real chains to compare with.

    Args:
        held_out: test chains, rebuilt from their frames.
        training: training chains, likewise.
        nearest: finds the most alike of these.
        kernel: of their torsion angles.
    """

    held_out: list[Tensor]
    training: list[Tensor]
    nearest: NearestChain
    kernel: RamachandranKernel

    @classmethod
    def of(cls, chains: Chains, seed: int) -> "Reference":
        """Return the parts of the split that a run of this seed was trained on."""
        split = chains.split(seed)
        training, held_out = ([_rebuilt(chains.chain(i)) for i in rows.tolist()] for rows in (split.train, split.test))
        names = [chains.names[i] for i in split.train.tolist()]
        return cls(held_out, training, NearestChain(training, names), RamachandranKernel(training))

    def every_second(self, first: int) -> list[Tensor]:
        """Return half of the held-out chains, by length."""
        return sorted(self.held_out, key=len)[first::2]

    def evenly(self, count: int) -> list[Tensor]:
        """Return so many held-out chains of the first half, evenly spaced by length."""
        half = self.every_second(0)
        return [half[int(i)] for i in np.linspace(0, len(half) - 1, min(count, len(half))).round()]

    def lengths(self, count: int, aside: bool = False) -> list[int]:
        """Return lengths of held-out chains, at evenly spaced ranks.

        Args:
            count: how many.
            aside: of the third that is set aside for final figures; otherwise of the others, for choices.
        """
        every = sorted({len(a) for a in self.held_out})
        set_aside = set(every[1::3])
        own = sorted(len(a) for a in self.held_out if (len(a) in set_aside) == aside)
        if not own:
            raise ValueError(
                f"chains of {len(every)} lengths are held out, too few to set any aside; leave out --final"
            )
        return [own[int(i)] for i in np.linspace(0, len(own) - 1, count).round()]


def row(
    name: str, chains: Sequence[Tensor], real: Sequence[Tensor], reference: Reference, pairs: int, seconds: float | None
) -> str:
    """Return one line of the table; ``real`` are the chains whose shares of structure are those to have."""
    shares = measures.structure_shares(chains)
    apart = measures.wasserstein_of_shares(shares, measures.structure_shares(real))
    radius = measures.gyration_deviation(chains, reference.training)
    helix, strand = 100 * shares.mean(0)
    return (
        f"| {name} | {100 * measures.share_of_ca_distances(chains):.1f} | {_without_clash(chains)} | "
        f"{100 * measures.share_without_overlap(chains):.0f} | {helix:.1f} | {strand:.1f} | {apart:.3f} | "
        f"{measures.torsion_distance(chains, real).mean:.3f} | "
        f"{reference.kernel.nll(chains):.2f} | {100 * radius:+.1f} % | "
        f"{measures.diversity(chains, pairs):.2f} | {_nearest(chains, reference, pairs)} | "
        f"{'' if seconds is None else f'{seconds:.1f}'} |"
    )


def _without_clash(chains: Sequence[Tensor]) -> str:
    """Return the percentages of short chains, and of longer ones, without a clash, where there are any."""
    groups = [[a for a in chains if len(a) <= SHORT], [a for a in chains if SHORT < len(a) <= LONG]]
    return ", ".join(f"{100 * measures.share_without_clash(g):.0f}" if g else "-" for g in groups)


def _nearest(chains: Sequence[Tensor], reference: Reference, pairs: int) -> str:
    """Return the TM-scores to the nearest training chain: of chains that are compact and do not overlap."""
    counted = measures.compact_and_clear(chains, reference.training)[: max(1, pairs // 4)]
    if not counted:
        return "none is compact and clear"
    found = [reference.nearest(a) for a in counted]
    highest, whose = max(found)
    return f"{np.median([score for score, _ in found]):.2f}, {highest:.2f} ({whose}), of {len(counted)}"


def real_row(reference: Reference, count: int, pairs: int) -> str:
    """Return the line of as many real held-out chains, evenly spaced in length, beside the other half of them."""
    some = reference.evenly(count)
    return row(f"{len(some)} real, held out", some, reference.every_second(1), reference, pairs, None)


def report(
    run: Path,
    chains: Chains,
    *,
    lengths: int = 8,
    each: int = 4,
    steps: Sequence[int] = STEPS,
    pairs: int = 120,
    rotation_rate: float = ROTATION_RATE,
    close: bool = True,
    clear: bool = True,
    aside: bool = False,
    seed: int = 0,
    figures: Path | None = None,
    note: Callable[[str], Any] = lambda message: None,
) -> Iterator[str]:
    """Yield the lines of a Markdown report on a run.

    Args:
        run: the folder of a finished run.
        chains: the data that it was trained on.
        lengths: how many lengths of held-out chains are sampled.
        each: how many samples of each length.
        steps: numbers of network evaluations.
        pairs: how many pairs of samples diversity is taken from; a quarter as many samples have their nearest training
            chain looked for.
        rotation_rate: of the sampler's rotation schedule.
        close: close the bonds, as ``rfm sample`` does.
        clear: move residues apart that overlap, likewise.
        aside: draw chains of the lengths that are set aside, which no choice was made with.
        seed: of the samples.
        figures: folder for pictures of one sample of each length, at the last number of steps; none when None.
        note: receives messages on what is being done.
    """
    flow = rfm.Flow.load(run).to("cuda" if torch.cuda.is_available() else "cpu")
    record = read_json(run / "proteins.json")
    if record.get("sha256") != chains.sha256 or record.get("chains") != len(chains):
        raise ValueError(
            f"{run} was trained on {record.get('data')}, not on {chains.source}\ngive --data as in training"
        )
    reference = Reference.of(chains, int(record["settings"]["seed"]))
    selected_lengths = reference.lengths(lengths, aside)
    yield from _intro(flow, record, run, rotation_rate, close, clear)
    yield f"- lengths {'set aside' if aside else 'for choices'}: {', '.join(map(str, selected_lengths))}"
    yield ""
    yield HEADER
    note("real chains")
    yield real_row(reference, lengths * each, pairs)
    assessed = {"real, held out": reference.evenly(lengths * each)}
    drawn: list[Tensor] = []
    for count in steps:
        note(f"{count} steps")
        started = time.process_time()
        drawn = [a for n in selected_lengths for a in _drawn(flow, n, each, count, rotation_rate, close, clear, seed)]
        seconds = (time.process_time() - started) / len(drawn)
        name = f"{len(drawn)} samples, {count} steps"
        yield row(name, drawn, reference.every_second(1), reference, pairs, seconds)
        assessed[name] = drawn
    yield ""
    yield designability.HEADER
    note("fragments")
    fragments = designability.Fragments.of(reference.training)
    for name, chains_of_it in assessed.items():
        yield designability.row(name, chains_of_it, fragments)
    if figures is not None:
        angles = measures.dihedrals(reference.held_out[:40])
        for i, residues in enumerate(selected_lengths):
            title = f"A sample of {residues} residues, {steps[-1]} steps"
            save_figure(plot_backbone(drawn[i * each], title, angles), figures / f"sample-{residues}.png")
        chain = reference.every_second(0)[len(reference.held_out) // 4]
        save_figure(plot_backbone(chain, f"A real chain of {len(chain)} residues", angles), figures / "real.png")


def _intro(flow: rfm.Flow, record: dict[str, Any], run: Path, rate: float, close: bool, clear: bool) -> Iterator[str]:
    last = flow.history[-1]
    count = sum(p.numel() for p in flow.parameters())
    yield f"- run: {run}; {record['chains']} chains, {record['data']}; settings {record['settings']}"
    yield (
        f"- {count:,} parameters; {last['step']} steps in {last['seconds'] / 60:.0f} minutes, "
        f"{last.get('cpu_seconds', math.nan) / 60:.0f} of a core; {flow.stopped}; best "
        f"validation loss {min(r['validation_loss'] for r in flow.history):.3f}"
    )
    yield (
        f"- date: {date.today()}; drawn on {next(flow.parameters()).device}, {platform.machine()}, "
        f"{torch.get_num_threads()} threads; torch {torch.__version__}"
    )
    yield (
        f"- samples with self-conditioning and the exponential rotation schedule of rate {rate:g}; bonds "
        f"{'closed' if close else 'left open'}, overlaps {'cleared' if close and clear else 'left'}"
    )


def _drawn(
    flow: rfm.Flow, residues: int, each: int, steps: int, rate: float, close: bool, clear: bool, seed: int
) -> list[Tensor]:
    generator = torch.Generator(next(flow.parameters()).device).manual_seed(seed)
    frames = sample_backbones(
        flow,
        residues,
        each,
        steps=steps,
        rotation_rate=rate,
        close=close,
        clear=clear,
        generator=generator,
        progress=True,
    )
    return list(atoms_from_frames(frames).cpu())


def _rebuilt(atoms: Tensor) -> Tensor:
    return atoms_from_frames(frames_from_atoms(atoms))
