"""The pictures of the study of borders."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import shapely
from torch import Tensor

from experiments.borders import earth
from manifolds import Bounded, Sphere
from rfm.plotting import DATA_COLOUR, SAMPLE_COLOUR, border_lines, draw_border_in_plane, finish, new_figure, save_figure


def draw(file: Path, points: Callable[[str], Tensor], maze: Callable[[str], Bounded], on_earth: bool) -> None:
    """Draw trajectories through both mazes, and samples of the catalogues on their side of the coast.

    Args:
        file: where to.
        points: from a name to points that the study kept.
        maze: from a name to the maze.
        on_earth: whether to draw the catalogues too.
    """
    figure = new_figure(12, 10 if on_earth else 6, None)
    grid = figure.add_gridspec(2, 2, height_ratios=(1.25, 1)) if on_earth else figure.add_gridspec(1, 2)
    for column, name in enumerate(("maze_3x3", "maze_4x4")):
        axes = figure.add_subplot(grid[0, column])
        ways = points(name).numpy()
        axes.plot(ways[..., 0], ways[..., 1], color="#9aa5b1", linewidth=0.5, alpha=0.7)
        axes.scatter(ways[0, :, 0], ways[0, :, 1], s=6, color=DATA_COLOUR, zorder=3, label="start")
        axes.scatter(ways[-1, :, 0], ways[-1, :, 1], s=6, color=SAMPLE_COLOUR, zorder=3, label="samples")
        draw_border_in_plane(axes, maze(name), 1.0)
        corners = np.concatenate(border_lines(maze(name)))
        axes.set(xlim=(corners[:, 0].min() - 0.1, corners[:, 0].max() + 0.1))
        axes.set(ylim=(corners[:, 1].min() - 0.1, corners[:, 1].max() + 0.1))
        axes.set_aspect("equal")
        axes.legend(loc="upper right", frameon=True)
        finish(axes, name.replace("_", " "))
    catalogues = () if not on_earth else (("earthquakes in the sea", earth.sea()), ("floods on land", earth.land()))
    for column, (name, polygon) in enumerate(catalogues):
        axes = figure.add_subplot(grid[1, column])
        for part in shapely.get_parts(polygon):
            for ring in (part.exterior, *part.interiors):
                axes.plot(*np.asarray(ring.coords).T, color="#d1495b", linewidth=0.7)
        latitude, longitude = Sphere.to_degrees(points(f"{name} bounded flow").double())
        axes.scatter(longitude, latitude, s=2, color=SAMPLE_COLOUR)
        axes.set(xlim=(-180, 180), ylim=(-90, 90))
        axes.set_aspect("equal")
        finish(axes, f"{name}: 1,500 samples", "longitude, degrees", "latitude, degrees")
    save_figure(figure, file)
