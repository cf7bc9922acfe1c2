"""The statements of docs/errata.md, each shown."""

import math

import torch
from random_fields import normal, points
from torch import Tensor

import rfm
from manifolds import Euclidean, Sphere
from rfm.integrators import FixedStep
from rfm.integrators.runge_kutta.tableaux import EULER
from rfm.paths import DDIM, GaussianPath
from rfm.paths.conversions import from_noise
from rfm.paths.schedules import Cosine, Linear, VariancePreserving

LINE = Euclidean(1)
N = 40_000


def halfway(schedule: Linear | Cosine, t: float, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    """Positions and velocities of paths between unit noise and data of a spread."""
    x_0, x_1 = normal(N, 1, seed=1), spread * normal(N, 1, seed=2)
    sample = GaussianPath(LINE, schedule).sample(x_0, x_1, torch.full((N,), t, dtype=torch.float64))
    return sample.x_t[:, 0], sample.dx_t[:, 0]


def test_the_variance_about_the_data_is_the_square() -> None:
    tau, a = 0.6, 3.0
    x = GaussianPath(LINE).sample(normal(N, 1), torch.full((N, 1), a).double(), torch.full((N,), tau).double()).x_t
    variance = float(x.var())
    assert abs(variance - (1 - tau) ** 2) < 4 * (1 - tau) ** 2 * math.sqrt(2 / N)
    assert abs(variance - (1 - tau)) > 0.2


def test_straight_paths_lose_variance_in_the_middle_and_the_cosine_does_not() -> None:
    straight, round_ = (float(halfway(schedule, 0.5)[0].var()) for schedule in (Linear(), Cosine()))
    assert abs(straight - 0.5) < 0.02
    assert abs(round_ - 1.0) < 0.03


def test_the_target_is_the_end_less_the_start() -> None:
    x_0, x_1 = normal(5, 1, seed=1), normal(5, 1, seed=2)
    sample = GaussianPath(LINE).sample(x_0, x_1, torch.full((5,), 0.3).double())
    torch.testing.assert_close(sample.dx_t, x_1 - x_0)
    torch.testing.assert_close(sample.x_t + 0.7 * sample.dx_t, x_1)


def test_the_score_points_back_to_the_data() -> None:
    schedule = VariancePreserving()
    path = GaussianPath(LINE, schedule)
    x_1, noise, t = torch.zeros(5, 1).double(), normal(5, 1), torch.linspace(0.1, 0.9, 5).double()
    x = path.sample(noise, x_1, t).x_t.requires_grad_()
    (score,) = torch.autograd.grad(path.log_prob(x, x_1, t).sum(), x)
    torch.testing.assert_close(score, from_noise(schedule, x.detach(), t, noise).score)
    assert bool((score * x.detach() < 0).all())


def test_the_flow_is_deterministic_and_runs_back() -> None:
    sphere = Sphere(2)
    axis = torch.tensor([0.0, 0.6, 0.8])

    def field(x: Tensor, t: Tensor) -> Tensor:
        return sphere.proju(x, axis.to(x) * torch.cos(3 * t)[..., None])

    flow = rfm.Flow(sphere, field)
    x = points(sphere, 20, seed=1)
    there, again = flow.transport(x), flow.transport(x)
    assert torch.equal(there, again)
    back = flow.trajectory(there, (1.0, 0.0))[-1]
    assert float(sphere.dist(back, x.to(back)).max()) < 1e-4


def test_the_loss_has_a_floor_and_the_velocity_points_to_a_mean() -> None:
    mean, spread, t = 2.0, 0.5, 0.4
    x_0, x_1 = normal(N, 1, seed=1), mean + spread * normal(N, 1, seed=2)
    sample = GaussianPath(LINE).sample(x_0, x_1, torch.full((N,), t).double())
    x, dx = sample.x_t[:, 0], sample.dx_t[:, 0]
    # The best field: the regression of one normal variable on another.
    slope = (t * spread**2 - (1 - t)) / ((t * spread) ** 2 + (1 - t) ** 2)
    v = mean + slope * (x - t * mean)
    floor = float((dx - v).square().mean())
    assert floor > 0.5
    assert abs(floor - float(dx.square().mean() - v.square().mean())) < 0.05
    # At time 0, where the position says nothing of the end.
    at_start = mean + (0 * spread**2 - 1) / 1.0 * x_0[:, 0]
    torch.testing.assert_close(at_start, x_1.new_tensor(mean) - x_0[:, 0])


def test_independent_pairs_bend_the_flow() -> None:
    plane, ends = Euclidean(2), torch.tensor([[4.0, 0.0], [-4.0, 0.0]]).double()

    def marginal(x: Tensor, t: Tensor) -> Tensor:
        s = t[..., None]
        log_weights = -((x[:, None] - s[:, None] * ends) ** 2).sum(-1) / (2 * (1 - s) ** 2)
        mean = torch.softmax(log_weights, -1) @ ends
        return (mean - x) / (1 - s)

    x_0 = torch.tensor([[0.3, 1.0]]).double()
    x = rfm.integrate(marginal, plane, x_0, torch.linspace(0, 0.99, 12)).x[:, 0]
    chord = x[-1] - x[0]
    off = (x[1:-1] - x[0]) @ torch.stack([-chord[1], chord[0]]) / chord.norm()
    assert float(off.abs().max()) > 0.1


def test_ddim_is_euler_with_the_linear_schedule_alone() -> None:
    x = normal(10, 1)

    def field(y: Tensor, t: Tensor) -> Tensor:
        return torch.sin(y + t[..., None])

    euler = rfm.integrate(field, LINE, x, (0.1, 0.9), FixedStep(EULER, 5)).final
    same, other = (rfm.integrate(field, LINE, x, (0.1, 0.9), DDIM(s, 5)).final for s in (Linear(), Cosine()))
    torch.testing.assert_close(same, euler)
    assert float((other - euler).abs().max()) > 1e-3


def test_the_variance_preserving_start_holds_data() -> None:
    alpha = float(VariancePreserving()(torch.zeros(1).double()).alpha)
    assert abs(alpha - math.exp(-(0.1 + 20) / 4)) < 1e-12
    assert 0.0065 < alpha < 0.0067


def test_the_trace_of_the_ambient_jacobian_depends_on_the_extension_and_spoils_the_norm() -> None:
    sphere = Sphere(2)
    x = points(sphere, 4, seed=1)
    axis = torch.tensor([0.0, 0.0, 1.0]).double()

    def rises(y: Tensor) -> Tensor:
        return axis - (y @ axis)[..., None] * y

    def extended(y: Tensor) -> Tensor:
        radius = (y * y).sum(-1, keepdim=True)
        return rises(y) + (radius - 1) * axis

    def trace(f) -> Tensor:  # type: ignore[no-untyped-def]
        return torch.stack([torch.func.jacrev(f)(p).trace() for p in x])

    torch.testing.assert_close(rises(x), extended(x))
    torch.testing.assert_close(trace(extended) - trace(rises), 2 * x[:, 2])
    true = rfm.divergence(lambda y, t: rises(y), sphere, x, torch.zeros(4).double())[1]
    torch.testing.assert_close(true, -2 * x[:, 2])
    # The trace is -4 <axis, x>: twice as much, so a density would gain what it should not, and Z is not 1.
    torch.testing.assert_close(trace(rises), -4 * x[:, 2])
    height = torch.linspace(-1, 1, 20001).double()
    h = 0.3
    # The flow carries height z to tanh(atanh z + h); each divergence gives a density against the uniform one.
    inner = height[1:-1]
    back = torch.tanh(torch.atanh(inner) - h)
    for factor, one in ((2.0, True), (4.0, False)):
        log_p = factor * (torch.log(torch.cosh(torch.atanh(back) + h)) - torch.log(torch.cosh(torch.atanh(back))))
        z = float(torch.trapezoid(torch.exp(log_p) / 2, inner))
        assert (abs(z - 1) < 1e-3) is one
