"""Directions in crystals, their colours, inverse pole figures, sections and fundamental zones."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from manifolds import (
    SO3,
    Cyclic,
    Dihedral,
    Icosahedral,
    Octahedral,
    Quotient,
    RightMultiplication,
    RotationGroup,
    Sphere,
    Tetrahedral,
)
from manifolds.rotations import matrix_from_rotvec
from rfm.flow import Flow
from rfm.plotting import (
    ipf_colours,
    odf_sections,
    plot_fundamental_zone,
    plot_inverse_pole_figures,
    pole_density,
    subject_of,
)
from rfm.plotting.crystal_sectors import sector_of
from rfm.plotting.fundamental_zones import smallest_rotations, zone_surface
from rfm.plotting.odf_sections import euler_ranges

GROUPS: dict[str, RotationGroup] = {
    "m-3m": Octahedral(),
    "m-3": Tetrahedral(),
    "6/mmm": Dihedral(6),
    "6/m": Cyclic(6),
    "4/mmm": Dihedral(4),
    "4/m": Cyclic(4),
    "-3m": Dihedral(3),
    "-3": Cyclic(3),
    "mmm": Dihedral(2),
    "2/m": Cyclic(2),
    "-1": Cyclic(1),
}
# The names of the same groups in orix.
PEERS = dict(zip(GROUPS, ("Oh", "Th", "D6h", "C6h", "D4h", "C4h", "D3d", "S6", "D2h", "C2h", "Ci"), strict=True))
each = pytest.mark.parametrize("laue", GROUPS)


def directions(n: int = 500) -> Any:
    x = np.random.default_rng(0).normal(size=(n, 3))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def orientations(n: int) -> Tensor:
    return SO3().random_uniform(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@each
def test_every_direction_has_one_equivalent_in_the_sector(laue: str) -> None:
    sector, group = sector_of(GROUPS[laue]), GROUPS[laue].matrices.double().numpy()
    assert sector.laue == laue
    v = directions()
    reduced = sector.reduced(v)
    assert (reduced @ sector.normals.T).min() > -1e-9
    for g in (*group, -group[0]):
        np.testing.assert_allclose(sector.reduced(v @ g.T), reduced, atol=1e-9)
    np.testing.assert_allclose(sector.reduced(reduced @ sector.frame.T), reduced, atol=1e-9)
    # As many sectors as elements, inversions included, make the sphere.
    inside = (directions(40_000) @ sector.normals.T).min(-1) > 0
    assert inside.mean() == pytest.approx(1 / (2 * len(group)), rel=0.15)


@each
def test_corners_are_red_green_and_blue_and_the_middle_white(laue: str) -> None:
    sector = sector_of(GROUPS[laue])
    np.testing.assert_allclose(sector.colours(sector.centre[None])[0], 1, atol=1e-9)
    if len(sector.corners) == 3:
        found = sector.colours(sector.corners)
        order = ("m-3m",)
        expected = np.eye(3) if laue in order else found.round()
        np.testing.assert_allclose(found, expected, atol=1e-3)
        assert sorted(map(tuple, found.round())) == [(0, 0, 1), (0, 1, 0), (1, 0, 0)]
    colours = sector.colours(sector.reduced(directions(3000)))
    assert colours.min() >= 0
    assert colours.max() <= 1


def test_monoclinic_and_trigonal_settings_are_known_and_others_refused() -> None:
    along_b = matrix_from_rotvec(math.pi * torch.eye(3, dtype=torch.float64)[1])
    group = RotationGroup(torch.stack([torch.eye(3, dtype=torch.float64), along_b]), math.pi, [([(0, 1, 0)], 1)])
    sector = sector_of(group)
    assert sector.laue == "2/m"
    v = directions(50)
    np.testing.assert_allclose(sector.reduced(v * [-1, 1, -1]), sector.reduced(v), atol=1e-9)
    with pytest.raises(ValueError, match="none of the eleven Laue groups"):
        sector_of(Icosahedral())


@pytest.mark.slow  # orix takes seconds to import
@each
def test_colours_are_those_of_orix(laue: str) -> None:
    vector = pytest.importorskip("orix.vector")
    symmetry = pytest.importorskip("orix.quaternion.symmetry")
    keys = pytest.importorskip("orix.plot.direction_color_keys")
    sector, v = sector_of(GROUPS[laue]), directions(2000)
    reduced = sector.reduced(v)
    # Beside the edge orix may take a direction to the sector's other side.
    clear = (reduced @ sector.normals.T).min(-1) > 2e-3
    theirs = keys.DirectionColorKeyTSL(getattr(symmetry, PEERS[laue])).direction2color(vector.Vector3d(v))
    assert clear.mean() > 0.9
    assert np.abs(sector.colours(reduced) - theirs)[clear].max() < 0.012
    # Orientations: the direction along the sample's z axis, in crystal coordinates.
    x = orientations(20)
    expected = sector.colours(sector.reduced(x.numpy()[:, 2, :]))
    np.testing.assert_allclose(ipf_colours(x, GROUPS[laue]), expected, atol=1e-12)


@pytest.mark.slow  # orix takes seconds to import
@pytest.mark.parametrize("pole", [(1, 0, 0), (1, 1, 1)])
def test_pole_densities_are_those_of_orix(pole: tuple[int, int, int]) -> None:
    quaternion = pytest.importorskip("orix.quaternion")
    measure = pytest.importorskip("orix.measure")
    vector = pytest.importorskip("orix.vector")
    centres = orientations(3).repeat_interleave(2000, 0)
    noise = 0.2 * torch.randn(6000, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = centres @ matrix_from_rotvec(noise)
    # orix: orientations take the sample's coordinates to the crystal's, their inverses poles to the sample.
    theirs = quaternion.Orientation.from_matrix(x.mT.numpy(), symmetry=quaternion.symmetry.Oh)
    family = quaternion.symmetry.Oh.outer(vector.Vector3d(pole)).unique()
    found = (~theirs).outer(family).data.reshape(-1, 3)
    density, (u, v) = measure.pole_density_function(vector.Vector3d(found), resolution=2, sigma=8)
    # Bin centres, from the stereographic plane, where the projection is from the south pole.
    a, b = ((grid[1:, 1:] + grid[:-1, :-1] + grid[1:, :-1] + grid[:-1, 1:]) / 4 for grid in (u, v))
    r = a**2 + b**2
    seen = torch.from_numpy(np.stack([2 * a, 2 * b, 1 - r], -1).reshape(-1, 3) / (1 + r.reshape(-1, 1)))
    group = GROUPS["m-3m"]
    ours = pole_density(x, pole, group, seen, halfwidth_degrees=8).reshape(density.shape)
    # Away from the middle, where bins of equal angles hold few of the poles, and from the edge, which cuts them.
    inside = np.isfinite(ours) & ~np.ma.getmaskarray(density) & (r > 0.05) & (r < 0.6)
    assert inside.sum() > 1000
    assert ours[inside].max() > 2
    assert np.abs(ours - density)[inside].max() < 0.12 * ours[inside].max()
    assert np.corrcoef(ours[inside], np.asarray(density)[inside])[0, 1] > 0.99


@pytest.mark.slow  # orix takes seconds to import
def test_volume_fractions_of_a_component_are_those_of_orix() -> None:
    quaternion = pytest.importorskip("orix.quaternion")
    x, centre = orientations(4000), orientations(5)[4]
    theirs = quaternion.Orientation.from_matrix(x.mT.numpy(), symmetry=quaternion.symmetry.Oh)
    other = quaternion.Orientation.from_matrix(centre.T.numpy(), symmetry=quaternion.symmetry.Oh)
    angle = torch.from_numpy(theirs.angle_with(other)[: len(x)].reshape(-1))
    own = Quotient(SO3(), RightMultiplication(Octahedral())).dist(x, centre.expand_as(x))
    assert torch.allclose(own, angle, atol=1e-6)
    # Of uniform orientations the share within w of one is 24 (w - sin w) / pi, until neighbours' balls touch.
    w = math.radians(15)
    share = float((own < w).double().mean())
    assert share == pytest.approx(24 * (w - math.sin(w)) / math.pi, abs=4 * (share / 4000) ** 0.5)


@pytest.mark.parametrize("laue", ["m-3m", "6/mmm", "-1"])
def test_inverse_pole_figures_are_in_multiples_of_uniform(laue: str) -> None:
    group = GROUPS[laue]
    figure = plot_inverse_pole_figures({"data": orientations(400)}, group, cells=24, halfwidth_degrees=15)
    images = [np.asarray(axes.images[0].get_array()) for axes in figure.axes[:3]]
    assert [axes.get_title(loc="left") for axes in figure.axes[:3]] == ["data\nsample x", "\nsample y", "\nsample z"]
    for values in images:
        assert np.nanmean(values) == pytest.approx(1, abs=0.2)
    # All crystals alike, with [001] along z: the peak is at that corner.
    if laue == "m-3m":
        figure = plot_inverse_pole_figures({"": torch.eye(3).expand(5, 3, 3)}, group, cells=24)
        values = np.asarray(figure.axes[2].images[0].get_array())
        left, right, bottom, top = figure.axes[2].images[0].get_extent()
        row, column = np.unravel_index(np.nanargmax(values), values.shape)
        x = left + (column + 0.5) * (right - left) / values.shape[1]
        y = bottom + (row + 0.5) * (top - bottom) / values.shape[0]
        assert math.hypot(x, y) < 0.05


@each
def test_the_zone_holds_the_smallest_of_equivalent_rotations(laue: str) -> None:
    group = GROUPS[laue]
    x = orientations(100)
    smallest = np.linalg.norm(smallest_rotations(x, group), axis=1)
    angles = SO3().dist(torch.eye(3, dtype=torch.float64), x[:, None] @ group.matrices.double())
    np.testing.assert_allclose(smallest, angles.amin(1).numpy(), atol=1e-9)
    surface = torch.from_numpy(zone_surface(group, 6).reshape(-1, 3))
    if laue == "-1":
        return
    for share, within in ((0.98, True), (1.02, False)):
        angle = share * surface.norm(dim=-1)
        equivalents = matrix_from_rotvec(share * surface)[:, None] @ group.matrices.double()[1:]
        others = SO3().dist(torch.eye(3, dtype=torch.float64), equivalents).amin(1)
        # Beyond a half turn an angle counts from the other side.
        assert bool(((others >= angle - 1e-9) == within)[angle < math.pi].all())


def test_sections_of_the_uniform_density_are_one() -> None:
    manifold = Quotient(SO3(), RightMultiplication(Dihedral(6)))
    flow = Flow(manifold, lambda x, t: torch.zeros_like(x))
    figure = odf_sections(subject_of(flow, None, orientations(4).float(), evaluations=200))
    assert len(figure.axes) == 7
    for axes in figure.axes[:6]:
        np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), 1, atol=1e-4)
    assert figure.axes[1].get_title() == "\N{GREEK SMALL LETTER PHI}2 = 10°"
    ranges = [euler_ranges(GROUPS[laue].matrices.numpy()) for laue in ("m-3m", "6/m", "-1")]
    assert ranges == [(90, 90), (60, 180), (360, 180)]
    flow = Flow(Sphere(2), lambda x, t: torch.zeros_like(x))
    with pytest.raises(ValueError, match="is of orientations"):
        odf_sections(subject_of(flow, None, torch.eye(3)))


def test_the_fundamental_zone_is_drawn() -> None:
    figure = plot_fundamental_zone({"data": orientations(30), "none": orientations(0)}, Octahedral(), title="$x$")
    assert [axes.get_title() for axes in figure.axes[:2]] == ["data", "none"]
    figure.draw_without_rendering()
