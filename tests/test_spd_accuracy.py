"""Accuracy on positive definite matrices: 16 units of rounding times the condition number, against 50 digits."""

import math

import mpmath as mp
import pytest
import torch
from definite_matrices import SPACES, each_dtype, points, randn, tangents
from torch.func import grad

from experiments.benchmarks.truth import truth_of
from manifolds.matrices.spd import SPD, LogEuclideanSPD
from manifolds.matrices.spectral import symmetrise


def exact_value(m, name, *arrays):
    """The value at 50 digits and its condition number, ``max(|f|, sum_i |D_i f| |z_i|)``, by differences."""
    truth, step = truth_of(m), mp.mpf(10) ** -30

    def f(x, b):
        if name == "expmap":
            return truth.exp(truth.project(x), truth.tangent(x, b))
        log = truth.log(truth.project(x), truth.project(b))
        return [truth.length(x, log)] if name == "dist" else log

    z = [[mp.mpf(v) for v in a.double().flatten().tolist()] for a in arrays]
    value, condition = f(*z), 0.0
    for i, a in enumerate(z):
        h = step * mp.norm(a)
        ends = [[*z[:i], [c + h * d for c, d in zip(a, e, strict=True)], *z[i + 1 :]] for e in truth.directions(a)]
        columns = [[float((p - q) / step) for p, q in zip(f(*end), value, strict=True)] for end in ends]
        condition += float(torch.linalg.matrix_norm(torch.tensor(columns, dtype=torch.float64), 2))
    return value, max(condition, float(mp.norm(value)))


def error_in_units(m, name, *arrays):
    """The error of one map, over the units of rounding that its condition number allows."""
    with mp.workdps(60):
        exact, condition = exact_value(m, name, *arrays)
        value = getattr(m, name)(*arrays)
        computed = [mp.mpf(v) for v in value.double().flatten().tolist()]
        error = mp.norm([a - b for a, b in zip(computed, exact, strict=True)])
    return float(error) / condition / (torch.finfo(value.dtype).eps / 2)


@each_dtype
@pytest.mark.parametrize("m", SPACES[:2], ids=str)
@pytest.mark.parametrize(("spread", "separation"), [(0.0, 1e-6), (1.0, 1e-3), (3.0, 1.0), (12.0, 1e-6), (12.0, 1.0)])
def test_accuracy_against_fifty_digits(m, dtype, spread, separation):
    x = points(m, spread=spread, dtype=dtype)
    u = tangents(m, x, separation)
    for y in (m.expmap(x, u), points(m, spread=spread + separation, seed=21, dtype=dtype)):
        assert error_in_units(m, "dist", x, y) <= 16
        assert error_in_units(m, "logmap", x, y) <= 16
    assert error_in_units(m, "expmap", x, u) <= 16


WIDEST = {torch.float32: 12.0, torch.float64: 30.0}


def farthest(n, dtype, seed):
    """A matrix at the end of the documented domain: eigenvalues all apart, or all but one of them together."""
    basis = torch.linalg.qr(randn(n, n, seed=seed)).Q
    inner = [torch.linspace(-0.5, 0.5, n), torch.full((n,), -0.5), torch.full((n,), 0.5)][seed % 3]
    logs = torch.cat([torch.tensor([-0.5]), inner[1:-1], torch.tensor([0.5])])[-n:].double()
    return symmetrise((basis * (WIDEST[dtype] * logs).exp()) @ basis.mT).to(dtype)


@each_dtype
@pytest.mark.parametrize("space", [SPD, LogEuclideanSPD])
@pytest.mark.parametrize(
    "n", [1, 2, 3, pytest.param(4, marks=pytest.mark.slow), pytest.param(6, marks=pytest.mark.slow)]
)
def test_accuracy_between_the_ends_of_the_domain(space, n, dtype):
    m = space(n)
    for seed in range(9):
        x, y = farthest(n, dtype, seed // 3), farthest(n, dtype, 3 + seed)
        assert error_in_units(m, "dist", x, y) <= 16
        assert error_in_units(m, "logmap", x, y) <= 16


@each_dtype
@pytest.mark.parametrize("space", [SPD, LogEuclideanSPD])
def test_derivatives_between_the_ends_of_the_domain(space, dtype):
    """Those of the distance, against differences with 60 digits, for ends that move in their own frame."""
    m, truth = space(3), truth_of(space(3))
    for seed in range(6):
        x, y = farthest(3, dtype, seed // 2), farthest(3, dtype, 3 + seed)
        along = [tangents(m, a.double(), seed=seed + i) for i, a in enumerate((x, y))]
        gradient = grad(lambda z: m.dist(*map(symmetrise, z)))(torch.stack([x, y])).double()

        flat = [(a.double().flatten().tolist(), b.flatten().tolist()) for a, b in zip((x, y), along, strict=True)]

        def exact(h, flat=flat):
            ends = [[mp.mpf(p) + h * mp.mpf(q) for p, q in zip(*pair, strict=True)] for pair in flat]
            return truth.length(ends[0], truth.log(*ends))

        with mp.workdps(60):
            h = mp.mpf(10) ** -20
            expected = float((exact(h) - exact(-h)) / (2 * h))
        allowed = 4 * math.exp(WIDEST[dtype]) * torch.finfo(dtype).eps
        assert abs(float((gradient * torch.stack(along)).sum()) - expected) <= allowed


def test_distance_between_two_matrices_that_spread_over_twelve():
    """The right distance is of 80 digits."""
    x = [[157.49624633789062, -2436.018310546875, -3386.717041015625], [0, 60619.33203125, 78414.265625]]
    y = [[152996.453125, -20872.30078125, 32483.158203125], [0, 2857.30029296875, -4371.55029296875]]
    x, y = (torch.triu(torch.tensor([*a, [0, 0, last]])) for a, last in ((x, 102382.390625), (y, 7305.47314453125)))
    x, y = (torch.triu(a) + torch.triu(a, 1).mT for a in (x, y))
    for a, b in ((x, y), (y, x)):
        torch.testing.assert_close(SPD(3).dist(a, b), torch.tensor(16.0187), rtol=1e-3, atol=0)
