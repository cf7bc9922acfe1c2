"""Pictures: every manifold has one, it shows what it says, and drawing leaves no trace elsewhere."""

import itertools
import math
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection, PathCollection, QuadMesh
from matplotlib.figure import Figure
from torch import Tensor

from manifolds import (
    SE3,
    SO3,
    Antipodal,
    Dihedral,
    Euclidean,
    FlatTorus,
    Manifold,
    Octahedral,
    Quotient,
    RightMultiplication,
    Sphere,
)
from manifolds.rotations import matrix_from_rotvec
from rfm.datasets import Angles, Cartesian, LatitudeLongitude
from rfm.flow import Flow
from rfm.integrators import Adaptive
from rfm.plotting import plot_flow, plot_history, save_figure
from rfm.plotting.maps import coastlines, log_density_grid
from rfm.plotting.orientations import axis_and_turn
from rfm.plotting.panels import bin_count, colour_limits, point_style, robust_limits, shares
from rfm.plotting.views import WORLD, View
from rfm.sources import default_source

# What each picture consists of: panels with data and samples, then with samples alone; colour bars count as axes.
PANELS = [
    (Sphere(2), 4, 3),
    (Sphere(1), 2, 1),
    (Sphere(3), 6, 3),
    (FlatTorus(1), 3, 2),
    (FlatTorus(2), 4, 3),
    (FlatTorus(5), 26, 26),
    (Euclidean(1), 1, 1),
    (Euclidean(2), 4, 3),
    (Euclidean(4), 17, 17),
    (SO3(), 3, 2),
    (SE3(), 2, 1),
    (Quotient(SO3(), RightMultiplication(Octahedral())), 7, 4),
    (Quotient(SO3(), RightMultiplication(Dihedral(6))), 7, 4),
    (Quotient(Sphere(2), Antipodal(2)), 6, 3),
]


def towards_first(manifold: Manifold) -> Flow:
    """Return a flow whose field is smooth, and not zero: points move along a projected constant vector."""
    target = torch.eye(1, manifold.event_shape[0])[0]

    def field(x: Tensor, t: Tensor) -> Tensor:
        return manifold.proju(x, torch.sin(target - x))

    return Flow(manifold, field, default_source(manifold, torch.randn(9, *manifold.event_shape)))


def points_of(manifold: Manifold, n: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return manifold.projx(torch.randn(n, *manifold.event_shape, generator=generator))


def plot(manifold: Manifold, *arguments: Any, **options: Any) -> Figure:
    return plot_flow(towards_first(manifold), *arguments, evaluations=150, **options)


def dots(figure: Figure) -> list[PathCollection]:
    return [c for axes in figure.axes for c in axes.collections if isinstance(c, PathCollection)]


def test_importing_the_library_does_not_import_matplotlib() -> None:
    code = "import sys, rfm, rfm.plotting; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("manifold", "with_data", "without"), PANELS, ids=str)
def test_every_manifold_has_a_picture(manifold: Manifold, with_data: int, without: int) -> None:
    samples = points_of(manifold, 6)
    figure = plot(manifold, points_of(manifold, 5), samples, title="a $title_1")
    assert len(figure.axes) == with_data
    assert figure.get_suptitle() == "a $title_1"
    assert len(plot(manifold, None, samples).axes) == without


@pytest.mark.parametrize("manifold", [row[0] for row in PANELS], ids=str)
def test_few_points_or_none_can_be_drawn(manifold: Manifold) -> None:
    plot(manifold, points_of(manifold, 0), points_of(manifold, 0))
    figure = plot(manifold, points_of(manifold, 1), points_of(manifold, 0))
    if len(figure.axes) < 5:  # many panels take long
        figure.draw_without_rendering()


def test_samples_are_drawn_where_none_are_given_and_do_not_touch_the_global_generator() -> None:
    flow = towards_first(Sphere(2))
    state = torch.random.get_rng_state()
    figure = plot_flow(flow, points_of(Sphere(2), 30), evaluations=100)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [len(c.get_offsets()) for c in dots(figure)] == [30, 30]


def test_data_and_samples_are_drawn_alike() -> None:
    manifold = Sphere(2)
    figure = plot(manifold, points_of(manifold, 300).numpy(), points_of(manifold, 200))
    data, samples = dots(figure)
    assert len(data.get_offsets()) == len(samples.get_offsets()) == 200
    assert data.get_sizes() == samples.get_sizes()
    assert data.get_alpha() == samples.get_alpha()
    assert {"data: 200 of 300 points", "samples: 200 points"} <= {axes.get_title() for axes in figure.axes}


def test_points_lie_where_their_coordinates_say() -> None:
    degrees = np.array([[40.0, -74.0], [-33.9, 151.2], [0.0, 0.0]])
    latitude, longitude = np.radians(degrees).T
    x = np.stack([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], 1)
    drawn = np.asarray(dots(plot(Sphere(2), x, x))[0].get_offsets())
    assert np.allclose(sorted(map(tuple, np.degrees(drawn)[:, ::-1])), sorted(map(tuple, degrees)))


def test_coastlines_are_drawn_on_the_earth_alone() -> None:
    x = points_of(Sphere(2), 4)
    for coordinates, maps in ((None, 3), (LatitudeLongitude(), 3), (Cartesian(("x", "y", "z"), True), 0)):
        figure = plot(Sphere(2), x, x, coordinates=coordinates)
        lines = [len(c.get_segments()) for axes in figure.axes for c in axes.collections if type(c) is LineCollection]
        # Cut anew where the map's edge is.
        assert sum(n >= len(coastlines()) for n in lines) == maps


def test_coastlines_do_not_cross_the_map() -> None:
    lines = coastlines()
    assert len(lines) > 100
    for line in lines:
        assert len(line) > 1
        assert (np.abs(line) <= [180, 90]).all()
        assert (np.abs(np.diff(line[:, 0])) < 30).all()
        on_seam = np.abs(line[:, 0]) == 180
        assert not (on_seam[1:] & on_seam[:-1]).any()
    corners = np.concatenate(lines)
    for place in ([-5.7, 50.0], [18.4, -34.1], [-67.0, -55.0]):  # Land's End, Cape Town, Cape Horn
        assert np.abs(corners - place).sum(1).min() < 2.5
    assert len(files("rfm.plotting").joinpath("coastlines.npz").read_bytes()) < 40_000


def test_density_on_the_map_is_that_of_the_flow() -> None:
    flow = towards_first(Sphere(2))
    solver = Adaptive(atol=1e-5, rtol=1e-5)
    longitude, latitude, log_density = log_density_grid(
        lambda x: flow.log_prob(torch.from_numpy(x).float(), solver=solver).numpy(), 3000
    )
    assert log_density.shape == (len(latitude), len(longitude))
    assert (log_density[:, 0] == log_density[:, -1]).all()
    along, north = np.meshgrid(longitude, latitude)
    x = np.stack([np.cos(north) * np.cos(along), np.cos(north) * np.sin(along), np.sin(north)], axis=-1)
    exact = flow.log_prob(torch.from_numpy(x[::3, ::5]).float(), solver=solver).numpy()
    assert np.abs(exact - log_density[::3, ::5]).max() < 0.02
    mass = np.exp(log_density[1:-1, :-1]) * np.cos(latitude[1:-1, None])
    assert mass.mean() * 2 * math.pi**2 == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("evaluations", [500, 16_000])
@pytest.mark.parametrize("view", [WORLD, View.about(150), View(170, -170, -10, 50)])
def test_evaluations_are_as_many_as_asked_for(evaluations: int, view: View) -> None:
    seen = []

    def counted(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        seen.append(len(x))
        return np.zeros(len(x))

    log_density_grid(counted, evaluations, view)
    assert 0.9 * evaluations < sum(seen) < 1.01 * evaluations


def test_density_of_the_circle_is_per_degree() -> None:
    figure = plot_flow(towards_first(FlatTorus(1)), points_of(FlatTorus(1), 500), coordinates=Angles(("phi",)))
    axes = figure.axes[-1]
    degrees, density = axes.lines[0].get_data()
    assert np.trapezoid(density, degrees) == pytest.approx(1, abs=1e-3)
    assert axes.get_xlim() == (-180, 180)
    assert axes.get_xlabel() == "phi (degrees)"


def test_roses_follow_the_columns_dial() -> None:
    where = {
        ("wind_direction", True): ((math.pi / 2, (1, 0)), (0, (0, 1)), "E"),
        ("hour_angle", True): ((math.pi / 2, (1, 0)), (0, (0, 1)), "6"),
        ("phi", False): ((math.pi / 2, (0, 1)), (0, (1, 0)), "90°"),
    }
    for (name, positive), ((angle, quarter), (zero, start), label) in where.items():
        coordinates = Angles((name,), positive_angles=positive)
        figure = plot(FlatTorus(1), points_of(FlatTorus(1), 40), points_of(FlatTorus(1), 40), coordinates=coordinates)
        rose = figure.axes[0]
        figure.draw_without_rendering()
        centre = rose.transAxes.transform((0.5, 0.5))
        for at, direction in ((angle, quarter), (zero, start)):
            there = rose.transData.transform((at, rose.get_ylim()[1])) - centre
            np.testing.assert_allclose(there / np.linalg.norm(there), direction, atol=1e-6)
        labels = {
            round(tick, 3): text.get_text()
            for tick, text in zip(rose.get_xticks(), rose.get_xticklabels(), strict=True)
        }
        assert labels[round(math.pi / 2, 3)] == label
        low = 0 if positive else -180
        assert figure.axes[-1].get_xlim() == (low, low + 360)
        # Areas of sectors, r^2 / 2 times their angles, are shares.
        areas = [bar.get_height() ** 2 * bar.get_width() for bar in rose.patches]
        assert sum(areas) == pytest.approx(1)


def test_all_pairs_of_seven_angles_are_drawn_and_named() -> None:
    names = tuple("abcdefg")
    x, y = points_of(FlatTorus(7), 300), points_of(FlatTorus(7), 200)
    figure = plot(FlatTorus(7), x, y, coordinates=Angles(names))
    panels = np.array(figure.axes[:49]).reshape(7, 7)
    assert [axes.get_xlabel() for axes in panels[-1]] == [f"{name} (degrees)" for name in names]
    assert [axes.get_ylabel() for axes in panels[:, 0]] == [f"{name} (degrees)" for name in names]
    for i, j in itertools.product(range(7), repeat=2):
        if i != j:
            shown = np.asarray(panels[i, j].images[0].get_array())
            assert shown.sum() == pytest.approx(100)
            # Samples, all of which are drawn, stand above the diagonal: one angle across, the other up.
            if i < j:
                drawn, edges = np.degrees(y.double().numpy()), np.linspace(-180, 180, len(shown) + 1)
                assert np.allclose(shown.sum(0) * 2, np.histogram(drawn[:, j], edges)[0])
                assert np.allclose(shown.sum(1) * 2, np.histogram(drawn[:, i], edges)[0])


def test_flat_tracks_are_seen_from_above() -> None:
    t = torch.linspace(0, 6, 300)
    poses = torch.eye(4).repeat(300, 1, 1)
    poses[:, :3, 3] = torch.stack([100 * t.cos(), 0.5 * t.sin(), 80 * t.sin()], dim=1)
    figure = plot(SE3(), poses, poses[::2])
    assert [(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes] == [("x", "z")] * 2
    assert figure.axes[0].get_title().endswith("from above")
    # The camera's y axis stands upright, and is not drawn; the course is, of the data.
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["body's x", "body's z"]
    assert len(figure.axes[0].lines) == 1
    upright = poses.clone()
    upright[:, :3, 3] = upright[:, [0, 2, 1], 3]
    labels = {(axes.get_xlabel(), axes.get_ylabel()) for axes in plot(SE3(), upright, upright).axes}
    assert labels == {("x", "y")}


def test_ramachandran_plot_has_degrees_and_units() -> None:
    x = points_of(FlatTorus(2), 50)
    figure = plot(FlatTorus(2), x, x, coordinates=Angles(("phi", "psi")))
    labels = [axes.get_xlabel() for axes in figure.axes]
    assert labels.count("phi (degrees)") == 3
    assert "log-density (nats per square radian)" in labels
    panels = [axes for axes in figure.axes if axes.get_ylabel() == "psi (degrees)"]
    assert {(*axes.get_xlim(), *axes.get_ylim()) for axes in panels} == {(-180, 180, -180, 180)}


@pytest.mark.parametrize("manifold", [Sphere(2), FlatTorus(2), FlatTorus(3), Sphere(3), SO3(), SE3()], ids=str)
def test_panels_do_not_overlap(manifold: Manifold) -> None:
    x = points_of(manifold, 50)
    figure = plot(manifold, x, x, title="Title")
    figure.draw_without_rendering()
    boxes = [box for axes in figure.axes if (box := axes.get_tightbbox()) is not None]
    assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
    assert all(figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1 for box in boxes)


def test_an_axis_points_to_its_place_and_turns_are_about_it() -> None:
    x = SO3().random_uniform(20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    frames = (None, matrix_from_rotvec(torch.tensor([0.2, 0.25, 0.35], dtype=torch.float64)))
    for frame, axis in zip(frames, (x[:, :, 2], x @ frames[1][:, 0]), strict=True):  # type: ignore[index]
        longitude, latitude, turn = axis_and_turn(x, frame)
        there = np.stack([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)])
        np.testing.assert_allclose(there.T, axis.numpy(), atol=1e-12)
        # Turning the body about that axis moves the colour alone, by as much.
        turned = matrix_from_rotvec(math.radians(30) * axis) @ x
        again = axis_and_turn(turned, frame)
        np.testing.assert_allclose(again[:2], (longitude, latitude), atol=1e-9)
        np.testing.assert_allclose((again[2] - turn) % 360, 30, atol=1e-6)


def test_frames_far_from_the_data_are_counted_and_not_drawn() -> None:
    data, samples = points_of(SE3(), 60), points_of(SE3(), 40)
    samples[:7, :3, 3] += 1e3
    figure = plot(SE3(), data, samples)
    assert "7 of them outside of the box" in figure.axes[1].get_title()
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()
    figure.draw_without_rendering()
    lines = [len(c.get_segments()) for c in figure.axes[1].collections if isinstance(c, LineCollection)]
    assert lines == [33, 33, 33]


def test_drawing_leaves_no_trace_in_matplotlib() -> None:
    before = dict(mpl.rcParams)
    x = points_of(Euclidean(1), 3)
    plot(Euclidean(1), x, x).draw_without_rendering()
    assert dict(mpl.rcParams) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_points_of_another_shape_are_refused() -> None:
    flow = towards_first(Sphere(2))
    with pytest.raises(ValueError, match="samples of Sphere"):
        plot_flow(flow, None, torch.zeros(5, 2))
    with pytest.raises(ValueError, match="points of Sphere"):
        plot_flow(flow, torch.zeros(5, 4), torch.zeros(0, 3))


# Scales.


def test_colours_ignore_wild_values_and_exaggerate_nothing() -> None:
    rng = np.random.default_rng(0)
    smooth = rng.uniform(-3, 0, (100, 100))
    low, high = colour_limits(smooth)
    wild = smooth.copy()
    wild[0, :3] = -1e6, -50, -20
    assert np.allclose(colour_limits(wild), (low, high), atol=0.01)
    assert -3 < low < -2
    assert -0.1 < high < 0
    assert np.allclose(colour_limits(np.full((4, 4), -2.5)), (-3, -2))
    assert colour_limits(smooth + 700) == pytest.approx((low + 700, high + 700))


def test_colour_scale_of_the_map_holds_the_mass() -> None:
    x = points_of(Sphere(2), 4)
    (mesh,) = (
        c for axes in plot(Sphere(2), x, x).axes for c in axes.collections if type(c) is QuadMesh and c.zorder == 0
    )
    low, high = mesh.get_clim()
    assert np.isfinite([low, high]).all()
    assert high - low >= 1


def test_limits_bins_and_dots_suit_the_points() -> None:
    assert robust_limits(np.zeros(0)) == (-3, 3)
    assert robust_limits(np.full(3, 2.0)) == (1, 3)
    low, high = robust_limits(np.append(np.linspace(0, 1, 1000), 1e9))
    assert -0.2 < low < 0
    assert 1 < high < 1.2
    assert bin_count(0, 60) == 10
    assert bin_count(10**6, 60) == 60
    assert point_style(10)["s"] > point_style(5000)["s"]
    assert shares(np.zeros(0), np.zeros(0), (0, 1), (0, 1), 3).sum() == 0
    grid = shares(np.array([0.1, 0.9]), np.array([0.1, 0.1]), (0, 1), (0, 1), 2)
    assert grid.tolist() == [[50, 50], [0, 0]]


# Files.


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_the_same_picture_makes_the_same_file(tmp_path: Path, kind: str) -> None:
    flow = towards_first(Euclidean(1))
    for name in ("a", "b"):
        save_figure(plot_flow(flow, points_of(Euclidean(1), 40), title="Title"), tmp_path / "new" / f"{name}.{kind}")
    content = (tmp_path / "new" / f"a.{kind}").read_bytes()
    assert content.startswith({"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[kind])
    assert content == (tmp_path / "new" / f"b.{kind}").read_bytes()
    assert len(list((tmp_path / "new").iterdir())) == 2


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "figure.png"
    path.write_text("old")
    figure = Figure()

    def fail(file: Path, **_: Any) -> None:
        file.write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        save_figure(figure, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"end it in \.png, \.pdf, \.svg"):
        save_figure(Figure(), tmp_path / "figure.bmp")
    assert not list(tmp_path.iterdir())


# History.


def test_history_shows_both_curves_and_the_best_step(tmp_path: Path) -> None:
    history: list[dict[str, Any]] = [
        {"step": 100 * i, "loss": 3.0 - i, "validation_nll": abs(i - 2.0), "seconds": 2.0 * i} for i in range(4)
    ]
    history.append({"step": 400, "loss": math.nan, "validation_nll": None, "seconds": 8.0})
    figure = plot_history(history)
    loss, nll = figure.axes
    assert loss.lines[0].get_xdata().tolist() == [0, 100, 200, 300]
    assert nll.get_ylabel() == "validation NLL (nats)"
    assert nll.get_title().endswith("best 0.000 at step 200")
    save_figure(figure, tmp_path / "history.png")


def test_history_of_one_record_or_without_validation() -> None:
    plot_history([{"step": 1, "loss": 2.0, "seconds": 0.1}]).draw_without_rendering()
    with pytest.raises(ValueError, match="empty"):
        plot_history([])
