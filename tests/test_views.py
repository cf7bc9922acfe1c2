"""What maps show: regions and the sphere about any meridian, chosen from the points."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from manifolds import Euclidean, FlatTorus, Sphere
from rfm.flow import Flow
from rfm.plotting import layouts, new_figure, plot_flow, world_map
from rfm.plotting.maps import coastlines, log_density_grid
from rfm.plotting.views import WORLD, View, chosen_view, latitude_label, longitude_label, places
from rfm.sources import WrappedNormal

PACIFIC = View(120, -60, -50, 60)
VIEWS = [WORLD, View.about(150), View.about(-90), PACIFIC, View(-10, 20, 30, 45), View(170, 190, 60, 90)]


def unit(longitude: Any, latitude: Any) -> Any:
    a, b = np.radians(longitude), np.radians(latitude)
    return np.stack([np.cos(b) * np.cos(a), np.cos(b) * np.sin(a), np.sin(b)], axis=-1)


def anywhere(n: int = 4000) -> Any:
    x = np.random.default_rng(0).normal(size=(n, 3))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_points_in_view_lie_within_the_axes_and_the_others_beyond(view: View) -> None:
    points = anywhere()
    x, y = view.page(*places(points))
    (x_0, x_1), (y_0, y_1) = (
        ((-math.pi, math.pi), (-math.pi / 2, math.pi / 2))
        if view.is_full
        else ((view.west, view.east), (view.south, view.north))
    )
    inside = (x >= x_0) & (x <= x_1) & (y >= y_0) & (y <= y_1)
    assert (inside == view.holds(points)).all()
    # The share of random points in view is that of its area.
    height = math.sin(math.radians(view.north)) - math.sin(math.radians(view.south))
    assert inside.mean() == pytest.approx(view.width / 360 * height / 2, abs=0.03)


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_lines_are_cut_at_the_edge_and_nowhere_lost(view: View) -> None:
    parts = [part for line in coastlines() for part in view.split(line)]
    turn = 2 * math.pi if view.is_full else 360
    assert max(float(np.abs(np.diff(part[:, 0])).max()) for part in parts) < turn / 8
    # No corner is lost but those of a part of one corner.
    assert sum(map(len, parts)) >= sum(map(len, coastlines())) - 20


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_maps_have_equal_areas(view: View) -> None:
    axes = world_map(new_figure(8, 6, None), 111, "", earth=False, view=view)
    axes.figure.draw_without_rendering()
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(6):
        longitude = rng.uniform(view.west + 0.5, view.east - 0.5)
        latitude = rng.uniform(max(view.south, -84) + 0.5, min(view.north, 84) - 0.5)
        corners = 0.1 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) + np.array([longitude, latitude])
        x, y = axes.transData.transform(np.stack(view.page(*np.radians(corners.T)), axis=1)).T
        pixels = abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2
        ratios.append(pixels / math.cos(math.radians(latitude)))
    # matplotlib solves Mollweide's equation to a thousandth.
    assert max(ratios) / min(ratios) == pytest.approx(1, abs=1e-2)


def test_a_region_is_true_to_angles_in_its_middle() -> None:
    view = View(-10, 20, 30, 50)
    axes = world_map(new_figure(8, 6, None), 111, "", earth=True, view=view)
    axes.figure.draw_without_rendering()
    middle, east, north = axes.transData.transform([(5, 40), (5.1, 40), (5, 40.1)])
    assert north[1] - middle[1] == pytest.approx((east[0] - middle[0]) / math.cos(math.radians(40)), rel=1e-2)


def test_a_view_is_chosen_from_the_points() -> None:
    rng = np.random.default_rng(0)
    tonga = unit(180 + 8 * rng.uniform(-1, 1, 50), -20 + 5 * rng.uniform(-1, 1, 50))
    view = chosen_view(tonga)
    assert view.holds(tonga).all()
    assert view.width < 20
    assert 165 < view.west < 180 < view.east < 195
    everywhere = chosen_view(anywhere())
    assert everywhere == WORLD
    ring = unit(rng.uniform(90, 290, 500), rng.uniform(-60, 60, 500))
    around = chosen_view(ring)
    assert around.is_full
    # The edge of the map lies where there are no points, which is from 70 degrees west to 90 east.
    assert -70 < (around.west + 180) % 360 - 180 < 90
    assert chosen_view(np.zeros((0, 3))) == WORLD
    alone = chosen_view(unit([10.0], [50.0]))
    assert alone.holds(unit([10.0], [50.0])).all()
    assert alone.width >= 1


@pytest.mark.parametrize("view", VIEWS[1:4], ids=str)
def test_the_density_of_a_view_is_that_of_the_flow(view: View) -> None:
    def log_density(x: Any) -> Any:
        return 3 * x[:, 0] + x[:, 2]

    longitude, latitude, values = log_density_grid(log_density, 4000, view)
    assert values.shape == (len(latitude), len(longitude))
    along, north = np.meshgrid(np.degrees(longitude) + view.centre, np.degrees(latitude))
    exact = log_density(unit(along, north).reshape(-1, 3)).reshape(values.shape)
    assert np.abs(values - exact)[1:-1].max() < (0.03 if view.is_full else 1e-9)
    assert np.degrees(longitude[[0, -1]]) + view.centre == pytest.approx([view.west, view.east])


def test_labels_say_east_west_north_and_south() -> None:
    assert [longitude_label(d) for d in (-190, -180, -10, 0, 10, 180, 190, 359.5)] == [
        *("170° E", "180°", "10° W", "0°", "10° E", "180°", "170° W", "0.5° W"),
    ]
    assert [latitude_label(d) for d in (-10.5, 0, 40)] == ["10.5° S", "0°", "40° N"]
    assert PACIFIC.longitude_ticks.tolist() == [120, 180, 240, 300]


def test_views_that_hold_nothing_are_refused() -> None:
    for edges in ({"south": 10, "north": 5}, {"north": 91}, {"west": math.nan}, {"west": 0.0, "east": 361.0}):
        with pytest.raises(ValueError, match="View: "):
            View(**edges)


def test_points_off_the_map_are_counted_and_regions_outlined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "_DRAWS", 60)

    def field(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return Sphere(2).proju(x, x.new_tensor([0.0, 0.0, 1.0]).expand_as(x))

    flow = Flow(Sphere(2), field)
    points = torch.from_numpy(unit([0.0, 5.0, 100.0], [0.0, 5.0, 0.0]))
    view = View(-10, 20, -10, 20)
    figure = plot_flow(flow, points, points, evaluations=100, view=view, regions=(0.5, 0.9))
    titles = [axes.get_title() for axes in figure.axes]
    assert "data: 3 points,\n1 of them off the map" in titles
    density = figure.axes[titles.index("density of the flow")]
    assert any(type(c).__name__ == "QuadContourSet" for c in density.collections)


def test_regions_are_outlined_in_a_plane_and_refused_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "_DRAWS", 60)
    plane = Flow(
        Euclidean(2), lambda x, t: torch.zeros_like(x), WrappedNormal(Euclidean(2), torch.zeros(2), torch.ones(()))
    )
    figure = plot_flow(plane, None, torch.randn(5, 2), evaluations=400, regions=(0.5,))
    (outline,) = (c for axes in figure.axes for c in axes.collections if type(c).__name__ == "QuadContourSet")
    # Of the normal distribution, half lies within sqrt(2 ln 2) of the middle.
    radii = np.concatenate([np.hypot(*path.vertices.T) for path in outline.get_paths() if len(path.vertices)])
    assert np.median(radii) == pytest.approx(math.sqrt(2 * math.log(2)), rel=0.2)
    torus = Flow(FlatTorus(3), lambda x, t: torch.zeros_like(x))
    with pytest.raises(ValueError, match="regions are outlined on a map and in a plane"):
        plot_flow(torus, regions=(0.5,))
    with pytest.raises(ValueError, match="view is what a map of Sphere"):
        plot_flow(torus, view=WORLD)
