"""Times of steps that are settled before the solve."""

import itertools
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Mesh:
    """Steps that are equal, or shrink towards the data.

    Args:
        steps: number of steps over the full span of times, shared between the output times in proportion to the
            distances between them, at least one each.
        grading: the exponent g of the times ``1 - (1 - s)^g`` at which steps end, for equally spaced s, as shares of
            the span from its earliest time to its latest, whichever way it is solved; 1 makes equal steps.
        shift: by how much of a step the times between output times are moved, in the direction of the solve, more than
            -1 and less than 1.
    """

    steps: int
    grading: float = 1.0
    shift: float = 0.0

    def check(self, method: str) -> None:
        """Raise ValueError, in the name of a method, for numbers that make no mesh."""
        if self.steps < 1:
            raise ValueError(f"{method}: steps must be at least 1, got {self.steps}")
        if not 1 <= self.grading < math.inf:
            raise ValueError(f"{method}: grading must be a number of at least 1, got {self.grading}")
        if not -1 < self.shift < 1:
            raise ValueError(f"{method}: shift must be a number between -1 and 1, got {self.shift}")

    def between(self, times: tuple[float, ...]) -> list[list[float]]:
        """Return the times at which steps begin and end, one list for each pair of consecutive output times."""
        low, high = min(times), max(times)
        places = [1 - ((high - t) / (high - low)) ** (1 / self.grading) for t in times]
        meshes = []
        for (start, first), (end, last) in itertools.pairwise(zip(times, places, strict=True)):
            count = max(1, round(self.steps * abs(last - first)))
            inner = (first + (last - first) * (i + self.shift) / count for i in range(1, count))
            mesh = [start, *(high - (high - low) * (1 - s) ** self.grading for s in inner), end]
            # With a high grading the last steps are shorter than rounding: none at all.
            meshes.append(list(dict.fromkeys(mesh)))
        return meshes
