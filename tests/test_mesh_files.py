"""Meshes from files, on the command line, in saved flows and in pictures."""

from pathlib import Path

import pytest
import torch
from mesh_shapes import bumpy, cube, uniform

from manifolds import Mesh
from rfm import Flow, datasets, plotting
from rfm.command_line import main as cli
from rfm.flow.saved_flow import saved_manifold
from rfm.integrators import RK4, FixedStep
from rfm.networks import VelocityField

trimesh = pytest.importorskip("trimesh")


def write_surface(mesh: Mesh, path: Path) -> Path:
    trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False).export(path)
    return path


@pytest.mark.parametrize("ending", ["obj", "ply", "off", "stl"])
def test_every_format_gives_the_surface_back(tmp_path: Path, ending: str) -> None:
    mesh = bumpy(1, 0.1)
    found = datasets.read_mesh(write_surface(mesh, tmp_path / f"surface.{ending}"), closed=True)
    assert len(found.vertices) == len(mesh.vertices)
    assert found.volume == pytest.approx(mesh.volume, rel=1e-5)
    torch.testing.assert_close(found.projx(mesh.vertices), mesh.vertices, rtol=0, atol=1e-5)


def test_what_is_no_surface_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no such file"):
        datasets.read_mesh(tmp_path / "none.obj")
    with pytest.raises(ValueError, match=r"meshes are read from .obj, .ply, .off, .stl"):
        datasets.read_mesh(tmp_path / "a.txt")
    points = tmp_path / "points.obj"
    points.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\n")
    with pytest.raises(ValueError, match=r"points.obj: (holds no faces|cannot be read)"):
        datasets.read_mesh(points)
    mesh = cube()
    holed = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces[1:].numpy(), process=False)
    holed.export(tmp_path / "holed.ply")
    assert datasets.read_mesh(tmp_path / "holed.ply").has_border
    with pytest.raises(ValueError, match=r"holed.ply: Mesh: it has 1 hole"):
        datasets.read_mesh(tmp_path / "holed.ply", closed=True)


def test_points_near_a_surface_are_projected_and_others_named() -> None:
    mesh = cube()
    on = uniform(mesh, 20)
    near = on + 1e-3 * mesh.normal(on)
    torch.testing.assert_close(datasets.points_on_surface(mesh, near), on, rtol=0, atol=2e-3)
    near[7] = torch.tensor([0.5, 0.5, 0.5])
    with pytest.raises(ValueError, match=r"point 7: this point is 0.5 off the surface, more than 1% of its size"):
        datasets.points_on_surface(mesh, near)


@pytest.mark.parametrize("mesh", [cube(), bumpy(1, 0.1)], ids=["lists", "tensors"])
def test_a_saved_flow_holds_its_mesh(tmp_path: Path, mesh: Mesh) -> None:
    torch.manual_seed(0)
    flow = Flow(mesh, VelocityField(mesh, width=8, depth=1, features=8))
    flow.save(tmp_path / "flow")
    assert mesh.same_as(saved_manifold(tmp_path / "flow"))
    loaded = Flow.load(tmp_path / "flow")
    assert mesh.same_as(loaded.manifold)
    x = uniform(mesh, 5, dtype=torch.float32)
    steps = FixedStep(RK4, 2)
    torch.testing.assert_close(loaded.log_prob(x, solver=steps), flow.log_prob(x, solver=steps))


def test_the_commands_know_surfaces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mesh = bumpy(1, 0.1)
    file = write_surface(mesh, tmp_path / "surface.obj")
    x = uniform(mesh, 400)
    x = x[x[:, 2] > 0.2]
    table, run = tmp_path / "points.csv", tmp_path / "run"
    table.write_text("x,y,z\n" + "".join(f"{a:.6f},{b:.6f},{c:.6f}\n" for a, b, c in x.tolist()))
    assert cli.main(["fit", str(table), "--mesh", str(file), "--out", str(run), "--quiet"]) == 0
    file.unlink()
    assert cli.main(["sample", str(run), "-n", "20", "--out", str(tmp_path / "samples.csv"), "--quiet"]) == 0
    drawn = datasets.read_table(tmp_path / "samples.csv").numbers(["x", "y", "z"])
    torch.testing.assert_close(mesh.projx(torch.from_numpy(drawn)), torch.from_numpy(drawn), rtol=0, atol=1e-4)
    scores = tmp_path / "scores.csv"
    assert cli.main(["log-prob", str(run), str(table), "--out", str(scores), "--quiet"]) == 0
    assert "log_prob_nats_per_area" in scores.read_text().splitlines()[0]
    assert cli.main(["evaluate", str(run), "--quiet"]) == 0
    table_of_models = capsys.readouterr().out
    assert "uniform" in table_of_models
    assert "the best kernel is that of the validation points: heat kernel" in table_of_models
    table.write_text("x,y,z\n0,0,1\n0,0,3\n1,0,0\n")
    assert cli.main(["fit", str(table), "--mesh", str(file), "--out", str(tmp_path / "b"), "--quiet"]) == 2


@pytest.mark.parametrize("mesh", [cube(), bumpy(1, 0.1)], ids=["cube", "bumpy"])
def test_pictures_and_pages_of_surfaces(tmp_path: Path, mesh: Mesh) -> None:
    pytest.importorskip("plotly")
    flow = Flow(mesh, lambda x, t: torch.zeros_like(x))
    points = uniform(mesh, 50, dtype=torch.float32)
    figure = plotting.plot_flow(flow, points, evaluations=100, samples=points)
    assert [axes.get_title() for axes in figure.axes[:2]] == ["density of the flow", "from the other side"]
    plotting.save_figure(figure, tmp_path / "surface.png")
    subject = plotting.subject_of(flow, points, evaluations=100, samples=points)
    page = plotting.interactive(subject)
    assert page is not None
    surface, *dots = page["data"]
    assert surface["type"] == "mesh3d"
    assert len(surface["intensity"]) == len(surface["i"]) >= len(mesh.faces)
    assert len(dots) == 2
