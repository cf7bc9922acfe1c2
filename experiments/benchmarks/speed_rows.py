"""What `experiments.benchmarks.geometry` measured: kept in a file, row by row, and shown on a page."""

import json
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from experiments.benchmarks.harness import processor, versions

EAGER_GOAL = 1.2


@dataclass(frozen=True)
class Form:
    """Seconds of an implementation: as it is, and compiled (None where that fails)."""

    eager: float
    compiled: float | None

    @property
    def fastest(self) -> float:
        """The smaller of the two."""
        return self.eager if self.compiled is None else min(self.eager, self.compiled)


@dataclass(frozen=True)
class Row:
    """One map.

    Attributes:
        day: when it was measured.
        goal: what our compiled form's time should be at most, as a multiple of the fastest peer's.
        wrong: peers whose values fail.
        differences: by implementation, the largest difference from our results that 999 of 1000 numbers keep.
        forms: by number of threads and implementation.
    """

    day: str
    goal: float
    wrong: list[str]
    differences: dict[str, float]
    forms: dict[str, dict[str, Form]]

    @classmethod
    def of_json(cls, forms: dict[str, dict[str, dict[str, float]]], **rest: object) -> "Row":
        """Return what `dataclasses.asdict` took apart."""
        return cls(forms={t: {n: Form(**f) for n, f in of.items()} for t, of in forms.items()}, **rest)  # type: ignore[arg-type]

    def line(self, name: str, threads: str) -> str:
        """Return the row of a markdown table."""
        forms = self.forms[threads]
        ours, peers = forms["ours"], {n: form for n, form in forms.items() if n != "ours"}
        right = {n: form for n, form in peers.items() if n not in self.wrong}
        assert ours.compiled is not None, f"{name} does not compile"
        columns = (
            name,
            f"{1e3 * ours.eager:.1f}",
            f"{1e3 * ours.compiled:.1f}",
            "; ".join(self._peer(n, form) for n, form in peers.items()),
            _ratio(ours.eager, [form.eager for form in right.values()], EAGER_GOAL),
            _ratio(ours.compiled, [form.fastest for form in right.values()], self.goal),
            _ratio(ours.compiled, [form.fastest for form in peers.values()], self.goal),
        )
        return f"| {' | '.join(columns)} |"

    def _peer(self, name: str, form: Form) -> str:
        compiled = "-" if form.compiled is None else f"{1e3 * form.compiled:.1f}"
        cell = f"{name} {1e3 * form.eager:.1f} / {compiled} ({self.differences[name]:.0e})"
        return f"[{cell}]" if name in self.wrong else cell


def _ratio(ours: float, others: list[float], goal: float) -> str:
    if not others:
        return "-"
    ratio = ours / min(others)
    return f"{ratio:.2f}" if ratio <= goal else f"**{ratio:.2f}** (goal {goal:g})"


@dataclass
class Rows:
    """The rows of one machine and one set of versions.

    Attributes:
        points: how many to a call.
        machine: its processor.
        packages: their versions.
        rows: by the name of the map.
    """

    points: int
    machine: str
    packages: str
    rows: dict[str, Row] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path, points: int, packages: tuple[str, ...]) -> "Rows":
        """Return what the file holds, or nothing where there is no file.

        Raises:
            ValueError: if it was measured with other versions, on another machine, or with other points.
        """
        new = cls(points, f"{platform.machine()} CPU, {processor()}", versions(packages))
        if not path.exists():
            return new
        old = cls(**json.loads(path.read_text()))
        for what in ("points", "machine", "packages"):
            if getattr(old, what) != getattr(new, what):
                raise ValueError(
                    f"{path}: holds rows of {what} {getattr(old, what)}, and here are {getattr(new, what)}; name "
                    "another file with --rows"
                )
        old.rows = {name: Row.of_json(**row) for name, row in old.rows.items()}  # type: ignore[arg-type]
        return old

    def save(self, path: Path) -> None:
        """Replace the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        written = path.with_name(path.name + ".part")
        written.write_text(json.dumps(asdict(self), indent=1))
        written.replace(path)

    def tables(self, names: list[str]) -> str:
        """Return the tables of the page, with the rows in this order."""
        threads = sorted({count for row in self.rows.values() for count in row.forms}, key=int)
        lines = [line for count in threads for line in (*self._table(names, count), "")]
        return "\n".join(lines).rstrip()

    def _table(self, names: list[str], threads: str) -> Iterator[str]:
        yield f"## {threads} thread{'s' if int(threads) > 1 else ''}\n"
        yield (
            "| map | ours, eager | compiled | peers: eager / compiled, ms (difference) | eager ratio "
            "| compiled ratio | to all peers |\n|---|---:|---:|---|---:|---:|---:|"
        )
        for name in names:
            row = self.rows.get(name)
            measured = row is not None and threads in row.forms
            yield row.line(name, threads) if row and measured else f"| {name} | not measured | | | | | |"
