"""Arguments of several verbs, and the types of their values; nothing here loads torch, which ``--help`` must not."""

import argparse
from collections.abc import Iterable
from typing import Any


def add_run(parser: argparse.ArgumentParser, packaged: bool = False) -> argparse.Action:
    """Add the folder of a run; return ``--source``.

    Args:
        parser: of the verb.
        packaged: accept ``--model NAME``, a trained flow that comes with the package, in its place: see `run_or_model`.
    """
    if packaged:
        parser.add_argument("run", nargs="?", help="folder that rfm fit made; or --model")
        parser.add_argument("--model", metavar="NAME", help="a flow that comes with the package: see rfm models")
    else:
        parser.add_argument("run", help="folder that rfm fit made")
        parser.set_defaults(model=None)
    parser.add_argument("--manifold", metavar="MODULE:NAME", help="a manifold of your own, if it was fitted on one")
    return parser.add_argument(
        "--source", metavar="MODULE:NAME", help="a source of your own, if it was fitted from one"
    )


def run_or_model(arguments: argparse.Namespace) -> str:
    """Return the folder of the run, or of the packaged model that was named in its place.

    Raises:
        ValueError: if both are given, or neither, or there is no such model.
    """
    from rfm import models

    if (arguments.run is None) == (arguments.model is None):
        found = "neither" if arguments.run is None else "both"
        raise ValueError(
            f"give either the folder of a run or --model NAME, got {found}; see rfm models for their names, and --help"
        )
    return str(arguments.run if arguments.model is None else models.folder(arguments.model))


def add_condition(parser: Any, more: str = "") -> argparse.Action:
    """Add values of conditions, and return the option; ``more`` is added to its help."""
    action: argparse.Action = parser.add_argument(
        "--condition",
        nargs="+",
        metavar="NAME=VALUE",
        default=[],
        help=f"what is known of the columns it is conditional on{more}",
    )
    return action


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add the seed."""
    parser.add_argument("--seed", type=seed, default=0, help="seed of every random draw (default: 0)")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add the device."""
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU where there is one)")


def add_batch_size(parser: argparse.ArgumentParser) -> argparse.Action:
    """Add the number of points computed together, and return the option."""
    return parser.add_argument(
        "--batch-size",
        type=positive,
        default=4096,
        help="points computed together, which bounds memory (default: 4096)",
    )


def add_output(parser: argparse.ArgumentParser) -> argparse.Action:
    """Add options for the report of results and progress; return ``--json``."""
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return parser.add_argument("--json", action="store_true", help="print the result as JSON")


def add_table_output(parser: argparse.ArgumentParser) -> argparse.Action:
    """Add where a table is written; return ``--json``."""
    parser.add_argument("--out", type=path, metavar="FILE", help="file to write, .csv or .parquet (default: stdout)")
    parser.add_argument("--force", action="store_true", help="replace the file")
    parser.add_argument("--resume", action="store_true", help="go on with what an interrupted command has written")
    return add_output(parser)


def reject_options(arguments: argparse.Namespace, options: Iterable[argparse.Action], reason: str) -> None:
    """Raise ValueError if one of some options is given; ``reason`` states what it is, or is not, for."""
    for option in options:
        if getattr(arguments, option.dest) != option.default:
            raise ValueError(f"{option.option_strings[-1]} is {reason}; leave it out")


def path(text: str) -> str:
    """Return a name that is not empty."""
    if not text.strip():
        # An empty name, as a script's unset variable gives it, would stand for the current folder.
        raise argparse.ArgumentTypeError("must name a file or a folder, got nothing")
    return text


def number(text: str) -> float:
    """Return a finite number."""
    value = float(text)
    if value != value or value in (float("inf"), float("-inf")):
        raise argparse.ArgumentTypeError(f"must be a finite number, got {text}")
    return value


def positive_number(text: str) -> float:
    """Return a finite number above 0."""
    value = number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return value


def positive(text: str) -> int:
    """Return a whole number, at least 1."""
    value = int(text)
    if not 1 <= value <= 10**9:
        raise argparse.ArgumentTypeError(f"must be at least 1 and at most a billion, got {text}")
    return value


def residues(text: str) -> int:
    """Return a number of residues."""
    value = int(text)
    if not 2 <= value <= 2048:
        raise argparse.ArgumentTypeError(f"must be at least 2 and at most 2048 residues, got {text}")
    return value


def seed(text: str) -> int:
    """Return a seed."""
    value = int(text)
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"must be at least 0 and below 2^63, got {text}")
    return value


def share(text: str) -> float:
    """Return a share of at most a half."""
    value = number(text)
    if not 0 <= value <= 0.5:
        raise argparse.ArgumentTypeError(f"must be between 0 and 0.5, got {text}")
    return value


def percentage(text: str) -> float:
    """Return a percentage as a probability above 0 and below 1."""
    value = number(text.removesuffix("%"))
    if not 0 < value < 100:
        raise argparse.ArgumentTypeError(f"must be above 0 and below 100 percent, got {text}")
    return value / 100


for _convert, _kind in ((number, "number"), (positive_number, "number"), (positive, "whole number")):
    # argparse words a value that does not convert as "invalid KIND value".
    _convert.__name__ = _kind
seed.__name__ = residues.__name__ = "whole number"
share.__name__ = percentage.__name__ = "number"
