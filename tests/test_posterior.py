"""Posterior draws against quadrature of the flow's own density times the likelihood, and what they refuse."""

import math
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import rfm
from manifolds import SO3, Euclidean, FlatTorus, Manifold, Sphere
from rfm.integrators import EULER, FixedStep
from rfm.posterior import (
    Chains,
    Hamiltonian,
    Importance,
    Measurement,
    PosteriorDraws,
    Sampler,
    Tempering,
    inside,
)
from rfm.posterior.operators import distance_to
from rfm.sources import WrappedNormal

SAMPLERS: list[Sampler] = [
    Importance(20_000),
    Chains(warm_up=60, thin=5),
    Chains(Hamiltonian(3), warm_up=30, thin=2),
    Tempering(moves=6, prior_generations=0),
]
NAMES = ["importance", "walk", "hamiltonian", "tempering"]
names = pytest.mark.parametrize("sampler", SAMPLERS, ids=NAMES)


def random_flow(manifold: Manifold, seed: int = 0) -> rfm.Flow:
    """Return a flow with a random field that moves points by about a radian."""
    generator = torch.Generator().manual_seed(seed)
    inner = torch.randn(manifold.embed_dim + 1, 6, generator=generator)
    outer = torch.randn(6, *manifold.event_shape, generator=generator) * 0.5

    def field(x: Tensor, t: Tensor) -> Tensor:
        read = torch.cat([manifold.embed(x), t[..., None]], dim=-1)
        return manifold.proju(x, torch.tensordot(torch.tanh(read @ inner), outer, dims=1))

    source = WrappedNormal(manifold, torch.zeros(manifold.dim), 1.0) if manifold.volume is None else None
    return rfm.Flow(manifold, field, source)


def grid_of(manifold: Manifold) -> tuple[Tensor, Tensor]:
    """Return quadrature points and weights, by the coordinates of each manifold."""
    if isinstance(manifold, Sphere):
        n = 20_000
        i = torch.arange(n) + 0.5
        z, phi = 1 - 2 * i / n, math.pi * (1 + 5**0.5) * i
        r = (1 - z * z).sqrt()
        return torch.stack([r * phi.cos(), r * phi.sin(), z], -1), torch.full((n,), 4 * math.pi / n)
    if isinstance(manifold, FlatTorus):
        line = torch.arange(120) * (2 * math.pi / 120) - math.pi
        return torch.cartesian_prod(line, line), torch.full((120**2,), (2 * math.pi / 120) ** 2)
    if isinstance(manifold, SO3):
        # Euler angles z, y, z with the cosine of the second even: the measure is flat in it.
        a = torch.arange(36) * (2 * math.pi / 36)
        c = (torch.arange(18) + 0.5) / 9 - 1
        alpha, cosine, gamma = torch.cartesian_prod(a, c, a).unbind(-1)
        sine = (1 - cosine * cosine).sqrt()
        zero, one = torch.zeros_like(alpha), torch.ones_like(alpha)

        def about_z(angle: Tensor) -> Tensor:
            rows = [angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero, zero, zero, one]
            return torch.stack(rows, -1).reshape(-1, 3, 3)

        tilt = torch.stack([cosine, zero, sine, zero, one, zero, -sine, zero, cosine], -1).reshape(-1, 3, 3)
        x = about_z(alpha) @ tilt @ about_z(gamma)
        return x, torch.full((len(x),), 8 * math.pi**2 / len(x))
    line = torch.linspace(-6, 6, 121)
    return torch.cartesian_prod(line, line), torch.full((121**2,), 0.1**2)


CASES: dict[str, tuple[Manifold, Callable[[Tensor], Tensor], float, float]] = {
    "sphere": (Sphere(2), lambda x: x[..., 2], 0.4, 0.25),
    "torus": (FlatTorus(2), lambda x: x[..., 0].sin() + x[..., 1].cos(), 0.5, 0.3),
    "plane": (Euclidean(2), lambda x: x[..., 0] - x[..., 1], 0.5, 0.4),
    "rotations": (SO3(), lambda x: x[..., 2, 2], 0.5, 0.3),
}


MOMENTS = [
    # Chains take thousands of small steps.
    pytest.param(case, SAMPLERS[i], id=f"{case}-{NAMES[i]}", marks=[pytest.mark.slow] if i in slow else [])
    for case, slow in (("plane", (1, 2)), ("torus", (1, 2)), ("sphere", (1, 2)), ("rotations", (1, 2)))
    for i in range(len(SAMPLERS))
]


@pytest.mark.parametrize(("case", "sampler"), MOMENTS)
def test_draws_have_the_moments_of_the_density_times_the_likelihood(case: str, sampler: Sampler) -> None:
    manifold, operator, y, noise = CASES[case]
    flow, likelihood = random_flow(manifold), Measurement(operator, y, noise)
    solver = FixedStep(steps=4)
    x, areas = grid_of(manifold)
    with torch.no_grad():
        log_p = flow.log_prob(x, solver=solver).double() + likelihood(x).double() + areas.double().log()
    shares = torch.softmax(log_p, 0)
    features = manifold.embed(x).double()
    mean = shares @ features
    spread = (shares @ (features - mean).square()).sqrt()
    drawn = flow.posterior(likelihood, 1024, method=sampler, solver=solver, generator=torch.Generator().manual_seed(1))
    assert drawn.exact
    found = manifold.embed(drawn.points).double()
    error = spread / math.sqrt(drawn.effective_sample_size)
    assert drawn.effective_sample_size > 50
    assert ((found.mean(0) - mean).abs() < 4.5 * error + 0.01).all()
    assert (found.std(0) / spread - 1).abs().max() < 4.5 / math.sqrt(drawn.effective_sample_size) + 0.02
    if not math.isnan(drawn.log_evidence):
        assert drawn.log_evidence == pytest.approx(float(log_p.logsumexp(0)), abs=0.1)
    manifold.check_point(drawn.points, tol=1e-4)
    assert drawn.weights.sum() == pytest.approx(1)
    assert drawn.evaluations > 0


@names
def test_a_region_holds_all_draws(sampler: Sampler) -> None:
    flow = rfm.Flow(Sphere(2), lambda x, t: torch.zeros_like(x))
    # Its edge has no gradient: Hamiltonian moves only know it by rejection.
    north = inside(lambda x: x[..., 2] > 0.5)
    drawn = flow.posterior(north, 64, method=sampler, solver=FixedStep(steps=1), repeats=1)
    assert (drawn.points[:, 2] > 0.5).all()


def test_draws_repeat_with_the_generator_and_touch_no_global_state() -> None:
    flow, likelihood = random_flow(Sphere(2)), Measurement(distance_to(Sphere(2), torch.tensor([0.0, 0, 1])), 0.5, 0.1)
    before = torch.random.get_rng_state()
    draws = [
        flow.posterior(likelihood, 64, solver=FixedStep(steps=4), generator=torch.Generator().manual_seed(3)).points
        for _ in range(2)
    ]
    assert torch.equal(*draws)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert (Sphere(2).dist(draws[0], torch.tensor([0.0, 0, 1])) - 0.5).abs().max() < 0.5


def test_chains_that_stay_apart_are_reported() -> None:
    # Two regions that no step connects.
    flow = rfm.Flow(FlatTorus(1), lambda x, t: torch.zeros_like(x))
    likelihood = inside(lambda x: (x[..., 0].abs() - 1.5).abs() < 0.02)
    method = Chains(chains=32, warm_up=30, thin=1, starts=256)
    drawn = flow.posterior(likelihood, 640, method=method, repeats=1, generator=torch.Generator().manual_seed(0))
    assert drawn.diagnostics["r_hat"] > 1.1
    assert any("disagree" in note for note in drawn.warnings)
    both = flow.posterior(likelihood, 640, generator=torch.Generator().manual_seed(0))
    assert (both.points > 0).double().mean() == pytest.approx(0.5, abs=0.15)


def test_chains_that_are_stuck_in_a_rare_mode_are_reported() -> None:
    # One mode holds 98 % of the posterior: starts in proportion to the likelihood would nearly all be there, and agree.
    flow = rfm.Flow(FlatTorus(1), lambda x, t: torch.zeros_like(x))

    def log_likelihood(x: Tensor) -> Tensor:
        modes = torch.stack([-(((x[..., 0] - at) / 0.02) ** 2) / 2 for at in (-1.5, 1.5)])
        return torch.logsumexp(modes + torch.tensor([0.98, 0.02]).log()[:, None], dim=0)

    method, solver = Chains(chains=16, warm_up=60, thin=1), FixedStep(steps=1)
    seeds = [torch.Generator().manual_seed(seed) for seed in range(3)]
    for generator in seeds:
        drawn = flow.posterior(log_likelihood, 64, method=method, solver=solver, repeats=1, generator=generator)
        assert drawn.diagnostics["r_hat"] > 1.1
        assert any("disagree" in note for note in drawn.warnings)
    # Copies at lower powers connect them.
    method = Chains(chains=16, warm_up=60, thin=2, rungs=6)
    drawn = flow.posterior(log_likelihood, 64, method=method, solver=solver, repeats=1, generator=seeds[0])
    assert drawn.diagnostics["r_hat"] < 1.05


def test_importance_of_a_narrow_posterior_is_reported() -> None:
    flow = rfm.Flow(Sphere(2), lambda x, t: torch.zeros_like(x))
    likelihood = Measurement(lambda x: x, [0.0, 0.0, 1.0], 0.005)
    method, generator = Importance(2000), torch.Generator().manual_seed(0)
    drawn = flow.posterior(likelihood, 500, method=method, repeats=2, generator=generator)
    assert drawn.effective_sample_size < 20
    assert re.search(
        r"are worth [0-9.]+ independent ones, fewer than the 250 requested, after 2 runs", drawn.warnings[0]
    )


def test_tempering_takes_draws_of_the_prior_where_they_suffice() -> None:
    """A loose measurement of normal points: the evidence is known, and moves only where the noise is small."""
    prior = rfm.Flow(Euclidean(2), lambda x, t: torch.zeros_like(x), WrappedNormal(Euclidean(2), torch.zeros(2), 1.0))
    for noise, how in ((1.0, "importance sampling"), (0.05, "sequential Monte Carlo")):
        said = Measurement(lambda x: x, [0.5, -1.0], noise=noise)
        draws = prior.posterior(said, 500, method=Tempering(particles=128), generator=torch.Generator().manual_seed(0))
        spread = 1 + noise**2
        log_evidence = -math.log(2 * math.pi * spread) - 1.25 / (2 * spread)
        assert draws.method.startswith(how)
        assert draws.log_evidence == pytest.approx(log_evidence, abs=0.1 if noise == 1 else 0.5)
        assert draws.effective_sample_size >= 250
        mean = torch.tensor([0.5, -1.0]) / spread
        assert torch.allclose(draws.points.mean(0), mean, atol=4 * noise / (spread * 250) ** 0.5)


@pytest.mark.parametrize(
    ("likelihood", "match"),
    [
        (lambda x: torch.full(x.shape[:-1], math.nan), "NaN"),
        (lambda x: torch.full(x.shape[:-1], -math.inf), "zero at all"),
        (lambda x: x, "one log-likelihood per point"),
        (Measurement(lambda x: x[..., :2], [0.0, 0.0, 1.0], 0.1), "do not end with that of y"),
    ],
    ids=["nan", "zero", "shape", "operator"],
)
@names
def test_bad_likelihoods_are_refused(sampler: Sampler, likelihood: Callable[[Tensor], Tensor], match: str) -> None:
    flow = rfm.Flow(Sphere(2), lambda x, t: torch.zeros_like(x))
    with pytest.raises(ValueError, match=match) as error:
        flow.posterior(likelihood, 10, method=sampler)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("noise", [0.0, -1.0, math.nan, [0.1, 0.2]])
def test_bad_noise_is_refused(noise: float) -> None:
    with pytest.raises(ValueError, match="noise"):
        Measurement(lambda x: x, [0.0, 0.0, 1.0], noise)


def test_measurements_on_a_circle_take_the_short_way() -> None:
    near = Measurement(lambda x: x, 179.0, 5.0, period=360.0)
    assert near(torch.tensor(-179.0)) == pytest.approx(float(near(torch.tensor(177.0))), rel=1e-6)


def test_effective_sizes_of_equal_and_single_weights() -> None:
    draws = PosteriorDraws(torch.zeros(4, 1), torch.full((4,), -math.log(4)), "", 0, 4.0)
    assert draws.resampled(8, torch.Generator().manual_seed(0)).shape == (8, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert draws.weights.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    "method", [Tempering(moves=4), Importance(8000), Chains(warm_up=40, thin=2)], ids=["tempering", "weights", "chains"]
)
def test_a_refined_flow_is_its_own_prior(method: Sampler) -> None:
    # Half of it is the uniform distribution, half a source at the data that stands about one pole.
    sphere = Sphere(2)
    kernel = rfm.sources.VonMisesFisher(sphere, torch.tensor([0.0, 0, 1]), 4.0)
    parts = rfm.flow.Refinement([1.0, 0.0], [kernel, rfm.sources.Uniform(sphere)], [0.5, 0.5])
    flow = rfm.Flow(sphere, lambda x, t: torch.zeros_like(x), refinement=parts)
    likelihood = Measurement(lambda x: x[..., 0], 0.2, 0.3)
    options: dict[str, Any] = {"solver": FixedStep(steps=1), "generator": torch.Generator().manual_seed(0)}
    drawn = flow.posterior(likelihood, 2048, method=method, **options)
    x, areas = grid_of(sphere)
    log_p = flow.log_prob(x, solver=FixedStep(steps=1)).double() + likelihood(x).double() + areas.double().log()
    shares = torch.softmax(log_p, 0)
    mean = shares @ x.double()
    spread = (shares @ (x.double() - mean).square()).sqrt()
    error = spread / math.sqrt(drawn.effective_sample_size)
    assert ((drawn.points.double().mean(0) - mean).abs() < 4.5 * error).all()
    assert drawn.log_evidence == pytest.approx(float(log_p.logsumexp(0)), abs=0.1)


def test_hamiltonian_moves_draw_a_normal_posterior() -> None:
    plane = Euclidean(2)
    flow = rfm.Flow(plane, lambda x, t: torch.zeros_like(x), WrappedNormal(plane, torch.zeros(2), 1.0))
    likelihood = Measurement(lambda x: x[..., 0], 1.0, 0.5)
    method = Chains(Hamiltonian(4), warm_up=40, thin=1)
    generator = torch.Generator().manual_seed(0)
    solver = FixedStep(EULER, steps=1)
    drawn = flow.posterior(likelihood, 800, method=method, solver=solver, repeats=1, generator=generator)
    assert drawn.acceptance > 0.6
    assert drawn.effective_sample_size > 200
    assert drawn.points.mean(0).tolist() == pytest.approx([0.8, 0.0], abs=0.2)
    assert drawn.points.var(0).tolist() == pytest.approx([0.2, 1.0], rel=0.3)
