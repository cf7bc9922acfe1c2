"""The command line, every command from end to end on small tables."""

import csv
import inspect
import io
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kills import KilledError, killed_before

import rfm
from rfm.command_line import main as cli
from rfm.command_line.table_output import parts
from rfm.datasets.geographic import EARTH_RADIUS_KM

_FIT = ["--steps", "20", "--validations", "2", "--batch-size", "32", "--device", "cpu"]
_COMMANDS = ["fit", "sample", "log-prob", "evaluate", "plot", "report", "demo", "check"]
_COMMANDS += ["compare", "grid", "probability", "regions"]


@pytest.fixture(autouse=True, scope="module")
def _small_networks() -> Iterator[None]:
    """Keep training short: the default network is made for thousands of steps."""
    from rfm.networks import VelocityField

    defaults = VelocityField.__init__.__defaults__
    assert defaults is not None
    assert list(inspect.signature(VelocityField).parameters)[1:4] == ["width", "depth", "features"]
    VelocityField.__init__.__defaults__ = (16, 1, 16, *defaults[3:])
    yield
    VelocityField.__init__.__defaults__ = defaults


def run(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 0, **settings: int) -> tuple[str, str]:
    """Run a command in this process; return stdout and stderr."""
    found = cli.main([str(argument) for argument in arguments], **settings)
    out, err = capsys.readouterr()
    assert found == status, err
    return out, err


def columns(text: str) -> dict[str, np.ndarray[Any, Any]]:
    """Read a table of numbers that the command line printed."""
    rows = list(csv.reader(io.StringIO(text)))
    values = np.array(rows[1:], dtype=float)
    return {name: values[:, i] for i, name in enumerate(rows[0])}


def write_quakes(path: Path, n: int = 80) -> Path:
    """Write places of the Pacific, longitude first and counted from 0 to 360, beside other columns."""
    generator = np.random.default_rng(0)
    lines = ["id,lng,LAT,depth"]
    for i in range(n):
        longitude, latitude = 180 + 15 * generator.standard_normal(), 8 * generator.standard_normal()
        lines.append(f"q{i},{longitude:.3f},{latitude:.3f},{generator.uniform(1, 9):.2f}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table and the run that was fitted to it; not to be written to."""
    folder = tmp_path_factory.mktemp("made")
    table = write_quakes(folder / "quakes.csv")
    assert cli.main(["fit", str(table), "--manifold", "sphere", "--out", str(folder / "run"), "--quiet", *_FIT]) == 0
    return folder


@pytest.fixture
def quakes(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A copy of the folder of `made`."""
    capsys.readouterr()
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_fit_reports_to_stdout_and_progress_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_quakes(tmp_path / "quakes.csv")
    out, err = run(capsys, "fit", table, "--manifold", "sphere", "--out", tmp_path / "run", *_FIT)
    assert "validation NLL" in out
    assert f"run: {tmp_path / 'run'}" in out
    assert "fit 100%" in err
    assert "validation NLL" in err
    names = sorted(path.name.partition("-")[0] for path in (tmp_path / "run").iterdir())
    assert names == ["data", "fit.json", "flow.json", "run.json", "weights"]


def test_fit_in_json_and_quiet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_quakes(tmp_path / "quakes.csv")
    out, err = run(capsys, "fit", table, "--manifold", "sphere", "--out", tmp_path / "run", "--json", "--quiet", *_FIT)
    record = json.loads(out)
    assert err == ""
    assert record["train"] + record["validation"] + record["test"] == 80
    assert record["steps"] == 20
    assert math.isfinite(record["validation_nll_nats"])
    assert record["stopped"] == "all 20 steps done"


def test_an_existing_run_is_refused_resumed_or_replaced(quakes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit = ["fit", quakes / "quakes.csv", "--manifold", "sphere", "--out", quakes / "run", "--quiet", *_FIT]
    before = (quakes / "run" / "flow.json").read_bytes()
    _, err = run(capsys, *fit, status=2)
    assert "already holds a flow; use --resume, --force, or another --out" in " ".join(err.split())
    run(capsys, *fit, "--resume")
    assert (quakes / "run" / "flow.json").read_bytes() == before
    _, err = run(capsys, *fit, "--seed", 1, "--resume", status=2)
    assert "other data or with other settings" in err
    run(capsys, *fit, "--seed", 1, "--force")
    assert (quakes / "run" / "flow.json").read_bytes() != before
    assert len(list((quakes / "run").glob("*.safetensors"))) == 2


def test_likelihood_goes_on_from_flow_matching(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, folder = write_quakes(tmp_path / "quakes.csv"), tmp_path / "run"
    command = ["fit", table, "--manifold", "sphere", "--out", folder, "--quiet", *_FIT]
    run(capsys, *command)
    before = (folder / "flow.json").read_text()
    # What flow matching has left is there: it is not trained again.
    out, _ = run(capsys, *command, "--likelihood-steps", 6, "--resume")
    assert "all 6 steps done" in out
    flow = rfm.Flow.load(folder)
    assert flow.history[0]["step"] == 0
    assert flow.history[0]["validation_nll"] == pytest.approx(
        min(record["validation_nll"] for record in json.loads(before)["history"]), abs=1e-3
    )
    after = (folder / "flow.json").read_text()
    run(capsys, *command, "--likelihood-steps", 6, "--resume")
    assert json.loads((folder / "flow.json").read_text())["history"] == json.loads(after)["history"]


@pytest.mark.parametrize("moment", ["before the flow", "after the flow", "before the data"])
@pytest.mark.parametrize("over_an_old_run", [False, True])
def test_a_fit_killed_at_any_moment_is_ended_by_the_same_command_with_resume(
    quakes: Path,
    capsys: pytest.CaptureFixture[str],
    moment: str,
    over_an_old_run: bool,
) -> None:
    place = {
        "training": "checkpoint.json",
        "before the flow": "flow.json",
        "after the flow": "checkpoint.json",
        "before the data": "run.json",
    }
    folder = quakes / ("run" if over_an_old_run else "new")
    fit = ["fit", quakes / "quakes.csv", "--manifold", "sphere", "--out", folder, "--quiet", "--seed", 5, *_FIT]
    force = ["--force"] if over_an_old_run else []
    with killed_before(place[moment], deleting=moment == "after the flow"), pytest.raises(KilledError):
        run(capsys, *fit, *force)
    if moment != "before the flow":
        _, err = run(capsys, "evaluate", folder, status=2)
        assert "give the same command again with --resume" in err
    run(capsys, *fit, "--resume")
    run(capsys, *[*fit[:5], quakes / "whole", *fit[6:]])
    for name in ("flow.json", "run.json"):
        whole, resumed = (json.loads((place / name).read_text()) for place in (quakes / "whole", folder))
        for record in (whole, resumed):
            for entry in record.get("history", []):
                del entry["seconds"], entry["cpu_seconds"]
        assert whole == resumed
    run(capsys, "evaluate", folder)


def test_samples_come_in_the_columns_and_units_of_the_input(quakes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = run(capsys, "sample", quakes / "run", "-n", 50)
    assert err == ""
    found = columns(out)
    assert list(found) == ["lng", "LAT"]
    assert len(found["lng"]) == 50
    assert (found["lng"] >= 0).all()
    assert (found["lng"] < 360).all()
    assert (found["lng"] > 180).any()
    assert (np.abs(found["LAT"]) <= 90).all()


def test_samples_repeat_with_the_seed(quakes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, _ = run(capsys, "sample", quakes / "run", "-n", 5, "--seed", 7)
    assert run(capsys, "sample", quakes / "run", "-n", 5, "--seed", 7)[0] == first
    assert run(capsys, "sample", quakes / "run", "-n", 5, "--seed", 8)[0] != first
    as_json = json.loads(run(capsys, "sample", quakes / "run", "-n", 5, "--seed", 7, "--json")[0])
    assert as_json["lng"] == pytest.approx(columns(first)["lng"])


def test_samples_can_be_scored_on_the_way_and_again(quakes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples, scores = quakes / "samples.csv", quakes / "scores.csv"
    out, _ = run(capsys, "sample", quakes / "run", "-n", 20, "--log-prob", "--out", samples)
    assert out == ""
    found = columns(samples.read_text())
    assert list(found) == ["lng", "LAT", "log_prob_nats_per_steradian", "log_prob_nats_per_km2"]
    run(capsys, "log-prob", quakes / "run", samples, "--out", scores)
    again = columns(scores.read_text())
    assert list(again) == ["log_prob_nats_per_steradian", "log_prob_nats_per_km2"]
    for name, score in again.items():
        np.testing.assert_allclose(score, found[name], atol=0.02)


def test_an_output_is_refused_unless_forced(quakes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = quakes / "out.csv"
    out.write_text("mine")
    for command in (["sample", quakes / "run", "-n", 2], ["log-prob", quakes / "run", quakes / "quakes.csv"]):
        _, err = run(capsys, *command, "--out", out, status=2)
        assert "out.csv exists; use --force" in " ".join(err.split())
        assert out.read_text() == "mine"
    _, err = run(capsys, "plot", quakes / "run", "--out", out, status=2)
    assert "use --force" in err
    run(capsys, "sample", quakes / "run", "-n", 2, "--out", out, "--force")
    assert out.read_text().startswith("lng,LAT\n")
    _, err = run(capsys, "sample", quakes / "run", "--out", quakes, status=2)
    assert "is a folder" in err
    _, err = run(capsys, "sample", quakes / "run", "--out", quakes / "no" / "out.csv", status=2)
    assert "does not exist; make it first" in " ".join(err.split())


def test_scores_are_densities_in_row_order(quakes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # A grid of equal areas: midpoints in the sine of the latitude and in the longitude.
    sines, longitudes = (np.arange(60) + 0.5) / 30 - 1, (np.arange(120) + 0.5) * 3
    grid = [(longitude, math.degrees(math.asin(s))) for s in sines for longitude in longitudes]
    table = quakes / "grid.csv"
    table.write_text("lng,LAT\n" + "".join(f"{a:.9f},{b:.9f}\n" for a, b in grid))
    out, _ = run(capsys, "log-prob", quakes / "run", table, "--quiet")
    found = columns(out)
    per_steradian, per_km2 = found["log_prob_nats_per_steradian"], found["log_prob_nats_per_km2"]
    area = 4 * math.pi / len(grid)
    assert np.exp(per_steradian).sum() * area == pytest.approx(1, abs=2e-3)
    assert np.exp(per_km2).sum() * area * EARTH_RADIUS_KM**2 == pytest.approx(1, abs=2e-3)
    # Some rows alone, in another order.
    some = [i for i in (4000, 117, 3339, 110) if grid[i][0] > 180]
    assert len(some) > 2
    table.write_text("LAT,lng\n" + "".join(f"{grid[i][1]:.9f},{grid[i][0] - 360:.9f}\n" for i in some))
    again = columns(run(capsys, "log-prob", quakes / "run", table)[0])
    np.testing.assert_allclose(again["log_prob_nats_per_steradian"], per_steradian[some], atol=1e-3)


def test_evaluate_and_plot_need_no_table(quakes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (quakes / "quakes.csv").unlink()
    out, err = run(capsys, "evaluate", quakes / "run")
    assert "uniform" in out
    assert "kernel density, one bandwidth" in out
    assert "flow minus best kernel" in out
    assert "flow ..." in err
    record = json.loads(run(capsys, "evaluate", quakes / "run", "--json", "--quiet")[0])
    assert record["data"] == "quakes.csv"
    assert set(record["test_nll_nats"]) >= {"uniform", "flow"}
    assert record["test_nll_nats"]["uniform"]["mean"] == pytest.approx(math.log(4 * math.pi))
    out, _ = run(capsys, "plot", quakes / "run")
    assert Path(out.strip()) == quakes / "run" / "density.png"
    assert (quakes / "run" / "density.png").read_bytes().startswith(b"\x89PNG")


def test_angles_on_a_torus_keep_their_units(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = np.random.default_rng(0)
    degrees = generator.normal([-60, -45], 10, size=(60, 2))
    for name, values, options in (("deg", degrees, []), ("rad", np.radians(degrees), ["--radians"])):
        table = tmp_path / f"{name}.tsv"
        table.write_text("# torsions\nphi\tpsi\n" + "".join(f"{a:.9f}\t{b:.9f}\n" for a, b in values))
        fit = ["fit", table, "--manifold", "torus", *options, "--out", tmp_path / name, "--quiet", *_FIT]
        run(capsys, *fit)
    deg, rad = (columns(run(capsys, "sample", tmp_path / name, "-n", 30, "--log-prob")[0]) for name in ("deg", "rad"))
    assert list(deg) == ["phi", "psi", "log_prob_nats_per_radian2", "log_prob_nats_per_degree2"]
    assert list(rad) == ["phi", "psi", "log_prob_nats_per_radian2"]
    assert np.abs(deg["phi"]).max() > 10
    assert np.abs(rad["phi"]).max() <= math.pi + 1e-6
    shift = 2 * math.log(math.pi / 180)
    np.testing.assert_allclose(deg["log_prob_nats_per_degree2"], deg["log_prob_nats_per_radian2"] + shift, atol=1e-5)


def test_conditions_weights_and_columns_by_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = np.random.default_rng(0)
    lines = ["mag;w;px;py"]
    for magnitude in generator.uniform(4, 6, 60):
        x, y = generator.normal(magnitude, 0.1, 2)
        lines.append(f"{magnitude:.3f};{generator.uniform(0.5, 1):.3f};{x:.4f};{y:.4f}")
    table = tmp_path / "t.csv"
    table.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    fit = ["fit", table, "--manifold", "euclidean", "--columns", 3, "py", "--condition", "mag", "--weights", "w"]
    run(capsys, *fit, "--out", tmp_path / "run", "--quiet", *_FIT)
    out, _ = run(capsys, "sample", tmp_path / "run", "-n", 4, "--condition", "mag=5", "--guidance", 2)
    assert list(columns(out)) == ["px", "py", "mag"]
    free, _ = run(capsys, "sample", tmp_path / "run", "-n", 4)
    assert free != out
    scores = columns(run(capsys, "log-prob", tmp_path / "run", table)[0])
    assert len(scores["log_prob_nats"]) == 60
    _, err = run(capsys, "sample", tmp_path / "run", "--condition", "size=5", status=2)
    assert "there is no condition 'size'; the conditions are mag (a number, 4" in err
    _, err = run(capsys, "sample", tmp_path / "run", "--condition", "mag=big", status=2)
    assert "mag=big is not a finite number" in err
    record = json.loads(run(capsys, "evaluate", tmp_path / "run", "--json", "--quiet")[0])
    assert "flow with conditions" in record["test_nll_nats"]
    assert record["weighted"]


def test_the_demo_makes_a_table_and_a_map_again_and_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    from rfm import datasets

    whole = datasets.airports()
    some = dataclasses.replace(whole, points=whole.points[::100])
    monkeypatch.setattr(datasets, "load", lambda name: some)
    monkeypatch.chdir(tmp_path)
    out, err = run(capsys, "demo", "--max-seconds", 0.3, "--device", "cpu")
    assert "kernel density, 30 bandwidths" in out
    assert "adaptive kernels" in out
    assert "the cap of 0.3 seconds was reached" in out
    assert f"{len(some.points)} points" in err
    assert (tmp_path / "runs" / "demo-airports" / "map.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads(run(capsys, "demo", "--max-seconds", 0.3, "--json", "--quiet", "--device", "cpu")[0])
    assert Path(record["map"]).exists()
    assert "flow" in record["test_nll_nats"]
    # A run that no demo made is not replaced.
    (tmp_path / "runs" / "demo-airports" / ".demo").unlink()
    _, err = run(capsys, "demo", "--max-seconds", 0.3, status=2)
    assert "already holds a flow" in err


_OWN = '''
import torch
from manifolds import Manifold

class Circle(Manifold):
    """The unit circle, by its angle."""

    volume = 2 * torch.pi

    def __init__(self):
        super().__init__(1, (1,))

    def projx(self, x):
        return torch.remainder(x + torch.pi, 2 * torch.pi) - torch.pi

    def proju(self, x, u):
        return u.expand(torch.broadcast_shapes(x.shape, u.shape))

    def expmap(self, x, u):
        return self.projx(x + u)

    def logmap(self, x, y):
        return self.projx(y - x)

    def random_uniform(self, *shape, generator=None, dtype=None, device=None):
        u = torch.rand(*shape, 1, generator=generator, dtype=dtype, device=device)
        return 2 * torch.pi * u - torch.pi

    def embed(self, x):
        return torch.cat([torch.cos(x), torch.sin(x)], dim=-1)

    embed_dim = 2

class Bent(Circle):
    def inner(self, x, u, v):
        return (u * v).sum(-1) * (2 + torch.cos(x[..., 0]))

number = 3
'''


def test_a_manifold_of_ones_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_circle.py").write_text(_OWN)
    (tmp_path / "angles.csv").write_text("angle\n" + "".join(f"{0.01 * i:.3f}\n" for i in range(60)))
    monkeypatch.chdir(tmp_path)
    out, _ = run(capsys, "check", "my_circle:Bent", status=1)
    assert "Bent" in out
    run(capsys, "fit", "angles.csv", "--manifold", "my_circle:Circle", "--out", "run", "--quiet", *_FIT)
    _, err = run(capsys, "sample", "run", status=2)
    assert "my_circle.Circle" in err
    out, _ = run(capsys, "sample", "run", "--manifold", "my_circle:Circle", "-n", 3)
    assert out.startswith("angle\n")
    _, err = run(capsys, "fit", "angles.csv", "--manifold", "my_circle:Bent", "--out", "bent", "--quiet", status=2)
    assert "breaks its contract" in err
    assert not (tmp_path / "bent").exists()
    for name, fault in (("number", "is not a manifolds.Manifold but int"), ("Square", "cannot be imported")):
        _, err = run(capsys, "check", f"my_circle:{name}", status=2)
        assert fault in err


_OWN_SOURCE = """
from rfm.sources import Source, Uniform

class Mine(Source):
    def __init__(self, manifold, count):
        super().__init__(manifold)
        self.count = count

    def sample(self, shape, generator=None, dtype=None, device=None):
        return Uniform(self.manifold).sample(shape, generator, dtype, device)

    def log_prob(self, x):
        return Uniform(self.manifold).log_prob(x)

def mine(manifold, points):
    manifold.check_point(points)
    return Mine(manifold, len(points))
"""


def test_a_source_of_ones_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_source.py").write_text(_OWN_SOURCE)
    table = write_quakes(tmp_path / "quakes.csv", 40)
    monkeypatch.chdir(tmp_path)
    fit = ["fit", table, "--manifold", "sphere", "--quiet", *_FIT]
    run(capsys, *fit, "--source", "my_source:mine", "--out", "own")
    _, err = run(capsys, "sample", "own", status=2)
    assert "my_source.Mine" in err
    out, _ = run(capsys, "sample", "own", "--source", "my_source:mine", "-n", 3)
    assert len(out.splitlines()) == 4


@pytest.mark.parametrize(("source", "coupling"), [("kernel", "sinkhorn"), ("uniform", "optimal-transport")])
def test_named_sources_and_couplings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str, coupling: str
) -> None:
    table, out = write_quakes(tmp_path / "quakes.csv", 40), tmp_path / "run"
    options = ["--source", source, "--coupling", coupling, "--out", out, "--quiet"]
    run(capsys, "fit", table, "--manifold", "sphere", *options, *_FIT)
    assert type(rfm.Flow.load(out).source).__name__ == {"kernel": "KernelMixture", "uniform": "Uniform"}[source]
    text, _ = run(capsys, "sample", out, "-n", 3, "--log-prob")
    assert len(text.splitlines()) == 4


def test_check_passes_a_manifold_of_the_library(capsys: pytest.CaptureFixture[str]) -> None:
    from manifolds import Euclidean

    sys.modules["plane_for_test"] = type(sys)("plane_for_test")
    sys.modules["plane_for_test"].plane = Euclidean(2)  # type: ignore[attr-defined]
    try:
        out, _ = run(capsys, "check", "plane_for_test:plane")
    finally:
        del sys.modules["plane_for_test"]
    assert "Euclidean(2)" in out


def test_interruption_says_how_to_go_on(quakes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit = ["fit", quakes / "quakes.csv", "--manifold", "sphere", "--out", quakes / "new", "--quiet", *_FIT]
    with killed_before("checkpoint.json", KeyboardInterrupt):
        _, err = run(capsys, *fit, status=130)
    assert err == "rfm fit: interrupted; rfm fit ... --resume goes on\n"


_QUIET_IMPORTS = """
import contextlib, io, sys, time
from rfm.command_line.main import main
started = time.process_time()
text = io.StringIO()
with contextlib.redirect_stdout(text):
    for arguments in {calls!r}:
        try:
            main(arguments)
        except SystemExit as exit:
            assert exit.code == 0, (arguments, exit.code)
loaded = [name for name in ("torch", "numpy", "scipy", "matplotlib", "lightning_fabric") if name in sys.modules]
assert not loaded, loaded
assert time.process_time() - started < 2
sys.stdout.write(text.getvalue())
"""


def test_help_and_version_are_quick_and_load_nothing_heavy() -> None:
    calls = [["--version"], ["--help"], *([name, "--help"] for name in _COMMANDS)]
    done = subprocess.run(
        [sys.executable, "-c", _QUIET_IMPORTS.format(calls=calls)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"rfm {rfm.__version__}\n")
    for word in ("--manifold", "--seed", "--json", "--resume", "--force", "rfm demo", *_COMMANDS):
        assert word in done.stdout


def test_the_module_runs_and_a_closed_pipe_is_no_fault(quakes: Path) -> None:
    command = f"{sys.executable} -m rfm sample run -n 5000 --quiet | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=quakes,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout == "lng,LAT\n"
    assert done.stderr == ""
    assert done.returncode == 0


def test_a_flow_fitted_by_the_command_line_loads_in_python(quakes: Path) -> None:
    flow = rfm.Flow.load(quakes / "run")
    assert flow.sample(3, generator=torch.Generator().manual_seed(0)).shape == (3, 3)
    assert flow.history


def piped(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """Put bytes on standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_a_table_on_standard_input_is_as_good_as_a_file(
    quakes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (quakes / "quakes.csv").read_bytes()
    fit = ["fit", "-", "--manifold", "sphere", "--out", quakes / "piped", "--quiet", *_FIT]
    piped(monkeypatch, content)
    run(capsys, *fit)
    record = json.loads((quakes / "piped" / "run.json").read_text())
    assert record["source"] == "standard input"
    assert record["sha256"] == json.loads((quakes / "run" / "run.json").read_text())["sha256"]
    assert rfm.Flow.load(quakes / "piped").history[-1]["step"] == 20
    run(capsys, "evaluate", quakes / "piped")
    # Resumed with the same table, with none, and with another one.
    for again in (content, b""):
        piped(monkeypatch, again)
        run(capsys, *fit, "--resume")
    piped(monkeypatch, content.rpartition(b"q79")[0])
    assert "other data" in run(capsys, *fit, "--resume", status=2)[1]
    piped(monkeypatch, b"")
    run(capsys, *fit, "--resume")
    for command in (["log-prob", quakes / "run", "-"], ["log-prob", quakes / "run", quakes / "quakes.csv"]):
        piped(monkeypatch, content)
        out, _ = run(capsys, *command)
        assert len(out.splitlines()) == 81
    piped(monkeypatch, b"")
    assert "standard input: the file is empty" in run(capsys, "log-prob", quakes / "run", "-", status=2)[1]


def test_a_run_on_a_pipe_that_was_killed_goes_on_without_it(
    quakes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (quakes / "quakes.csv").read_bytes()
    fit = ["fit", "-", "--manifold", "sphere", "--out", quakes / "piped", "--quiet", *_FIT]
    with killed_before("flow.json", KeyboardInterrupt):
        piped(monkeypatch, content)
        run(capsys, *fit, status=130)
    piped(monkeypatch, b"")
    run(capsys, *fit, "--resume")
    run(capsys, "evaluate", quakes / "piped")
    # A file in its place needs no copy.
    run(capsys, "fit", quakes / "quakes.csv", *fit[2:], "--force")
    assert not (quakes / "piped" / "input").exists()


def test_conditions_on_standard_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = "".join(f"{i / 7:.3f},{i % 5}.5\n" for i in range(60))
    piped(monkeypatch, b"px,mag\n" + rows.encode())
    fit = ["fit", "-", "--manifold", "euclidean", "--columns", "px", "--condition", "mag"]
    run(capsys, *fit, "--out", tmp_path / "run", "--quiet", *_FIT)
    piped(monkeypatch, b"mag\n1\n2\n")
    out, _ = run(capsys, "sample", tmp_path / "run", "--condition-file", "-")
    assert columns(out)["mag"].tolist() == [1, 2]


def test_tracks_and_maps_on_standard_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    poses = generator.normal(size=(40, 3))
    track = "".join(f"{1000 + i} {x:.4f} {y:.4f} {z:.4f} 0 0 0.6 0.8\n" for i, (x, y, z) in enumerate(poses))
    angles = generator.uniform(0, 3, size=(40, 3))
    rows = "".join(f"{a:.5f} {b:.5f} {c:.5f} 0 {i} 1 0.9 0\n" for i, (a, b, c) in enumerate(angles))
    for content, kind, name in ((track, "se3", "tum"), ("# TEM_PIXperUM 1.0\n" + rows, "so3", "ang")):
        piped(monkeypatch, content.encode())
        run(capsys, "fit", "-", "--manifold", kind, "--format", name, "--out", tmp_path / name, "--quiet", *_FIT)
        piped(monkeypatch, content.encode())
        assert len(run(capsys, "log-prob", tmp_path / name, "-")[0].splitlines()) == 41


def test_a_capped_fit_is_resumed_and_says_what_it_did(quakes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--manifold", "sphere", "--batch-size", "32", "--device", "cpu", "--out", quakes / "capped", "--quiet"]
    fit = ["fit", quakes / "quakes.csv", *common, "--steps", 100_000]
    out, _ = run(capsys, *fit, "--max-seconds", 0.2)
    assert "the cap of 0.2 seconds was reached" in out
    assert "--resume with a larger --max-seconds goes on" in out
    out, _ = run(capsys, *fit, "--max-seconds", 0.2, "--resume")
    assert "nothing left to train, the cap of 0.2 seconds was reached" in out
    record = json.loads(run(capsys, *fit, "--max-seconds", 2, "--resume", "--json")[0])
    assert record["steps"] > record["resumed_at_step"] > 0
    run(capsys, "evaluate", quakes / "capped")
    out, _ = run(
        capsys, *["fit", quakes / "quakes.csv", "--manifold", "sphere", "--out", quakes / "run", *_FIT], "--resume"
    )
    assert out.startswith("resumed at step 20: nothing left to train, all 20 steps done\n")


def test_the_columns_used_are_always_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = np.random.default_rng(0)
    rows = "".join(f"{a:.1f},{b:.2f}\n" for a, b in generator.uniform((0, 0), (359, 20), (60, 2)))
    (tmp_path / "wind.csv").write_text("direction,speed\n" + rows)
    fit = ["fit", tmp_path / "wind.csv", "--manifold", "torus", "--out", tmp_path / "run", "--quiet", *_FIT]
    out, _ = run(capsys, *fit)
    assert "points from column direction, in degrees" in out
    assert "not used: speed" in out
    record = json.loads(run(capsys, *fit, "--json", "--force")[0])
    assert (record["columns"], record["unit"], record["unused_columns"]) == (["direction"], "degrees", ["speed"])
    assert rfm.Flow.load(tmp_path / "run").manifold.dim == 1
    told = "points from column direction, in degrees"
    assert told in run(capsys, "evaluate", tmp_path / "run", "--quiet")[0]
    assert told in run(capsys, "log-prob", tmp_path / "run", tmp_path / "wind.csv", "--quiet")[1]
    assert told in run(capsys, "plot", tmp_path / "run")[1]
    assert run(capsys, "sample", tmp_path / "run", "-n", 2)[0].startswith("direction\n")
    # Asked for, the speed is an angle.
    run(capsys, *fit, "--columns", "direction", "speed", "--force")
    assert rfm.Flow.load(tmp_path / "run").manifold.dim == 2


def test_conditions_and_weights_are_no_coordinates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = np.random.default_rng(0)
    rows = "".join(
        f"{i},{x:.3f},{y:.3f},{m:.2f},{w:.2f}\n" for i, (x, y, m, w) in enumerate(generator.uniform(size=(60, 4)))
    )
    (tmp_path / "t.csv").write_text("id,x,y,mag,w\n" + rows)
    fit = ["fit", tmp_path / "t.csv", "--manifold", "euclidean", "--condition", "mag", "--weights", "w", *_FIT]
    out, _ = run(capsys, *fit, "--out", tmp_path / "run", "--quiet")
    assert "points from columns x, y\n" in out
    assert "not used: id" in out


def test_parts_are_all_rows_in_order() -> None:
    for total, rows in ((30, 7), (28, 7), (3, 7), (0, 7)):
        found = list(parts(total, rows))
        assert list(itertools.chain(*found)) == list(range(total))
        assert all(0 < len(part) <= rows for part in found)


def test_long_outputs_are_written_part_by_part(quakes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = ["sample", quakes / "run", "-n", 30, "--log-prob", "--seed", 3]
    text, _ = run(capsys, *draw, part_rows=7)
    assert text != run(capsys, *draw)[0]
    rows = columns(text)
    assert {len(column) for column in rows.values()} == {30}
    assert len({*zip(rows["lng"], rows["LAT"], strict=True)}) == 30
    # The same to a file, in batches of another size, and as JSON.
    run(capsys, *draw, "--out", quakes / "s.csv", part_rows=7)
    assert (quakes / "s.csv").read_text() == text
    other = columns(run(capsys, *draw, "--batch-size", 2, part_rows=7)[0])
    for target in ([], ["--out", quakes / "s.json"]):
        out, _ = run(capsys, *draw, "--json", *target, part_rows=7)
        record = json.loads((quakes / "s.json").read_text() if target else out)
        assert list(record) == list(rows)
        for name, column in rows.items():
            np.testing.assert_allclose(record[name], column, rtol=1e-6)
            np.testing.assert_allclose(other[name], column, atol=1e-3)
    scores = columns(run(capsys, "log-prob", quakes / "run", quakes / "s.csv", part_rows=7)[0])
    np.testing.assert_allclose(scores["log_prob_nats_per_steradian"], rows["log_prob_nats_per_steradian"], atol=0.02)


def test_a_part_of_samples_is_as_if_drawn_alone(quakes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With as many samples as a part has, nothing depends on there being parts."""
    whole, _ = run(capsys, "sample", quakes / "run", "-n", 12)
    longer, _ = run(capsys, "sample", quakes / "run", "-n", 20, part_rows=12)
    assert longer.splitlines()[:13] == whole.splitlines()


_INTERRUPTING = """
from rfm.sources import Uniform


class Interrupting(Uniform):
    drawn = 0

    def sample(self, *arguments, **options):
        self.drawn += 1
        if self.drawn == 3:
            raise KeyboardInterrupt
        return super().sample(*arguments, **options)


def thrice(manifold, points):
    return Interrupting(manifold)
"""


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_interrupted_sampling_leaves_the_old_file_and_the_parts_that_are_done(
    quakes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, form: list[str]
) -> None:
    (quakes / "interrupting_source.py").write_text(_INTERRUPTING)
    monkeypatch.syspath_prepend(str(quakes))
    (quakes / "s.csv").write_text("mine")
    before = sorted(path for path in quakes.iterdir() if path.name != "__pycache__")
    draw = ["sample", quakes / "run", "-n", 20, "--out", quakes / "s.csv", "--force", *form]
    run(capsys, *draw, "--source", "interrupting_source:thrice", status=130, part_rows=4)
    assert (quakes / "s.csv").read_text() == "mine"
    parts = [] if form else [quakes / ".s.csv.parts"]
    assert sorted(path for path in quakes.iterdir() if path.name != "__pycache__") == sorted([*before, *parts])
    assert all(len(list(folder.glob("part-*"))) < 5 for folder in parts)


def test_conditions_and_times_run_on_through_the_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = np.random.default_rng(0).normal(size=(40, 3))
    rows = "".join(f"{1000 + i} {x:.4f} {y:.4f} {z:.4f} 0 0 0.6 0.8\n" for i, (x, y, z) in enumerate(places))
    (tmp_path / "t.txt").write_text("# timestamp tx ty tz qx qy qz qw\n" + rows)
    fit = ["fit", tmp_path / "t.txt", "--manifold", "se3", "--condition", "seconds", "--out", tmp_path / "run"]
    run(capsys, *fit, "--quiet", *_FIT)
    (tmp_path / "when.csv").write_text("seconds\n1\n2\n3\n4\n\n" + "5\n6\n7\n")
    out, _ = run(capsys, "sample", tmp_path / "run", "--condition-file", tmp_path / "when.csv", part_rows=3)
    assert [float(line.split()[0]) for line in out.splitlines()[1:]] == [1001, 1002, 1003, 1004, 1005, 1006, 1007]
    out, _ = run(capsys, "sample", tmp_path / "run", "-n", 7, part_rows=3)
    assert [float(line.split()[0]) for line in out.splitlines()[1:]] == list(range(7))
    (tmp_path / "when.csv").write_text("seconds,other\n1,0\n2,0\n3,0\n,0\n5,0\n")
    out, _ = run(
        capsys, "sample", tmp_path / "run", "--condition-file", tmp_path / "when.csv", "--log-prob", part_rows=3
    )
    assert [line.rpartition(",")[2] for line in out.splitlines()[1:]] == ["1.0", "2.0", "3.0", "", "5.0"]
    out, _ = run(capsys, "sample", tmp_path / "run", "-n", 5, "--condition", "seconds=2", "--log-prob", part_rows=3)
    assert [line.rpartition(",")[2] for line in out.splitlines()[1:]] == ["2.0"] * 5


def test_a_single_block_that_tests_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = np.random.default_rng(0).uniform(size=(60, 2))
    rows = "".join(f"{x:.3f},{y:.3f},{i}\n" for i, (x, y) in enumerate(values))
    (tmp_path / "t.csv").write_text("x,y,time\n" + rows)
    fit = ["fit", tmp_path / "t.csv", "--manifold", "euclidean", "--blocks", "time=10", "--out", tmp_path / "run"]
    assert "one block tests, which tells nothing" in run(capsys, *fit, "--quiet", *_FIT)[0]
    out, _ = run(capsys, "evaluate", tmp_path / "run", "--quiet")
    assert "all test points lie in one block, which tells nothing" in out
    assert "nan" not in out
