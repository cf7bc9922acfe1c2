"""Pictures of flows: a world map, a Ramachandran plot, marginals, by manifold; of fits; of protein backbones.

Every function returns a matplotlib figure with a canvas of its own. No window is opened, and matplotlib's global state
(pyplot, rcParams) is neither read for a current figure nor changed. Importing this package does not import matplotlib.
"""

from rfm.plotting.backbones import plot_backbone
from rfm.plotting.figures import save_figure
from rfm.plotting.flows import plot_flow
from rfm.plotting.history import plot_history

__all__ = ["plot_backbone", "plot_flow", "plot_history", "save_figure"]
