"""Training in several processes: the flow that one process would have made."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import rfm

_SCRIPT = '''
"""Fit a small flow; under torchrun, with the other processes."""

import atexit
import sys
from pathlib import Path

import torch

from manifolds import Sphere
from rfm.training.fitting import fit
from rfm.networks import VelocityField


@atexit.register  # before what is trained, and so run after all that training registers
def check():
    assert not torch.distributed.is_initialized()
    threads = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    assert not [name for name in threads if "gloo" in name], threads  # they might abort the interpreter


torch.set_num_threads(1)
x = Sphere(2).projx(torch.randn(120, 3, generator=torch.Generator().manual_seed(0)) + 1.5)
torch.manual_seed(0)
field = VelocityField(Sphere(2), width=32, depth=1, features=16, max_frequency=4.0)
options = {"validation": list(range(21)), "weights": torch.linspace(1, 2, 120)}
flow = fit(
    x, Sphere(2), field=field, steps=40, batch_size=64, out=sys.argv[1], progress=False, device="cpu", **options
)
assert flow.history[-1]["step"] == 40
'''


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done


def _torchrun(*arguments: str) -> list[str]:
    # A port of its own choosing, so that tests can run side by side.
    rendezvous = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    return [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *rendezvous, *arguments]


def test_two_processes_make_the_flow_of_one(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    _run([sys.executable, str(script), "one"], tmp_path)
    done = _run(_torchrun(str(script), "two"), tmp_path)
    assert "destroy_process_group" not in done.stderr
    assert "Traceback" not in done.stderr

    one, two = rfm.Flow.load(tmp_path / "one"), rfm.Flow.load(tmp_path / "two")
    # Written once, and nothing left over.
    for folder in ("one", "two"):
        names = sorted(path.name.partition("-")[0] for path in (tmp_path / folder).iterdir())
        assert names == ["fit.json", "flow.json", "weights"]
    expected, found = one.state_dict(), two.state_dict()
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        # Adam divides by the size of the gradient: where that is near zero, rounding decides the step.
        torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-3)
    for a, b in zip(one.history, two.history, strict=True):
        assert a["step"] == b["step"]
        assert a["validation_nll"] == pytest.approx(b["validation_nll"], abs=1e-3)


_OTHERS = '''
"""Fits by maximum likelihood, of a stream, and of blocks."""

import sys
from pathlib import Path

import torch

import rfm
from manifolds import Sphere
from rfm.networks import VelocityField

torch.set_num_threads(1)
out, sphere = Path(sys.argv[1]), Sphere(2)
x = sphere.projx(torch.randn(120, 3, generator=torch.Generator().manual_seed(0)) + 1.5)


def field(**settings):
    torch.manual_seed(0)
    return VelocityField(sphere, width=16, depth=1, features=16, max_frequency=4.0, **settings)


def draw(generator):
    x_1 = sphere.projx(torch.randn(16, 1, 3, generator=generator) + 1.5)
    x_0, t = sphere.random_uniform(16, 4, generator=generator), torch.rand(16, 4, generator=generator)
    return x_0, x_1, t, {"condition": x_1}


def validate(model):
    return float(model(x, torch.full((120,), 0.5), condition=x).square().mean())


options = {"progress": False, "device": "cpu", "training": rfm.Training(validations=2)}
solve = rfm.integrators.FixedStep(rfm.integrators.RK4, 3)
objective = rfm.MaximumLikelihood(solve, tolerance=10.0)
likelihood = {"objective": objective, "steps": 4, "batch_size": 32, "refine": False}
rfm.fit(x, sphere, field=field(), out=out / "likelihood", **likelihood, **options)
flow = rfm.Flow(sphere, field(condition_dim=3), rfm.sources.Uniform(sphere))
rfm.fit_stream(draw, flow, validate=validate, steps=20, out=out / "stream", **options)
blocks = rfm.datasets.ArrayPoints(x.numpy())
settings = {"buffer_rows": 50, "fan_in": 1, "steps": 20, "batch_size": 16, "refine": False}
rfm.fit_out_of_core(blocks, sphere, field=field(), out=out / "blocks", **settings, **options)
'''


def test_two_processes_share_other_objectives_streams_and_blocks(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_OTHERS)
    _run([sys.executable, str(script), "one"], tmp_path)
    done = _run(_torchrun(str(script), "two"), tmp_path)
    assert "Traceback" not in done.stderr
    for name in ("likelihood", "stream", "blocks"):
        one, two = rfm.Flow.load(tmp_path / "one" / name), rfm.Flow.load(tmp_path / "two" / name)
        for key, value in one.state_dict().items():
            torch.testing.assert_close(two.state_dict()[key], value, rtol=1e-3, atol=1e-3)
        assert [record["step"] for record in one.history] == [record["step"] for record in two.history]


@pytest.mark.slow
def test_the_command_line_under_torchrun_reports_once(tmp_path: Path) -> None:
    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    rows = "\n".join(f"{a:.5f},{b:.5f}" for a, b in x.tolist())
    (tmp_path / "points.csv").write_text(f"a,b\n{rows}\n")
    fit = ["fit", "points.csv", "--manifold", "euclidean", "--out", "run", "--steps", "3", "--batch-size", "16"]
    done = _run(_torchrun("-m", "rfm", *fit, "--json", "--quiet", "--device", "cpu"), tmp_path)
    assert done.stdout.count('"validation_nll_nats"') == 1
    assert "destroy_process_group" not in done.stderr
    assert (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 7}, r"a batch of 7 does not divide among 2 processes; choose a multiple"),
        (
            {"objective": rfm.MaximumLikelihood(probes=1)},
            r"objective runs in one process, there are 2; start it without torchrun",
        ),
    ],
)
def test_what_several_processes_cannot_share_is_told(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    from lightning_fabric import Fabric

    from manifolds import Sphere

    class Two(Fabric):
        """As if there were two processes."""

        @property
        def world_size(self) -> int:
            return 2

    x = Sphere(2).random_uniform(20, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=message):
        rfm.fit(
            x, Sphere(2), **options, training=rfm.Training(fabric=Two(accelerator="cpu", devices=1)), out=tmp_path / "a"
        )
    assert not (tmp_path / "a").exists()
