"""The command line: its verbs, a file each, and how a fault is reported.

Results go to stdout or ``--out``, progress to stderr. A fault is at most three lines on stderr and exit status 2.
"""

import argparse
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from rfm import __version__
from rfm.command_line import (
    animate,
    check,
    compare,
    data,
    demo,
    distil,
    evaluate,
    fit,
    grid,
    log_prob,
    models,
    plot,
    posterior,
    probability,
    refold,
    regions,
    report,
    sample,
)

# Each declares its arguments (`add_arguments`) and does its work (`run`), where alone it imports what loads torch.
_VERBS: dict[str, ModuleType] = {
    "fit": fit,
    "sample": sample,
    "log-prob": log_prob,
    "posterior": posterior,
    "distil": distil,
    "evaluate": evaluate,
    "compare": compare,
    "grid": grid,
    "probability": probability,
    "regions": regions,
    "plot": plot,
    "animate": animate,
    "report": report,
    "demo": demo,
    "data": data,
    "models": models,
    "refold": refold,
    "check": check,
}

_EPILOG = """\
examples:
  rfm demo                                             fit the world's airports, print a table, draw a map
  rfm data earthquakes --out quakes.csv                write a published data set
  rfm fit quakes.csv --manifold sphere --out runs/quakes
  rfm sample runs/quakes -n 10000 --out samples.csv
  rfm log-prob runs/quakes points.csv --out scores.csv
  rfm posterior runs/quakes --given latitude=10±2 longitude=179+-5 -n 1000 --out draws.csv
  rfm distil runs/quakes --out runs/fast               then rfm sample runs/fast --steps 1
  rfm evaluate runs/quakes                             test likelihood beside kernel densities
  rfm compare runs/quakes runs/other points.csv        which of two fits is the better one
  rfm grid runs/quakes --out density.nc                for xarray, QGIS and GMT; .tif and .csv too
  rfm probability runs/quakes --box south=30 north=40 west=-10 east=20
  rfm regions runs/quakes --probabilities 50 90 --out regions.geojson
  rfm plot runs/quakes --out map.png                   or .pdf, .svg; .html turns and zooms
  rfm animate runs/quakes --out flow.gif               or .mp4; .html with a slider of the time
  rfm report runs/quakes --out report.html             one page: data, fit, likelihoods, map, calibration, caveats
  rfm fit track.txt --manifold se3 --blocks seconds=2 --out runs/track
  rfm fit quakes.csv --manifold sphere --condition magnitude region --out runs/by-region
  rfm sample runs/by-region --condition magnitude=6 region=chile --guidance 2
  rfm sample --model backbones --length 120 -n 16 --out backbones
"""

_PART_ROWS = 65_536

_WIDTH = 120
"""Characters in a line of a fault, unless a part of its sentence is longer."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _UsageError(f"{self.prog}: {message}; see {self.prog} --help")


class _UsageError(Exception):
    pass


def main(argv: Sequence[str] | None = None, *, part_rows: int = _PART_ROWS) -> int:
    """Run a command; return the exit status: 0, 2 for bad input, 130 when interrupted.

    Args:
        argv: the arguments; those of the process when None.
        part_rows: of a long output, how many rows are computed before they are written. Random draws depend on it, and
            so not on the size of batches.
    """
    try:
        arguments = parser().parse_args(argv)
    except _UsageError as error:
        return _fail(str(error))
    name, arguments.part_rows = arguments.command, part_rows
    try:
        return int(arguments.work(arguments) or 0)
    except KeyboardInterrupt:
        hint = (
            f"; rfm {name} ... --resume goes on"
            if getattr(arguments, "out", None) and name in ("fit", "distil", "sample", "log-prob", "posterior")
            else ""
        )
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
    """Return whether memory ran out: torch reports it on the CPU in the text of an error of no class of its own."""
    by_class = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return by_class or "can't allocate memory" in str(error)


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
    for name, verb in _VERBS.items():
        verb_parser = commands.add_parser(
            name,
            help=verb.SUMMARY,
            description=f"{verb.SUMMARY[0].upper()}{verb.SUMMARY[1:]}.",
            formatter_class=argparse.RawTextHelpFormatter,
        )
        verb.add_arguments(verb_parser)
        verb_parser.set_defaults(work=verb.run)
    return top
