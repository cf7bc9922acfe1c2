"""Fundamental zones: orientations of crystals in space, each as the smallest of its equivalent rotations."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from manifolds import RotationGroup
from manifolds.rotations import axis_angle_from_matrix, rotvec_from_matrix
from rfm.arrays import tensor_of
from rfm.plotting.crystal_sectors import ipf_colours, sector_of
from rfm.plotting.figures import new_figure
from rfm.plotting.inverse_pole_figures import draw_colour_key
from rfm.plotting.panels import Array, point_style
from rfm.plotting.trajectories import space

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DEGREES = 180 / math.pi


def plot_fundamental_zone(sets: Mapping[str, Tensor], symmetry: RotationGroup, *, title: str | None = None) -> "Figure":
    """Draw sets of orientations as rotation vectors in the fundamental zone of the crystal, side by side.

    Colours are those of inverse pole figures, of the crystal direction along the sample's z axis. The zone holds the
    rotations that are at most as large as all of their equivalents; the net is its surface.

    Args:
        sets: by name, orientations ``(n, 3, 3)``, which take crystal coordinates to those of the sample.
        symmetry: the rotations of one of the eleven Laue groups.
        title: stands above everything.

    References:
        Morawiec and Field, Rodrigues parameterization for orientation and misorientation distributions, Philosophical
        Magazine A 73, 1996.
    """
    net = _DEGREES * zone_surface(symmetry)
    figure = new_figure(5.8 * len(sets) + 2.6, 5.8, title)
    grid = figure.add_gridspec(1, len(sets) + 1, width_ratios=[1.0] * len(sets) + [0.4])
    for i, (name, x) in enumerate(sets.items()):
        axes = space(figure, grid[0, i], name, torch.from_numpy(net.reshape(-1, 3)), unit="degrees")
        vectors = _DEGREES * smallest_rotations(x, symmetry)
        # As far as leaves room for the label on the right.
        axes.set_box_aspect((1, 1, 1), zoom=0.88)
        axes.plot_wireframe(*np.moveaxis(net, -1, 0), color="#888888", linewidth=0.4, alpha=0.35)
        style = point_style(len(vectors)) | {"alpha": 0.8}
        axes.scatter(*vectors.T, c=ipf_colours(x, symmetry), depthshade=False, **style)
    draw_colour_key(figure.add_subplot(grid[0, -1]), sector_of(symmetry))
    return figure


def smallest_rotations(rotations: Tensor, symmetry: RotationGroup) -> Array:
    """Return the smallest rotation vectors ``(n, 3)`` in radians among the equivalents ``x g`` of orientations."""
    x = tensor_of("smallest_rotations", "rotations", rotations, torch.float64).detach().cpu()
    equivalents = x[:, None] @ symmetry.matrices.double().cpu()
    traces = equivalents.diagonal(dim1=-2, dim2=-1).sum(-1)
    chosen = equivalents[torch.arange(len(x)), traces.argmax(1)]
    vectors: Array = rotvec_from_matrix(chosen).numpy()
    return vectors


def zone_surface(symmetry: RotationGroup, steps: int = 24) -> Array:
    """Return rotation vectors in radians on the surface of the zone, ``(steps + 1, 2 steps + 1, 3)``.

    About an axis n, rotations by angle w are nearer to no rotation than to g, of axis a and angle v, up to
    ``tan(w / 2) = tan(v / 4) / |n . a|``: the zone's sides are planes in Rodrigues's vectors.
    """
    axes, angles = axis_angle_from_matrix(symmetry.matrices.double().cpu()[1:])
    polar, around = np.linspace(0, math.pi, steps + 1), np.linspace(0, 2 * math.pi, 2 * steps + 1)
    p, a = np.meshgrid(polar, around, indexing="ij")
    n = np.stack([np.sin(p) * np.cos(a), np.sin(p) * np.sin(a), np.cos(p)], axis=-1)
    if not len(angles):
        return n * math.pi
    along = np.abs(n @ axes.numpy().T)
    largest = 2 * np.arctan2(np.tan(angles.numpy() / 4), along).min(-1)
    return n * largest[..., None]
