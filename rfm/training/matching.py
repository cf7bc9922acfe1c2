"""Validation by the loss of fixed pairs, where no likelihood is known, with a two-sample score beside it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rfm.integrators import IntegrationError
from rfm.metrics import AmbientGaussianKernel, maximum_mean_discrepancy, median_distance
from rfm.objectives import Objective
from rfm.sources import Source
from rfm.training.checkpoint import Validation

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_COMPARED_POINTS = 512

Batch = tuple[Tensor, Tensor, Tensor, dict[str, Any]]
"""Start points, end points, times, and what the field is given besides."""


class MatchingValidation:
    """The mean loss of batches that are the same at every validation.

    Beside it, the squared maximum mean discrepancy between the end points and where the field carries the start points
    of the first batch, with a Gaussian kernel in the coordinates of `Manifold.embed`, as wide as the median distance:
    what the loss, which has an unknown floor, does not say.

    Args:
        batches: pairs of points held out.
        objective: whose loss it is.
        source: the distribution at time 0, on the batches' device.
        seed: of what the loss draws besides.
        fabric: a launched Fabric.
    """

    def __init__(
        self, batches: Sequence[Batch], objective: Objective, source: Source, seed: int, fabric: "Fabric"
    ) -> None:
        self.batches, self.objective, self.source, self.seed, self.fabric = batches, objective, source, seed, fabric
        x_1 = batches[0][1][:_COMPARED_POINTS]
        scale = median_distance(source.manifold, x_1, x_1) or 1.0
        self.kernel = AmbientGaussianKernel(source.manifold, scale)

    @torch.no_grad()
    def __call__(self, field: nn.Module) -> Validation:
        """Return the loss, the same in every process, and the discrepancy."""
        losses = []
        for k, (x_0, x_1, t, condition) in enumerate(self.batches):
            generator = torch.Generator(x_1.device).manual_seed(self.seed + k)
            loss = self.objective.validation_loss(field, self.source, x_0, x_1, t, generator=generator, **condition)
            losses.append(loss.double())
        mean, discrepancy = self.fabric.broadcast((float(torch.stack(losses).mean()), self._discrepancy(field)))
        return Validation(mean, {"validation_mmd2": discrepancy} if discrepancy is not None else {})

    def _discrepancy(self, field: nn.Module) -> float | None:
        """Return the discrepancy; None where the field cannot be integrated yet."""
        x_0, x_1, _, condition = self.batches[0]
        some = slice(_COMPARED_POINTS)
        own = {name: value[some] for name, value in condition.items()}
        try:
            found = self.objective.carried(field, self.source, x_0[some], **own)
        except IntegrationError:
            return None
        if len(found) < 4 or not bool(found.isfinite().all()):
            return None
        return maximum_mean_discrepancy(found, x_1[some], self.kernel).mean
