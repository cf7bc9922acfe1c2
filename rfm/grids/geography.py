"""Surfaces with latitudes and longitudes: the sphere, and ellipsoids as surveyors see the earth."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch

import numpy as np
import torch
from torch import Tensor

from manifolds import WGS84_AXES, Ellipsoid, Manifold, Sphere
from rfm.datasets import EARTH_RADIUS_KM
from rfm.grids.axes import Array, as_tensor

_NODES = 16


@dataclass(frozen=True)
class Geography:
    """Latitudes and longitudes of a surface.

    Args:
        points: from latitudes and longitudes in degrees ``(n,)`` to points ``(n, 3)``, float64.
        degrees: from points ``(*batch, 3)`` to latitudes and longitudes in degrees, float64, ``(*batch)`` each.
        density: the area of a small piece over those of its longitude in radians and of its sine of the latitude, at
            sines ``(n,)``.
        kilometres: of the earth to a unit of length; None where the surface has not the earth's shape.
    """

    points: Callable[[Array, Array], Tensor]
    degrees: Callable[[Tensor], tuple[Tensor, Tensor]]
    density: Callable[[Array], Array]
    kilometres: float | None

    def bands(self, latitudes: Array) -> Array:
        """Return the area between parallels for each radian of longitude.

        Args:
            latitudes: of the parallels in degrees, ascending, ``(n + 1,)``.

        Returns:
            ``(n,)``
        """
        sines = np.sin(np.radians(latitudes))
        x, weights = np.polynomial.legendre.leggauss(_NODES)
        middle, half = (sines[1:] + sines[:-1]) / 2, np.diff(sines) / 2
        nodes = middle[:, None] + half[:, None] * x
        return np.asarray(half * (self.density(nodes.ravel()).reshape(nodes.shape) @ weights))


@singledispatch
def geography_of(manifold: Manifold) -> Geography:
    """Return the latitudes and longitudes of a surface; a generic function of its class.

    Raises:
        ValueError: it has none.
    """
    raise ValueError(
        f"latitudes and longitudes are of Sphere(2) and of ellipsoids in three dimensions, not of {manifold}"
    )


@geography_of.register
def _(manifold: Sphere) -> Geography:
    if manifold.n != 2:
        return geography_of.dispatch(Manifold)(manifold)
    return Geography(_on_sphere, _degrees_on_sphere, np.ones_like, EARTH_RADIUS_KM)


@geography_of.register
def _(manifold: Ellipsoid) -> Geography:
    manifold.from_geodetic(torch.zeros(1), torch.zeros(1))  # raises for an ellipsoid without parallels
    a, b = manifold.axes[0], manifold.axes[2]
    squared = 1 - (b / a) ** 2

    def points(latitude: Array, longitude: Array) -> Tensor:
        return manifold.from_geodetic(as_tensor(latitude), as_tensor(longitude))

    def degrees(x: Tensor) -> tuple[Tensor, Tensor]:
        return manifold.to_geodetic(x.detach().double())

    def density(sine: Array) -> Array:
        # The product of the radii of curvature, along the meridian and across.
        return np.asarray(a**2 * (1 - squared) / (1 - squared * sine**2) ** 2)

    earth = abs(b / a - WGS84_AXES[2] / WGS84_AXES[0]) < 1e-9
    return Geography(points, degrees, density, WGS84_AXES[0] / 1000 / a if earth else None)


def _on_sphere(latitude: Array, longitude: Array) -> Tensor:
    north, east = np.radians(latitude), np.radians(longitude)
    parallel = np.cos(north)
    return torch.from_numpy(np.stack([parallel * np.cos(east), parallel * np.sin(east), np.sin(north)], axis=-1))


def _degrees_on_sphere(x: Tensor) -> tuple[Tensor, Tensor]:
    a, b, c = x.detach().double().unbind(-1)
    return torch.rad2deg(torch.atan2(c, torch.hypot(a, b))), torch.rad2deg(torch.atan2(b, a))
