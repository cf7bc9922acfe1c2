"""How well a policy draws: where it ends, how near it comes to a demonstration, how smooth it is, how long it takes."""

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from experiments.imitation.policies import BEFORE, EXECUTE, Trained
from manifolds import Manifold

TOLERANCE = 0.05
"""Of a shape's extent: how far a rollout that succeeds may end from the demonstrated end, and be from the drawing."""


def rollouts(trained: Trained, starts: Tensor, shape: Tensor, moments: int) -> tuple[Tensor, Tensor]:
    """Return where policies lead, ``(n, moments, *event_shape)``, and how far off the manifold they were ``(n,)``.

    A perfect robot is where it was told to be at each moment.

    Args:
        trained: the policy.
        starts: points ``(n, *event_shape)``.
        shape: numbers of the shapes to draw ``(n, 1)``.
        moments: how many.
    """
    track, off = [starts], []
    while len(track) < moments:
        before = track[max(0, len(track) - 1 - BEFORE)]
        chunk, gap = trained.chunk({"now": track[-1], "before": before, "shape": shape})
        track.extend(chunk[:, :EXECUTE].to(starts).unbind(1))
        off.append(gap[:, :EXECUTE].mean(1))
    return torch.stack(track[:moments], 1), torch.stack(off, 1).mean(1)


def warped_distance(manifold: Manifold, a: Tensor, b: Tensor) -> Tensor:
    """Return the mean distance along the dynamic time warping of tracks ``(n, moments, *event_shape)``, ``(n,)``.

    The path through the matrix of distances with the least sum, divided by its number of steps (Sakoe and Chiba,
    Dynamic programming algorithm optimization for spoken word recognition, 1978, doi:10.1109/TASSP.1978.1163055, with
    steps of equal weight).
    """
    distance = manifold.dist(a[:, :, None], b[:, None]).numpy()
    n, rows, columns = distance.shape
    total = np.full((n, rows + 1, columns + 1), np.inf)
    steps = np.zeros((n, rows + 1, columns + 1))
    total[:, 0, 0] = 0
    each = np.arange(n)
    for i in range(1, rows + 1):
        for j in range(1, columns + 1):
            ways = np.stack([total[:, i - 1, j - 1], total[:, i - 1, j], total[:, i, j - 1]])
            counts = np.stack([steps[:, i - 1, j - 1], steps[:, i - 1, j], steps[:, i, j - 1]])
            best = ways.argmin(0)
            total[:, i, j] = ways[best, each] + distance[:, i - 1, j - 1]
            steps[:, i, j] = counts[best, each] + 1
    return torch.from_numpy(total[:, -1, -1] / steps[:, -1, -1])


def extent(manifold: Manifold, demonstrations: Tensor) -> Tensor:
    """Return the largest distance between points of the demonstrations of a shape ``(shapes,)``."""
    some = demonstrations[:, :, ::5].flatten(1, 2)
    return manifold.dist(some[:, :, None], some[:, None]).flatten(1).amax(1)


def roughness(manifold: Manifold, tracks: Tensor) -> Tensor:
    """Return the root of the mean squared third difference of tracks, in coordinates ``(n,)``."""
    return manifold.embed(tracks).diff(n=3, dim=1).square().sum(-1).mean(1).sqrt()


def milliseconds(call: Callable[[], object], repeats: int = 10) -> float:
    """Return the processor's time for a call: the median of several."""
    taken = []
    for _ in range(repeats + 1):
        started = time.process_time()
        call()
        taken.append(1000 * (time.process_time() - started))
    return float(np.median(taken[1:]))
