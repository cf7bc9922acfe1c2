"""A flow that acts, and an estimate of what it will gain, for policy gradients."""

from typing import Any

import torch
from torch import Tensor, nn

from manifolds.arguments import check_instance, integer
from rfm.control.running_scale import RunningScale
from rfm.field import as_field
from rfm.integrators import GEODESIC_EULER, FixedStep, integrate
from rfm.paths import ConditionalPath, GeodesicPath
from rfm.sources import Source


class FlowActor(nn.Module):
    """A policy whose actions are drawn by a few geodesic steps of a flow, given standardised observations; and a value.

    Args:
        field: velocity of actions given an observation, ``field(x, t, condition=)``, such as a
            `rfm.networks.VelocityField` with ``condition_dim=observation_size``; a module.
        value: from standardised observations ``(*batch, o)`` to one number ``(*batch, 1)``; a module.
        source: of noise, on the manifold of actions.
        observation_size: how many numbers are seen.
        steps: by which an action is drawn.
    """

    def __init__(
        self, field: nn.Module, value: nn.Module, source: Source, observation_size: int, steps: int = 10
    ) -> None:
        super().__init__()
        for name, module in (("field", field), ("value", value)):
            check_instance("FlowActor", name, module, nn.Module, "VelocityField(Sphere(2), condition_dim=3)")
        check_instance("FlowActor", "source", source, Source, "Uniform(Sphere(2))")
        self.field, self.value, self.source = field, value, source
        self.scale = RunningScale(observation_size)
        self.steps = integer("FlowActor", "steps", steps)

    @property
    def path(self) -> ConditionalPath:
        """From noise to actions: geodesics."""
        return GeodesicPath(self.source.manifold)

    @torch.no_grad()
    def act(
        self, observation: Tensor, *, noise: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return actions ``(n, *event_shape)``.

        Args:
            observation: as it comes from the environments ``(n, o)``.
            noise: where actions begin, in place of draws: in flat space the mean of the noise makes actions certain.
            generator: source of randomness.
        """
        seen = self.scale(observation)
        if noise is None:
            like: dict[str, Any] = {"generator": generator, "dtype": seen.dtype, "device": seen.device}
            noise = self.source.sample((len(seen),), **like)
        field, code = as_field(self.field).encoded(seen)
        method = FixedStep(GEODESIC_EULER, self.steps)
        return integrate(field, self.source.manifold, noise, (0.0, 1.0), method, condition=code).final

    def values(self, observation: Tensor) -> Tensor:
        """Return what is expected to be gained from here on ``(*batch,)``, given observations ``(*batch, o)``."""
        found: Tensor = self.value(self.scale(observation))
        return found.squeeze(-1)
