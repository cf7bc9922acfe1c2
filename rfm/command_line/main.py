"""The command line: what can be asked for, and how a fault is told.

Results go to stdout or ``--out``, progress to stderr. A fault is at most three lines on stderr and exit status 2.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from rfm import __version__

_EPILOG = """\
examples:
  rfm demo                                             fit the world's airports, print a table, draw a map
  rfm fit quakes.csv --manifold sphere --out runs/quakes
  rfm sample runs/quakes -n 10000 --out samples.csv
  rfm log-prob runs/quakes points.csv --out scores.csv
  rfm evaluate runs/quakes                             test likelihood beside kernel densities
  rfm plot runs/quakes --out map.png
  rfm fit track.txt --manifold se3 --blocks seconds=2 --out runs/track
  rfm fit quakes.csv --manifold sphere --condition magnitude region --out runs/by-region
  rfm sample runs/by-region --condition magnitude=6 region=chile --guidance 2
  rfm sample runs/proteins --length 120 -n 16 --out backbones
"""

_MANIFOLD_HELP = """\
sphere: the earth, from latitude and longitude in degrees, or x, y, z;
torus: one angle per column, in degrees; euclidean: plain columns;
so3: orientations, as Bunge's Euler angles (.ang files too), quaternions or matrices; so3/cubic and
so3/hexagonal: of crystals; se3: poses, also of TUM, KITTI and EuRoC tracks;
my_module:thing: a manifold of your own, an object or a class without arguments; the current
folder counts as importable"""


_SOURCE_HELP = """\
where the flow starts: uniform; wrapped-normal (fitted, not on a sphere); kernel (a mixture of
kernels around the training points); my_module:thing, a source or a function of manifold and
points (default: uniform where the volume is finite, else a wrapped normal)"""


_WIDTH = 100
"""Characters in a line of a fault, unless a part of its sentence is longer."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _UsageError(f"{self.prog}: {message}; see {self.prog} --help")


class _UsageError(Exception):
    pass


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status: 0, 2 for bad input, 130 when interrupted.

    Args:
        argv: the arguments; those of the process when None.
    """
    try:
        arguments = parser().parse_args(argv)
    except _UsageError as error:
        return _fail(str(error))
    name = arguments.command
    try:
        # Imported here: it loads torch, which asking for help must not.
        from rfm.command_line import commands

        run = getattr(commands, name.replace("-", "_"))
        return int(run(arguments) or 0)
    except KeyboardInterrupt:
        hint = f"; rfm {name} ... --resume goes on" if getattr(arguments, "out", None) and name == "fit" else ""
        _fail(f"rfm {name}: interrupted{hint}")
        return 130
    except BrokenPipeError:
        # The reader of our stdout has seen enough; keep the interpreter from complaining when it flushes.
        sys.stdout = None
        return 0
    except _faults() as error:
        return _fail(f"rfm {name}: {error}")
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        smaller = "--batch-size" if hasattr(arguments, "batch_size") else "table, or another --device"
        return _fail(f"rfm {name}: the memory is not enough; use a smaller {smaller}")


def _faults() -> tuple[type[Exception], ...]:
    """Return the exceptions that mean bad input or a failed solve, not a defect."""
    from rfm.integrators import IntegrationError

    return ValueError, OSError, IntegrationError


def _is_out_of_memory(error: Exception) -> bool:
    """Return whether memory ran out: torch says so on the CPU in the text of an error of no class of its own."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or "can't allocate memory" in str(error)


def _fail(message: str) -> int:
    print("\n".join(_lines(message)), file=sys.stderr)
    return 2


def _lines(message: str) -> list[str]:
    """Return a sentence in at most three lines, broken between its parts, where these do not fit in one line."""
    first, *parts = "; ".join(filter(str.strip, message.splitlines())).split("; ")
    lines = [first]
    for part in parts:
        if len(lines[-1]) + len(part) < _WIDTH or len(lines) == 3:
            lines[-1] += f"; {part}"
        else:
            lines[-1] += ";"
            lines.append(part)
    return lines


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    top = _Parser(
        prog="rfm",
        description="Fit, sample and score probability densities on curved spaces by Riemannian flow matching.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"rfm {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="command", parser_class=_Parser)
    _add_fit(commands)
    _add_sample(commands)
    _add_log_prob(commands)
    _add_evaluate(commands)
    _add_plot(commands)
    _add_demo(commands)
    _add_check(commands)
    return top


def _command(commands: Any, name: str, summary: str, *, run: bool = False) -> argparse.ArgumentParser:
    one: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        formatter_class=argparse.RawTextHelpFormatter,
    )
    if run:
        one.add_argument("run", help="folder that rfm fit made")
        one.add_argument("--manifold", metavar="MODULE:NAME", help="a manifold of your own, if it was fitted on one")
        one.add_argument("--source", metavar="MODULE:NAME", help="a source of your own, if it was fitted from one")
    return one


def _add_fit(commands: Any) -> None:
    one = _command(commands, "fit", "fit a flow to the points of a table")
    one.add_argument("table", help="text file or - (stdin), a point per row: comma, tab, semicolon or space separated")
    one.add_argument("--manifold", required=True, metavar="NAME", help=_MANIFOLD_HELP)
    one.add_argument(
        "--out", required=True, type=_path, metavar="FOLDER", help="folder for the flow, its data and checkpoints"
    )
    one.add_argument(
        "--columns",
        nargs="+",
        metavar="COLUMN",
        help="columns that hold the points, by name, or by number from 1;\nfound by name (lat, longitude, x, ...) or "
        "position by default",
    )
    unit = one.add_mutually_exclusive_group()
    unit.add_argument("--radians", action="store_true", default=None, help="angles are in radians, not degrees")
    unit.add_argument(
        "--degrees",
        action="store_false",
        dest="radians",
        default=None,
        help="angles are in degrees, however small (default, unless the columns' names say radians)",
    )
    one.add_argument(
        "--format",
        choices=("tum", "tum_ms", "tum_us", "tum_ns", "kitti", "euroc", "ang", "bunge", "xyzw", "wxyz", "matrix"),
        help="how the file (tum, kitti, euroc, ang) or the columns of a rotation (bunge, xyzw, wxyz, matrix)\nare "
        "written, where its header does not say; xyzw and wxyz are quaternions with the real part last or first;\n"
        "times of tum are in seconds, of tum_ns in nanoseconds",
    )
    one.add_argument(
        "--length",
        type=_positive_number,
        help="unit of length of --manifold se3, in which a metre, say, counts like a radian\n(default: the spread of "
        "the positions)",
    )
    one.add_argument(
        "--condition",
        nargs="+",
        metavar="COLUMN",
        help="columns the density is conditional on: numbers, or text, which is labels;\nempty cells are not known",
    )
    one.add_argument(
        "--label", nargs="+", metavar="COLUMN", help="those of --condition whose numbers are labels, such as years"
    )
    one.add_argument(
        "--weights", metavar="COLUMN", help="column of weights of the points, in training, validation and rfm evaluate"
    )
    one.add_argument("--source", metavar="NAME", help=_SOURCE_HELP)
    one.add_argument(
        "--coupling",
        choices=("independent", "optimal-transport", "sinkhorn"),
        default="independent",
        help="pairing of source and data points in each batch (default: independent);\n"
        "sinkhorn is for large batches on a GPU",
    )
    one.add_argument("--steps", type=_positive, help="optimiser steps (default: by the number of points, 2000 to 8000)")
    one.add_argument("--batch-size", type=_positive, help="pairs per step (default: 512)")
    one.add_argument("--max-seconds", type=_positive_number, help="cap on all of the training time (default: none)")
    one.add_argument(
        "--test-share",
        type=_share,
        default=0.1,
        help="share of the points held out for rfm evaluate (default: 0.1);\nequal points never cross the split",
    )
    one.add_argument(
        "--blocks",
        nargs="+",
        metavar="COLUMN=SIZE",
        help="rows in one block of these columns, such as seconds=2 or x=30 y=30, are held out together:\n"
        "neighbours on a map or in time are no independent test",
    )
    one.add_argument("--device", help="cpu, cuda, ... (default: a GPU where there is one)")
    _add_seed(one)
    group = one.add_mutually_exclusive_group()
    group.add_argument("--resume", action="store_true", help="go on with an interrupted or capped run in --out")
    group.add_argument("--force", action="store_true", help="replace the flow in --out")
    _add_output(one)


def _add_sample(commands: Any) -> None:
    one = _command(commands, "sample", "draw points, in the columns and units of the table that was fitted", run=True)
    one.add_argument("-n", type=_positive, metavar="COUNT", help="how many (default: 1000)")
    group = one.add_mutually_exclusive_group()
    _add_condition(group)
    group.add_argument(
        "--condition-file", metavar="FILE", help="table (- for stdin) with the condition columns; a sample for each row"
    )
    one.add_argument(
        "--guidance",
        type=_number,
        default=1.0,
        help="weight of classifier-free guidance (default: 1, none): above 1 the samples\nare more typical of the "
        "condition than the data are",
    )
    one.add_argument("--log-prob", action="store_true", help="add columns with the log-density of each sample")
    _add_backbones(one)
    _add_batch_size(one)
    _add_seed(one)
    _add_table_output(one)


def _add_log_prob(commands: Any) -> None:
    one = _command(commands, "log-prob", "score the points of a table: log-density in nats, in row order", run=True)
    one.add_argument("table", help="text file with the same columns as the table that was fitted, or - for stdin")
    _add_condition(one, "; the table's columns by default")
    _add_batch_size(one)
    _add_table_output(one)


def _add_evaluate(commands: Any) -> None:
    one = _command(
        commands, "evaluate", "print the test likelihood of a flow beside uniform and kernel densities", run=True
    )
    _add_output(one)


def _add_plot(commands: Any) -> None:
    one = _command(commands, "plot", "draw a flow: a map, a Ramachandran plot, ... by manifold", run=True)
    _add_condition(one, "; the data drawn are those nearest to it")
    one.add_argument("--out", type=_path, metavar="FILE", help="PNG file (default: density.png in the run's folder)")
    one.add_argument("--force", action="store_true", help="replace the file")


def _add_demo(commands: Any) -> None:
    one = _command(commands, "demo", "fit real data of the earth's surface, print a table, draw a map")
    one.add_argument(
        "dataset",
        nargs="?",
        default="airports",
        choices=("airports", "volcano", "earthquake", "flood", "fire"),
        help="airports comes with the installation (default); the others are looked for in\nthe folder RFM_DATA, then "
        "downloaded",
    )
    one.add_argument("--out", type=_path, metavar="FOLDER", help="folder for everything (default: runs/demo-DATASET)")
    one.add_argument(
        "--max-seconds", type=_positive_number, default=150.0, help="cap on the training time (default: 150)"
    )
    one.add_argument("--device", help="cpu, cuda, ... (default: a GPU where there is one)")
    _add_seed(one)
    _add_output(one)


def _add_check(commands: Any) -> None:
    one = _command(commands, "check", "test a manifold of your own against the laws it must keep")
    one.add_argument("manifold", metavar="MODULE:NAME", help="an object, or a class without arguments")
    one.add_argument("--compile", action="store_true", help="also capture every method with torch.compile")
    _add_seed(one)


def _add_backbones(one: argparse.ArgumentParser) -> None:
    group = one.add_argument_group("for flows of protein backbones", "which are written to a folder as .pdb and .cif")
    group.add_argument(
        "--length", type=_residues, nargs="+", metavar="RESIDUES", help="of the backbones; -n (16) of each are drawn"
    )
    group.add_argument("--steps", type=_positive, help="evaluations of the network (default: 100)")
    group.add_argument(
        "--rotation-schedule",
        choices=("exponential", "linear"),
        help="exponential: rotations run ahead, as 1 - exp(-RATE t) (default)",
    )
    group.add_argument(
        "--rotation-rate",
        type=_positive_number,
        metavar="RATE",
        help="of that schedule (default: 10); a higher one draws more regular, less varied chains",
    )
    group.add_argument(
        "--motif",
        nargs=3,
        action="append",
        metavar=("FILE", "RESIDUES", "PLACE"),
        help="hold residues of a structure, such as 1abc.pdb A:10-25, from this place on,\ncounted from 1, while the "
        "rest is drawn; may be given several times",
    )
    group.add_argument(
        "--open-bonds",
        action="store_true",
        help="leave residues where they were drawn, instead of closing the bonds between them",
    )


def _add_condition(one: Any, more: str = "") -> None:
    one.add_argument(
        "--condition",
        nargs="+",
        metavar="NAME=VALUE",
        default=[],
        help=f"what is known of the columns it is conditional on{more}",
    )


def _add_seed(one: argparse.ArgumentParser) -> None:
    one.add_argument("--seed", type=_seed, default=0, help="seed of every random draw (default: 0)")


def _add_batch_size(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--batch-size",
        type=_positive,
        default=4096,
        help="points computed together, which bounds memory (default: 4096)",
    )


def _add_output(one: argparse.ArgumentParser) -> None:
    one.add_argument("--json", action="store_true", help="print the result as JSON")
    one.add_argument("--quiet", action="store_true", help="no progress on stderr")


def _add_table_output(one: argparse.ArgumentParser) -> None:
    one.add_argument("--out", type=_path, metavar="FILE", help="file to write (default: stdout)")
    one.add_argument("--force", action="store_true", help="replace the file")
    _add_output(one)


def _path(text: str) -> str:
    if not text.strip():
        # An empty name, as a script's unset variable gives it, would stand for the current folder.
        raise argparse.ArgumentTypeError("must name a file or a folder, got nothing")
    return text


def _number(text: str) -> float:
    value = float(text)
    if value != value or value in (float("inf"), float("-inf")):
        raise argparse.ArgumentTypeError(f"must be a finite number, got {text}")
    return value


def _positive_number(text: str) -> float:
    value = _number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 10**9:
        raise argparse.ArgumentTypeError(f"must be at least 1 and at most a billion, got {text}")
    return value


def _residues(text: str) -> int:
    value = int(text)
    if not 2 <= value <= 2048:
        raise argparse.ArgumentTypeError(f"must be at least 2 and at most 2048 residues, got {text}")
    return value


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"must be at least 0 and below 2^63, got {text}")
    return value


def _share(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 0.5:
        raise argparse.ArgumentTypeError(f"must be between 0 and 0.5, got {text}")
    return value


for _convert, _kind in ((_number, "number"), (_positive_number, "number"), (_positive, "whole number")):
    # argparse words a value that does not convert as "invalid KIND value".
    _convert.__name__ = _kind
_seed.__name__ = _residues.__name__ = "whole number"
_share.__name__ = "number"
