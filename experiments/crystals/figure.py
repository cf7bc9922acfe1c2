"""Crystals that were drawn, and how they compare with real ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gemmi
import numpy as np

from experiments.crystals.data import Crystal
from experiments.crystals.measures import Measured
from rfm.plotting import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_VIEW = np.array([[0.87, 0.0], [-0.35, 0.30], [0.35, 0.95]])
"""From a place in space to one on the page."""


def draw(
    sets: Mapping[str, Sequence[Measured]],
    nearest: Mapping[str, Sequence[float]],
    pictured: Sequence[Crystal],
    path: Path,
) -> None:
    """Draw distributions of what sets of crystals measure, above some crystals of the flow, to a file.

    Args:
        sets: measures by name; the first is drawn as the reference.
        nearest: distances to the nearest training crystal, by name.
        pictured: crystals to draw.
        path: the file.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.6), layout="constrained")
    halves: Any = figure.subfigures(2, 1)
    above, below = halves
    panels = above.subplots(1, 3)
    values = {
        "volume per atom, cubic angstroms": {name: [m.volume for m in found] for name, found in sets.items()},
        "shortest contact over the sum of radii": {name: [m.contact for m in found] for name, found in sets.items()},
        "to the nearest training crystal, angstroms": nearest,
    }
    for axis, (label, by_name) in zip(panels, values.items(), strict=True):
        for i, (name, numbers) in enumerate(by_name.items()):
            axis.ecdf(numbers, label=name, color="0.2" if i == 0 else f"C{i - 1}", linewidth=2.0 if i < 2 else 1.2)
        axis.set_xlabel(label, fontsize=9)
        axis.set_xlim(0, float(np.quantile(np.concatenate([*by_name.values()]), 0.99)))
    panels[0].set_ylabel("share below", fontsize=9)
    panels[0].legend(fontsize=8, loc="lower right")
    for axis, crystal in zip(below.subplots(1, len(pictured)), pictured, strict=True):
        _draw_crystal(axis, crystal)
    save_figure(figure, path)


def _draw_crystal(axis: "Axes", crystal: Crystal) -> None:
    """Draw the atoms of a cell and of its faces, far ones first, and the cell's edges."""
    from matplotlib.patches import Circle

    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    for a in corners:
        for b in corners[(np.abs(corners - a).sum(1) == 1) & (corners.sum(1) > a.sum())]:
            axis.plot(*(np.stack([a, b]) @ crystal.lattice @ _VIEW).T, color="0.7", linewidth=0.8, zorder=0)
    wrapped = np.mod(crystal.fractions - crystal.fractions[0], 1.0)
    copies = [
        (place, number)
        for shift in corners
        for place, number in zip(wrapped + shift, crystal.numbers, strict=True)
        if (place <= 1 + 1e-6).all()
    ]
    order = sorted(copies, key=lambda copy: float((copy[0] @ crystal.lattice)[1]), reverse=True)
    elements = sorted(set(crystal.numbers.tolist()))
    for depth, (place, number) in enumerate(order):
        x, y = place @ crystal.lattice @ _VIEW
        radius = 0.45 * gemmi.Element(int(number)).covalent_r
        colour = f"C{elements.index(int(number))}"
        axis.add_patch(Circle((x, y), radius, facecolor=colour, edgecolor="0.15", linewidth=0.6, zorder=depth + 1))
    axis.set_title(f"{crystal.formula}\nspace group {crystal.space_group(0.1)}", fontsize=9)
    axis.set_aspect("equal")
    axis.autoscale_view()
    axis.axis("off")
