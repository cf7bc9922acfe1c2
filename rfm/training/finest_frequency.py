"""How fine the structure is that points tell of: the highest frequency that a default network reads them through."""

import math

import numpy as np
import torch
from torch import Tensor

from manifolds import Manifold
from rfm.sources import KernelMixture, default_source

_LOWEST, _HIGHEST, _DIRECTIONS = 4.0, 128.0, 2**14
"""Bounds, and how many directions waves may have at most."""
_PER_WIDTH, _PER_DISTANCE = 1.0, 2.0
"""Frequency times length: of the width of the best kernel, and of the distance between neighbours."""
_CENTRES, _HELD, _FEWEST = 2048, 256, 20
"""Points that the width is chosen by: centres, those left out, and how many places there have to be."""
_STEP = 1e-4
"""A length over which the space is flat."""


def finest_frequency(manifold: Manifold, points: Tensor, scale: float) -> float:
    """Return the highest frequency of a network, in the unit of ``embed`` over ``scale``, between 4 and 128.

    It is the power of two nearest to the inverse width of the kernel that makes points left out likeliest: finer
    structure is noise to a kernel density, and to a network, which would learn where the training points are and not
    where others will be. Where there is no kernel, it is 2 over the median distance between neighbours, and at most
    that elsewhere. Above 128, at a scale of half a degree on a sphere, noise between neighbours is all there is to
    learn. Waves of frequency f have ``f^(dim - 1)`` different directions in the unit of length; in many dimensions the
    bound is the frequency that has 2^14: near-copies, which alone are close neighbours there, are no guide.

    Args:
        manifold: where the points live.
        points: data ``(n, *event_shape)``, float64.
        scale: unit of length in the space of ``embed``.
    """
    from scipy.spatial import cKDTree

    # How wide a kernel is does not depend on where the space ends.
    manifold = manifold.unbounded
    points = manifold.projx(points)  # in float32 they were as near as that is
    embedded = (manifold.embed(points) / scale).numpy(force=True)
    _, first = np.unique(embedded, axis=0, return_index=True)
    if len(first) < 2:
        return _LOWEST
    # In the order of the table: to sort places is to split neighbours from each other.
    rows = np.sort(first)
    some = rows[:: max(1, len(rows) // 2000)]
    distance = float(np.median(np.asarray(cKDTree(embedded[rows]).query(embedded[some], k=2)[0])[:, 1]))
    bound = min(_HIGHEST, _DIRECTIONS ** (1 / max(manifold.dim - 1, 1)))
    width = _kernel_width(manifold, points[torch.from_numpy(rows)], scale)
    # Rounded, so that another draw of the points is read through the same waves.
    finest = _PER_DISTANCE / distance
    if width is not None:
        finest = min(finest, _PER_WIDTH / width)
    return max(min(2.0 ** round(math.log2(finest)), bound), _LOWEST)


def _kernel_width(manifold: Manifold, places: Tensor, scale: float) -> float | None:
    """Return the width of the best kernel about different places, in the unit of ``embed`` over ``scale``.

    None where there is no kernel, or nothing is known of the density far from all places. With fewer centres the best
    kernel is wider, by ``n^(1 / (dim + 4))`` (Silverman, Density Estimation for Statistics and Data Analysis, 1986,
    section 4.3).
    """
    kernel = manifold.kernel
    if kernel is None or len(places) < _FEWEST:
        return None
    try:
        background = default_source(manifold, places)
    except ValueError:
        return None
    generator = torch.Generator(places.device).manual_seed(0)
    order = torch.randperm(len(places), generator=generator, device=places.device)
    held = min(_HELD, len(places) // 5)
    x, centres = places[order[:held]], places[order[held : held + _CENTRES]]
    best = KernelMixture.one_bandwidth(manifold, centres, x, background=background)
    width = float(best.concentrations.max()) ** -0.5 * (len(centres) / len(places)) ** (1 / (manifold.dim + 4))
    return width * _ratio(manifold, x, scale, generator)


def _ratio(manifold: Manifold, x: Tensor, scale: float, generator: torch.Generator) -> float:
    """Return a small length in the unit of ``embed`` over ``scale``, divided by that in the kernel's coordinates."""
    assert manifold.kernel is not None
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    u = manifold.proju(x, noise)
    axes = (...,) + (None,) * len(manifold.event_shape)
    near = manifold.expmap(x, _STEP * u / manifold.norm(x, u)[axes])
    lengths = (manifold.embed(near) - manifold.embed(x)).flatten(1).norm(dim=1) / scale
    own = (manifold.kernel.embed(near) - manifold.kernel.embed(x)).flatten(1).norm(dim=1)
    return float((lengths / own).median())
