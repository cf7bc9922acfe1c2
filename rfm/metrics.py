"""Baselines and comparisons: what a flow's log-likelihood is to be judged against, and how.

`KernelDensity` is the baseline. It needs no training, so a model that does not beat it is not good; on data with
near-duplicates it is hard to beat. `negative_log_likelihood` gives a mean with its standard error;
`paired_difference` says whether one density is better than another on the same points.
"""

import math
from typing import NamedTuple, Self

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.sources import Source, default_source


class Estimate(NamedTuple):
    """A mean over independent observations.

    Args:
        mean: in the unit of the observations; nats, for log-likelihoods.
        standard_error: of the mean, same unit; NaN for a single observation.
        count: number of independent observations: points, or groups of points where they are clustered.
    """

    mean: float
    standard_error: float
    count: int

    @property
    def interval_95(self) -> tuple[float, float]:
        """The mean plus and minus 1.96 standard errors: for some tens of observations or more."""
        return self.mean - 1.96 * self.standard_error, self.mean + 1.96 * self.standard_error


def negative_log_likelihood(log_prob: Tensor) -> Estimate:
    """Return the mean of ``-log_prob`` with its standard error, points taken as independent.

    Args:
        log_prob: log-densities of the test points in nats, any shape.

    Raises:
        ValueError: ``log_prob`` is empty or holds NaN.
    """
    return _clustered_mean(-_scores("log_prob", log_prob), None)


def paired_difference(log_prob_a: Tensor, log_prob_b: Tensor, groups: Tensor | None = None) -> Estimate:
    """Return the mean of ``log_prob_a - log_prob_b`` over the same points: positive where ``a`` is the better model.

    Points at one place are not independent: given ``groups``, the standard error is the cluster-robust one,
    ``sqrt(G / (G - 1) * sum over groups of (sum in the group of (d_i - mean))^2) / n`` with G groups, and ``count`` is G.

    Args:
        log_prob_a: log-densities in nats, ``(n,)``.
        log_prob_b: the other model's at the same points, ``(n,)``.
        groups: ``(n, ...)``: labels or the points themselves; rows equal bit for bit, but for the sign of zero, are
            one group. By default each point is its own.

    Raises:
        ValueError: shapes differ, a tensor is empty, or one holds NaN.

    References:
        Liang and Zeger, Longitudinal data analysis using generalized linear models, Biometrika 73, 1986, eq. 7.
    """
    a, b = _scores("log_prob_a", log_prob_a), _scores("log_prob_b", log_prob_b)
    if log_prob_a.shape != log_prob_b.shape or log_prob_a.ndim != 1:
        raise ValueError(
            "paired_difference: log_prob_a and log_prob_b must have one shape (n,), the same points in the same order, "
            f"got {tuple(log_prob_a.shape)} and {tuple(log_prob_b.shape)}"
        )
    if groups is not None and (groups.ndim < 1 or len(groups) != len(a)):
        raise ValueError(
            f"paired_difference: groups must have one row for each of the {len(a)} points, got {tuple(groups.shape)}"
        )
    return _clustered_mean(a - b, groups)


class KernelDensity:
    """A mixture of kernel densities of several widths on the same points, and of a broad background.

    One kernel of concentration k about y has the density ``exp(-k |embed(x) - embed(y)|^2 / 2) / Z(k)`` with respect to
    the Riemannian volume, ``log Z`` being ``manifold.kernel_log_normaliser(k)``: von Mises-Fisher on spheres, products
    of von Mises on tori, Gaussian with variance 1 / k on flat space, matrix Fisher on rotations. It is not differentiated:
    `log_prob` carries no gradient.

    Sums are in float64 and drop only kernels that together are below 1e-13 of the sum. Time grows as the number of
    points times the number of queries; memory is bounded.

    Args:
        manifold: a manifold with a kernel.
        points: centres of the kernels, ``(n, *event_shape)``.
        concentrations: positive, ``(K,)``, in one over the squared unit of ``embed``.
        weights: of the K kernel densities and, last, of the background: ``(K + 1,)``, sum 1.
        background: a density that is positive everywhere, so that no point has likelihood zero.
        sample_weights: relative weight of each centre, ``(n,)``, not negative; by default equal.

    Raises:
        ValueError: the manifold has no kernel, or an argument is not as said.
    """

    def __init__(
        self,
        manifold: Manifold,
        points: Tensor,
        concentrations: Tensor,
        weights: Tensor,
        background: Source,
        sample_weights: Tensor | None = None,
    ) -> None:
        self.manifold = manifold
        self.points = _check_points(manifold, points, "points")
        self.concentrations = _check_concentrations(concentrations).to(self.points.device)
        self.weights = _check_mixture_weights(weights, len(self.concentrations)).to(self.points.device)
        self.background = background
        self.log_normalisers = _log_normalisers(manifold, self.concentrations)
        self._embedded = manifold.embed(self.points)
        self._log_sample_weights: Tensor | None = None
        if sample_weights is not None:
            share = _check_sample_weights(sample_weights, self.points, "sample_weights")
            # A logarithm of zero would meet no harm in the sums, but would forbid the bound on what they drop.
            self._embedded = self._embedded[share > 0]
            self._log_sample_weights = share[share > 0].log()

    @classmethod
    def one_bandwidth(
        cls,
        manifold: Manifold,
        train: Tensor,
        validation: Tensor,
        *,
        concentrations: Tensor | None = None,
        background: Source | None = None,
        sample_weights: Tensor | None = None,
        validation_weights: Tensor | None = None,
    ) -> Self:
        """Return the density with the one concentration that makes validation likeliest, and 1 % background.

        Args:
            manifold: a manifold with a kernel.
            train: centres, ``(n, *event_shape)``.
            validation: points to choose by, ``(m, *event_shape)``.
            concentrations: to choose from; by default 40, geometrically from 10 to 1e8. On a manifold of infinite
                volume, where no unit is given, these are divided by the mean squared distance of the embedded centres
                from their mean, which is 1 for uniform points on a sphere.
            background: by default `default_source` of the centres, the uniform density where there is one.
            sample_weights: of the centres, ``(n,)``.
            validation_weights: of the validation points, ``(m,)``.

        Raises:
            ValueError: the manifold has no kernel or no default background, or an argument is not as said.
        """
        k = _default_concentrations(manifold, train, 40) if concentrations is None else concentrations
        background = default_source(manifold, train) if background is None else background
        candidates = cls(manifold, train, k, _equal_weights(len(k) + 1), background, sample_weights)
        share = _check_sample_weights(validation_weights, _check_points(manifold, validation, "validation"))
        scores = candidates.component_log_prob(validation.double()).to(share.device)
        mixed = torch.logaddexp(scores[:, :-1] + math.log(0.99), scores[:, -1:] + math.log(0.01))
        best = int((share @ mixed).argmax())
        return cls(
            manifold, train, k[best : best + 1], torch.tensor([0.99, 0.01]).double(), background, sample_weights
        )

    @classmethod
    def mixture(
        cls,
        manifold: Manifold,
        train: Tensor,
        validation: Tensor,
        *,
        concentrations: Tensor | None = None,
        background: Source | None = None,
        sample_weights: Tensor | None = None,
        validation_weights: Tensor | None = None,
        steps: int = 300,
    ) -> Self:
        """Return the mixture of all concentrations and the background, weighted by EM on validation.

        Expectation maximisation moves the weights alone, from equal ones. Each step makes validation likelier.

        Args:
            manifold: a manifold with a kernel.
            train: centres, ``(n, *event_shape)``.
            validation: points to weight by, ``(m, *event_shape)``.
            concentrations: by default 30, geometrically from 10 to 1e8, scaled as in `one_bandwidth`. The cap matters
                where test points repeat training points: there the likelihood grows with it without bound.
            background: by default `default_source` of the centres, the uniform density where there is one.
            sample_weights: of the centres, ``(n,)``.
            validation_weights: of the validation points, ``(m,)``.
            steps: number of EM steps.

        Raises:
            ValueError: the manifold has no kernel or no default background, or an argument is not as said.
        """
        k = _default_concentrations(manifold, train, 30) if concentrations is None else concentrations
        background = default_source(manifold, train) if background is None else background
        start = cls(manifold, train, k, _equal_weights(len(k) + 1), background, sample_weights)
        share = _check_sample_weights(validation_weights, _check_points(manifold, validation, "validation"))
        scores = start.component_log_prob(validation.double()).to(share.device)
        weights = _equal_weights(len(k) + 1).to(share.device)
        for _ in range(steps):
            weights = share @ torch.softmax(scores + weights.log(), dim=-1)
        return cls(manifold, train, k, weights / weights.sum(), background, sample_weights)

    @torch.no_grad()
    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density with respect to the Riemannian volume, in nats, ``(*batch)``.

        Args:
            x: points ``(*batch, *event_shape)``. The result has their dtype and device.
        """
        rows = [torch.logsumexp(c + self.weights.log(), dim=-1) for c in self._component_chunks(x)]
        return self._in_batch(rows, x)

    @torch.no_grad()
    def component_log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density of each component, in the order of ``weights``, in nats, ``(*batch, K + 1)``."""
        return self._in_batch(list(self._component_chunks(x)), x)

    def _in_batch(self, rows: list[Tensor], x: Tensor) -> Tensor:
        batch = self.manifold.batch_shape(x)
        empty = self.weights.new_empty((0, *([len(self.weights)] if not rows else rows[0].shape[1:])))
        joined = torch.cat([empty, *rows]) if rows else empty
        return joined.reshape(*batch, *joined.shape[1:]).to(dtype=x.dtype, device=x.device)

    def _component_chunks(self, x: Tensor) -> list[Tensor]:
        raise NotImplementedError
