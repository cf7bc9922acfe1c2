"""Riemannian manifolds for PyTorch: exact, differentiable, batched geometry."""

from manifolds.base import Manifold
from manifolds.centred_poses import CentredPoses
from manifolds.coordinates import Coordinates
from manifolds.correlation import Correlation
from manifolds.ellipsoid import WGS84_AXES, Ellipsoid
from manifolds.euclidean import Euclidean
from manifolds.finite_group import Antipodal, FiniteGroup, LeftMultiplication, RightMultiplication
from manifolds.flat_torus import FlatTorus
from manifolds.fractional_coordinates import FractionalCoordinates
from manifolds.grassmann import Grassmann
from manifolds.hyperbolic import Hyperboloid, PoincareBall
from manifolds.kernel import Kernel
from manifolds.level_set import LevelSet
from manifolds.lie_group import LieGroup
from manifolds.power import Power
from manifolds.product import Product
from manifolds.quotient import Quotient
from manifolds.ragged import Ragged
from manifolds.rotation_group import Cyclic, Dihedral, Icosahedral, Octahedral, RotationGroup, Tetrahedral
from manifolds.rotations_of_n import SpecialOrthogonal
from manifolds.scaled import Scaled
from manifolds.simplex import Simplex
from manifolds.spd import SPD, LogEuclideanSPD
from manifolds.special_euclidean import SE3
from manifolds.special_orthogonal import SO3
from manifolds.sphere import Sphere
from manifolds.stiefel import Stiefel

__all__ = [
    "SE3",
    "SO3",
    "SPD",
    "WGS84_AXES",
    "Antipodal",
    "CentredPoses",
    "Coordinates",
    "Correlation",
    "Cyclic",
    "Dihedral",
    "Ellipsoid",
    "Euclidean",
    "FiniteGroup",
    "FlatTorus",
    "FractionalCoordinates",
    "Grassmann",
    "Hyperboloid",
    "Icosahedral",
    "Kernel",
    "LeftMultiplication",
    "LevelSet",
    "LieGroup",
    "LogEuclideanSPD",
    "Manifold",
    "Octahedral",
    "PoincareBall",
    "Power",
    "Product",
    "Quotient",
    "Ragged",
    "RightMultiplication",
    "RotationGroup",
    "Scaled",
    "Simplex",
    "SpecialOrthogonal",
    "Sphere",
    "Stiefel",
    "Tetrahedral",
]
