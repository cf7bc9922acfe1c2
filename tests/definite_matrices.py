"""Positive definite matrices and tangent vectors, drawn at random, and the spaces of them that tests run over."""

import pytest
import torch

from manifolds.matrices.spd import SPD, LogEuclideanSPD
from manifolds.matrices.spectral import symmetrise

SPACES = [SPD(3), LogEuclideanSPD(3), SPD(1), LogEuclideanSPD(2)]
DTYPES = [torch.float32, torch.float64]
each_space = pytest.mark.parametrize("m", SPACES, ids=str)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def points(m, *shape, spread=2.0, seed=0, dtype=torch.float64):
    """Matrices in random directions whose logarithms' eigenvalues spread over ``spread``."""
    basis = torch.linalg.qr(randn(*shape, m.n, m.n, seed=seed)).Q
    logs = spread * torch.linspace(-0.5, 0.5, m.n, dtype=torch.float64) if m.n > 1 else torch.full((1,), spread)
    return symmetrise((basis * logs.exp()) @ basis.mT).to(dtype)


def tangents(m, x, size=1.0, seed=5):
    return (size * randn(*x.shape[:-2], m.dim, 1, 1, seed=seed).to(x.dtype) * m.tangent_basis(x)).sum(-3)
