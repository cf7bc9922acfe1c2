"""Riemannian manifolds for PyTorch: exact, differentiable, batched geometry."""

from manifolds.base import Manifold
from manifolds.euclidean import Euclidean
from manifolds.flat_torus import FlatTorus
from manifolds.sphere import Sphere

__all__ = ["Euclidean", "FlatTorus", "Manifold", "Sphere"]
