"""``--error``: how exact samples and scores have to be, and the fastest solver that is."""

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from rfm.command_line.arguments import positive_number
from rfm.command_line.messages import is_first_process

if TYPE_CHECKING:
    from torch import Tensor

    from rfm.command_line.run_folder import RunData
    from rfm.flow import Flow
    from rfm.integrators import Method

TRIED = 200
"""Points that solvers are compared by."""
_FEW = 5000
"""Up to so many points the comparison takes longer than it saves."""
_ERROR = 1e-3


def add_error(parser: argparse.ArgumentParser, unit: str) -> argparse.Action:
    """Add the error that is allowed, and return the option."""
    return parser.add_argument(
        "--error",
        type=positive_number,
        metavar="SIZE",
        help=f"error allowed in {unit}, at least 1e-5: the fastest solver that keeps it at {TRIED} points\nis used "
        f"(default: {_ERROR:g} for more than {_FEW} points, else an adaptive solver, about 1e-5)",
    )


def chosen_solver(
    arguments: argparse.Namespace,
    total: int,
    unit: str,
    solve: "Callable[[Method], Tensor]",
    distance: "Callable[[Tensor, Tensor], Tensor] | None" = None,
    steps: int | None = None,
) -> "Method | None":
    """Return the fastest solver for ``total`` points, and say which; None, the default, where there are few.

    None as well where ``steps`` jumps are taken in its place. Arguments beside are those of `rfm.flow.fastest_solver`.

    Raises:
        ValueError: for jumps and an error together.
    """
    from rfm.flow import fastest_solver

    if steps is not None:
        if arguments.error is not None:
            raise ValueError("--error is for a solve, and --steps takes jumps in its place; leave out one of the two")
        return None
    if arguments.error is None and total <= _FEW:
        return None
    choice = fastest_solver(solve, _ERROR if arguments.error is None else arguments.error, distance)
    if not arguments.quiet and is_first_process():
        print(f"rfm {arguments.command}: {choice.describe(unit)}", file=sys.stderr)
    return choice.solver


def density_solver(
    arguments: argparse.Namespace, flow: "Flow", data: "RunData", condition: "Tensor | None", total: int
) -> "Method | None":
    """Return the fastest solver for ``total`` log-densities anywhere, compared at some of the run's points."""
    some = data.points[:: max(1, len(data.points) // TRIED)][:TRIED]
    return chosen_solver(
        arguments, total, "nats", lambda solver: flow.log_prob(some, solver=solver, condition=condition)
    )
