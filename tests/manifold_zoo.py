"""One of each built-in manifold, and some that are harder: what laws are tested over.

``ZOO`` lists pairs of a name and a function that makes the manifold.
"""

from collections.abc import Callable

from mesh_shapes import icosphere

from manifolds import Euclidean, FlatTorus, Manifold, Sphere
from manifolds.composed.finite_group import Antipodal
from manifolds.composed.power import Power
from manifolds.composed.product import Product
from manifolds.composed.quotient import Quotient
from manifolds.composed.scaled import Scaled
from manifolds.fractional_coordinates import FractionalCoordinates
from manifolds.hyperbolic import Hyperboloid, PoincareBall
from manifolds.matrices.correlation import Correlation
from manifolds.matrices.grassmann import Grassmann
from manifolds.matrices.spd import SPD, LogEuclideanSPD
from manifolds.matrices.stiefel import Stiefel
from manifolds.rotations.centred_poses import CentredPoses
from manifolds.rotations.rotations_of_n import SpecialOrthogonal
from manifolds.rotations.special_euclidean import SE3
from manifolds.rotations.special_orthogonal import SO3
from manifolds.simplex import Simplex

ZOO: list[tuple[str, Callable[[], Manifold]]] = [
    ("Euclidean(1)", lambda: Euclidean(1)),
    ("Euclidean(3)", lambda: Euclidean(3)),
    ("FlatTorus(1)", lambda: FlatTorus(1)),
    ("FlatTorus(3)", lambda: FlatTorus(3)),
    ("Sphere(1)", lambda: Sphere(1)),
    ("Sphere(2)", lambda: Sphere(2)),
    ("Sphere(4)", lambda: Sphere(4)),
    ("Hyperboloid(1)", lambda: Hyperboloid(1)),
    ("Hyperboloid(3, 0.5)", lambda: Hyperboloid(3, 0.5)),
    ("PoincareBall(2)", lambda: PoincareBall(2)),
    ("PoincareBall(3, 2.0)", lambda: PoincareBall(3, 2.0)),
    ("SO3()", lambda: SO3()),
    ("SpecialOrthogonal(4)", lambda: SpecialOrthogonal(4)),
    ("SE3(2.0)", lambda: SE3(2.0)),
    ("SPD(2)", lambda: SPD(2)),
    ("SPD(3)", lambda: SPD(3)),
    ("LogEuclideanSPD(2)", lambda: LogEuclideanSPD(2)),
    ("Correlation(3)", lambda: Correlation(3)),
    ("Simplex(2)", lambda: Simplex(2)),
    ("FractionalCoordinates(3, 2)", lambda: FractionalCoordinates(3, 2)),
    # In nine dimensions, where the checker does not draw 20,000 points and solve for the distance of each.
    ("Stiefel(6, 2)", lambda: Stiefel(6, 2)),
    ("Grassmann(4, 2)", lambda: Grassmann(4, 2)),
    ("Product(Sphere(2), FlatTorus(1))", lambda: Product(Sphere(2), FlatTorus(1), weights=(1.0, 0.25))),
    ("Product(Hyperboloid(2), SPD(2))", lambda: Product(Hyperboloid(2), SPD(2))),
    ("Product(Simplex(2), FlatTorus(1))", lambda: Product(Simplex(2), FlatTorus(1), weights=(0.5, 1.0))),
    ("Power(Sphere(2), 2)", lambda: Power(Sphere(2), 2)),
    ("Power(SE3(), 3)", lambda: Power(SE3(), 3)),
    ("CentredPoses(3, 2.0)", lambda: CentredPoses(3, 2.0)),
    ("Scaled(Sphere(2), 2.5)", lambda: Scaled(Sphere(2), 2.5)),
    ("Quotient(Sphere(2), Antipodal(2))", lambda: Quotient(Sphere(2), Antipodal(2))),
    ("Mesh(icosahedron)", lambda: icosphere(0)),
]

POLYHEDRON = "Mesh("
"""What the names of surfaces with edges begin with."""

NOT_ON_A_POLYHEDRON = {
    "test_right_manifolds_pass": "the laws that a polyhedron breaks are listed in test_mesh.py, where the others run",
    "test_built_in_manifolds_compile": "the laws that a polyhedron breaks are listed in test_mesh.py",
    "test_no_jump_along_a_geodesic": "tangent vectors turn at an edge",
    "test_draws_follow_the_density": "behind a vertex two geodesics arrive, or none: no density is carried along",
    "test_the_jacobian_is_that_of_differences": "projected steps over an edge come to rest on it: they have no inverse",
    "test_the_map_of_a_flow_makes_them_zero": "steps of a field that jumps at an edge do not compose to its flow",
    "test_maps_take_at_most_six_times_their_arguments": "searches hold the boxes and faces that each point may lie in",
}
"""Tests of manifolds that hold for smooth ones alone, and why."""

SLOW_ON_A_POLYHEDRON = {
    "test_transport_is_the_end_of_the_trajectory",
    "test_a_flow_is_at_least_as_long_as_the_geodesic",
    "test_no_field_correlates_with_what_is_left_of_the_target",
    "test_geodesics_are_straight_and_their_energy_is_the_squared_distance",
    "test_densities_integrate_to_one_by_importance",
    "test_the_law_holds_at_few_points",
    "test_the_map_of_a_flow_makes_them_zero",
    "test_the_score_is_the_gradient_in_the_metric",
    "test_a_nan_field_fails_on_every_manifold",
}
"""Those whose paths are searched for, thousands of them."""
