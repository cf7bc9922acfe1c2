"""The network of flows of rigid bodies in a row, such as the residues of a protein backbone."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from manifolds import SE3, CentredPoses, Manifold
from manifolds.numerics.precision import in_full_precision
from rfm.field import Field
from rfm.networks.frame_attention import FrameAttention
from rfm.networks.frame_neighbours import FrameNeighbours
from rfm.networks.frame_pairs import FramePairs
from rfm.networks.precision import in_precision_of_weights
from rfm.paths import GeodesicPath
from rfm.paths.conversions import velocity_from_endpoint

CLOSEST = 1e-3
"""From ``1 - t`` down to 0 the velocity is that at this time before the end, where it would be infinite."""
SMALLEST_STEP = 0.02
"""Of a block, as a share of its last layer's output; ``1 - t`` before."""


Amend = Callable[[Tensor, Tensor], Tensor]
"""Of predicted poses ``(*batch, n, 4, 4)`` and times: the poses to go to instead."""


class FrameField(nn.Module, Field):
    """A velocity field on `CentredPoses` of any number, which predicts where the poses will be at time 1.

    Poses turned or shifted together give the same end points, turned or shifted along: features are taken between pairs
    of bodies, each body sees its neighbours in the row from itself, `FrameAttention` is invariant, and each block moves
    a body by a step in its own frame, of the order of the way that is left, ``1 - t``. The velocity at
    time t is that of the geodesic to the predicted end point, ``log_x(endpoint) / (1 - t)``; trained by
    `rfm.endpoint_loss` it is the marginal velocity. The order of the bodies is known, their number is not fixed:
    weights are shared between all lengths.

    Beside pose and time the network may be given its own last prediction (self-conditioning: Chen, Zhang, Hinton,
    Analog Bits, 2022, arXiv:2208.04202), see `self_conditioned`, and which bodies are held, that is, are where they
    will be: a motif.

    Args:
        length: of the manifolds that it serves, in the unit of the positions; also the unit that it computes in.
        width: of the features of bodies.
        pair_width: of the features of pairs.
        depth: number of blocks.
        heads: of attention.
        reach: bodies farther apart in the row than this look equally far.
    """

    def __init__(
        self,
        length: float = 10.0,
        width: int = 192,
        pair_width: int = 48,
        depth: int = 6,
        heads: int = 8,
        reach: int = 32,
    ) -> None:
        super().__init__()
        self.length, self.width, self.pair_width = float(length), width, pair_width
        self.depth, self.heads, self.reach = depth, heads, reach
        self._poses = SE3(self.length)
        self.bodies = nn.Linear(2 * WAVES + TIME_WIDTH + 1, width)
        self.time = nn.Sequential(nn.Linear(2 * WAVES, TIME_WIDTH), nn.SiLU(), nn.Linear(TIME_WIDTH, TIME_WIDTH))
        self.pairs = FramePairs(width, pair_width, reach)
        self.blocks = nn.ModuleList(_Block(width, pair_width, heads) for _ in range(depth))

    def check_manifold(self, manifold: Manifold) -> None:
        """Raise ValueError unless the field serves this manifold; see `rfm.Flow.on`."""
        if not isinstance(manifold, CentredPoses) or manifold.length != self.length:
            raise ValueError(f"FrameField: serves CentredPoses(k, length={self.length:g}) for any k, got {manifold}")

    @in_precision_of_weights
    def forward(
        self,
        x: Tensor,
        t: Tensor,
        *,
        mask: Tensor | None = None,
        held: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        """Return the velocity at ``x``, tangent there; arguments as for `endpoint`."""
        return self.velocity(x, t, self.endpoint(x, t, mask=mask, held=held, previous=previous), mask)

    def velocity(self, x: Tensor, t: Tensor, endpoint: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the velocity at ``x`` that leads to ``endpoint`` at time 1, its mean over the bodies subtracted."""
        path = GeodesicPath(self._poses)
        times = t[..., None].clamp(max=1 - CLOSEST).expand(x.shape[:-2])
        u = velocity_from_endpoint(path, x, times, endpoint)
        return u - nn.functional.pad(_mean(u[..., :3, 3], mask)[..., None], (3, 0, 0, 1))

    @in_precision_of_weights
    def endpoint(
        self,
        x: Tensor,
        t: Tensor,
        *,
        mask: Tensor | None = None,
        held: Tensor | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        """Return the poses predicted for time 1, ``(*batch, n, 4, 4)``.

        Where nothing is held, their mean position is that of ``x``.

        Args:
            x: poses at time ``t``, ``(*batch, n, 4, 4)``.
            t: times ``(*batch)``, or one for all.
            mask: which bodies are there, ``(*batch, n)`` bool; all by default. Those that are not stay as they are and
                are seen by none.
            held: which bodies stay as they are, ``(*batch, n)`` bool; none by default.
            previous: the prediction to build on, the shape of ``x``.
        """
        t = t.expand(x.shape[:-3])
        return self._predicted(x, t, self.time(time_waves(t)), mask, held, previous)

    def _predicted(
        self, x: Tensor, t: Tensor, time: Tensor, mask: Tensor | None, held: Tensor | None, previous: Tensor | None
    ) -> Tensor:
        """Return where poses at times t are predicted to go, as `endpoint` does, given what is known of the times."""
        there = torch.ones(x.shape[:-2], dtype=torch.bool, device=x.device) if mask is None else mask
        still = torch.zeros_like(there) if held is None else held.expand(there.shape)
        middle = _mean(x[..., :3, 3], there)
        rotation, position = x[..., :3, :3], (x[..., :3, 3] - middle) / self.length
        h = self._bodies(time, still, there)
        pairs = self.pairs(h, rotation, position, None if previous is None else self._seen(previous))
        absent = torch.zeros_like(there, dtype=x.dtype).masked_fill(~there, torch.finfo(x.dtype).min / 4)
        free = (there & ~still)[..., None].to(x.dtype)
        # Of the order of the way that is left, so that what the blocks predict is of order one at every time.
        size = free * (1 - t).clamp(min=SMALLEST_STEP)[..., None, None]
        for block in self.blocks:
            h, rotation, position = block(h, time, pairs, rotation, position, absent, size)
        loose = ~still.any(-1, keepdim=True)[..., None]
        position = position - torch.where(loose, _mean(position, there), 0.0)
        top = torch.cat([rotation, (position * self.length + middle)[..., None]], dim=-1)
        moved = torch.cat([top, x[..., 3:, :]], dim=-2)
        return torch.where((there & ~still)[..., None, None], moved, x)

    def self_conditioned(self, amend: Amend | None = None, **fixed: Any) -> Callable[..., Tensor]:
        """Return the field as a sampler evaluates it: at each call it is given its prediction of the call before.

        It has a memory, so make one for each solve, of one evaluation per step. Such samples do not follow the density
        of the field without memory.

        Args:
            amend: what is done to each prediction, of poses and their times, before it is followed and remembered.
            fixed: arguments for every call, such as ``held``.
        """
        previous: Tensor | None = None

        def field(x: Tensor, t: Tensor) -> Tensor:
            nonlocal previous
            previous = self.endpoint(x, t, previous=previous, **fixed)
            previous = previous if amend is None else amend(previous, t)
            return self.velocity(x, t, previous)

        return field

    def _bodies(self, time: Tensor, still: Tensor, there: Tensor) -> Tensor:
        """Return the first features of bodies: place in the row, time, and whether it is held."""
        place = torch.arange(there.shape[-1], device=there.device, dtype=time.dtype)
        where = _waves(place, 1 / _LONGEST).expand(*there.shape, 2 * WAVES)
        when = time[..., None, :].expand(*there.shape, time.shape[-1])
        return self.bodies(torch.cat([where, when, still[..., None].to(time.dtype)], dim=-1))

    def _seen(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        return frames[..., :3, :3], frames[..., :3, 3] / self.length


class _Block(nn.Module):
    """A look at the neighbours in the row, attention, a transition, and a step of each body in its own frame."""

    def __init__(self, width: int, pair_width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.scales = nn.Linear(TIME_WIDTH, 4 * width)
        self.near = FrameNeighbours(width)
        self.attention = FrameAttention(width, pair_width, heads)
        last = nn.Linear(4 * width, width)
        self.transition = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), last)
        self.step = nn.Linear(width, 6)
        for layer in (self.scales, last, self.step):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self, h: Tensor, time: Tensor, pairs: Tensor, rotation: Tensor, position: Tensor, absent: Tensor, size: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        stretch, shift, stretch_2, shift_2 = self.scales(time)[..., None, :].chunk(4, dim=-1)
        h = h + self.near(rotation, position, absent)
        normed = self.norms[0](h) * (1 + stretch) + shift
        h = h + self.attention(normed, pairs, rotation, position, absent)
        h = h + self.transition(self.norms[1](h) * (1 + stretch_2) + shift_2)
        step = size * self.step(nn.functional.layer_norm(h, h.shape[-1:]))
        return h, *_moved(rotation, position, step)


@in_full_precision
def _moved(rotation: Tensor, position: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Return bodies turned and moved in their own frames."""
    turn, move = step.chunk(2, dim=-1)
    return rotation @ _rotation(turn), position + (rotation @ move[..., None])[..., 0]


def _rotation(v: Tensor) -> Tensor:
    """Return the rotation of the quaternion ``(1, v)``, ``(*batch, 3, 3)``: no angle, no square root."""
    zero = torch.zeros_like(v[..., 0])
    a, b, c = v.unbind(-1)
    hat = torch.stack([zero, -c, b, c, zero, -a, -b, a, zero], dim=-1).unflatten(-1, (3, 3))
    eye = torch.eye(3, dtype=v.dtype, device=v.device)
    return eye + 2 / (1 + v.square().sum(-1))[..., None, None] * (hat + hat @ hat)


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean over the bodies that are there, ``(*batch, 1, 3)``."""
    if mask is None:
        return values.mean(-2, keepdim=True)
    weight = mask[..., None].to(values.dtype)
    return (weight * values).sum(-2, keepdim=True) / weight.sum(-2, keepdim=True)


def _waves(s: Tensor, lowest: float) -> Tensor:
    """Return sines and cosines at frequencies from ``lowest`` radians per unit up, each twice the last."""
    frequency = lowest * 2.0 ** torch.arange(WAVES, dtype=s.dtype, device=s.device)
    angle = math.pi * s[..., None] * frequency
    return torch.cat([torch.sin(angle), torch.cos(angle)], dim=-1)


def time_waves(t: Tensor) -> Tensor:
    """Return what the network reads of times ``(*batch)``, ``(*batch, 2 * WAVES)``."""
    return _waves(t, 0.25)


WAVES, TIME_WIDTH, _LONGEST = 8, 64, 256
