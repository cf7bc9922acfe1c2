"""Ratios of densities for policy gradients: estimates from losses, the truth of few steps, and what is made of them."""

import math

import pytest
import torch
from random_fields import normal, points, wavy_field
from torch import Tensor

import rfm
from manifolds import SO3, Euclidean, FlatTorus, Manifold, Sphere
from rfm.control import ClippedSurrogate, LossDraws, LossRatio, generalised_advantages
from rfm.integrators import GEODESIC_EULER, FixedStep
from rfm.likelihood import Inversion, NotInvertibleError, euler_log_prob, euler_transport
from rfm.paths import GeodesicPath
from rfm.sources import Source, Uniform, WrappedNormal

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

SPACES = [FlatTorus(1), Sphere(2), SO3(), Euclidean(2)]
TIGHT = Inversion(tolerance=1e-9)
EACH = pytest.mark.parametrize("m", SPACES, ids=str)


def noise(m: Manifold) -> Source:
    return WrappedNormal(m, torch.zeros(m.event_shape), 1.0) if m.volume is None else Uniform(m)


@EACH
@pytest.mark.parametrize("steps", [1, 4])
def test_the_density_of_steps_is_that_of_the_points_they_draw(m: Manifold, steps: int) -> None:
    field, x_0 = wavy_field(m, size=0.4), points(m, 6)
    drawn, log_det = euler_transport(field, m, x_0, steps)
    sampler = FixedStep(GEODESIC_EULER, steps)
    torch.testing.assert_close(drawn, rfm.integrate(field, m, x_0, (0.0, 1.0), sampler).final)
    found = euler_log_prob(field, noise(m), drawn, steps, inversion=TIGHT)
    torch.testing.assert_close(found.log_prob, noise(m).log_prob(x_0) - log_det, atol=1e-8, rtol=0)
    # The determinant by differences of the sampler itself, in orthonormal bases.
    h, before, after = 1e-5, m.tangent_basis(x_0), m.tangent_basis(drawn)
    columns = []
    for e in before.unbind(1):
        ends = [rfm.integrate(field, m, m.expmap(x_0, s * h * e), (0.0, 1.0), sampler).final for s in (1, -1)]
        moved = (m.logmap(drawn, ends[0]) - m.logmap(drawn, ends[1])) / (2 * h)
        columns.append(m.inner(drawn[:, None], after, moved[:, None]))
    torch.testing.assert_close(log_det, torch.linalg.slogdet(torch.stack(columns, -1))[1], atol=1e-6, rtol=0)


@pytest.mark.parametrize("steps", [1, 3])
def test_the_density_of_steps_integrates_to_one(steps: int) -> None:
    """Though that of the equation is another."""
    m, n = FlatTorus(1), 400
    field = wavy_field(m, size=0.6)
    angle = ((torch.arange(n, dtype=torch.float64) + 0.5) * (2 * math.pi / n) - math.pi)[:, None]
    own = euler_log_prob(field, Uniform(m), angle, steps, inversion=TIGHT).log_prob
    equation = rfm.Flow(m, field, Uniform(m)).log_prob(angle)
    assert float(own.exp().sum()) * 2 * math.pi / n == pytest.approx(1, abs=1e-6)
    assert float((own - equation).abs().max()) > 1e-3


def test_steps_that_are_too_long_have_no_density() -> None:
    m = Euclidean(1)
    with pytest.raises(NotInvertibleError, match="not one-to-one"):
        euler_log_prob(lambda x, t: 4 * torch.sin(3 * x), noise(m), torch.linspace(-2, 2, 9).double()[:, None], 1)


@EACH
def test_losses_share_noise_and_times(m: Manifold) -> None:
    path, source, actions = GeodesicPath(m), noise(m), points(m, 5)
    draws = LossDraws.draw(source, 3, actions, generator=torch.Generator().manual_seed(0))
    field = wavy_field(m, size=0.3)
    losses = draws.losses(field, path, actions)
    assert losses.shape == (3, 5)
    sample = path.sample(draws.noise[1], actions, draws.times[1])
    missed = field(sample.x_t, sample.t) - sample.dx_t
    torch.testing.assert_close(losses[1], m.inner(sample.x_t, missed, missed))
    assert not bool(LossRatio().log_ratio(losses, losses).any())
    given = normal(5, 2)
    conditional = lambda x, t, condition: field(x, t) * m.lift(condition[..., 0])  # noqa: E731
    lengths = draws.losses(conditional, path, actions, given)
    missed = m.lift(given[:, 0]) * field(sample.x_t, sample.t) - sample.dx_t
    torch.testing.assert_close(lengths[1], m.inner(sample.x_t, missed, missed))


def test_ratios_of_means_and_of_draws() -> None:
    old, new = normal(8, 5), normal(8, 5, seed=1).requires_grad_()
    mean, each = LossRatio(), LossRatio(per_draw=True, scale=0.5)
    torch.testing.assert_close(mean.log_ratio(old, new).exp(), torch.exp((old - new).mean(0)))
    torch.testing.assert_close(each.log_ratio(old, new), (old - new) / 2)
    assert float(LossRatio(limit=0.1).log_ratio(old, new).detach().abs().max()) <= 0.1
    # Jensen: the mean of ratios is above the ratio of means.
    assert bool((LossRatio(per_draw=True).log_ratio(old, new).exp().mean(0) > mean.log_ratio(old, new).exp()).all())
    for wrong in ({"scale": 0.0}, {"limit": -1.0}):
        with pytest.raises(ValueError, match="LossRatio"):
            LossRatio(**wrong)


def _slope(surrogate: ClippedSurrogate, ratio: float, advantage: float) -> float:
    log_ratio = torch.tensor([math.log(ratio)], dtype=torch.float64, requires_grad=True)
    surrogate(log_ratio, torch.tensor([advantage], dtype=torch.float64)).backward()  # type: ignore[no-untyped-call]
    assert log_ratio.grad is not None
    return float(log_ratio.grad) / ratio


def test_surrogates() -> None:
    """Slopes in the ratio: -A where it counts, 0 where it is clipped, and back to 1 under the penalty."""
    plain, asymmetric = ClippedSurrogate(0.2), ClippedSurrogate(0.2, asymmetric=True)
    for surrogate in (plain, asymmetric):
        assert _slope(surrogate, 1.1, 2.0) == pytest.approx(-2)
        assert _slope(surrogate, 1.3, 2.0) == 0
        assert _slope(surrogate, 0.5, 2.0) == pytest.approx(-2)
    assert _slope(plain, 0.7, -2.0) == 0
    assert _slope(plain, 1.3, -2.0) == pytest.approx(2)
    # -(A - |A| (r - 1) / clip): zero at r = 1 - clip, and upwards below.
    assert _slope(asymmetric, 0.8, -2.0) == pytest.approx(0, abs=1e-9)
    assert _slope(asymmetric, 0.7, -2.0) == pytest.approx(-1)
    assert _slope(asymmetric, 1.0, -2.0) == pytest.approx(2)
    with pytest.raises(ValueError, match="clip must be positive"):
        ClippedSurrogate(0.0)


@pytest.mark.parametrize("decay", [0.0, 0.7, 1.0])
def test_advantages_by_their_definition(decay: float) -> None:
    """The exponentially weighted sum of temporal differences up to the end of the episode, by brute force."""
    moments, n, discount = 6, 3, 0.9
    rewards, values = normal(moments, n), normal(moments, n, seed=1)
    last, ended = normal(n, seed=2), torch.zeros(moments, n, dtype=torch.bool)
    ended[2, 0] = ended[5, 1] = True
    found = generalised_advantages(rewards, values, last, ended, discount, decay)
    following = torch.cat([values[1:], last[None]])
    for k in range(n):
        for t in range(moments):
            total, factor = 0.0, 1.0
            for s in range(t, moments):
                over = bool(ended[s, k])
                after = 0.0 if over else discount * float(following[s, k])
                total += factor * (float(rewards[s, k]) + after - float(values[s, k]))
                factor *= discount * decay
                if over:
                    break
            assert float(found[t, k]) == pytest.approx(total)
    with pytest.raises(ValueError, match="one shape"):
        generalised_advantages(rewards, values[:2], last, ended)
    with pytest.raises(ValueError, match="from 0 to 1"):
        generalised_advantages(rewards, values, last, ended, 1.5)


def test_a_ratio_from_losses_leads_where_the_advantage_is() -> None:
    """Steps of the surrogate on a flow with one parameter, its drift: rewarded to the right, it goes right."""
    m, path = Euclidean(1), GeodesicPath(Euclidean(1))
    source = noise(m)
    generator = torch.Generator().manual_seed(0)
    for surrogate, ratio in (
        (ClippedSurrogate(0.2), LossRatio()),
        (ClippedSurrogate(0.2, asymmetric=True), LossRatio(per_draw=True)),
    ):
        drift = torch.zeros((), dtype=torch.float64, requires_grad=True)

        def field(x: Tensor, t: Tensor, drift: Tensor = drift) -> Tensor:
            return drift.expand(x.shape)

        actions = source.sample((200,), generator, torch.float64)
        draws = LossDraws.draw(source, 8, actions, generator=generator)
        old = draws.losses(field, path, actions).detach()
        optimiser = torch.optim.SGD([drift], lr=0.05)
        for _ in range(5):
            optimiser.zero_grad()
            surrogate(ratio.log_ratio(old, draws.losses(field, path, actions)), actions[:, 0]).backward()
            optimiser.step()
        assert float(drift.detach()) > 0.02
