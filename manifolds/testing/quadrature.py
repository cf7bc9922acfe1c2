"""Quadrature rules."""

import torch
from torch import Tensor


def gauss_legendre(k: int) -> tuple[Tensor, Tensor]:
    """Return nodes in (0, 1) and weights summing to 1, exact for polynomials of degree 2k - 1, in float64.

    References:
        Golub and Welsch, Calculation of Gauss Quadrature Rules, 1969, doi:10.1090/S0025-5718-69-99647-1.
    """
    order = torch.arange(1, k, dtype=torch.float64)
    off = order / torch.sqrt(4 * order * order - 1)
    nodes, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return (1 + nodes) / 2, vectors[0] ** 2
