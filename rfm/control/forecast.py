"""Where a body will be: the distribution of the pose some time ahead, given how it has moved."""

import math
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from manifolds import SE3
from manifolds.arguments import check_instance, seed_of
from manifolds.rotations import matrix_from_rotvec, rotvec_from_matrix
from rfm.arrays import indices_of
from rfm.datasets.motion import MotionWindows, past_motions
from rfm.flow import Flow
from rfm.networks import VelocityField
from rfm.records.descriptions import read_json, write_json
from rfm.sources import IsotropicGaussianSO3, KernelMixture, RigidMotionSource
from rfm.training import Training, fit
from rfm.training.arguments import hold_out

_PENALTIES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_WIDTHS = 12
_VALIDATED = 100
"""Windows at least, that the number of steps is chosen by."""
_FILE = "forecast.json"


class LinearMotion:
    """A linear prediction of a motion from those before it, in coordinates of the group at the last pose.

    Coordinates are the rotation vector and the translation of a motion. Constant velocity, damped or not, is a special
    case, and so is any mean of the velocities of several lags.

    Args:
        coefficients: ``(6 k + 1, 6)``, the last row for the constant.
    """

    def __init__(self, coefficients: Tensor) -> None:
        self.coefficients = coefficients.double()

    @classmethod
    def fit(cls, past: Tensor, future: Tensor, held_past: Tensor, held_future: Tensor) -> Self:
        """Return the ridge regression whose penalty makes held-out motions likeliest, their errors being normal.

        Args:
            past: motions of each lag until now ``(n, k, 4, 4)``.
            future: motions from now on ``(n, 4, 4)``.
            held_past: of windows held out ``(m, k, 4, 4)``.
            held_future: likewise ``(m, 4, 4)``.
        """
        rows, target = _rows(past), motion_coordinates(future)
        # Rotations and translations have units of their own, and short lags small numbers.
        unit = rows.std(0).clamp(min=1e-12)
        unit[-1] = 1
        rows = rows / unit
        best: tuple[float, Tensor] = (-math.inf, torch.empty(0))
        for penalty in _PENALTIES:
            square = rows.mT @ rows + penalty * len(rows) * torch.eye(rows.shape[1], dtype=rows.dtype)
            found = torch.linalg.solve(square, rows.mT @ target) / unit[:, None]
            error, held = target - rows * unit @ found, motion_coordinates(held_future) - _rows(held_past) @ found
            normal = torch.distributions.MultivariateNormal(
                error.new_zeros(6), error.mT @ error / len(error) + 1e-18 * torch.eye(6, dtype=error.dtype)
            )
            best = max(best, (float(normal.log_prob(held).mean()), found), key=lambda pair: pair[0])
        return cls(best[1])

    def __call__(self, past: Tensor) -> Tensor:
        """Return the predicted motions ``(*batch, 4, 4)`` after ``past`` ``(*batch, k, 4, 4)``."""
        return motion_from_coordinates(_rows(past) @ self.coefficients)


class MotionForecast:
    """The distribution of a pose some time ahead: a flow on SE(3) about a linear prediction.

    The linear prediction is a motion in the frame of the last pose; what the pose then differs by from it is a point of
    SE(3) too, near the identity, and its density is that of the pose, as multiplication from the left keeps volumes.
    The flow starts from a mixture of kernels of several widths about no difference at all, which alone is the linear
    prediction with a fitted, heavy-tailed spread, and is conditional on how fast and how evenly the body has moved. So
    it need learn nothing but how the spread depends on the motion, and what is not linear.

    Densities are with respect to ``dR dp``, per cubed radian and cubed unit of length.

    Args:
        linear: the prediction.
        flow: of what it leaves, on SE3.
        horizon: in seconds.
        lags: of the window, in seconds.
    """

    def __init__(self, linear: LinearMotion, flow: Flow, horizon: float, lags: tuple[float, ...]) -> None:
        manifold = flow.manifold
        check_instance("MotionForecast", "the flow's manifold", manifold, SE3, "SE3()")
        assert isinstance(manifold, SE3)
        self.linear, self.flow, self.horizon, self.lags = linear, flow, horizon, lags
        self._unit = 3 * math.log(manifold.length)

    def remainder(self, past: Tensor, future: Tensor) -> Tensor:
        """Return what motions ``(n, 4, 4)`` differ by from the prediction given ``past`` ``(n, k, 4, 4)``."""
        return SE3().inverse(self.linear(past)) @ future

    @staticmethod
    def condition(past: Tensor) -> Tensor:
        """Return what the flow is conditional on, how fast and how evenly a body moves, ``(n, 4)``."""
        return evenness(past).float()

    def window_log_prob(self, windows: MotionWindows) -> Tensor:
        """Return the log-density of the poses ahead in nats, ``(n,)``."""
        x = self.remainder(windows.past, windows.future)
        return self.flow.log_prob(x.float(), condition=self.condition(windows.past)).double() - self._unit

    def sample(self, poses: Tensor, seconds: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return draws of the pose at ``seconds[-1] + horizon``, ``(n, 4, 4)``.

        Args:
            poses: up to now ``(m, 4, 4)``, body to world; they reach back over the longest lag.
            seconds: their times ``(m,)``.
            n: how many.
            generator: source of randomness.
        """
        past = past_motions(poses, seconds, self.lags)
        drawn = self.flow.sample(n, condition=self.condition(past), generator=generator).double()
        return poses[-1].double() @ self.linear(past) @ drawn

    def log_prob(self, poses: Tensor, seconds: Tensor, ahead: Tensor) -> Tensor:
        """Return the log-density of poses ``ahead`` ``(n, 4, 4)`` at ``seconds[-1] + horizon``, in nats, ``(n,)``.

        Other arguments are those of `sample`.
        """
        past = past_motions(poses, seconds, self.lags)
        x = SE3().inverse(poses[-1].double() @ self.linear(past)) @ ahead.double()
        return self.flow.log_prob(x.float(), condition=self.condition(past).expand(len(x), -1)).double() - self._unit

    def save(self, folder: str | Path) -> None:
        """Save to a folder, which holds the saved flow too."""
        self.flow.save(folder)
        coefficients = self.linear.coefficients.tolist()
        write_json(Path(folder) / _FILE, {"horizon": self.horizon, "lags": self.lags, "linear": coefficients})

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Return what was saved to a folder."""
        record, flow = read_json(Path(folder) / _FILE), Flow.load(folder)
        linear = LinearMotion(torch.tensor(record["linear"], dtype=torch.float64))
        return cls(linear, flow, record["horizon"], tuple(record["lags"]))


def fit_forecast(
    windows: MotionWindows,
    *,
    validation: Tensor | None = None,
    steps: int = 400,
    seed: int = 0,
    progress: bool = True,
) -> MotionForecast:
    """Learn the distribution of the pose some time ahead: ``fit_forecast(motion_windows(poses, seconds, 0.5))``.

    Args:
        windows: of a track.
        validation: rows to choose the linear prediction's penalty and the number of steps by; by default those of a
            fifth of the blocks, drawn by the seed.
        steps: of the optimiser at most.
        seed: of every random draw.
        progress: show a progress bar on stderr.

    Raises:
        ValueError: for windows of fewer than four blocks, or rows that are none, or all.
    """
    check_instance("fit_forecast", "windows", windows, MotionWindows, "motion_windows(poses, seconds, 0.5)")
    seed = seed_of("fit_forecast", seed)
    held = _held_out(windows, seed) if validation is None else indices_of("fit_forecast", "validation", validation)
    rows, held = hold_out(windows.now, held, seed)
    linear = LinearMotion.fit(windows.past[rows], windows.future[rows], windows.past[held], windows.future[held])
    # Overlapping windows nearly repeat each other, and a validation costs more than many steps.
    every = torch.cat([rows, held[:: max(1, len(held) // _VALIDATED)]])
    past = windows.past[every]
    x, known = SE3().inverse(linear(past)) @ windows.future[every], evenness(past)
    train, given = x[: len(rows)], known[: len(rows)]
    squares = motion_coordinates(train).square().mean(0)
    spread = float(squares[:3].mean().sqrt().clamp(min=1e-6))
    manifold = SE3(float(squares[3:].mean().sqrt().clamp(min=1e-6)) / spread)
    embedded = manifold.embed(train)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        field = VelocityField(
            manifold,
            width=64,
            depth=2,
            features=64,
            max_frequency=2.0,
            offset=embedded.mean(0).tolist(),
            scale=float((embedded - embedded.mean(0)).square().sum(-1).mean().div(manifold.dim).sqrt()),
            condition_dim=given.shape[1],
            condition_offset=given.mean(0).tolist(),
            condition_scale=given.std(0).clamp(min=1e-6).tolist(),
        )
    flow = fit(
        x.float(),
        manifold,
        condition=known.float(),
        validation=torch.arange(len(rows), len(every)),
        source=_scales(manifold, train, spread),
        field=field,
        # Kernels about remainders of one track would learn the track.
        refine=False,
        steps=steps,
        batch_size=256,
        training=Training(learning_rate=2e-3, validations=10, patience=5),
        seed=seed,
        progress=progress,
    )
    return MotionForecast(linear, flow, windows.horizon, windows.lags)


def motion_coordinates(motion: Tensor) -> Tensor:
    """Return the rotation vector and the translation of motions ``(*batch, 4, 4)``, ``(*batch, 6)``."""
    return torch.cat([rotvec_from_matrix(motion[..., :3, :3]), motion[..., :3, 3]], dim=-1)


def motion_from_coordinates(values: Tensor) -> Tensor:
    """Return the motions ``(*batch, 4, 4)`` of given `motion_coordinates` ``(*batch, 6)``."""
    top = torch.cat([matrix_from_rotvec(values[..., :3]), values[..., 3:, None]], dim=-1)
    last = torch.tensor([0.0, 0, 0, 1], dtype=top.dtype, device=top.device)
    return torch.cat([top, last.expand(*top.shape[:-2], 1, 4)], dim=-2)


def evenness(past: Tensor) -> Tensor:
    """Return how fast and how evenly bodies have moved, ``(*batch, 4)``.

    Logarithms of the root mean square over a window of its steps' rotations and translations, and of what they change
    by from step to step.

    Args:
        past: motions of each lag until now ``(*batch, k, 4, 4)``.
    """
    none = torch.eye(4, dtype=past.dtype, device=past.device).expand_as(past[..., :1, :, :])
    later = torch.cat([none, past[..., :-1, :, :]], dim=-3)
    steps = motion_coordinates(past @ SE3().inverse(later))
    parts = [*steps.split(3, dim=-1), *steps.diff(dim=-2).split(3, dim=-1)]
    return torch.stack([part.square().mean((-1, -2)).clamp(min=1e-16).log() / 2 for part in parts], dim=-1)


def _rows(past: Tensor) -> Tensor:
    """Return what a linear prediction reads: coordinates of each lag's motion, and 1, ``(*batch, 6 k + 1)``."""
    flat = motion_coordinates(past.double()).flatten(-2)
    return torch.cat([flat, torch.ones_like(flat[..., :1])], dim=-1)


def _scales(manifold: SE3, train: Tensor, spread: float) -> KernelMixture:
    """Return the mixture of kernels of several widths about the identity that makes remainders likeliest."""
    widths = torch.logspace(-1.5, 1.5, _WIDTHS, dtype=torch.float64) / spread**2
    rotation = IsotropicGaussianSO3(torch.eye(3), min(1.0, 3 * spread))
    broad: dict[str, Any] = {"background": RigidMotionSource(manifold, rotation, 3 * spread * manifold.length)}
    centre = torch.eye(4, dtype=torch.float64)[None]
    return KernelMixture.mixture(manifold, centre, train, concentrations=widths, **broad)


def _held_out(windows: MotionWindows, seed: int) -> Tensor:
    """Return the windows of a fifth of the blocks."""
    blocks = windows.blocks.unique()
    if len(blocks) < 4:
        raise ValueError(
            f"fit_forecast: the windows lie in {len(blocks)} blocks, and a fifth of four or more is held out; take "
            "shorter blocks, or pass validation="
        )
    order = torch.randperm(len(blocks), generator=torch.Generator().manual_seed(seed))
    return torch.isin(windows.blocks, blocks[order[: max(1, len(blocks) // 5)]]).nonzero()[:, 0]
