"""The picture of a flow, chosen by its manifold."""

import math
from collections.abc import Mapping, Sequence
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manifolds import (
    SE3,
    SO3,
    Bounded,
    Euclidean,
    FlatTorus,
    Manifold,
    Mesh,
    Octahedral,
    Quotient,
    RightMultiplication,
    Simplex,
    Sphere,
)
from manifolds.arguments import check_instance
from manifolds.checks import check_shape
from rfm.arrays import tensor_of
from rfm.datasets.angles import Angles
from rfm.datasets.cartesian import Cartesian
from rfm.datasets.coordinates import Coordinates
from rfm.flow import Flow
from rfm.plotting import maps
from rfm.plotting.figures import DATA_COLOUR, PAPER, SAMPLE_COLOUR, new_figure
from rfm.plotting.fundamental_zones import plot_fundamental_zone
from rfm.plotting.inverse_pole_figures import plot_inverse_pole_figures
from rfm.plotting.layouts import SOLVER, Chart, Points, Subject, draw_line, line, pair_matrix, pairs, plane
from rfm.plotting.orientations import crystal_symmetry, orientation_figure
from rfm.plotting.panels import Array, Limits, robust_limits
from rfm.plotting.pole_figures import BODY_AXES, CUBIC_POLES, plot_pole_figures
from rfm.plotting.roses import draw_roses
from rfm.plotting.surfaces import surface_figure
from rfm.plotting.trajectories import pose_figure
from rfm.plotting.views import View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_PAIRED = 8
"""Coordinates whose pairs are drawn, the first ones."""
MOST_POINTS = 5000
"""Points drawn of each kind: more would hide each other."""


def plot_flow(
    flow: Flow,
    points: Tensor | NDArray[Any] | None = None,
    samples: Tensor | NDArray[Any] | None = None,
    *,
    title: str | None = None,
    coordinates: Coordinates | None = None,
    condition: Tensor | Mapping[str, Any] | None = None,
    evaluations: int = 16_000,
    labels: tuple[str, str] = ("data", "samples"),
    view: View | None = None,
    progress: bool = False,
    regions: Sequence[float] = (),
) -> "Figure":
    """Draw a flow: its density where a page can hold it, and data beside samples.

    The picture is a world map on ``Sphere(2)``; roses and a histogram with the density on the circle, a
    histogram on the line; a plane with
    the density on ``Euclidean(2)`` and ``FlatTorus(2)`` (a Ramachandran plot); all pairs of coordinates in more
    dimensions, of the first `MOST_PAIRED`; a map of where an axis points, coloured
    by the turn about it, on ``SO3()``, and pole figures where crystals' symmetry divides it; frames in space on
    ``SE3()``; and elsewhere marginals of the first three coordinates, in pairs. As many data as samples are drawn, in
    the same style: if there are more, a random
    choice of them, the same at every call.

    Args:
        flow: the flow.
        points: data ``(n, *event_shape)``; without them there is no panel of data.
        samples: samples of the flow, ``(m, *event_shape)``; by default as many are drawn here as there are data, at
            most `MOST_POINTS`, with a fixed seed.
        title: stands above everything.
        coordinates: names the axes. On ``Sphere(2)``, `Cartesian` coordinates mean that the sphere is not the earth: no
            coastlines are drawn.
        condition: one condition for the density and the samples drawn here, as `Flow.sample` takes it; none for the
            unconditional density.
        evaluations: about how many times to evaluate the log-density; more take longer and show more detail.
        labels: what to call the points and the samples.
        view: what a map of ``Sphere(2)`` shows; the region of the points, or the sphere cut where few of them lie, if
            the sphere is the earth.
        progress: show on stderr how far samples and densities are.
        regions: probabilities of the highest-density regions to outline, on a map and in a plane.

    Returns:
        A figure; see `save_figure`.

    Raises:
        ValueError: points or samples have another shape than points of the manifold.
    """
    return picture(
        subject_of(
            flow,
            points,
            samples,
            title=title,
            coordinates=coordinates,
            condition=condition,
            evaluations=evaluations,
            labels=labels,
            view=view,
            progress=progress,
            regions=regions,
        )
    )


def picture(subject: Subject) -> "Figure":
    """Return the picture of a subject, as `plot_flow` draws it."""
    # Without a density there are points to draw, in pairs of coordinates.
    draw = _figure if subject.flow.source.has_density else _figure.dispatch(Manifold)
    return draw(subject.flow.manifold, subject)


def subject_of(
    flow: Flow,
    points: Tensor | NDArray[Any] | None = None,
    samples: Tensor | NDArray[Any] | None = None,
    *,
    title: str | None = None,
    coordinates: Coordinates | None = None,
    condition: Tensor | Mapping[str, Any] | None = None,
    evaluations: int = 16_000,
    labels: tuple[str, str] = ("data", "samples"),
    view: View | None = None,
    progress: bool = False,
    regions: Sequence[float] = (),
) -> Subject:
    """Return what `plot_flow` draws with the same arguments; samples are drawn where none are given."""
    check_instance("plot_flow", "flow", flow, Flow, "Flow(manifold, field)")
    _check_options(flow.manifold, view, regions)
    data = None if points is None else _as_points(flow.manifold, points, "points")
    if samples is None:
        _, device = flow._dtype_and_device()
        count = 2000 if data is None or not len(data) else min(len(data), MOST_POINTS)
        generator = torch.Generator(device).manual_seed(0)
        drawn = flow.sample(count, generator=generator, solver=SOLVER, condition=condition, progress=progress)
    else:
        drawn = _as_points(flow.manifold, samples, "samples")
    sets = [Points(labels[1], SAMPLE_COLOUR, drawn)]
    if data is not None:
        sets.insert(0, Points(labels[0], DATA_COLOUR, data))
    count = min([len(s.all) for s in sets if len(s.all)] + [MOST_POINTS])
    return Subject(flow, sets, count, title, coordinates, evaluations, condition, view, progress, tuple(regions))


def _check_options(manifold: Manifold, view: View | None, regions: Sequence[float]) -> None:
    manifold = manifold.unbounded
    on_map = isinstance(manifold, Sphere) and manifold.dim == 2
    if view is not None and not on_map:
        raise ValueError(f"plot_flow: view is what a map of Sphere(2) shows, got a flow on {manifold}; leave it out")
    in_plane = isinstance(manifold, FlatTorus | Euclidean) and manifold.n == 2
    if regions and not (on_map or in_plane):
        raise ValueError(
            f"plot_flow: regions are outlined on a map and in a plane, got a flow on {manifold}; leave them out"
        )


def _as_points(manifold: Manifold, values: Tensor | NDArray[Any], what: str) -> Tensor:
    """Return ``(n, *event_shape)``, floating point."""
    x = tensor_of("plot_flow", what, values)
    check_shape(manifold, what, x)
    return x.detach().reshape(-1, *manifold.event_shape)


# One picture for each kind of manifold.


@singledispatch
def _figure(manifold: Manifold, subject: Subject) -> "Figure":
    k = min(3, manifold.embed_dim)
    columns = subject.columns(lambda x: manifold.embed(x)[..., :k])
    chart = Chart([f"embedding coordinate {i + 1}" for i in range(k)], _limits(columns))
    return line(subject, chart, columns, None) if k == 1 else pairs(subject, chart, columns, scatter=True)


@_figure.register(Sphere)
def _(manifold: Sphere, subject: Subject) -> "Figure":
    if manifold.dim != 2:
        return _figure.dispatch(Manifold)(manifold, subject)
    earth = subject.coordinates is None or subject.coordinates.kind != Cartesian.kind
    return maps.sphere_figure(subject, earth=earth)


@_figure.register(FlatTorus)
def _(manifold: FlatTorus, subject: Subject) -> "Figure":
    k = min(MOST_PAIRED, manifold.n)
    positive = isinstance(subject.coordinates, Angles) and subject.coordinates.positive_angles
    low = 0.0 if positive else -180.0
    columns = [(c - low) % 360 + low for c in subject.columns(lambda x: torch.rad2deg(x[..., :k]))]
    names = subject.names("angle ", k, " (degrees)")
    chart = Chart(names, [(low, low + 360)] * k, unit=math.pi / 180, ticks=60, most_bins=72 if k == 1 else 60)
    if manifold.n == 1:
        return _circle_figure(subject, chart, columns, positive)
    return _flat(manifold.n, subject, chart, columns, "degree", "square radian")


def _circle_figure(subject: Subject, chart: Chart, columns: list[Array], positive: bool) -> "Figure":
    """Draw roses above the density along a line."""
    figure = new_figure(12, 9.5, subject.title)
    rows = figure.add_gridspec(2, len(columns), height_ratios=(1.4, 1))
    angles = [np.radians(column[:, 0]) for column in columns]
    (name,) = subject.names("angle ", 1)
    draw_roses(figure, [rows[0, i] for i in range(len(columns))], subject, angles, name, positive)
    axes = figure.add_subplot(rows[1, :], facecolor=PAPER)
    draw_line(axes, subject, chart, columns, "probability per degree" if subject.flow.source.has_density else None)
    return figure


@_figure.register(Euclidean)
def _(manifold: Euclidean, subject: Subject) -> "Figure":
    k = min(MOST_PAIRED, manifold.n)
    columns = subject.columns(lambda x: x[..., :k])
    chart = Chart(subject.names("x", k), _limits(columns))
    return _flat(manifold.n, subject, chart, columns, "unit of length", "unit of area")


@_figure.register(Simplex)
def _(manifold: Simplex, subject: Subject) -> "Figure":
    k = min(3, manifold.n)
    columns = subject.columns(lambda x: x[..., :k])
    chart = Chart(subject.names("share ", k), [(0.0, 1.0)] * k)
    return line(subject, chart, columns, None) if k == 1 else pairs(subject, chart, columns, scatter=True)


@_figure.register(Bounded)
def _(manifold: Bounded, subject: Subject) -> "Figure":
    return _figure(manifold.m, subject)


@_figure.register(SO3)
def _(manifold: SO3, subject: Subject) -> "Figure":
    return orientation_figure(subject)


@_figure.register(Quotient)
def _(manifold: Quotient, subject: Subject) -> "Figure":
    group = manifold.group
    if not isinstance(manifold.m, SO3) or not isinstance(group, RightMultiplication):
        return _figure.dispatch(Manifold)(manifold, subject)
    sets = {s.title(len(drawn)): drawn for s in subject.sets for drawn in [s.some(subject.count)]}
    poles = CUBIC_POLES if isinstance(group.rotations, Octahedral) else BODY_AXES
    return plot_pole_figures({"": sets}, group.rotations, poles=poles, title=subject.title)


@_figure.register(Mesh)
def _(manifold: Mesh, subject: Subject) -> "Figure":
    return surface_figure(manifold, subject)


@_figure.register(SE3)
def _(manifold: SE3, subject: Subject) -> "Figure":
    return pose_figure(subject)


def _flat(n: int, subject: Subject, chart: Chart, columns: list[Array], length: str, area: str) -> "Figure":
    """Choose the layout on a flat manifold of dimension ``n``, given what its densities are per."""
    if n == 1:
        return line(subject, chart, columns, f"probability per {length}")
    if n == 2:
        return plane(subject, chart, columns, f"log-density (nats per {area})")
    if n == 3:
        return pairs(subject, chart, columns, scatter=False)
    return pair_matrix(subject, chart, columns)


def _limits(columns: list[Array]) -> list[Limits]:
    """Return the limits of each coordinate that data and samples share."""
    return [robust_limits(values) for values in np.concatenate(columns).T]


def inverse_pole_figures(subject: Subject) -> "Figure":
    """Return `plot_inverse_pole_figures` of a subject's points.

    Raises:
        ValueError: its flow is not one of orientations.
    """
    sets = {s.title(min(subject.count, len(s.all))): s.some(subject.count) for s in subject.sets}
    return plot_inverse_pole_figures(sets, crystal_symmetry(subject), title=subject.title)


def fundamental_zone(subject: Subject) -> "Figure":
    """Return `plot_fundamental_zone` of a subject's points.

    Raises:
        ValueError: its flow is not one of orientations.
    """
    sets = {s.title(min(subject.count, len(s.all))): s.some(subject.count) for s in subject.sets}
    return plot_fundamental_zone(sets, crystal_symmetry(subject), title=subject.title)
