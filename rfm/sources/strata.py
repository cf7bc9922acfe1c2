"""Strata of conditions: which points tell of a condition, from those that share all of it to all there are."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from manifolds.arguments import integer


@final
@dataclass(frozen=True)
class Strata:
    """How condition vectors divide points into strata.

    Each label is a stratum. A number has knots: between two of them it lies in the strata of both, in parts that are
    linear in the number and sum to one; outside of all it lies in that of the outermost. Points of a stratum, weighted
    by their parts, are thus a kernel in the number, of the width of the distance between knots. Strata of several
    entries are products.

    Args:
        labels: how many labels each entry of a vector has, 0 for a number ``(c,)``.
        knots: those of each entry, ascending; none of a label, or of a number that is not among ``entries``.
        entries: the entries that divide points; none for one stratum of all points.

    Raises:
        ValueError: an argument is not as said.
    """

    labels: tuple[int, ...]
    knots: tuple[tuple[float, ...], ...]
    entries: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(integer("Strata", "each of labels", n, 0) for n in self.labels))
        object.__setattr__(self, "knots", tuple(tuple(float(k) for k in own) for own in self.knots))
        object.__setattr__(self, "entries", tuple(integer("Strata", "each of entries", i, 0) for i in self.entries))
        c = len(self.labels)
        if len(self.knots) != c or any(i >= c for i in self.entries) or len(set(self.entries)) < len(self.entries):
            raise ValueError(
                f"Strata: needs knots for each of the {c} entries and entries below {c}, each once, got knots of "
                f"{len(self.knots)} and entries {list(self.entries)}"
            )
        for i in self.entries:
            own = self.knots[i]
            ordered = all(a < b for a, b in itertools.pairwise(own)) and all(map(math.isfinite, own))
            if bool(own) == bool(self.labels[i]) or not ordered:
                raise ValueError(
                    f"Strata: entry {i} of {self.labels[i]} labels needs {'no' if self.labels[i] else 'ascending'} "
                    f"knots, got {list(own)[:8]}"
                )

    @classmethod
    def of(cls, condition: Tensor, labels: Sequence[int], entries: Sequence[int], count: int) -> "Strata":
        """Return strata with at most so many knots for each number, at its quantiles.

        Args:
            condition: vectors ``(n, c)``, NaN where not known.
            labels: how many labels each entry has, 0 for a number.
            entries: those that divide points.
            count: of knots, at least 1; fewer where values repeat.
        """
        at = torch.linspace(0, 1, count, dtype=torch.float64) if count > 1 else torch.tensor([0.5]).double()
        knots: list[tuple[float, ...]] = []
        for i, labelled in enumerate(labels):
            values = condition[:, i].double().cpu()
            numbers = values[~values.isnan()]
            own = () if labelled or i not in entries else tuple(numbers.quantile(at).unique().tolist())
            knots.append(own)
        return cls(tuple(labels), tuple(knots), tuple(entries))

    @property
    def levels(self) -> tuple["Strata", ...]:
        """These strata and ever broader ones: without numbers, without the last label, ..., one of all points."""
        found, left = [self], self.entries
        while left:
            named = tuple(i for i in left if self.labels[i])
            left = named if len(named) < len(left) else left[:-1]
            found.append(replace(self, entries=left))
        return tuple(found)

    def members(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Return the strata of vectors ``(m, c)``, by number, and their parts in each, ``(m, r)`` both.

        The parts of a vector sum to one; where an entry that divides points is NaN they are all zero.
        """
        c = condition.double()
        cell = torch.zeros(len(c), 1, dtype=torch.long, device=c.device)
        part = torch.ones(len(c), 1, dtype=torch.float64, device=c.device)
        for i in self.entries:
            known = ~c[:, i].isnan()
            values = torch.where(known, c[:, i], 0.0)
            if self.labels[i]:
                own, share, size = values.long()[:, None], torch.ones_like(values)[:, None], self.labels[i]
            else:
                own, share = _hats(values, c.new_tensor(self.knots[i]))
                size = len(self.knots[i])
            share = share * known[:, None]
            cell = (cell[:, :, None] * size + own[:, None]).flatten(1)
            part = (part[:, :, None] * share[:, None]).flatten(1)
        return cell, part


def _hats(values: Tensor, knots: Tensor) -> tuple[Tensor, Tensor]:
    """Return the knots on both sides of values ``(m,)``, and the parts of the values there, ``(m, 2)`` both."""
    if len(knots) == 1:
        return torch.zeros_like(values, dtype=torch.long)[:, None], torch.ones_like(values)[:, None]
    right = torch.searchsorted(knots, values.contiguous()).clamp(1, len(knots) - 1)
    low, high = knots[right - 1], knots[right]
    share = ((values - low) / (high - low)).clamp(0, 1)
    return torch.stack([right - 1, right], dim=-1), torch.stack([1 - share, share], dim=-1)
