"""What cannot be a posterior is refused in one sentence, whichever method draws it."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import rfm
from manifolds import Euclidean
from rfm.integrators import FixedStep
from rfm.posterior import (
    OTODE,
    DFlow,
    DivergenceError,
    FlowChef,
    FlowDPS,
    FlowDPSSteps,
    Flower,
    Guided,
    Importance,
    Measurement,
    PnPFlow,
    PosteriorDraws,
    Sampler,
    Tempering,
    inside,
    operators,
)
from rfm.sources import WrappedNormal
from rfm.steering import EnergyGuidance

PLANE = Euclidean(2)
EXACT = Tempering(particles=16, moves=1)


def flow() -> rfm.Flow:
    def field(x: Tensor, t: Tensor) -> Tensor:
        t = t[..., None]
        return x * (2 * t - 1) / (t * t + (1 - t) ** 2)

    return rfm.Flow(PLANE, field, WrappedNormal(PLANE, torch.zeros(2), 1.0))


def drawn(likelihood: Any, method: Any = EXACT, n: int = 4, **more: Any) -> PosteriorDraws:
    generator = torch.Generator().manual_seed(0)
    return flow().posterior(likelihood, n, method=method, solver=FixedStep(steps=2), generator=generator, **more)


def guided(steering: EnergyGuidance | OTODE) -> Sampler:
    return Guided([steering], FixedStep(steps=2))


def refused(make: Callable[[], object], match: str, kind: type[ValueError] = ValueError) -> None:
    with pytest.raises(kind, match=match) as error:
        make()
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def identity(x: Tensor) -> Tensor:
    return x


class Class:
    def A(self, x: Tensor) -> Tensor:  # noqa: N802
        return x


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((identity, [1.0, 1.0], 0.0), "noise, a standard deviation, must be positive"),
        ((identity, [1.0, 1.0], math.nan), "noise, a standard deviation, must be positive"),
        ((identity, [1.0, 1.0], [1.0] * 3), "have the shape of y"),
        ((identity, [1.0, math.nan], 1.0), "y must be finite"),
        ((identity, [], 1.0), "y is empty"),
        ((None, [1.0], 1.0), "must be a function of points"),
        ((Class, [1.0], 1.0), "got the class Class"),
    ],
)
def test_a_measurement_that_is_none(arguments: tuple[Any, ...], match: str) -> None:
    refused(lambda: Measurement(*arguments), match)


@pytest.mark.parametrize(
    ("likelihood", "match"),
    [
        (lambda: Measurement(identity, [1.0] * 3, 1.0), "do not end with that of y"),
        (lambda: Measurement(lambda x: x.numpy(), [1.0, 1.0], 1.0), "must return a tensor"),
        (lambda: Measurement(identity, 1.0, 1.0), "one log-likelihood per point"),
        (lambda: Measurement(identity, [1.0], 1.0, shape=(1, 1)), "is 1 numbers for each point"),
        (lambda: Measurement(identity, [1.0] * 3, 1.0, shape=(3,)), "is 3 numbers for each point"),
        (lambda: Measurement(operators.mask(torch.tensor([True] * 3)), [1.0] * 3, 1.0), "do not have what is measured"),
        (lambda: Measurement(operators.angles(5), 1.0, 1.0), "do not have what is measured"),
        (lambda: Measurement(operators.POSITION, [1.0] * 3, 1.0), "operator for another manifold"),
        (lambda: Measurement(operators.LATITUDE, 1.0, 1.0), "operator for another manifold"),
        (lambda: lambda x: x, "one log-likelihood per point"),
        (lambda: lambda x: 1.0, "one log-likelihood per point"),
        (lambda: lambda x: x[..., 0] * math.nan, "NaN or infinite"),
        (lambda: lambda x: x[..., 0] * 0 + math.inf, "NaN or infinite"),
        (lambda: inside(lambda x: x[..., 0] > 100), "zero at all"),
        (lambda: Measurement(lambda x: x[..., 0], 1e300, 1.0), "zero at all"),
        (lambda: "likelihood", "must be an object or a function"),
    ],
)
def test_a_likelihood_that_does_not_fit(likelihood: Callable[[], Any], match: str) -> None:
    refused(lambda: drawn(likelihood()), match)
    refused(lambda: drawn(likelihood(), Importance(64)), match)


NAN = Measurement(lambda x: x * math.nan, [1.0, 1.0], 1.0)
DETACHED = Measurement(lambda x: x.detach(), [1.0, 1.0], 1.0)
FLAT = inside(lambda x: x[..., 0] > 0)


def methods(likelihood: Any) -> dict[str, Sampler]:
    """Return the methods that follow gradients."""
    found = {
        "FlowDPS": guided(FlowDPS(PLANE, likelihood)),
        "FlowChef": guided(FlowChef(PLANE, likelihood)),
        "D-Flow": DFlow(1, 2),
    }
    if isinstance(likelihood, Measurement):
        found |= {
            "OT-ODE": guided(OTODE(PLANE, likelihood)),
            "FLOWER": Flower(4, coupled=True),
            "PnP-Flow": PnPFlow(4, coupled=True),
            "FlowDPS, as its code": FlowDPSSteps(4),
        }
    return found


@pytest.mark.parametrize("name", methods(NAN))
def test_an_operator_that_is_nan_is_found_by_every_method(name: str) -> None:
    refused(lambda: drawn(NAN, methods(NAN)[name]), "NaN")


@pytest.mark.parametrize("name", methods(DETACHED))
def test_an_operator_without_derivative_is_found_by_every_method(name: str) -> None:
    refused(lambda: drawn(DETACHED, methods(DETACHED)[name]), "use Tempering or Chains")
    assert bool(drawn(DETACHED).points.isfinite().all())


@pytest.mark.parametrize("name", methods(FLAT))
def test_a_region_is_not_followed(name: str) -> None:
    refused(lambda: drawn(FLAT, methods(FLAT)[name]), "a region is flat")


def test_what_needs_a_measurement_says_so() -> None:
    refused(lambda: drawn(FLAT, Flower(4)), "needs a Measurement")


@pytest.mark.parametrize(
    "method",
    [PnPFlow(40, rate=1e6, coupled=True), Guided([FlowDPS(PLANE, Measurement(identity, [1.0, 1.0], 1e-9), 1e9)])],
    ids=["PnP-Flow", "FlowDPS"],
)
def test_draws_that_left_the_range_of_numbers_are_not_handed_out(method: Sampler) -> None:
    exact = Measurement(lambda x: x**3, [1.0, 1.0], 1e-3)
    refused(lambda: drawn(exact, method), "became NaN or infinite", DivergenceError)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: drawn(FLAT, "tempering"), "method must be an object that draws"),
        (lambda: drawn(FLAT, Tempering), "method must be an object that draws"),
        (lambda: drawn(None, known={0: 1.0}), "known must be an object of Slice"),
        (lambda: drawn(FLAT, n=0), "n must be at least 1"),
        (lambda: drawn(FLAT, worth=1.0), "worth is a share of the draws, between 0 and 1"),
        (lambda: drawn(FLAT, repeats=0), "repeats must be at least 1"),
        (lambda: Tempering(particles=0), "particles must be at least 1"),
        (lambda: Tempering(moves=0), "moves must be at least 1"),
        (lambda: Tempering(share=1.0), "between 0 and 1"),
        (lambda: Importance(0), "draws must be at least 1"),
        (lambda: Flower(0), "steps must be at least 1"),
        (lambda: PnPFlow(draws=0), "draws must be at least 1"),
        (lambda: PnPFlow(rate=0), "rate must be positive"),
        (lambda: DFlow(points=1), "at least 2"),
        (lambda: operators.mask([True, False]), "takes a tensor of booleans"),  # type: ignore[arg-type]
        (lambda: operators.matrix(torch.tensor([[math.nan]])), "rows must be finite"),
    ],
)
def test_settings_that_make_no_sense(make: Callable[[], object], match: str) -> None:
    refused(make, match)


def test_a_measurement_outside_the_range_of_its_operator_is_doubted_by_every_method() -> None:
    far = Measurement(lambda x: x.sin(), [5.0, 5.0], 0.1)
    for method in (EXACT, Flower(8, coupled=True), guided(FlowDPS(PLANE, far, 0.01)), PnPFlow(8, coupled=True)):
        assert any("it lies outside what the operator reaches" in note for note in drawn(far, method).warnings)
