"""Splits: disjoint, complete, repeatable, of the stated sizes; equal places stay together where that is promised."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rfm.datasets import Split, deduplicated_split, group_split, raw_split

PLACES = st.lists(st.integers(0, 40), min_size=10, max_size=200).filter(lambda places: len(set(places)) >= 10)
SEEDS = st.integers(0, 2**31)
QUICK = settings(deadline=None, max_examples=60)


def points_of(places: list[int]) -> torch.Tensor:
    """Points whose ascending order is not that of the places' numbers."""
    place = torch.tensor(places, dtype=torch.float64)
    return torch.stack([(7 * place) % 41, place, -place], dim=1)


def sizes(split: Split) -> tuple[int, ...]:
    return tuple(len(part) for part in split)


@QUICK
@given(st.integers(10, 500), SEEDS)
def test_raw_split_is_the_protocol(n: int, seed: int) -> None:
    split = raw_split(n, seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(torch.cat(split), order)
    assert sizes(split) == (n - 2 * (n // 10), n // 10, n // 10)


@QUICK
@given(PLACES, SEEDS)
def test_groups_are_split_whole(places: list[int], seed: int) -> None:
    split = group_split(points_of(places), seed)
    assert sorted(torch.cat(split).tolist()) == list(range(len(places)))
    parts = [{places[i] for i in part.tolist()} for part in split]
    assert all(parts)
    assert len(set.union(*parts)) == sum(map(len, parts))


@QUICK
@given(PLACES, SEEDS)
def test_group_cuts_are_the_nearest(places: list[int], seed: int) -> None:
    split, n = group_split(points_of(places), seed), len(places)
    laid_out = [places[i] for i in torch.cat(split).tolist()]
    boundaries = [i for i in range(1, n) if laid_out[i] != laid_out[i - 1]]
    second = min(boundaries[1:], key=lambda i: abs(i - (n - n // 10)))
    first = min((i for i in boundaries if i < second), key=lambda i: abs(i - (n - 2 * (n // 10))))
    assert sizes(split) == (first, second - first, n - second)


@QUICK
@given(st.lists(st.integers(0, 12), min_size=4, max_size=60).filter(lambda p: len(set(p)) >= 4), SEEDS)
@pytest.mark.parametrize("test", [0.0, 0.001, 0.25, 0.5])
def test_groups_are_split_whole_for_any_share(test: float, places: list[int], seed: int) -> None:
    split = group_split(points_of(places), seed, test=test)
    assert sorted(torch.cat(split).tolist()) == list(range(len(places)))
    train, validation, held = ({places[i] for i in part.tolist()} for part in split)
    assert train
    assert validation
    assert bool(held) == (test > 0)
    assert len(train | validation | held) == len(train) + len(validation) + len(held)


def test_shares_are_of_the_rows() -> None:
    assert sizes(group_split(torch.arange(200.0), 0, validation=0.05, test=0.3)) == (130, 10, 60)
    assert sizes(group_split(torch.arange(200.0), 0, test=0)) == (180, 20, 0)


@pytest.mark.parametrize("shares", [{"validation": 0.0}, {"test": -0.1}, {"test": 0.9}, {"test": float("nan")}])
def test_bad_shares(shares: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="validation must be a share above 0 and test one of at least 0"):
        group_split(torch.arange(20.0), 0, **shares)


@QUICK
@given(st.integers(10, 200), SEEDS)
def test_without_equal_rows_all_splits_are_the_raw_one(n: int, seed: int) -> None:
    x = torch.arange(n, dtype=torch.float64)[:, None] * torch.tensor([1.0, -1.0])
    for split in (group_split(x, seed), deduplicated_split(x, seed), deduplicated_split(x, seed, sort_rows=True)):
        assert all(torch.equal(a, b) for a, b in zip(split, raw_split(n, seed), strict=True))


@QUICK
@given(PLACES, SEEDS)
def test_deduplication_keeps_first_rows(places: list[int], seed: int) -> None:
    split = deduplicated_split(points_of(places), seed)
    first = [i for i, place in enumerate(places) if place not in places[:i]]
    expected = raw_split(len(first), seed)
    assert [part.tolist() for part in split] == [[first[i] for i in part.tolist()] for part in expected]


@QUICK
@given(PLACES, SEEDS)
def test_sorted_deduplication_is_numpy_unique(places: list[int], seed: int) -> None:
    x = points_of(places)
    split = deduplicated_split(x, seed, sort_rows=True)
    unique = np.unique(x.numpy(), axis=0)
    for part, expected in zip(split, raw_split(len(unique), seed), strict=True):
        np.testing.assert_array_equal(x[part].numpy(), unique[expected.numpy()])
        assert all(places[i] not in places[:i] for i in part.tolist())


def test_global_random_state_is_left_alone() -> None:
    state = torch.get_rng_state()
    raw_split(100, 0)
    group_split(torch.arange(100.0), 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_signs_of_zero_are_one_place() -> None:
    x = torch.cat([torch.tensor([0.0, -0.0]), torch.arange(1.0, 10.0)])
    assert 1 not in torch.cat(deduplicated_split(x, 0)).tolist()
    for seed in range(20):
        part = [i for i, rows in enumerate(group_split(x, seed)) for row in rows.tolist() if row < 2]
        assert part[0] == part[1]


def test_one_big_group_leaves_something_to_each_part() -> None:
    x = torch.cat([torch.zeros(1000), torch.arange(1.0, 10.0)])
    for seed in range(20):
        assert min(sizes(group_split(x, seed))) >= 1


def test_too_few_rows() -> None:
    with pytest.raises(ValueError, match="at least 10 rows, got 9"):
        raw_split(9, 0)
    for split, words in (
        (group_split, "at least 4 different points"),
        (deduplicated_split, "at least 10 different rows"),
    ):
        with pytest.raises(ValueError, match=f"{words}, got 1"):
            split(torch.zeros(50, 3), 0)
        with pytest.raises(ValueError, match="n at least 1"):
            split(torch.zeros(0, 3), 0)
