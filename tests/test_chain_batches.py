"""Batches of chains of several lengths: what they hold, and that they depend on the step alone."""

import pytest
import torch
from torch import Tensor

from manifolds import SE3, CentredPoses
from rfm.paths.times import UniformTimes
from rfm.sources import CentredPoseSource
from rfm.training.chain_batches import ChainBatches, length_buckets, padding

LENGTHS = torch.tensor([40, 41, 44, 60, 61, 45, 40, 90])


def batches(motif_share: float = 0.0, pairs: int = 12_000, by_residues: bool = False) -> ChainBatches:
    source = CentredPoseSource(CentredPoses(10, 10.0))
    frames = source.scattered((int(LENGTHS.sum()),), torch.Generator().manual_seed(0))
    # Each chain has an x of its own, and unlike positions along it.
    chain = torch.repeat_interleave(torch.arange(len(LENGTHS)), LENGTHS)
    frames[:, 0, 3] += 1000.0 * chain
    own = {"pairs": pairs, "motif_share": motif_share, "by_residues": by_residues}
    return ChainBatches(frames, LENGTHS, source, UniformTimes(), **own, seed=3)  # type: ignore[arg-type]


def test_buckets_hold_each_chain_once_and_pad_little() -> None:
    lengths = torch.randint(40, 257, (500,), generator=torch.Generator().manual_seed(0))
    found = length_buckets(lengths)
    assert sorted(torch.cat(found).tolist()) == list(range(500))
    assert all(int(lengths[b].max()) <= 1.15 * int(lengths[b].min()) for b in found)
    assert padding(lengths) < 0.15
    assert [b.tolist() for b in length_buckets(LENGTHS)] == [[0, 6, 1, 2, 5], [3, 4], [7]]


def test_a_step_decides_its_batch_and_processes_share_it() -> None:
    one, other = batches(0.5), batches(0.5)
    other.batch(7)
    whole = one.batch(2)
    assert all(torch.equal(a, b) for a, b in zip(whole, other.batch(2), strict=True))
    parts = [one.batch(2, rank, 2) for rank in range(2)]
    assert torch.equal(whole.x_0[1::2], parts[1].x_0)
    assert len(parts[0].t) + len(parts[1].t) == len(whole.t)
    assert not torch.equal(whole.t[:1], one.batch(3).t[:1])


def test_chains_are_turned_centred_and_padded_with_unit_frames() -> None:
    for step in range(4):
        batch = batches().batch(step)
        SE3().check_point(batch.x_1, tol=1e-4)
        assert not bool(batch.held.any())
        for x in (batch.x_0, batch.x_1):
            mean = (batch.mask[..., None] * x[..., :3, 3]).sum(1) / batch.mask.sum(1, keepdim=True)
            assert float(mean.abs().max()) < 1e-2
            assert torch.equal(x[~batch.mask], torch.eye(4).expand(int((~batch.mask).sum()), 4, 4))


def _distances(x: Tensor) -> Tensor:
    return torch.cdist(x[:, :3, 3], x[:, :3, 3])


def test_what_is_held_is_the_data_at_both_ends() -> None:
    seen = 0
    for step in range(6):
        batch = batches(1.0).batch(step)
        held = batch.held
        assert torch.equal(batch.x_0[held], batch.x_1[held])
        share = held.sum(1) / batch.mask.sum(1)
        assert bool(((share > 0.04) & (share < 0.56)).all())
        assert bool((batch.mask | ~held).all())
        middle = (held[..., None] * batch.x_1[..., :3, 3]).sum(1) / held.sum(1, keepdim=True)
        assert float(middle.abs().max()) < 1e-2
        # The rest is noise, about the middle of what is held.
        noise = batch.x_0[batch.mask & ~held][:, :3, 3]
        assert float(noise.std()) == pytest.approx(10.0, rel=0.2)
        seen += len(share)
    assert seen > 6


def test_every_chain_is_drawn_equally_often() -> None:
    """Of a bucket with few places in its batches too."""
    drawn = torch.zeros(len(LENGTHS))
    own = batches(pairs=9000)
    steps = 400
    for step in range(steps):
        batch = own.batch(step)
        # The chain is told by its length and nothing else: lengths that two chains share are counted together.
        for length in batch.mask.sum(1).tolist():
            drawn[length == LENGTHS] += 1 / len(batch.t) / int((length == LENGTHS).sum())
    assert torch.allclose(drawn / steps, torch.full((8,), 1 / 8), atol=0.06)


def test_by_residues_a_bucket_is_drawn_in_proportion_to_them() -> None:
    steps, own = 600, batches(pairs=9000, by_residues=True)
    share = torch.zeros(len(own.buckets))
    for step in range(steps):
        share[own.longest.index(own.batch(step).mask.shape[1])] += 1 / steps
    residues = torch.tensor([float(LENGTHS[bucket].sum()) for bucket in own.buckets])
    assert torch.allclose(share, residues / residues.sum(), atol=0.06)
