"""Where flows of products start whose number of factors differs from point to point."""

import torch
from torch import Tensor

from manifolds import Ragged
from manifolds.numerics.constants import Constants
from rfm.arrays import points_of, tensor_of
from rfm.sources.base import Source, checked_part, draws


class RaggedSource(Source, Constants):
    """A head and copies, independent given their number, whose probabilities are stated.

    The density is that of a point among those with as many copies, with respect to the volume of their product, times
    the probability of the number: padding has none.

    Args:
        manifold: the union of products.
        head: a source on its ``head``.
        one: a source on its ``one``, for each copy.
        probabilities: of 0, 1, ... ``most`` copies, ``(most + 1,)``, not negative; they are divided by their sum.

    Raises:
        ValueError: if a source is on another manifold, or the probabilities are none.
    """

    probabilities: Tensor

    def __init__(self, manifold: Ragged, head: Source, one: Source, probabilities: Tensor) -> None:
        super().__init__(manifold)
        if not isinstance(manifold, Ragged):
            raise ValueError(f"RaggedSource: lives on Ragged, got {manifold}; use ProductSource, or PowerSource")
        self.manifold: Ragged = manifold
        self.head = checked_part("RaggedSource", "head", head, manifold.head)
        self.one = checked_part("RaggedSource", "one", one, manifold.one)
        p = tensor_of("RaggedSource", "probabilities", probabilities, torch.float64)
        if p.shape != (manifold.most + 1,) or not bool((p >= 0).all()) or not float(p.sum()) > 0:
            raise ValueError(
                f"RaggedSource: probabilities must be {manifold.most + 1} numbers, not negative, of 0 to "
                f"{manifold.most} copies, got {p.tolist()}; count the data with torch.bincount(copies, "
                f"minlength={manifold.most + 1})"
            )
        self.constant("probabilities", p / p.sum())

    def sample(
        self,
        shape: int | tuple[int, ...],
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        shape = draws(self, shape, dtype)
        device = self.probabilities.device if device is None else torch.device(device)
        ends = self.probabilities.to(device).cumsum(0)
        uniform = torch.rand(shape, generator=generator, dtype=torch.float64, device=device)
        count = torch.searchsorted(ends, uniform, right=True).clamp(max=self.manifold.most)
        there = torch.arange(self.manifold.most, device=device) < count[..., None]
        return self._drawn(there, generator, dtype or torch.get_default_dtype())

    def beside(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return a draw for each of the points ``x``, with the same copies: what training pairs with data."""
        x = points_of("RaggedSource", self.manifold, x)
        return self._drawn(self.manifold.unpack(x)[2], generator, x.dtype)

    def log_prob(self, x: Tensor) -> Tensor:
        x = points_of("RaggedSource", self.manifold, x)
        head, copies, there = self.manifold.unpack(x)
        number = torch.log(self.probabilities.to(x))[there.sum(-1)]
        each = torch.where(there, self.one.log_prob(copies), 0.0)
        return number + self.head.log_prob(head) + each.sum(-1)

    def _drawn(self, there: Tensor, generator: torch.Generator | None, dtype: torch.dtype) -> Tensor:
        head = self.head.sample(tuple(there.shape[:-1]), generator, dtype, there.device)
        copies = self.one.sample(tuple(there.shape), generator, dtype, there.device)
        return self.manifold.pack(head, copies, there)
