"""The maps of each manifold in arithmetic with 80 digits: the reference for computed values, 50 of them at least.

Points and vectors are flat lists of mpmath numbers, in the order of the flattened tensors. Every map first takes its
arguments to the manifold (`Truth.project`, `Truth.tangent`), because rounding moves them off it; so it is defined, and
may be differenced, in a neighbourhood of its arguments. Nothing here is shared with the code under test, formulas
included: they are the textbook ones, whose cancellations so many digits can afford.
"""

from experiments.benchmarks.truth.contract import DIGITS, Branch, Truth
from experiments.benchmarks.truth.linear_algebra import Matrix, Vector, norm
from experiments.benchmarks.truth.matrices import LogEuclideanSPDTruth, ScrewTruth, SE3Truth, SO3Truth, SPDTruth
from experiments.benchmarks.truth.products import ProductTruth, truth_of
from experiments.benchmarks.truth.spaces import (
    EuclideanTruth,
    FlatTorusTruth,
    HyperboloidTruth,
    PoincareBallTruth,
    SphereTruth,
)

__all__ = [
    "DIGITS",
    "Branch",
    "EuclideanTruth",
    "FlatTorusTruth",
    "HyperboloidTruth",
    "LogEuclideanSPDTruth",
    "Matrix",
    "PoincareBallTruth",
    "ProductTruth",
    "SE3Truth",
    "SO3Truth",
    "SPDTruth",
    "ScrewTruth",
    "SphereTruth",
    "Truth",
    "Vector",
    "norm",
    "truth_of",
]
