"""Flows that build poses around some that are given: a scaffold around a motif.

A `rfm.networks.FrameField` that was trained with held bodies (see its ``held``) knows what to do with them. Of a motif
only the arrangement counts: while the others are moved all bodies keep the mean position 0, so that the motif drifts as
a whole, and `MotifFlow.sample` puts it back where it was given.

Yim et al., Improved motif-scaffolding with SE(3) flow matching, 2024, arXiv:2401.04082: motif amortisation.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from manifolds.rotations.centred_poses import centred
from rfm.field import Field
from rfm.flow import Flow
from rfm.networks import FrameField
from rfm.networks.frames import Amend
from rfm.sources import CentredPoseSource, Source


class MotifFlow:
    """Draws poses of which some are given.

    Args:
        flow: of a `FrameField` from a `CentredPoseSource`, on as many poses as the result is to have; see
            `rfm.Flow.on`.
        motif: the given poses ``(k, 4, 4)``.
        places: which of the flow's poses they are, counted from 0, ``(k,)``, ascending.
        amend: what is done to each prediction before it is followed; the motif must stay.

    Raises:
        ValueError: for another kind of flow, or places that do not fit.
    """

    def __init__(self, flow: Flow, motif: Tensor, places: Tensor, amend: Amend | None = None) -> None:
        field, source = flow.field, flow.source
        if not isinstance(field, FrameField) or not isinstance(source, CentredPoseSource):
            raise ValueError(
                f"MotifFlow: takes a flow of a FrameField from a CentredPoseSource, got {type(field).__name__} and "
                f"{type(source).__name__}"
            )
        count = source.manifold.k
        inside = len(places) and int(places[0]) >= 0 and int(places[-1]) < count
        if motif.shape != (len(places), 4, 4) or not inside or bool((places.diff() <= 0).any()):
            raise ValueError(
                f"MotifFlow: takes k poses (k, 4, 4) and as many ascending places from 0 to {count - 1}, got poses of "
                f"shape {tuple(motif.shape)} and places {places.tolist()[:8]}"
            )
        self.motif, self.places = motif.to(next(field.parameters())), places.to(next(field.parameters()).device)
        held = torch.zeros(count, dtype=torch.bool, device=self.motif.device)
        held[self.places] = True
        self.flow = Flow(flow.manifold, ConstrainedFrames(field, held, amend), _Around(source, self.motif, self.places))

    def sample(self, shape: int | tuple[int, ...], **options: Any) -> Tensor:
        """Return poses ``(*shape, n, 4, 4)`` with the motif where it was given; options as in `rfm.Flow.sample`."""
        x: Tensor = self.flow.sample(shape, **options)
        shift = (self.motif[:, :3, 3] - x[..., self.places, :3, 3]).mean(-2, keepdim=True)
        x = x + nn.functional.pad(shift[..., None], (3, 0, 0, 1))
        x[..., self.places, :, :] = self.motif
        return x


class _Around(Source):
    """The motif, and noise around its middle, less their common mean."""

    def __init__(self, source: CentredPoseSource, motif: Tensor, places: Tensor) -> None:
        super().__init__(source.manifold)
        self.source, self.motif, self.places = source, motif, places

    def sample(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        x = self.source.scattered((*shape, self.source.manifold.k), generator, dtype, device)
        x[..., self.places, :, :] = centred(self.motif).to(x)
        return centred(x)

    def log_prob(self, x: Tensor) -> Tensor:
        raise ValueError("MotifFlow: poses around a motif have no log-density; ask the flow without a motif")


class ConstrainedFrames(nn.Module, Field):
    """A field of poses of which some are held, or whose predictions are amended: for samplers.

    Args:
        field: the network.
        held: which poses stay as they are, ``(n,)`` bool; none by default.
        amend: what is done to each prediction before it is followed.
    """

    def __init__(self, field: FrameField, held: Tensor | None = None, amend: Amend | None = None) -> None:
        super().__init__()
        self.field, self.held, self.amend = field, held, amend

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        endpoint = self.field.endpoint(x, t, held=self.held)
        return self.field.velocity(x, t, endpoint if self.amend is None else self.amend(endpoint, t))

    def self_conditioned(self) -> Callable[..., Tensor]:
        """Return the field with a memory, see `FrameField.self_conditioned`."""
        return self.field.self_conditioned(self.amend, held=self.held)
