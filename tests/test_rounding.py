"""Rounded values and repeats: told apart by the cells beside, and the former spread over their cells."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from manifolds import Euclidean, FlatTorus, Manifold, Sphere
from rfm.datasets import (
    Table,
    airports,
    choose_coordinates,
    find_rounding,
    read_observations,
    table_from,
    volcano,
)

RNG = np.random.default_rng(0)
LOBES = np.where(RNG.random(1500) < 0.6, RNG.vonmises(0.0, 8.0, 1500), RNG.vonmises(math.pi, 3.0, 1500))
WINDS = np.degrees(LOBES) % 360


def rounded(values: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    return np.rint(values / step) * step


@pytest.mark.parametrize("step", [1.0, 5.0, 10.0, 22.5, 0.5, 30.0])
def test_rounded_directions_are_ties(step: float) -> None:
    for values in (rounded(WINDS, step) % 360, rounded(WINDS, step)):
        found = find_rounding(values[:, None], [360.0])
        assert found is not None
        assert found.steps == pytest.approx((step,))
        counts = np.unique(values, return_counts=True)[1]
        assert found.tied == counts[counts > 1].sum()
        assert found.count == len(values)


@pytest.mark.parametrize("count", [60, 200, 1500])
def test_values_that_are_not_rounded_are_none(count: int) -> None:
    assert find_rounding(WINDS[:count, None], [360.0]) is None
    assert find_rounding(rounded(WINDS[:count], 1e-3)[:, None], [360.0]) is None


def test_repeats_of_events_are_none() -> None:
    places = rounded(RNG.uniform(-80, 80, (50, 2)), 0.01)
    repeats = places[RNG.integers(0, 50, 400)]
    assert find_rounding(repeats, [None, 360.0]) is None
    # 10 stations, each with one direction.
    assert find_rounding(rounded(RNG.uniform(0, 360, 10), 10)[RNG.integers(0, 10, 400), None], [None]) is None
    assert find_rounding(np.full((400, 1), 3.0)) is None
    assert find_rounding(np.zeros((10, 1))) is None


def test_airports_are_none() -> None:
    assert find_rounding(airports().degrees, [None, 360.0]) is None


@pytest.mark.parametrize("step", [1.0, 10.0])
def test_spread_values_stay_in_their_cells_and_fill_them(step: float) -> None:
    values = rounded(WINDS, step)[:, None]
    found = find_rounding(values, [360.0])
    assert found is not None
    spread = found.spread(values, 3)
    np.testing.assert_array_equal(spread, found.spread(values, 3))
    assert (spread != found.spread(values, 4)).any()
    offset = (spread - values) / step
    assert np.abs(offset).max() <= 0.5
    # Uniform: mean 0 and variance 1/12, to five standard errors.
    assert abs(offset.mean()) < 5 * math.sqrt(1 / 12 / len(offset))
    assert abs(offset.var() - 1 / 12) < 5 * math.sqrt(1 / 180 / len(offset))
    assert len(np.unique(spread)) == len(spread)


def test_the_density_of_what_is_spread_is_that_of_the_cells() -> None:
    """The histogram by cells is what it was: spreading moves nothing from one cell to the next."""
    values = rounded(WINDS, 10.0)[:, None]
    found = find_rounding(values, [360.0])
    assert found is not None
    np.testing.assert_array_equal(rounded(found.spread(values, 0), 10.0), values)


def globe(step: float, count: int = 4000) -> Table:
    rng = np.random.default_rng(1)
    latitude = np.degrees(np.arcsin(rng.uniform(-1, 1, count)))
    return table_from({"lat": rounded(latitude, step), "lon": rounded(rng.uniform(-180, 180, count), step)})


def test_places_on_a_coarse_grid_are_spread_within_the_globe() -> None:
    table = globe(5.0)
    found = read_observations(table, Sphere(2))
    assert found.rounding is not None
    assert found.rounding.steps == (5.0, 5.0)
    latitude, longitude = (x.numpy() for x in Sphere.to_degrees(found.points))
    values = table.numbers(["lat", "lon"])
    beyond = np.abs(values[:, 0]) == 90
    assert beyond.any()
    assert (np.abs(latitude - values[:, 0]) <= 2.5 + 1e-9).all()
    turn = (longitude - values[:, 1] + 180) % 360 - 180
    assert (np.abs(turn) <= 2.5 + 1e-9).all()
    assert read_observations(table, Sphere(2), spread_ties=False).rounding is None
    assert read_observations(globe(0.01), Sphere(2)).rounding is None


@pytest.mark.parametrize(
    ("manifold", "columns", "tied"),
    [
        (FlatTorus(1), {"direction": rounded(WINDS, 10) % 360}, True),
        (FlatTorus(1), {"direction_rad": np.radians(rounded(WINDS, 10)).round(4)}, True),
        (FlatTorus(1), {"direction_rad": np.radians(WINDS).round(6)}, False),
        (Euclidean(1), {"height": rounded(RNG.normal(170, 10, 500), 1)}, True),
        (Sphere(2), dict(zip("xyz", np.eye(3)[RNG.integers(0, 3, 300)].T, strict=True)), False),
    ],
)
def test_which_coordinates_round(manifold: Manifold, columns: dict[str, NDArray[np.float64]], tied: bool) -> None:
    table = table_from(columns)
    coordinates = choose_coordinates(manifold, table)
    assert (coordinates.rounding(table) is not None) == tied


def test_eruptions_repeat_places() -> None:
    # 827 at 267 places.
    try:
        data = volcano()
    except ValueError:
        pytest.skip("the published set is not here")
    assert find_rounding(data.degrees, [None, 360.0]) is None
