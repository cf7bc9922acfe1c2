"""The motif of a backbone: its prior against the exact field of the library, its truth against weights and formulas."""

import functools
import math

import pytest
import torch
from torch import Tensor

import rfm
from experiments.inverse.motif import (
    CHAIN,
    END,
    MOTIF,
    POSE,
    POSITION,
    SPREAD,
    Conformations,
    conformations,
    of_conformations,
)
from experiments.inverse.problems import SOLVER, Problem
from rfm.posterior import Measurement
from rfm.posterior.operators import displacement


def near(count: int, seed: int) -> Tensor:
    """Return chains about the origin ``(count, RESIDUES, 4, 4)``, the first of which is there."""
    x = Conformations(torch.zeros(0)).source.sample((count,), torch.Generator().manual_seed(seed), torch.float64)
    x[0] = torch.eye(4)
    return x


@functools.cache
def problem() -> Problem:
    """Return the problem of three chains, of which the last has another motif."""
    chains = near(3, 0)
    chains[1, MOTIF] = torch.eye(4, dtype=torch.float64)
    chains[1, MOTIF[1], 0, 3] = 0.8
    return of_conformations(chains, 3000)


def passed(chains: Tensor, t: float, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Return points on paths to the chains, and times."""
    rows = torch.arange(3 * len(chains)) % len(chains)
    start = Conformations(chains).source.sample((len(rows),), torch.Generator().manual_seed(seed), torch.float64)
    times = torch.full((len(rows),), t, dtype=torch.float64)
    return CHAIN.geodesic(start, chains[rows], END * times)[0], times


@pytest.mark.parametrize("t", [0.0, 0.4, 0.95])
def test_velocity_density_and_score_are_those_of_the_marginal_velocity(t: float) -> None:
    chains = near(4, 0)
    prior = Conformations(chains)
    expected = rfm.marginal_velocity(rfm.GeodesicPath(CHAIN), chains, prior.source)
    x, times = passed(chains, t)
    u = prior.velocity(x, times)
    torch.testing.assert_close(u, END * expected(x, END * times), atol=1e-8, rtol=1e-8)
    gap = prior.paths(x, times)[0].logsumexp(-1) - expected.log_prob(x, END * times)
    torch.testing.assert_close(gap, gap[:1].expand_as(gap), atol=1e-7, rtol=0)
    own, other = prior.score(x[:4], times[:4], u), expected.score(x[:4], END * times[:4])
    torch.testing.assert_close(own, other, atol=1e-6, rtol=1e-6)


def test_the_truth_is_that_of_the_flow_weighted_by_the_likelihood() -> None:
    known, generator = problem(), torch.Generator().manual_seed(0)
    assert known.modes is not None
    nearest, weights = known.modes
    x = known.flow.sample(1000, generator=generator, solver=SOLVER)
    shares = torch.softmax(known.measurement(x).double(), 0)
    worth = float(1 / shares.square().sum())
    assert worth > 100
    held = torch.zeros(3, dtype=torch.float64).index_add_(0, nearest(x), shares)
    assert (held - weights).abs().max() < 3.5 * math.sqrt(0.25 / worth)
    exact = known.exact(1000, generator)
    CHAIN.check_point(exact, tol=1e-4)
    assert torch.bincount(nearest(exact), minlength=3).double().div(1000).tolist() == pytest.approx(
        weights.tolist(), abs=0.05
    )
    own, other = (CHAIN.embed(z).double() for z in (x, exact))
    mean = shares @ own
    spread = (shares @ (own - mean).square()).sqrt()
    assert ((other.mean(0) - mean).abs() < 4.5 * spread * math.sqrt(1 / worth + 1 / 1000) + 1e-3).all()


def test_positions_of_measured_frames_are_normal_with_the_product_of_both_precisions() -> None:
    own = problem()
    x = own.exact(2000, torch.Generator().manual_seed(0)).double()
    assert own.modes is not None
    first = x[own.modes[0](x.float()) == 0][:, MOTIF[0], :3, 3]
    width = (1 - END) * SPREAD
    variance = 1 / (1 / width**2 + 1 / POSITION**2)
    assert first.std(0).tolist() == pytest.approx([math.sqrt(variance)] * 3, rel=0.08)
    assert first.mean(0).abs().max() < 4 * math.sqrt(variance / 400)


def test_frames_are_measured_one_by_one_and_together_alike() -> None:
    own, x = problem(), near(6, 3).float()
    noise = own.measurement.noise[:6]
    alone = Measurement(displacement(POSE, torch.eye(4)), torch.zeros(6), noise)
    torch.testing.assert_close(own.measurement(x), alone(x[:, list(MOTIF)]).sum(-1))


def test_conformations_share_the_motif_of_the_reference_or_clearly_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.inverse.motif.REFERENCE", 0)
    found = near(4000, 5)
    # Chains that differ little in the motif, and in the rest.
    found[1:200, list(MOTIF)] = CHAIN.m.expmap(
        torch.eye(4, dtype=torch.float64), 0.05 * CHAIN.m.logmap(torch.eye(4).double(), found[1:200, list(MOTIF)])
    )
    chosen = conformations(found)
    assert chosen.shape == (8, 10, 4, 4)
    apart = POSE.dist(chosen[:, list(MOTIF)], torch.eye(4, dtype=torch.float64)).amax(-1)
    assert apart[:4].max() < apart[4:].min()
    assert POSE.rotations.dist(chosen[..., :3, :3], torch.eye(3, dtype=torch.float64)).max() < 1.2
    assert torch.stack([CHAIN.dist(chosen, own) for own in chosen]).fill_diagonal_(9).min() > 1
