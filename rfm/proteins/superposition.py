"""Chains laid over each other: the RMSD after the best rigid motion, and the TM-score."""

import numpy as np
import torch
from torch import Tensor


def rmsd(a: Tensor, b: Tensor) -> Tensor:
    """Return the root mean square distance of points after the best rigid motion, no reflection, ``(*batch)``.

    Kabsch, A solution for the best rotation to relate two sets of vectors, 1976, doi:10.1107/S0567739476001873.

    Args:
        a: points ``(*batch, k, 3)``.
        b: likewise, in the same order.
    """
    a, b = (x.double() - x.double().mean(-2, keepdim=True) for x in (a, b))
    covariance = a.mT @ b
    stretch = torch.linalg.svdvals(covariance)
    # The least singular value counts against a reflection.
    sign = torch.where(torch.linalg.det(covariance) < 0, -1.0, 1.0)
    overlap = stretch[..., 0] + stretch[..., 1] + sign * stretch[..., 2]
    total = a.square().sum((-2, -1)) + b.square().sum((-2, -1))
    return ((total - 2 * overlap).clamp(min=0) / a.shape[-2]).sqrt()


def tm_score(a: Tensor, b: Tensor) -> float:
    """Return the TM-score of two chains by TM-align, normalised by the length of the first (the extra ``protein``).

    Zhang and Skolnick, TM-align: a protein structure alignment algorithm based on the TM-score, 2005,
    doi:10.1093/nar/gki524.

    Args:
        a: N, CA, C, ... of a chain, ``(residues, 3 or more, 3)``, Angstrom.
        b: of another, of any length.

    Raises:
        ValueError: the package tmtools is not installed.
    """
    try:
        import tmtools
    except ImportError:
        raise ValueError(
            "tm_score: needs the package tmtools; pip install 'riemannian-flow-matching[protein]'"
        ) from None
    first, second = (np.ascontiguousarray(x[:, 1].double().numpy()) for x in (a, b))
    result = tmtools.tm_align(first, second, "A" * len(first), "A" * len(second))
    return float(result.tm_norm_chain1)
