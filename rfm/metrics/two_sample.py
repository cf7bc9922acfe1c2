"""How far apart two samples are: discrepancies, transport distances, a classifier, coverage, each with an interval."""

from collections.abc import Iterator

import torch
from torch import Tensor

from manifolds import Manifold
from manifolds.arguments import check_instance, integer, seed_of
from manifolds.numerics.precision import in_full_precision
from rfm.arrays import tensor_of
from rfm.couplings import assignment
from rfm.metrics.estimates import Estimate, clustered_mean
from rfm.metrics.kernels import Kernel

CHUNK_PAIRS = 2**20


@in_full_precision
def maximum_mean_discrepancy(x: Tensor, y: Tensor, kernel: Kernel, *, chunk_pairs: int = CHUNK_PAIRS) -> Estimate:
    """Return the squared maximum mean discrepancy between the distributions that two samples were drawn from.

    The unbiased estimate, which may be negative where they agree; for a positive definite kernel that tells all
    distributions apart its expectation is zero only if they are the same. The standard error is the jackknife's over
    pairs ``(x_i, y_i)``; where the distributions agree it is too large, by a factor of about 1.4.

    Args:
        x: one sample ``(n, *event_shape)``.
        y: the other, as many.
        kernel: see `rfm.metrics.kernels`.
        chunk_pairs: pairs evaluated at a time, which bounds memory whatever the sizes of the samples.

    Returns:
        The square, in the unit of the kernel's values.

    Raises:
        ValueError: for samples of unequal or too small size, or points that are none.

    References:
        Gretton et al., A Kernel Two-Sample Test, JMLR 13 (2012), lemma 6.
    """
    check_instance("maximum_mean_discrepancy", "kernel", kernel, Kernel, "HeatKernel(manifold, scale)")
    x, y = checked_samples("maximum_mean_discrepancy", kernel.manifold, x, y, least=4)
    n = len(x)
    if len(y) != n:
        raise ValueError(f"maximum_mean_discrepancy: needs samples of one size, got {n} and {len(y)}; drop some")
    row = torch.zeros(n, dtype=torch.float64, device=x.device)
    column = torch.zeros_like(row)
    own = torch.zeros_like(row)
    # h_ij = k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i) over i != j, by its row sums.
    for part in chunks(n, n, chunk_pairs):
        index = torch.arange(n, device=x.device)[part]
        cross = kernel(x[part, None], y[None]).double()
        within = (kernel(x[part, None], x[None]) + kernel(y[part, None], y[None])).double()
        rows = torch.arange(len(index), device=x.device)
        within[rows, index] = 0
        cross[rows, index] = 0
        own[part] += within.sum(1)
        row[part] += cross.sum(1)
        column += cross.sum(0)
    h = own - row - column
    mean = h.sum() / (n * (n - 1))
    # Without pair i the sum loses its row and its column.
    left_out = (h.sum() - 2 * h) / ((n - 1) * (n - 2))
    variance = (n - 1) / n * (left_out - left_out.mean()).square().sum()
    return Estimate(float(mean), float(variance.sqrt()), n)


@in_full_precision
def wasserstein_distance(
    manifold: Manifold, x: Tensor, y: Tensor, order: int = 2, *, blocks: int = 8, chunk_pairs: int = CHUNK_PAIRS
) -> Estimate:
    """Return the Wasserstein distance between samples, with the manifold's distance as cost.

    An empirical distance depends on the number of points m, and does not vanish between two samples of one
    distribution: it falls like ``m^(-1/dim)``. Compare figures of the same m only, and beside the distance between two
    samples of the reference. The samples are cut into blocks of equal size, whose optimal pairings are exact; the
    estimate is their mean, and m the size of a block.

    Args:
        manifold: where the points live.
        x: one sample ``(n, *event_shape)``, in random order.
        y: the other, as many.
        order: 1, the mean distance moved, or 2, the root of the mean squared one.
        blocks: in how many blocks to cut them; with one, all points are used at once and there is no standard error.
        chunk_pairs: pairs evaluated at a time, as in `maximum_mean_discrepancy`.

    Returns:
        In the unit of the metric; ``count`` is the number of blocks.

    Raises:
        ValueError: for samples of unequal size, an order other than 1 and 2, or fewer points than blocks.

    References:
        Peyre & Cuturi, Computational Optimal Transport, 2019, arXiv:1803.00567, sections 2.2 and 8.4.
    """
    blocks = integer("wasserstein_distance", "blocks", blocks, None)
    x, y = checked_samples("wasserstein_distance", manifold, x, y, least=max(1, blocks))
    if order not in (1, 2):
        raise ValueError(f"wasserstein_distance: order must be 1 or 2, got {order!r}")
    if len(x) != len(y):
        raise ValueError(f"wasserstein_distance: needs samples of one size, got {len(x)} and {len(y)}; drop some")
    if blocks < 1:
        raise ValueError(f"wasserstein_distance: blocks must be at least 1, got {blocks}")
    size = len(x) // blocks
    values = []
    for a, b in zip(x.split(size)[:blocks], y.split(size)[:blocks], strict=True):
        cost = (
            torch.cat([manifold.dist(a[part, None], b[None]) for part in chunks(size, size, chunk_pairs)])
            .double()
            .cpu()
            ** order
        )
        values.append(float(cost.gather(1, assignment(cost)[:, None]).mean()) ** (1 / order))
    return clustered_mean(torch.tensor(values, dtype=torch.float64))


@in_full_precision
def classifier_two_sample(manifold: Manifold, x: Tensor, y: Tensor, *, folds: int = 5, seed: int = 0) -> Estimate:
    """Return the share of points that a classifier, trained on others, assigns to the right one of two samples.

    One half where the samples cannot be told apart, one where they always can. The classifier is scikit-learn's
    gradient-boosted trees on ``manifold.embed``, cross-validated: every point is classified once, by trees that have
    not seen it, nor another at the same place.

    Args:
        manifold: where the points live.
        x: one sample ``(n, *event_shape)``.
        y: the other, as many.
        folds: of the cross-validation.
        seed: of the split and of the trees.

    Returns:
        The accuracy, clustered by place; ``count`` is the number of places.

    Raises:
        ValueError: for samples of unequal size, or fewer than 20 points each.
        ImportError: without scikit-learn.

    References:
        Lopez-Paz & Oquab, Revisiting Classifier Two-Sample Tests, 2016, arXiv:1610.06545.
    """
    x, y = checked_samples("classifier_two_sample", manifold, x, y, least=20)
    if len(x) != len(y):
        raise ValueError(f"classifier_two_sample: needs samples of one size, got {len(x)} and {len(y)}; drop some")
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier
        from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict
    except ImportError:
        raise ImportError(
            "classifier_two_sample needs scikit-learn, which is not installed; pip install scikit-learn"
        ) from None
    seed, folds = seed_of("classifier_two_sample", seed), integer("classifier_two_sample", "folds", folds, 2)
    both = torch.cat([x, y])
    points = manifold.embed(both).double().cpu().numpy()
    labels = torch.arange(2).repeat_interleave(len(x)).numpy()
    place = torch.unique(both.cpu().flatten(1) + 0, dim=0, return_inverse=True)[1].numpy()
    repeated = place.max() + 1 < len(place)
    # A place that was trained on would be recognised, not classified.
    split = (StratifiedGroupKFold if repeated else StratifiedKFold)(folds, shuffle=True, random_state=seed)
    groups = {"groups": place} if repeated else {}
    guesses = cross_val_predict(HistGradientBoostingClassifier(random_state=seed), points, labels, cv=split, **groups)
    return clustered_mean(torch.as_tensor(guesses == labels).double(), torch.as_tensor(place))


@in_full_precision
def coverage(
    manifold: Manifold, reference: Tensor, generated: Tensor, neighbours: int = 5, *, chunk_pairs: int = CHUNK_PAIRS
) -> Estimate:
    """Return the share of reference points that have a generated point among their nearest neighbours.

    That is, closer than the k-th nearest other reference point. Modes that were dropped lower it; points far from any
    reference do not. For equally many points of the same distribution it is about ``1 - 2^-k``.

    Args:
        manifold: where the points live.
        reference: real points ``(n, *event_shape)``.
        generated: points ``(m, *event_shape)``.
        neighbours: k.
        chunk_pairs: pairs evaluated at a time, as in `maximum_mean_discrepancy`.

    Returns:
        The share, with the standard error of a mean over the reference points, clustered by place.

    Raises:
        ValueError: for fewer reference points than neighbours, or points that are none.

    References:
        Naeem et al., Reliable Fidelity and Diversity Metrics for Generative Models, 2020, arXiv:2002.09797,
        equation 10.
    """
    neighbours = integer("coverage", "neighbours", neighbours, None)
    if neighbours < 1:
        raise ValueError(f"coverage: neighbours must be at least 1, got {neighbours}")
    reference, generated = checked_samples("coverage", manifold, reference, generated, least=1)
    if len(reference) <= neighbours:
        raise ValueError(f"coverage: needs more than {neighbours} reference points, got {len(reference)}")
    covered = []
    for part in chunks(len(reference), max(len(reference), len(generated)), chunk_pairs):
        # A point is its own nearest neighbour, at distance 0.
        radius = manifold.dist(reference[part, None], reference[None]).kthvalue(neighbours + 1, dim=1).values
        covered.append(manifold.dist(reference[part, None], generated[None]).amin(1) <= radius)
    return clustered_mean(torch.cat(covered).double().cpu(), reference)


@in_full_precision
def median_distance(manifold: Manifold, x: Tensor, y: Tensor) -> float:
    """Return the median distance between the points of two samples: a usual choice for a kernel's scale.

    Args:
        manifold: where the points live.
        x: one sample ``(n, *event_shape)``; the first thousand are used.
        y: the other.
    """
    x, y = checked_samples("median_distance", manifold, x, y, least=2)
    both = torch.cat([x[:1000], y[:1000]])
    distance = manifold.dist(both[:, None], both[None])
    above = torch.ones_like(distance, dtype=torch.bool).triu(1)
    return float(distance[above].median())


def chunks(rows: int, columns: int, pairs: int) -> Iterator[slice]:
    """Yield parts of the rows of a table so large that memory stays bounded: at most so many pairs each."""
    size = max(1, pairs // columns)
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def checked_samples(owner: str, manifold: Manifold, x: Tensor, y: Tensor, least: int) -> tuple[Tensor, Tensor]:
    """Return both samples detached; raise ValueError unless they are points, and enough of them."""
    x, y = tensor_of(owner, "the first sample", x), tensor_of(owner, "the second sample", y)
    check_instance(owner, "manifold", manifold, Manifold, "Sphere(2)")
    for name, points in (("first", x), ("second", y)):
        if points.ndim != 1 + len(manifold.event_shape):
            raise ValueError(
                f"{owner}: the {name} sample must have shape (n, {', '.join(map(str, manifold.event_shape))}), got "
                f"{tuple(points.shape)}; flatten its batch"
            )
        if len(points) < least:
            raise ValueError(f"{owner}: the {name} sample has {len(points)} points, at least {least} are needed")
        try:
            manifold.check_point(points, tol=1e-3)
        except ValueError as error:
            raise ValueError(f"{owner}: the {name} sample holds no points of {manifold}; {error}") from None
    return x.detach(), y.detach()
