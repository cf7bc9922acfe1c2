"""Pictures restored from measurements, by a flow and the methods of the literature.

python -m experiments.images [--quick] [--priors digits mnist phantoms] [--runs FOLDER] [--pictures 8] [--draws 6]
    [--exact 1] [--figures FOLDER] [--page FILE]
"""

import argparse
import datetime
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from experiments.images.assess import Result, Row, assess
from experiments.images.exact import Deviation, deviations
from experiments.images.figure import draw
from experiments.images.priors import PRIORS, train
from experiments.images.problems import restorations


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


def deviation_table(rows: Sequence[Deviation]) -> str:
    """Return deviations from exact draws as a table."""
    lines = ["| method | mean off, deviations | spread, relative | misfit, deviations |", "|---|---:|---:|---:|"]
    lines += [f"| {row.method} | {row.mean:.2f} | {row.spread:.2f} | {row.misfit:.2f} |" for row in rows]
    return "\n".join(lines)


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
    parser.add_argument("--runs", type=Path, help="folder of the trained priors, which are trained where it lacks them")
    parser.add_argument("--pictures", type=int, default=8, help="of each task (default 8)")
    parser.add_argument("--draws", type=int, default=6, help="for each picture (default 6)")
    parser.add_argument(
        "--exact", type=int, default=0, metavar="PICTURES", help="digits to draw exactly too (default 0)"
    )
    parser.add_argument("--figures", type=Path, help="folder for a PNG file of each set of pictures")
    parser.add_argument("--page", type=Path, help="page of the documentation whose tables to replace")
    options = parser.parse_args(arguments)
    count, draws = (2, 2) if options.quick else (options.pictures, options.draws)
    title = f"{count} pictures, {draws} draws each, seed 0, CPU, {datetime.date.today()}"
    for name in options.priors:
        out = None if options.runs is None else options.runs / name
        flow = train(name, out, 3 if options.quick else None, progress=sys.stderr.isatty())
        pictures, results = PRIORS[name].pictures(), dict[str, Result]()
        for task in restorations(name):
            results[task.name] = assess(task, flow, pictures, count, draws, options.quick)
        text = f"{title}\n\n{table([row for result in results.values() for row in result.rows])}"
        if options.figures is not None:
            draw(results, pictures.shape, options.figures / f"restored-{name}.png")
        if options.exact and name == "digits":
            task = restorations(name)[-1]
            y = task.measured(pictures.test[: options.exact], seed=1)
            chosen = results[task.name].chosen
            found = deviations(task, flow, y, chosen, 8 if options.quick else 64, options.quick)
            text += f"\n\n{task.name}, {options.exact} pictures, beside exact draws\n\n{deviation_table(found)}"
        print(text, end="\n\n", flush=True)
        if options.page is not None:
            write_into(options.page, name, text)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
