"""Importance sampling with a learned proposal: exact evidence and draws, weights that say when they are not."""

import math

import pytest
import torch
from scipy.stats import genpareto
from torch import Tensor

import rfm
from manifolds import SE3, SO3, SPD, Euclidean, FlatTorus, Manifold, Power, Sphere
from rfm.posterior import AdaptiveImportance, Carried, Slice, SourceTarget, Tempering, Unmeasured, slice_method
from rfm.posterior.draws import effective_size, largest_power, pareto_shape
from rfm.posterior.likelihood import as_likelihood
from rfm.sources import KernelMixture, RigidMotionSource, Uniform, WrappedNormal

SPIKES = 40


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spiky_poses(concentration: float) -> rfm.Flow:
    """Return a flow that stays at its source: narrow kernels about poses, whose slices are known."""
    m = SE3(0.7)
    poses = torch.eye(4, dtype=torch.float64).repeat(SPIKES, 1, 1)
    poses[:, :3, :3] = SO3().random_uniform(SPIKES, generator=seeded(1), dtype=torch.float64)
    poses[:, :3, 3] = 0.3 * torch.randn(SPIKES, 3, generator=seeded(2), dtype=torch.float64)
    weights = torch.tensor([0.99, 0.01], dtype=torch.float64)
    background = RigidMotionSource(m, Uniform(SO3()), 0.5)
    source = KernelMixture(m, poses, torch.tensor([concentration]), weights, background)
    return rfm.Flow(m, lambda x, t: torch.zeros_like(x), source)


def log_marginal(source: KernelMixture, position: Tensor) -> Tensor:
    """Return the log-density of positions per length^3, which shares with the sampler nothing but the formula."""
    assert isinstance(source.manifold, SE3)
    variance = source.manifold.length**2 / source.concentrations[0]
    squared = (source.points[:, :3, 3] - position).square().sum(-1)
    kernels = -squared / (2 * variance) - 1.5 * torch.log(2 * math.pi * variance)
    broad = -position.square().sum() / 0.5 - 1.5 * math.log(2 * math.pi * 0.25)
    mixed = torch.logaddexp(kernels.logsumexp(0) + math.log(0.99 / SPIKES), broad + math.log(0.01))
    return mixed + 3 * math.log(source.manifold.length)


@pytest.mark.parametrize("concentration", [30.0, 3e3, 1e5])
def test_the_evidence_of_a_slice_of_spikes_is_the_marginal_density(concentration: float) -> None:
    flow = spiky_poses(concentration)
    source = flow.source
    assert isinstance(source, KernelMixture)
    position = source.points[3, :3, 3]
    draws = flow.posterior(None, 300, known=Slice.of_position(position), generator=seeded(5))
    assert draws.warnings == ()
    assert draws.effective_sample_size > 150
    truth = float(log_marginal(source, position))
    assert abs(draws.log_evidence - truth) < 5 / draws.effective_sample_size**0.5
    # Of draws as far from the rotations of the two nearest centres as the exact conditional says.
    shares = torch.softmax(-concentration * (source.points[:, :3, 3] - position).square().sum(-1) / (2 * 0.7**2), 0)
    centre = int(shares.argmax())
    near = SO3().dist(draws.points[:, :3, :3].double(), source.points[centre, :3, :3]) < 4 * concentration**-0.5
    if concentration > 1e3:
        broad = float(torch.exp(math.log(0.01) + _broad(position) - log_marginal(source, position)))
        due = (1 - broad) * float(shares[centre])
        assert abs(float(near.double().mean()) - due) < 5 * math.sqrt(0.25 / 150)


def _broad(position: Tensor) -> Tensor:
    return -position.square().sum() / 0.5 - 1.5 * math.log(2 * math.pi * 0.25) + 3 * math.log(0.7)


@pytest.mark.parametrize("manifold", [Sphere(2), FlatTorus(2), SO3(), Euclidean(2)], ids=repr)
def test_evidence_and_means_are_those_of_a_narrow_likelihood(manifold: Manifold) -> None:
    def normal(x: Tensor) -> Tensor:
        kernel = manifold.kernel
        assert kernel is not None
        squared = (kernel.embed(x) - kernel.embed(centre)).square().sum(-1)
        return -2e3 * squared / 2

    source = Uniform(manifold) if manifold.volume is not None else WrappedNormal(manifold, torch.zeros(2), 1.0)
    centre = source.sample(1, generator=seeded(3), dtype=torch.float64)[0]
    target = SourceTarget(source, lambda z: Carried(z, len(z)), as_likelihood(normal))
    draws = AdaptiveImportance(draws=256).run(target, 400, seeded(4), torch.empty(0, dtype=torch.float64))
    assert manifold.kernel is not None
    at_centre = float(source.log_prob(centre))
    truth = float(manifold.kernel.log_normaliser(torch.tensor(2e3, dtype=torch.float64))) + at_centre
    assert draws.effective_sample_size > 130
    assert draws.diagnostics["rounds"] < 8
    # The prior is flat across the kernel, to a thousandth.
    assert abs(draws.log_evidence - truth) < 5 / draws.effective_sample_size**0.5 + 1e-2
    squared = (manifold.kernel.embed(draws.points) - manifold.kernel.embed(centre)).square().sum(-1)
    mean = float((draws.weights * squared).sum())
    assert mean == pytest.approx(manifold.dim / 2e3, rel=5 * (2 / manifold.dim / draws.effective_sample_size) ** 0.5)


def test_a_proposal_that_misses_the_tail_is_reported() -> None:
    line = Euclidean(1)
    source = WrappedNormal(line, torch.zeros(1), 1.0)

    def wide(x: Tensor) -> Tensor:
        return x[..., 0].square() * 0.49

    target = SourceTarget(source, lambda z: Carried(z, len(z)), as_likelihood(wide))
    method = AdaptiveImportance(draws=2000, rounds=1, efficiency=0.01)
    draws = method.run(target, 2000, seeded(0), torch.empty(0, dtype=torch.float64))
    assert draws.diagnostics["pareto_shape"] > 0.7
    assert "Pareto shape" in draws.warnings[0]


@pytest.mark.parametrize("shape", [-0.3, 0.2, 0.9])
def test_the_shape_of_a_pareto_tail_is_found(shape: float) -> None:
    weights = torch.tensor(genpareto.rvs(shape, size=20_000, random_state=1))
    assert pareto_shape(weights.log()) == pytest.approx(shape, abs=0.12)
    assert pareto_shape(weights.log() + 700) == pytest.approx(pareto_shape(weights.log()), abs=1e-9)
    assert math.isnan(pareto_shape(weights[:20].log()))


def test_the_largest_power_keeps_the_share() -> None:
    log_w = 10 * torch.randn(500, generator=seeded(0), dtype=torch.float64)
    power = largest_power(log_w, 0.3)
    assert effective_size(power * log_w) == pytest.approx(150, rel=1e-6)
    assert largest_power(0.01 * log_w, 0.3) == 1.0
    assert largest_power(0.01 * log_w, 0.3, 0.4) == 0.4
    few = torch.full((100,), -math.inf, dtype=torch.float64).index_fill(0, torch.tensor([3, 4]), 0.0)
    assert largest_power(few, 0.3) == 0.0


def test_the_default_of_a_slice_depends_on_its_dimension() -> None:
    known = Slice.of_position([0.0, 0.0, 0.0])
    assert isinstance(slice_method(known), AdaptiveImportance)
    long = Slice.of_copies(Power(SE3(), 3), {1: torch.eye(4)})
    method = slice_method(long, 32)
    assert isinstance(method, Tempering)
    assert method.particles == 32


def test_progress_ends_at_a_hundred_and_bad_input_is_named() -> None:
    done: list[int] = []
    flow = spiky_poses(1e3)
    method = AdaptiveImportance(draws=64, rounds=3, progress=done.append)
    flow.posterior(None, 10, known=Slice.of_position([0.0, 0.0, 0.0]), method=method, generator=seeded(0), repeats=1)
    assert sum(done) == 100
    with pytest.raises(ValueError, match="rounds must be at least 1"):
        AdaptiveImportance(rounds=0)
    with pytest.raises(ValueError, match="efficiency is a share"):
        AdaptiveImportance(efficiency=1.5)
    spd = SPD(2)
    source = WrappedNormal(spd, torch.eye(2), 1.0)
    target = SourceTarget(source, lambda z: Carried(z, len(z)), Unmeasured(spd))
    with pytest.raises(ValueError, match="has none; use Tempering"):
        AdaptiveImportance().run(target, 10, seeded(0), torch.empty(0))
