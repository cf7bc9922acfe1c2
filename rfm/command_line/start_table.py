"""The table of start points that ``rfm fit --start`` and ``rfm sample --start`` read."""

import argparse

from torch import Tensor

from rfm.command_line.run_folder import RunData, StartData
from rfm.datasets.coordinates import Coordinates
from rfm.datasets.observations import read_weights
from rfm.datasets.splits import group_split
from rfm.datasets.tables import Table
from rfm.datasets.text_files import read_once

_FEW = 20
"""Of fewer start points none are held out."""


def read_start(file: str, coordinates: Coordinates) -> tuple[Table, Tensor]:
    """Return a table of start points, in the columns of the table that is fitted, and the points."""
    table = coordinates.read(read_once(file))
    return table, coordinates.points(table)


def start_of_table(arguments: argparse.Namespace, coordinates: Coordinates, count: int) -> StartData | None:
    """Return the start points that the arguments of ``rfm fit`` name, with those held out for testing.

    Raises:
        ValueError: for options that contradict each other, or pairs of unequal number.
    """
    if arguments.start is None:
        for given, name in ((arguments.pairs, "--pairs"), (arguments.start_weights, "--start-weights")):
            if given:
                raise ValueError(f"{name} is about the rows of --start; give --start FILE too")
        return None
    if arguments.source is not None:
        raise ValueError("--start says where the flow starts; leave out --source")
    table, points = read_start(arguments.start, coordinates)
    if not arguments.pairs:
        weights = read_weights(table, arguments.start_weights) if arguments.start_weights else None
        return StartData(points, False, weights, _held_out(points, arguments))
    if arguments.start_weights:
        raise ValueError("pairs have one weight, --weights; leave out --start-weights, or --pairs")
    if arguments.coupling != "independent":
        raise ValueError("--pairs says which start point goes with which point; leave out --coupling")
    if len(points) != count:
        raise ValueError(
            f"--pairs pairs row i of both tables, {arguments.start} has {len(points)} rows and the other {count}; "
            "leave it out where rows do not belong together"
        )
    return StartData(points, True)


def _held_out(points: Tensor, arguments: argparse.Namespace) -> Tensor | None:
    if arguments.test_share == 0 or len(points) < _FEW:
        return None
    return group_split(points, arguments.seed, test=arguments.test_share).test


def start_points(data: RunData, arguments: argparse.Namespace) -> Tensor | None:
    """Return the start points that ``rfm sample --start`` names, None where there are none.

    Raises:
        ValueError: for options of draws, which there are none of.
    """
    if arguments.start is None:
        return None
    given = {"-n": arguments.n is not None, "--guidance": arguments.guidance != 1, "--log-prob": arguments.log_prob}
    if taken := [name for name, is_given in given.items() if is_given]:
        raise ValueError(f"--start carries each row of its table to one sample; leave out {', '.join(taken)}")
    return read_start(arguments.start, data.coordinates)[1]
