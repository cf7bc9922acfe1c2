"""Mean and spread of what has been seen so far."""

import torch
from torch import Tensor, nn

from manifolds.arguments import integer


class RunningScale(nn.Module):
    """Standardises vectors by the mean and standard deviation of all that it was shown.

    Moments of blocks are joined as Chan, Golub and LeVeque do (Updating formulae and a pairwise algorithm for computing
    sample variances, 1979).

    Args:
        size: of the vectors.
        limit: beyond which standardised numbers are cut off.
    """

    def __init__(self, size: int, limit: float = 10.0) -> None:
        super().__init__()
        self.limit, self.size = limit, integer("RunningScale", "size", size)
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(self.size, dtype=torch.float64))
        self.register_buffer("squares", torch.zeros(self.size, dtype=torch.float64))

    count: Tensor
    mean: Tensor
    squares: Tensor

    @torch.no_grad()
    def update(self, values: Tensor) -> None:
        """Take vectors ``(*batch, size)`` into account.

        Raises:
            ValueError: if they have another length.
        """
        if values.shape[-1:] != self.mean.shape:
            raise ValueError(
                f"RunningScale: takes vectors (*batch, {self.size}), got shape {tuple(values.shape)}; make one for "
                "vectors of that length"
            )
        rows = values.reshape(-1, self.size).double()
        own = rows.mean(0)
        total = self.count + len(rows)
        gap = own - self.mean
        self.squares += (rows - own).square().sum(0) + gap.square() * (self.count * len(rows) / total)
        self.mean += gap * (len(rows) / total)
        self.count.copy_(total)

    @property
    def std(self) -> Tensor:
        """Standard deviations ``(size,)``: ones while nothing is known."""
        spread = (self.squares / self.count.clamp(min=1)).sqrt()
        return torch.where(spread > _LEAST, spread, 1.0)

    def forward(self, values: Tensor) -> Tensor:
        """Return vectors ``(*batch, size)`` standardised and cut off."""
        return ((values - self.mean) / self.std).clamp(-self.limit, self.limit).to(values.dtype)


_LEAST = 1e-6
"""A spread below is that of a constant, which is left as it is."""
