"""Orientations: a dot's place on a map is where an axis of the body points, its colour how far the body is turned.

After Murphy et al., Implicit-PDF, 2021, arXiv:2106.05965: nothing of an orientation is left out, and many modes can be
told apart. For crystals, whose axes come in families, see `rfm.plotting.pole_figures`.
"""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from manifolds import SO3, Cyclic, Quotient, RightMultiplication, RotationGroup
from manifolds.composed.finite_group import FiniteGroup
from manifolds.rotations import euler_from_matrix, rotvec_from_matrix
from rfm.plotting.figures import INK, PAPER, new_figure
from rfm.plotting.layouts import Subject
from rfm.plotting.maps import world_map
from rfm.plotting.panels import Array, colour_bar, point_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

Z_AXIS = ((0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0))
"""The frame whose first axis is the body's third; its second, from which turns are counted, is the body's first."""


def axis_and_turn(rotations: Tensor, frame: Tensor | None = None) -> tuple[Array, Array, Array]:
    """Return longitude and latitude in radians of where an axis points, and the turn about it in degrees.

    A turn of 0 has the frame's second axis level, to the east of where the first one points.

    Args:
        rotations: body to world, ``(n, 3, 3)``.
        frame: a rotation matrix whose columns are axes of the body; the first is the one shown. `Z_AXIS` by default.
    """
    frame = torch.tensor(Z_AXIS, dtype=torch.float64) if frame is None else frame.double()
    turned = rotations.detach().cpu().double() @ frame
    yaw, pitch, roll = euler_from_matrix(turned, "zyx", "intrinsic").unbind(-1)
    return yaw.numpy(), -pitch.numpy(), (roll * (180 / math.pi)).numpy()


def turn_colours() -> "ScalarMappable":
    """Return the colours of turns from -180 to 180 degrees, the same at both ends."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    return ScalarMappable(Normalize(-180, 180), "hsv")


def draw_orientations(
    axes: "Axes", rotations: Tensor, frame: Tensor | None = None, *, rings: bool = False, **style: Any
) -> None:
    """Draw orientations on a map.

    Args:
        axes: those of `rfm.plotting.maps.world_map`.
        rotations: body to world, ``(n, 3, 3)``.
        frame: as in `axis_and_turn`.
        rings: draw rings, which leave room for dots.
        style: of the dots, for ``Axes.scatter``.
    """
    longitude, latitude, turn = axis_and_turn(rotations, frame)
    colours: Any = turn_colours().to_rgba(turn)
    colour = {"edgecolors": colours, "facecolors": "none"} if rings else {"color": colours}
    axes.scatter(longitude, latitude, **({"zorder": 4} | colour | style))


def colour_key(figure: "Figure", what: str, **place: Any) -> None:
    """Draw the colour bar of turns, placed by the arguments of ``Figure.colorbar``."""
    colour_bar(figure, turn_colours(), what, orientation="horizontal", **place)
    figure.axes[-1].set_xticks(range(-180, 181, 90))


def axes_map(figure: "Figure", place: Any, title: str) -> "Axes":
    """Add a map of directions, on which the world's axes are marked."""
    from matplotlib.patheffects import withStroke

    axes = world_map(figure, place, title, earth=False)
    axes.set_xticklabels([])
    axes.set_yticklabels([])
    style: dict[str, Any] = {"color": INK, "fontsize": 11, "ha": "center", "va": "center", "zorder": 5}
    # A rim in the colour of the ground keeps the letters apart from dots.
    style["path_effects"] = [withStroke(linewidth=3, foreground=PAPER)]
    for name, longitude, latitude in (("x", 0, 0), ("y", 90, 0), ("\N{MINUS SIGN}y", -90, 0), ("z", 0, 72)):
        axes.text(math.radians(longitude), math.radians(latitude), name, **style)
    return axes


def orientation_figure(subject: Subject) -> "Figure":
    """Draw data beside samples on maps of directions."""
    figure = new_figure(6.4 * len(subject.sets), 4.4, subject.title)
    grid = figure.add_gridspec(2, len(subject.sets), height_ratios=(1, 0.05))
    for i, s in enumerate(subject.sets):
        drawn = s.some(subject.count)
        axes = axes_map(figure, grid[0, i], s.title(len(drawn)))
        draw_orientations(axes, drawn, **point_style(subject.count))
    label = "place: where the body's z axis points; colour: turn about it, degrees"
    colour_key(figure, label, cax=figure.add_subplot(grid[1, :]))
    return figure


def smallest_rotation_vectors(x: Tensor, group: FiniteGroup) -> Tensor:
    """Return the shortest rotation vector of each class of orientations ``(n, 3, 3)``, ``(n, 3)`` radians."""
    vectors = rotvec_from_matrix(group.orbit(x.double()))
    return vectors.gather(1, vectors.norm(dim=-1).argmin(1)[:, None, None].expand(-1, 1, 3))[:, 0]


def crystal_symmetry(subject: Subject) -> RotationGroup:
    """Return the rotations that a flow of orientations counts as nothing, the identity alone on ``SO3()``.

    Raises:
        ValueError: the flow is not one of orientations.
    """
    manifold = subject.flow.manifold
    if isinstance(manifold, SO3):
        return Cyclic(1)
    if isinstance(manifold, Quotient) and isinstance(manifold.m, SO3):
        group = manifold.group
        if isinstance(group, RightMultiplication):
            return group.rotations
    raise ValueError(
        f"this picture is of orientations, on SO3() or its quotient by a crystal's rotations; got a flow on {manifold}"
    )
