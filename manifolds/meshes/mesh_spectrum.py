"""The eigenfunctions of a mesh."""

from typing import Protocol

from torch import Tensor

from manifolds.spectrum import Spectrum, Weight


class Triangulated(Protocol):
    """What the spectrum needs of a mesh."""

    def eigenpairs(self, k: int) -> tuple[Tensor, Tensor]:
        """Return eigenvalues ``(k)`` and eigenfunctions ``(V, k)``."""

    def closest_face(self, x: Tensor) -> Tensor:
        """Return the faces that points lie in."""

    def barycentric_in(self, face: Tensor, x: Tensor) -> Tensor:
        """Return barycentric coordinates."""

    def rows_at_corners(self, values: Tensor, face: Tensor) -> Tensor:
        """Return values at the corners of faces."""

    def corner_gradients(self, face: Tensor) -> Tensor:
        """Return gradients of the barycentric coordinates."""


class MeshSpectrum(Spectrum):
    """Piecewise linear eigenfunctions, as many as there are vertices but one.

    Args:
        mesh: whose they are.
    """

    def __init__(self, mesh: Triangulated) -> None:
        self.mesh = mesh

    def anchor(self, y: Tensor, k: int) -> Tensor:
        """Return the eigenfunctions at points, ``(*batch, k)``."""
        _, values = self.mesh.eigenpairs(k + 1)
        face = self.mesh.closest_face(y)
        return self._at(y, face, self.mesh.rows_at_corners(values[:, 1:].to(y), face))

    def _at(self, x: Tensor, face: Tensor, at_corners: Tensor) -> Tensor:
        barycentric = self.mesh.barycentric_in(face, x)
        return (barycentric[..., None, :] @ at_corners)[..., 0, :]

    def squared_distance(self, x: Tensor, anchor: Tensor, k: int, weight: Weight) -> tuple[Tensor, Tensor]:
        eigenvalues, values = self.mesh.eigenpairs(k + 1)
        face = self.mesh.closest_face(x)
        at_corners = self.mesh.rows_at_corners(values[:, 1:].to(x), face)
        difference = self._at(x, face, at_corners) - anchor
        weighted = weight(eigenvalues[1:].to(x)) * difference
        slopes = 2 * (at_corners @ weighted[..., None])[..., 0]
        gradients = self.mesh.corner_gradients(face).to(x)
        return (weighted * difference).sum(-1), (slopes[..., None, :] @ gradients)[..., 0, :]
