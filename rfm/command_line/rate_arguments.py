"""How often events happen: ``--events`` and ``--years``."""

import argparse
from typing import TYPE_CHECKING, Any

from rfm.command_line.arguments import positive_number

if TYPE_CHECKING:
    from rfm.command_line.run_folder import RunData
    from rfm.regions import Rate


def add_rate(parser: Any) -> None:
    """Add how many events happened in how many years."""
    parser.add_argument("--years", type=positive_number, help="in how many years the events of the table happened")
    parser.add_argument(
        "--events", type=positive_number, help="how many happened in them (default: the rows of the table)"
    )


def rate_of(arguments: argparse.Namespace, data: "RunData") -> "Rate | None":
    """Return the rate that the arguments state, None where they state none.

    Raises:
        ValueError: the number of events is given without the years, or is not that of the rows.
    """
    from rfm.regions import Rate

    if arguments.years is None:
        if arguments.events is not None:
            raise ValueError("--events needs to know in how long a time; give --years too")
        return None
    if arguments.events is None and data.weights is not None:
        raise ValueError("the rows of this run have weights, and are no counts of events; give --events")
    return Rate(len(data.points) if arguments.events is None else arguments.events, arguments.years)


def rate_text(rate: "Rate") -> str:
    """Return a rate in a line."""
    low, high = rate.interval_95
    return (
        f"{rate.per_year:.6g} events per year in all (95 % interval {low:.4g} to {high:.4g}), from {rate.events:g} in "
        f"{rate.years:g} years"
    )
