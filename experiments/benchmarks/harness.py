"""Timing two ways of doing one thing, in one process, in turns, so that a machine's moods strike both alike.

And the page that a benchmark's figures stand on, with the command, the machine, the versions and the date.
"""

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path

import torch

from experiments.benchmarks.sections import Section, blocks, keep

_STARTED = time.perf_counter()


@dataclass(frozen=True)
class Row:
    """One comparison.

    Args:
        what: what was timed, with sizes.
        ours: median seconds of ours.
        other: median seconds of what it is compared with.
        ratio: median of the ratios ours / other, turn by turn.
        goal: what the ratio should be at most.
        difference: largest difference between the results of both, in the unit that ``checked`` names.
        checked: what was compared.
    """

    what: str
    ours: float
    other: float
    ratio: float
    goal: float
    difference: float
    checked: str

    def line(self) -> str:
        """Return the row of a markdown table."""
        verdict = "yes" if self.ratio <= self.goal else "no"
        return (
            f"| {self.what} | {1e3 * self.ours:.2f} | {1e3 * self.other:.2f} | {self.ratio:.3f} | {self.goal:.2f} | "
            f"{verdict} | {self.checked}: {self.difference:.1e} |"
        )


@dataclass(frozen=True)
class Limit:
    """One figure that is to stay below a bound.

    Args:
        what: what was measured.
        value: the figure.
        goal: what it should be at most.
        unit: of both.
    """

    what: str
    value: float
    goal: float
    unit: str

    def line(self) -> str:
        """Return the row of a markdown table."""
        verdict = "yes" if self.value <= self.goal else "no"
        return f"| {self.what} | {self.value:.3g} {self.unit} | {self.goal:g} {self.unit} | {verdict} |"


LIMIT_HEADER = """\
| what | measured | goal, at most | reached |
|---|---:|---:|---|"""

HEADER = """\
| what | ours, ms | other, ms | ours / other | goal, at most | reached | results compared |
|---|---:|---:|---:|---:|---|---|"""


def in_turns(ours: Callable[[], object], other: Callable[[], object], turns: int = 25) -> tuple[float, float, float]:
    """Return median seconds of both, and the median ratio turn by turn, after three turns to warm up."""
    pairs = []
    for turn in range(turns + 3):
        seconds = []
        # Who goes first alternates: the second finds the caches as the first left them.
        for function in (ours, other) if turn % 2 else (other, ours):
            start = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - start)
        if turn >= 3:
            pairs.append(seconds if turn % 2 else seconds[::-1])
    first, second = zip(*pairs, strict=True)
    ratio = statistics.median(a / b for a, b in pairs)
    return statistics.median(first), statistics.median(second), ratio


def write_page(path: Path, title: str, intro: str, command: str, body: str, packages: tuple[str, ...] = ()) -> None:
    """Keep what was measured as a section of a page, and write the page.

    Args:
        path: the markdown file.
        title: the section's heading.
        intro: what is measured, and how.
        command: what was typed.
        body: the tables.
        packages: whose versions matter, beside torch's.
    """
    gpu = f"{torch.cuda.get_device_name()}, beside " if torch.cuda.is_initialized() else ""
    section = Section(
        title,
        intro.strip(),
        command,
        date.today().isoformat(),
        f"{gpu}{platform.machine()} CPU, {processor()}",
        torch.get_num_threads(),
        {"Python": platform.python_version(), **{name: _version(name) for name in ("torch", *packages)}},
        blocks(body),
        round(time.perf_counter() - _STARTED, 1),
    )
    keep(path, [section])


def versions(packages: tuple[str, ...]) -> str:
    """Return the versions of Python, torch and these packages."""
    of_packages = ", ".join(f"{name} {_version(name)}" for name in ("torch", *packages))
    return f"Python {platform.python_version()}, {of_packages}"


def processor() -> str:
    """Return the name of the processor and how many cores it has."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.processor()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
