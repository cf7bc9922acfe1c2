"""Pictures of flows: a world map, a Ramachandran plot, marginals, by manifold; pole figures; backbones; fits.

Every ``plot_`` function returns a matplotlib figure with a canvas of its own, `interactive` a page that turns. No
window is opened, and matplotlib's global state (pyplot, rcParams) is neither read for a current figure nor left
changed. Importing this package imports neither matplotlib nor plotly.
"""

from rfm.plotting.animated_pages import animated
from rfm.plotting.animation import save_animation, write_gif
from rfm.plotting.backbones import plot_backbone
from rfm.plotting.borders import border_lines, draw_border_in_plane, draw_border_on_map
from rfm.plotting.crystal_sectors import ipf_colours
from rfm.plotting.figures import DATA_COLOUR, SAMPLE_COLOUR, finish, new_figure, save_figure
from rfm.plotting.flows import fundamental_zone, inverse_pole_figures, picture, plot_flow, subject_of
from rfm.plotting.fundamental_zones import plot_fundamental_zone
from rfm.plotting.history import plot_history
from rfm.plotting.interactive import interactive, page_fragment, save_page
from rfm.plotting.inverse_pole_figures import plot_inverse_pole_figures
from rfm.plotting.maps import coastlines, draw_points, world_map
from rfm.plotting.motion import Motion, motion_of
from rfm.plotting.odf_sections import odf_sections
from rfm.plotting.orientations import axes_map, colour_key, draw_orientations
from rfm.plotting.pole_figures import plot_pole_figures, pole_density
from rfm.plotting.reliability import plot_reliability
from rfm.plotting.trajectories import draw_frames, draw_track, space
from rfm.plotting.views import View, chosen_view

__all__ = [
    "DATA_COLOUR",
    "SAMPLE_COLOUR",
    "Motion",
    "View",
    "animated",
    "axes_map",
    "border_lines",
    "chosen_view",
    "coastlines",
    "colour_key",
    "draw_border_in_plane",
    "draw_border_on_map",
    "draw_frames",
    "draw_orientations",
    "draw_points",
    "draw_track",
    "finish",
    "fundamental_zone",
    "interactive",
    "inverse_pole_figures",
    "ipf_colours",
    "motion_of",
    "new_figure",
    "odf_sections",
    "page_fragment",
    "picture",
    "plot_backbone",
    "plot_flow",
    "plot_fundamental_zone",
    "plot_history",
    "plot_inverse_pole_figures",
    "plot_pole_figures",
    "plot_reliability",
    "pole_density",
    "save_animation",
    "save_figure",
    "save_page",
    "space",
    "subject_of",
    "world_map",
    "write_gif",
]
