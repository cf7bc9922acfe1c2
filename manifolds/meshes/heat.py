"""Heat flow on a mesh: what smooths densities by the heat kernel."""

from typing import Any

import torch
from torch import Tensor

_STEPS = 4
"""Implicit steps: each keeps the integral and, where the cotangents of opposite angles do not add up to less than 0,
what is positive. One has the kernel of a Laplace distribution, many that of heat."""


class HeatFlow:
    """The heat flow for a given time, of piecewise linear densities on a mesh.

    Implicit Euler steps with lumped areas, by one sparse factorization. At a border no heat flows out.

    Args:
        stiffness: the `scipy.sparse.csc_matrix` of a `MeshLaplacian`.
        areas: integrals of the hat functions ``(V)``.
        time: in squared units of length; the kernel's standard deviation is ``sqrt(2 time)`` in each direction.
    """

    def __init__(self, stiffness: Any, areas: Tensor, time: float) -> None:
        from scipy import sparse
        from scipy.sparse.linalg import splu

        self.areas = areas
        matrix = (sparse.diags(areas.cpu().numpy()) + time / _STEPS * stiffness).tocsc()
        self._factors = splu(matrix, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})

    def __call__(self, density: Tensor) -> Tensor:
        """Return values at the vertices ``(V)`` after the flow; they have the same integral."""
        values, areas = density.cpu().numpy(), self.areas.cpu().numpy()
        for _ in range(_STEPS):
            values = self._factors.solve(areas * values)
        return torch.from_numpy(values).to(density)
