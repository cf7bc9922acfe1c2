"""What ``rfm fit`` says about the data before it trains, and about the flow when it has."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manifolds import Manifold
from rfm.command_line.run_folder import RunData, describe_run
from rfm.command_line.table_runs import TableRun
from rfm.conditions import Conditions, Number
from rfm.conditions.times import parse_time
from rfm.datasets.column_names import words_of
from rfm.datasets.tables import Table
from rfm.flow import Flow
from rfm.integrators import IntegrationError
from rfm.metrics import paired_difference
from rfm.sources import KernelMixture

_PERIODS = {"month": "12", "hour": "24", "weekday": "7", "dayofweek": "7", "dayofyear": "365.25", "doy": "365.25"}
_FEWEST = 50
"""Rows, below which nothing is concluded about their order."""
_PAIRS = 300
_LOOKED = 20_000
"""Rows whose names are looked at."""
_PLACES = {
    "country",
    "state",
    "region",
    "city",
    "town",
    "municipality",
    "county",
    "province",
    "continent",
    "subd",
    "tz",
}
_PLACES |= {"timezone", "zone", "location", "place", "iso", "icao", "iata"}
"""Words in names of columns that say where a row is: such rows are near each other, and no one event."""
_NEAR = 0.3
"""Rows are alike where their distance is, in the middle, this share of that of rows at random."""
_NEXT = 0.02
"""And this share, where no column says that rows follow each other in time."""
_VALIDATED, _CENTRES = 512, 5000


def warnings_before(run: TableRun, arguments: argparse.Namespace) -> Iterator[str]:
    """Yield what a user should know of the data, a sentence each."""
    found = run.observations
    if len(found.skipped):
        yield found.skipped.describe(len(found.table))
    if found.rounding is not None:
        words = found.rounding.describe(found.coordinates.columns, found.coordinates.unit)
        side = "and split row by row" if found.groups is None else "and split by group"
        yield (
            f"{words}; these are ties, not repeats: points are spread evenly over their cells, {side} (--keep-ties "
            "leaves them)"
        )
    if found.conditions is not None:
        yield from _periodic_names(found.conditions)
    if found.groups is None and arguments.test_share + arguments.validation > 0:
        used = {column.name for column in found.conditions.columns} if found.conditions is not None else set()
        hint = _alike_by_name(run.manifold, found.points, found.table, used) or _alike_in_order(
            run.manifold, found.points, found.table
        )
        if hint:
            yield hint


def _periodic_names(conditions: Conditions) -> Iterator[str]:
    """Yield a sentence for each number that is called like something that comes round again."""
    for column in conditions.columns:
        period = _PERIODS.get("".join(words_of(column.name))) if isinstance(column, Number) else None
        if period is not None:
            yield (
                f"condition {column.name} is taken for a plain number, of which the ends are far apart; "
                f"--condition {column.name}:{period} lets it come round"
            )


def _alike_by_name(manifold: Manifold, points: Tensor, table: Table, used: set[str]) -> str:
    """Return a hint where rows with one name in a column are near each other, in a sentence; empty for none."""
    if len(points) < _FEWEST:
        return ""
    apart = _typical(manifold, *_random_pairs(points))
    for index, name in enumerate(table.names):
        cells = table.columns[index]
        if not table.has_header or cells.mostly_numbers(_FEWEST):
            continue
        if table.key(index) in used or _PLACES & set(words_of(name)):
            continue
        texts = np.array(cells.texts[:_LOOKED])
        if parse_time(str(texts[0])) is not None:
            continue
        labels, counts = np.unique(texts, return_inverse=True, return_counts=True)[1:]
        if not 3 <= len(counts) <= len(texts) / 2:
            continue
        order = np.argsort(labels, kind="stable")
        first, second = order[:-1], order[1:]
        same = labels[first] == labels[second]
        first, second = _some(first[same]), _some(second[same])
        if len(first) and _typical(manifold, points[first], points[second]) < _NEAR * apart:
            return (
                f"rows that share {name!r} ({len(counts):,} different in {len(texts):,} rows) are near each other, and "
                "are held out one by one: if they are of one event or object, the test is too easy, and "
                f"--groups {table.key(index)} holds them out together"
            )
    return ""


def _alike_in_order(manifold: Manifold, points: Tensor, table: Table) -> str:
    """Return a hint where each row is near the one before it, in a sentence; empty for none."""
    if len(points) < _FEWEST:
        return ""
    words = {"time", "seconds", "timestamp", "date"}
    times = [name for name in table.names if table.has_header and words & set(words_of(name))]
    index = torch.from_numpy(_some(np.arange(len(points) - 1)))
    apart = _typical(manifold, *_random_pairs(points))
    # Catalogues that are sorted by a code have neighbours, too, if not as near ones.
    if not _typical(manifold, points[index], points[index + 1]) < (_NEAR if times else _NEXT) * apart:
        return ""
    column = "seconds" if "seconds" in times else [*times, "COLUMN"][0]
    return (
        "each row is near the one before it, as in a track or a sequence, and rows are held out one by one: "
        f"--blocks {column}=SIZE holds out neighbours together, or --groups names them, else the test is too easy"
    )


def _random_pairs(points: Tensor) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(len(points), (2, _PAIRS), generator=generator)
    index = index[:, index[0] != index[1]]
    return points[index[0]], points[index[1]]


def _typical(manifold: Manifold, x: Tensor, y: Tensor) -> float:
    return float(manifold.dist(x, y).median())


def _some(index: NDArray[np.int64]) -> NDArray[np.int64]:
    return index if len(index) <= _PAIRS else index[np.linspace(0, len(index) - 1, _PAIRS).round().astype(int)]


def remarks(flow: Flow, run: TableRun, folder: Path) -> list[str]:
    """Return further remarks on a fit, in lines."""
    return [*_unused(run.unused), *_of_run(run.data, folder), *_no_better(flow, run.data)]


def _unused(columns: Sequence[str]) -> Iterator[str]:
    if columns:
        yield f"columns of numbers that are not used: {', '.join(columns[:12])}{', ...' if len(columns) > 12 else ''}"


def _of_run(data: RunData, folder: Path) -> Iterator[str]:
    if describe_run(data).get("test_blocks") == 1:
        yield "one block tests, which tells nothing of how a test score varies: make --blocks smaller"
    if (folder / "checkpoint.json").exists():
        yield "--resume with a larger --max-seconds goes on"


def _no_better(flow: Flow, data: RunData) -> Iterator[str]:
    """Yield a sentence where the validation points are no likelier under the flow than under its source or a kernel.

    By more than the standard error of the difference, clustered by place or by group.
    """
    index = data.split.validation
    if len(index) > _VALIDATED:
        index = index[torch.linspace(0, len(index) - 1, _VALIDATED).round().long()]
    if not len(index) or data.start is not None or not flow.source.has_density:
        return
    x, groups, weights = flow.manifold.projx(data.points[index]), data.blocks_at(index), data.weights_at(index)
    try:
        own = flow.log_prob(x, **data.conditions_at(index)).double()
    except IntegrationError:
        return
    others = {f"its source, {type(flow.source).__name__},": flow.source.log_prob(x).double()}
    if flow.manifold.kernel is not None:
        train = data.split.train[: len(data.split.train)]
        if len(train) > _CENTRES:
            train = train[torch.linspace(0, len(train) - 1, _CENTRES).round().long()]
        kernel = KernelMixture.one_bandwidth(
            flow.manifold, data.points[train], x, sample_weights=data.weights_at(train)
        )
        others["a kernel density of one bandwidth"] = kernel.log_prob(x).double()
    for name, log_p in others.items():
        gain = paired_difference(own, log_p, x.flatten(1) if groups is None else groups, weights)
        if not gain.mean > (gain.standard_error if gain.has_error else 0.0):
            yield (
                f"validation points are no likelier under the flow than under {name} by more than chance "
                f"({gain.mean:+.3f} nats): look at rfm evaluate and rfm plot before using it"
            )
