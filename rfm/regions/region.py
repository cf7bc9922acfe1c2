"""What a region of a manifold is: it knows its points and, where it can, how to integrate over them."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from manifolds import Manifold
from rfm.regions.cubature import cubature

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Charts:
    """A region as images of unit cubes, which overlap at most in their borders.

    Args:
        pieces: how many there are.
        dim: of the cubes.
        place: from the numbers of pieces ``(n,)`` and places in the cube ``(n, dim)`` to points ``(n, *event_shape)``,
            float64, and the volume element there, ``(n,)``.
        multiplicity: how many images of the region a symmetry makes alike.
        triangles: whether one side of each square is shrunk to a corner, so that the volume element is proportional to
            the first coordinate.
    """

    pieces: int
    dim: int
    place: Callable[[NDArray[np.int64], Array], tuple[Tensor, Array]]
    multiplicity: int = 1
    triangles: bool = False


class Region(ABC):
    """A region of a manifold: `contains`, `describe`, and `charts` where it can be integrated over.

    Args:
        manifold: where it lies.
    """

    def __init__(self, manifold: Manifold) -> None:
        self.manifold = manifold

    @abstractmethod
    def contains(self, x: Tensor) -> Tensor:
        """Return which points ``(*batch, *event_shape)`` lie in the region, truth values ``(*batch)``."""

    @abstractmethod
    def describe(self) -> str:
        """Return what it is in words."""

    @property
    @abstractmethod
    def charts(self) -> Charts | None:
        """How to integrate over it; None where only its points can be recognised."""

    @property
    def volume(self) -> float | None:
        """The Riemannian volume of its points; None where it is not known."""
        charts = self.charts
        if charts is None:
            return None
        found = cubature(
            lambda piece, u: charts.place(piece, u)[1],
            charts.pieces,
            charts.dim,
            relative=1e-9,
            absolute=0.0,
            most=100_000,
        )
        return charts.multiplicity * found.value
