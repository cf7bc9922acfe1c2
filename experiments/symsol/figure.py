"""The picture of the field: for each body what is seen, and where on a map of orientations the samples are.

After Murphy et al. 2021, arXiv:2106.05965: a dot's place on the map is the direction of one axis of the body, its
colour how far the body is turned about that axis. The axis is one that no symmetry of the body takes to itself, or to
one nearby, so that no two symmetric poses have one place.
"""

import math
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

import rfm
from experiments.symsol.bodies import BODIES
from experiments.symsol.renderer import render
from experiments.symsol.training import SOLVER
from manifolds import SO3
from manifolds.rotations import euler_from_matrix, matrix_from_rotvec
from rfm.plotting.figures import finish, new_figure, save_figure
from rfm.plotting.maps import world_map

_COLOURS = "hsv"
_AXIS = (0.2, 0.25, 0.35)
"""The rotation vector, in the body, that takes the first axis to the one that is shown."""


def draw(flow: rfm.Flow, path: Path, samples: int = 1000, seed: int = 5) -> None:
    """Draw one picture of each body beside samples of the flow given it; the true poses are ringed.

    Args:
        flow: the trained flow.
        path: PNG file.
        samples: number of samples for each picture.
        seed: of poses and samples.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    generator = torch.Generator().manual_seed(seed)
    figure = new_figure(13, 9, "One picture, and the orientations that it allows")
    grid = figure.add_gridspec(3, 4, width_ratios=[1, 2.4, 1, 2.4])
    colours = ScalarMappable(Normalize(-180, 180), _COLOURS)
    for i, body in enumerate(BODIES):
        row, column = divmod(i, 2)
        pose = SO3().random_uniform(1, generator=generator)
        picture = render(body, pose)[0]
        seen = figure.add_subplot(grid[row, 2 * column])
        finish(seen, body.name)
        seen.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=1)
        seen.set_axis_off()
        drawn = flow.sample(samples, condition={"picture": picture}, generator=generator, solver=SOLVER)
        truth = body.symmetric_poses(pose, turns=60)[0]
        title = f"{samples:,} samples, {len(truth)} poses" if body.quadric is None else f"{samples:,} samples"
        axes = world_map(figure, grid[row, 2 * column + 1], title, earth=False)
        place, turn = _on_map(truth)
        rings: Any = colours.to_rgba(turn)
        axes.scatter(*place, edgecolors=rings, facecolors="none", s=90, linewidths=1.1, zorder=3)
        place, turn = _on_map(drawn)
        axes.scatter(*place, color=colours.to_rgba(turn), s=7, linewidths=0, zorder=4)
    legend = figure.add_subplot(grid[2, 2:])
    legend.set_axis_off()
    figure.colorbar(colours, ax=legend, orientation="horizontal", label="turn about the axis, degrees", fraction=0.5)
    save_figure(figure, path)


def _on_map(poses: Tensor) -> tuple[tuple[NDArray[Any], NDArray[Any]], NDArray[Any]]:
    """Return longitude and latitude of the axis in radians, and the turn about it in degrees."""
    axis = matrix_from_rotvec(torch.tensor(_AXIS, dtype=torch.float64))
    yaw, pitch, roll = euler_from_matrix(poses.double() @ axis, "zyx", "intrinsic").unbind(-1)
    return (yaw.numpy(), -pitch.numpy()), (roll * (180 / math.pi)).numpy()
