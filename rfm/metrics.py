"""Baselines and comparisons: what a flow's log-likelihood is to be judged against, and how.

`KernelDensity` is the baseline. It needs no training, so a model that does not beat it is not good; on data with
near-duplicates it is hard to beat. `negative_log_likelihood` gives a mean with its standard error;
`paired_difference` says whether one density is better than another on the same points.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from manifolds import Manifold
from rfm.sources import Source, default_source

_CHUNK_ELEMENTS = 2**18
"""Distances held at a time: 2 MiB, about a second-level cache, where the passes over them are fastest."""

_DROPPED_LOG_SHARE = 30.0
"""Kernels are dropped while all of them together are below exp(-30) = 1e-13 of the sum."""


@dataclass(frozen=True)
class Estimate:
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
    ``sqrt(G / (G - 1) * sum over groups of (sum in the group of (d_i - mean))^2) / n`` with G groups, and ``count`` is
    G. For several splits, join their test points: a place that comes back in another split stays one group.

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
    """A mixture of kernel densities of several widths on the same centres, and of a broad background.

    A kernel of concentration k about y has the density ``exp(-k |embed(x) - embed(y)|^2 / 2) / Z(k)`` with respect to
    the Riemannian volume, ``log Z`` being ``manifold.kernel_log_normaliser(k)``: von Mises-Fisher on spheres, products
    of von Mises on tori, Gaussian with variance 1 / k on flat space, matrix Fisher on rotations.

    Sums run in float64 and drop only kernels that together are below 1e-13 of the sum. Time grows as the number of
    centres times the number of queries; memory is bounded. Results carry no gradient.

    Args:
        manifold: a manifold with a kernel.
        points: centres of the kernels, ``(n, *event_shape)``.
        concentrations: positive, ``(K,)``, in one over the squared unit of ``embed``.
        weights: of the K kernel densities and, last, of the background: ``(K + 1,)``, not negative, sum 1.
        background: a density that is positive everywhere, so that no point is impossible.
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
        self.background = background
        self.points = _checked_points(manifold, points, "points")
        self.concentrations = _checked_concentrations(concentrations).to(self.points.device)
        self.weights = _checked_mixture_weights(weights, len(self.concentrations)).to(self.points.device)
        self._log_normalisers = _log_normalisers(manifold, self.concentrations)
        self._embedded = manifold.embed(self.points)
        self._log_shares: Tensor | None = None
        if sample_weights is not None:
            shares = _shares(sample_weights, self.points, "sample_weights")
            # Centres of weight zero add nothing, but would undo the bound on what the sums drop.
            self._embedded, self._log_shares = self._embedded[shares > 0], shares[shares > 0].log()

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
        """Return the density of the one concentration that makes validation likeliest, with 1 % background.

        Args:
            manifold: a manifold with a kernel.
            train: centres, ``(n, *event_shape)``.
            validation: points to choose by, ``(m, *event_shape)``.
            concentrations: to choose from; by default 40, geometrically from 10 to 1e8. On a manifold without finite
                volume, which sets no scale, these are divided by the mean squared distance of the embedded centres
                from their mean (it is 1 for uniform points on a sphere).
            background: by default `rfm.sources.default_source` of the centres: uniform where the volume is finite.
            sample_weights: of the centres, ``(n,)``.
            validation_weights: of the validation points, ``(m,)``.

        Raises:
            ValueError: the manifold has no kernel or no default background, or an argument is not as said.
        """
        k = _default_concentrations(manifold, train, 40) if concentrations is None else concentrations
        start = cls._unfitted(manifold, train, k, background, sample_weights)
        log_p, shares = start._validation_scores(validation, validation_weights)
        mixed = torch.logaddexp(log_p[:, :-1] + math.log(0.99), log_p[:, -1:] + math.log(0.01))
        best = int((shares @ mixed).argmax())
        weights = torch.tensor([0.99, 0.01], dtype=torch.float64)
        return cls(manifold, train, k[best : best + 1], weights, start.background, sample_weights)

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

        Expectation maximisation moves the weights alone, from equal ones; no step makes validation less likely.

        Args:
            manifold: a manifold with a kernel.
            train: centres, ``(n, *event_shape)``.
            validation: points to weight by, ``(m, *event_shape)``.
            concentrations: by default 30, geometrically from 10 to 1e8, scaled as in `one_bandwidth`. The cap matters
                where test points repeat training points: there the likelihood grows with it without bound.
            background: by default `rfm.sources.default_source` of the centres: uniform where the volume is finite.
            sample_weights: of the centres, ``(n,)``.
            validation_weights: of the validation points, ``(m,)``.
            steps: number of EM steps.

        Raises:
            ValueError: the manifold has no kernel or no default background, or an argument is not as said.
        """
        k = _default_concentrations(manifold, train, 30) if concentrations is None else concentrations
        start = cls._unfitted(manifold, train, k, background, sample_weights)
        log_p, shares = start._validation_scores(validation, validation_weights)
        weights = start.weights
        for _ in range(steps):
            weights = shares @ torch.softmax(log_p + weights.log(), dim=-1)
        return cls(manifold, train, k, weights / weights.sum(), start.background, sample_weights)

    @torch.no_grad()
    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density with respect to the Riemannian volume, in nats, ``(*batch)``.

        Args:
            x: points ``(*batch, *event_shape)``; the result has their dtype and device.
        """
        log_weights = self.weights.log()
        parts = [torch.logsumexp(self._components(part) + log_weights, dim=-1) for part in self._chunks(x)]
        return torch.cat(parts).reshape(self.manifold.batch_shape(x)).to(x)

    @torch.no_grad()
    def component_log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density of each component in the order of ``weights``, in nats, ``(*batch, K + 1)``.

        Args:
            x: points ``(*batch, *event_shape)``; the result has their dtype and device.
        """
        parts = [self._components(part) for part in self._chunks(x)]
        return torch.cat(parts).reshape(*self.manifold.batch_shape(x), len(self.weights)).to(x)

    @classmethod
    def _unfitted(
        cls,
        manifold: Manifold,
        train: Tensor,
        concentrations: Tensor,
        background: Source | None,
        sample_weights: Tensor | None,
    ) -> Self:
        """Return the mixture with equal weights."""
        if background is None:
            background = _default_background(manifold, _checked_points(manifold, train, "train"))
        components = len(_checked_concentrations(concentrations)) + 1
        weights = torch.full((components,), 1 / components, dtype=torch.float64)
        return cls(manifold, train, concentrations, weights, background, sample_weights)

    def _validation_scores(self, validation: Tensor, validation_weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the components' log-densities ``(m, K + 1)`` and the points' shares ``(m,)``, which sum to 1."""
        points = _checked_points(self.manifold, validation, "validation").to(self.points.device)
        return self.component_log_prob(points), _shares(validation_weights, points, "validation_weights")

    def _chunks(self, x: Tensor) -> tuple[Tensor, ...]:
        flat = x.detach().reshape(-1, *self.manifold.event_shape).to(self.points)
        return flat.split(max(1, _CHUNK_ELEMENTS // len(self._embedded)))

    def _components(self, x: Tensor) -> Tensor:
        kernels = _log_kernel_sums(self.manifold.embed(x), self._embedded, self.concentrations, self._log_shares)
        return torch.cat([kernels - self._log_normalisers, self.background.log_prob(x)[:, None]], dim=-1)


def _log_kernel_sums(x: Tensor, y: Tensor, concentrations: Tensor, log_shares: Tensor | None) -> Tensor:
    """Return ``log sum_i share_i exp(-k |x - y_i|^2 / 2)`` for each x and k, ``(m, K)``; None means equal shares.

    As k grows, fewer centres matter. A centre further than the nearest one by ``e`` in half the squared distance adds
    at most ``exp(-k e)`` times the largest share over the nearest one's; those that cannot matter to any row are left
    behind before the next, larger k.
    """
    # Squares of differences: 1 - <x, y> would lose all digits of chords near 1e-4, a kernel's width at k = 1e8.
    squared = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square_()
    nearest = squared.amin(-1, keepdim=True)
    excess = (squared - nearest) / 2
    log_w = None if log_shares is None else log_shares.expand_as(excess)
    reach = (
        _DROPPED_LOG_SHARE
        + math.log(len(y))
        + (0.0 if log_shares is None else float(log_shares.max() - log_shares.min()))
    )
    sums = squared.new_empty(len(x), len(concentrations))
    for j in concentrations.argsort().tolist():
        k = float(concentrations[j])
        width = max([1, *(excess * k <= reach).sum(-1).tolist()])
        if width < excess.shape[-1] // 2:
            excess, kept = excess.topk(width, dim=-1, largest=False, sorted=False)
            log_w = None if log_w is None else log_w.gather(-1, kept)
        if log_w is None:
            # The nearest centre adds exactly 1, so this sum can neither overflow nor vanish.
            sums[:, j] = excess.mul(-k).exp_().sum(-1).log() - math.log(len(y))
        else:
            sums[:, j] = torch.logsumexp(log_w - k * excess, dim=-1)
    return sums - concentrations * nearest / 2


def _default_concentrations(manifold: Manifold, train: Tensor, count: int) -> Tensor:
    unscaled = torch.logspace(1, 8, count, dtype=torch.float64, device=train.device)
    if manifold.volume is not None:
        return unscaled
    embedded = manifold.embed(_checked_points(manifold, train, "train"))
    spread = float((embedded - embedded.mean(0)).square().sum(-1).mean())
    return unscaled / (spread or 1.0)


def _default_background(manifold: Manifold, points: Tensor) -> Source:
    try:
        return default_source(manifold, points)
    except ValueError as error:
        raise ValueError(f"{error}; to a kernel density, pass it as background=") from error


def _log_normalisers(manifold: Manifold, concentrations: Tensor) -> Tensor:
    log_z = manifold.kernel_log_normaliser(concentrations)
    if log_z is None:
        raise ValueError(
            f"KernelDensity: {manifold} has no smoothing kernel of known normaliser, so no kernel-density baseline; "
            "write its kernel_log_normaliser(concentration), or compare with the source's density instead"
        )
    return log_z


def _checked_points(manifold: Manifold, points: Tensor, name: str) -> Tensor:
    """Return the points detached, in float64."""
    manifold.check_point(points)
    if manifold.batch_shape(points) != (len(points),) or len(points) == 0:
        raise ValueError(
            f"KernelDensity: {name} must have shape (n, {', '.join(map(str, manifold.event_shape))}) with n at least "
            f"1, got {tuple(points.shape)}"
        )
    return points.detach().double()


def _checked_concentrations(concentrations: Tensor) -> Tensor:
    k = concentrations.detach().double()
    if k.ndim != 1 or len(k) == 0 or not bool((torch.isfinite(k) & (k > 0)).all()):
        raise ValueError(
            "KernelDensity: concentrations must be positive and finite, shape (K,) with K at least 1, got "
            f"{concentrations.tolist()}"
        )
    return k


def _checked_mixture_weights(weights: Tensor, kernels: int) -> Tensor:
    w = weights.detach().double()
    if w.shape != (kernels + 1,) or not bool((w >= 0).all()) or not abs(float(w.sum()) - 1) < 1e-6:
        raise ValueError(
            f"KernelDensity: weights must be {kernels + 1} numbers (one for each concentration, and the background's "
            f"last), not negative, with sum 1, got {weights.tolist()}; divide them by their sum"
        )
    return w


def _shares(weights: Tensor | None, points: Tensor, name: str) -> Tensor:
    """Return the points' weights divided by their sum, float64; equal ones for None."""
    w = torch.ones(len(points)) if weights is None else weights.detach()
    w = w.to(dtype=torch.float64, device=points.device)
    if w.shape != (len(points),) or not bool((torch.isfinite(w) & (w >= 0)).all()) or not float(w.sum()) > 0:
        raise ValueError(
            f"KernelDensity: {name} must be one finite number for each of the {len(points)} points, not negative and "
            f"not all zero, got shape {tuple(w.shape)} with minimum {float(w.min()) if w.numel() else math.nan}"
        )
    return w / w.sum()


def _scores(name: str, log_prob: Tensor) -> Tensor:
    """Return log-densities flat, detached, in float64 on the CPU."""
    values = log_prob.detach().to(dtype=torch.float64, device="cpu").flatten()
    nan = int(values.isnan().sum())
    if len(values) == 0 or nan:
        finding = f"{nan} of {len(values)} NaN" if nan else "none"
        raise ValueError(
            f"{name} must hold log-densities, got {finding}; check the points and the model that scored them"
        )
    return values


def _clustered_mean(values: Tensor, groups: Tensor | None) -> Estimate:
    mean, count, residuals = values.mean(), len(values), values - values.mean()
    if groups is not None:
        rows = groups.detach().cpu().reshape(len(values), -1)
        # Adding 0 turns -0.0 into 0.0, which is the same place.
        label = torch.unique(rows + 0, dim=0, return_inverse=True)[1]
        count = int(label.max()) + 1
        residuals = torch.zeros(count, dtype=torch.float64).index_add_(0, label, residuals)
    if count == 1:
        return Estimate(float(mean), math.nan, 1)
    variance = count / (count - 1) * residuals.square().sum() / len(values) ** 2
    return Estimate(float(mean), float(variance.sqrt()), count)
