"""Moving pictures of rollouts: bodies that turn to their goal, beside the angle that is left."""

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from experiments.policies.attitude import MOMENTS, SECONDS, Attitude
from experiments.policies.tasks import TASKS
from rfm.plotting import new_figure, write_gif

_BODIES, _EVERY, _COLOURS = 3, 2, 48
_AXES = ("#d55e00", "#009e73", "#0072b2")
_SIDES = (1.0, 0.6, 0.35)
"""Half the lengths of a body's edges."""


def film_attitude(weights: Path, path: Path) -> None:
    """Write a GIF of an episode of some bodies, turned by a flow policy without noise.

    Args:
        weights: as a run leaves them.
        path: of the GIF.
    """
    bodies = Attitude(_BODIES, seed=77)
    actor = TASKS["Attitude"].actor(bodies, 0)
    actor.load_state_dict(torch.load(weights, weights_only=True))
    seen, attitudes, angles = bodies.reset(), [], []
    for _ in range(MOMENTS):
        attitudes.append(bodies.attitude)
        angles.append(bodies.angle())
        seen = bodies.step(actor.act(seen, noise=torch.zeros(_BODIES, 3))).observation
    figures = (_frame(torch.stack(attitudes), torch.stack(angles), k) for k in range(0, MOMENTS, _EVERY))
    write_gif(figures, path, int(1000 * SECONDS * _EVERY), last=1500, colours=_COLOURS)


def _frame(attitudes: Tensor, angles: Tensor, moment: int) -> Figure:
    figure = new_figure(7.2, 2.4, None)
    for i in range(_BODIES):
        _draw_body(figure, i, attitudes[moment, i])
    own = figure.add_subplot(1, _BODIES + 1, _BODIES + 1)
    seconds = SECONDS * np.arange(moment + 1)
    own.plot(seconds, torch.rad2deg(angles[: moment + 1]).numpy(), lw=1.2)
    own.set_xlim(0, SECONDS * MOMENTS)
    own.set_ylim(0, 185)
    own.set_xlabel("seconds", fontsize=8)
    own.set_ylabel("degrees from the goal", fontsize=8)
    own.tick_params(labelsize=7)
    return figure


def _draw_body(figure: Figure, place: int, attitude: Tensor) -> None:
    """Draw a box as it is turned, its axes, and in grey the axes that they are to reach."""
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection  # type: ignore[import-untyped]

    own = figure.add_subplot(1, _BODIES + 1, place + 1, projection="3d")
    rotation = attitude.numpy()
    half = np.array(_SIDES)
    faces = []
    for axis in range(3):
        first, second = (a for a in range(3) if a != axis)
        for side in (-1, 1):
            corners = np.zeros((4, 3))
            corners[:, axis] = side
            corners[:, first], corners[:, second] = [-1, 1, 1, -1], [-1, -1, 1, 1]
            faces.append((half * corners) @ rotation.T)
    colours = [colour for colour in _AXES for _ in range(2)]
    own.add_collection3d(Poly3DCollection(faces, facecolors=colours, edgecolors="white", lw=0.6, alpha=0.95))
    for axis, colour in enumerate(_AXES):
        for direction, style in (
            (np.eye(3)[:, axis], {"color": "0.6", "lw": 3}),
            (rotation[:, axis], {"color": colour}),
        ):
            own.plot(*np.stack([np.zeros(3), 1.5 * direction], 1), **style)
    for limit in (own.set_xlim, own.set_ylim, own.set_zlim):
        limit(-0.9, 0.9)
    own.set_box_aspect((1, 1, 1))
    own.set_axis_off()
