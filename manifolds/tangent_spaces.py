"""Bases of tangent spaces and densities of volumes, from a projection and an inner product alone."""

import math
from typing import Protocol

import torch
from torch import Tensor

from manifolds.numerics.linear_algebra import log_abs_det, orthonormal_rows


class Projected(Protocol):
    """What is needed of a manifold."""

    dim: int
    event_shape: torch.Size

    def batch_shape(self, x: Tensor) -> torch.Size:
        """Return the batch shape of points."""

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """Return the projection of an ambient vector to the tangent space."""

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Return the inner product of tangent vectors."""


def euclidean_basis(manifold: Projected, x: Tensor) -> Tensor:
    """Return a basis of the tangent space, orthonormal in the ambient dot product, ``(*batch, dim, *event_shape)``."""
    rank = len(manifold.event_shape)
    # The columns of U that belong to the dim non-zero singular values span the range of the projector. Which basis
    # is taken does not matter, so the SVD's derivative, infinite here, is not wanted; but the basis has to stay
    # tangent as x moves, and orthonormal.
    u = torch.linalg.svd(projector(manifold, x).detach()).U[..., : manifold.dim]
    basis = u.mT.reshape(*manifold.batch_shape(x), manifold.dim, *manifold.event_shape)
    moved = manifold.proju(x.unsqueeze(-1 - rank), basis)
    return orthonormal_rows(moved.flatten(-rank)).reshape(moved.shape)


def projector(manifold: Projected, x: Tensor) -> Tensor:
    """Return the matrix of ``proju(x, .)``, ``(*batch, N, N)`` with N ambient coordinates."""
    n = math.prod(manifold.event_shape)
    units = torch.eye(n, dtype=x.dtype, device=x.device).reshape(n, *manifold.event_shape)
    rows = manifold.proju(x.unsqueeze(len(manifold.batch_shape(x))), units)
    return rows.flatten(-len(manifold.event_shape)).mT


def gram(manifold: Projected, x: Tensor, vectors: Tensor) -> Tensor:
    """Return the inner products of ``(*batch, k, *event_shape)`` tangent vectors with each other."""
    k = len(manifold.event_shape)
    return manifold.inner(x.unsqueeze(-1 - k).unsqueeze(-1 - k), vectors.unsqueeze(-1 - k), vectors.unsqueeze(-2 - k))


def log_volume_density(manifold: Projected, x: Tensor) -> Tensor:
    """Return half the log-determinant of the metric in a Euclidean-orthonormal basis of the tangent space.

    Written without a basis, which could not be differentiated: with P the orthogonal projector to the tangent space, it
    is the determinant of P G P + (I - P). P follows from the possibly oblique projector Q of ``proju`` as
    Q (Q + Q' - I)^-1.
    """
    q = projector(manifold, x)
    eye = torch.eye(q.shape[-1], dtype=x.dtype, device=x.device)
    p = q @ torch.linalg.inv(q + q.mT - eye)
    vectors = p.mT.reshape(*manifold.batch_shape(x), q.shape[-1], *manifold.event_shape)
    return log_abs_det(gram(manifold, x, vectors) + eye - p) / 2
