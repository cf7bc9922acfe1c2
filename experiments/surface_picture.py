"""The picture of a density on a surface: points drawn on the cow Spot, a flow fitted to them.

    python -m experiments.surface_picture [--mesh FILE] [--points 2000] [--figure docs/images/surface.png]

Spot (Keenan Crane, in the public domain) is looked for in the folder RFM_DATA. The points are drawn from the positive
part of an eigenfunction of the surface's Laplacian, as in the experiments of Chen & Lipman 2023, arXiv:2302.03660.
"""

import argparse
import os
from pathlib import Path

import torch
from torch import Tensor

import rfm
from manifolds import Mesh
from rfm import datasets, plotting


def draws(mesh: Mesh, k: int, count: int, seed: int = 0) -> Tensor:
    """Return points whose density is proportional to the positive part of eigenfunction ``k``, ``(count, 3)``."""
    values = mesh.eigenpairs(k + 1)[1][:, k].clamp(min=0)
    generator = torch.Generator().manual_seed(seed)
    kept: list[Tensor] = []
    while sum(map(len, kept)) < count:
        x = mesh.random_uniform(4 * count, generator=generator, dtype=torch.float64)
        height = torch.rand(len(x), generator=generator, dtype=torch.float64) * float(values.max())
        kept.append(x[height < mesh.interpolate(values, x)])
    return torch.cat(kept)[:count]


def main() -> None:
    """Fit, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mesh", type=Path, default=Path(os.environ.get("RFM_DATA", ".")) / "mesh" / "spot.obj")
    parser.add_argument("--points", type=int, default=2000)
    parser.add_argument("--figure", type=Path, default=Path("docs/images/surface.png"))
    arguments = parser.parse_args()
    mesh = datasets.read_mesh(arguments.mesh, closed=True)
    points = draws(mesh, 20, arguments.points)
    flow = rfm.fit(points, mesh, progress=False)
    plotting.save_figure(plotting.plot_flow(flow, points), arguments.figure)
    print(f"{arguments.figure}: validation NLL {flow.history[-1]['validation_nll']:.3f} nats")


if __name__ == "__main__":
    main()
