"""Kernel densities: the mixture of a kernel around every data point."""

import math
from typing import Any, Self

import torch
from torch import Tensor

from manifolds import Manifold
from manifolds.arguments import integer
from manifolds.numerics.constants import Constants
from rfm.arrays import points_of, tensor_of
from rfm.sources.base import Source, checked_part, draws
from rfm.sources.default import default_source
from rfm.sources.folds import folds_of, places_of
from rfm.sources.kernel_arguments import (
    checked_concentrations,
    checked_kernel,
    checked_mixture_weights,
    checked_points,
    checked_shares,
)
from rfm.sources.kernel_components import KernelComponents
from rfm.sources.kernel_widths import absolute_concentrations, kernel_concentrations
from rfm.sources.mixture_weights import likeliest_weights
from rfm.sources.truncated_sums import Precision, precision_of

_SLAB = 2**17
"""Points whose truncated sums are found at a time; they bound the memory."""

_NEGLIGIBLE_WEIGHT = 1e-3
"""Components of less weight than this cost time when points are scored, and decide nothing."""

_SCORED_POINTS = 4096
"""More would not decide thirty weights better, and take time in proportion."""


class KernelMixture(Source, Constants):
    """A mixture of kernel densities of several widths on the same centres, and of a broad background.

    A kernel of concentration k about y has the density ``exp(-k |embed(x) - embed(y)|^2 / 2) / Z(k)`` with respect to
    the Riemannian volume, ``log Z`` being ``manifold.kernel.log_normaliser(k)``: von Mises-Fisher on spheres, products
    of von Mises on tori, Gaussian with variance 1 / k on flat space, matrix Fisher on rotations. On a quotient it is
    the mean of such kernels about the representatives of y, so the density has one value on each class.

    Sums run in float64. From four million pairs of a point and a centre on, on the CPU and without a gradient,
    ``log_prob`` leaves out kernels that together are below 1e-9 of the density, found by blocks of points that are near
    each other; the log-density then has an error of 1e-9 nats at most, which depends on the other points. For points in
    float32 the terms of those sums are in float32 too, and the error is 2e-6 at most where the log-density is of order
    one, below what rounding such points does. Otherwise what is dropped is below 1e-13 of each component. Memory is
    bounded, unless a gradient of ``log_prob`` is requested.

    Args:
        manifold: a manifold with a kernel.
        points: centres of the kernels, ``(n, *event_shape)``.
        concentrations: positive, in one over the squared unit of ``embed``: ``(K,)``, the same for all centres, or
            ``(K, n)``, one for each; such a component is the mean over the centres of kernels of their own widths.
            `kernel_concentrations` makes those that follow the local density.
        weights: of the K kernel densities and, last, of the background: ``(K + 1,)``, not negative, sum 1.
        background: a density that is positive everywhere, so that no point is impossible.
        sample_weights: relative weight of each centre, ``(n,)``, not negative; by default equal.

    Raises:
        ValueError: the manifold has no kernel, or an argument is not as said.
    """

    points: Tensor
    concentrations: Tensor
    weights: Tensor
    sample_weights: Tensor | None
    background: Source

    def __init__(
        self,
        manifold: Manifold,
        points: Tensor,
        concentrations: Tensor,
        weights: Tensor,
        background: Source,
        sample_weights: Tensor | None = None,
    ) -> None:
        super().__init__(manifold)
        self.constant("points", checked_points(manifold, points, "points"))
        k = checked_concentrations(concentrations, len(self.points)).to(self.points.device)
        self.constant("concentrations", k)
        weights = checked_mixture_weights(weights, len(self.concentrations))
        self.constant("weights", weights.to(self.points.device))
        self.background = checked_part("KernelMixture", "background", background, manifold)
        self.background.check_density("KernelMixture: background")
        shares = checked_shares(sample_weights, self.points, "sample_weights")
        self.register_buffer("sample_weights", None)
        if sample_weights is not None:
            given = tensor_of("KernelMixture", "sample_weights", sample_weights, torch.float64)
            self.constant("sample_weights", given.detach().to(shares))
        self._kernels = KernelComponents(manifold, self.points, k, None if sample_weights is None else shares)

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
        train = checked_points(manifold, train, "train")
        k = _or_absolute(manifold, train, concentrations, 40)
        start = cls._unfitted(manifold, train, k, background, sample_weights)
        log_p, shares = start._validation_scores(validation, validation_weights, truncate=False)
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
            concentrations: ``(K,)`` or, one for each centre, ``(K, n)``; by default 30, geometrically from 10 to 1e8,
                scaled as in `one_bandwidth`. The cap matters where test points repeat training points: there the
                likelihood grows with it without bound.
            background: by default `rfm.sources.default_source` of the centres: uniform where the volume is finite.
            sample_weights: of the centres, ``(n,)``.
            validation_weights: of the validation points, ``(m,)``.
            steps: number of EM steps.

        Raises:
            ValueError: the manifold has no kernel or no default background, or an argument is not as said.
        """
        train = checked_points(manifold, train, "train")
        k = _or_absolute(manifold, train, concentrations, 30)
        start = cls._unfitted(manifold, train, k, background, sample_weights)
        weights = likeliest_weights(*start._validation_scores(validation, validation_weights), steps)
        return cls(manifold, train, k, weights, start.background, sample_weights)

    @classmethod
    def adaptive(
        cls,
        manifold: Manifold,
        train: Tensor,
        validation: Tensor,
        *,
        background: Source | None = None,
        sample_weights: Tensor | None = None,
        validation_weights: Tensor | None = None,
        steps: int = 500,
    ) -> Self:
        """Return the mixture of kernels that follow the local density, of plain ones, and of the background.

        The components are those of `kernel_concentrations`, weighted as in `mixture`: in dense regions kernels are
        narrow, in sparse ones broad. The strongest kernel density here. Components that get less than a thousandth of
        the weight are left out, and the others weighted anew.

        Args:
            manifold: a manifold with a kernel.
            train: centres, ``(n, *event_shape)``.
            validation: points to weight by, ``(m, *event_shape)``.
            background: by default `rfm.sources.default_source` of the centres: uniform where the volume is finite.
            sample_weights: of the centres, ``(n,)``; those of weight zero are left out, other neighbours count alike.
            validation_weights: of the validation points, ``(m,)``.
            steps: number of EM steps.

        Raises:
            ValueError: the manifold has no kernel or no default background, or an argument is not as said.
        """
        train = checked_points(manifold, train, "train")
        if sample_weights is not None:
            # Points of weight zero are no neighbours.
            shares = checked_shares(sample_weights, train, "sample_weights")
            train, sample_weights = train[shares > 0], shares[shares > 0]
        k = kernel_concentrations(manifold, train)
        start = cls._unfitted(manifold, train, k, background, sample_weights)
        log_p, shares = start._validation_scores(validation, validation_weights)
        weights = likeliest_weights(log_p, shares, steps)
        kept = weights >= _NEGLIGIBLE_WEIGHT
        kept[[-1, int(weights[:-1].argmax())]] = True
        weights = likeliest_weights(log_p[:, kept], shares, steps)
        return cls(manifold, train, k[kept[:-1]], weights, start.background, sample_weights)

    @classmethod
    def fit(
        cls,
        manifold: Manifold,
        points: Tensor,
        *,
        concentrations: Tensor | None = None,
        background: Source | None = None,
        sample_weights: Tensor | None = None,
        folds: int = 10,
        steps: int = 300,
    ) -> Self:
        """Return the mixture on all points, with weights that make each tenth likeliest given the other nine.

        For a flow to start from: it needs no validation points. Equal points share a fold, or the narrowest kernels
        would be chosen to explain repeats. At most 4096 points are scored, against all others. The background gets the
        weight of one point more than is likeliest, so that a source is nowhere next to zero.

        Args:
            manifold: a manifold with a kernel.
            points: centres, ``(n, *event_shape)``, at least two of them different.
            concentrations: as in `mixture`.
            background: as in `mixture`.
            sample_weights: of the points, ``(n,)``.
            folds: number of parts, at least 2.
            steps: number of EM steps.

        Raises:
            ValueError: the manifold has no kernel or no default background, or an argument is not as said.
        """
        points = checked_points(manifold, points, "points")
        shares = checked_shares(sample_weights, points, "sample_weights")
        k = _or_absolute(manifold, points, concentrations, 30)
        background = _default_background(manifold, points) if background is None else background
        fold, places = _folds(points, shares, integer("KernelMixture", "folds", folds))
        scored = torch.zeros_like(fold, dtype=torch.bool)
        scored[torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:_SCORED_POINTS]] = True
        log_p = points.new_empty(len(points), len(k) + 1)
        for i in range(int(fold.max()) + 1):
            others, held = fold != i, (fold == i) & scored
            if bool(shares[others].sum() > 0):
                density = cls._unfitted(manifold, points[others], k, background, shares[others])
                log_p[held] = density.component_log_prob(points[held])
            else:
                scored = scored & others
        weights = likeliest_weights(log_p[scored], shares[scored], steps)
        # As if one place more had been seen, far from all: likelihood alone may leave the background nothing.
        weights = weights * places / (places + 1)
        weights[-1] += 1 / (places + 1)
        return cls(manifold, points, k, weights, background, sample_weights)

    @torch.no_grad()
    def sample(
        self,
        shape: int | tuple[int, ...],
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        shape, points = draws(self, shape, dtype), self.points.to(device=device)
        like: dict[str, Any] = {"generator": generator, "dtype": points.dtype, "device": points.device}
        component = _drawn(self.weights.to(points.device), torch.rand(shape, **like))
        u = torch.rand(shape, **like)
        if self.sample_weights is None:
            centre = (u * len(points)).long().clamp(max=len(points) - 1)
        else:
            centre = _drawn(self.sample_weights.to(points.device), u)
        is_kernel = component < len(self.concentrations)
        k = self.concentrations.to(points.device)
        row = component.clamp(max=len(k) - 1)
        k = k[row] if k.ndim == 1 else k[row, centre]
        x = checked_kernel(self.manifold).sample(points[centre], k, generator)
        other = self.background.sample(shape, **like)
        return torch.where(self.manifold.lift(is_kernel), x, other).to(dtype or torch.get_default_dtype())

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density with respect to the Riemannian volume, in nats, ``(*batch)``.

        Args:
            x: points ``(*batch, *event_shape)``; the result has their dtype and device.
        """
        x = points_of("KernelMixture", self.manifold, x)
        flat = self._flat(x)
        if self._kernels.truncates(flat):
            precision = precision_of(x)
            parts = [self._truncated(part, precision).logsumexp(-1) for part in flat.split(_SLAB)]
        else:
            log_weights = self.weights.log()
            parts = [(self._components(part) + log_weights).logsumexp(-1) for part in self._kernels.chunks(flat)]
        return torch.cat(parts).reshape(self.manifold.batch_shape(x)).to(x)

    @torch.no_grad()
    def component_log_prob(self, x: Tensor, *, truncate: bool = False) -> Tensor:
        """Return the log-density of each component in the order of ``weights``, in nats, ``(*batch, K + 1)``.

        All of them are complete sums, also where others are larger by far, unless truncated.

        Args:
            x: points ``(*batch, *event_shape)``; the result has their dtype and device.
            truncate: drop what is negligible beside the mixture at a point, up to whole components, which are -inf
                there: exact enough to weight them by, and in less time where there are many pairs of points.
        """
        x = points_of("KernelMixture", self.manifold, x)
        flat = self._flat(x)
        if truncate and self._kernels.varying and self._kernels.truncates(flat):
            log_w = self.weights.log()
            # A component of weight zero adds nothing, and is as negligible as can be.
            slabs = (self._truncated(part, precision_of(x)) for part in flat.split(_SLAB))
            parts = [torch.where(log_w > -math.inf, slab - log_w, log_w) for slab in slabs]
        else:
            parts = [self._components(part) for part in self._kernels.chunks(flat)]
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
            background = _default_background(manifold, train)
        components = len(checked_concentrations(concentrations, len(train))) + 1
        weights = torch.full((components,), 1 / components, dtype=torch.float64)
        return cls(manifold, train, concentrations, weights, background, sample_weights)

    def _validation_scores(
        self, validation: Tensor, validation_weights: Tensor | None, truncate: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Return the components' log-densities ``(m, K + 1)`` and the points' shares ``(m,)``, which sum to 1."""
        points = checked_points(self.manifold, validation, "validation").to(self.points.device)
        shares = checked_shares(validation_weights, points, "validation_weights")
        return self.component_log_prob(points, truncate=truncate), shares

    def _flat(self, x: Tensor) -> Tensor:
        return x.reshape(-1, *self.manifold.event_shape).to(self.points)

    def _components(self, x: Tensor) -> Tensor:
        columns = self._kernels.log_prob(checked_kernel(self.manifold).embed(x))
        return torch.stack([*columns, self.background.log_prob(x)], dim=-1)

    @torch.no_grad()
    def _truncated(self, x: Tensor, precision: Precision) -> Tensor:
        """Return the log of weight times density of each component, ``(m, K + 1)``, without what cannot matter."""
        last = self.background.log_prob(x) + self.weights[-1].log()
        kernels = self._kernels.truncated(checked_kernel(self.manifold).embed(x), self.weights[:-1], last, precision)
        return torch.cat([kernels, last[:, None]], dim=-1)


def _folds(points: Tensor, shares: Tensor, folds: int) -> tuple[Tensor, int]:
    """Return the fold of each point, ``(n,)``, and the number of places."""
    place = places_of(points)
    count = int(place.max()) + 1
    if folds < 2 or len(torch.unique(place[shares > 0])) < 2:
        raise ValueError(
            f"KernelMixture: fit needs at least two folds and two different points of positive weight, got {folds} "
            f"folds and {count} different points; give it more, or weights to the constructor"
        )
    return folds_of(place, folds), count


def _or_absolute(manifold: Manifold, points: Tensor, concentrations: Tensor | None, count: int) -> Tensor:
    if concentrations is None:
        return absolute_concentrations(manifold, points, count)
    return checked_concentrations(concentrations, len(points))


def _default_background(manifold: Manifold, points: Tensor) -> Source:
    try:
        return default_source(manifold, points)
    except ValueError as error:
        raise ValueError(f"{error}; to a kernel density, pass it as background=") from error


def _drawn(weights: Tensor, u: Tensor) -> Tensor:
    """Return indices with these probabilities, from uniform numbers ``u``; never one of weight zero."""
    cumulative = weights.cumsum(0)
    last = weights.nonzero()[-1, 0]
    return torch.searchsorted(cumulative, u * cumulative[-1], right=True).clamp(max=last)
