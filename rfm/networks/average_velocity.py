"""The velocity network with a second time, for flow maps."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rfm.networks.precision import in_precision_of_weights
from rfm.networks.second_time import SecondTime
from rfm.networks.velocity import VelocityField, one_time
from rfm.paths.times import check_times


class AverageVelocity(VelocityField, SecondTime, one_time=VelocityField):
    """A `VelocityField` with a second time: the average velocity ``u(x, s, t)`` of jumps from s to t.

    What it has besides, the jump part, vanishes at equal times whatever its weights: biases of all layers that are
    multiplied by ``t - s``, and a second reading of the waves, at the resolution that the later of the two times has
    beyond the one at s. So ``u(x, t, t)`` is a `VelocityField`, with its weights, its cost and its exact divergence;
    and since the jump part is zero at first, a network made by `from_velocity` begins as the velocity it is made from.

    Arguments as for `VelocityField`.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        inputs = 2 * self.context.in_features - self.condition_inputs.width
        self.jump_context = nn.Linear(inputs, self.context.out_features)
        self.jump_biases = nn.Linear(self.context.out_features, self.biases.out_features)
        self.jump_fine = nn.Linear(self.features, self.width, bias=False)
        for weight in (self.jump_biases.weight, self.jump_biases.bias, self.jump_fine.weight):
            nn.init.zeros_(weight)

    @in_precision_of_weights
    def average_velocity(  # type: ignore[override]
        self, x: Tensor, s: Tensor, t: Tensor, condition: Tensor | None = None
    ) -> Tensor:
        """Return the average velocity of the jump, tangent at ``x``.

        Args:
            x: points at time s ``(*batch, *event_shape)``.
            s: times ``(*batch)``, or one time for all, shape ``()``.
            t: times to jump to, likewise; earlier ones too.
            condition: as for the velocity.
        """
        return self._in_blocks(self._average, x, s, condition, self._like(x, t))

    @in_precision_of_weights
    def average_pushforward(  # type: ignore[override]
        self, x: Tensor, s: Tensor, t: Tensor, tangents: Tensor, condition: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the average velocity and its derivatives along tangent vectors, as `pushforward` does the velocity's.

        Args:
            x: points at time s ``(*batch, *event_shape)``.
            s: times ``(*batch)`` or ``()``.
            t: times to jump to, likewise.
            tangents: ``(*batch, k, *event_shape)``.
            condition: vectors ``(*batch, condition_dim)``.
        """
        return self._in_blocks(self._average_pushforward, x, s, condition, self._like(x, t), tangents)

    def _average(self, x: Tensor, s: Tensor, condition: Tensor | None, t: Tensor) -> Tensor:
        biases, readings = self._at_times(s, t, condition)
        return self._layers(x, self._by_layer(biases), readings)

    def _average_pushforward(
        self, x: Tensor, s: Tensor, condition: Tensor | None, t: Tensor, tangents: Tensor
    ) -> tuple[Tensor, Tensor]:
        biases, readings = self._at_times(s, t, condition)
        return self._layers_jvp(x, tangents, self._by_layer(biases), readings)

    def _like(self, x: Tensor, t: Tensor) -> Tensor:
        """Return times to jump to, one for each point or one for all."""
        batch = self.manifold.batch_shape(x)
        check_times(type(self).__name__, t, batch)
        return t if t.ndim == 0 else t.expand(batch)

    def _at_times(
        self, s: Tensor, t: Tensor, condition: Tensor | None
    ) -> tuple[Tensor, Sequence[tuple[Tensor, nn.Module]]]:
        """Return the biases of all layers, and the readings of the waves with their damping."""
        biases, damping = self._at_time(s, condition)
        s, t = torch.broadcast_tensors(one_time(s), one_time(t))
        context = nn.functional.silu(self.jump_context(self._context_inputs((s, t), condition)))
        gap = (t - s).unsqueeze(-1)
        biases = biases + (gap * self.jump_biases(context)).to(biases.dtype)
        # A map resolves at one end what it does at the other, so the finer of the two decides.
        finer = self._damping(torch.maximum(s, t)) - self._damping(s)
        return biases, [(damping, self.fine), (finer, self.jump_fine)]
