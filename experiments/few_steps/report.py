"""The page's tables and the picture of error against evaluations, from the figures of the runs."""

import json
import platform
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from experiments.few_steps.densities import DENSITIES, TITLES
from experiments.few_steps.study import PEERS_ON
from experiments.few_steps.training import OBJECTIVES, label

START, END = "<!-- results -->", "<!-- end -->"
Figures = dict[str, Any]


def write_page(page: Path, runs: Path) -> None:
    """Replace what stands between the marks of a page by tables of all that was measured."""
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(START)
    after = rest.split(END)[1]
    found = _read(runs)
    blocks = [_setting(found), _samples(found), _misses(found), _likelihoods(found), _seconds(found)]
    blocks += [_peers(runs), _airports(runs), _rna(runs)]
    body = "\n\n".join(block for block in blocks if block)
    page.write_text(f"{before}{START}\n\n{body}\n\n{END}{after}", encoding="utf-8")


def _read(runs: Path) -> dict[str, Figures]:
    """Return the figures of each density that was measured, by name."""
    return {name: json.loads(path.read_text()) for name in DENSITIES if (path := runs / f"{name}.json").exists()}


def _setting(found: dict[str, Figures]) -> str:
    dates = sorted({figures["date"] for figures in found.values()})
    lines = [f"Measured {' to '.join(dict.fromkeys((dates[0], dates[-1])))} on {_machine()} (CPU, one thread), seed 0."]
    settings: dict[str, list[str]] = {}
    for name, figures in found.items():
        settings.setdefault(_trained(figures["budget"]), []).append(TITLES[name])
    lines += [f"{', '.join(names)}: {text}" for text, names in settings.items()]
    return "\n\n".join(textwrap.fill(line, 118) for line in lines)


def _machine() -> str:
    return platform.processor() or platform.machine()


def _trained(own: Figures) -> str:
    """Return in words what was trained and measured."""
    return (
        f"networks of two layers of {own['width']}; flows trained for {own['teacher_steps']:,} steps of "
        f"{own['teacher_batch']:,} pairs on {own['points']:,} draws; maps distilled for {own['steps']:,} steps of "
        f"{own['batch']:,} jumps by {own['objective']}; {own['samples']:,} samples for the discrepancy, "
        f"{own['classified']:,} for the classifier, {own['scored']:,} points for log-densities."
    )


def _row(figures: Figures, method: str, steps: int) -> Figures | None:
    found = (row for row in figures["samples"] if row["method"].startswith(method) and row["steps"] == steps)
    return next(found, None)


def _cell(figures: Figures, column: tuple[str, int], shown: Callable[[Figures], str]) -> str:
    row = _row(figures, *column)
    return "" if row is None else shown(row)


def _accuracy(row: Figures) -> str:
    return f"{row['accuracy']:.3f}"


def _discrepancy(row: Figures) -> str:
    return f"{1e3 * row['mmd2']:.2f} ± {1e3 * row['mmd2_error']:.2f}"


def _samples(found: dict[str, Figures]) -> str:
    columns = [("another", 0), ("planted", 0), *(("jumps", k) for k in (1, 2, 4, 8))]
    columns += [("Euler", 4), ("Euler", 8), ("Adams", 4), ("Adams", 8), ("Adams", 16), ("equation", 0)]
    heads = ["same density", ".02 nats off", *(f"{k} jump{'s' * (k > 1)}" for k in (1, 2, 4, 8))]
    heads += ["Euler 4", "Euler 8", "Adams 4", "Adams 8", "Adams 16", "equation"]
    error = max(row["accuracy_error"] for figures in found.values() for row in figures["samples"])
    lines = [
        f"**Samples against the density.** Accuracy of the classifier; .5 is chance, standard errors are at most "
        f"{error:.4f}.",
        "",
        "| density | " + " | ".join(heads) + " |",
        "|---|" + "---|" * len(heads),
    ]
    lines += [
        f"| {TITLES[name]} | " + " | ".join(_cell(figures, column, _accuracy) for column in columns) + " |"
        for name, figures in found.items()
    ]
    lines += ["", "Squared discrepancy, unbiased, in thousandths, with its standard error:", ""]
    lines += ["| density | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    for name, figures in found.items():
        cells = [_cell(figures, column, _discrepancy) for column in columns]
        lines.append(f"| {TITLES[name]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _misses(found: dict[str, Figures]) -> str:
    known = {name: figures["misses"][0] for name, figures in found.items() if "misses" in figures}
    if not known:
        return ""
    lines = [
        "**Where one jump misses**: the distance to where the equation leads, the root of its mean square, over all",
        "draws from the source, over the tenth whose jumps are longest, and over the tenth about which the map spreads",
        "points most; and how long 99 of 100 jumps are at most.",
        "",
        "| density | median | all | longest jumps | most spread | the other nine tenths | length |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, own in known.items():
        cells = " | ".join(f"{own[key]:.4f}" for key in ("median", "all", "longest", "spread", "rest"))
        lines.append(f"| {TITLES[name]} | {cells} | {own['way']:.2f} |")
    return "\n".join(lines)


def _likelihoods(found: dict[str, Figures]) -> str:
    lines = [
        "**Log-densities of the jumps**, at draws from the exact density: the share of points at which the jumps could",
        "be inverted, evaluations of the network with each directional derivative counted, the difference from the",
        "equation's log-density (mean, and mean of absolute values), what is lost to the exact one, and the integral.",
        "It is estimated from those draws, with 0 where the jumps could not be inverted, and is low as well where a",
        "density has mass that draws from the exact one hardly reach, as on the torus of seven dimensions.",
        "",
        "| density | jumps | tolerance | inverted | evaluations | equation - jumps | absolute | exact - jumps | "
        "exact - equation | integral |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, figures in found.items():
        lines += [
            f"| {TITLES[name]} | {own['steps']} | {own['tolerance']:g} | {own['inverted']:.2%} | "
            f"{own['evaluations']:.1f} | {-own['difference']:.3f} | {own['absolute_difference']:.3f} | "
            f"{own['divergence']:.3f} | {own['equation_divergence']:.3f} | {own['integral']:.3f} ± "
            f"{own['integral_error']:.3f} |"
            for own in figures.get("likelihoods", [])
        ]
    return "\n".join(lines)


def _seconds(found: dict[str, Figures]) -> str:
    lines = [
        "**Seconds of processor time for a million samples**, from fewer, and the cheapest of these solves whose",
        "accuracy is no higher than that of one jump by more than its standard error:",
        "",
        "| density | one jump | two jumps | Adams, 4 | Adams, 8 | Adams, 16 | equation | equation / one jump | as good "
        "as one jump | / one jump |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, figures in found.items():
        for own in figures.get("seconds", []):
            cells = " | ".join(_time(own, key) for key in ("one jump", "two jumps", *_SOLVES))
            best = _as_good(figures)
            ratio = "" if best not in own else f"{own[best] / own['one jump']:.0f}"
            lines.append(
                f"| {TITLES[name]} | {cells} | {own['equation'] / own['one jump']:.0f} | {best or 'none'} | {ratio} |"
            )
    return "\n".join(lines)


_SOLVES = ("Adams, 4", "Adams, 8", "Adams, 16", "equation")
"""From the cheapest."""


def _time(own: Figures, key: str) -> str:
    return f"{own[key]:.1f}" if key in own else ""


def _as_good(figures: Figures) -> str:
    """Return the cheapest solve whose samples are told from the density no more easily than those of one jump."""
    jump = _row(figures, "jumps", 1)
    for solve in _SOLVES:
        method, _, steps = solve.partition(", ")
        row = _row(figures, method, int(steps or 0))
        if jump and row and row["accuracy"] <= jump["accuracy"] + jump["accuracy_error"]:
            return solve
    return ""


def _peers(runs: Path) -> str:
    rows = []
    for density in PEERS_ON:
        for name in OBJECTIVES:
            path = runs / "peers" / f"{density}-{label(name)}.json"
            figures = json.loads(path.read_text()) if path.exists() else {}
            if "likelihoods" not in figures:
                continue
            [own], [training] = figures["likelihoods"], figures["training"]
            cells = [_cell(figures, ("jumps", k), shown) for shown in (_accuracy, _discrepancy) for k in (1, 2)]
            cells += [f"{own['divergence']:.3f}", f"{own['inverted']:.2%}", f"{training['seconds']:.0f}"]
            rows.append(f"| {TITLES[density]} | {name} | {' | '.join(cells)} |")
            trained = figures["budget"]
    if not rows:
        return ""
    head = (
        f"**Objectives**, each {trained['steps']:,} steps of {trained['batch']:,} jumps; trajectories, semigroup and "
        "Lagrangian with what makes maps one-to-one, the others as they were published:"
    )
    return "\n".join(
        [
            textwrap.fill(head, 118),
            "",
            "| density | objective | accuracy, 1 jump | 2 jumps | discrepancy, 1 jump | 2 jumps | exact - 1 jump | "
            "inverted | seconds |",
            "|---|---|---|---|---|---|---|---|---|",
            *rows,
        ]
    )


def _airports(runs: Path) -> str:
    path = runs / "airports.json"
    if not path.exists():
        return ""
    own = json.loads(path.read_text())
    names = {0: "the equation", 1: "one jump", 2: "two jumps"}
    shown = ", ".join(f"{row['accuracy']:.3f} for {names[row['steps']]}" for row in own["samples"])
    return (
        f"**The world's airports** ({own['count']:,} points, a fifth held out). Accuracy of the classifier between\n"
        f"samples and airports that were held out: {shown},\n"
        f"standard errors {own['samples'][0]['accuracy_error']:.3f}. Held-out negative log-likelihood in nats:\n"
        f"{own['nll']:.3f} by the equation, {own['nll_of_jumps']:.3f} by two jumps, at the {own['inverted']:.2%} of\n"
        "points where these could be inverted."
    )


def _rna(runs: Path) -> str:
    path = runs / "rna.json"
    if not path.exists():
        return ""
    own = json.loads(path.read_text())
    return (
        "**RNA's seven torsion angles by the published measure**, the root of a biased discrepancy with the kernel\n"
        f"`exp(-d^2)` on {own['count']} samples and as many test points: {own['one jump']:.3f} for one jump,\n"
        f"{own['equation']:.3f} for the equation, and {own['floor']:.3f} ± {own['floor_spread']:.3f} over 20 splits\n"
        "for training rows in place of samples. That is no goal: the kernel is not positive definite on a torus, each\n"
        "point is compared with itself, and so the measure of *perfect* samples is the last figure, which falls with\n"
        "the size of the test set alone."
    )


def draw(runs: Path, figure: Path) -> None:
    """Draw what the classifier sees beyond chance against evaluations, a panel for each density."""
    found = _read(runs)
    columns = min(len(found), 4)
    rows = -(-len(found) // columns)
    drawing, axes = plt.subplots(
        rows,
        columns,
        figsize=(max(2.75 * columns, 8), 2.9 * rows),
        sharex=True,
        sharey=True,
        layout="constrained",
        squeeze=False,
    )
    for axis in axes.flat[len(found) :]:
        axis.set_visible(False)
    for axis, (name, own) in zip(axes.flat, found.items(), strict=False):
        for method, colour, mark, text in (
            ("jumps", "tab:blue", "o", "flow map"),
            ("Euler", "tab:orange", "s", "Euler"),
            ("Adams", "tab:green", "^", "Adams, graded"),
        ):
            points = sorted((row for row in own["samples"] if row["method"] == method), key=lambda row: row["steps"])
            axis.errorbar(
                [row["steps"] for row in points],
                [row["accuracy"] for row in points],
                [2 * row["accuracy_error"] for row in points],
                color=colour, marker=mark, markersize=4, linewidth=1.2, label=text,
            )  # fmt: skip
        for method, style, text in (
            ("equation", "-", "equation, solved"),
            ("planted", "--", ".02 nats off"),
            ("another", ":", "same density"),
        ):
            if (row := _row(own, method, 0)) is not None:
                axis.axhline(row["accuracy"], color="0.4", linestyle=style, linewidth=1, label=text)
        axis.set_xscale("log", base=2)
        axis.set_xticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
        axis.set_title(TITLES[name], fontsize=10)
    for axis in axes[-1]:
        axis.set_xlabel("evaluations")
    for axis in axes[:, 0]:
        axis.set_ylabel("classifier's accuracy")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside lower center", ncols=6, fontsize=9, frameon=False)
    drawing.savefig(figure, dpi=140)
    plt.close(drawing)
