"""Maximum likelihood of a field that is made of its manifold's own maps: two more derivatives of each are needed."""

from collections.abc import Callable

import pytest
import torch
from manifold_zoo import ZOO
from random_fields import normal, points
from torch import Tensor, nn
from zoo_sources import source_of

from manifolds import LogEuclideanSPD, Manifold
from manifolds.level_sets.ellipsoid import Ellipsoid
from manifolds.level_sets.level_set import LevelSet
from rfm import negative_log_likelihood_loss
from rfm.integrators import RK4, FixedStep


def dented(x: Tensor) -> Tensor:
    return ((x * x).sum(-1) + 0.2 * x[..., 0] * x[..., 1] * x[..., 2] - 1)[..., None]


MORE: list[tuple[str, Callable[[], Manifold]]] = [
    ("LogEuclideanSPD(3)", lambda: LogEuclideanSPD(3)),
    ("Ellipsoid", lambda: Ellipsoid((1.0, 1.1, 1.3))),
    ("LevelSet", lambda: LevelSet(dented, 3, radius=1.5, volume=13.0, steps=8, nodes=8, rounds=4)),
]

# One for each kind of formula; the others are left to the slow tests.
QUICK = {"Sphere(2)", "PoincareBall(2)", "SO3()", "SPD(2)", "LogEuclideanSPD(2)", "Stiefel(6, 2)", "Grassmann(4, 2)"}


def cases() -> list[object]:
    return [
        pytest.param(make, id=name, marks=() if name in QUICK else pytest.mark.slow) for name, make in [*ZOO, *MORE]
    ]


class OwnMaps(nn.Module):
    """Towards one point, along a vector carried from it, and what a step against both makes of that."""

    def __init__(self, m: Manifold) -> None:
        super().__init__()
        self.m = m
        self.weights = nn.Parameter(torch.tensor([0.4, 0.3, 0.2, 0.3, 0.2], dtype=torch.float64))
        self.register_buffer("centre", points(m, seed=21))
        self.register_buffer("along", 0.3 * m.proju(self.centre, normal(*m.event_shape, seed=22)))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        m, (a, b, c, d, e) = self.m, self.weights
        centre, along = (z.expand_as(x) for z in (self.centre, self.along))
        log, carried = m.logmap(x, centre), m.transp(centre, x, along)
        step = a * log + b * carried
        back = m.logmap(x, m.expmap(x, -0.3 * step))
        volume = m.log_volume_derivative(x, step)
        factor = 1 + c * m.inner(x, log, carried) + d * torch.tanh(volume) + e * m.dist(x, centre) ** 2
        u = m.lift(factor) * step + e * back
        return u / m.lift(torch.sqrt(1 + m.inner(x, u, u)))


@pytest.mark.parametrize("make", cases())
def test_gradients_are_those_of_differences(make: Callable[[], Manifold]) -> None:
    m = make()
    x, field = points(m, 1), OwnMaps(m)
    source, method = source_of(m), FixedStep(RK4, 1)

    def loss() -> Tensor:
        return negative_log_likelihood_loss(field, source, x, method)

    [gradient] = torch.autograd.grad(loss(), [field.weights])
    direction, weights, h = normal(5, seed=5), field.weights.detach().clone(), 1e-3
    values = []
    with torch.no_grad():
        for k in (2, 1, -1, -2):
            field.weights.copy_(weights + k * h * direction)
            values.append(float(loss()))
    far, near = values[0] - values[3], values[1] - values[2]
    expected = (8 * near - far) / (12 * h)
    assert abs(expected) > 1e-4
    assert float(gradient @ direction) == pytest.approx(expected, rel=1e-5, abs=1e-7)
