"""``rfm plot``: the picture of a run."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfm.command_line.arguments import add_condition, add_run, number, path, percentage
from rfm.command_line.messages import report_columns

if TYPE_CHECKING:
    from torch import Tensor

    from rfm.command_line.run_folder import RunData
    from rfm.flow import Flow
    from rfm.plotting import View

SUMMARY = "draw a flow: a map, a Ramachandran plot, ... by manifold; or a page that turns"
KINDS = ("density", "inverse-pole-figures", "odf-sections", "fundamental-zone")
_PAGES = (".html", ".htm")
_ENDINGS = (".png", ".pdf", ".svg", *_PAGES)
_PAGE_EVALUATIONS = 8000
"""Of the log-density for a page, which holds the numbers."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `run`."""
    add_run(parser, packaged=True)
    add_condition(parser, "; the data drawn are those nearest to it")
    parser.add_argument(
        "--out",
        type=path,
        metavar="FILE",
        help="a picture, .png, .pdf or .svg, or a page that turns and zooms, .html\n"
        "(default: density.png in the run's folder)",
    )
    parser.add_argument("--title", help="title of the picture (default: names the data)")
    parser.add_argument(
        "--extent",
        nargs="+",
        metavar="EDGE=DEGREES",
        default=[],
        help="part of a map: south=30 north=40 west=-10 east=20, any of them, across the date line too\n"
        "(default: chosen from the data)",
    )
    parser.add_argument("--centre", type=number, metavar="LONGITUDE", help="longitude in the middle of a map, degrees")
    parser.add_argument(
        "--regions",
        nargs="+",
        type=percentage,
        metavar="PERCENT",
        default=[],
        help="outline the smallest regions that hold so many percent, such as 50 90",
    )
    parser.add_argument(
        "--kind",
        choices=KINDS,
        default=KINDS[0],
        help="of orientations: inverse-pole-figures of directions of the sample, odf-sections at constant phi2,\n"
        "rotation vectors in the fundamental-zone (default: density, which suits every manifold)",
    )
    parser.add_argument("--force", action="store_true", help="replace the file")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")


def run(arguments: argparse.Namespace) -> None:
    """Draw a run."""
    from rfm.command_line.fitted_runs import load_run
    from rfm.command_line.given_conditions import check_required, given_condition, nearest
    from rfm.command_line.picture_files import picture_file, title_of

    view = _view(arguments)
    flow, data = load_run(arguments)
    out = picture_file(arguments, "density.png", _ENDINGS)
    condition = given_condition(flow, arguments)
    check_required(flow, condition, arguments)
    points, title = data.points, title_of(arguments, flow, data, condition)
    if condition is not None and data.condition is not None:
        assert flow.conditions is not None
        points = points[nearest(flow.conditions, data, condition)]
    options = {"condition": condition, "view": view, "progress": not arguments.quiet, "regions": arguments.regions}
    _draw(arguments.kind, flow, points, data, out, title, options)
    report_columns(arguments, data)
    print(out)


def _view(arguments: argparse.Namespace) -> "View | None":
    """Return the view that the arguments request; None where it is to be chosen."""
    from rfm.plotting import View

    edges: dict[str, float] = {}
    for word in arguments.extent:
        name, _, value = word.partition("=")
        if name not in ("south", "north", "west", "east") or name in edges:
            fault = "is given twice" if name in edges else "is not EDGE=DEGREES"
            raise ValueError(f"--extent {word!r} {fault}; write for example south=30 north=40 west=-10 east=20")
        edges[name] = _degrees(word, value)
    if arguments.centre is not None:
        if "west" in edges or "east" in edges:
            raise ValueError("--centre and --extent with west or east both say which longitudes; give one of them")
        edges |= {"west": arguments.centre - 180, "east": arguments.centre + 180}
    elif ("west" in edges) != ("east" in edges):
        raise ValueError("--extent names one of west and east; give both, or neither for all longitudes")
    return View(**edges) if edges else None


def _degrees(word: str, value: str) -> float:
    try:
        return number(value)
    except (ValueError, argparse.ArgumentTypeError):
        raise ValueError(f"--extent {word!r} is not EDGE=DEGREES; write for example south=30") from None


def _draw(
    kind: str, flow: "Flow", points: "Tensor", data: "RunData", out: Path, title: str, options: dict[str, Any]
) -> None:
    """Draw a picture, or write a page, to a file."""
    from rfm import plotting

    page = out.suffix.lower() in _PAGES
    if kind == KINDS[0] and not page:
        draw(flow, points, data, out, title, **options)
        return
    some = points if len(points) else None
    if page:
        options = options | {"evaluations": _PAGE_EVALUATIONS}
    subject = plotting.subject_of(flow, some, title=title, coordinates=data.coordinates, **options)
    if page:
        figure = plotting.interactive(subject)
        if figure is None or kind != KINDS[0]:
            what = f"--kind {kind}" if kind != KINDS[0] else str(flow.manifold)
            raise ValueError(f"there is no page that turns for {what}; end --out in .png, .pdf or .svg")
        plotting.save_page(figure, out)
        return
    drawn = {
        "inverse-pole-figures": plotting.inverse_pole_figures,
        "odf-sections": plotting.odf_sections,
        "fundamental-zone": plotting.fundamental_zone,
    }
    plotting.save_figure(drawn[kind](subject), out)


def draw(flow: "Flow", points: "Tensor", data: "RunData", path: Path, title: str, **options: Any) -> None:
    """Draw a flow and points to a file; the options are those of `rfm.plotting.plot_flow`."""
    from rfm.plotting import plot_flow, save_figure

    some = points if len(points) else None
    save_figure(plot_flow(flow, some, title=title, coordinates=data.coordinates, **options), path)
