"""Test likelihood of a flow beside what any model must beat: the source, and kernel densities."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from rfm.baselines import Baseline, kernels_of
from rfm.command_line.run_folder import RunData
from rfm.datasets.splits import group_split
from rfm.flow import Flow, StratifiedRefinement
from rfm.metrics import Estimate, NearestTraining, nearest_training, negative_log_likelihood, paired_difference
from rfm.sources import Source, Uniform
from rfm.sources.truncated import restricted
from rfm.training import Points, conditional_kernels
from rfm.training.conditional_refinement import condition_labels, reason_against_condition

_COMPARED = 1000
"""Samples, and test points at most, whose distances to the training points are compared."""

CONDITIONAL_KERNELS = {"one kernel in the condition": True, "kernels per condition": False}
"""The conditional kernel densities, from the weaker, and whether they have one width, see
`rfm.training.conditional_kernels`."""

_WITH = "flow with conditions"

_CENTRES, _WEIGHING = 40_000, 5_000
"""Training points that kernels stand on at most, and validation points that choose their widths and weights."""


@dataclass(frozen=True)
class Evaluation:
    """Negative log-likelihoods of the test points.

    Args:
        rows: model and its test NLL in nats: the source, the kernel densities, the flow; of a conditional one all of
            these given the conditions too.
        against_kernel: NLL of the flow minus that of the best kernel density, paired by point; None where there is no
            kernel. These kernel densities know no conditions, and neither does the flow here.
        count: number of test points.
        against_unconditional: NLL of the flow given the conditions of the points minus that of the same flow without
            them, paired likewise; None for an unconditional flow.
        against_conditional_kernel: NLL of the flow given the conditions minus that of the best kernel density given
            them, paired likewise; None for an unconditional flow, or where there are no such kernels.
        weighted: whether means are over weighted points.
        measure: what densities are with respect to, in words.
        blocked: whether points were held out in blocks; standard errors are then clustered by block, else by place.
        best_kernel: the kernel density of ``against_kernel``, the one that makes the validation points likelier.
        best_conditional_kernel: that of ``against_conditional_kernel``, likewise.
        subsampling: how many of the points the kernels were fitted to, in words, where these were not all.
        copying: how near samples come to the training points, beside test points.
        against_baselines: NLL of the flow minus that of each requested baseline, paired likewise, by its title.
    """

    rows: tuple[tuple[str, Estimate], ...]
    against_kernel: Estimate | None
    count: int
    against_unconditional: Estimate | None = None
    weighted: bool = False
    measure: str = ""
    blocked: bool = False
    best_kernel: str = ""
    subsampling: str = ""
    copying: NearestTraining | None = None
    against_conditional_kernel: Estimate | None = None
    best_conditional_kernel: str = ""
    against_baselines: Mapping[str, Estimate] = field(default_factory=dict)

    @property
    def clusters(self) -> int:
        """The number of independent places or blocks that the test points lie in."""
        return self.rows[0][1].count

    def table(self) -> str:
        """Return the table as text."""
        lines = [f"{'model':<34}test NLL, nats   standard error   points"]
        lines += [f"{name:<34}{e.mean:>14.3f}{e.error_text():>17}{self.count:>9}" for name, e in self.rows]
        if self.against_kernel is not None:
            lines.append(
                f"flow minus best kernel, per point: "
                f"{self._verdict(self.against_kernel, 'the flow is better', 'the kernel is better')}"
            )
            lines.append(f"the best kernel is that of the validation points: {self.best_kernel}")
        for title, difference in self.against_baselines.items():
            verdict = self._verdict(difference, "the flow is better", f"{title} is better")
            lines.append(f"flow minus {title}, per point: {verdict}")
        if self.subsampling:
            lines.append(self.subsampling)
        if self.against_unconditional is not None:
            lines.append(
                f"flow with minus without conditions, per point: "
                f"{self._verdict(self.against_unconditional, 'conditions help', 'conditions hurt')}"
            )
        if self.against_conditional_kernel is not None:
            lines.append(
                f"flow minus best kernel, both given the conditions, per point: "
                f"{self._verdict(self.against_conditional_kernel, 'the flow is better', 'the kernel is better')}"
            )
            lines.append(f"the best kernel given them is that of the validation points: {self.best_conditional_kernel}")
        if self.copying is not None:
            lines.append(self.copying.describe())
        lines.append(self._clustering())
        if self.measure:
            lines.append(f"densities are with respect to {self.measure}")
        if self.weighted:
            lines.append("means are over the test points with their weights; the kernels are fitted with theirs")
        return "\n".join(lines)

    def record(self) -> dict[str, Any]:
        """Return the table as plain values, for JSON; None where one test point leaves a spread unknown."""
        estimates = {
            name: {"mean": e.mean, "standard_error": e.standard_error if e.has_error else None} for name, e in self.rows
        }
        differences = {
            "flow_minus_best_kernel_nats": self.against_kernel,
            "conditional_minus_unconditional_nats": self.against_unconditional,
            "conditional_flow_minus_best_kernel_nats": self.against_conditional_kernel,
        }
        more: dict[str, Any] = {"clustered_by": self._unit, "clusters": self.clusters}
        more |= {"best_kernel": self.best_kernel} if self.best_kernel else {}
        conditional = self.best_conditional_kernel
        more |= {"best_conditional_kernel": conditional} if conditional else {}
        more |= {"kernels": self.subsampling} if self.subsampling else {}
        more |= {"measure": self.measure} if self.measure else {}
        more |= {} if self.copying is None else {"nearest_training": self.copying.record()}
        if self.against_baselines:
            more["flow_minus_baselines_nats"] = {
                title: {"mean": e.mean, "interval_95": list(e.interval_95) if e.has_error else None}
                for title, e in self.against_baselines.items()
            }
        return (
            {"test_nll_nats": estimates}
            | more
            | {
                name: {"mean": e.mean, "interval_95": list(e.interval_95) if e.has_error else None}
                for name, e in differences.items()
                if e is not None
            }
        )

    @property
    def _unit(self) -> str:
        return "block" if self.blocked else "place"

    def _verdict(self, difference: Estimate, lower: str, higher: str) -> str:
        """Return a difference of NLLs in words; ``lower`` is the interpretation if it is surely below zero."""
        if not difference.has_error:
            return f"{difference.mean:+.3f}, of a single {self._unit}: no interval"
        low, high = difference.interval_95
        return f"{difference.words()}: {lower if high < 0 else higher if low > 0 else 'no clear difference'}"

    def _clustering(self) -> str:
        """Return how standard errors and intervals were found."""
        if self.clusters == 1:
            remedy = "make blocks smaller" if self.blocked else "hold out more"
            return f"all test points lie in one {self._unit}, which tells nothing of how the means vary: {remedy}"
        return f"standard errors and intervals are clustered by {self._unit}, of which {self.clusters} test"


def evaluate(
    flow: Flow,
    data: RunData,
    note: Callable[[str], None] = lambda message: None,
    baselines: Sequence[Baseline] = (),
) -> Evaluation:
    """Score the test points under the flow and under the baselines, which are fitted to the same training points.

    Where the points have weights, the kernels are fitted with them, and all means are over weighted test points.
    All standard errors and intervals are clustered by the blocks that were held out together or, without blocks, by
    place, as the test points at one place are no independent observations.

    Args:
        flow: the flow.
        data: its data; weights and bandwidths of the kernels, and the best kernel, are chosen on its validation points.
            Of more than 40,000 training and 5,000 validation points, so many are drawn for the kernels.
        note: receives messages on what is being computed.
        baselines: more densities to compare with, beside kernel densities, fitted to the same points as these.

    Raises:
        ValueError: if no points were held out for testing, or all that were have weight zero; or there is no baseline
            of a requested kind on the manifold.
    """
    if len(data.split.test) == 0:
        raise ValueError("this run held out no test points; fit again with a test share above 0")
    test, weights = data.points[data.split.test], data.weights_at(data.split.test)
    blocks = data.blocks_at(data.split.test)
    groups = test if blocks is None else blocks
    if weights is not None and not bool((weights > 0).any()):
        raise ValueError("the weights of all test points are zero; fit again with another seed or test share")
    broad = "uniform" if isinstance(flow.source, Uniform) else "source"
    scores: list[tuple[str, Tensor]] = [(broad, flow.source.log_prob(test))]
    fitted = _for_kernels(data)
    kernels = _fitted(flow, fitted, kernels_of(flow.manifold.unbounded), note)
    others = _fitted(flow, fitted, [b for b in baselines if b.title not in kernels], note)
    scores += [(name, density.log_prob(test).double()) for name, density in (kernels | others).items()]
    if flow.refinement is not None:
        note("flow, unrefined")
        scores.append(("flow, unrefined", flow.base.log_prob(test).double()))
    note("flow")
    own = flow.log_prob(test).double()
    against, best = None, ""
    if kernels:
        best = _best_of_validation(kernels, fitted)
        against = paired_difference(-own, -dict(scores)[best], groups=groups, weights=weights)
    against_others = {
        name: paired_difference(-own, -dict(scores)[name], groups=groups, weights=weights) for name in others
    }
    name = "flow" if flow.refinement is None else "flow, refined"
    scores.append((name if data.condition is None else "flow without conditions", own))
    gain, against_conditional, best_conditional = None, None, ""
    if data.condition is not None:
        conditional, best_conditional = _given_conditions(flow, data, fitted, note)
        scores += list(conditional.items())
        gain = paired_difference(-conditional[_WITH], -own, groups=groups, weights=weights)
        if best_conditional:
            pair = -conditional[_WITH], -conditional[best_conditional]
            against_conditional = paired_difference(*pair, groups=groups, weights=weights)
    rows = tuple((name, negative_log_likelihood(score, weights, groups)) for name, score in scores)
    measure = f"the Riemannian volume of {flow.manifold}"
    if kernels and flow.manifold.unbounded is not flow.manifold:
        measure += "; kernel densities leak over its border, and are divided by their mass inside"
    words = _subsampling(data, fitted) if kernels and fitted is not data else ""
    return Evaluation(
        rows,
        against,
        len(test),
        gain,
        weights is not None,
        measure,
        blocks is not None,
        best,
        words,
        _copying(flow, data, test, note),
        against_conditional,
        best_conditional,
        against_others,
    )


def _given_conditions(
    flow: Flow, data: RunData, fitted: RunData, note: Callable[[str], None]
) -> tuple[dict[str, Tensor], str]:
    """Return the test points' log-densities given their conditions, by model, and the best kernel density's name."""
    test = data.points[data.split.test]
    given = data.conditions_at(data.split.test)
    scores, best = dict[str, Tensor](), ""
    kernels = _conditional_kernels(flow, fitted, note)
    if kernels:
        best = min(kernels, key=lambda name: kernels[name].validation_nll["kernels"])
        scores |= {name: own.kernel_log_prob(test, given["condition"]).double() for name, own in kernels.items()}
    if flow.refinement is not None:
        note("flow with conditions, unrefined")
        scores["flow with conditions, unrefined"] = flow.base.log_prob(test, **given).double()
    note("flow, with conditions")
    scores[_WITH] = flow.log_prob(test, **given).double()
    return scores, best


def _conditional_kernels(flow: Flow, fitted: RunData, note: Callable[[str], None]) -> dict[str, StratifiedRefinement]:
    """Return the kernel densities given the conditions by name; none where manifold or conditions have no kernel."""
    assert fitted.condition is not None
    if flow.manifold.kernel is None or reason_against_condition(flow, fitted.condition):
        return {}
    labels = condition_labels(flow, fitted.condition)
    train, validation = (
        Points(fitted.points[rows], fitted.condition[rows], fitted.weights_at(rows))
        for rows in (fitted.split.train, fitted.split.validation)
    )
    if not all(_is_known(part) for part in (train, validation)):
        return {}
    kernels = {}
    for name, one_width in CONDITIONAL_KERNELS.items():
        note(name)
        kernels[name] = conditional_kernels(flow.manifold, train, validation, labels, one_width=one_width)
    return kernels


def _is_known(points: Points) -> bool:
    """Return whether all of the condition is known of some points that have weight."""
    condition = points.positive.condition
    return condition is not None and bool((~condition.isnan()).all(-1).any())


def _copying(flow: Flow, data: RunData, test: Tensor, note: Callable[[str], None]) -> NearestTraining:
    """Return how near samples come to the training points beside how near test points come."""
    note("samples")
    count = min(len(test), _COMPARED)
    generator = torch.Generator(flow._dtype_and_device()[1]).manual_seed(0)
    samples = flow.sample(count, generator=generator).cpu().double()
    # Evenly spaced: distances to all training points take time in proportion.
    some = test[torch.linspace(0, len(test) - 1, count).round().long()]
    return nearest_training(flow.manifold, data.points[data.split.train], some, samples)


def _subsampling(data: RunData, fitted: RunData) -> str:
    if not len(data.split.validation):
        return (
            f"kernels stand on {len(fitted.split.train):,} of {len(data.split.train):,} training points, and "
            f"{len(fitted.split.validation):,} others of these chose their widths, as none were held out to validate"
        )
    return (
        f"kernels stand on {len(fitted.split.train):,} of {len(data.split.train):,} training points, and were chosen "
        f"by {len(fitted.split.validation):,} of {len(data.split.validation):,} validation points, drawn at random"
    )


def _fitted(
    flow: Flow, fitted: RunData, baselines: Sequence[Baseline], note: Callable[[str], None]
) -> dict[str, Source]:
    """Return densities of the training points by title.

    On a bounded set they are those of all that it is a part of, divided by their mass inside.
    """
    train, validation = fitted.points[fitted.split.train], fitted.points[fitted.split.validation]
    w, v = fitted.weights_at(fitted.split.train), fitted.weights_at(fitted.split.validation)
    full = flow.manifold.unbounded
    found = dict[str, Source]()
    for baseline in baselines:
        note(baseline.title)
        own = baseline.fit(full, train, validation, sample_weights=w, validation_weights=v)
        found[baseline.title] = restricted(own, flow.manifold)
    return found


def _for_kernels(data: RunData) -> RunData:
    """Return the data with no more points to fit kernels to than can be scored in minutes, chosen at random.

    Where a fit to all points has left none to validate, a tenth of the training points chooses the kernels' widths.
    """
    if not len(data.split.validation):
        rows = data.points[data.split.train] if data.blocks is None else data.blocks[data.split.train]
        parts = group_split(rows, 0, test=0.0)
        train, validation = data.split.train[parts.train], data.split.train[parts.validation]
        return _for_kernels(replace(data, split=data.split._replace(train=train, validation=validation)))
    if len(data.split.train) <= _CENTRES and len(data.split.validation) <= _WEIGHING:
        return data
    train, validation = _some(data.split.train, _CENTRES), _some(data.split.validation, _WEIGHING)
    return replace(data, split=data.split._replace(train=train, validation=validation))


def _some(index: Tensor, count: int) -> Tensor:
    if len(index) <= count:
        return index
    return index[torch.randperm(len(index), generator=torch.Generator().manual_seed(0))[:count].sort().values]


def _best_of_validation(kernels: Mapping[str, Source], data: RunData) -> str:
    """Return the kernel density under which the validation points are likeliest: the test points assess it."""
    points, weights = data.points[data.split.validation], data.weights_at(data.split.validation)
    return min(kernels, key=lambda name: negative_log_likelihood(kernels[name].log_prob(points), weights).mean)
