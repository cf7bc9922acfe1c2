"""The tangent-space velocity network."""

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from manifolds import Manifold
from manifolds.numerics.precision import any_autocast, full_precision
from rfm.field import Field
from rfm.networks.condition_inputs import FREQUENCIES, ConditionInputs
from rfm.networks.matrix_products import add_product
from rfm.networks.precision import ExactBuffers, in_precision_of_weights
from rfm.paths.times import check_times


class VelocityField(ExactBuffers, Field):
    """A velocity field on a manifold that resolves features of several scales.

    A network that reads coordinates alone is too smooth for real catalogues, whose clusters are hundreds of times
    smaller than the space. This one reads sines of random projections of ``manifold.embed(x)`` with random phases, at
    frequencies spaced geometrically from 1 to ``max_frequency`` (Tancik et al., Fourier Features Let Networks Learn
    High Frequency Functions, 2020, arXiv:2006.10739). The velocity of a flow that starts in a smooth source has
    structure of size ``1 - t`` at time ``t``, so a feature of frequency f is damped by ``exp(-(c f (1 - t))^2 / 2)``,
    with a learned width c per feature: the field is smooth where the flow begins, and cheap to integrate there.

    The output is an ambient vector made tangent by ``proju``. Coefficients of a tangent basis would not do: no basis is
    continuous on a sphere.

    Args:
        manifold: where the points live.
        width: width of the hidden layers.
        depth: number of residual hidden layers.
        features: number of random projections.
        max_frequency: largest frequency, in radians per unit of ``embed`` divided by ``scale``: about the inverse of
            the smallest distance to resolve.
        condition_dim: length of the condition vectors; 0 for an unconditional field.
        offset: subtracted from ``embed(x)`` before anything else; zeros by default.
        scale: unit of length of the data, by which the input is divided and the output multiplied.
        condition_offset: subtracted from the condition vectors; zeros by default.
        condition_scale: the condition vectors are divided by it; ones by default.
        condition_labels: how many labels each entry of a condition vector has, which then holds the position of one, 0
            to the number less one; 0 for an entry that is a number. Numbers alone by default.
        condition_frequencies: of the sines of standardised numbers that are read; 1, 2 and 4 radians per standard
            deviation by default. A density that changes much within a tenth of that needs higher ones.
    """

    condition_dim: int
    reads_unknown = True

    def __init__(
        self,
        manifold: Manifold,
        width: int = 192,
        depth: int = 3,
        features: int = 512,
        max_frequency: float = 64.0,
        condition_dim: int = 0,
        offset: Sequence[float] | None = None,
        scale: float = 1.0,
        condition_offset: Sequence[float] | None = None,
        condition_scale: Sequence[float] | None = None,
        condition_labels: Sequence[int] | None = None,
        condition_frequencies: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.manifold = manifold
        self.width, self.depth, self.features = width, depth, features
        self.max_frequency, self.condition_dim, self.scale = float(max_frequency), condition_dim, float(scale)
        self.offset = _floats(offset)
        self.condition_offset, self.condition_scale = _floats(condition_offset), _floats(condition_scale)
        self.condition_labels = None if condition_labels is None else [int(count) for count in condition_labels]
        self.condition_frequencies = _floats(condition_frequencies)
        for entries in (self.condition_offset, self.condition_scale, self.condition_labels):
            if entries is not None and len(entries) != condition_dim:
                raise ValueError(
                    f"VelocityField: condition_offset, condition_scale and condition_labels have condition_dim = "
                    f"{condition_dim} entries, got {len(entries)}"
                )

        frequency = torch.logspace(0, math.log10(max(self.max_frequency, 1.0)), features)
        # Generators of their own: the projections are part of the architecture, not of the training's randomness.
        direction = torch.randn(features, manifold.embed_dim, generator=torch.Generator().manual_seed(0))
        phase = torch.rand(features, generator=torch.Generator().manual_seed(1))
        self.register_buffer("projection", frequency[:, None] * nn.functional.normalize(direction, dim=1))
        self.register_buffer("phase", 2 * math.pi * phase)
        self.register_buffer("frequency", frequency)
        self.register_buffer("shift", torch.tensor(self.offset or [0.0] * manifold.embed_dim))
        self.log_damping = nn.Parameter(torch.full((features,), math.log(0.5)))

        self.condition_inputs = ConditionInputs(
            self.condition_offset or [0.0] * condition_dim,
            self.condition_scale or [1.0] * condition_dim,
            self.condition_labels or [0] * condition_dim,
            self.condition_frequencies or FREQUENCIES,
        )
        self.context = nn.Linear(2 + 2 * _TIME_WAVES + self.condition_inputs.width, _CONTEXT_WIDTH)
        self.biases = nn.Linear(_CONTEXT_WIDTH, width * (depth + 1))
        self.coarse = nn.Linear(manifold.embed_dim, width, bias=False)
        self.fine = nn.Linear(features, width, bias=False)
        self.hidden = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(depth))
        self.last = nn.Linear(width, manifold.field_dim)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    projection: Tensor
    phase: Tensor
    frequency: Tensor
    shift: Tensor

    @in_precision_of_weights
    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the velocity at ``x``, tangent there.

        Args:
            x: points ``(*batch, *event_shape)``.
            t: times ``(*batch)``, or one time for all, shape ``()``.
            condition: vectors ``(*batch, condition_dim)``; entries that are NaN are not known. Where none is known, or
                for None, the velocity is the unconditional one.
        """
        return self._in_blocks(self._forward, x, t, condition)

    def _forward(self, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        biases, damping = self._at_time(t, condition)
        return self._layers(x, self._by_layer(biases), [(damping, self.fine)])

    def _layers(self, x: Tensor, biases: Sequence[Tensor], readings: Sequence[tuple[Tensor, nn.Module]]) -> Tensor:
        """Return the velocity, given the biases of all layers and how the waves are damped for what reads them."""
        e = (self.manifold.embed(x) - self.shift) / self.scale
        with full_precision(x.device):
            wave = torch.sin(nn.functional.linear(e, self.projection, self.phase))
        h = biases[0] + self.coarse(e)
        for damping, layer in readings:
            h = _add_linear(h, damping * wave, layer)
        for layer, bias in zip(self.hidden, biases[1:], strict=True):
            h = _add_linear(h + bias, nn.functional.silu(h), layer)
        return self._tangent(x, self.last(nn.functional.silu(h)))

    @in_precision_of_weights
    def pushforward(  # type: ignore[override]
        self, x: Tensor, t: Tensor, tangents: Tensor, condition: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the velocity and its derivatives along several tangent vectors.

        The chain rule by hand, sharing between the value and all derivatives what automatic differentiation computes
        again for each of them.

        Args:
            x: points ``(*batch, *event_shape)``.
            t: times ``(*batch)`` or ``()``.
            tangents: ``(*batch, k, *event_shape)``.
            condition: vectors ``(*batch, condition_dim)``.

        Returns:
            ``u`` of the shape of ``x``, and ``du`` of the shape of ``tangents``.
        """
        return self._in_blocks(self._pushforward, x, t, condition, tangents)

    def _in_blocks(
        self, evaluate: Callable[..., Any], x: Tensor, t: Tensor, condition: Tensor | None, *more: Tensor
    ) -> Any:
        """Return ``evaluate(x, t, condition, *more)``; outside of autograd block by block of the batch.

        The intermediate results of a block stay in a core's cache.
        """
        rows = max(_SHORTEST_BLOCK, _BLOCK // (self.width + self.features))
        batch = self.manifold.batch_shape(x)
        check_times(type(self).__name__, t, batch)
        if torch.is_grad_enabled() or x.device.type != "cpu" or not batch or batch[0] < 1.5 * rows:
            return evaluate(x, t, condition, *more)
        # Equal ones: a short rest costs nearly as much as a whole block.
        rows = math.ceil(batch[0] / round(batch[0] / rows))
        if condition is not None:
            condition = condition.expand(*batch, condition.shape[-1])
        t = t if t.ndim == 0 else t.expand(batch)
        parts = [a if a is None or a.ndim == 0 else a.split(rows) for a in (x, t, condition, *more)]
        blocks = [
            evaluate(*(part[i] if isinstance(part, tuple) else part for part in parts))
            for i in range(math.ceil(batch[0] / rows))
        ]
        if isinstance(blocks[0], Tensor):
            return torch.cat(blocks)
        return tuple(torch.cat(each) for each in zip(*blocks, strict=True))

    def _pushforward(self, x: Tensor, t: Tensor, condition: Tensor | None, tangents: Tensor) -> tuple[Tensor, Tensor]:
        biases, damping = self._at_time(t, condition)
        return self._layers_jvp(x, tangents, self._by_layer(biases), [(damping, self.fine)])

    def _layers_jvp(
        self, x: Tensor, tangents: Tensor, biases: Sequence[Tensor], readings: Sequence[tuple[Tensor, nn.Module]]
    ) -> tuple[Tensor, Tensor]:
        """Return `_layers` and its derivatives along tangent vectors ``(*batch, k, *event_shape)``."""
        axis = x.ndim - len(self.manifold.event_shape)
        # The axis of directions goes first: factors that all directions share then broadcast over whole blocks.
        directions = tangents.movedim(axis, 0)
        e, de = self.manifold.coordinates.embed_jvp(x, directions)
        e, de = (e - self.shift) / self.scale, de / self.scale
        with full_precision(x.device):
            z, dz = nn.functional.linear(e, self.projection, self.phase), _rows_times(de, self.projection)
        # What is summed up is in the precision of the coordinates, whatever the layers run in.
        h, dh = _plus(self.coarse(e).to(e.dtype), biases[0]), _rows_times(de, self.coarse.weight).to(e.dtype)
        for damping, layer in readings[:-1]:
            h = _add_linear(h, torch.sin(z) * damping, layer)
            dh = _add_linear(dh, dz * (torch.cos(z) * damping), layer)
        damping, last = readings[-1]
        h = _add_linear(h, _times(torch.sin(z), damping), last)
        dh = _add_linear(dh, _times(dz, _times(torch.cos(z), damping)), last)
        for layer, bias in zip(self.hidden, biases[1:], strict=True):
            a, da = _silu_and_derivative(h)
            dh = _add_linear(dh, dh * da, layer)
            h = _add_linear(_plus(h, bias), a, layer)
        a, da = _silu_and_derivative(h)
        w, dw = self.last(a), nn.functional.linear(dh * da, self.last.weight)
        # The ambient vector depends on x, and so does the projection that makes it tangent.
        u, du = self.manifold.coordinates.tangent_from_vector_jvp(x, self.scale * w, directions, self.scale * dw)
        return u, du.movedim(0, axis)

    def without_and_with(self, x: Tensor, t: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Return the unconditional and the conditional velocity at ``x``, from one evaluation of twice the batch."""
        batch = self.manifold.batch_shape(x)
        expanded = condition.expand(*batch, condition.shape[-1])
        both = torch.stack([torch.full_like(expanded, math.nan), expanded])
        free, held = self(torch.stack([x, x]), t.expand(2, *t.shape) if t.ndim else t, both).unbind()
        return free, held

    def _at_time(self, t: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the biases of all layers and the damping of the features, which do not depend on ``x``."""
        t = one_time(t)
        biases = self.biases(nn.functional.silu(self.context(self._context_inputs((t,), condition)))).to(t.dtype)
        return biases, self._damping(t)

    def _by_layer(self, biases: Tensor) -> tuple[Tensor, ...]:
        return biases.chunk(self.depth + 1, dim=-1)

    def _damping(self, t: Tensor) -> Tensor:
        # Bounded below at e^-30: numbers too small for the normal range slow down the layer that reads them.
        rate = (self.frequency * self.log_damping.exp()) ** 2 / -2
        return torch.exp((rate * (1 - t.unsqueeze(-1)) ** 2).clamp(min=-30))

    def _context_inputs(self, times: Sequence[Tensor], condition: Tensor | None) -> Tensor:
        """Return what the biases depend on: times of one shape, and what is known of a condition."""
        parts = []
        for t in times:
            s = t.unsqueeze(-1)
            wave = torch.arange(1, _TIME_WAVES + 1, dtype=t.dtype, device=t.device) * (math.pi / 2)
            # The logarithm spreads out the last hundredths, where the smallest structures form.
            parts += [s, torch.log(1.003 - s.clamp(max=1)), torch.sin(s * wave), torch.cos(s * wave)]
        if self.condition_dim:
            if condition is None:
                parts.append(torch.zeros_like(s).expand(*s.shape[:-1], self.condition_inputs.width))
            elif condition.shape[-1] != self.condition_dim:
                raise ValueError(
                    f"VelocityField: condition vectors have {self.condition_dim} entries, got shape "
                    f"{tuple(condition.shape)}"
                )
            else:
                inputs = self.condition_inputs(condition)
                batch = torch.broadcast_shapes(inputs.shape[:-1], s.shape[:-1])
                parts = [part.expand(*batch, part.shape[-1]) for part in [*parts, inputs]]
        elif condition is not None:
            raise ValueError("VelocityField: a condition was given to a field made with condition_dim=0")
        return torch.cat(parts, dim=-1)

    def _tangent(self, x: Tensor, w: Tensor) -> Tensor:
        return self.manifold.tangent_from_vector(x, self.scale * w)


_BLOCK, _SHORTEST_BLOCK = 2**18, 256
_TIME_WAVES = 8
_CONTEXT_WIDTH = 64


def one_time(t: Tensor) -> Tensor:
    """Return times as they are, and one time that is expanded as itself: what depends on it is computed once."""
    return t[(0,) * t.ndim] if t.numel() and t.ndim and not any(t.stride()) else t


def _floats(values: Sequence[float] | None) -> list[float] | None:
    return None if values is None else [float(value) for value in values]


def _add_linear(base: Tensor, x: Tensor, layer: nn.Module) -> Tensor:
    """Return ``base + layer(x)`` for a layer without bias; outside of autograd, in the memory of ``base``."""
    if any_autocast():
        return base + cast(Tensor, layer(x))
    weight = cast(nn.Linear, layer).weight
    flat, inputs = base.reshape(-1, weight.shape[0]), x.reshape(-1, weight.shape[1])
    total = torch.addmm(flat, inputs, weight.mT) if torch.is_grad_enabled() else add_product(flat, inputs, weight)
    return total.reshape(*x.shape[:-1], weight.shape[0])


def _rows_times(x: Tensor, weight: Tensor) -> Tensor:
    """Return ``x @ weight.mT`` as one product of matrices; PyTorch makes a batch of them of rows that are strided."""
    return nn.functional.linear(x.reshape(-1, x.shape[-1]), weight).reshape(*x.shape[:-1], len(weight))


def _plus(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a + b``; outside of autograd, in the memory of ``a``."""
    return a + b if torch.is_grad_enabled() else a.add_(b)


def _times(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a * b``; outside of autograd, in the memory of ``a``."""
    return a * b if torch.is_grad_enabled() else a.mul_(b)


def _silu_and_derivative(h: Tensor) -> tuple[Tensor, Tensor]:
    gate = torch.sigmoid(h)
    value = h * gate
    rest = h - value
    return value, torch.addcmul(gate, gate, rest) if torch.is_grad_enabled() else rest.mul_(gate).add_(gate)
