"""The network of flow policies: a token for each action, which attends to tokens of the observation."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from manifolds import Manifold, Power
from manifolds.arguments import check_instance, integer, positive
from rfm.control.observations import Observations
from rfm.control.token_encoders import ObservationTokens
from rfm.field import Field, FlowMap
from rfm.networks.precision import ExactBuffers, in_precision_of_weights
from rfm.networks.second_time import SecondTime
from rfm.paths.times import check_times


class ActionNetwork(ExactBuffers, Field):
    """A velocity field on chunks of actions, given an observation.

    Each action of the chunk is a token, and all of them attend to each other and, in every layer, to the tokens of the
    observation, as in pi-zero (Black et al., 2024, arXiv:2410.24164). The observation does not change while a
    chunk is drawn: the keys and values of its tokens in every layer are computed once for each solve (`encoded`), and
    kept in a cache between the steps. Time scales and shifts the normalised features (Peebles and Xie, Scalable
    Diffusion Models with Transformers, 2022, arXiv:2212.09748).

    Without a condition the velocity is that of nothing known, which training sees as far as observations are left out.

    Args:
        manifold: the chunks, `ActionChunks` or another power.
        observations: their parts; its vectors are the condition.
        width: of the features, a multiple of ``heads``.
        depth: layers for actions.
        seen_depth: layers for observations.
        heads: of attention.
        offset: subtracted from the coordinates of an action, ``(manifold.m.embed_dim,)``; zeros by default.
        scale: unit of length of the actions, by which the coordinates are divided and velocities multiplied.
    """

    needs_condition = False
    condition_dim: int

    def __init__(
        self,
        manifold: Power,
        observations: Observations,
        width: int = 128,
        depth: int = 4,
        seen_depth: int = 2,
        heads: int = 4,
        offset: Sequence[float] | None = None,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        check_instance(owner, "manifold", manifold, Power, "ActionChunks(SE3(), 16)")
        check_instance(owner, "observations", observations, Observations, "Observations([Vector('state', 7)])")
        sizes = {"width": width, "depth": depth, "seen_depth": seen_depth, "heads": heads}
        self.width, self.depth, self.seen_depth, self.heads = (integer(owner, *size) for size in sizes.items())
        if self.width % (2 * self.heads):
            raise ValueError(f"{owner}: width must be a multiple of 2 heads, {2 * self.heads}, got {self.width}")
        one = manifold.m
        if offset is not None and len(offset) != one.embed_dim:
            raise ValueError(f"{owner}: offset has {one.embed_dim} entries, as an embedded action, got {len(offset)}")
        self.manifold, self.observations = manifold, observations
        self.condition_dim = observations.width
        self.offset = None if offset is None else [float(value) for value in offset]
        self.scale = positive(owner, "scale", scale)
        self.register_buffer("shift", torch.tensor(self.offset or [0.0] * one.embed_dim))
        self.seen = ObservationTokens(observations, self.width, self.seen_depth, self.heads)
        self.memory = nn.Linear(self.width, 2 * self.width * self.depth)
        self.actions = nn.Linear(one.embed_dim, self.width)
        self.places = nn.Parameter(0.1 * torch.randn(manifold.k, self.width))
        self.time = _TimeContext(1, self.width)
        self.blocks = nn.ModuleList(_Block(self.width, self.heads) for _ in range(self.depth))
        self.last = nn.Linear(self.width, one.field_dim)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    shift: Tensor

    @in_precision_of_weights
    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the velocity at ``x``, tangent there.

        Args:
            x: chunks ``(*batch, k, *event_shape)``.
            t: times ``(*batch)``, or one time for all, shape ``()``.
            condition: vectors of observations ``(*batch, w)``, NaN where not known; their batch broadcasts against that
                of ``x``. None where nothing is known.
        """
        return self.cached_velocity(x, t, self.keys_and_values(self._nothing(x) if condition is None else condition))

    def encoded(self, condition: Tensor) -> tuple[Callable[..., Tensor], Tensor]:
        """Return the field that reads the cache of keys and values of observations, and that cache as vectors."""
        return _Cached(self), self.keys_and_values(condition)

    @in_precision_of_weights
    def keys_and_values(self, condition: Tensor) -> Tensor:
        """Return keys and values of observations for all layers, and which are known, as vectors ``(*batch, c)``."""
        tokens, known = self.seen(condition)
        # A layer's together, so that it reads one block of memory.
        both = self.memory(tokens).unflatten(-1, (self.depth, -1)).movedim(-2, -3)
        return torch.cat([both.flatten(-3), known.to(both.dtype)], dim=-1)

    @in_precision_of_weights
    def cached_velocity(self, x: Tensor, t: Tensor, cache: Tensor) -> Tensor:
        """Return the velocity at ``x`` from the cache that `keys_and_values` returned; arguments as for the field."""
        check_times(type(self).__name__, t, self.manifold.batch_shape(x))
        return self._layers(x, self.time(t), cache)

    def _nothing(self, x: Tensor) -> Tensor:
        return x.new_full((self.condition_dim,), torch.nan)

    def _layers(self, x: Tensor, time: Tensor, cache: Tensor) -> Tensor:
        manifold, batch = self.manifold, self.manifold.batch_shape(x)
        cache = cache.expand(*batch, cache.shape[-1])
        both, known = cache[..., : -self.seen.count], cache[..., -self.seen.count :]
        layers = both.unflatten(-1, (self.depth, self.seen.count, 2 * self.width)).unbind(-3)
        h = self.actions((manifold.m.embed(x) - self.shift) / self.scale) + self.places
        for block, own in zip(self.blocks, layers, strict=True):
            h = block(h, time[..., None, :], own, known)
        w = self.last(nn.functional.layer_norm(h, h.shape[-1:]))
        return manifold.tangent_from_vector(x, self.scale * w.flatten(-2))


class ActionMap(ActionNetwork, SecondTime, one_time=ActionNetwork):
    """An `ActionNetwork` with a second time, for chunks in one to four jumps; `rfm.distil` trains it.

    What it has besides vanishes at equal times whatever its weights, and is zero at first, so that one made by
    `from_velocity` begins as the network it is made from. Arguments as for `ActionNetwork`.
    """

    manifold: Power

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.jump_time = _TimeContext(2, self.width)
        nn.init.zeros_(self.jump_time.last.weight)
        nn.init.zeros_(self.jump_time.last.bias)

    def average_velocity(  # type: ignore[override]
        self, x: Tensor, s: Tensor, t: Tensor, condition: Tensor | None = None
    ) -> Tensor:
        """Return the average velocity of the jump, tangent at ``x``; arguments as for `rfm.FlowMap`."""
        cache = self.keys_and_values(self._nothing(x) if condition is None else condition)
        return self.cached_average_velocity(x, s, t, cache)

    def encoded(self, condition: Tensor) -> tuple[Callable[..., Tensor], Tensor]:
        return _CachedMap(self), self.keys_and_values(condition)

    @in_precision_of_weights
    def cached_average_velocity(self, x: Tensor, s: Tensor, t: Tensor, cache: Tensor) -> Tensor:
        """Return the average velocity from the cache that `keys_and_values` returned."""
        for time in (s, t):
            check_times(type(self).__name__, time, self.manifold.batch_shape(x))
        s, t = torch.broadcast_tensors(s, t)
        return self._layers(x, self.time(s) + (t - s)[..., None] * self.jump_time(s, t), cache)


class _Cached(Field):
    """An action network whose condition is its cache of keys and values."""

    def __init__(self, network: ActionNetwork) -> None:
        self.network = network

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:  # type: ignore[override]
        if condition is None:
            return cast(Tensor, self.network(x, t))
        return self.network.cached_velocity(x, t, condition)

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        yield from self.network.named_modules()


class _CachedMap(_Cached, FlowMap):  # type: ignore[misc]
    network: ActionMap

    @property
    def manifold(self) -> Manifold:  # type: ignore[override]
        return self.network.manifold

    def average_velocity(  # type: ignore[override]
        self, x: Tensor, s: Tensor, t: Tensor, condition: Tensor | None = None
    ) -> Tensor:
        if condition is None:
            return self.network.average_velocity(x, s, t)
        return self.network.cached_average_velocity(x, s, t, condition)


class _TimeContext(nn.Module):
    """From times to a vector."""

    def __init__(self, times: int, width: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(times * (1 + 2 * _WAVES), width), nn.Linear(width, width)

    def forward(self, *times: Tensor) -> Tensor:
        parts = []
        for t in times:
            wave = torch.arange(1, _WAVES + 1, dtype=t.dtype, device=t.device) * (math.pi / 2)
            angle = t[..., None] * wave
            parts += [t[..., None], torch.sin(angle), torch.cos(angle)]
        return cast(Tensor, self.last(nn.functional.silu(self.first(torch.cat(parts, dim=-1)))))


class _Block(nn.Module):
    """Attention of actions to each other and to the observation, and a transition; each is nothing at first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scales = nn.Linear(width, 4 * width)
        self.inputs = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.transition = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        for layer in (self.scales, self.out, cast(nn.Linear, self.transition[2])):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, h: Tensor, time: Tensor, cache: Tensor, known: Tensor) -> Tensor:
        """Return features ``(*batch, k, width)``.

        Args:
            h: features of the actions.
            time: context ``(*batch, 1, width)``, or ``(1, width)`` for all.
            cache: keys and values of the observation ``(*batch, m, 2 width)``.
            known: 1 where they are known ``(*batch, m)``.
        """
        stretch, shift, stretch_2, shift_2 = self.scales(nn.functional.silu(time)).chunk(4, dim=-1)
        q, k, v = self.inputs(_normed(h, stretch, shift)).chunk(3, dim=-1)
        keys, values = cache.chunk(2, dim=-1)
        h = h + self.out(self._attended(q, torch.cat([keys, k], dim=-2), torch.cat([values, v], dim=-2), known))
        return cast(Tensor, h + self.transition(_normed(h, stretch_2, shift_2)))

    def _attended(self, q: Tensor, k: Tensor, v: Tensor, known: Tensor) -> Tensor:
        # By products and a softmax, which every derivative goes through, unlike torch's fused attention.
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(-2, -3) for part in (q, k, v))
        absent = nn.functional.pad((1 - known) * torch.finfo(q.dtype).min / 4, (0, q.shape[-2]))
        logits = q @ k.mT / math.sqrt(q.shape[-1]) + absent[..., None, None, :]
        return (torch.softmax(logits, dim=-1) @ v).transpose(-2, -3).flatten(-2)


def _normed(h: Tensor, stretch: Tensor, shift: Tensor) -> Tensor:
    return nn.functional.layer_norm(h, h.shape[-1:]) * (1 + stretch) + shift


_WAVES = 8
