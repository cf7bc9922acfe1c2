"""A velocity network behind an encoder of what it is conditional on."""

from typing import Any, cast

from torch import Tensor, nn

from manifolds import Manifold
from rfm.field import Field, FlowMap, as_flow_map


class Encoded(nn.Module, Field):
    """A velocity field conditional on something that a network has to look at first, such as a picture.

    ``field(x, t, condition=pictures)`` is ``velocity(x, t, condition=encoder(pictures))``. Training calls it so: once a
    step. A solver calls a field some hundred times for one condition, which is encoded once: `rfm.Flow` does so by
    `encoded`.

    Args:
        encoder: takes conditions ``(*batch, ...)`` to vectors ``(*batch, c)``.
        velocity: a velocity field whose condition is vectors ``(*batch, c)``.
    """

    needs_condition = True

    def __init__(self, encoder: nn.Module, velocity: nn.Module) -> None:
        super().__init__()
        self.encoder, self.velocity = encoder, velocity

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """Return the velocity at ``x``.

        Args:
            x: points ``(*batch, *event_shape)``.
            t: times ``(*batch)`` or ``()``.
            condition: what the encoder takes; its batch broadcasts against that of ``x``, so that many points may share
                a condition: ``(n, 1, ...)`` for ``x`` of batch shape ``(n, m)``.
        """
        return cast(Tensor, self.velocity(x, t, condition=self.encoder(condition)))

    def encoded(self, condition: Tensor) -> tuple[nn.Module, Tensor]:
        """Return the field behind the encoder, and its condition.

        Args:
            condition: what the encoder takes, ``(*batch, ...)``.
        """
        return self.velocity, cast(Tensor, self.encoder(condition))


class EncodedMap(Encoded, FlowMap):
    """A flow map conditional on something that a network has to look at first; see `Encoded`.

    Args:
        encoder: takes conditions ``(*batch, ...)`` to vectors ``(*batch, c)``.
        velocity: a `rfm.FlowMap`, a module, whose condition is vectors ``(*batch, c)``.

    Raises:
        ValueError: if it has no second time.
    """

    def __init__(self, encoder: nn.Module, velocity: nn.Module) -> None:
        as_flow_map("EncodedMap", velocity)
        super().__init__(encoder, velocity)

    @property
    def manifold(self) -> Manifold:  # type: ignore[override]
        """Where the points live."""
        return as_flow_map("EncodedMap", self.velocity).manifold

    def average_velocity(self, x: Tensor, s: Tensor, t: Tensor, **condition: Any) -> Tensor:
        """Return the average velocity at ``x``; arguments as for `rfm.FlowMap`, and the condition as for `Encoded`."""
        own = {"condition": self.encoder(condition["condition"])}
        return as_flow_map("EncodedMap", self.velocity).average_velocity(x, s, t, **own)
