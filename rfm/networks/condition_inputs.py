"""What a network reads of a condition vector."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rfm.networks.precision import ExactBuffers

FREQUENCIES = (1.0, 2.0, 4.0)
_EMBEDDING_WIDTH = 16


class ConditionInputs(ExactBuffers):
    """Turns condition vectors into inputs of a network, entry by entry.

    A number is standardised, and joined by sines and cosines of it; a label, given as its position, has a learned
    vector. Each entry has a flag that marks it known. An entry that is not known (NaN) gives zeros alone, so any part
    of a vector may be given, and a vector of which nothing is known is the same as none.

    Args:
        offset: subtracted from the entries ``(c,)``.
        scale: the entries are then divided by it ``(c,)``.
        labels: how many labels each entry has, 0 for a number ``(c,)``.
        frequencies: of the sines and cosines, in radians per unit of a standardised number.
    """

    def __init__(
        self,
        offset: Sequence[float],
        scale: Sequence[float],
        labels: Sequence[int],
        frequencies: Sequence[float] = FREQUENCIES,
    ) -> None:
        super().__init__()
        self.dim = len(labels)
        numbers = [i for i, count in enumerate(labels) if not count]
        self.label_entries = [i for i, count in enumerate(labels) if count]
        self.width = self.dim + len(numbers) * (1 + 2 * len(frequencies)) + len(self.label_entries) * _EMBEDDING_WIDTH
        self.register_buffer("offset", torch.tensor([float(value) for value in offset]))
        self.register_buffer("scale", torch.tensor([float(value) for value in scale]))
        self.register_buffer("frequency", torch.tensor([float(value) for value in frequencies]), persistent=False)
        self.register_buffer("number_entries", torch.tensor(numbers, dtype=torch.long), persistent=False)
        # At zero, a label that no training point has means no more than that it is known.
        self.tables = nn.ModuleList(
            nn.Embedding.from_pretrained(torch.zeros(labels[i], _EMBEDDING_WIDTH), freeze=False)
            for i in self.label_entries
        )

    offset: Tensor
    scale: Tensor
    frequency: Tensor
    number_entries: Tensor

    def forward(self, condition: Tensor) -> Tensor:
        """Return the inputs ``(*batch, width)`` for vectors ``(*batch, c)``."""
        known = ~torch.isnan(condition)
        flags = known.to(condition.dtype)
        standard = torch.where(known, (condition - self.offset) / self.scale, 0.0)[..., self.number_entries]
        angle = standard.unsqueeze(-1) * self.frequency
        cosines = torch.cos(angle) * flags[..., self.number_entries].unsqueeze(-1)
        parts = [flags, standard, torch.sin(angle).flatten(-2), cosines.flatten(-2)]
        for i, table in zip(self.label_entries, self.tables, strict=True):
            position = torch.where(known[..., i], condition[..., i], 0.0).long()
            parts.append(table(position) * flags[..., i].unsqueeze(-1))
        return torch.cat(parts, dim=-1)
