"""Wind directions: a density on the circle, as measured, rounded to one degree and rounded to ten.

Directions from two lobes whose density is known, so that the table has the entropy: no test NLL can fall below it but
by chance. Reports round to one degree or to ten. Rounded values are ties of an instrument, not repeats of an event:
splits are by row, and each value is spread evenly over its cell, alike for training, validation and test.

    python -m experiments.winds [--seeds 5] [--out runs/winds]
"""

import argparse
import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from experiments.density_study import Density, Problem, add_arguments, measure, tables
from manifolds import FlatTorus
from rfm.datasets import raw_split

COUNT = 1500
LOBES = ((225.0, 8.0, 0.6), (45.0, 3.0, 0.4))
"""Direction in degrees, von Mises concentration, share: a prevailing wind and its opposite, broader."""

ROUNDINGS = {"continuous": 0.0, "to 1 degree": 1.0, "to 10 degrees": 10.0}


def true_log_prob(x: Tensor) -> Tensor:
    """Return the log-density that the directions come from, at angles ``(n, 1)`` in radians."""
    parts = []
    for degrees, concentration, share in LOBES:
        lobe = torch.distributions.VonMises(torch.tensor(math.radians(degrees)), torch.tensor(concentration))
        parts.append(lobe.log_prob(x[:, 0]) + math.log(share))
    return torch.stack(parts).logsumexp(0)


def winds(rounding: float, count: int = COUNT) -> Tensor:
    """Return directions in radians, ``(count, 1)``, rounded to so many degrees and spread over their cells again."""
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(count, 3, generator=generator, dtype=torch.float64)
    # By the inverse of the distribution function on a fine grid, about one part in a million of a turn.
    grid = torch.linspace(-math.pi, math.pi, 2**20 + 1, dtype=torch.float64)
    mass = (true_log_prob(grid[:, None]).exp()).cumsum(0)
    x = grid[torch.searchsorted(mass / mass[-1], uniform[:, 0].contiguous()).clamp(max=len(grid) - 1)]
    if rounding:
        cell = math.radians(rounding)
        x = (x / cell).round() * cell + (uniform[:, 1] - 0.5) * cell
    return FlatTorus(1).projx(x[:, None])


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit every split that has not been, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m experiments.winds", description=__doc__.split("\n")[0])
    add_arguments(parser, "runs/winds")
    options = parser.parse_args(arguments)
    if options.quick:
        options.seeds, options.steps, options.integral_points = 1, options.steps or 20, 200

    def truth(train: Tensor, validation: Tensor, seed: int) -> Density:
        return true_log_prob

    found = {}
    for name, rounding in ROUNDINGS.items():
        points = winds(rounding, 200 if options.quick else COUNT)
        one = Problem(
            name,
            FlatTorus(1),
            points,
            torch.arange(len(points)),
            functools.partial(raw_split, len(points)),
            range(options.seeds),
            {"the true density": truth},
        )
        found[name] = (one, measure(one, options))
    print(tables(found))


if __name__ == "__main__":
    main()
