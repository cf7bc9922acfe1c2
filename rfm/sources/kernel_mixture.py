"""Kernel densities: the mixture of a kernel around every data point."""

import math
from typing import Any, Self

import torch
from torch import Tensor

from manifolds import Kernel, Manifold
from manifolds.arguments import whole
from manifolds.constants import Constants
from rfm.arrays import points_of, tensor_of
from rfm.sources.base import Source, checked_part, draws
from rfm.sources.default import default_source
from rfm.sources.kernel_arguments import (
    checked_concentrations,
    checked_mixture_weights,
    checked_points,
    checked_shares,
)
from rfm.sources.kernel_sums import log_kernel_sums

_CHUNK_ELEMENTS = 2**18
"""Distances held at a time: 2 MiB, about a second-level cache, where the passes over them are fastest."""

_SCORED_POINTS = 4096
"""More would not decide thirty weights better, and take time in proportion."""


class KernelMixture(Source, Constants):
    """A mixture of kernel densities of several widths on the same centres, and of a broad background.

    A kernel of concentration k about y has the density ``exp(-k |embed(x) - embed(y)|^2 / 2) / Z(k)`` with respect to
    the Riemannian volume, ``log Z`` being ``manifold.kernel.log_normaliser(k)``: von Mises-Fisher on spheres, products
    of von Mises on tori, Gaussian with variance 1 / k on flat space, matrix Fisher on rotations. On a quotient it is
    the mean of such kernels about the representatives of y, so the density has one value on each class.

    Sums run in float64 and drop only kernels that together are below 1e-13 of the sum. Time grows as the number of
    centres times the number of queries; memory is bounded, unless a gradient of ``log_prob`` is asked for.

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

    points: Tensor
    concentrations: Tensor
    weights: Tensor
    sample_weights: Tensor | None
    background: Source
    _log_normalisers: Tensor
    _embedded: Tensor
    _log_shares: Tensor | None

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
        self.constant("concentrations", checked_concentrations(concentrations).to(self.points.device))
        weights = checked_mixture_weights(weights, len(self.concentrations))
        self.constant("weights", weights.to(self.points.device))
        self.background = checked_part("KernelMixture", "background", background, manifold)
        kernel = _kernel(manifold)
        self.constant("_log_normalisers", kernel.log_normaliser(self.concentrations))
        # Where points are classes, a kernel is shared by its representatives.
        centres = kernel.centres(self.points)
        copies = centres.shape[1]
        self.constant("_embedded", kernel.embed(centres.flatten(0, 1)))
        self.register_buffer("sample_weights", None)
        self.register_buffer("_log_shares", None)
        if sample_weights is not None:
            shares = checked_shares(sample_weights, self.points, "sample_weights")
            given = tensor_of("KernelMixture", "sample_weights", sample_weights, torch.float64)
            self.constant("sample_weights", given.detach().to(shares))
            # Centres of weight zero add nothing, but would undo the bound on what the sums drop.
            shares = (shares / copies).repeat_interleave(copies)
            self.constant("_embedded", self._embedded[shares > 0])
            self.constant("_log_shares", shares[shares > 0].log())

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
        k = _chosen_concentrations(manifold, train, concentrations, 40)
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
        train = checked_points(manifold, train, "train")
        k = _chosen_concentrations(manifold, train, concentrations, 30)
        start = cls._unfitted(manifold, train, k, background, sample_weights)
        weights = _likeliest_weights(*start._validation_scores(validation, validation_weights), steps)
        return cls(manifold, train, k, weights, start.background, sample_weights)

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
        k = _chosen_concentrations(manifold, points, concentrations, 30)
        background = _default_background(manifold, points) if background is None else background
        fold, places = _folds(points, shares, whole("KernelMixture", "folds", folds))
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
        weights = _likeliest_weights(log_p[scored], shares[scored] / shares[scored].sum(), steps)
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
        k = self.concentrations.to(points.device)[component.clamp(max=len(self.concentrations) - 1)]
        x = _kernel(self.manifold).sample(points[centre], k, generator)
        other = self.background.sample(shape, **like)
        return torch.where(self.manifold.lift(is_kernel), x, other).to(dtype or torch.get_default_dtype())

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density with respect to the Riemannian volume, in nats, ``(*batch)``.

        Args:
            x: points ``(*batch, *event_shape)``; the result has their dtype and device.
        """
        x = points_of("KernelMixture", self.manifold, x)
        log_weights = self.weights.log()
        parts = [torch.logsumexp(self._components(part) + log_weights, dim=-1) for part in self._chunks(x)]
        return torch.cat(parts).reshape(self.manifold.batch_shape(x)).to(x)

    @torch.no_grad()
    def component_log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density of each component in the order of ``weights``, in nats, ``(*batch, K + 1)``.

        Args:
            x: points ``(*batch, *event_shape)``; the result has their dtype and device.
        """
        x = points_of("KernelMixture", self.manifold, x)
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
            background = _default_background(manifold, train)
        components = len(checked_concentrations(concentrations)) + 1
        weights = torch.full((components,), 1 / components, dtype=torch.float64)
        return cls(manifold, train, concentrations, weights, background, sample_weights)

    def _validation_scores(self, validation: Tensor, validation_weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the components' log-densities ``(m, K + 1)`` and the points' shares ``(m,)``, which sum to 1."""
        points = checked_points(self.manifold, validation, "validation").to(self.points.device)
        return self.component_log_prob(points), checked_shares(validation_weights, points, "validation_weights")

    def _chunks(self, x: Tensor) -> tuple[Tensor, ...]:
        flat = x.reshape(-1, *self.manifold.event_shape).to(self.points)
        return flat.split(max(1, _CHUNK_ELEMENTS // len(self._embedded)))

    def _components(self, x: Tensor) -> Tensor:
        embedded = _kernel(self.manifold).embed(x)
        kernels = log_kernel_sums(embedded, self._embedded, self.concentrations, self._log_shares)
        return torch.cat([kernels - self._log_normalisers, self.background.log_prob(x)[:, None]], dim=-1)


def _likeliest_weights(log_p: Tensor, shares: Tensor, steps: int) -> Tensor:
    """Return mixture weights by expectation maximisation from equal ones, ``(K,)``.

    Args:
        log_p: log-densities of the components at the points, ``(m, K)``.
        shares: weights of the points, ``(m,)``, sum 1.
        steps: number of steps.
    """
    weights = log_p.new_full(log_p.shape[1:], 1 / log_p.shape[1])
    for _ in range(whole("KernelMixture", "steps", steps, 0)):
        weights = shares @ torch.softmax(log_p + weights.log(), dim=-1)
    return weights / weights.sum()


def _folds(points: Tensor, shares: Tensor, folds: int) -> tuple[Tensor, int]:
    """Return the fold of each point, ``(n,)``, a random part of the places; and the number of places."""
    # Adding 0 turns -0.0 into 0.0, which is the same place.
    places, place = torch.unique(points.flatten(1) + 0, dim=0, return_inverse=True)
    if folds < 2 or len(torch.unique(place[shares > 0])) < 2:
        raise ValueError(
            f"KernelMixture: fit needs at least two folds and two different points of positive weight, got {folds} "
            f"folds and {len(places)} different points; give it more, or weights to the constructor"
        )
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(0)).to(points.device)
    return order[place] % min(folds, len(places)), len(places)


def _chosen_concentrations(manifold: Manifold, train: Tensor, concentrations: Tensor | None, count: int) -> Tensor:
    """Return the concentrations, or so many that the points set."""
    if concentrations is not None:
        return checked_concentrations(concentrations)
    unscaled = torch.logspace(1, 8, count, dtype=torch.float64, device=train.device)
    if manifold.volume is not None:
        return unscaled
    embedded = _kernel(manifold).embed(train)
    spread = float((embedded - embedded.mean(0)).square().sum(-1).mean())
    return unscaled / (spread or 1.0)


def _default_background(manifold: Manifold, points: Tensor) -> Source:
    try:
        return default_source(manifold, points)
    except ValueError as error:
        raise ValueError(f"{error}; to a kernel density, pass it as background=") from error


def _kernel(manifold: Manifold) -> Kernel:
    kernel = manifold.kernel
    if kernel is None:
        raise ValueError(
            f"KernelMixture: {manifold} has no smoothing kernel, so no kernel-density baseline; let its property "
            "kernel return a manifolds.Kernel, or compare with the source's density instead"
        )
    return kernel


def _drawn(weights: Tensor, u: Tensor) -> Tensor:
    """Return indices with these probabilities, from uniform numbers ``u``; never one of weight zero."""
    cumulative = weights.cumsum(0)
    last = weights.nonzero()[-1, 0]
    return torch.searchsorted(cumulative, u * cumulative[-1], right=True).clamp(max=last)
