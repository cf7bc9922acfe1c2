"""Whether samples copy the training points: how near they come, beside how near new data come."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from manifolds import Manifold
from manifolds.numerics.precision import in_full_precision
from rfm.metrics.estimates import Estimate, clustered_mean
from rfm.metrics.two_sample import CHUNK_PAIRS, checked_samples, chunks


@dataclass(frozen=True)
class NearestTraining:
    """Distances to the nearest training point, of samples and of data held out.

    Args:
        samples: the median over samples, in the unit of the metric.
        held_out: the median over data held out.
        nearer: the probability that a sample is nearer than a point held out is, ties halved: 0.5 where samples are
            like new data, 1 where they are copies. Its standard error is clustered by place.
    """

    samples: float
    held_out: float
    nearer: Estimate

    def record(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        interval = list(self.nearer.interval_95) if self.nearer.has_error else None
        return {
            "median_distance": {"samples": self.samples, "test": self.held_out},
            "sample_is_nearer": {"mean": self.nearer.mean, "interval_95": interval},
        }

    def describe(self) -> str:
        """Return it in a line."""
        text = (
            f"nearest training point: median distance {self.samples:.3g} of samples, {self.held_out:.3g} of test "
            f"points; a sample is nearer than a test point in {100 * self.nearer.mean:.0f} %"
        )
        if self.nearer.has_error:
            low, high = self.nearer.interval_95
            text += f" [{100 * low:.0f}, {100 * high:.0f}]"
        return f"{text} of pairs: 50 % is new, 100 % copied"


@in_full_precision
def nearest_distances(manifold: Manifold, x: Tensor, reference: Tensor) -> Tensor:
    """Return the distance of each point to the nearest point of a reference, ``(n,)``, in the unit of the metric.

    Args:
        manifold: where the points live.
        x: points ``(n, *event_shape)``.
        reference: points ``(m, *event_shape)``, such as those a model was trained on.

    Raises:
        ValueError: for points that are none.
    """
    x, reference = checked_samples("nearest_distances", manifold, x, reference, least=1)
    parts = [
        manifold.dist(x[part, None], reference[None]).amin(1) for part in chunks(len(x), len(reference), CHUNK_PAIRS)
    ]
    return torch.cat(parts)


def nearest_training(manifold: Manifold, train: Tensor, held_out: Tensor, samples: Tensor) -> NearestTraining:
    """Compare how near samples come to the training points with how near data come that were held out.

    Data held out from the same distribution are as near as a sample may be. A model that memorises draws points that
    are nearer; one that blurs draws points that are farther. The comparison is that of Mann and Whitney, and its error
    that of DeLong et al.

    Args:
        manifold: where the points live.
        train: what the model was trained on, ``(n, *event_shape)``.
        held_out: data that it was not trained on, ``(m, *event_shape)``; repeats of a place are clustered.
        samples: draws from the model, ``(k, *event_shape)``.

    Raises:
        ValueError: for points that are none.

    References:
        Meehan, Chaudhuri and Dasgupta, A Non-Parametric Test to Detect Data-Copying in Generative Models, 2020,
        arXiv:2004.05675, section 3; DeLong, DeLong and Clarke-Pearson, Comparing the Areas under Two or More Correlated
        Receiver Operating Characteristic Curves, Biometrics 44 (1988), 837-845.
    """
    own, new = (nearest_distances(manifold, x, train).double().cpu() for x in (samples, held_out))
    # The share of the others that are farther, ties halved.
    of_samples = 1 - _share_below(new, own)
    of_held_out = _share_below(own, new)
    a, b = clustered_mean(of_samples), clustered_mean(of_held_out, held_out)
    error = (a.standard_error**2 + b.standard_error**2) ** 0.5
    return NearestTraining(float(own.median()), float(new.median()), Estimate(a.mean, error, min(a.count, b.count)))


def _share_below(values: Tensor, x: Tensor) -> Tensor:
    """Return the share of values that are below each of x, equal ones halved."""
    ordered = values.sort().values
    left, right = (torch.searchsorted(ordered, x, right=side) for side in (False, True))
    return (left + right).double() / (2 * len(values))
