"""The convolutional velocity network, for points that are pictures."""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from manifolds.arguments import integer
from rfm.field import Field
from rfm.networks.condition_inputs import ConditionInputs
from rfm.networks.precision import in_precision_of_weights
from rfm.paths.times import check_times

_TIME_WAVES = 8
_CONTEXT_WIDTH = 128
_GROUPS = 8


class ConvolutionalField(nn.Module, Field):
    """A velocity field on flat space whose points are pictures, row by row: a U-Net.

    Residual blocks with group normalisation, scaled and shifted by time and label (Dhariwal and Nichol, Diffusion
    Models Beat GANs on Image Synthesis, 2021, arXiv:2105.05233), on resolutions that halve from level to level and
    back, with skips between equal ones (Ronneberger et al., U-Net, 2015, arXiv:1505.04597). Square patches of the
    picture are the channels of the first level, which is where most of the cost would be. There is no attention: a
    picture of up to some 64 pixels is within reach of the coarsest level's convolutions.

    Values are expected to be of order 1, such as from -1 to 1, and the source standard normal.

    Args:
        shape: of a picture: channels, height and width; height and width are multiples of ``patch 2^(levels - 1)``.
        width: channels of the first level, a multiple of 8; doubled from level to level.
        levels: number of resolutions.
        blocks: residual blocks in each level, on each side.
        patch: edge of a patch.
        labels: number of classes that the field may be conditional on; the condition is then a vector of one entry, the
            position of the label, NaN where not known. 0 for an unconditional field.
    """

    reads_unknown = True

    def __init__(
        self, shape: Sequence[int], width: int = 48, levels: int = 2, blocks: int = 1, patch: int = 1, labels: int = 0
    ) -> None:
        super().__init__()
        self.shape = [integer("ConvolutionalField", "shape", size) for size in shape]
        self.width, self.levels, self.blocks, self.patch, self.labels = width, levels, blocks, patch, labels
        unit = patch * 2 ** (levels - 1)
        if len(self.shape) != 3 or any(size % unit for size in self.shape[1:]):
            raise ValueError(
                f"ConvolutionalField: shape is channels, height and width, the last two multiples of {unit} (patch "
                f"times 2^(levels - 1)), got {tuple(self.shape)}"
            )
        if width < _GROUPS or width % _GROUPS:
            raise ValueError(f"ConvolutionalField: width must be a multiple of {_GROUPS}, got {width}")
        self.condition_dim = 1 if labels else 0
        self.condition_labels = [labels] if labels else None
        self.condition_inputs = ConditionInputs(
            [0.0] * self.condition_dim, [1.0] * self.condition_dim, [labels][:labels]
        )
        self.context = nn.Sequential(
            nn.Linear(1 + 2 * _TIME_WAVES + self.condition_inputs.width, _CONTEXT_WIDTH),
            nn.SiLU(),
            nn.Linear(_CONTEXT_WIDTH, _CONTEXT_WIDTH),
            nn.SiLU(),
        )
        widths = [width * 2**level for level in range(levels)]
        pixels = self.shape[0] * patch**2
        self.first = nn.Conv2d(pixels, width, 3, padding=1)
        self.down = nn.ModuleList(nn.ModuleList(_Block(w, w) for _ in range(blocks)) for w in widths)
        self.narrow = nn.ModuleList(nn.Conv2d(w, 2 * w, 3, stride=2, padding=1) for w in widths[:-1])
        self.up = nn.ModuleList(nn.ModuleList(_Block(2 * w if i == 0 else w, w) for i in range(blocks)) for w in widths)
        self.widen = nn.ModuleList(nn.Conv2d(2 * w, w, 3, padding=1) for w in widths[:-1])
        self.norm = nn.GroupNorm(_GROUPS, width)
        self.last = nn.Conv2d(width, pixels, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(cast(Tensor, self.last.bias))

    @in_precision_of_weights
    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the velocity at ``x``.

        Args:
            x: pictures as vectors ``(*batch, channels * height * width)``.
            t: times ``(*batch)``, or one time for all, shape ``()``.
            condition: positions of labels ``(*batch, 1)``; NaN, or None, for the unconditional velocity.
        """
        if x.shape[-1] != math.prod(self.shape):
            raise ValueError(
                f"ConvolutionalField: pictures of shape {tuple(self.shape)} are vectors of {math.prod(self.shape)} "
                f"numbers, got shape {tuple(x.shape)}"
            )
        batch = x.shape[:-1]
        check_times(type(self).__name__, t, batch)
        context = self._context(t.expand(batch), condition).reshape(-1, _CONTEXT_WIDTH)
        # Not torch's pixel_unshuffle, which leaves an empty batch as it is.
        channels, height, width = self.shape
        p, coarse = self.patch, (height // self.patch, width // self.patch)
        cells = x.reshape(-1, channels, coarse[0], p, coarse[1], p).permute(0, 1, 3, 5, 2, 4)
        h = self._levels(cells.reshape(-1, channels * p * p, *coarse), context)
        return h.reshape(-1, channels, p, p, *coarse).permute(0, 1, 4, 2, 5, 3).reshape(x.shape)

    def without_and_with(self, x: Tensor, t: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Return the unconditional and the conditional velocity at ``x``, from one evaluation of twice the batch."""
        expanded = condition.expand(*x.shape[:-1], condition.shape[-1])
        both = torch.stack([torch.full_like(expanded, math.nan), expanded])
        free, held = self(torch.stack([x, x]), t.expand(2, *t.shape) if t.ndim else t, both).unbind()
        return free, held

    def _context(self, t: Tensor, condition: Tensor | None) -> Tensor:
        """Return what all blocks are told of time and label, ``(*batch, c)``."""
        s = t.unsqueeze(-1)
        wave = torch.arange(1, _TIME_WAVES + 1, dtype=t.dtype, device=t.device) * (math.pi / 2)
        parts = [s, torch.sin(s * wave), torch.cos(s * wave)]
        if self.condition_dim and condition is None:
            parts.append(torch.zeros_like(s).expand(*t.shape, self.condition_inputs.width))
        elif condition is not None:
            if condition.shape[-1] != self.condition_dim:
                raise ValueError(
                    f"ConvolutionalField: condition vectors have {self.condition_dim} entries, got shape "
                    f"{tuple(condition.shape)}"
                )
            parts.append(self.condition_inputs(condition).expand(*t.shape, self.condition_inputs.width))
        return cast(Tensor, self.context(torch.cat(parts, dim=-1)))

    def _levels(self, h: Tensor, context: Tensor) -> Tensor:
        h, kept = self.first(h), []
        for level, blocks in enumerate(self.down):
            if level:
                h = self.narrow[level - 1](h)
            for block in cast(nn.ModuleList, blocks):
                h = block(h, context)
            kept.append(h)
        for level in reversed(range(self.levels)):
            if level < self.levels - 1:
                h = self.widen[level](nn.functional.interpolate(h, scale_factor=2.0))
            h = torch.cat([h, kept[level]], dim=1)
            for block in cast(nn.ModuleList, self.up[level]):
                h = block(h, context)
        return cast(Tensor, self.last(nn.functional.silu(self.norm(h))))


class _Block(nn.Module):
    """``skip(x) + conv(silu(scale norm(conv(silu(norm(x)))) + shift))``, the skip alone at first."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.norm_in, self.norm_out = nn.GroupNorm(_GROUPS, channels), nn.GroupNorm(_GROUPS, out)
        self.first = nn.Conv2d(channels, out, 3, padding=1)
        self.second = nn.Conv2d(out, out, 3, padding=1)
        self.skip = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)
        self.modulation = nn.Linear(_CONTEXT_WIDTH, 2 * out)
        for layer in (self.second, self.modulation):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(cast(Tensor, layer.bias))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        scale, shift = self.modulation(context)[:, :, None, None].chunk(2, dim=1)
        h = self.first(nn.functional.silu(self.norm_in(x)))
        h = torch.addcmul(shift, self.norm_out(h), 1 + scale)
        return cast(Tensor, self.skip(x) + self.second(nn.functional.silu(h)))
