"""Highest-density regions and calibration, against closed forms and on flows whose density is known."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from manifolds import Euclidean, FlatTorus, Sphere
from rfm import Flow
from rfm.regions import HighestDensity, coverage
from rfm.sources import IsotropicGaussianSO3, Source, VonMisesFisher, WrappedNormal

_NORTH = torch.tensor([0.0, 0.0, 1.0])


def at_rest(source: Source) -> Flow:
    """Return the flow that leaves its source where it is."""
    return Flow(source.manifold, lambda x, t: torch.zeros_like(x), source)


def turned(source: Source) -> Flow:
    """Return a flow that turns the sphere about an axis by one radian, which moves a density and keeps its levels."""
    axis = torch.tensor([1.0, 0.0, 0.0])
    return Flow(source.manifold, lambda x, t: torch.linalg.cross(axis.to(x).expand_as(x), x), source)


def von_mises_fisher_level(concentration: float, p: float) -> float:
    """Return the log-density at the rim of the cap that holds p: its cosine has a truncated exponential law."""
    drop = math.log1p(-p * -math.expm1(-2 * concentration))
    return math.log(concentration / (2 * math.pi * -math.expm1(-2 * concentration))) + drop


@pytest.mark.parametrize("flow_of", [at_rest, turned])
@pytest.mark.parametrize("p", [0.5, 0.9, 0.99])
def test_levels_of_a_von_mises_fisher_density(flow_of, p: float) -> None:
    regions = HighestDensity(flow_of(VonMisesFisher(Sphere(2), _NORTH, 20.0)), 4000)
    level = regions.level(p)
    truth = von_mises_fisher_level(20.0, p)
    # The interval is one of 95 %; here it is twice as wide.
    low, high = (2 * bound - level.log_density for bound in level.interval_95)
    assert low < truth < high
    # The drop of log-density is exponential, whose sample quantile has this standard deviation.
    assert high - low < 1.5 * 4 * 1.96 * math.sqrt(p / (1 - p) / 4000)
    assert level.count == 4000


@pytest.mark.parametrize("n", [1, 2, 3])
def test_levels_of_a_normal_density_are_those_of_chi_squared(n: int) -> None:
    regions = HighestDensity(at_rest(WrappedNormal(Euclidean(n), torch.zeros(n), 2.0)), 4000)
    for p in (0.3, 0.5, 0.9):
        truth = -stats.chi2(n).ppf(p) / 2 - n * math.log(2 * math.sqrt(2 * math.pi))
        assert regions.level(p).log_density == pytest.approx(truth, abs=0.12)


@pytest.mark.parametrize(
    "source",
    [
        VonMisesFisher(Sphere(2), _NORTH, 5.0),
        WrappedNormal(FlatTorus(2), torch.tensor([3.0, -1.0]), 0.7),
        WrappedNormal(Euclidean(1), torch.zeros(1)),
        IsotropicGaussianSO3(torch.eye(3), 0.5),
    ],
    ids=["sphere", "torus", "line", "rotations"],
)
def test_a_region_holds_what_it_should_of_new_draws(source: Source) -> None:
    flow = at_rest(source)
    regions = HighestDensity(flow, 4000)
    new = source.sample((3000,), torch.Generator().manual_seed(1))
    for p in (0.5, 0.9):
        inside = regions.contains(new, p).double().mean()
        assert inside == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) * (1 / 3000 + 1 / 4000)))
    # Nested, and the transform is the smallest region's probability.
    half, most = regions.contains(new, 0.5), regions.contains(new, 0.9)
    assert (half <= most).all()
    transform = regions.probability_integral_transform(new)
    assert ((transform <= 0.5) == half).double().mean() > 0.998
    assert stats.kstest(transform.numpy(), "uniform").pvalue > 1e-3


def test_shapes_follow_the_points() -> None:
    regions = HighestDensity(at_rest(VonMisesFisher(Sphere(2), _NORTH, 5.0)), 50)
    x = Sphere(2).random_uniform(4, 5)
    assert regions.contains(x, 0.5).shape == (4, 5)
    assert regions.probability_integral_transform(x).shape == (4, 5)


def test_regions_repeat_without_a_generator_and_leave_the_global_one() -> None:
    flow = at_rest(VonMisesFisher(Sphere(2), _NORTH, 5.0))
    before = torch.get_rng_state()
    first, again = (HighestDensity(flow, 50).level(0.5) for _ in range(2))
    assert first == again
    assert torch.equal(before, torch.get_rng_state())
    other = HighestDensity(flow, 50, generator=torch.Generator().manual_seed(1)).level(0.5)
    assert other.log_density != first.log_density


def test_coverage_of_a_right_density_and_of_wrong_ones() -> None:
    flow = at_rest(VonMisesFisher(Sphere(2), _NORTH, 10.0))
    for concentration, verdict in ((10.0, "chance"), (3.0, "too concentrated"), (40.0, "too spread")):
        points = VonMisesFisher(Sphere(2), _NORTH, concentration).sample((800,), torch.Generator().manual_seed(2))
        found = coverage(flow, points)
        assert verdict in found.describe()
        assert len(found.shares) == len(found.probabilities) == 19
        # The share of draws of a narrower or broader density inside a cap, in closed form.
        for p, share in zip(found.probabilities, found.shares, strict=True):
            cos = 1 + math.log1p(-p * -math.expm1(-20.0)) / 10
            truth = math.expm1(-concentration * (1 - cos)) / math.expm1(-2 * concentration)
            assert abs(share.mean - truth) < 4 * max(share.standard_error, 0.012)
        assert found.record()["share"] == [share.mean for share in found.shares]


def test_coverage_clusters_repeated_places() -> None:
    flow = at_rest(VonMisesFisher(Sphere(2), _NORTH, 10.0))
    points = flow.sample(50, generator=torch.Generator().manual_seed(3))
    once, often = (coverage(flow, points.repeat(k, 1), probabilities=[0.5]).shares[0] for k in (1, 4))
    assert (often.mean, often.count) == (pytest.approx(once.mean), once.count)
    assert often.standard_error == pytest.approx(once.standard_error)
    assert coverage(flow, points.repeat(4, 1), probabilities=[0.5], groups=torch.arange(200)).shares[0].count == 200
    weights = torch.arange(50.0)
    weighted = coverage(flow, points, probabilities=[0.5], weights=weights)
    assert weighted.shares[0].mean == pytest.approx(
        float(((weighted.transforms <= 0.5) * weights).sum() / weights.sum())
    )


def _shifted(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
    """Move every point by its condition: the density given c is the source about c."""
    return condition.nan_to_num(0.0).expand(*x.shape)


def test_coverage_where_each_point_has_a_condition() -> None:
    flow = Flow(Euclidean(1), _shifted, WrappedNormal(Euclidean(1), torch.zeros(1), 0.5))
    generator = torch.Generator().manual_seed(4)
    condition = 3 * torch.randn(400, 1, generator=generator)
    points = condition + 0.5 * torch.randn(400, 1, generator=generator)
    found = coverage(flow, points, condition=condition)
    assert stats.kstest(found.transforms.numpy(), "uniform").pvalue > 1e-3
    wrong = coverage(flow, points, condition=condition.flip(0))
    assert "too concentrated" in wrong.describe()
    one = HighestDensity(flow, 2000, condition=torch.tensor([7.0]))
    assert one.contains(torch.tensor([[7.0], [0.0]]), 0.9).tolist() == [True, False]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda flow: HighestDensity(flow, 50).level(90), "for 90 % pass 0.9"),
        (lambda flow: HighestDensity(flow, 3), "draws must be at least 20"),
        (lambda flow: HighestDensity(Sphere(2)), "flow must be"),
        (lambda flow: coverage(flow, torch.zeros(0, 3)), "needs points"),
        (lambda flow: coverage(flow, flow.sample(3), probabilities=[1.0]), "above 0 and below 1"),
        (lambda flow: coverage(flow, flow.sample(3)[:, :2]), "shape"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(at_rest(VonMisesFisher(Sphere(2), _NORTH, 5.0)))


def test_the_share_of_one_point_has_no_error() -> None:
    flow = at_rest(VonMisesFisher(Sphere(2), _NORTH, 5.0))
    found = coverage(flow, flow.sample(1), probabilities=[0.5])
    assert not found.shares[0].has_error
    assert found.record()["standard_error"] == [None]
    assert "no interval" in found.describe()
    assert np.isfinite(found.transforms.numpy()).all()
