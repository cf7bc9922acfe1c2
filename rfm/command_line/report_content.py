"""What a report on a run says: sections of sentences, tables and plain values, in no format yet."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rfm import __version__
from rfm.command_line.caveats import caveats
from rfm.command_line.evaluation import Evaluation, evaluate
from rfm.command_line.fitted_runs import fitted_record
from rfm.command_line.run_folder import RunData, describe_run
from rfm.command_line.transport_evaluation import TransportEvaluation, evaluate_transport
from rfm.flow import Flow
from rfm.integrators import Adaptive
from rfm.records.descriptions import read_json
from rfm.regions import Coverage, coverage
from rfm.statistics import frechet_mean

_SOLVED_TWICE = 100
_CENTRE_POINTS, _ALIKE = 20_000, 1.02
"""Points that their mean is taken of, and up to which ratio of variances two centres are equally good."""
_FINE = Adaptive(atol=1e-7, rtol=1e-7)


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Args:
        name: by which it is found in JSON.
        title: above it.
        sentences: its text.
        header: of its table.
        rows: of its table.
        record: its content as plain values, for JSON.
    """

    name: str
    title: str
    sentences: Sequence[str] = ()
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    record: Mapping[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """Return the section as lines of text."""
        lines = [self.title, "-" * len(self.title)]
        table = [self.header, *self.rows] if self.header else self.rows
        if table:
            widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
            for row in table:
                # Numbers stand under each other; a list of properties has none.
                others = zip(row[1:], widths[1:], strict=True)
                cells = [row[0].ljust(widths[0]), *(c.rjust(w) if self.header else c.ljust(w) for c, w in others)]
                lines.append("  ".join(cells).rstrip())
        return "\n".join([*lines, *self.sentences])


@dataclass(frozen=True)
class Report:
    """A report on a run.

    Args:
        title: of the report.
        sections: in their order.
        coverage: for the picture of the reliability; None where there is none.
    """

    title: str
    sections: Sequence[Section]
    coverage: Coverage | None = None

    def text(self) -> str:
        """Return the report as text."""
        return "\n\n".join([f"{self.title}\n{'=' * len(self.title)}", *(section.text() for section in self.sections)])

    def record(self) -> dict[str, Any]:
        """Return the report as plain values, for JSON."""
        return {"title": self.title} | {section.name: dict(section.record) for section in self.sections}


def report_on(
    flow: Flow, data: RunData, folder: Path, title: str | None = None, note: Callable[[str], None] = lambda text: None
) -> Report:
    """Return the report on a run: data, split, fit, test likelihood, calibration, caveats.

    Args:
        flow: the flow.
        data: its data.
        folder: of the run.
        title: of the report; names the data by default.
        note: receives messages on what is being computed.
    """
    evaluation: Evaluation | TransportEvaluation | None = None
    if data.start is not None:
        evaluation = evaluate_transport(flow, data, data.start)
    elif len(data.split.test):
        evaluation = evaluate(flow, data, note)
    found, error = None, None
    if flow.source.has_density and len(data.split.test):
        note("calibration")
        found = _coverage(flow, data)
        note("error of the solver")
        error = _solver_error(flow, data)
    sections = [_data(flow, data), _split(data), _fit(flow, data, folder), _test(evaluation), _density(flow, folder)]
    if found is not None:
        sections.append(_calibration(found))
    sentences = caveats(flow, data, evaluation, found, error)
    more: dict[str, Any] = {} if error is None else {"solver_error_nats": error}
    sections.append(Section("caveats", "Caveats", sentences, record={"sentences": list(sentences)} | more))
    return Report(title or f"A density fitted to {data.source}", sections, found)


def _data(flow: Flow, data: RunData) -> Section:
    n, distinct = len(data.points), len(data.points.unique(dim=0))
    rows = [
        ("source", data.source),
        ("points", f"{n:,}, {distinct:,} of them different"),
        ("read from", data.coordinates.describe()),
        ("manifold", str(flow.manifold)),
        ("centre", _centre(flow, data)),
        ("weights", "equal" if data.weights is None else "one for each point"),
    ]
    rows += [("conditional on", flow.conditions.describe())] if flow.conditions is not None else []
    rows += [("SHA-256 of the table", data.sha256)] if data.sha256 else []
    record = describe_run(data) | {"points": n, "different_points": distinct, "manifold": str(flow.manifold)}
    return Section("data", "Data", (), (), rows, record | {"sha256": data.sha256})


def _centre(flow: Flow, data: RunData) -> str:
    """Return the Fréchet mean of the points and how far they spread, in words."""
    points, weights = data.points, data.weights
    if len(points) > _CENTRE_POINTS:
        rows = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:_CENTRE_POINTS]
        points, weights = points[rows], None if weights is None else weights[rows]
    found = frechet_mean(flow.manifold, points, weights)
    if found.runner_up is not None and found.runner_up < _ALIKE * found.variance:
        return f"none: places far apart are equally central; standard deviation {found.standard_deviation:.3g}"
    cells = data.coordinates.columns_of(found.point[None])[0].tolist()
    named = ", ".join(f"{name} {value:.4g}" for name, value in zip(data.coordinates.names, cells, strict=True))
    return f"{named}; standard deviation {found.standard_deviation:.3g} in the unit of the metric"


def _split(data: RunData) -> Section:
    named = ("training", data.split.train), ("validation", data.split.validation), ("test", data.split.test)
    total = max(len(data.points), 1)
    rows = [(name, f"{len(index):,}", f"{100 * len(index) / total:.1f} %") for name, index in named]
    how = (
        "Equal points are on one side of the split; else it is by row, at random."
        if data.blocks is None
        else f"Whole blocks of rows were held out: {len(data.blocks[data.split.test].unique()):,} for the test."
    )
    record = {name: len(index) for name, index in named} | {"by_block": data.blocks is not None}
    return Section("split", "Split", (how,), ("part", "points", "share"), rows, record)


def _fit(flow: Flow, data: RunData, folder: Path) -> Section:
    record = fitted_record(flow, data, folder)
    settings = read_json(folder / "fit.json").get("settings", {}) if (folder / "fit.json").is_file() else {}
    parameters = sum(p.numel() for p in flow.parameters())
    best = record["validation_nll_nats"]
    rows = [
        ("steps", "unknown" if record["steps"] is None else f"{record['steps']:,}"),
        ("seconds", f"{record['seconds'] or 0:.0f}, and {record['refinement_seconds'] or 0:.0f} of refinement"),
        ("validation NLL", "unknown" if best is None else f"{best:.3f} nats"),
        ("source", type(flow.source).__name__),
        ("parameters", f"{parameters:,}"),
        *((name.replace("_", " "), str(value)) for name, value in settings.items() if name in ("seed", "batch_size")),
        ("software", f"rfm {__version__}, torch {torch.__version__}"),
    ]
    sentences = [f"Training ended because {flow.stopped}." if flow.stopped else ""]
    sentences += [line if line.endswith(".") else f"{line}." for line in flow.refinement_report.splitlines() if line]
    kept = ("steps", "seconds", "refinement_seconds", "validation_nll_nats", "stopped", "refinement_report")
    values = {name: record[name] for name in kept} | {"parameters": parameters, "settings": settings}
    return Section("fit", "Fit", [s for s in sentences if s], (), rows, values | {"rfm": __version__})


def _test(evaluation: Evaluation | TransportEvaluation | None) -> Section:
    title = "Test likelihood"
    if evaluation is None:
        return Section("test", title, ("No test points were held out: nothing here says how good the density is.",))
    if isinstance(evaluation, TransportEvaluation):
        lines = evaluation.table().splitlines()
        return Section("test", "Beside the test points", lines, record=evaluation.record())
    header = ("model", "test NLL, nats", "standard error", "independent places or blocks")
    rows = [(name, f"{e.mean:.3f}", e.error_text(), f"{e.count:,}") for name, e in evaluation.rows]
    # The table's own lines are above: what follows them are its sentences.
    sentences = evaluation.table().splitlines()[1 + len(rows) :]
    return Section("test", title, [_sentence(s) for s in sentences], header, rows, evaluation.record())


def _density(flow: Flow, folder: Path) -> Section:
    measure = f"the Riemannian volume of {flow.manifold}"
    drawn = f"Drawn by rfm plot {folder}" if _has_picture(flow) else "A picture needs a condition: rfm plot --condition"
    return Section("density", "Density", [f"{drawn}."], record={"measure": measure})


def _has_picture(flow: Flow) -> bool:
    return flow.conditions is None or not flow.conditions.required


def _sentence(line: str) -> str:
    return f"{line[0].upper()}{line[1:]}{'' if line.endswith('.') else '.'}"


def _coverage(flow: Flow, data: RunData) -> Coverage:
    index = data.split.test
    blocks, conditions = data.blocks_at(index), data.conditions_at(index)
    if flow.conditions is None or not flow.conditions.required:
        # Draws for each point take long; the unconditional density is assessed where there is one.
        conditions = {}
    return coverage(flow, data.points[index], groups=blocks, weights=data.weights_at(index), **conditions)


def _calibration(found: Coverage) -> Section:
    shown = [(p, e) for p, e in zip(found.probabilities, found.shares, strict=True) if round(100 * p) in _SHOWN]
    rows = [(f"{100 * p:.0f} %", f"{100 * e.mean:.1f} %", _percent(e.standard_error)) for p, e in shown]
    explanation = (
        "The smallest region that holds half of the probability should hold half of new points, and so on: "
        "lower shares mean that the density is too concentrated, higher ones that it is too spread."
    )
    header = ("region of probability", "holds of the test points", "standard error")
    return Section(
        "calibration", "Calibration", (explanation, _sentence(found.describe())), header, rows, found.record()
    )


_SHOWN = (10, 25, 50, 75, 90, 95)


def _percent(error: float) -> str:
    return "unknown" if error != error else f"{100 * error:.1f} %"


def _solver_error(flow: Flow, data: RunData) -> dict[str, float]:
    """Return by how much log-densities of test points change when the solver is far more accurate, in nats."""
    index = data.split.test[:_SOLVED_TWICE]
    conditions = data.conditions_at(index) if flow.conditions is not None and flow.conditions.required else {}
    usual, fine = (flow.log_prob(data.points[index], solver=solver, **conditions).double() for solver in (None, _FINE))
    apart = (usual - fine).abs()
    return {"mean": float(apart.mean()), "largest": float(apart.max()), "points": float(len(index))}
