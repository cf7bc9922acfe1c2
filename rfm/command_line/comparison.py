"""Two flows at the same points: which makes them likelier, and whose samples look like them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.flow import Flow
from rfm.metrics import (
    AmbientGaussianKernel,
    Estimate,
    HeatKernel,
    Kernel,
    classifier_two_sample,
    heat_kernel,
    maximum_mean_discrepancy,
    median_distance,
    negative_log_likelihood,
    paired_difference,
)

_COMPARED = 1000
"""Points whose samples are compared at most."""
_LEAST_FOR_CLASSIFIER = 20
_SAME = 1e-6


@dataclass(frozen=True)
class Side:
    """One of two flows.

    Args:
        name: of its run.
        flow: the flow.
        points: the points to compare at, as its coordinates read them, ``(n, *event_shape)``.
        condition: of the points ``(n, c)``, None for an unconditional flow.
        trained: how many of the points it was fitted to, or validated by.
    """

    name: str
    flow: Flow
    points: Tensor
    condition: Tensor | None
    trained: int


@dataclass(frozen=True)
class Comparison:
    """Two flows compared at points.

    Args:
        names: of the two runs.
        nll: test NLL of each, in nats.
        difference: NLL of the first minus that of the second, paired by point.
        count: number of points.
        grouped: by what standard errors are clustered, in words.
        measure: what densities are with respect to, in words.
        discrepancies: squared maximum mean discrepancy between samples of each and the points.
        accuracies: of a classifier that tells samples of each from the points; empty where there is none.
        warnings: what makes the comparison unfair, in sentences.
    """

    names: tuple[str, str]
    nll: tuple[Estimate, Estimate]
    difference: Estimate
    count: int
    grouped: str
    measure: str
    discrepancies: tuple[Estimate, ...] = ()
    accuracies: tuple[Estimate, ...] = ()
    warnings: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """Which flow is better, in words."""
        if not self.difference.has_error:
            return "a single independent observation: no interval"
        low, high = self.difference.interval_95
        if low <= 0 <= high:
            return "no clear difference"
        return f"{self.names[0] if high < 0 else self.names[1]} is better"

    def table(self) -> str:
        """Return the table as text."""
        width = max(14, *(len(name) + 2 for name in self.names))
        lines = [f"{'':<40}" + "".join(f"{name:>{width}}" for name in self.names)]
        rows = [("NLL, nats", self.nll, 3), ("squared MMD of samples (0: alike)", self.discrepancies, 5)]
        rows.append(("classifier of samples (0.5: alike)", self.accuracies, 3))
        for label, estimates, digits in rows:
            if estimates:
                lines.append(f"{label:<40}" + "".join(f"{e.mean:>{width}.{digits}f}" for e in estimates))
                lines.append(
                    f"{'  standard error':<40}" + "".join(f"{e.error_text(digits):>{width}}" for e in estimates)
                )
        lines.append(f"{self.names[0]} minus {self.names[1]}, per point: {self.difference.words()}: {self.verdict}")
        lines.append(f"{self.count} points; standard errors and intervals are clustered by {self.grouped}")
        lines.append(f"densities are with respect to {self.measure}")
        return "\n".join(lines)

    def record(self) -> dict[str, Any]:
        """Return the table as plain values, for JSON."""

        def plain(e: Estimate) -> dict[str, Any]:
            return {"mean": e.mean, "standard_error": e.standard_error if e.has_error else None}

        named: dict[str, Any] = {}
        for i, name in enumerate(self.names):
            named[name] = {"nll_nats": plain(self.nll[i])}
            for key, estimates in (("squared_mmd", self.discrepancies), ("classifier_accuracy", self.accuracies)):
                if estimates:
                    named[name][key] = plain(estimates[i])
        difference = self.difference
        return {
            "runs": named,
            "nll_difference_nats": plain(difference)
            | {"interval_95": list(difference.interval_95) if difference.has_error else None},
            "verdict": self.verdict,
            "points": self.count,
            "clusters": difference.count,
            "clustered_by": self.grouped,
            "measure": self.measure,
            "warnings": self.warnings,
        }


def compare(
    a: Side,
    b: Side,
    groups: Tensor | Any = None,
    grouped: str = "place",
    *,
    seed: int = 0,
    batch_size: int = 4096,
    note: Callable[[str], None] = lambda message: None,
    advance: Callable[[int], Any] = lambda count: None,
) -> Comparison:
    """Compare two flows at the same points.

    Args:
        a: one flow with the points.
        b: the other.
        groups: labels of points that are no independent observations, ``(n,)``; their places by default.
        grouped: what the labels are, in words.
        seed: of the samples.
        batch_size: points computed together.
        note: receives messages on what is being computed.
        advance: called with the number of points scored each time.

    Raises:
        ValueError: the flows' densities have different measures, so that their likelihoods cannot be compared.
    """
    if not a.flow.manifold.same_as(b.flow.manifold):
        raise ValueError(
            f"{a.name} is on {a.flow.manifold} and {b.name} on {b.flow.manifold}, whose densities have different "
            "measures; compare runs on one manifold"
        )
    apart = a.flow.manifold.dist(a.points, b.points).max() if a.points.shape == b.points.shape else torch.inf
    if float(apart) > _SAME:
        raise ValueError(
            f"{a.name} and {b.name} read different points from the table, up to {float(apart):.3g} apart: their "
            "columns or units differ; compare runs of the same columns"
        )
    scores = []
    for side in (a, b):
        scores.append(
            side.flow.log_prob(side.points, condition=side.condition, batch_size=batch_size, progress=advance).double()
        )
    clusters = a.points if groups is None else groups
    nll = tuple(negative_log_likelihood(own, groups=clusters) for own in scores)
    found = Comparison(
        (a.name, b.name),
        (nll[0], nll[1]),
        paired_difference(-scores[0], -scores[1], groups=clusters),
        len(a.points),
        grouped,
        f"the Riemannian volume of {a.flow.manifold}",
        *_samples_against_points((a, b), seed, batch_size, note),
    )
    for side in (a, b):
        if side.trained:
            found.warnings.append(
                f"{side.trained:,} of {len(side.points):,} points are among those that {side.name} was fitted or "
                "validated by, which makes it look better than it is; compare at points that are new to both"
            )
    return found


def _samples_against_points(
    sides: tuple[Side, Side], seed: int, batch_size: int, note: Callable[[str], None]
) -> tuple[tuple[Estimate, ...], tuple[Estimate, ...]]:
    """Return the discrepancy of each flow's samples from the points, and how well a classifier tells them apart."""
    manifold, points = sides[0].flow.manifold, sides[0].points
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))[:_COMPARED]
    real = points[order]
    if len(real) < 4:
        return (), ()
    drawn = []
    for side in sides:
        note(f"samples of {side.name}")
        generator = torch.Generator(side.flow._dtype_and_device()[1]).manual_seed(seed)
        condition = None if side.condition is None else side.condition[order]
        samples = side.flow.sample(len(real), condition=condition, generator=generator, batch_size=batch_size)
        drawn.append(manifold.projx(samples.cpu().double()))
    real = manifold.projx(real)
    kernel = _kernel(manifold, real, drawn[0])
    note("discrepancies")
    discrepancies = tuple(maximum_mean_discrepancy(samples, real, kernel) for samples in drawn)
    return discrepancies, _accuracies(manifold, drawn, real, note)


def _accuracies(
    manifold: Manifold, drawn: list[Tensor], real: Tensor, note: Callable[[str], None]
) -> tuple[Estimate, ...]:
    """Return how well a classifier tells samples from points; nothing without scikit-learn, or of too few."""
    if len(real) < _LEAST_FOR_CLASSIFIER:
        return ()
    note("classifiers")
    try:
        return tuple(classifier_two_sample(manifold, samples, real) for samples in drawn)
    except ImportError:
        note("no classifier, which needs scikit-learn: pip install 'riemannian-flow-matching[metrics]'")
        return ()


def _kernel(manifold: Manifold, x: Tensor, y: Tensor) -> Kernel:
    """Return a positive definite kernel of the points' own width: the heat kernel where it is known."""
    scale = median_distance(manifold, x, y)
    try:
        heat_kernel(manifold, x[:1], y[:1], scale)
    except ValueError:
        return AmbientGaussianKernel(manifold, scale)
    return HeatKernel(manifold, scale)
