"""Linear algebra whose derivatives are right to every order, in forward and reverse mode and in one over the other.

The forward derivatives of ``torch.linalg.solve``, ``det``, ``slogdet`` and ``logdet`` (torch 2.13) contain a
factorisation whose own derivative they leave out: whatever differentiates them again, forward or backward, is silently
wrong. Those of ``inv``, ``lu_factor``, ``cholesky`` and ``solve_triangular`` are right.
"""

import torch
from torch import Tensor

from manifolds.numerics import differentiated


def solve(matrix: Tensor, right: Tensor) -> Tensor:
    """Return the solution ``(*batch, n)`` of linear equations, not finite where they are singular."""
    if not (differentiated(matrix) or differentiated(right)):
        solution: Tensor = torch.linalg.solve_ex(matrix, right[..., None])[0]
        return solution[..., 0]
    inverse: Tensor = torch.linalg.inv_ex(matrix)[0]
    return (inverse @ right[..., None])[..., 0]


def log_abs_det(matrix: Tensor) -> Tensor:
    """Return ``log |det|`` of square matrices, ``(*batch)``."""
    if not differentiated(matrix):
        return torch.linalg.slogdet(matrix).logabsdet
    pivots = torch.diagonal(torch.linalg.lu_factor_ex(matrix).LU, dim1=-2, dim2=-1)
    return torch.log(torch.abs(pivots)).sum(-1)


def orthonormal_rows(rows: Tensor) -> Tensor:
    """Return the rows of ``(*batch, k, n)``, orthonormal in value, such that they stay so as they move.

    They span what the rows span, to every order.
    """
    if not differentiated(rows):
        return rows
    return torch.linalg.solve_triangular(torch.linalg.cholesky(rows @ rows.mT), rows, upper=False)
