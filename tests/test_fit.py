"""`rfm.fit`: what it learns, what it repeats, what it refuses."""

import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kills import KilledError, killed_after
from torch import Tensor, nn

import rfm
from manifolds import (
    SE3,
    SO3,
    SPD,
    Euclidean,
    FlatTorus,
    LogEuclideanSPD,
    Manifold,
    Octahedral,
    Quotient,
    RightMultiplication,
    Sphere,
)
from rfm.couplings import Independent, OptimalTransport, Pairs, Sinkhorn
from rfm.networks import VelocityField
from rfm.objectives import MaximumLikelihood, Objective
from rfm.paths import ConditionalFlowPath, GeodesicPath
from rfm.paths.times import UniformAndLateTimes, UniformTimes
from rfm.records.descriptions import SavedFlowError
from rfm.sources import KernelMixture, Source, Uniform, WrappedNormal
from rfm.training import Budget, default_field
from rfm.training.arguments import hold_out
from rfm.training.weight_average import averaging


def small(manifold: Manifold, condition_dim: int = 0, seed: int = 0) -> VelocityField:
    """A network that trains in a blink."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VelocityField(manifold, width=32, depth=1, features=16, max_frequency=4.0, condition_dim=condition_dim)


def clustered(manifold: Manifold, n: int = 200, spread: float = 0.2, seed: int = 0) -> Tensor:
    """Points about one place, away from every seam."""
    generator = torch.Generator().manual_seed(seed)
    centre = manifold.projx(torch.linspace(0.3, 1.0, math.prod(manifold.event_shape)).reshape(manifold.event_shape))
    x = centre.double().expand(n, *manifold.event_shape)
    noise = spread * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    return manifold.expmap(x, manifold.proju(x, noise))


def fit_small(points: Tensor, manifold: Manifold, **options: Any) -> rfm.Flow:
    settings: dict[str, Any] = {"steps": 40, "batch_size": 64, "progress": False, "device": "cpu"} | options
    settings["training"] = replace(settings.get("training") or rfm.Training(), validations=5)
    if "field" not in settings:
        settings["field"] = small(manifold)
    return rfm.fit(points, manifold, **settings)


def state(flow: rfm.Flow) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in flow.state_dict().items()}


def assert_same(a: rfm.Flow, b: rfm.Flow) -> None:
    """Equal bit for bit, histories too, but for the time they took."""
    left, right = state(a), state(b)
    assert left.keys() == right.keys()
    for key in left:
        assert torch.equal(left[key], right[key]), key
    ours, theirs = ([{k: v for k, v in r.items() if "seconds" not in k} for r in flow.history] for flow in (a, b))
    assert ours == theirs
    assert a.stopped == b.stopped


@pytest.mark.parametrize("manifold", [Sphere(2), FlatTorus(2), Euclidean(2), SO3()], ids=str)
def test_fit_learns_a_cluster(manifold: Manifold) -> None:
    x = clustered(manifold)
    # Far from the data, so that there is something to learn where the default would be nearly right.
    source = WrappedNormal(manifold, torch.zeros(2), 2.0) if isinstance(manifold, Euclidean) else None
    flow = fit_small(x[:150], manifold, steps=120, source=source, training=rfm.Training(learning_rate=2e-2))
    losses = [record["loss"] for record in flow.history]
    assert losses[-1] < losses[0]
    assert [record["step"] for record in flow.history] == sorted(record["step"] for record in flow.history)
    fresh = x[150:].float()
    gain = (flow.log_prob(fresh) - flow.source.log_prob(fresh)).mean()
    assert gain > 0.5
    samples = flow.sample(20, generator=torch.Generator().manual_seed(1))
    manifold.check_point(samples)
    assert not flow.training


def test_defaults_choose_themselves() -> None:
    manifold = Sphere(2)
    x = clustered(manifold, 60).float().numpy()
    flow = rfm.fit(x, manifold, steps=2, batch_size=16, progress=False, device="cpu")
    assert isinstance(flow.field, VelocityField)
    assert isinstance(flow.source, Uniform)
    assert 4.0 <= flow.field.max_frequency <= 128.0
    assert flow.stopped == "all 2 steps done"


@pytest.mark.parametrize(
    ("manifold", "bound"), [(Sphere(2), 128), (SO3(), 128), (FlatTorus(5), 11.31), (FlatTorus(7), 5.04)], ids=str
)
def test_the_finest_frequency_is_bounded_by_the_directions_of_waves(manifold: Manifold, bound: float) -> None:
    """Of structures measured again and again, whose kernels would be as narrow as the repeats are near."""
    x = Uniform(manifold).sample((100,), torch.Generator().manual_seed(0), torch.float64).repeat_interleave(5, 0)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    near = manifold.expmap(x, 1e-4 * manifold.proju(x, noise))
    assert default_field(manifold, near).max_frequency == pytest.approx(bound, rel=0.01)
    assert default_field(manifold, x[:1]).max_frequency == 4.0


@pytest.mark.parametrize("manifold", [FlatTorus(1), Sphere(2), SO3(), Euclidean(2)], ids=str)
def test_the_finest_frequency_follows_structure_and_not_the_number_of_points(manifold: Manifold) -> None:
    """Many points of a smooth density are near each other, and there is nothing fine between them."""
    wide, narrow = (
        [default_field(manifold, cloud(manifold, n, width)).max_frequency for n in (300, 3000)] for width in (0.5, 0.05)
    )
    assert wide[1] <= 4 * wide[0]
    assert wide[1] <= 32
    if manifold.volume is not None:  # elsewhere the unit of length is that of the data
        assert narrow[1] >= 4 * wide[1]


def cloud(manifold: Manifold, n: int, width: float) -> Tensor:
    """Draw points about one of them."""
    g = torch.Generator().manual_seed(n)
    noise = torch.randn(n, *manifold.event_shape, generator=g, dtype=torch.float64)
    centre = manifold.projx(torch.eye(3, dtype=torch.float64)[0][: noise[0].numel()] if noise.ndim == 2 else noise[0])
    return manifold.expmap(centre, width * manifold.proju(centre.expand_as(noise), noise))


def test_the_same_seed_repeats_bit_for_bit_and_another_does_not() -> None:
    manifold = Sphere(2)
    x = clustered(manifold)
    options: dict[str, Any] = {"steps": 10, "batch_size": 32, "progress": False, "device": "cpu"}
    first = rfm.fit(x[:50], manifold, seed=3, **options)
    torch.rand(7)
    assert_same(first, rfm.fit(x[:50], manifold, seed=3, **options))
    other = rfm.fit(x[:50], manifold, seed=4, **options)
    assert not torch.equal(first.log_prob(x[:5]), other.log_prob(x[:5]))


def test_global_randomness_is_left_alone() -> None:
    manifold = FlatTorus(2)
    x = clustered(manifold, 50)
    torch.manual_seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[union-attr, index]
    flow = rfm.fit(x, manifold, steps=3, batch_size=8, progress=False, device="cpu")
    flow.sample(3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # type: ignore[index]


@pytest.mark.parametrize("conditional", [False, True])
def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path: Path, conditional: bool) -> None:
    manifold = Sphere(2)
    x = clustered(manifold)
    condition = x[:, :1] if conditional else None

    def run(out: Path | None, **options: Any) -> rfm.Flow:
        return fit_small(x, manifold, condition=condition, field=small(manifold, conditional), out=out, **options)

    whole = run(None)
    with pytest.raises(KilledError):
        run(tmp_path, progress=killed_after(24))
    assert not (tmp_path / "flow.json").exists()
    resumed = run(tmp_path, resume=True)
    assert_same(whole, resumed)
    assert_same(whole, rfm.Flow.load(tmp_path))
    assert not list(tmp_path.glob("checkpoint*"))
    assert not list(tmp_path.glob("*.tmp"))


def test_a_resumed_run_in_double_precision_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    manifold = Sphere(2)
    x = clustered(manifold)

    def run(out: Path | None, **options: Any) -> rfm.Flow:
        return fit_small(x, manifold, field=small(manifold).double(), out=out, **options)

    whole = run(None)
    with pytest.raises(KilledError):
        run(tmp_path, progress=killed_after(24))
    assert_same(whole, run(tmp_path, resume=True))


_SCRIPT = """
import sys, time, torch, rfm
from manifolds import Sphere
from rfm.networks import VelocityField
torch.set_num_threads(1)
def slowly(spent, record):
    time.sleep(float(sys.argv[2]))
g = torch.Generator().manual_seed(0)
x = Sphere(2).projx(torch.randn(200, 3, generator=g) + 2)
torch.manual_seed(0)
field = VelocityField(Sphere(2), width=32, depth=1, features=16, max_frequency=4.0)
training = rfm.Training(validations=6)
options = {"out": sys.argv[1], "resume": True, "progress": slowly, "training": training, "device": "cpu"}
rfm.fit(x, Sphere(2), field=field, steps=60, batch_size=64, **options)
"""


@pytest.mark.slow
def test_a_run_killed_by_the_system_resumes_to_the_same_result(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"

    def start(out: Path, slow: float) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", _SCRIPT, str(out), str(slow)])

    assert start(whole, 0).wait(120) == 0
    process = start(killed, 0.03)
    try:
        deadline = time.monotonic() + 120
        while not (killed / "checkpoint.json").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (killed / "flow.json").exists()
    assert start(killed, 0).wait(120) == 0
    assert_same(rfm.Flow.load(whole), rfm.Flow.load(killed))


def test_a_finished_run_is_loaded_by_resume(tmp_path: Path) -> None:
    manifold = Sphere(2)
    x = clustered(manifold)
    flow = fit_small(x, manifold, out=tmp_path, steps=5)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert_same(flow, fit_small(x, manifold, out=tmp_path, steps=5, resume=True))
    assert written == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}


def test_a_finished_run_of_other_data_is_not_taken_for_this_one(tmp_path: Path) -> None:
    manifold = Sphere(2)
    x = clustered(manifold)
    fit_small(x, manifold, out=tmp_path, steps=5)
    with pytest.raises(SavedFlowError, match="other data or with other settings; resume with the same"):
        fit_small(x[:-1], manifold, out=tmp_path, steps=5, resume=True)
    with pytest.raises(SavedFlowError, match="other data or with other settings"):
        fit_small(x, manifold, out=tmp_path, steps=6, resume=True)


def test_a_checkpoint_of_other_data_is_refused(tmp_path: Path) -> None:
    manifold = Sphere(2)
    x = clustered(manifold)
    with pytest.raises(KilledError):
        fit_small(x, manifold, out=tmp_path, progress=killed_after(8))
    with pytest.raises(SavedFlowError, match="other data or settings"):
        fit_small(-x, manifold, out=tmp_path, resume=True)
    with pytest.raises(SavedFlowError, match="other data or settings"):
        fit_small(x, manifold, out=tmp_path, resume=True, seed=1)
    with pytest.raises(FileExistsError, match="an unfinished run; resume it"):
        fit_small(x, manifold, out=tmp_path)


def test_a_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    manifold = Sphere(2)
    x = clustered(manifold)
    with pytest.raises(KilledError):
        fit_small(x, manifold, out=tmp_path, progress=killed_after(8))
    tensors = next(tmp_path.glob("checkpoint-*.safetensors"))
    tensors.write_bytes(tensors.read_bytes()[:-7])
    with pytest.raises(SavedFlowError, match="damaged"):
        fit_small(x, manifold, out=tmp_path, resume=True)
    (tmp_path / "checkpoint.json").write_text("{")
    with pytest.raises(SavedFlowError, match=r"checkpoint\.json cannot be read"):
        fit_small(x, manifold, out=tmp_path, resume=True)


def test_an_existing_flow_is_refused_unless_forced(tmp_path: Path) -> None:
    manifold = Sphere(2)
    x = clustered(manifold)
    first = fit_small(x, manifold, out=tmp_path, steps=5)
    with pytest.raises(FileExistsError, match="already holds a flow; resume it, force"):
        fit_small(x, manifold, out=tmp_path, steps=5)
    second = fit_small(x, manifold, out=tmp_path, steps=7, training=rfm.Training(force=True))
    loaded = rfm.Flow.load(tmp_path)
    assert_same(second, loaded)
    assert not torch.equal(first.log_prob(x[:3]), loaded.log_prob(x[:3]))
    assert len(list(tmp_path.glob("weights-*"))) == 1


def test_out_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    manifold = Sphere(2)
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(FileExistsError, match="choose another folder"):
            fit_small(clustered(manifold), manifold, out=out)


def streamed(validate: Callable[[nn.Module], float], steps: int = 60, **options: Any) -> rfm.Flow:
    """A flow that is validated by a function of its own; options of `Training`, and ``progress``."""
    manifold, progress = Sphere(2), options.pop("progress", False)
    x = clustered(manifold).float()

    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, dict[str, Any]]:
        x_1 = x[torch.randint(len(x), (16,), generator=generator)]
        return manifold.random_uniform(16, generator=generator), x_1, torch.rand(16, generator=generator), {}

    flow, training = rfm.Flow(manifold, small(manifold)), rfm.Training(**options)
    settings: dict[str, Any] = {"steps": steps, "device": "cpu", "progress": progress, "training": training}
    return rfm.fit_stream(draw, flow, validate=validate, **settings)


def test_training_stops_when_validation_no_longer_improves() -> None:
    nlls = iter([3.0, 2.0, *(2.5 for _ in range(100))])
    flow = streamed(lambda field: next(nlls), validations=20)
    assert flow.stopped == "validation NLL had not improved for 8 validations, at step 30 of 60"
    assert [record["validation_nll"] for record in flow.history] == [3.0, 2.0] + [2.5] * 8


def test_how_many_validations_and_how_patient_may_be_said() -> None:
    seen: list[dict[str, Any]] = []

    def report(spent: float, record: dict[str, Any]) -> None:
        seen.append({"spent": spent, **record})

    flow = streamed(lambda field: 1.0, validations=20, patience=3, progress=report)
    assert flow.stopped == "validation NLL had not improved for 3 validations, at step 12 of 60"
    assert [record["step"] for record in flow.history] == [3, 6, 9, 12]
    assert [record["step"] for record in seen] == list(range(1, 13))
    assert [record["spent"] for record in seen] == pytest.approx([step / 60 for step in range(1, 13)])
    assert [record.get("validation_nll") for record in seen] == [None] * 2 + [1.0] * 10
    assert not any(record["replayed"] for record in seen)
    for name, value in (("validations", 0), ("patience", 0), ("max_gradient_norm", 0.0), ("validations", 2.5)):
        with pytest.raises(ValueError, match=f"Training: {name} must be"):
            rfm.Training(**{name: value})


def test_other_validations_are_another_run(tmp_path: Path) -> None:
    manifold = Sphere(2)
    options: dict[str, Any] = {"steps": 4, "batch_size": 16, "progress": False, "device": "cpu", "out": tmp_path}
    x = clustered(manifold, 30)
    rfm.fit(x, manifold, field=small(manifold), training=rfm.Training(validations=2), **options)
    with pytest.raises(SavedFlowError, match=r"validations was 2, is 4.*patience was 8, is 5"):
        rfm.fit(
            x, manifold, field=small(manifold), training=rfm.Training(validations=4, patience=5), resume=True, **options
        )


def test_a_field_that_cannot_be_integrated_yet_leaves_out_its_likelihood() -> None:
    nlls = iter([math.nan] * 10 + [math.inf, 2.0, math.nan] + [3.0] * 20)
    flow = streamed(lambda field: next(nlls), validations=20)
    assert [record.get("validation_nll") for record in flow.history] == [None] * 11 + [2.0, None] + [3.0] * 7
    assert flow.stopped == "all 60 steps done"


def test_a_fit_without_any_likelihood_is_refused() -> None:
    with pytest.raises(ValueError, match="no finite likelihood of the validation points at any of 5 validations"):
        streamed(lambda field: math.nan, validations=5)


def test_the_best_weights_are_kept() -> None:
    seen: list[dict[str, Tensor]] = []

    def validating(field: nn.Module) -> float:
        seen.append({key: value.clone() for key, value in field.state_dict().items()})
        return abs(len(seen) - 3.0)

    flow = streamed(validating, steps=40, validations=5)
    assert isinstance(flow.field, nn.Module)
    for key, value in flow.field.state_dict().items():
        assert torch.equal(value, seen[2][key])


def test_a_cap_on_time_is_reported() -> None:
    manifold = Sphere(2)
    flow = fit_small(clustered(manifold), manifold, steps=10**6, training=rfm.Training(max_seconds=0.5))
    assert flow.stopped.startswith("the cap of 0.5 seconds was reached at step ")
    assert flow.history
    assert flow.history[-1]["step"] < 10**6


class Clock:
    """A clock that a second passes on whenever somebody looks at it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_a_capped_run_goes_on_with_what_is_left_of_a_new_cap(tmp_path: Path) -> None:
    manifold, clock = Sphere(2), Clock()
    x = clustered(manifold)

    def go(cap: float | None, **options: Any) -> rfm.Flow:
        return fit_small(
            x, manifold, out=tmp_path, steps=40, training=rfm.Training(max_seconds=cap, clock=clock), **options
        )

    first = go(10.0)
    before = first.history[-1]
    assert first.stopped.startswith(f"the cap of 10 seconds was reached at step {before['step']:.0f} of 40")
    assert_same(rfm.Flow.load(tmp_path), first)
    # Nothing is left of the same cap, or of a smaller one.
    for cap in (10.0, 5.0):
        same = go(cap, resume=True)
        assert same.history == first.history
        assert same.stopped.startswith(f"the cap of {cap:g} seconds was reached")
    second = go(25.0, resume=True)
    assert second.history[: len(first.history)] == first.history
    assert before["step"] < second.history[-1]["step"] < 40
    assert before["seconds"] < second.history[-1]["seconds"]
    done = go(None, resume=True)
    assert done.stopped == "all 40 steps done"
    assert done.history[-1]["step"] == 40
    assert not (tmp_path / "checkpoint.json").exists()
    assert_same(go(None, resume=True), done)
    with pytest.raises(SavedFlowError, match=r"other settings \(steps was 40, is 80\); resume with the same"):
        fit_small(x, manifold, out=tmp_path, steps=80, resume=True)


def test_a_capped_run_that_goes_on_without_a_cap_has_all_its_steps_validated(tmp_path: Path) -> None:
    """Which validation is the best is remembered across the resumption."""
    manifold = Sphere(2)
    x = clustered(manifold)
    fit_small(x, manifold, out=tmp_path, steps=40, training=rfm.Training(max_seconds=10.0, clock=Clock()))
    flow = fit_small(x, manifold, out=tmp_path, steps=40, resume=True)
    best = min(record["validation_nll"] for record in flow.history)
    held = rfm.training.arguments.hold_out(manifold.projx(x.double()), 0.1, 0)[1]
    assert -float(flow.log_prob(x[held]).mean()) == pytest.approx(best, abs=0.02)


def test_the_learning_rate_falls_to_zero_by_the_nearer_end() -> None:
    budget = Budget(steps=1000, batch_size=1, learning_rate=2.0, seed=0, max_seconds=10.0)
    assert budget.spent(500, 1.0) == 0.5
    assert budget.spent(500, 9.0) == 0.9
    assert budget.learning_rate_at(1000, 1.2) == pytest.approx(0)
    assert budget.learning_rate_at(9, 0.0) == pytest.approx(0.2)


def test_averages_of_short_runs_forget_the_start() -> None:
    assert averaging(8000) == (4, 0.998**4)
    for steps in (1, 5, 20, 100, 1000, 1500):
        every, decay = averaging(steps)
        assert every == 1 or steps >= 1000
        assert decay ** (steps / every) < 0.01


def test_weights_move_the_density() -> None:
    manifold = Sphere(2)
    a = clustered(manifold, 100, 0.1)
    x = torch.cat([a, -a])
    first = torch.arange(200) < 100
    weights = torch.where(first, 9.0, 1.0)
    flow = fit_small(x, manifold, weights=weights, steps=150, training=rfm.Training(learning_rate=2e-2))
    nearer_first = manifold.dist(flow.sample(400, generator=torch.Generator().manual_seed(0)), a[:1].float())
    share = (nearer_first < math.pi / 2).float().mean()
    assert 0.8 < share < 0.98
    assert flow.log_prob(a).mean() > flow.log_prob(-a).mean() + 1


def test_weights_of_one_are_no_weights() -> None:
    manifold = FlatTorus(2)
    x = clustered(manifold, 50)
    weighted = fit_small(x, manifold, weights=np.ones(50), steps=40)
    assert weighted.history[-1]["validation_nll"] == pytest.approx(
        fit_small(x, manifold, steps=40).history[-1]["validation_nll"], abs=0.2
    )


def test_the_density_follows_the_condition_and_guidance() -> None:
    manifold = Sphere(2)
    a = clustered(manifold, 150, 0.1)
    x = torch.cat([a, -a])
    condition = torch.where(torch.arange(300) < 150, 0.0, 1.0)
    condition[::10] = math.nan
    flow = rfm.fit(
        x,
        manifold,
        condition=condition,
        field=small(manifold, 1),
        steps=200,
        batch_size=128,
        training=rfm.Training(learning_rate=2e-2),
        progress=False,
        device="cpu",
    )
    here, there = torch.zeros(1), torch.ones(1)
    assert flow.log_prob(a, condition=here).mean() > flow.log_prob(a, condition=there).mean() + 2
    assert flow.log_prob(a, condition=torch.full((1,), math.nan)).isfinite().all()

    def share(**options: Any) -> float:
        drawn = flow.base.sample(200, generator=torch.Generator().manual_seed(0), **options)
        return float((manifold.dist(drawn, a[:1].float()) < math.pi / 2).float().mean())

    assert share(condition=here) > 0.9
    assert share(condition=there) < 0.1
    assert 0.25 < share() < 0.75
    # 0 is the unconditional field, 1 the conditional one.
    assert share(condition=here, guidance=0.0) == share()
    assert share(condition=here, guidance=2.0) >= 0.9


def test_a_default_field_learns_both_with_and_without_condition() -> None:
    manifold = Sphere(2)
    x = clustered(manifold, 60)
    condition = np.stack([np.arange(60.0), np.ones(60)], axis=1)
    condition[3] = np.nan
    flow = rfm.fit(x, manifold, condition=condition, steps=2, batch_size=8, progress=False, device="cpu")
    assert isinstance(flow.field, VelocityField)
    assert flow.field.condition_dim == 2
    # A constant entry has no spread to divide by.
    assert flow.field.condition_scale is not None
    assert flow.field.condition_scale[1] == 1.0
    assert flow.sample((2, 3), condition=torch.tensor([1.0, 1.0])).shape == (2, 3, 3)


def test_equal_points_are_held_out_together() -> None:
    x = clustered(Sphere(2), 100)
    copies = x.repeat_interleave(3, dim=0)
    train, held = hold_out(copies, 0.2, 0)
    assert sorted(torch.cat([train, held]).tolist()) == list(range(300))
    assert not set((train // 3).tolist()) & set((held // 3).tolist())
    assert len(held) == 60
    order = torch.randperm(100, generator=torch.Generator().manual_seed(3))
    train, held = hold_out(x, 0.2, 3)
    assert torch.equal(train, order[:80])
    assert torch.equal(held, order[80:])
    assert len(hold_out(x[:2], 0.01, 0)[1]) == 1


def test_validation_points_may_be_named() -> None:
    manifold = Sphere(2)
    x = clustered(manifold)
    seen: list[Tensor] = []

    class Watched(VelocityField):
        def pushforward(self, x: Tensor, t: Tensor, *rest: Any, **known: Any) -> tuple[Tensor, Tensor]:
            if bool((t == 1).all()):
                seen.append(x.detach().clone())
            return super().pushforward(x, t, *rest, **known)

    held = torch.tensor([5, 1, 7])
    field = Watched(manifold, width=32, depth=1, features=16, max_frequency=4.0)
    flow = fit_small(x, manifold, field=field, validation=held, steps=3)
    assert torch.equal(seen[0], manifold.projx(x[held]).float())
    flow = fit_small(x, manifold, validation=held, steps=3)
    assert_same(flow, fit_small(x, manifold, validation=held.numpy(), steps=3))
    assert_same(flow, fit_small(x, manifold, validation=[5, 1, 7], steps=3))


class _Linear(nn.Module):
    """A field of the user's own, in float64, that reads points as they are."""

    def __init__(self, manifold: Manifold) -> None:
        super().__init__()
        self.manifold = manifold
        # From some first weights 50 steps are too few.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.linear = nn.Linear(4, 3, dtype=torch.float64)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        joined = torch.cat([x, t[..., None].expand(*x.shape[:-1], 1)], dim=-1)
        return self.manifold.proju(x, self.linear(joined))


def test_a_field_of_the_users_own(tmp_path: Path) -> None:
    manifold = Sphere(2)
    x = clustered(manifold)
    flow = fit_small(
        x, manifold, field=_Linear(manifold), steps=50, training=rfm.Training(learning_rate=3e-2), out=tmp_path
    )
    assert flow.sample(3).dtype == torch.float64
    assert (flow.log_prob(x) - flow.source.log_prob(x)).mean() > 0.1
    with pytest.raises(SavedFlowError, match="pass it to load"):
        rfm.Flow.load(tmp_path)
    assert_same(flow, rfm.Flow.load(tmp_path, field=_Linear(manifold)))


class _North(Source):
    """Uniform on the northern half."""

    def sample(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        x = self.manifold.random_uniform(*shape, generator=generator, dtype=dtype, device=device)
        return torch.cat([x[..., :2], x[..., 2:].abs()], dim=-1)

    def log_prob(self, x: Tensor) -> Tensor:
        return torch.where(x[..., 2] >= 0, -math.log(2 * math.pi), -math.inf)


class _Inside(_North):
    """Off the sphere."""

    def sample(self, *arguments: Any, **options: Any) -> Tensor:
        return super().sample(*arguments, **options) / 2


def test_a_source_of_the_users_own(tmp_path: Path) -> None:
    manifold = Sphere(2)
    flow = fit_small(clustered(manifold, 50, 0.05), manifold, source=_North(manifold), steps=3, out=tmp_path)
    assert isinstance(flow.source, _North)
    with pytest.raises(SavedFlowError, match="pass it to load"):
        rfm.Flow.load(tmp_path)
    assert_same(flow, rfm.Flow.load(tmp_path, source=_North(manifold)))


def test_optimal_transport_shortens_the_paths() -> None:
    manifold = Sphere(2)
    x = manifold.random_uniform(100, generator=torch.Generator().manual_seed(0))
    independent = fit_small(x, manifold, steps=5)
    paired = fit_small(x, manifold, steps=5, coupling=OptimalTransport(manifold))
    # At the start the field is zero, and the loss is the mean squared length of the paths.
    assert paired.history[0]["loss"] < independent.history[0]["loss"] / 3


def test_couplings_are_told_the_condition_that_the_field_sees() -> None:
    manifold = Sphere(2)
    x = manifold.random_uniform(64, generator=torch.Generator().manual_seed(0))
    seen = []

    class Watching(OptimalTransport):
        def __call__(self, x_0: Tensor, x_1: Tensor, **known: Any) -> Pairs:
            seen.append(known)
            return super().__call__(x_0, x_1, **known)

    field = VelocityField(manifold, width=8, depth=1, features=4, max_frequency=2.0, condition_dim=1)
    fit_small(x, manifold, condition=(x[:, 0] > 0).double(), field=field, steps=2, coupling=Watching(manifold))
    assert len(seen) == 2
    assert all(known["condition"].shape[-1] == 1 and known["generator"] is not None for known in seen)
    fit_small(x, manifold, steps=1, coupling=Watching(manifold))
    assert seen[-1]["condition"] is None


def test_another_coupling_is_another_run(tmp_path: Path) -> None:
    manifold = Sphere(2)
    x = clustered(manifold, 30, 0.05)
    fit_small(x, manifold, steps=2, coupling=OptimalTransport(manifold), out=tmp_path)
    fit_small(x, manifold, steps=2, coupling=OptimalTransport(manifold), out=tmp_path, resume=True)
    for other in (Independent(), OptimalTransport(manifold, condition_weight=1.0)):
        with pytest.raises(ValueError, match="other"):
            fit_small(x, manifold, steps=2, coupling=other, out=tmp_path, resume=True)


def _field_loss(scale: float) -> Any:
    def loss(field: Any, source: Source, x_0: Tensor, x_1: Tensor, t: Tensor, **known: Any) -> Tensor:
        return scale * field(x_1, t).square().mean()

    return loss


def test_what_the_user_wrote_is_part_of_a_run(tmp_path: Path) -> None:
    manifold = Sphere(2)
    x = clustered(manifold, 30, 0.05)

    def run(folder: str, **options: Any) -> rfm.Flow:
        return fit_small(x, manifold, field=_Linear(manifold), steps=1, out=tmp_path / folder, **options)

    run("objective", objective=_field_loss(1.0))
    # Its weights are those of the saved flow, whatever the new field began with.
    run("objective", objective=_field_loss(1.0), resume=True)
    with pytest.raises(SavedFlowError, match="other settings"):
        run("objective", objective=_field_loss(2.0), resume=True)

    def paths(power: int) -> rfm.FlowMatching:
        return rfm.FlowMatching(ConditionalFlowPath(manifold, lambda a, b, s: manifold.geodesic(a, b, s**power)[0]))

    run("path", objective=paths(1))
    with pytest.raises(SavedFlowError, match="other settings"):
        run("path", objective=paths(2), resume=True)


def test_a_source_with_another_metric_is_refused() -> None:
    manifold = LogEuclideanSPD(2)
    x = manifold.projx(torch.eye(2) + 0.1 * torch.randn(30, 2, 2, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(ValueError, match=r"source lives on SPD\(.*where LogEuclideanSPD\(.*is required"):
        fit_small(x, manifold, steps=1, source=WrappedNormal(SPD(2), torch.eye(2)))


def test_a_coupling_that_an_objective_does_not_use_is_refused() -> None:
    manifold = Sphere(2)
    with pytest.raises(ValueError, match="MaximumLikelihood has no use for coupling; leave out either"):
        fit_small(clustered(manifold, 30), manifold, objective=MaximumLikelihood(), coupling=Sinkhorn(manifold))


class _Noting(Objective):
    """Draws times of its own, and notes what it is given."""

    def __init__(self, seen: list[tuple[Tensor, Tensor, Tensor]]) -> None:
        self.seen = seen

    def __call__(self, field: Any, source: Source, x_0: Tensor, x_1: Tensor, t: Tensor, **rest: Any) -> Tensor:
        self.seen.append((x_0, x_1, t))
        return field(x_1, t).square().mean()

    def draw_times(self, shape: tuple[int, ...], **like: Any) -> Tensor:
        like.pop("generator")
        return torch.full(shape, 0.25, **like)


def test_an_objective_of_ones_own_is_given_its_times_and_coupled_sources() -> None:
    manifold = Sphere(2)
    coupled: list[tuple[Tensor, Tensor, Tensor]] = []
    alone: list[tuple[Tensor, Tensor, Tensor]] = []
    for seen, coupling in ((alone, Independent()), (coupled, OptimalTransport(manifold))):
        fit_small(clustered(manifold, 30), manifold, steps=1, objective=_Noting(seen), coupling=coupling)
    (x_0, x_1, t), (y_0, y_1, s) = alone[0], coupled[0]
    assert bool((t == 0.25).all())
    assert bool((s == 0.25).all())
    assert torch.equal(x_1, y_1)
    assert float(manifold.dist(y_0, y_1).square().sum()) < float(manifold.dist(x_0, x_1).square().sum())


def test_flow_matching_is_an_objective_like_any_other() -> None:
    manifold = Sphere(2)

    def loss(field: Any, source: Source, x_0: Tensor, x_1: Tensor, t: Tensor, **rest: Any) -> Tensor:
        return rfm.flow_matching_loss(field, GeodesicPath(manifold), x_0, x_1, t)

    chosen = (None, rfm.FlowMatching(), rfm.FlowMatching(GeodesicPath(manifold), UniformAndLateTimes()), loss)
    first, *others = (fit_small(clustered(manifold, 30), manifold, steps=5, objective=o) for o in chosen)
    for other in others:
        assert_same(first, other)


def test_a_default_is_the_same_run_as_its_name(tmp_path: Path) -> None:
    manifold = Sphere(2)
    x = clustered(manifold, 30)
    options: dict[str, Any] = {"steps": 2, "out": tmp_path}
    first = fit_small(x, manifold, **options)
    named = rfm.FlowMatching(GeodesicPath(manifold), UniformAndLateTimes())
    assert_same(first, fit_small(x, manifold, **options, objective=named, resume=True))
    with pytest.raises(SavedFlowError, match="other settings"):
        fit_small(x, manifold, **options, objective=rfm.FlowMatching(times=UniformTimes()), resume=True)


def test_makers_of_sources_are_given_the_weights_of_training_points() -> None:
    manifold = Sphere(2)
    x = clustered(manifold, 30, 0.05)
    weights = torch.arange(1.0, 31.0, dtype=torch.float64)
    seen = []

    def make(manifold: Manifold, points: Tensor, *, sample_weights: Tensor | None = None) -> Source:
        seen.append(sample_weights)
        return Uniform(manifold)

    fit_small(x, manifold, steps=1, source=make, validation=[0, 1])
    fit_small(x, manifold, steps=1, source=make, validation=[0, 1], weights=weights)
    assert seen[0] is None
    assert torch.equal(seen[1], weights[2:])
    flow = fit_small(x, manifold, steps=1, source=KernelMixture.fit, validation=[0, 1], weights=weights)
    expected = KernelMixture.fit(manifold, x[2:], sample_weights=weights[2:])
    torch.testing.assert_close(flow.source.log_prob(x), expected.log_prob(x))
    fit_small(x, manifold, steps=1, source=lambda m, points: Uniform(m), weights=weights)


def test_what_is_no_source_is_refused() -> None:
    manifold = Sphere(2)
    x = clustered(manifold, 30, 0.05)
    for wrong in ("kernel", lambda m, points: points):
        with pytest.raises(ValueError, match=r"source must be a rfm.sources.Source, or a function of manifold and"):
            fit_small(x, manifold, steps=1, source=wrong)


def test_points_a_little_off_are_projected() -> None:
    manifold = Sphere(2)
    x = clustered(manifold)
    flow = fit_small((x * 1e4).round() / 1e4, manifold, steps=3)
    assert flow.log_prob((x * 1e4).round() / 1e4).isfinite().all()


def _row(x: Tensor, row: int, value: float) -> Tensor:
    x = x.clone()
    x[row] = value
    return x


_BAD: dict[str, tuple[Callable[[Tensor], dict[str, Any]], str]] = {
    "NaN": (lambda x: {"points": _row(x, 7, math.nan)}, r"points of Sphere.*7.*"),
    "infinity": (lambda x: {"points": _row(x, 7, math.inf)}, r"points of Sphere.*7.*"),
    "off the sphere": (lambda x: {"points": _row(x, 7, 1.0)}, r"points of Sphere.*7.*projx"),
    "wrong shape": (lambda x: {"points": x.T}, r"have shape \(n, 3\), got \(3, 40\); reshape or transpose"),
    "one number": (lambda x: {"points": 3.0}, r"have shape \(n, 3\), got \(\)"),
    "words": (lambda x: {"points": ["a"]}, "points cannot be read as numbers"),
    "one row": (lambda x: {"points": x[:1]}, "at least two points, got 1; give it more"),
    "no row": (lambda x: {"points": x[:0]}, "at least two points, got 0"),
    "negative weight": (lambda x: {"weights": _row(torch.ones(40), 3, -1)}, "weights must be 40 finite numbers"),
    "NaN weight": (lambda x: {"weights": _row(torch.ones(40), 3, math.nan)}, "weights must be 40 finite"),
    "zero weights": (lambda x: {"weights": torch.zeros(40)}, "not all zero"),
    "weights of training points": (
        lambda x: {"weights": _row(torch.zeros(40), 3, 1.0), "validation": [3]},
        "weights of all training points are zero; hold out",
    ),
    "weights of validation points": (
        lambda x: {"weights": _row(torch.ones(40), 3, 0.0), "validation": [3]},
        "weights of all validation points are zero",
    ),
    "too few weights": (lambda x: {"weights": torch.ones(39)}, r"weights must be 40 .* got shape \(39,\)"),
    "too few conditions": (lambda x: {"condition": torch.ones(39, 2)}, r"condition must hold .*\(40, c\)"),
    "infinite condition": (lambda x: {"condition": _row(torch.ones(40), 3, math.inf)}, "infinite entries; use NaN"),
    "no steps": (lambda x: {"steps": 0}, "steps must be a whole number, at least 1, got 0"),
    "half a step": (lambda x: {"steps": 2.5}, "steps must be a whole number, at least 1, got 2.5"),
    "no batch": (lambda x: {"batch_size": -1}, "batch_size must be a whole number, at least 1"),
    "learning rate": (
        lambda x: {"training": rfm.Training(learning_rate=0.0)},
        "learning_rate must be a number above 0",
    ),
    "diverging": (
        lambda x: {"training": rfm.Training(learning_rate=1e30), "batch_size": 4},
        "diverged by step .* lower learning_rate",
    ),
    "no time": (lambda x: {"training": rfm.Training(max_seconds=0.0)}, "max_seconds must be a number above 0"),
    "seed": (lambda x: {"seed": -1}, "seed must be at least 0"),
    "device": (lambda x: {"device": "abacus"}, "device 'abacus' cannot be used here"),
    "device without data": (lambda x: {"device": "meta"}, "device 'meta' cannot be used here"),
    "device that is none": (lambda x: {"device": 1.5}, "device 1.5 cannot be used here"),
    "validation share": (lambda x: {"validation": 1.0}, "share between 0 and 1"),
    "equal points": (lambda x: {"points": x[:1].expand(40, 3)}, "at least 2 different points, got 1; add rows"),
    "validation row": (lambda x: {"validation": [40]}, "indices from 0 to 39, got 40 to 40"),
    "validation mask": (lambda x: {"validation": torch.ones(40) > 0}, "for a mask pass mask.nonzero"),
    "validation of none": (lambda x: {"validation": []}, "at least one"),
    "validation of all": (lambda x: {"validation": torch.arange(40)}, "holds every point"),
    "field": (lambda x: {"field": lambda x, t: x}, "field must be a torch.nn.Module .* got function"),
    "field without parameters": (lambda x: {"field": nn.Identity()}, "with parameters to train, got Identity"),
    "source": (lambda x: {"source": Uniform(FlatTorus(2))}, r"source lives on FlatTorus\(2\), where Sphere"),
    "source that leaves": (lambda x: {"source": _Inside(Sphere(2))}, "source draws no points of Sphere"),
}


@pytest.mark.parametrize("case", _BAD)
def test_bad_input_is_told_in_a_sentence(case: str, tmp_path: Path) -> None:
    make, message = _BAD[case]
    manifold = Sphere(2)
    x = clustered(manifold, 40)
    settings: dict[str, Any] = {"points": x, "steps": 20, "batch_size": 8, "field": small(manifold), "device": "cpu"}
    out = tmp_path / "run"
    with pytest.raises(ValueError, match=message) as caught:
        rfm.fit(manifold=manifold, out=out, progress=False, **settings | make(x))
    assert len(str(caught.value).splitlines()) == 1
    if case != "diverging":
        assert not out.exists()


def test_without_a_default_source_the_remedy_is_named() -> None:
    manifold = Quotient(SE3(), RightMultiplication(Octahedral(), 4))
    with pytest.raises(ValueError, match=r"no default source.*pass source="):
        rfm.fit(manifold.projx(torch.eye(4) + torch.linspace(0, 0.1, 10)[:, None, None]), manifold, progress=False)


class _Stretched(Manifold):
    """A plane whose metric is not that of its straight lines."""

    def __init__(self) -> None:
        super().__init__(2, (2,))

    def projx(self, x: Tensor) -> Tensor:
        return x

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        return u.expand(torch.broadcast_shapes(x.shape, u.shape))

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        return x + u

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        return y - x

    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return (u * v).sum(-1) * (1 + x.square().sum(-1))


class _Plane(_Stretched):
    def inner(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return (u * v).sum(-1)

    injectivity_radius = math.inf


def test_a_metric_that_contradicts_the_geodesics_is_refused() -> None:
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="breaks its contract; run rfm check"):
        fit_small(x, _Stretched(), source=WrappedNormal(Euclidean(2), torch.zeros(2)))
    fit_small(x, _Plane(), steps=2)


def test_flow_matching_loss_falls_with_the_default_network() -> None:
    manifold = Sphere(2)
    flow = rfm.fit(clustered(manifold, 100), manifold, steps=60, batch_size=64, progress=False, device="cpu")
    assert flow.history[-1]["loss"] < flow.history[0]["loss"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_fit_on_a_gpu_returns_to_the_cpu() -> None:
    manifold = Sphere(2)
    flow = fit_small(clustered(manifold), manifold, steps=3, device="cuda")
    assert next(flow.parameters()).device.type == "cpu"
