"""Meshes: laws on surfaces whose geometry is known, and the sentence for each that is none."""

import copy
import math
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from mesh_shapes import bumpy, cube, face_rule, folded, icosphere, square, tangent, uniform
from random_fields import normal
from scipy import sparse
from scipy.spatial import cKDTree
from torch import Tensor

from manifolds import Euclidean, Mesh, Padded, Power, Product, Ragged, Scaled
from manifolds.testing import check_manifold
from rfm.datasets import read_mesh
from rfm.integrators import RK4, FixedStep, Method, Projected
from rfm.likelihood import log_prob
from rfm.sources import Uniform

SURFACES: list[tuple[str, Callable[[], Mesh]]] = [
    ("square", square),
    ("folded square", lambda: folded(1.0)),
    ("cube", cube),
    ("icosphere", lambda: icosphere(1)),
    ("bumpy sphere", lambda: bumpy(1, 0.1)),
]
each_surface = pytest.mark.parametrize("make", [make for _, make in SURFACES], ids=[name for name, _ in SURFACES])


def inner_start(mesh: Mesh, n: int) -> tuple[Tensor, Tensor]:
    """Return points and velocities whose geodesics stay off a border."""
    x = uniform(mesh, n)
    x = mesh.projx(0.2 * (x - x.mean(0)) + x.mean(0)) if mesh.has_border else x
    return x, (0.3 if mesh.has_border else 1.0) * tangent(mesh, x) / 3


def brute_force(mesh: Mesh, x: Tensor) -> Tensor:
    """Return distances to many points of a surface: a little more than those to the surface."""
    return torch.from_numpy(cKDTree(uniform(mesh, 20_000, seed=9).numpy()).query(x.numpy())[0])


@each_surface
def test_closest_points_are_closest(make: Callable[[], Mesh]) -> None:
    mesh = make()
    x = uniform(mesh, 200) + 0.3 * torch.randn(200, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    y = mesh.projx(x)
    distance, near = (y - x).norm(dim=-1), brute_force(mesh, x)
    assert bool((distance <= near + 1e-12).all())
    assert bool((distance >= near - 0.06).all())
    torch.testing.assert_close(mesh.projx(y), y, rtol=0, atol=1e-14)
    face, barycentric = mesh.locate(y)
    torch.testing.assert_close(mesh.position(face, barycentric), y, rtol=0, atol=1e-14)


def test_the_derivative_of_projx_is_that_of_the_closest_point() -> None:
    mesh = bumpy(1, 0.1)
    on = uniform(mesh, 8)
    jacobian = torch.func.vmap(torch.func.jacfwd(mesh.projx))(on)
    normal = mesh.normal(on)
    expected = torch.eye(3, dtype=torch.float64) - normal[:, :, None] * normal[:, None]
    torch.testing.assert_close(jacobian, expected)
    off, h = on + 0.2 * normal, 1e-6
    for i, unit in enumerate(torch.eye(3, dtype=torch.float64)):
        difference = (mesh.projx(off + h * unit) - mesh.projx(off - h * unit)) / (2 * h)
        torch.testing.assert_close(
            torch.func.vmap(torch.func.jacrev(mesh.projx))(off)[..., i], difference, atol=1e-8, rtol=0
        )


def test_points_that_are_not_finite_are_refused() -> None:
    mesh = cube()
    with pytest.raises(ValueError, match="is not finite"):
        mesh.check_point(torch.full((4, 3), math.nan))
    with pytest.raises(ValueError, match=r"off it by 0\.5"):
        mesh.check_point(torch.full((1, 3), 0.5))


def test_a_search_looks_at_few_boxes() -> None:
    # A face among 16 times as many costs about two levels more, not 16 times the work.
    sizes = []
    for times in (1, 3):
        mesh = icosphere(times)
        sizes.append((len(mesh._tables.tree.boxes), mesh._tables.tree.leaves.shape[1]))
    (few, few_leaf), (many, many_leaf) = sizes
    assert many - few <= 2
    assert max(few_leaf, many_leaf) <= 8


@each_surface
def test_straightest_geodesics_keep_speed_and_can_be_taken_back(make: Callable[[], Mesh]) -> None:
    mesh = make()
    x, u = inner_start(mesh, 60)
    one = torch.ones((), dtype=torch.float64)
    y, v = mesh.shoot(x, u, one)
    torch.testing.assert_close(v.norm(dim=-1), u.norm(dim=-1))
    torch.testing.assert_close(mesh.projx(y), y, rtol=0, atol=1e-13)
    torch.testing.assert_close(mesh.proju(y, v), v, rtol=0, atol=1e-12)
    back, w = mesh.shoot(y, -v, one)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-12)
    torch.testing.assert_close(w, -u, rtol=0, atol=1e-12)
    half, v_half = mesh.shoot(x, u, one / 2)
    torch.testing.assert_close(mesh.shoot(half, v_half, one / 2)[0], y, rtol=0, atol=1e-12)


def test_derivatives_of_expmap_are_those_of_differences() -> None:
    mesh, h = bumpy(1, 0.1), 1e-6
    x, u = inner_start(mesh, 4)
    basis = mesh.tangent_basis(x)
    for i in range(2):
        e = basis[:, i]
        by_u = torch.func.jvp(lambda w: mesh.expmap(x, w), (u,), (e.contiguous(),))[1]
        torch.testing.assert_close(by_u, (mesh.expmap(x, u + h * e) - mesh.expmap(x, u - h * e)) / (2 * h))
        by_x = torch.func.jvp(lambda z: mesh.expmap(z, u), (x,), (e.contiguous(),))[1]
        torch.testing.assert_close(by_x, (mesh.expmap(x + h * e, u) - mesh.expmap(x - h * e, u)) / (2 * h))


def test_a_border_ends_a_geodesic() -> None:
    mesh = square()
    x = torch.tensor([[0.5, 0.4, 0.0]], dtype=torch.float64)
    y, v = mesh.shoot(x, torch.tensor([[2.0, 0.0, 0.0]], dtype=torch.float64), torch.ones((), dtype=torch.float64))
    torch.testing.assert_close(y, torch.tensor([[1.0, 0.4, 0.0]], dtype=torch.float64))
    assert not bool(v.any())


def test_a_flat_mesh_is_the_plane() -> None:
    mesh = square()
    x, y = uniform(mesh, 40), uniform(mesh, 40, seed=5)
    torch.testing.assert_close(mesh.logmap(x, y), y - x, rtol=0, atol=1e-14)
    torch.testing.assert_close(mesh.dist(x, y), (y - x).norm(dim=-1), rtol=0, atol=1e-14)
    u = tangent(mesh, x)
    torch.testing.assert_close(mesh.transp(x, y, u), u, rtol=0, atol=1e-14)


def test_a_fold_changes_no_distance() -> None:
    flat, bent = square(), folded(1.2)
    face = torch.arange(len(flat.faces))
    barycentric = torch.rand(len(face), 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    barycentric = barycentric / barycentric.sum(1, keepdim=True)
    x, y = ((m.position(face, barycentric), m.position(face.flip(0), barycentric)) for m in (flat, bent))
    torch.testing.assert_close(bent.dist(*y), flat.dist(*x))


def test_distances_on_a_cube_are_those_of_its_net() -> None:
    mesh = cube()
    # From the middle of the bottom to the middle of the top: over one side.
    bottom, top = (torch.tensor([[0.5, 0.5, z]], dtype=torch.float64) for z in (0.0, 1.0))
    torch.testing.assert_close(mesh.dist(bottom, top), torch.tensor([2.0], dtype=torch.float64))
    # Between opposite corners: straight over two faces laid side by side.
    corner, opposite = torch.zeros(1, 3, dtype=torch.float64), torch.ones(1, 3, dtype=torch.float64)
    torch.testing.assert_close(mesh.dist(corner, opposite), torch.tensor([math.sqrt(5)], dtype=torch.float64))
    # From a point of one face to one of the next, both near the edge in between.
    x = torch.tensor([[0.8, 0.3, 0.0]], dtype=torch.float64)
    y = torch.tensor([[1.0, 0.6, 0.1]], dtype=torch.float64)
    torch.testing.assert_close(mesh.dist(x, y), torch.tensor([math.hypot(0.3, 0.3)], dtype=torch.float64))


@pytest.mark.parametrize("make", [cube, lambda: icosphere(1), lambda: bumpy(1, 0.1)], ids=["cube", "sphere", "bumpy"])
def test_paths_arrive_and_logarithms_are_their_start(make: Callable[[], Mesh]) -> None:
    mesh = make()
    x, y = uniform(mesh, 40), uniform(mesh, 40, seed=5)
    found = mesh.solve_logmap(x, y)
    assert bool(found.converged.all())
    straight = found.bends == 0
    assert float(straight.double().mean()) > 0.4
    torch.testing.assert_close(mesh.expmap(x, found.u)[straight], y[straight], rtol=0, atol=1e-12)
    zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    start, velocity = mesh.geodesic(x, y, zero)
    torch.testing.assert_close(start, x, rtol=0, atol=1e-13)
    torch.testing.assert_close(velocity, found.u, rtol=0, atol=1e-12)
    torch.testing.assert_close(mesh.geodesic(x, y, one)[0], y, rtol=0, atol=1e-13)
    distance = mesh.dist(x, y)
    torch.testing.assert_close(mesh.dist(y, x), distance, rtol=1e-9, atol=0)
    torch.testing.assert_close(found.u.norm(dim=-1), distance)
    half, v = mesh.geodesic(x, y, one / 2)
    torch.testing.assert_close(v.norm(dim=-1), distance)
    torch.testing.assert_close(mesh.proju(half, v), v, rtol=0, atol=1e-12)
    assert bool((mesh.dist(x, half) <= distance / 2 * (1 + 1e-9)).all())
    assert not bool(mesh.dist(x, x).any())


@pytest.mark.parametrize("make", [cube, lambda: icosphere(0)], ids=["cube", "icosahedron"])
def test_paths_from_points_on_edges_do_not_bend_where_vertices_are_sharp(make: Callable[[], Mesh]) -> None:
    """No shortest path goes through a vertex with angles of less than 2 pi, wherever it starts."""
    mesh = make()
    y, generator = uniform(mesh, 30, seed=5), torch.Generator().manual_seed(2)
    face = torch.randint(len(mesh.faces), (30,), generator=generator)
    x = mesh.position(face, torch.tensor([0.3, 0.7, 0.0], dtype=torch.float64).expand(30, 3))
    found = mesh.solve_logmap(x, y)
    assert not bool(found.bends.any())
    torch.testing.assert_close(mesh.expmap(x, found.u), y, rtol=0, atol=1e-9)
    torch.testing.assert_close(mesh.dist(y, x), mesh.dist(x, y), rtol=0, atol=1e-9)


def test_transport_keeps_lengths_and_angles() -> None:
    mesh = bumpy(1, 0.1)
    x, y = uniform(mesh, 40), uniform(mesh, 40, seed=5)
    u, v = tangent(mesh, x), tangent(mesh, x, seed=7)
    a, b = mesh.transp(x, y, u), mesh.transp(x, y, v)
    torch.testing.assert_close((a * b).sum(-1), (u * v).sum(-1))
    torch.testing.assert_close(mesh.proju(y, a), a, rtol=0, atol=1e-12)
    # The velocity of a path that is straight is carried to its velocity.
    found = mesh.solve_logmap(x, y)
    straight = found.bends == 0
    end = mesh.geodesic(x, y, torch.ones((), dtype=torch.float64))[1]
    torch.testing.assert_close(mesh.transp(x, y, found.u)[straight], end[straight], rtol=0, atol=1e-11)


def test_the_gradient_of_the_distance_is_minus_the_direction() -> None:
    mesh = bumpy(1, 0.1)
    x, y = uniform(mesh, 20).requires_grad_(), uniform(mesh, 20, seed=5)
    distance = mesh.dist(x, y)
    (gradient,) = torch.autograd.grad(distance.sum(), [x])
    u = mesh.logmap(x, y)
    torch.testing.assert_close(mesh.proju(x, gradient), -u / distance[:, None], rtol=0, atol=1e-10)


def test_positions_on_paths_have_right_derivatives() -> None:
    mesh, h = bumpy(1, 0.1), 1e-6
    x, y, t = uniform(mesh, 12), uniform(mesh, 12, seed=5), torch.full((12,), 0.37, dtype=torch.float64)
    for i, which in ((0, x), (1, y)):
        e = mesh.tangent_basis(which)[:, 0]
        ends = [(x + s * h * e, y) if i == 0 else (x, y + s * h * e) for s in (1, -1)]
        ups, downs = (mesh.geodesic(*pair, t) for pair in ends)
        given = (lambda z: mesh.geodesic(z, y, t)) if i == 0 else (lambda z: mesh.geodesic(x, z, t))
        changes = torch.func.jvp(given, (which,), (e.contiguous(),))[1]
        for change, up, down in zip(changes, ups, downs, strict=True):
            torch.testing.assert_close(change, (up - down) / (2 * h), rtol=0, atol=1e-6)


@each_surface
def test_batches_and_dtypes(make: Callable[[], Mesh]) -> None:
    mesh = make()
    x, u = inner_start(mesh, 6)
    y = uniform(mesh, 6, seed=5)
    results = {
        "projx": lambda a, b, c: mesh.projx(a),
        "expmap": lambda a, b, c: mesh.expmap(a, b),
        "logmap": lambda a, b, c: mesh.logmap(a, c),
        "dist": lambda a, b, c: mesh.dist(a, c),
        "transp": lambda a, b, c: mesh.transp(a, c, b),
        "tangent_from_vector": lambda a, b, c: mesh.tangent_from_vector(a, c),
    }
    for name, function in results.items():
        flat = function(x, u, y)
        shaped = function(*(a.reshape(2, 3, 3) for a in (x, u, y)))
        torch.testing.assert_close(shaped.flatten(0, 1), flat, msg=name)
        torch.testing.assert_close(torch.func.vmap(function)(x, u, y), flat, msg=name)
        single = function(x[0].float(), u[0].float(), y[0].float())
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), flat[0], rtol=0, atol=1e-4, msg=name)
        assert function(*(a[:0] for a in (x, u, y))).shape[0] == 0


def test_uniform_draws_and_volume() -> None:
    mesh = cube()
    assert mesh.volume == pytest.approx(6.0)
    x = uniform(mesh, 6000)
    top = (x[:, 2] > 1 - 1e-12).double().mean()
    assert float(top) == pytest.approx(1 / 6, abs=4 * math.sqrt(5 / 36 / 6000))
    torch.testing.assert_close(x[x[:, 2] > 1 - 1e-12].mean(0)[:2], torch.full((2,), 0.5).double(), rtol=0, atol=0.04)


def test_the_spectrum_converges_to_that_of_the_sphere() -> None:
    values, functions = icosphere(3).eigenpairs(9)
    expected = torch.tensor([0, 2, 2, 2, 6, 6, 6, 6, 6], dtype=torch.float64)
    torch.testing.assert_close(values, expected, rtol=0.02, atol=1e-9)
    mass = icosphere(3).laplacian.mass
    torch.testing.assert_close(functions.T @ (mass[:, None] * functions), torch.eye(9).double(), rtol=0, atol=1e-9)


def test_the_robust_laplacian_is_the_cotangent_one_where_faces_are_good_and_right_where_they_are_bad() -> None:
    pytest.importorskip("robust_laplacian")
    good = icosphere(1)
    robust = Mesh(good.vertices, good.faces, robust=True)
    assert abs(robust.laplacian.stiffness() - good.laplacian.stiffness()).max() < 1e-6
    torch.testing.assert_close(robust.eigenpairs(6)[0], good.eigenpairs(6)[0], rtol=0.03, atol=1e-6)
    # A square in triangles ten times as wide as high: lines of vertices are moved along, so that their faces are
    # obtuse. Its Laplacian has the eigenvalues pi^2 (m^2 + n^2).
    flat = square(12)
    x, y, z = flat.vertices.unbind(1)
    row = (y * 12).round()
    bad = torch.stack([x + 0.9 * (x * (1 - x)) * (2 * (row % 2) - 1), y, z], 1)
    plain, mended = (Mesh(bad, flat.faces, robust=robust) for robust in (False, True))
    weights = [
        -(mesh.laplacian.stiffness() - sparse.diags(mesh.laplacian.stiffness().diagonal())) for mesh in (plain, mended)
    ]
    assert weights[0].min() < -0.1
    assert weights[1].min() > -1e-9
    truth = math.pi**2 * torch.tensor([1.0, 1.0, 2.0, 4.0, 4.0, 5.0, 5.0, 8.0], dtype=torch.float64)
    errors = [float((mesh.eigenpairs(9)[0][1:] / truth - 1).abs().max()) for mesh in (plain, mended)]
    assert errors[1] < errors[0]
    start = (torch.arange(len(bad)) == 84).double() / plain.vertex_areas()[84]
    lowest = [float(mesh.heat_flow(2e-3)(start).min()) for mesh in (plain, mended)]
    assert lowest[0] < 0
    assert lowest[1] > -1e-12


def test_functions_at_vertices_are_interpolated_with_their_gradients() -> None:
    mesh = bumpy(1, 0.1)
    slope = torch.tensor([0.3, -1.0, 0.5], dtype=torch.float64)
    x = uniform(mesh, 20)
    values = mesh.vertices @ slope
    torch.testing.assert_close(mesh.interpolate(values, x), x @ slope)
    torch.testing.assert_close(mesh.gradient(values, x), mesh.proju(x, slope.expand_as(x)), rtol=0, atol=1e-12)
    two = torch.stack([values, 2 * values], dim=-1)
    torch.testing.assert_close(mesh.gradient(two, x)[:, 1], 2 * mesh.gradient(values, x))


@pytest.mark.parametrize("make", [cube, lambda: bumpy(1, 0.1), lambda: folded(1.0)], ids=["cube", "bumpy", "folded"])
def test_fields_have_the_same_flux_on_both_sides_of_every_edge(make: Callable[[], Mesh]) -> None:
    mesh = make()
    table = mesh._tables.surface
    w = torch.tensor([0.4, -1.1, 0.7], dtype=torch.float64)
    share = 0.3
    for face, side in (table.neighbour >= 0).nonzero().tolist():
        other = int(table.neighbour[face, side])
        ends = mesh.vertices[mesh.faces[face]].roll(-1, 0)[[side, (side + 1) % 3]]
        on_edge = share * ends[0] + (1 - share) * ends[1]
        along = ends[1] - ends[0]
        fluxes = []
        for f in (face, other):
            middle = mesh.vertices[mesh.faces[f]].mean(0)
            near = on_edge + 1e-9 * (middle - on_edge)
            out = torch.linalg.cross(along, table.normal[f])
            fluxes.append(float(mesh.tangent_from_vector(near, w) @ out))
        # Out of one face is into the other.
        assert fluxes[0] == pytest.approx(fluxes[1], abs=1e-6)


def test_fields_do_not_leave_over_a_border() -> None:
    mesh = square()
    edge = torch.tensor([[1.0, 0.37, 0.0]], dtype=torch.float64) - torch.tensor([[1e-12, 0.0, 0.0]])
    flow = mesh.tangent_from_vector(edge, torch.tensor([[1.0, 0.5, 0.3]], dtype=torch.float64))
    assert abs(float(flow[0, 0])) < 1e-9


def test_copies_and_devices_keep_what_a_mesh_is() -> None:
    mesh = bumpy(1, 0.1)
    x, y = uniform(mesh, 3), uniform(mesh, 3, seed=5)
    mesh.dist(x, y)
    other = copy.deepcopy(mesh).half()
    assert mesh.same_as(other)
    assert not mesh.same_as(bumpy(1, 0.11))
    assert other.vertices.dtype == torch.float64
    torch.testing.assert_close(other.dist(x, y), mesh.dist(x, y))


def defect(change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    mesh = icosphere(0)
    return change(mesh.vertices.clone(), mesh.faces.clone())


def _with_face(corners: list[int]) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    return lambda v, f: (v, torch.cat([f, torch.tensor([corners])]))


def _twice(v: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
    return torch.cat([v, v[:1]]), torch.cat([f[:-1], torch.where(f[:1] == 0, len(v), f[:1]), f[-1:]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v, f: (v, f[1:]), r"1 hole, one at the edge \[\d+, \d+\] \(3 edges.*fill_holes"),
        (lambda v, f: (v, torch.cat([f[:1].flip(1), f[1:]])), r"same direction \(3 such edges\).*fix_winding"),
        (lambda v, f: (torch.cat([v, v + 5]), torch.cat([f, f + 12])), r"2 parts that do not touch.*mesh.split"),
        (_twice, r"vertices 0 and 12 are at one place.*merge_vertices"),
        (_with_face([0, 0, 1]), r"face 20, with corners \[0, 0, 1\], has no area \(1 of 21"),
        (_with_face([5, 0, 3]), r"3 faces share the edge between vertices \[0, 5\].*unique_faces"),
        (_with_face([0, 1, 12]), r"face 20 has corners \[0, 1, 12\], and there are 12 vertices.*subtract 1"),
        (lambda v, f: (torch.cat([v, v[:1] + 3]), f), r"vertex 12 belongs to no face.*remove_unreferenced_vertices"),
        (lambda v, f: (v.index_fill(0, torch.tensor(4), math.nan), f), r"vertex 4 is not finite"),
        (lambda v, f: (v[:, :2], f), r"positions \(V, 3\)"),
        (lambda v, f: (v, f.double()), r"whole numbers \(F, 3\).*torch.float64"),
    ],
)
def test_each_defect_has_a_sentence(change: Callable[..., tuple[Tensor, Tensor]], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        Mesh(*defect(change), closed=True)
    assert "\n" not in str(error.value)


def test_sheets_that_touch_in_a_point_are_no_surface() -> None:
    # Two tetrahedra with one vertex in common.
    corners = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    faces = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    second = torch.where(faces == 0, 0, faces + 3)
    with pytest.raises(ValueError, match=r"at vertex 0 2 sheets of faces touch in one point"):
        Mesh(torch.cat([corners, -corners[1:]]), torch.cat([faces, second.flip(1)]))


@pytest.mark.slow
def test_the_checker_finds_what_a_polyhedron_cannot_keep() -> None:
    report = check_manifold(icosphere(0))
    assert {finding.law for finding in report.findings} == {"embed is smooth along geodesics", "triangle inequality"}


@pytest.mark.slow
def test_a_bunny_agrees_with_libigl_and_exact_geodesics() -> None:
    folder = os.environ.get("RFM_DATA")
    if not folder:
        pytest.skip("RFM_DATA names no folder with meshes")
    igl = pytest.importorskip("igl")
    pytest.importorskip("trimesh")
    mesh = read_mesh(Path(folder) / "mesh" / "bunny.obj", closed=True)
    mesh = Mesh(mesh.vertices / 250, mesh.faces)
    v, f = mesh.vertices.numpy(), mesh.faces.numpy()
    x = uniform(mesh, 2000)
    off = x + 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=x.dtype)
    squared, _, closest, *_ = igl.point_mesh_squared_distance(off.numpy(), v, f)
    y = mesh.projx(off)
    torch.testing.assert_close((y - off).square().sum(-1), torch.from_numpy(squared).flatten(), rtol=0, atol=1e-12)
    torch.testing.assert_close(y, torch.from_numpy(closest), rtol=0, atol=1e-9)
    difference = mesh.laplacian.stiffness() + igl.cotmatrix(v, f)
    assert abs(difference).max() < 1e-9
    areas = igl.massmatrix(v, f, igl.MASSMATRIX_TYPE_VORONOI).diagonal()
    torch.testing.assert_close(mesh.laplacian.mass, torch.from_numpy(areas.copy()), rtol=0, atol=1e-12)
    # Between the middles of faces, which the exact algorithm of Mitchell, Mount and Papadimitriou takes too.
    generator, none = torch.Generator().manual_seed(0), np.array([], dtype=np.int64)
    middle = mesh.vertices[mesh.faces].mean(1)
    for start in torch.randint(len(f), (5,), generator=generator).tolist():
        ends = torch.randint(len(f), (40,), generator=generator)
        exact = igl.exact_geodesic(v, f, none, np.array([start]), none, ends.numpy())
        found = mesh.dist(middle[start].expand(40, 3), middle[ends])
        excess = found / torch.from_numpy(exact).flatten().clamp(min=1e-12) - 1
        assert float(excess.min()) > -1e-9
        assert float(excess.median()) < 1e-3
        assert float(excess.mean()) < 0.01


def wave(mesh: Mesh, size: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Return an ambient field that is smooth in position and time."""
    inner, outer = normal(3, 12, seed=0) / math.sqrt(3), size * normal(12, 3, seed=1) / math.sqrt(12)
    phase, speed = 3 * normal(12, seed=2), 2 * normal(12, seed=3)
    return lambda y, t: torch.sin(y @ inner + phase + t[..., None] * speed) @ outer


def integral(mesh: Mesh, field: Callable[[Tensor, Tensor], Tensor], method: Method, parts: int) -> float:
    """Return the integral over the faces of the density of a flow from the uniform one."""
    x, weight = face_rule(mesh, parts)
    return float((log_prob(field, Uniform(mesh), x, method).exp() * weight).sum())


def test_steps_along_the_surface_keep_mass_at_sharp_edges_and_projected_ones_do_not() -> None:
    """Projected steps come to rest at right angles: what they lose does not vanish with their length."""
    mesh = cube()
    ambient = wave(mesh, 0.6)
    field = partial(_continuous, mesh, ambient)
    assert integral(mesh, field, FixedStep(RK4, 5), 4) < 1.02
    assert integral(mesh, field, FixedStep(Projected(RK4), 5), 4) > 1.05


def _continuous(mesh: Mesh, ambient: Callable[[Tensor, Tensor], Tensor], y: Tensor, t: Tensor) -> Tensor:
    return mesh.tangent_from_vector(y, ambient(y, t))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "parts"),
    [(cube, 20), (lambda: folded(1.0), 24), (lambda: bumpy(1, 0.05), 8), (lambda: bumpy(1, 0.2), 8)],
    ids=["cube", "folded", "smooth", "rough"],
)
def test_densities_of_flows_integrate_to_one_over_the_faces(make: Callable[[], Mesh], parts: int) -> None:
    """Of fields whose densities range over a factor of 30 to 600, from face to face too."""
    mesh = make()
    ambient = wave(mesh, 0.6)
    assert integral(mesh, partial(_continuous, mesh, ambient), FixedStep(RK4, 20), parts) == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_a_projected_field_loses_mass() -> None:
    """What it does not know of its jumps at the edges is no matter of rounding."""
    mesh = bumpy(1, 0.05)
    ambient = wave(mesh, 0.6)
    total = integral(mesh, lambda y, t: mesh.proju(y, ambient(y, t)), FixedStep(RK4, 10), 6)
    assert abs(total - 1) > 0.01


def test_what_is_made_of_a_surface_has_its_kinks() -> None:
    mesh, flat = icosphere(0), Euclidean(2)
    composed = (Product(flat, mesh), Power(mesh, 2), Scaled(mesh, 2.0), Ragged(flat, mesh, 2), Padded(flat, mesh))
    assert all(m.has_kinks for m in composed)
    assert not Product(flat, flat).has_kinks


@pytest.mark.slow
def test_distances_agree_with_potpourri3d(rfm_data: Path) -> None:
    """With its heat method, and with its shortest paths by flipped edges, between vertices of the bunny."""
    pp3d = pytest.importorskip("potpourri3d")
    pytest.importorskip("trimesh")
    mesh = read_mesh(rfm_data / "mesh" / "bunny.obj", closed=True)
    mesh = Mesh(mesh.vertices / 250, mesh.faces)
    v, f = mesh.vertices.numpy(), mesh.faces.numpy()
    start = 100
    ends = torch.randint(len(v), (40,), generator=torch.Generator().manual_seed(0))
    found = mesh.dist(mesh.vertices[start].expand(40, 3), mesh.vertices[ends])
    heat = torch.from_numpy(pp3d.MeshHeatMethodDistanceSolver(v, f).compute_distance(start))[ends]
    far = found > 0.2
    assert float((found / heat - 1)[far].abs().median()) < 0.03
    flips = pp3d.EdgeFlipGeodesicSolver(v, f)
    paths = [flips.find_geodesic_path(start, int(end)) for end in ends]
    length = torch.tensor([float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum()) for path in paths])
    # Both are locally shortest, and either may be the shorter one.
    excess = found / length.to(found) - 1
    assert float(excess.abs().median()) < 1e-3
    assert float(excess.mean()) < 0.01
