"""Spans of time of any length, anywhere: a solve over 1e-30 or from 1 to 1 + 1e-9 is one from 0 to 1."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from manifolds import SO3, Euclidean, Manifold, Sphere
from rfm.integrators import (
    BOGACKI_SHAMPINE,
    DORMAND_PRINCE,
    HEUN_EULER,
    MIDPOINT,
    RK4,
    TSITOURAS,
    Adams,
    Adaptive,
    FixedStep,
    Geodesic,
    MuntheKaas,
    NormalCoordinates,
    integrate,
)

RATE = torch.tensor([[0.0, -1.0, 0.5], [1.0, 0.0, 0.3], [-0.5, -0.3, 0.0]], dtype=torch.float64)
"""Of the linear field, per span."""

SPANS = [
    (0.0, 1e-9),
    (1e-30, 0.0),
    (1.0, 1 + 1e-6),
    (1 + 1e-9, 1.0),
    (1.0, 1 + 4e-16),
    (-2.0, -2 - 1e-7),
    (-1e-9, 2e-9),
    (0.0, 1e20),
    (1e30, 0.0),
    (-1e20, 0.0),
    (0.0, 1e-9, 5e-9, 1e-8),
    (1.0, 1 + 1e-9, 2.0),
    (0.0, 1e-60, 1.0),
    (1.0, 1e-60, 0.0),
    (0.0, 1 - 1e-12, 1.0),
]

METHODS = {
    "dormand-prince": Adaptive(),
    "heun-euler": Adaptive(HEUN_EULER, 1e-4, 1e-4),
    "bogacki-shampine": Adaptive(BOGACKI_SHAMPINE, 1e-5, 1e-5),
    "tsitouras": Adaptive(TSITOURAS),
    "adams": Adaptive(Adams()),
    "munthe-kaas": Adaptive(MuntheKaas(DORMAND_PRINCE)),
    "normal-coordinates": Adaptive(NormalCoordinates(DORMAND_PRINCE), 1e-4, 1e-4),
    "fixed": FixedStep(RK4, 30),
    "fixed-graded": FixedStep(RK4, 30, grading=1.5),
    "fixed-geodesic": FixedStep(Geodesic(MIDPOINT), 200),
    "fixed-adams": FixedStep(Adams(4), 60),
}
ON = {"munthe-kaas": (SO3(),), "fixed-geodesic": (Sphere(2),), "normal-coordinates": (Sphere(2),)}


def along(m: Manifold, matrix: Tensor, x: Tensor) -> Tensor:
    """Return the matrix times points, which are vectors or matrices."""
    columns = x if m.event_shape == (3, 3) else x[..., None]
    return (matrix @ columns).reshape(*matrix.shape[:-2], *x.shape[-len(m.event_shape) :])


CASES = [
    pytest.param(m, name, id=f"{m}-{name}") for name in METHODS for m in ON.get(name, (Euclidean(3), Sphere(2), SO3()))
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("m", "name"), CASES)
def test_linear_fields_are_solved_over_any_span(m: Manifold, name: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    start = m.projx(torch.randn(2, *m.event_shape, generator=generator, dtype=torch.float64)).to(dtype)
    at = (..., *(0,) * len(m.event_shape))
    for times in SPANS:
        span = abs(times[-1] - times[0])
        rate = (RATE / span).to(dtype)

        def field(x: Tensor, t: Tensor, rate: Tensor = rate, span: float = span) -> tuple[Tensor, Tensor]:
            return along(m, rate, x) if x.ndim == 1 else torch.stack([along(m, rate, p) for p in x]), x[at] / span

        solution = integrate(field, m, start, times, METHODS[name], with_integral=True)
        assert solution.integral is not None
        for time, found, integral in zip(times, solution.x, solution.integral, strict=True):
            share = (time - times[0]) / span
            # The second column of blocks of the exponential of [[A, 1], [0, 0]] is its integral.
            block = torch.zeros(6, 6, dtype=torch.float64)
            block[:3, :3], block[:3, 3:] = RATE * share, torch.eye(3, dtype=torch.float64) * share
            moved = torch.linalg.matrix_exp(block)
            for x, y, q in zip(start.double(), found.double(), integral.double(), strict=True):
                assert float((y - along(m, moved[:3, :3], x)).abs().max()) < 1e-3, times
                assert abs(float(q - along(m, moved[:3, 3:], x)[at])) < 1e-3, times


@pytest.mark.parametrize("name", ["dormand-prince", "adams", "fixed"])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1e-9), (0.0, 1e20), (0.0, 1.0), (3.0, 5.0), (-5.0, -3.0), (-1.0, 1.0)])
def test_fields_that_depend_on_time_see_the_time_there_is(low: float, high: float, name: str) -> None:
    """Both ways: the sphere turns by twice the share of the time that has passed, per share."""
    seen: list[Tensor] = []

    def field(x: Tensor, t: Tensor) -> Tensor:
        seen.append(t)
        speed = 2 * (t - low) / (high - low) / (high - low)
        return speed[:, None] * torch.stack([-x[:, 1], x[:, 0], 0 * x[:, 2]], -1)

    x = torch.tensor([[1.0, 0.0, 0.0]])
    for times, angle in (((low, high), 1.0), ((high, low), -1.0)):
        end = integrate(field, Sphere(2), x, times, METHODS[name]).final[0]
        torch.testing.assert_close(end, torch.tensor([math.cos(angle), math.sin(angle), 0.0]), atol=1e-5, rtol=0)
    assert all(bool((t >= torch.tensor(low)).all() and (t <= torch.tensor(high)).all()) for t in seen)


def test_what_happens_early_in_a_huge_span_is_seen() -> None:
    """The field fades after a time of 1; the solution is exp(1 - 1 / (1 + t))."""
    for scheme, end in itertools.product((DORMAND_PRINCE, Adams()), (1e6, 1e12)):
        found = integrate(
            lambda x, t: x / (1 + t)[:, None] ** 2, Euclidean(1), torch.ones(1, 1), (0.0, end), Adaptive(scheme)
        )
        assert float(found.final) == pytest.approx(math.e, rel=1e-4)


def test_a_span_beyond_all_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="two finite numbers"):
        integrate(lambda x, t: x, Euclidean(1), torch.ones(1, 1), (-1.7e308, 1.7e308))
