"""Sections of an orientation distribution function at constant Euler angle."""

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from manifolds.rotations import matrix_from_euler
from rfm.plotting.figures import DENSITY_COLOURS, INK, finish, new_figure
from rfm.plotting.layouts import Subject
from rfm.plotting.orientations import crystal_symmetry
from rfm.plotting.panels import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SECTIONS, _COLUMNS = 6, 3


def odf_sections(subject: Subject) -> "Figure":
    """Draw sections of the density of orientations at constant phi2, in multiples of the uniform density.

    The axes are Bunge's angles phi1, across, and Phi, downwards. Symmetry of the crystal bounds what is shown: phi2 to
    a turn over the order of its main axis, Phi to 90 degrees where the axis has two equal ends. Cubic crystals are seen
    three times, as usual.

    Args:
        subject: of a flow on ``SO3()`` or its quotient by the crystal's rotations; see `subject_of`.

    Raises:
        ValueError: the flow is on another manifold, or has no density.

    References:
        Bunge: Texture Analysis in Materials Science, 1982, section 2.1.
    """
    group = crystal_symmetry(subject)
    volume = subject.flow.manifold.volume
    phi2_end, phi_end = euler_ranges(group.matrices.double().cpu().numpy())
    assert volume is not None
    sections = np.arange(_SECTIONS) * phi2_end / _SECTIONS
    step = max(2.0, math.sqrt(360 * phi_end * _SECTIONS / subject.evaluations))
    phi1, phi = (_centres(end, step) for end in (360.0, phi_end))
    angles = np.stack(np.meshgrid(sections, phi, phi1, indexing="ij"), axis=-1)[..., ::-1]
    rotations = matrix_from_euler(torch.from_numpy(np.radians(angles.reshape(-1, 3))), "zxz", "intrinsic")
    log_density = subject.log_density(rotations.numpy()).reshape(angles.shape[:-1])
    density = np.exp(log_density) * float(volume)
    # Uniform orientations have sin(Phi) as the density of Phi; the mean over all is 1.
    measure = np.sin(np.radians(phi))[:, None]
    mean = float((density * measure).mean() / measure.mean())
    missed = "" if 0.5 < mean < 2 else ", between which there are sharper peaks"
    return _draw(subject.title, sections, phi_end, density, f"values every {phi_end / len(phi):.1f}°{missed}")


def euler_ranges(group: Array) -> tuple[float, float]:
    """Return up to where phi2 and Phi go in degrees, for the rotations ``(order, 3, 3)`` of a crystal."""
    along = group[:, 2, 2]
    order = int((along > 1 - 1e-6).sum())
    return 360.0 / order, 90.0 if bool((along < -1 + 1e-6).any()) else 180.0


def _centres(end: float, step: float) -> Array:
    n = max(4, round(end / step))
    return (np.arange(n) + 0.5) * end / n


def _draw(title: str | None, sections: Array, phi_end: float, density: Array, note: str) -> "Figure":
    rows = len(sections) // _COLUMNS
    figure = new_figure(4.3 * _COLUMNS, (3.7 * phi_end / 360 + 0.5) * rows + (1.2 if title else 0.7), title)
    panels = figure.subplots(rows, _COLUMNS, sharex=True, sharey=True)
    # A single sharp peak would leave all else black.
    high = float(np.quantile(density, 0.999))
    for axes, phi2, values in zip(panels.flat, sections, density, strict=True):
        shown = axes.imshow(
            values,
            extent=(0, 360, phi_end, 0),
            cmap=DENSITY_COLOURS,
            vmin=0,
            vmax=high,
            interpolation="bilinear",
            interpolation_stage="data",
        )
        finish(axes, f"\N{GREEK SMALL LETTER PHI}2 = {phi2:g}°")
        axes.set_xticks(range(0, 361, 90))
        axes.set_yticks(np.arange(0, phi_end + 1, 30))
    for axes in panels[-1]:
        axes.set_xlabel("\N{GREEK SMALL LETTER PHI}1 (degrees)", fontsize=11, color=INK)
    for axes in panels[:, 0]:
        axes.set_ylabel("\N{GREEK CAPITAL LETTER PHI} (degrees)", fontsize=11, color=INK)
    figure.supxlabel(note, fontsize=9, color=INK)
    bar = figure.colorbar(shown, ax=list(panels.flat), shrink=0.8, extend="max")
    bar.set_label("multiples of uniform", fontsize=10, color=INK)
    bar.ax.tick_params(labelsize=9, colors=INK)
    bar.outline.set_linewidth(0)
    return figure
