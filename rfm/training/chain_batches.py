"""Training batches of chains of several lengths.

Chains are sorted into buckets of like length. A batch comes from one bucket and is padded to its longest chain: a few
shapes serve all batches, and padding stays under 15 %. The data stays where it is; a batch gathers the residues it
needs.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from rfm.paths.times import TimeSampler
from rfm.sources import CentredPoseSource
from rfm.training.loop import step_seed

_RATIO = 1.15
"""Between the longest and the shortest chain of a bucket."""
_MOTIF_SHARES = (0.1, 0.5)
"""Of a chain's residues that are held, where any are: the least and the most."""


class ChainBatch(NamedTuple):
    """Padded chains; residues that are not there are unit frames at both ends of time."""

    x_0: Tensor
    """Draws from the source ``(n, longest, 4, 4)``; the data where residues are held."""
    x_1: Tensor
    """Data, turned at random, the mean position of each chain or of its held residues at the origin."""
    t: Tensor
    """Times ``(n,)``."""
    mask: Tensor
    """Which residues are there ``(n, longest)``."""
    held: Tensor
    """Which of them are held ``(n, longest)``."""


class ChainBatches:
    """Draws the training batch of each step from the run's seed and the step's number alone.

    A bucket is drawn, then chains of it at random. Drawn in proportion to its chains, each chain has an equal share in
    the mean loss of the batches; in proportion to its residues (``by_residues``), a share that grows with its length.
    The first leaves the few long chains of a set few steps, with a chain or two in each.

    Args:
        frames: of all residues, ``(total, 4, 4)``, on the device to train on; see `rfm.proteins.chain_sets.Chains`.
        lengths: of the chains ``(chains,)``.
        source: where flows start.
        times: how to draw times, each on its own.
        pairs: about how many pairs of residues a batch holds: the cost of attention.
        largest: the most chains in a batch.
        motif_share: of the chains in a batch, how many have held residues on average.
        by_residues: draw buckets in proportion to their residues, not to their chains.
        seed: of every random draw.
    """

    def __init__(
        self,
        frames: Tensor,
        lengths: Tensor,
        source: CentredPoseSource,
        times: TimeSampler,
        *,
        pairs: int,
        largest: int = 64,
        motif_share: float = 0.0,
        by_residues: bool = False,
        seed: int = 0,
    ) -> None:
        self.frames, self.source, self.times = frames, source, times
        self.pairs, self.largest, self.motif_share, self.seed = pairs, largest, motif_share, seed
        device = frames.device
        self.lengths = lengths.to(device)
        self.offsets = torch.cumsum(self.lengths, 0) - self.lengths
        self.buckets = [bucket.to(device) for bucket in length_buckets(lengths.cpu())]
        self.longest = [int(lengths[bucket.cpu()].max()) for bucket in self.buckets]
        sizes = [int(lengths[bucket.cpu()].sum()) if by_residues else len(bucket) for bucket in self.buckets]
        self.ends = torch.tensor(sizes).cumsum(0)
        self.generator = torch.Generator(device)

    def batch(self, step: int, rank: int = 0, world: int = 1) -> ChainBatch:
        """Return this process's share of a step's batch, every ``world``-th chain from ``rank`` on."""
        generator = self.generator.manual_seed(step_seed(self.seed, step))
        # Which bucket decides shapes, so it is drawn on the CPU, where nothing waits for it.
        draw = torch.randint(
            int(self.ends[-1]), (), generator=torch.Generator().manual_seed(step_seed(self.seed, step))
        )
        number = int(torch.searchsorted(self.ends, draw, right=True))
        bucket, longest = self.buckets[number], self.longest[number]
        size = max(world, min(self.largest, self.pairs // longest**2))
        like: dict[str, Any] = {"generator": generator, "device": bucket.device}
        chosen = bucket[torch.randint(len(bucket), (size,), **like)]
        return ChainBatch(*(part[rank::world] for part in self.noised(chosen, longest, generator)))

    def noised(self, chosen: Tensor, longest: int, generator: torch.Generator) -> ChainBatch:
        """Return chains ``(n,)`` by number with draws of noise, time, turn and held residues."""
        size = len(chosen)
        like: dict[str, Any] = {"generator": generator, "device": chosen.device}
        place = torch.arange(longest, device=chosen.device)
        mask = place < self.lengths[chosen, None]
        unit = torch.eye(4, dtype=self.frames.dtype, device=chosen.device)
        rows = self.offsets[chosen, None] + torch.where(mask, place, 0)
        held = mask & self._motifs(self.lengths[chosen, None], place, like)
        turn = unit.repeat(size, 1, 1, 1)
        turn[..., :3, :3] = self.source.manifold.m.rotations.random_uniform(size, 1, dtype=unit.dtype, **like)
        # A chain is seen from the middle of what is held of it, for no more will be known when one is drawn.
        seen = torch.where(held.any(-1, keepdim=True), held, mask)
        x_1 = _centred(turn @ self.frames[rows], seen)
        noise = self.source.scattered((size, longest), dtype=unit.dtype, **like)
        noise = torch.where(held.any(-1)[:, None, None, None], noise, _centred(noise, mask))
        t = self.times.sample((size,), dtype=unit.dtype, **like)
        there = mask[..., None, None]
        x_1 = torch.where(there, x_1, unit)
        x_0 = torch.where(there & ~held[..., None, None], noise, x_1)
        return ChainBatch(x_0, x_1, t, mask, held)

    def _motifs(self, lengths: Tensor, place: Tensor, like: dict[str, Any]) -> Tensor:
        """Return one or two stretches of residues in some of the chains, ``(n, longest)``."""
        draw = torch.rand(6, len(lengths), 1, **like)
        least, most = _MOTIF_SHARES
        count = (least + (most - least) * draw[0]) * lengths
        # Half of the motifs are one stretch.
        first = torch.where(draw[1] < 0.5, count, draw[2] * count).round()
        second = (count - first).round()
        inside = torch.zeros_like(place * lengths, dtype=torch.bool)
        for size, where in ((first, draw[3]), (second, draw[4])):
            start = (where * (lengths - size)).round()
            inside |= (place >= start) & (place < start + size)
        return inside & (draw[5] < self.motif_share)


def length_buckets(lengths: Tensor) -> list[Tensor]:
    """Return the numbers of the chains by bucket, shortest first; the longest is at most 1.15 times the shortest."""
    order = torch.argsort(lengths, stable=True)
    buckets, start = [], 0
    for i in range(1, len(order) + 1):
        if i == len(order) or int(lengths[order[i]]) > _RATIO * int(lengths[order[start]]):
            buckets.append(order[start:i])
            start = i
    return buckets


def padding(lengths: Tensor) -> float:
    """Return the share of residues that are padding, over batches that draw all chains equally often."""
    padded = sum(len(bucket) * int(lengths[bucket].max()) for bucket in length_buckets(lengths))
    return 1 - int(lengths.sum()) / padded


def _centred(frames: Tensor, seen: Tensor) -> Tensor:
    """Subtract the mean position of the bodies that are seen."""
    weight = seen[..., None].to(frames.dtype)
    mean = (weight * frames[..., :3, 3]).sum(-2, keepdim=True) / weight.sum(-2, keepdim=True)
    return frames - torch.nn.functional.pad(mean[..., None], (3, 0, 0, 1))
