"""The picture of the field: for each body what is seen, and where on a map of orientations the samples are.

After Murphy et al. 2021, arXiv:2106.05965: a dot's place on the map is the direction of one axis of the body, its
colour how far the body is turned about that axis. The axis is one that no symmetry of the body takes to itself, or to
one nearby, so that no two symmetric poses have one place.
"""

from pathlib import Path

import torch

import rfm
from experiments.symsol.bodies import BODIES
from experiments.symsol.renderer import render
from experiments.symsol.training import SOLVER
from manifolds import SO3
from manifolds.rotations import matrix_from_rotvec
from rfm.plotting import axes_map, colour_key, draw_orientations, finish, new_figure, save_figure

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
    generator = torch.Generator().manual_seed(seed)
    figure = new_figure(13, 9, "One picture, and the orientations that it allows")
    grid = figure.add_gridspec(3, 4, width_ratios=[1, 2.4, 1, 2.4])
    frame = matrix_from_rotvec(torch.tensor(_AXIS, dtype=torch.float64))
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
        axes = axes_map(figure, grid[row, 2 * column + 1], title)
        draw_orientations(axes, truth, frame, rings=True, s=90, linewidths=1.1, zorder=3)
        draw_orientations(axes, drawn, frame, s=7, linewidths=0)
    legend = figure.add_subplot(grid[2, 2:])
    legend.set_axis_off()
    colour_key(figure, "turn about the axis, degrees", ax=legend, fraction=0.5)
    save_figure(figure, path)
