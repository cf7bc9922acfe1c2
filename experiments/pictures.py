"""The pictures of the page on pictures, of kernel densities: flows that do not move, which take seconds.

Drawn by ``RFM_DATA=data python -m experiments.pictures [--only earthquakes winds steel rna] [--out docs/images]``.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import rfm
from experiments.torsions import rna_angles
from experiments.winds import winds as directions
from manifolds import SO3, FlatTorus, Manifold, Octahedral, Quotient, RightMultiplication, Sphere
from rfm import datasets, plotting
from rfm.datasets import Angles
from rfm.sources import KernelMixture

EVALUATIONS = 8000


def kernel_flow(
    manifold: Manifold, points: Tensor, centres: int = 2000, width_degrees: float | None = None
) -> rfm.Flow:
    """Return a flow that is a kernel density of points: its field is zero."""
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))
    fitted, chosen = points[order[:centres]], points[order[centres : centres + 500]]
    chosen = chosen if len(chosen) else fitted[::5]
    widths = None if width_degrees is None else torch.tensor([math.radians(width_degrees) ** -2], dtype=torch.float64)
    source = KernelMixture.one_bandwidth(manifold, fitted.double(), chosen.double(), concentrations=widths)
    return rfm.Flow(manifold, lambda x, t: torch.zeros_like(x), source)


def _write(figure: Any, file: Path) -> None:
    # A page is some nine hundred pixels wide.
    plotting.save_figure(figure, file, dots_per_inch=min(120, 950 / figure.get_figwidth()))


def earthquakes(folder: Path) -> list[Path]:
    """Draw a map about the Pacific with regions of half and nine tenths of the probability, and of Japan."""
    points = datasets.load("earthquake").points
    flow = kernel_flow(Sphere(2), points)
    files = [folder / "map-pacific.png", folder / "map-japan.png"]
    title = "Significant earthquakes"
    figure = plotting.plot_flow(flow, points, evaluations=EVALUATIONS, title=title, regions=(0.5, 0.9))
    _write(figure, files[0])
    view = plotting.View(126, 150, 28, 47)
    figure = plotting.plot_flow(flow, points, evaluations=2000, title=f"{title} of Japan", view=view)
    _write(figure, files[1])
    return files


def winds(folder: Path) -> list[Path]:
    """Draw roses of simulated directions of the wind."""
    points = directions(0.0)
    flow = kernel_flow(FlatTorus(1), points, 1200)
    coordinates = Angles(("wind_direction",), positive_angles=True)
    figure = plotting.plot_flow(flow, points, coordinates=coordinates, title="Directions of the wind")
    _write(figure, folder / "rose.png")
    return [folder / "rose.png"]


def steel(folder: Path) -> list[Path]:
    """Draw inverse pole figures, sections and the fundamental zone of the grains of a steel."""
    points = datasets.steel().points
    flow = kernel_flow(Quotient(SO3(), RightMultiplication(Octahedral())), points, width_degrees=7.0)
    subject = plotting.subject_of(flow, points, title="Grains of a steel", evaluations=EVALUATIONS)
    drawn: dict[str, Callable[..., Any]] = {
        "inverse-pole-figures": plotting.inverse_pole_figures,
        "odf-sections": plotting.odf_sections,
        "fundamental-zone": plotting.fundamental_zone,
    }
    files = [folder / f"{name}.png" for name in drawn]
    for file, make in zip(files, drawn.values(), strict=True):
        _write(make(subject), file)
    return files


def rna(folder: Path) -> list[Path]:
    """Draw all pairs of the seven torsion angles of RNA."""
    points, _ = rna_angles(published=True)
    names = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "chi")
    flow = kernel_flow(FlatTorus(7), points)
    figure = plotting.plot_flow(flow, points, coordinates=Angles(names), title="Torsion angles of RNA")
    _write(figure, folder / "torsion-pairs.png")
    return [folder / "torsion-pairs.png"]


_PICTURES = {"earthquakes": earthquakes, "winds": winds, "steel": steel, "rna": rna}


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw."""
    parser = argparse.ArgumentParser(prog="python -m experiments.pictures", description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=_PICTURES, default=list(_PICTURES), help="which (default: all)")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="folder (default: docs/images)")
    chosen = parser.parse_args(arguments)
    for name in chosen.only:
        for file in _PICTURES[name](chosen.out):
            print(file)


if __name__ == "__main__":
    main()
