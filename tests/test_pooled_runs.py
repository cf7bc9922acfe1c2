"""Runs put together by their evidence, and what draws of equal weight are worth, against brute force."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import rfm
from manifolds import Euclidean, FlatTorus
from rfm.flow import Refinement
from rfm.integrators import EULER, FixedStep
from rfm.posterior import Importance, Measurement, PosteriorDraws, Tempering, inside
from rfm.posterior.draws import effective_size
from rfm.posterior.pooling import at_points, drawn_until, equally_weighted, pooled
from rfm.sources import Uniform, WrappedNormal

LINE = Euclidean(1)
STILL = FixedStep(EULER, steps=1)


def weighted(points: Tensor, log_w: Tensor, evidence: float = 0.0, worth: float | None = None) -> PosteriorDraws:
    log_w = log_w - log_w.logsumexp(0)
    return PosteriorDraws(points, log_w, "test", 1, worth or effective_size(log_w), log_evidence=evidence)


@pytest.mark.parametrize("n", [50, 400, 3000])
@pytest.mark.parametrize("uneven", [0.0, 1.5])
def test_worth_is_the_variance_of_means_of_independent_draws_over_theirs(n: int, uneven: float) -> None:
    # Importance sampling of a normal density by itself: weights independent of the points, known truth.
    generator, means, worths = torch.Generator().manual_seed(0), [], []
    for _ in range(300):
        x = torch.randn(600, 1, generator=generator, dtype=torch.float64)
        log_w = uneven * torch.randn(600, generator=generator, dtype=torch.float64)
        drawn = equally_weighted(weighted(x, log_w), n, generator)
        means.append(float(drawn.points.mean()))
        worths.append(drawn.effective_sample_size)
    found = 1 / torch.tensor(means).square().mean()
    assert float(found) == pytest.approx(sum(worths) / len(worths), rel=0.3)


def test_runs_weigh_as_their_evidence() -> None:
    points = torch.arange(6.0)[:, None]
    runs = [
        weighted(points[:2], torch.zeros(2).double(), 0.0),
        weighted(points[2:], torch.zeros(4).double(), math.log(3)),
    ]
    both = pooled(runs)
    assert both.weights.tolist() == pytest.approx([1 / 8] * 2 + [3 / 16] * 4)
    assert both.log_evidence == pytest.approx(math.log(2))
    assert both.effective_sample_size == pytest.approx(effective_size(both.log_weights))
    # Parts of a mixture: shares of a third and two thirds.
    parts = pooled(runs, [math.log(1 / 3), math.log(2 / 3)])
    assert parts.weights.tolist() == pytest.approx([1 / 14] * 2 + [3 / 14] * 4)
    assert parts.log_evidence == pytest.approx(math.log(7 / 3))
    unknown = [weighted(points, torch.zeros(6).double(), math.nan)] * 2
    assert pooled(unknown).weights.tolist() == pytest.approx([1 / 12] * 12)
    with pytest.raises(ValueError, match="weighted by their evidence"):
        pooled(unknown, [0.0, 0.0])


def test_runs_of_which_some_were_not_moved_keep_what_the_others_say() -> None:
    run = weighted(torch.zeros(2, 1), torch.zeros(2).double())
    moved = [
        replace(run, diagnostics={"founders": count, "powers": powers}) for count, powers in ((30.0, 2.0), (9.0, 4.0))
    ]
    for runs in ([run, *moved], [moved[0], run, moved[1]]):
        assert pooled(runs).diagnostics == {"founders": 39.0, "powers": 4.0}
    assert pooled([run, run]).diagnostics == {}


def test_a_run_is_repeated_until_its_draws_are_worth_enough() -> None:
    generator, calls = torch.Generator().manual_seed(0), []

    def run() -> PosteriorDraws:
        calls.append(1)
        return weighted(torch.randn(100, 1, generator=generator), torch.zeros(100).double(), 0.0, 40.0)

    drawn = drawn_until(run, 100, 0.75, 20, generator)
    # As 1 / worth = 1 / 100 - 1 / N + 1 / W with 100 and 40 of each run.
    assert len(calls) == 5
    assert drawn.effective_sample_size == pytest.approx(1 / (0.01 - 0.002 + 0.005))
    assert not drawn.warnings
    short = drawn_until(run, 100, 0.75, 2, generator)
    assert "fewer than the 75 requested, after 2 runs" in short.warnings[0]
    assert "\n" not in short.warnings[0]


def test_reweighted_draws_are_worth_less() -> None:
    log_w = torch.zeros(4).double()
    draws = weighted(torch.arange(4.0)[:, None], log_w, 0.5)
    moved = at_points(draws, draws.points + 1, torch.tensor([0.0, 0.0, -math.inf, -math.inf]))
    assert moved.effective_sample_size == pytest.approx(2)
    assert moved.log_evidence == pytest.approx(0.5 + math.log(0.5))
    assert moved.points[0] == 1


def test_particles_that_are_moved_more_are_worth_more() -> None:
    flow = rfm.Flow(LINE, lambda x, t: torch.zeros_like(x), WrappedNormal(LINE, torch.zeros(1), 1.0))
    near = Measurement(lambda x: x[..., 0], 2.0, 0.2)
    worths = list[float]()
    for moves in (2, 20):
        generator = torch.Generator().manual_seed(0)
        method = Tempering(particles=200, moves=moves)
        drawn = flow.posterior(near, 400, method=method, repeats=1, solver=STILL, generator=generator)
        error = 0.2 / math.sqrt(drawn.effective_sample_size)
        assert float(drawn.points.mean()) == pytest.approx(2 / 1.04, abs=4.5 * error)
        worths.append(drawn.effective_sample_size)
        evidence = -(2**2) / 2 / 1.04 - math.log(2 * math.pi * 1.04) / 2
        assert drawn.log_evidence == pytest.approx(evidence, abs=0.2)
    assert worths[1] > 1.5 * worths[0]


@pytest.mark.parametrize("method", [Tempering(moves=4), Importance(4000)], ids=["tempering", "weights"])
def test_a_source_that_the_likelihood_rules_out_has_no_part(method: Tempering | Importance) -> None:
    circle = FlatTorus(1)
    narrow = rfm.sources.WrappedNormal(circle, torch.tensor([2.0]), 0.05)
    parts = Refinement([1.0, 0.0], [narrow, Uniform(circle)], [0.5, 0.5])
    flow = rfm.Flow(circle, lambda x, t: torch.zeros_like(x), refinement=parts)
    west = inside(lambda x: x[..., 0] < 0)
    drawn = flow.posterior(west, 500, method=method, solver=STILL, generator=torch.Generator().manual_seed(0))
    assert bool((drawn.points < 0).all())
    assert drawn.log_evidence == pytest.approx(math.log(0.25), abs=0.1)
    with pytest.raises(ValueError, match="zero at all"):
        flow.posterior(inside(lambda x: x[..., 0] > 4), 10, method=method, solver=STILL)
