"""Refinement by groups: near-copies of a few observations do not decide what is chosen."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rfm
from manifolds import FlatTorus
from rfm import Flow
from rfm.command_line import main as cli
from rfm.command_line.run_folder import RunData
from rfm.datasets import group_labels
from rfm.metrics import paired_difference
from rfm.networks import VelocityField
from rfm.sources import Uniform, likeliest_weights
from rfm.sources.folds import folds_of, places_of
from rfm.training import conditional_kernels
from rfm.training.conditional_refinement import refine_given
from rfm.training.mixture_choice import Choice, Clusters, cross_validated, stacked, supported
from rfm.training.refinement import candidates, refine, weights_of
from rfm.training.weighted_points import Points, merged, thinned

TORUS = FlatTorus(2)
WIDTH = 0.02
"""Of a grain, in radians."""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def still(x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
    return 0 * x


class Still(nn.Module):
    """A field that does nothing, given a label or not."""

    reads_unknown = True
    condition_labels = (2,)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        return still(x, t)


def grains(count: int, each: int, seed: int, spread: float | None = None) -> Points:
    """Near-copies of independent points: of uniform ones or, given a spread, of points about the origin."""
    if spread is None:
        centres = TORUS.random_uniform(count, generator=seeded(seed), dtype=torch.float64)
    else:
        centres = spread * torch.randn(count, 2, generator=seeded(seed), dtype=torch.float64)
    group = torch.arange(count).repeat_interleave(each)
    noise = WIDTH * torch.randn(count * each, 2, generator=seeded(seed + 1), dtype=torch.float64)
    return Points(TORUS.projx(centres[group] + noise), group=group)


def without_groups(points: Points) -> Points:
    return Points(points.x, points.condition, points.weights)


def labelled(points: Points, seed: int) -> Points:
    """The points with one of two labels, the same for all of a group."""
    assert points.group is not None
    label = torch.randint(2, (int(points.group.max()) + 1,), generator=seeded(seed)).double()
    return Points(points.x, label[points.group][:, None], group=points.group)


def gain(flow: Flow, test: Points) -> float:
    refined, alone = (own.log_prob(test.x, condition=test.condition) for own in (flow, flow.base))
    return float((refined - alone).mean())


def equal_shares(number: Tensor, grouped: bool) -> Clusters:
    return Clusters(torch.full((len(number),), 1 / len(number), dtype=torch.float64), number, grouped)


# Near-copies.


@pytest.mark.parametrize("seed", [2, 5])
def test_near_copies_do_not_choose_what_new_groups_do_not_support(seed: int) -> None:
    """Grains are anywhere, so that nothing is better than uniform; six of them lie near some others by accident."""
    train, held, test = grains(30, 20, 100 + seed), grains(6, 40, 200 + seed), grains(200, 2, 300 + seed)
    by_point, by_group = Flow(TORUS, still), Flow(TORUS, still)
    refine(by_point, train, without_groups(held))
    refine(by_group, train, held)
    assert gain(by_point, test) < -0.1
    assert gain(by_group, test) > -0.01


@pytest.mark.parametrize("seed", [0, 1])
def test_what_groups_support_is_chosen(seed: int) -> None:
    train, held, test = (grains(n, 10, s + seed, spread=0.3) for n, s in ((60, 100), (20, 200), (200, 300)))
    flow = Flow(TORUS, still)
    refine(flow, train, held)
    assert flow.refinement is not None
    assert gain(flow, test) > 1
    # What is said of it holds on new groups.
    assert flow.refinement.validation_nll["refined"] == pytest.approx(-float(flow.log_prob(test.x).mean()), abs=0.4)


def test_near_copies_do_not_choose_given_a_condition() -> None:
    sizes = ((30, 12, 105), (5, 40, 205), (100, 2, 305))
    train, held, test = (labelled(grains(n, each, seed), seed) for n, each, seed in sizes)
    by_point, by_group = Flow(TORUS, Still()), Flow(TORUS, Still())
    refine_given(by_point, train, without_groups(held))
    refine_given(by_group, train, held)
    assert gain(by_point, test) < -0.1
    assert gain(by_group, test) > -0.02


def test_one_group_of_many_points_does_not_decide() -> None:
    """By points the choice is better by one nat, by groups worse in nine of ten."""
    number = torch.cat([torch.zeros(900, dtype=torch.long), torch.arange(1, 10).repeat_interleave(10)])
    kernels = Choice(torch.tensor([1.0, 0.0]), torch.zeros(990, dtype=torch.float64), 0.0)
    values = torch.where(number == 0, 1.2, -1.0).double()
    choice = Choice(torch.tensor([0.0, 1.0]), values, -float(values.mean()))
    poor = torch.full((990,), -5.0, dtype=torch.float64)
    by_group = equal_shares(number, grouped=True)
    assert supported(choice, kernels, poor, by_group) is kernels
    # Without that group the others are worse, which the usual standard error does not see.
    assert paired_difference(values, kernels.held_out, number).interval_95[0] > 0
    assert by_group.gain(values, kernels.held_out).standard_error > 1
    assert supported(choice, kernels, poor, equal_shares(number, grouped=False)) is choice
    even = torch.arange(10).repeat_interleave(99)
    better = Choice(choice.weights, 0.1 + 0.01 * even.double(), -0.145)
    assert supported(better, kernels, poor, equal_shares(even, grouped=True)) is better
    # The flow alone is better than both: the choice has to be clear of that.
    flow = torch.full((990,), 0.2, dtype=torch.float64)
    assert supported(better, kernels, flow, equal_shares(even, grouped=True)) is kernels


# Folds.


def test_all_points_of_a_group_share_a_fold_and_one_of_them_tells_nothing_of_the_others() -> None:
    """Log-densities of a component for each group, high on it alone: left out, no group is explained."""
    group = torch.arange(10).repeat_interleave(7)
    clusters = Clusters.of(Points(torch.randn(70, 2), group=group))
    assert clusters.count == 10
    folds = clusters.fold.reshape(10, 7)
    assert bool((folds == folds[:, :1]).all())
    assert sorted(folds[:, 0].tolist()) == sorted([0, 1, 2, 3, 4] * 2)
    own = torch.where(group[:, None] == torch.arange(10), 5.0, -5.0).double()
    everywhere = torch.zeros(70, 1, dtype=torch.float64)
    by_group = cross_validated(torch.cat([own, everywhere], dim=1), clusters)
    assert all(choice.nll > -1e-3 for choice in by_group)
    by_point = cross_validated(torch.cat([own, everywhere], dim=1), Clusters.of(Points(torch.randn(70, 2))))
    assert min(choice.nll for choice in by_point) < -2


def test_fewer_steps_are_tried_of_few_groups_as_of_few_points() -> None:
    log_p = torch.randn(400, 3, generator=seeded(), dtype=torch.float64)
    group = torch.arange(400) // 4
    assert len(cross_validated(log_p, equal_shares(group, grouped=True))) == 3
    assert len(cross_validated(log_p, equal_shares(group, grouped=False))) == 2


def test_the_mixture_of_choices_is_assessed_on_other_groups() -> None:
    """Two choices, each good on one half of four groups: by points their mixture is better, by groups it is not."""
    group = torch.arange(4).repeat_interleave(25)
    left = torch.where(group < 1, 0.0, -4.0).double()
    right = torch.full((100,), -3.0, dtype=torch.float64)
    choices = [Choice(torch.eye(2, dtype=torch.float64)[i], p, -float(p.mean())) for i, p in enumerate((left, right))]
    by_point = stacked(choices, equal_shares(group, grouped=False))
    by_group = stacked(choices, equal_shares(group, grouped=True))
    assert by_point.nll < min(choice.nll for choice in choices) - 0.1
    assert by_group.nll > by_point.nll + 0.05


def test_without_groups_the_choice_is_that_of_places() -> None:
    """Written out once more: folds of places, two numbers of steps, three sets of starts and the mixture of all six."""
    m, train, held = TORUS, grains(40, 10, 1, spread=0.8), grains(150, 2, 2, spread=0.8)
    kept = candidates(still, Uniform(m), [1.0, 0.98, 0.92, 0.0], merged(without_groups(train)), held.x)
    clusters = Clusters.of(without_groups(held))
    found = weights_of(kept, clusters)
    assert not isinstance(found, str)
    fold, shares, choices = folds_of(places_of(held.x)), clusters.shares, []
    for starts in ((0,), (0, 1, 3), (0, 1, 2, 3)):
        log_p = torch.cat([kept[i].log_p for i in starts], dim=1)
        for steps in (50, 250):
            out = torch.zeros(len(log_p), dtype=torch.float64)
            for i in range(5):
                weights = likeliest_weights(log_p[fold != i], shares[fold != i], steps)
                out[fold == i] = torch.logsumexp(log_p[fold == i] + weights.log(), dim=1)
            choices.append(out)
    stack = torch.stack(choices, dim=1)
    mixed = torch.logsumexp(stack + likeliest_weights(stack, shares).log(), dim=1)
    assert found[1]["kernels"] == min(-float(shares @ out) for out in choices[:2])
    assert found[1]["refined"] == min(-float(shares @ out) for out in (*choices, mixed))


def test_gains_are_clustered_by_group() -> None:
    """The jackknife of groups of one size is the usual standard error; of others it is written out."""
    a, group = torch.randn(60, generator=seeded(), dtype=torch.float64), torch.arange(60) // 6
    none = torch.zeros(60, dtype=torch.float64)
    found = Clusters.of(Points(torch.randn(60, 2), group=group)).gain(a, none)
    want = paired_difference(a, none, groups=group)
    assert found.count == 10
    assert found.standard_error == pytest.approx(want.standard_error)
    group = torch.tensor([0] * 40 + [1] * 15 + [2] * 5)
    shares = torch.rand(60, generator=seeded(1), dtype=torch.float64)
    shares = shares / shares.sum()
    found = Clusters(shares, group, grouped=True).gain(a, none)
    mean = float(shares @ a)
    without = [float((shares * a)[group != g].sum() / shares[group != g].sum()) for g in range(3)]
    assert found.mean == pytest.approx(mean)
    assert found.standard_error**2 == pytest.approx(2 / 3 * sum((m - mean) ** 2 for m in without))


def test_groups_go_with_their_points() -> None:
    points = grains(10, 8, 0)
    few = thinned(points, 9)
    assert few.group is not None
    torch.testing.assert_close(few.x, points.x[torch.linspace(0, 79, 9).round().long()])
    assert torch.equal(few.group, points.group[torch.linspace(0, 79, 9).round().long()])  # type: ignore[index]
    weighted = Points(points.x, None, (points.group != 3).double(), group=points.group)  # type: ignore[union-attr]
    assert weighted.positive.group is not None
    assert 3 not in weighted.positive.group.tolist()


# Groups that are too few.


def test_validation_points_of_one_group_tell_nothing_of_others() -> None:
    train, held = grains(30, 10, 1, spread=0.3), grains(1, 60, 2, spread=0.3)
    flow = Flow(TORUS, still)
    refine(flow, train, held)
    assert flow.refinement is None
    assert flow.refinement_report.startswith("not refined: all validation points are of one group")
    given, held = labelled(train, 3), labelled(held, 4)
    flow = Flow(TORUS, Still())
    refine_given(flow, given, held)
    assert flow.refinement_report.startswith("not refined: all validation points are of one group")
    # Kernels alone, which are not compared with a flow, stay near equal weights.
    test = grains(50, 4, 5, spread=0.3)
    kernels = conditional_kernels(TORUS, given, held, (2,))
    log_p = kernels.kernel_log_prob(test.x, torch.zeros(200, 1))
    assert float(log_p.mean()) > -float(torch.tensor(TORUS.volume).log()) + 0.5


# In a fit.

FIT: dict[str, Any] = {"steps": 8, "batch_size": 32, "progress": False, "device": "cpu"}


def network(**own: Any) -> VelocityField:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return VelocityField(TORUS, width=16, depth=1, features=8, max_frequency=4.0, **own)


def fitted(groups: Tensor | None, conditional: bool = False) -> tuple[Flow, Points, Points]:
    """A fit to grains about the origin, with the points that trained and those that validated."""
    data = labelled(grains(40, 10, 1, spread=0.5), 2)
    held = torch.arange(len(data.x)) >= 300
    own: dict[str, Any] = {"condition": data.condition} if conditional else {}
    field = network(condition_dim=1, condition_labels=[2]) if conditional else network()
    flow = rfm.fit(data.x, TORUS, validation=held.nonzero()[:, 0], groups=groups, field=field, **own, **FIT)
    assert data.condition is not None
    single = Points(TORUS.projx(data.x).float(), data.condition.float() if conditional else None, group=groups)
    return flow, single.take((~held).nonzero()[:, 0]), single.take(held.nonzero()[:, 0])


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
def test_a_fit_refines_by_its_groups(grouped: bool, conditional: bool) -> None:
    flow, train, held = fitted(torch.arange(40).repeat_interleave(10) if grouped else None, conditional)
    again = flow.base
    (refine_given if conditional else refine)(again, train, held)
    assert flow.refinement_report == again.refinement_report
    assert (flow.refinement is None) == (again.refinement is None)
    other = flow.base
    (refine_given if conditional else refine)(
        other, train, Points(held.x, held.condition, group=torch.arange(100) // 10)
    )
    assert (other.refinement_report == flow.refinement_report) == grouped


def test_while_training_too() -> None:
    """The quick refinement of the same network: weights that other groups chose are worth less than one's own."""
    by_group, by_point = (fitted(groups)[0].history for groups in (torch.arange(40).repeat_interleave(10), None))
    assert by_group[0]["flow_nll"] == by_point[0]["flow_nll"]
    assert by_group[0]["validation_nll"] > by_point[0]["validation_nll"] + 1e-4


def test_groups_on_both_sides_of_given_indices_are_refused() -> None:
    x = grains(10, 10, 0).x
    with pytest.raises(ValueError, match="2 of the 2 groups of the validation points have training points too"):
        rfm.fit(x, TORUS, validation=[3, 4, 5, 12], groups=torch.arange(10).repeat_interleave(10), **FIT)


@pytest.mark.slow
def test_all_points_and_their_groups() -> None:
    """Grains that are anywhere: five fits that hold out groups find no reason for kernels."""
    data = grains(20, 15, 7)
    own = {**FIT, "steps": 2, "training": rfm.Training(validations=1)}
    by_group, by_point = (
        rfm.fit(data.x, TORUS, validation=0, groups=groups, field=network(), **own) for groups in (data.group, None)
    )
    assert by_group.refinement is None
    assert by_group.refinement_report.startswith("not refined: no gain beyond chance")
    assert by_point.refinement is not None
    assert gain(by_point, grains(200, 2, 9)) < -0.1


def test_the_command_line_passes_groups_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = grains(40, 10, 1, spread=0.5)
    assert data.group is not None
    rows = [f"{a:.6f},{b:.6f},g{k}" for (a, b), k in zip(data.x.tolist(), data.group.tolist(), strict=True)]
    (tmp_path / "t.csv").write_text("phi,psi,grain\n" + "\n".join(rows) + "\n")
    command = [
        *("fit", str(tmp_path / "t.csv"), "--manifold", "torus", "--radians", "--columns", "phi", "psi"),
        *("--groups", "grain", "--steps", "8", "--batch-size", "16", "--quiet", "--validation", "0.3"),
        *("--out", str(tmp_path / "r")),
    ]
    assert cli.main(command) == 0
    assert "refined" in capsys.readouterr().out
    flow, run = Flow.load(tmp_path / "r"), RunData.load(tmp_path / "r")
    assert run.blocks is not None
    index = torch.cat(run.split[:2])
    together = Points(TORUS.projx(run.points[index]).float(), group=group_labels(run.blocks[index]))
    train, held = map(together.take, torch.arange(len(index)).split([len(part) for part in run.split[:2]]))
    again, by_point = flow.base, flow.base
    refine(again, train, held)
    refine(by_point, train, without_groups(held))
    assert flow.refinement_report == again.refinement_report != by_point.refinement_report
