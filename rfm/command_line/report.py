"""``rfm report``: one page on a run."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from rfm.command_line.arguments import add_run, path

if TYPE_CHECKING:
    from rfm.command_line.report_content import Report
    from rfm.command_line.run_folder import RunData
    from rfm.flow import Flow

SUMMARY = "write one page on a run: data, split, fit, likelihoods, map, calibration, caveats"
_FORMATS = {".html": "html", ".htm": "html", ".txt": "text", ".json": "json"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `run`."""
    add_run(parser)
    parser.add_argument(
        "--format",
        choices=("html", "text", "json"),
        help="a page with pictures, text, or values (default: by the name of --out, else html)",
    )
    parser.add_argument(
        "--out",
        type=path,
        metavar="FILE",
        help="file to write (default: report.html in the run's folder for html, else stdout)",
    )
    parser.add_argument("--title", help="title of the report (default: names the data)")
    parser.add_argument("--force", action="store_true", help="replace the file")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")


def run(arguments: argparse.Namespace) -> None:
    """Report on a run."""
    from rfm.command_line.fitted_runs import load_run
    from rfm.command_line.messages import progress_note
    from rfm.command_line.report_content import report_on
    from rfm.command_line.table_output import checked_output
    from rfm.records.descriptions import write_atomically

    kind = arguments.format or _FORMATS.get(Path(arguments.out or ".html").suffix.lower(), "html")
    if kind == "html" and arguments.out is None:
        arguments.out = str(Path(arguments.run) / "report.html")
    out = checked_output(arguments)
    flow, data = load_run(arguments)
    note = progress_note(arguments)
    report = report_on(flow, data, Path(arguments.run), arguments.title, note)
    if kind == "html":
        note("pictures")
        text = _page(report, flow, data, arguments)
    else:
        text = (report.text() if kind == "text" else json.dumps(report.record(), indent=1)) + "\n"
    if out is None:
        print(text, end="")
        return
    write_atomically(out, lambda file: _write(file, text))
    print(out)


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


def _page(report: "Report", flow: "Flow", data: "RunData", arguments: argparse.Namespace) -> str:
    """Return the page with its pictures; without the one that turns, and a warning, if plotly is not installed."""
    from rfm import plotting
    from rfm.command_line.messages import warn
    from rfm.command_line.report_page import image, page
    from rfm.records.packages import MissingPackageError

    pictures = {}
    if flow.history:
        pictures["fit"] = image(plotting.plot_history(flow.history), "The course of the fit")
    if report.coverage is not None:
        pictures["calibration"] = image(plotting.plot_reliability(report.coverage), "Reliability curve")
    if flow.conditions is None or not flow.conditions.required:
        points = data.points if len(data.points) else None
        subject = plotting.subject_of(
            flow, points, coordinates=data.coordinates, evaluations=_EVALUATIONS, progress=not arguments.quiet
        )
        drawn = image(plotting.picture(subject), "The density of the flow, data and samples")
        try:
            figure = plotting.interactive(subject)
            turning = "" if figure is None else plotting.page_fragment(figure)
        except MissingPackageError as error:
            warn(arguments, [f"{error}; the page is written without the picture that turns"])
            turning = ""
        pictures["density"] = drawn + turning
    return page(report, pictures)


_EVALUATIONS = 5000
"""Of the log-density: one grid serves the picture and the one that turns; with more, the page would pass 6 MB."""
