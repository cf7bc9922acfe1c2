"""Pictures of protein backbones: the chain, its torsion angles, and which residues are near each other."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rfm.plotting.figures import DATA_COLOUR, INK, SAMPLE_COLOUR, finish, new_figure
from rfm.plotting.panels import colour_bar, point_style
from rfm.proteins.backbones import COIL, HELIX, STRAND, secondary_structure, torsions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {COIL: "#999999", HELIX: SAMPLE_COLOUR, STRAND: DATA_COLOUR}
_NAMES = {HELIX: "helix", STRAND: "strand", COIL: "neither"}
_GROUND = "#dddddd"
_FARTHEST_ANGSTROM = 30.0


def plot_backbone(atoms: Tensor, title: str | None = None, real_angles: Tensor | None = None) -> "Figure":
    """Return a figure of one chain: its trace coloured by structure, a Ramachandran plot, distances between CA.

    Args:
        atoms: N, CA, C and perhaps O, ``(residues, 3 or 4, 3)``, Angstrom.
        title: of the figure.
        real_angles: phi and psi of real residues, radians, ``(n, 2)``: drawn beneath the chain's own.
    """
    figure = new_figure(16, 5.4, title)
    trace, angles, distances = figure.subplots(1, 3, width_ratios=(1.1, 1, 1.15))
    atoms = atoms.detach().double().cpu()
    draw_trace(trace, atoms)
    draw_ramachandran(angles, atoms, real_angles)
    apart = torch.cdist(atoms[:, 1], atoms[:, 1]).numpy()
    shown = distances.imshow(apart, origin="lower", cmap="magma", vmin=0, vmax=_FARTHEST_ANGSTROM, interpolation="none")
    finish(distances, "Distances between CA", "residue", "residue")
    colour_bar(figure, shown, "Å", ax=distances, extend="max")
    return figure


def draw_trace(axes: "Axes", atoms: Tensor) -> None:
    """Draw the trace of CA in the plane in which it is widest, near parts over far ones."""
    from matplotlib.lines import Line2D

    kinds = secondary_structure(atoms[:, 1]).tolist()
    ca = (atoms[:, 1] - atoms[:, 1].mean(0)).numpy()
    plane = ca @ np.linalg.svd(ca, full_matrices=False)[2].T
    depth = (plane[1:, 2] + plane[:-1, 2]) / 2
    for place, i in enumerate(np.argsort(depth)):
        ends = plane[i : i + 2, :2].T
        # A white edge parts a bond from those that it passes over.
        axes.plot(*ends, color="white", linewidth=6.5, solid_capstyle="butt", zorder=2 * place)
        axes.plot(*ends, color=_COLOURS[kinds[i]], linewidth=3.5, solid_capstyle="round", zorder=2 * place + 1)
    top = 2 * len(ca)
    for i, name in ((0, "N"), (-1, "C")):
        axes.text(plane[i, 0], plane[i, 1], name, fontsize=12, fontweight="bold", color=INK, zorder=top + 1)
    axes.set_aspect("equal")
    axes.margins(0.08)
    handles = [Line2D([], [], color=_COLOURS[kind], linewidth=4, label=name) for kind, name in _NAMES.items()]
    axes.legend(handles=handles, fontsize=10, frameon=False, loc="best").set_zorder(top + 2)
    finish(axes, f"{len(ca)} residues", "Å", "Å")


def draw_ramachandran(axes: "Axes", atoms: Tensor, real_angles: Tensor | None = None) -> None:
    """Draw phi and psi of a chain, coloured by structure, over those of real residues."""
    if real_angles is not None:
        ground = np.rad2deg(real_angles.double().numpy())
        axes.scatter(ground[:, 0], ground[:, 1], color=_GROUND, **point_style(len(ground)))
    angles = np.rad2deg(torsions(atoms)[:, :2].numpy())
    kinds = secondary_structure(atoms[:, 1]).numpy()
    for kind in _NAMES:
        # Structure has its own legend beside the trace.
        phi, psi = angles[kinds == kind].T
        axes.scatter(phi, psi, color=_COLOURS[kind], s=16, linewidths=0)
    axes.set(
        xlim=(-180, 180), ylim=(-180, 180), xticks=range(-180, 181, 90), yticks=range(-180, 181, 90), aspect="equal"
    )
    finish(axes, "Torsion angles", "phi, degrees", "psi, degrees")
