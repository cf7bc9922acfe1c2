"""The studies of orientations and poses: they run, go on after a kill, and leave flows that the commands take."""

import itertools
import math
from pathlib import Path

import pytest
import torch

import rfm
from experiments import next_poses, orientations, pose_conditionals, poses
from manifolds import SE3, SO3, Euclidean, Octahedral, Quotient, RightMultiplication
from manifolds.rotations import rotvec_from_matrix
from rfm.command_line.main import main
from rfm.integrators import Adaptive
from rfm.networks import VelocityField
from rfm.plotting import pole_density
from rfm.sources import KernelMixture

SOLVER = Adaptive(atol=1e-4, rtol=1e-4)
CUBIC = Quotient(SO3(), RightMultiplication(Octahedral()))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.slow
def test_a_fitted_density_of_cubic_orientations_is_invariant_and_has_total_one() -> None:
    centres = CUBIC.random_uniform(2, generator=seeded(), dtype=torch.float64)
    points = CUBIC.kernel.sample(centres.repeat(150, 1, 1), torch.tensor(6.0).double().expand(300), seeded(1))
    # Written as any representative.
    images = CUBIC.group.orbit(points)[torch.arange(300), torch.randint(24, (300,), generator=seeded(2))]
    phase = ["ab"[i % 2] for i in range(300)]
    torch.manual_seed(0)
    field = VelocityField(CUBIC, 32, 1, 32, 4.0, condition_dim=1, condition_labels=[2])
    options = {"steps": 120, "batch_size": 64, "training": rfm.Training(learning_rate=1e-2), "progress": False}
    flow = rfm.fit(images, CUBIC, condition={"phase": phase}, field=field, **options)
    x = CUBIC.random_uniform(400, generator=seeded(3), dtype=torch.float64)
    assert CUBIC.volume == pytest.approx(8 * math.pi**2)
    own = flow.log_prob(images[:90:3], condition={"phase": "a"}, solver=SOLVER)
    # Far from uniform, or the total would show nothing.
    assert float(own.mean()) > 0.25 - math.log(8 * math.pi**2)
    log_p = flow.log_prob(x, condition={"phase": "a"}, solver=SOLVER)
    ratio = log_p.double().exp() * 8 * math.pi**2
    standard_error = float(ratio.std()) / math.sqrt(len(x))
    assert abs(float(ratio.mean()) - 1) < 4 * standard_error < 0.4
    values = flow.log_prob(CUBIC.group.orbit(x[:5]), condition={"phase": "a"}, solver=SOLVER)
    torch.testing.assert_close(values, log_p[:5, None].expand_as(values), rtol=0, atol=5e-3)


def test_pole_densities_are_multiples_of_uniform() -> None:
    """A mean of 1 over the hemisphere for any orientations; a peak where the axes of a single one are."""
    directions = torch.nn.functional.normalize(torch.randn(4000, 3, generator=seeded(), dtype=torch.float64), dim=-1)
    x = SO3().random_uniform(4, generator=seeded(1), dtype=torch.float64)
    for pole, ends in (((1, 0, 0), 6), ((1, 1, 0), 12), ((1, 1, 1), 8)):
        assert pole_density(x, pole, Octahedral(), directions, 15).mean() == pytest.approx(1, abs=0.1)
        axis = torch.nn.functional.normalize(torch.tensor(pole).double(), dim=0)
        top = pole_density(x[:1], pole, Octahedral(), (x[0] @ axis)[None], 6)
        assert top[0] == pytest.approx(2 * math.degrees(1) ** 2 / 6**2 / ends, rel=1e-3)


def test_the_parts_of_a_kernel_mixture_of_poses_are_its_marginals() -> None:
    """The integral over positions, and over rotations, of the joint density: by importance sampling."""
    m = SE3(0.5)
    where = torch.eye(4, dtype=torch.float64).repeat(5, 1, 1)
    where[:, :3, :3] = SO3().random_uniform(5, generator=seeded(), dtype=torch.float64)
    where[:, :3, 3] = torch.randn(5, 3, generator=seeded(1), dtype=torch.float64)
    k, weights = torch.tensor([1.0, 4.0]), torch.tensor([0.5, 0.4, 0.1])
    joint = KernelMixture(m, where, k, weights, rfm.sources.default_source(m, where))
    of_rotation, of_position = poses.marginals(joint, m)
    x = where[:1].repeat(20_000, 1, 1)
    x[:, :3, :3] = SO3().random_uniform(20_000, generator=seeded(2), dtype=torch.float64)
    found = joint.log_prob(x).exp() * 8 * math.pi**2 / 0.5**3
    expected = float(of_position.log_prob(where[:1, :3, 3]).exp())
    assert abs(float(found.mean()) - expected) < 4 * float(found.std()) / math.sqrt(len(x)) < 0.3 * expected
    x = where[:1].repeat(20_000, 1, 1)
    spread = of_position.background.scale
    step = torch.randn(20_000, 3, generator=seeded(3), dtype=torch.float64) * spread
    x[:, :3, 3] += step
    proposal = torch.distributions.Normal(0.0, spread).log_prob(step).sum(-1)
    found = (joint.log_prob(x) - 3 * math.log(0.5) - proposal).exp()
    expected = float(of_rotation.log_prob(where[:1, :3, :3]).exp())
    assert abs(float(found.mean()) - expected) < 4 * float(found.std()) / math.sqrt(len(x)) < 0.3 * expected
    assert of_position.manifold.event_shape == Euclidean(3).event_shape


@pytest.mark.slow
@pytest.mark.usefixtures("rfm_data")
def test_the_study_of_orientations_runs_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "runs"
    orientations.main(["--quick", "--out", str(out)])
    first = capsys.readouterr().out
    for model in ("flow", "flow, refined", "one kernel in the condition", "kernels per condition", "uniform"):
        assert f"\n| {model} | " in first
    assert "| uniform | 4.369 " in first
    assert "| above 16 |" in first
    assert "| ferrite |" in first
    assert "fold 0: given phase" in first
    assert (out / "pole-figures.png").is_file()
    run = out / "steel, phase" / "seed-0"
    files = sorted(path.name for path in (run / "flow").iterdir())
    orientations.main(["--quick", "--out", str(out)])
    assert capsys.readouterr().out == first
    assert sorted(path.name for path in (run / "flow").iterdir()) == files


def test_folds_test_every_block_once_and_share_none() -> None:
    blocks = torch.arange(15).repeat_interleave(7)
    folds = [orientations.split_of(blocks, fold, 0) for fold in range(orientations.FOLDS)]
    assert sorted(torch.cat([fold.test for fold in folds]).tolist()) == list(range(len(blocks)))
    for fold in folds:
        assert sorted(torch.cat(list(fold)).tolist()) == list(range(len(blocks)))
        parts = [set(blocks[rows].tolist()) for rows in fold]
        assert all(not a & b for a, b in itertools.combinations(parts, 2))
        assert [len(part) for part in parts] == [9, 3, 3]


@pytest.mark.usefixtures("rfm_data")
def test_the_study_of_poses_runs_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "runs"
    poses.main(["--quick", "--out", str(out)])
    first = capsys.readouterr().out
    assert "SE3(length=1)" in first
    assert "| orientation given position | flow |" in first
    assert (out / "poses.png").is_file()
    assert main(["sample", str(out / "pose"), "-n", "2", "--condition", "seconds=5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "# timestamp tx ty tz qx qy qz qw"
    assert float(lines[1].split()[0]) == pytest.approx(1311868168.8697, abs=1e-4)
    assert main(["sample", str(out / "orientation"), "-n", "1", "--condition", "tx=0.5", "ty=-1"]) == 0
    assert capsys.readouterr().out.startswith("qx,qy,qz,qw,tx,ty\n")


def test_errors_of_constant_velocity_have_densities_of_total_one() -> None:
    """Normal errors in rotation vectors and shifts, with respect to dR dp: by uniform rotations and normal shifts."""
    errors = 0.8 * torch.randn(400, 6, generator=seeded(), dtype=torch.float64)
    density = next_poses.normal(errors, torch.arange(400))
    turns = SO3().random_uniform(20_000, generator=seeded(1), dtype=torch.float64)
    shifts = torch.randn(20_000, 3, generator=seeded(2), dtype=torch.float64)
    log_q = torch.distributions.Normal(0.0, 1.0).log_prob(shifts).sum(-1) - math.log(8 * math.pi**2)
    x = torch.cat([rotvec_from_matrix(turns), shifts], 1)
    ratio = (density(x) - log_q).exp()
    # A rotation vector longer than pi, which one in some hundred of these is, counts from the other side.
    assert abs(float(ratio.mean()) - 1) < 5 * float(ratio.std()) / math.sqrt(len(x)) + 0.02


def test_folds_of_windows_test_every_block_once() -> None:
    blocks = torch.arange(12).repeat_interleave(3)
    tested = []
    for fold in range(next_poses.FOLDS):
        train, held, test = next_poses.rows_of(blocks, fold)
        assert torch.equal(torch.cat([train, held, test]).sort().values, torch.arange(36))
        names = [set(blocks[rows].tolist()) for rows in (train, held, test)]
        assert not any(a & b for a, b in itertools.combinations(names, 2))
        tested += test.tolist()
    assert sorted(tested) == list(range(36))


@pytest.mark.slow
def test_the_studies_of_conditionals_and_next_poses_run(
    rfm_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    next_poses.main(["--quick", "--out", str(tmp_path / "next")])
    text = capsys.readouterr().out
    assert all(f"| {model} | " in text for model in (*next_poses.OTHERS, next_poses.FLOW))
    next_poses.main(["--quick", "--out", str(tmp_path / "next")])
    assert capsys.readouterr().out == text
    pose_conditionals.main(["--quick", "--out", str(tmp_path / "given")])
    text = capsys.readouterr().out
    assert "10 slices: 200 draws" in text
    pose_conditionals.main(["--quick", "--out", str(tmp_path / "given")])
    assert capsys.readouterr().out == text
