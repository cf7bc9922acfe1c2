"""Pictures of flows: a world map, a Ramachandran plot, marginals, by manifold; pole figures; backbones; fits.

Every function returns a matplotlib figure with a canvas of its own. No window is opened, and matplotlib's global state
(pyplot, rcParams) is neither read for a current figure nor changed. Importing this package does not import matplotlib.
"""

from rfm.plotting.backbones import plot_backbone
from rfm.plotting.figures import DATA_COLOUR, SAMPLE_COLOUR, finish, new_figure, save_figure
from rfm.plotting.flows import plot_flow
from rfm.plotting.history import plot_history
from rfm.plotting.maps import draw_points, world_map
from rfm.plotting.orientations import axes_map, colour_key, draw_orientations
from rfm.plotting.pole_figures import plot_pole_figures, pole_density
from rfm.plotting.trajectories import draw_frames, draw_track, space

__all__ = [
    "DATA_COLOUR",
    "SAMPLE_COLOUR",
    "axes_map",
    "colour_key",
    "draw_frames",
    "draw_orientations",
    "draw_points",
    "draw_track",
    "finish",
    "new_figure",
    "plot_backbone",
    "plot_flow",
    "plot_history",
    "plot_pole_figures",
    "pole_density",
    "save_figure",
    "space",
    "world_map",
]
