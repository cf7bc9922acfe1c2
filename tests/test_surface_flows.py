"""Flows on meshes without training: fluxes, densities by the heat kernel, and the velocity between them."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mesh_shapes import bumpy, cube, face_rule, folded, icosphere, square
from torch import Tensor

import rfm
from experiments import meshes
from experiments.meshes import Target, corner_draws, normal_log_prob
from manifolds import Mesh, Sphere
from rfm.integrators import BOGACKI_SHAMPINE, Adaptive, NormalCoordinates
from rfm.likelihood import divergence
from rfm.paths import MoserVelocity
from rfm.sources import MeshDensity, Uniform, VonMisesFisher
from rfm.training import closed_form_field

MESHES = [cube, lambda: bumpy(1, 0.2), square, lambda: folded(1.0)]


def _hill(mesh: Mesh, floor: float = 0.2) -> MeshDensity:
    """Return a density that is linear in the faces, with a peak, and nowhere 0."""
    z = mesh.vertices @ torch.tensor([1.0, -0.4, 0.7], dtype=torch.float64)
    return MeshDensity(mesh, floor + (z - z.min()) ** 2)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("make", MESHES)
def test_a_flux_has_the_given_divergence_and_is_continuous_across_edges(make: Callable[[], Mesh]) -> None:
    mesh = make()
    gain = torch.randn(len(mesh.vertices), generator=_generator(), dtype=torch.float64)
    gain -= (mesh.vertex_areas() @ gain) / mesh.volume
    weight = 0.1 + torch.rand(len(mesh.faces), generator=_generator(1), dtype=torch.float64)
    flux = mesh.flux(gain, weight)

    def field(x: Tensor, t: Tensor) -> Tensor:
        face = mesh.closest_face(x)
        return flux.at(face, mesh.barycentric_in(face, x), x)

    x = mesh.random_uniform(50, generator=_generator(2), dtype=torch.float64)
    _, found = divergence(field, mesh, x, torch.zeros(50, dtype=torch.float64))
    torch.testing.assert_close(found, mesh.interpolate(gain, x), rtol=0, atol=1e-9)
    # What flows into the neighbour at a point of an edge is what flows out; nothing at a border.
    corners = mesh.vertices[mesh.faces]
    sides = {}
    for f, row in enumerate(mesh.faces.tolist()):
        for i in range(3):
            sides[row[(i + 1) % 3], row[(i + 2) % 3]] = f, i
    for (start, end), (f, i) in sides.items():
        for share in (0.2, 0.9):
            flows = []
            for g, j, a in ((f, i, share), (*sides.get((end, start), (-1, 0)), 1 - share)):
                if g < 0:
                    continue
                b = torch.zeros(3, dtype=torch.float64)
                b[(j + 1) % 3], b[(j + 2) % 3] = 1 - a, a
                side = corners[g, (j + 2) % 3] - corners[g, (j + 1) % 3]
                out = torch.linalg.cross(side, torch.linalg.cross(*(corners[g, 1:] - corners[g, :1])))
                flows.append(flux.at(torch.tensor(g), b, b @ corners[g]) @ out / out.norm())
            assert abs(float(sum(flows))) < 1e-10


@pytest.mark.parametrize("make", MESHES)
def test_the_continuity_equation_holds_at_all_times(make: Callable[[], Mesh]) -> None:
    """d p / dt + div (p u) = 0 in the faces, from the uniform density and from another."""
    mesh = make()
    target, other = _hill(mesh), MeshDensity(mesh, _hill(mesh).values.flip(0))
    for source in (Uniform(mesh), other):
        u = MoserVelocity(source, target)
        x = mesh.random_uniform(40, generator=_generator(), dtype=torch.float64)
        t = torch.rand(40, generator=_generator(1), dtype=torch.float64)

        def mass_flux(y: Tensor, s: Tensor, u: MoserVelocity = u) -> Tensor:
            return u.log_prob(y, s).exp()[..., None] * u(y, s)

        _, outflow = divergence(mass_flux, mesh, x, t)
        h = 1e-5
        gain = (u.log_prob(x, t + h).exp() - u.log_prob(x, t - h).exp()) / (2 * h)
        torch.testing.assert_close(gain, -outflow, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("make", "tolerance"),
    [(MESHES[1], 1e-4), (MESHES[2], 1e-4), *(pytest.param(make, 1e-6, marks=pytest.mark.slow) for make in MESHES)],
)
def test_solved_densities_agree_with_the_closed_form(make: Callable[[], Mesh], tolerance: float) -> None:
    mesh = make()
    u = MoserVelocity(Uniform(mesh), _hill(mesh))
    flow = rfm.Flow(mesh, u)
    x = mesh.random_uniform(4, generator=_generator(3), dtype=torch.float64)
    solver = Adaptive(NormalCoordinates(BOGACKI_SHAMPINE), atol=tolerance, rtol=tolerance)
    for time in (0.4, 1.0):
        known = flow.log_prob(x, time=time)
        torch.testing.assert_close(
            known, u.log_prob(x, torch.full((4,), time, dtype=torch.float64)), rtol=0, atol=1e-12
        )
        solved = flow.log_prob(x, time=time, solver=solver)
        torch.testing.assert_close(solved, known, rtol=0, atol=100 * tolerance)


def test_the_closed_form_is_for_the_field_s_own_source_alone() -> None:
    mesh = icosphere(0)
    u = MoserVelocity(Uniform(mesh), _hill(mesh))
    x = mesh.random_uniform(5, generator=_generator(), dtype=torch.float64)
    t = torch.ones(5, dtype=torch.float64)
    assert u.log_prob_from(Uniform(mesh), x, t) is not None
    assert u.log_prob_from(_hill(mesh), x, t) is None


def test_samples_of_the_flow_are_those_of_the_density() -> None:
    mesh = bumpy(1, 0.2)
    target = _hill(mesh, 0.0)
    flow = rfm.Flow(mesh, MoserVelocity(Uniform(mesh), target))
    x = flow.sample(400, generator=_generator()).double()
    mesh.check_point(x, tol=1e-5)
    log_p = target.log_prob(x)
    error = float(log_p.std()) / math.sqrt(len(x))
    assert abs(float(log_p.mean()) + target.entropy()) < 4 * error
    exact = target.sample((4000,), generator=_generator(1), dtype=torch.float64)
    spread = (x.std(0) / math.sqrt(len(x))).square() + (exact.std(0) / math.sqrt(len(exact))).square()
    assert bool(((x.mean(0) - exact.mean(0)).abs() < 4.5 * spread.sqrt()).all())


@pytest.mark.parametrize("make", MESHES)
def test_densities_are_sampled_exactly_and_integrate_to_one(make: Callable[[], Mesh]) -> None:
    mesh = make()
    for density in (_hill(mesh, 0.0), MeshDensity(mesh, _hill(mesh.subdivided()).values ** 2, 1)):
        assert abs(density.integral() - 1) < 1e-12
        nodes, weights = face_rule(density.fine, 12)
        p = density.density(nodes)
        assert abs(float(weights @ p) - 1) < 1e-3
        assert abs(-float(weights @ torch.special.xlogy(p, p)) - density.entropy()) < 2e-3
        x = density.sample((20_000,), generator=_generator(), dtype=torch.float64)
        mesh.check_point(x)
        mean, square = weights @ (p[:, None] * nodes), weights @ (p[:, None] * nodes**2)
        error = (square - mean**2).clamp(min=1e-12).sqrt() / math.sqrt(len(x))
        assert bool(((x.mean(0) - mean).abs() < 4.5 * error + 1e-3).all())


def test_subdivision_is_the_same_surface() -> None:
    mesh = bumpy(0, 0.2)
    fine = mesh.subdivided(2)
    assert len(fine.faces) == 16 * len(mesh.faces)
    assert fine.volume == pytest.approx(mesh.volume, rel=1e-12)
    x = fine.random_uniform(200, generator=_generator(), dtype=torch.float64)
    torch.testing.assert_close(mesh.projx(x), x, rtol=0, atol=1e-12)
    # The children of a face are in it, and turned as it is.
    face, inner = mesh.closest_face(fine.vertices[fine.faces].mean(1)), torch.arange(len(fine.faces)) // 16
    assert torch.equal(face, inner)
    torch.testing.assert_close(fine.normal(x), mesh.normal(x), rtol=0, atol=1e-9)


def test_heat_keeps_the_integral_and_ends_uniform() -> None:
    mesh = bumpy(1, 0.1)
    areas, density = mesh.vertex_areas(), _hill(mesh).values
    for time in (1e-3, 0.1):
        assert float(areas @ mesh.heat_flow(time)(density)) == pytest.approx(1, rel=1e-10)
    late = mesh.heat_flow(1e4)(density)
    torch.testing.assert_close(late, torch.full_like(late, 1 / float(mesh.volume or 0)), rtol=1e-3, atol=0)


def test_heat_on_a_fine_polyhedron_is_near_that_of_the_sphere() -> None:
    """The first harmonic decays as exp(-2 t)."""
    mesh = icosphere(3)
    z = mesh.vertices[:, 2]
    found = mesh.heat_flow(0.1)(z)
    torch.testing.assert_close(found, math.exp(-0.2) * z, rtol=0, atol=0.01)


@pytest.mark.parametrize("corrected", [True, False])
def test_a_fit_recovers_a_density(corrected: bool) -> None:
    mesh = icosphere(2)
    truth = _hill(mesh, 0.05)
    x = truth.sample((6000,), generator=_generator(), dtype=torch.float64)
    density = MeshDensity.fit(mesh, x[:4000], x[4000:5000], subdivisions=1, corrected=corrected)
    gap = (truth.log_prob(x[5000:]) - density.log_prob(x[5000:])).mean()
    assert float(gap) < 0.03
    assert abs(density.integral() - 1) < 1e-9
    assert density.time is not None
    assert density.background is not None


def test_weights_are_numbers_of_copies() -> None:
    mesh = icosphere(1)
    x = _hill(mesh).sample((60,), generator=_generator(), dtype=torch.float64)
    w = torch.arange(60) % 3
    times = torch.tensor([0.02])
    one = MeshDensity.fit(mesh, x, x, sample_weights=w, times=times, subdivisions=0)
    other = MeshDensity.fit(mesh, x.repeat_interleave(w, 0), x, times=times, subdivisions=0)
    torch.testing.assert_close(one.values, other.values, rtol=1e-9, atol=1e-12)


def test_fit_takes_the_closed_form_and_keeps_it(tmp_path: Path) -> None:
    mesh = icosphere(1)
    truth = _hill(mesh)
    x = truth.sample((400,), generator=_generator(), dtype=torch.float64)
    source = MeshDensity(mesh, torch.ones(len(mesh.vertices), dtype=torch.float64))
    flow = rfm.fit(x, mesh, source=source, out=tmp_path / "run", progress=False)
    assert flow.stopped == "the field is known in closed form, nothing was trained"
    assert flow.history[-1]["validation_nll"] < math.log(mesh.volume or 0)
    kept = rfm.Flow.load(tmp_path / "run")
    torch.testing.assert_close(kept.log_prob(x), flow.log_prob(x), rtol=0, atol=1e-6)
    again = rfm.fit(x, mesh, source=source, out=tmp_path / "run", resume=True, progress=False)
    torch.testing.assert_close(again.log_prob(x), flow.log_prob(x), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="more_steps"):
        rfm.fit(x, mesh, source=source, out=tmp_path / "run", more_steps=5, progress=False)


def test_a_network_is_trained_where_an_objective_says_so() -> None:
    mesh = icosphere(0)
    x = _hill(mesh).sample((40,), generator=_generator(), dtype=torch.float64)
    flow = rfm.fit(x, mesh, objective=rfm.FlowMatching(), steps=2, progress=False)
    assert any(p.requires_grad for p in flow.parameters())


def test_other_manifolds_need_training() -> None:
    assert closed_form_field(Sphere(2), Uniform(Sphere(2)), None) is None  # type: ignore[arg-type]


def test_bad_densities_are_refused() -> None:
    mesh = icosphere(0)
    with pytest.raises(ValueError, match="one finite number for each of the 12 vertices"):
        MeshDensity(mesh, torch.ones(3))
    with pytest.raises(ValueError, match="none negative"):
        MeshDensity(mesh, -torch.ones(12))
    with pytest.raises(ValueError, match="must be an object of Mesh"):
        MeshDensity(Sphere(2), torch.ones(12))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="points on a mesh have shape"):
        MeshDensity.fit(mesh, torch.ones(3))
    with pytest.raises(ValueError, match="source must be Uniform or a MeshDensity"):
        MoserVelocity(VonMisesFisher(Sphere(2), torch.tensor([0.0, 0.0, 1.0]), 2.0), _hill(mesh))
    with pytest.raises(ValueError, match="subdivisions"):
        MoserVelocity(MeshDensity(mesh, torch.ones(42), 1), _hill(mesh))


def test_the_study_s_targets_are_densities_whose_entropy_is_that_of_their_draws() -> None:
    fine = icosphere(2)
    for by_area in (True, False):
        target = Target.of(fine, fine.vertices[:, 2], by_area)
        x, log_p = target.draw(4000, _generator())
        assert bool((x[:, 2] > -0.2).all())
        assert float(target.log_density().exp() @ fine.face_areas()) == pytest.approx(1)
        assert abs(float(log_p.mean()) + target.entropy()) < 4 * float(log_p.std()) / math.sqrt(len(x)) + 1e-9


def test_the_study_s_mazes_are_drawn_inside() -> None:
    mesh = Mesh(square(4).vertices * 3, square(4).faces)
    x = corner_draws(mesh, (1.0, 1.0), 1.0, 500, 0)
    mesh.check_point(x)
    assert abs(float(normal_log_prob(x, (1.0, 1.0), 1.0).mean()) + math.log(2 * math.pi / 9.5**2) + 1) < 0.2


@pytest.mark.slow
def test_the_study_of_meshes_runs(rfm_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    meshes.main(["--quick", "--out", str(tmp_path)])
    assert "| bunny 10 | area |" in capsys.readouterr().out
