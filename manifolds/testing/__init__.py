"""Is this manifold right? `check_manifold` runs the laws of the contract and reports like a reviewer."""

from manifolds.testing.checker import LAWS, check_manifold
from manifolds.testing.report import ConformanceError, Finding, Report

__all__ = ["LAWS", "ConformanceError", "Finding", "Report", "check_manifold"]
