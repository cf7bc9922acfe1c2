"""Progress bars on stderr."""

import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

Report = Callable[[float, dict[str, Any]], None]
"""Is called after every step of a training with the share of the budget that is spent and a record: step, loss, whether
the step was replayed as a graph, the last validation. While the flow is refined after that, the record has the share of
this stage that is done too, ``refinement``."""


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


@contextmanager
def training_bar(show: bool | Report) -> Iterator[Report | None]:
    """Yield a function that takes the share of the budget spent and a record, and shows both; None if not to show.

    The bar shows the budget and not the steps, because a run may be bounded by time. Instead of whether to show it, the
    function may be given.
    """
    if callable(show):
        yield show
        return
    if not show:
        yield None
        return
    from tqdm import tqdm

    form = "{desc} {percentage:3.0f}%|{bar}|{postfix}"
    interval = 0.5 if sys.stderr.isatty() else 10.0
    with tqdm(total=1.0, desc="fit", bar_format=form, file=_stderr(), ncols=110) as bar:
        first: list[float] = []
        shown = [0.0]

        def report(spent: float, record: dict[str, Any]) -> None:
            now = time.monotonic()
            if "refinement" in record:
                spent = record["refinement"]
                if bar.desc != "refine":
                    bar.set_description_str("refine", refresh=False)
                    first.clear()
            if not first:
                first.extend([now, spent])
            if now - shown[0] < interval and spent < 1:
                return
            shown[0] = now
            done = spent - first[1]
            left = f"{_clock((now - first[0]) * (1 - spent) / done)} left" if done > 0 else "time left unknown yet"
            known = {name: value for name, value in record.items() if name.startswith("validation_")}
            validation = ", ".join(map(_validated, known.items())) or "not validated yet"
            if "flow_nll" in record:
                validation = f"refined {validation}"
            bar.n = min(spent, 1.0)
            bar.set_postfix_str(
                f"step {record['step']}, loss {float(record['loss']):.3f}, {validation}, {left}",
                refresh=False,
            )
            bar.refresh()

        yield report


class _Lines(io.TextIOBase):
    """A stream for a file, where a carriage return does not take the last state of a bar away: each state is a line."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        if state := text.strip():
            self.stream.write(f"{state}\n")
        return len(text)

    def flush(self) -> None:
        self.stream.flush()


def _stderr() -> TextIO:
    return sys.stderr if sys.stderr.isatty() else cast(TextIO, _Lines(sys.stderr))


def _validated(item: tuple[str, float]) -> str:
    name, value = item
    return f"validation NLL {value:.3f} nats" if name == "validation_nll" else f"{name.replace('_', ' ')} {value:.3f}"


@contextmanager
def counting_bar(
    show: bool | Callable[[int], Any], name: str, total: int, unit: str = "points"
) -> Iterator[Callable[[int], Any]]:
    """Yield a function that counts points, or another unit, done; tqdm shows the rate and the time left.

    Instead of whether to show them, the function that counts may be given, of a bar over more than these points.
    """
    if callable(show):
        yield show
        return
    if not show:
        yield lambda count: None
        return
    from tqdm import tqdm

    # Where stderr is a file, each state is a line: a few of them do.
    interval = 0.1 if sys.stderr.isatty() else 10.0
    with tqdm(total=total, desc=name, unit=f" {unit}", file=_stderr(), mininterval=interval) as bar:
        yield bar.update
