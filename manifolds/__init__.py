"""Riemannian manifolds for PyTorch: exact, differentiable, batched geometry."""

from manifolds.base import Manifold
from manifolds.composed.bounded import Bounded
from manifolds.composed.finite_group import Antipodal, FiniteGroup, LeftMultiplication, RightMultiplication
from manifolds.composed.padded import Padded
from manifolds.composed.power import Power
from manifolds.composed.product import Product
from manifolds.composed.quotient import Quotient
from manifolds.composed.ragged import Ragged
from manifolds.composed.scaled import Scaled
from manifolds.constraints.ball import Ball, Cap
from manifolds.constraints.box import Box, JointLimits
from manifolds.constraints.constraint import Constraint
from manifolds.constraints.planar_polygon import PlanarPolygon
from manifolds.constraints.polytope import Polytope
from manifolds.constraints.spherical_polygon import SphericalPolygon
from manifolds.coordinates import Coordinates
from manifolds.euclidean import Euclidean
from manifolds.flat_torus import FlatTorus
from manifolds.fractional_coordinates import FractionalCoordinates
from manifolds.hyperbolic import Hyperboloid, PoincareBall
from manifolds.kernel import Kernel
from manifolds.level_sets.ellipsoid import WGS84_AXES, Ellipsoid
from manifolds.level_sets.level_set import LevelSet
from manifolds.lie_group import LieGroup
from manifolds.matrices.correlation import Correlation
from manifolds.matrices.grassmann import Grassmann
from manifolds.matrices.spd import SPD, LogEuclideanSPD
from manifolds.matrices.stiefel import Stiefel
from manifolds.meshes.mesh import Mesh
from manifolds.rotations.centred_poses import CentredPoses
from manifolds.rotations.rotation_group import (
    Cyclic,
    Dihedral,
    Icosahedral,
    Octahedral,
    RotationGroup,
    Tetrahedral,
    Turned,
)
from manifolds.rotations.rotations_of_n import SpecialOrthogonal
from manifolds.rotations.special_euclidean import SE3
from manifolds.rotations.special_orthogonal import SO3
from manifolds.simplex import Simplex
from manifolds.sphere import Sphere

__all__ = [
    "SE3",
    "SO3",
    "SPD",
    "WGS84_AXES",
    "Antipodal",
    "Ball",
    "Bounded",
    "Box",
    "Cap",
    "CentredPoses",
    "Constraint",
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
    "JointLimits",
    "Kernel",
    "LeftMultiplication",
    "LevelSet",
    "LieGroup",
    "LogEuclideanSPD",
    "Manifold",
    "Mesh",
    "Octahedral",
    "Padded",
    "PlanarPolygon",
    "PoincareBall",
    "Polytope",
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
    "SphericalPolygon",
    "Stiefel",
    "Tetrahedral",
    "Turned",
]
