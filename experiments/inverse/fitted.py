"""Priors that were fitted to real data: earthquakes and torsion angles.

Their exact posteriors are of the *fitted* density, by quadrature: on the sphere (HEALPix) and on the torus. Fits are
kept in a folder, and made once.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import rfm
from experiments.inverse.problems import Effort, Problem
from experiments.torsions import backbone_angles
from manifolds import FlatTorus, Manifold, Sphere
from rfm.datasets import load
from rfm.flow import Refinement
from rfm.integrators import FixedStep
from rfm.posterior import Measurement, operators

POINTS = 6000
"""Rows of a set that are fitted."""


def fitted(name: str, folder: Path, points: Tensor, manifold: Manifold, steps: int, refine: bool) -> rfm.Flow:
    """Return a flow of some rows of a data set, from a folder if it is there."""
    if (folder / name / "flow.json").exists():
        return rfm.Flow.load(folder / name)
    rows = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:POINTS]
    flow = rfm.fit(points[rows], manifold, steps=steps, refine=refine, seed=0, progress=False)
    flow.save(folder / name)
    return flow


def on_grid(flow: rfm.Flow, measurement: Measurement, grid: Tensor, solver: FixedStep) -> Problem:
    """Return a problem whose exact draws are of a fitted density on a grid, as far as five deviations of the noise.

    Args:
        flow: the prior.
        measurement: the likelihood.
        grid: points of equal shares of the volume.
        solver: of the density.
    """
    log_likelihood = measurement(grid).double()
    kept = log_likelihood > log_likelihood.max() - 5**2 / 2
    grid = grid[kept]
    log_p = flow.log_prob(grid, solver=solver).double() + log_likelihood[kept]
    shares = torch.softmax(log_p, 0)

    def exact(n: int, generator: torch.Generator) -> Tensor:
        return grid[torch.multinomial(shares, n, True, generator=generator)]

    return Problem(flow, measurement, exact, effort=Effort.NETWORK)


def earthquakes(folder: Path, quick: bool) -> Problem:
    """Return a distance from Tokyo, of a refined flow of all earthquakes."""
    from astropy_healpix import HEALPix

    points = load("earthquake").points
    flow = fitted("earthquakes", folder, points, Sphere(2), 5 if quick else 800, True)
    pixels = HEALPix(nside=16 if quick else 64)
    longitude, latitude = (torch.from_numpy(a.value) for a in pixels.healpix_to_lonlat(np.arange(pixels.npix)))
    level = latitude.cos()
    grid = torch.stack([level * longitude.cos(), level * longitude.sin(), latitude.sin()], -1).float()
    where = torch.tensor([35.7, 139.7]).deg2rad()
    tokyo = torch.stack([where[0].cos() * where[1].cos(), where[0].cos() * where[1].sin(), where[0].sin()])
    measurement = Measurement(operators.distance_to(Sphere(2), tokyo), np.radians(20.0), np.radians(3.0))
    # A refined density looks back only as far as its earliest source.
    refinement = flow.refinement
    span = 1 - min(refinement.starts) if isinstance(refinement, Refinement) else 1.0
    steps = max(2, round(16 * span))
    return on_grid(flow, measurement, grid, FixedStep(steps=steps))


def torsions(folder: Path, quick: bool) -> Problem:
    """Return the angle psi of a residue, of a flow of phi and psi."""
    points = backbone_angles("general")[0]
    flow = fitted("torsions", folder, points, FlatTorus(2), 5 if quick else 400, False)
    n = 40 if quick else 90
    line = (torch.arange(n) + 0.5) * (2 * np.pi / n) - np.pi
    measurement = Measurement(operators.angles(1), np.radians(120.0), np.radians(25.0))
    grid = torch.cartesian_prod(line, line)
    return on_grid(flow, measurement, grid, FixedStep(steps=8))
