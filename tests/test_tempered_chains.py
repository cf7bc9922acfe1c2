"""Moves that leave the source as it is, and chains that exchange states along powers of the likelihood."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import rfm
from manifolds import SE3, SO3, Euclidean, FlatTorus, Hyperboloid, Power, Product, Sphere
from rfm.integrators import EULER, FixedStep
from rfm.posterior import Chains, CrankNicolson, Measurement, SourceTarget, Tempering, inside
from rfm.posterior.crank_nicolson import refreshing
from rfm.posterior.ladder import Ladder
from rfm.posterior.likelihood import as_likelihood
from rfm.posterior.proposals import RandomWalk
from rfm.posterior.target import Carried, State
from rfm.sources import PowerSource, ProductSource, RigidMotionSource, Source, Uniform, VonMisesFisher, WrappedNormal

LINE = Euclidean(1)
PAIR = Product(Sphere(2), LINE, weights=[1.0, 4.0])
SOURCES: list[Source] = [
    Uniform(Sphere(2)),
    Uniform(SO3()),
    Uniform(FlatTorus(2)),
    WrappedNormal(Euclidean(2), torch.tensor([1.0, -1.0]), 2.0),
    WrappedNormal(Hyperboloid(2), torch.tensor([1.0, 0.0, 0.0]), 0.7),
    ProductSource(PAIR, [Uniform(Sphere(2)), WrappedNormal(LINE, torch.zeros(1), 0.5)]),
    PowerSource(Power(SO3(), 2), Uniform(SO3())),
    RigidMotionSource(SE3(), Uniform(SO3()), 1.5, torch.tensor([1.0, 2.0, 3.0])),
]


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: f"{type(s).__name__} {s.manifold}")
@pytest.mark.parametrize("share", [0.2, 0.9])
def test_moves_are_reversible_with_respect_to_the_source(source: Source, share: float) -> None:
    generator, n = torch.Generator().manual_seed(0), 8000
    z = source.sample((n,), generator=generator, dtype=torch.float64)
    move = refreshing(source)
    assert move is not None
    moved = move(z, torch.full((n,), share, dtype=torch.float64), generator)
    source.manifold.check_point(moved, tol=1e-6)
    before, after = (source.manifold.embed(x).double() for x in (z, moved))
    before, after = (torch.cat([e, e.square()], -1) for e in (before, after))
    # The same distribution, and the pair exchangeable.
    off = after - before
    assert (off.mean(0).abs() < 4.5 * off.std(0) / math.sqrt(n) + 1e-9).all()
    swapped = before[:, :1] * after - after[:, :1] * before
    assert (swapped.mean(0).abs() < 4.5 * swapped.std(0) / math.sqrt(n) + 1e-9).all()
    # It moves, and further with a larger share.
    assert source.manifold.dist(z, moved).mean() > 0.5 * share * 0.3


def test_a_full_share_of_a_normal_source_is_independent() -> None:
    source, generator = WrappedNormal(LINE, torch.zeros(1), 2.0), torch.Generator().manual_seed(0)
    move = refreshing(source)
    assert move is not None
    far = torch.full((4000, 1), 50.0)
    moved = move(far, torch.ones(4000), generator)
    assert float(moved.mean()) == pytest.approx(0, abs=0.15)
    assert float(moved.std()) == pytest.approx(2, rel=0.06)


def test_other_sources_take_random_walks() -> None:
    source = VonMisesFisher(Sphere(2), torch.tensor([0.0, 0, 1]), 4.0)
    assert refreshing(source) is None
    target = SourceTarget(source, lambda z: Carried(z, 0), as_likelihood(lambda x: x[..., 0]))
    state = target.at(source.sample((64,), generator=torch.Generator().manual_seed(0)))
    scale = torch.full((64,), 0.3, dtype=torch.float64)
    one, other = (
        kind.propose(target, state, scale, 1.0, torch.Generator().manual_seed(1))
        for kind in (CrankNicolson(), RandomWalk())
    )
    assert torch.equal(one.state.z, other.state.z)
    assert torch.equal(one.log_ratio, other.log_ratio)


def normal_prior(dim: int) -> rfm.Flow:
    space = Euclidean(dim)
    return rfm.Flow(space, lambda x, t: torch.zeros_like(x), WrappedNormal(space, torch.zeros(dim), 1.0))


def test_steps_shrink_with_what_is_measured_and_not_with_the_dimension() -> None:
    flow, solver = normal_prior(100), FixedStep(EULER, steps=1)
    near = Measurement(lambda x: x[..., 0], 1.0, 0.5)
    found = [
        flow.posterior(
            near,
            640,
            method=Chains(kind, chains=10, warm_up=100, thin=2),
            solver=solver,
            repeats=1,
            generator=torch.Generator().manual_seed(0),
        )
        for kind in (CrankNicolson(), RandomWalk())
    ]
    assert found[0].points[:, 0].mean() == pytest.approx(0.8, abs=0.12)
    assert found[0].points[:, 1:].std() == pytest.approx(1, rel=0.05)
    assert found[0].effective_sample_size > 3 * found[1].effective_sample_size


def test_exchanges_connect_regions_that_no_step_connects() -> None:
    flow = rfm.Flow(FlatTorus(1), lambda x, t: torch.zeros_like(x))
    # Two bands of unequal width.
    likelihood = inside(lambda x: (x[..., 0] > 1.0) & (x[..., 0] < 1.9) | (x[..., 0] < -2.0) & (x[..., 0] > -2.3))
    method = Chains(chains=20, warm_up=20, thin=8, rungs=2)
    drawn = flow.posterior(
        likelihood, 1280, method=method, solver=FixedStep(EULER, steps=1), generator=torch.Generator().manual_seed(0)
    )
    worth = drawn.effective_sample_size
    assert worth > 100
    assert (drawn.points > 0).double().mean() == pytest.approx(0.75, abs=4.5 * math.sqrt(0.1875 / worth))
    assert drawn.diagnostics["r_hat"] < 1.1
    assert "2 rungs" in drawn.method


def test_a_ladder_draws_the_normal_posterior() -> None:
    near = Measurement(lambda x: x[..., 0], 3.0, 0.1)
    method = Chains(warm_up=80, thin=3, rungs=5)
    options: dict[str, Any] = {"solver": FixedStep(EULER, steps=1), "generator": torch.Generator().manual_seed(0)}
    drawn = normal_prior(2).posterior(near, 1280, method=method, repeats=1, **options)
    error = math.sqrt(1 / drawn.effective_sample_size)
    assert drawn.effective_sample_size > 60
    assert float(drawn.points[:, 0].mean()) == pytest.approx(3 / 1.01, abs=4.5 * error * 0.1)
    assert float(drawn.points[:, 1].mean()) == pytest.approx(0, abs=4.5 * error)
    assert float(drawn.points[:, 1].std()) == pytest.approx(1, rel=4.5 * error)
    # Stepping stones: of y = 3 under a normal density of variance 1.01.
    evidence = -(3**2) / 2 / 1.01 - math.log(2 * math.pi * 1.01) / 2
    assert drawn.log_evidence == pytest.approx(evidence, abs=0.15)


def states(values: Tensor) -> State:
    at = torch.arange(len(values), dtype=torch.float64)[:, None]
    return State(at, at, torch.zeros(len(values), dtype=torch.float64), values)


def test_exchanges_keep_all_states_and_go_uphill() -> None:
    ladder = Ladder(3, 2, torch.device("cpu"))
    values = torch.tensor([-90.0, 0.0, 0.0, -90.0, -math.inf, -math.inf], dtype=torch.float64)
    state = ladder.exchanged(states(values), torch.Generator().manual_seed(0))
    # The first pair of rungs: the first chain gains, the second would lose.
    assert state.z[:, 0].tolist() == [2, 1, 0, 3, 4, 5]
    after = ladder.exchanged(state, torch.Generator().manual_seed(0))
    assert sorted(after.z[:, 0].tolist()) == list(range(6))
    # A likelihood of zero never comes to a positive power.
    assert (after.log_likelihood[:4] > -math.inf).all()
    assert ladder.rejections[0] == pytest.approx(0.5, abs=0.01)


def test_exchanges_leave_the_joint_density_as_it_is() -> None:
    # Log-likelihoods of 0 and -2 with equal prior shares, at powers 1, a quarter and 0.
    ladder, n = Ladder(3, 40_000, torch.device("cpu")), 40_000
    generator = torch.Generator().manual_seed(0)
    powers = torch.tensor(ladder.powers, dtype=torch.float64)[:, None]
    low = torch.rand(3, n, generator=generator, dtype=torch.float64) < (-2 * powers).exp() / (1 + (-2 * powers).exp())
    state = states(torch.where(low, -2.0, 0.0).flatten().double())
    for _ in range(4):
        state = ladder.exchanged(state, generator)
    share = (state.log_likelihood.reshape(3, n) < -1).double().mean(1)
    due = (-2 * powers[:, 0]).exp() / (1 + (-2 * powers[:, 0]).exp())
    assert (share - due).abs().max() < 4.5 * 0.5 / math.sqrt(n)


def test_powers_are_set_so_that_exchanges_are_equally_frequent() -> None:
    ladder, generator = Ladder(5, 4000, torch.device("cpu")), torch.Generator().manual_seed(0)

    def equilibrium() -> State:
        # Of a standard normal prior and a narrow likelihood: normal with precision 1 + 400 power.
        powers = ladder.of_copies
        z = torch.randn(len(powers), generator=generator, dtype=torch.float64) / (1 + 400 * powers).sqrt()
        return states(-200 * z.square())

    for _ in range(6):
        for _ in range(2):
            ladder.exchanged(equilibrium(), generator)
        ladder.equalise()
    for _ in range(2):
        ladder.exchanged(equilibrium(), generator)
    assert max(ladder.rejections) - min(ladder.rejections) < 0.08
    assert ladder.powers == sorted(ladder.powers, reverse=True)
    assert (ladder.powers[0], ladder.powers[-1]) == (1.0, 0.0)


def test_rungs_are_a_whole_number() -> None:
    with pytest.raises(ValueError, match="rungs"):
        Chains(rungs=0)
    assert isinstance(Tempering().proposal, CrankNicolson)
