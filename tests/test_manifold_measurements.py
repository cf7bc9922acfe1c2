"""What instruments measure on manifolds: posteriors of each against quadrature of the density times the likelihood."""

import math
from collections.abc import Callable

import pytest
import torch
from test_posterior import grid_of, random_flow
from torch import Tensor

import rfm
from manifolds import SE3, SO3, Euclidean, FlatTorus, Manifold, Power, Sphere
from rfm.integrators import EULER, FixedStep
from rfm.posterior import Importance, Measurement, Polygon, Slice, inside, operators
from rfm.sources import PowerSource, RigidMotionSource, Uniform

SPHERE = Sphere(2)
SOLVER = FixedStep(steps=4)
BEACON = torch.tensor([0.0, 0.6, 0.8])
NORTH, EAST = torch.tensor([0.0, 0.8, -0.6]), torch.tensor([1.0, 0.0, 0.0])
TRIANGLE = Polygon(torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.2, 0.0], [0.0, 1.0, 0.0]]))
ON_SPHERE: dict[str, Callable[[Tensor], Tensor]] = {
    "latitude": Measurement(operators.LATITUDE, 0.6, 0.2),
    "longitude": Measurement(operators.LONGITUDE, 3.0, 0.4),
    "distance": Measurement(operators.distance_to(SPHERE, BEACON), 0.9, 0.2),
    "bearing": Measurement(operators.bearing(SPHERE, BEACON, NORTH, EAST), 1.0, 0.4),
    "place": Measurement(operators.displacement(SPHERE, BEACON), torch.zeros(2), 0.4),
    "region": inside(TRIANGLE),
}
ON_TORUS: dict[str, Callable[[Tensor], Tensor]] = {
    "one angle": Measurement(operators.angles([1]), [3.0], 0.4),
    "a difference": Measurement(operators.Operator(lambda x: x[..., 0] - x[..., 1], 2 * math.pi), 0.5, 0.5),
}
CASES = [
    pytest.param(manifold, likelihood, id=name)
    for manifold, own in ((SPHERE, ON_SPHERE), (FlatTorus(2), ON_TORUS))
    for name, likelihood in own.items()
]


@pytest.mark.parametrize(("manifold", "likelihood"), CASES)
def test_each_measurement_gives_the_density_times_its_likelihood(
    manifold: Manifold, likelihood: Callable[[Tensor], Tensor]
) -> None:
    flow = random_flow(manifold)
    x, areas = grid_of(manifold)
    log_l = likelihood(x).double()
    kept = log_l > log_l.max() - 18
    x = x[kept]
    with torch.no_grad():
        log_p = flow.log_prob(x, solver=SOLVER).double() + log_l[kept] + areas[kept].double().log()
    shares = torch.softmax(log_p, 0)
    features = manifold.embed(x).double()
    mean = shares @ features
    spread = (shares @ (features - mean).square()).sqrt()
    draws = flow.posterior(
        likelihood, 2000, method=Importance(30_000), solver=SOLVER, generator=torch.Generator().manual_seed(0)
    )
    error = 1 / math.sqrt(draws.effective_sample_size)
    found = manifold.embed(draws.points).double()
    assert draws.effective_sample_size > 500
    assert ((found.mean(0) - mean).abs() < 4.5 * error * spread + 0.005).all()
    assert (found.std(0) / spread - 1).abs().max() < 4.5 * error + 0.02
    assert draws.log_evidence == pytest.approx(float(log_p.logsumexp(0)), abs=0.08)


def test_a_position_turns_what_depends_on_it() -> None:
    # Each position is moved by a third axis, so that a measured position says where that axis points.
    def field(x: Tensor, t: Tensor) -> Tensor:
        return torch.nn.functional.pad(x[..., :3, 2:3], (3, 0, 0, 1))

    flow = rfm.Flow(SE3(), field, RigidMotionSource(SE3(), Uniform(SO3()), 0.3))
    measured = Measurement(operators.POSITION, [0.0, 0.0, 1.0], 0.2)
    solver, generator = FixedStep(EULER, steps=1), torch.Generator().manual_seed(0)
    draws = flow.posterior(measured, 1000, method=Importance(40_000), solver=solver, generator=generator)
    # Noise of both kinds adds, and the axis is von Mises-Fisher with this concentration.
    kappa = 1 / (0.3**2 + 0.2**2)
    error = 4.5 / math.sqrt(draws.effective_sample_size) * math.sqrt(1 / kappa**2)
    assert float(draws.points[:, 2, 2].mean()) == pytest.approx(1 / math.tanh(kappa) - 1 / kappa, abs=error)
    # The known position without noise is the limit.
    known = flow.posterior(
        None, 300, known=Slice.of_position([0.0, 0, 1]), method=Importance(4000), solver=solver, generator=generator
    )
    sharper = 1 / 0.3**2
    assert float(known.points[:, 2, 2].mean()) == pytest.approx(1 - 1 / sharper, abs=0.03)


def test_an_orientation_is_measured_within_an_angle() -> None:
    flow = rfm.Flow(SE3(), lambda x, t: torch.zeros_like(x), RigidMotionSource(SE3(), Uniform(SO3()), 1.0))
    turned = operators.displacement(SO3(), torch.eye(3), part=operators.ORIENTATION)
    draws = flow.posterior(
        Measurement(turned, torch.zeros(3), 0.5),
        1000,
        method=Importance(40_000),
        solver=FixedStep(EULER, steps=1),
        generator=torch.Generator().manual_seed(0),
    )
    angle = torch.linspace(0, math.pi, 4001, dtype=torch.float64)
    # The volume of a shell of rotations by an angle goes with the square of the half angle's sine.
    density = (-(angle**2) / 2 / 0.25).exp() * (angle / 2).sin() ** 2
    mean = (density * angle).sum() / density.sum()
    found = SO3().dist(draws.points[:, :3, :3], torch.eye(3))
    assert float(found.mean()) == pytest.approx(float(mean), abs=4.5 * 0.3 / math.sqrt(draws.effective_sample_size))


def test_some_frames_of_a_chain_pull_their_neighbours() -> None:
    # The second frame is drawn towards the first.
    chain = Power(Euclidean(2), 3)

    def field(x: Tensor, t: Tensor) -> Tensor:
        return torch.stack([torch.zeros_like(x[..., 0, :]), x[..., 0, :], torch.zeros_like(x[..., 0, :])], dim=-2)

    normal = rfm.sources.WrappedNormal(Euclidean(2), torch.zeros(2), 1.0)
    flow = rfm.Flow(chain, field, PowerSource(chain, normal))
    ends = Measurement(operators.frames([0, 2], rank=1), [[0.5, 0.0], [0.0, 1.0]], 0.5)
    draws = flow.posterior(
        ends,
        2000,
        method=Importance(60_000),
        solver=FixedStep(EULER, steps=1),
        generator=torch.Generator().manual_seed(0),
    )
    # Normal: frames are a, a + b and c, with a and c measured.
    error = 4.5 / math.sqrt(draws.effective_sample_size)
    assert draws.points.mean(0).flatten().tolist() == pytest.approx([0.4, 0, 0.4, 0, 0, 0.8], abs=1.2 * error)
    assert draws.points.var(0)[1].tolist() == pytest.approx([1.2, 1.2], rel=0.2)
    assert draws.points.var(0)[[0, 2]].flatten().tolist() == pytest.approx([0.2] * 4, rel=0.25)
