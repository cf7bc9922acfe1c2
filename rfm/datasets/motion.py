"""Windows of a track: how a body has moved, and how it moves on, in its own frame."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from manifolds import SE3
from manifolds.arguments import number
from rfm.arrays import points_of, tensor_of

LAGS = tuple(i / 30 for i in range(1, 7))
"""Seconds before now at which a window looks: six frames of a camera."""
_LONGEST_GAP = 15.0
"""Between measured poses, in units of the usual gap: a longer one is not bridged."""


@dataclass(frozen=True, eq=False)
class MotionWindows:
    """Motions before and after some times of a track, each in the frame of the earlier pose.

    Multiplication from the left moves the world and leaves them as they are: what is learned from them holds anywhere.

    Args:
        seconds: of now, ``(n,)``.
        now: the poses then, ``(n, 4, 4)``.
        past: the motions ``inverse(x(t - lag)) x(t)`` for each lag, ``(n, k, 4, 4)``.
        future: the motion ``inverse(x(t)) x(t + horizon)``, ``(n, 4, 4)``.
        blocks: number of the stretch of the track that holds all of the window, ``(n,)``.
        horizon: in seconds.
        lags: in seconds, ascending, ``k``.
    """

    seconds: Tensor
    now: Tensor
    past: Tensor
    future: Tensor
    blocks: Tensor
    horizon: float
    lags: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.seconds)


def motion_windows(
    poses: Tensor,
    seconds: Tensor,
    horizon: float,
    *,
    lags: Sequence[float] = LAGS,
    every: float = 1 / 30,
    block_seconds: float = 4.0,
) -> MotionWindows:
    """Return the windows of a track that are measured throughout and cross no border between blocks.

    Blocks are for splits: windows of two blocks share no pose, where overlapping ones nearly repeat each other.

    Args:
        poses: ``(n, 4, 4)``, body to world.
        seconds: their times, ascending, ``(n,)``.
        horizon: how far ahead, in seconds.
        lags: how far back, in seconds, ascending.
        every: seconds from window to window.
        block_seconds: length of a block, longer than the longest lag and the horizon together.

    Raises:
        ValueError: for times that run back, lags that are not ascending, or blocks without a window.
    """
    x, t = _checked("motion_windows", poses, seconds)
    lags, horizon = _ascending("motion_windows", lags), number("motion_windows", "horizon", horizon)
    every, block = number("motion_windows", "every", every), number("motion_windows", "block_seconds", block_seconds)
    if horizon <= 0 or every <= 0 or block <= horizon + lags[-1]:
        raise ValueError(
            "motion_windows: horizon and every must be above 0, and block_seconds longer than the longest lag and the "
            f"horizon together, got {horizon:g}, {every:g} and {block:g} with a lag of {lags[-1]:g}"
        )
    start, end = float(t[0]) + lags[-1], float(t[-1]) - horizon
    now = torch.arange(start, max(start, end), every, dtype=torch.float64)
    numbers = ((now - t[0]) / block).floor()
    inside = (((now - lags[-1] - t[0]) / block).floor() == numbers) & (
        ((now + horizon - t[0]) / block).floor() == numbers
    )
    at, known = _at(x, t, now)
    ahead, measured = _at(x, t, now + horizon)
    past, found = _past(x, t, now, at, lags)
    kept = inside & known & measured & found
    if not bool(kept.any()):
        raise ValueError(
            f"motion_windows: no window of {lags[-1] + horizon:g} seconds is measured throughout within a block of "
            f"{block:g} seconds; take a shorter horizon or longer blocks"
        )
    future = SE3().inverse(at[kept]) @ ahead[kept]
    return MotionWindows(now[kept], at[kept], past[kept], future, numbers[kept].long(), horizon, lags)


def past_motions(poses: Tensor, seconds: Tensor, lags: Sequence[float] = LAGS) -> Tensor:
    """Return the motions up to the last of some poses, one for each lag, ``(k, 4, 4)``.

    Args:
        poses: ``(n, 4, 4)``, body to world.
        seconds: their times, ascending, ``(n,)``.
        lags: how far back, in seconds, ascending.

    Raises:
        ValueError: for times that run back, or poses that do not reach back to the longest lag without a gap.
    """
    x, t = _checked("past_motions", poses, seconds)
    lags = _ascending("past_motions", lags)
    past, found = _past(x, t, t[-1:], x[-1:], lags)
    if not bool(found):
        raise ValueError(
            f"past_motions: the poses must reach {lags[-1]:g} seconds back from the last one, without gaps, and span "
            f"{float(t[-1] - t[0]):g} seconds; pass more of the track"
        )
    return past[0]


def _ascending(owner: str, lags: Sequence[float]) -> tuple[float, ...]:
    """Return lags as numbers, or raise ValueError unless they are above 0 and ascending."""
    found = tuple(number(owner, "each of lags", lag) for lag in lags)
    if len(found) < 2 or found[0] <= 0 or any(a >= b for a, b in itertools.pairwise(found)):
        raise ValueError(f"{owner}: lags must be at least two numbers above 0, ascending, got {list(found)}")
    return found


def _checked(owner: str, poses: Tensor, seconds: Tensor) -> tuple[Tensor, Tensor]:
    x = points_of(owner, SE3(), poses, torch.float64)
    t = tensor_of(owner, "seconds", seconds, torch.float64)
    if x.ndim != 3 or t.shape != x.shape[:1] or len(t) < 2 or not bool((t.diff() >= 0).all()):
        raise ValueError(
            f"{owner}: takes two poses or more (n, 4, 4) with their times (n,), which must not run back, got "
            f"{tuple(x.shape)} and {tuple(t.shape)}"
        )
    return x, t


def _past(x: Tensor, t: Tensor, now: Tensor, at: Tensor, lags: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Return motions from each lag to now ``(m, k, 4, 4)``, and whether all of a window is measured ``(m,)``."""
    known = torch.ones(len(now), dtype=torch.bool)
    motions = []
    for lag in lags:
        then, measured = _at(x, t, now - lag)
        known &= measured
        motions.append(SE3().inverse(then) @ at)
    return torch.stack(motions, 1), known


def _at(x: Tensor, t: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """Return the poses at some times, along the geodesic between those measured, and whether the gap is short."""
    after = torch.searchsorted(t, times).clamp(1, len(t) - 1)
    before = after - 1
    gap = t[after] - t[before]
    share = (times - t[before]) / gap.clamp(min=1e-12)
    # To rounding: a window may end at the very last pose.
    known = (gap <= _LONGEST_GAP * t.diff().median()) & (share > -1e-6) & (share < 1 + 1e-6)
    return SE3().geodesic(x[before], x[after], share.clamp(0, 1))[0], known
