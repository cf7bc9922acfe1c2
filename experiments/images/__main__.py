"""Pictures restored from measurements, by a flow and the methods of the literature.

python -m experiments.images [--quick] [--priors digits mnist phantoms] [--tasks TASK ...] [--runs FOLDER]
    [--pictures 8] [--held-out 8] [--draws 6] [--exact 1] [--figures FOLDER] [--page FILE]
"""

import argparse
import datetime
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

import rfm
from experiments.images.assess import Result, Row, assess
from experiments.images.exact import METHOD, QUICK, Deviation, Run, deviations, exact_runs
from experiments.images.figure import draw
from experiments.images.priors import PRIORS, train
from experiments.images.problems import Restoration, restorations


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    lines = [
        "| pictures | task | method | PSNR of the mean, dB | of a draw, dB | spread / error | evaluations | s |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        own = f"| {row.prior} | {row.task} | {row.method} | {row.mean:.2f} |"
        several = row.single == row.single
        lines.append(
            f"{own} {row.single:.2f} | {row.spread:.2f} | {row.evaluations:.0f} | {row.seconds:.0f} |"
            if several
            else f"{own} | | | |"
        )
    return "\n".join(lines)


def exact_table(runs: Mapping[str, Sequence[tuple[Run, Run]]]) -> str:
    """Return what is known of exact draws as a table, a line for each run."""
    lines = [
        "| task | picture | run | worth, of draws | founders | acceptance | log-evidence, nats | evaluations |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for task, pairs in runs.items():
        for i, pair in enumerate(pairs):
            for k, run in enumerate(pair):
                worth = f"{run.worth:.0f} of {len(run.points)} | {run.founders:.0f} | {run.acceptance:.2f}"
                own = f"| {task} | {i + 1} | {k + 1} | {worth} | {run.log_evidence:.1f} | {run.evaluations:.0f} |"
                lines.append(own)
    return "\n".join(lines)


def deviation_table(found: Mapping[str, Mapping[str, Deviation]]) -> str:
    """Return deviations from exact draws as a table, in standard deviations and in units of those of exact ones."""
    lines = [
        "| task | method | mean off | deviation off | sliced Wasserstein | misfit |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for task, rows in found.items():
        unit = next(iter(rows.values()))
        for method, row in rows.items():
            pairs = ((row.mean, unit.mean), (row.spread, unit.spread), (row.wasserstein, unit.wasserstein))
            cells = " | ".join(f"{value:.2f} ({value / one:.1f})" for value, one in pairs)
            lines.append(f"| {task} | {method} | {cells} | {row.misfit:.2f} |")
    return "\n".join(lines)


def exact_text(
    tasks: Sequence[Restoration],
    flow: rfm.Flow,
    results: Mapping[str, Result],
    count: int,
    out: Path | None,
    quick: bool,
) -> str:
    """Return the tables of exact draws, and of what the methods differ by from them, on the first test pictures."""
    runs, found = dict[str, list[tuple[Run, Run]]](), dict[str, dict[str, Deviation]]()
    for task in tasks:
        y = task.measured(results[task.name].truth, seed=1)[:count]
        runs[task.name] = exact_runs(task, flow, y, out, QUICK if quick else METHOD)
        found[task.name] = deviations(task, flow, y, runs[task.name], results[task.name].chosen)
    title = f"Exact draws of the first of these pictures, {count} in all, and how far the methods are from them"
    return f"{title}\n\n{exact_table(runs)}\n\n{deviation_table(found)}"


def write_into(page: Path, name: str, text: str) -> None:
    """Replace what stands between the marks ``<!-- name -->`` and ``<!-- end of name -->`` of a page."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"{page}: there are no marks {begin} and {end}; add them where the table belongs")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, and draw the figures."""
    parser = argparse.ArgumentParser(prog="python -m experiments.images", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few coarse steps of everything, to see that it runs")
    parser.add_argument("--priors", nargs="+", choices=tuple(PRIORS), default=tuple(PRIORS), help="(default: all)")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="such as inpainting (default: all of the priors)")
    parser.add_argument("--runs", type=Path, help="folder of the trained priors, which are trained where it lacks them")
    parser.add_argument("--pictures", type=int, default=8, help="of each task (default 8)")
    parser.add_argument("--held-out", type=int, default=8, help="pictures that settings are chosen on (default 8)")
    parser.add_argument("--draws", type=int, default=6, help="for each picture (default 6)")
    parser.add_argument(
        "--exact", type=int, default=0, metavar="PICTURES", help="digits to draw exactly too (default 0)"
    )
    parser.add_argument("--figures", type=Path, help="folder for a PNG file of each set of pictures")
    parser.add_argument("--page", type=Path, help="page of the documentation whose tables to replace")
    options = parser.parse_args(arguments)
    count, draws = (2, 2) if options.quick else (options.pictures, options.draws)
    held_out, today = options.held_out, datetime.date.today()
    title = f"{count} pictures, {draws} draws each, settings chosen on {held_out} others, seed 0, CPU, {today}"
    tasks = selected(parser, options.priors, options.tasks)
    for name in tasks:
        out = None if options.runs is None else options.runs / name
        flow = train(name, out, 3 if options.quick else None, progress=sys.stderr.isatty())
        pictures, results = PRIORS[name].pictures(), dict[str, Result]()
        for task in tasks[name]:
            results[task.name] = assess(task, flow, pictures, count, held_out, draws, options.quick)
        texts = {name: f"{title}\n\n{table([row for result in results.values() for row in result.rows])}"}
        if options.figures is not None:
            draw(results, pictures.shape, options.figures / f"restored-{name}.png")
        if options.exact and name == "digits":
            kept = None if options.runs is None else options.runs / "exact"
            texts["exact"] = exact_text(tasks[name], flow, results, options.exact, kept, options.quick)
        for mark, text in texts.items():
            print(text, end="\n\n", flush=True)
            if options.page is not None:
                write_into(options.page, mark, text)


def selected(
    parser: argparse.ArgumentParser, priors: Sequence[str], words: Sequence[str] | None
) -> dict[str, list[Restoration]]:
    """Return the tasks of each prior, of those whose names begin with the words where there are any."""
    every = {name: restorations(name) for name in priors}
    known = {task.name.partition(",")[0] for tasks in every.values() for task in tasks}
    if unknown := sorted(set(words or ()) - known):
        parser.error(f"--tasks: no {', '.join(unknown)} of {', '.join(priors)}; choose from {', '.join(sorted(known))}")
    chosen = {
        name: [task for task in tasks if not words or task.name.partition(",")[0] in words]
        for name, tasks in every.items()
    }
    return {name: tasks for name, tasks in chosen.items() if tasks}


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
