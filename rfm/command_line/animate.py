"""``rfm animate``: a run's particles on their way from the source to the data."""

import argparse

from rfm.command_line.arguments import add_condition, add_run, path, positive, seed

SUMMARY = "show a flow move: particles, their field and the density, as GIF, MP4 or a page with a slider"
_ENDINGS = (".gif", ".mp4", ".html", ".htm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `run`."""
    add_run(parser)
    add_condition(parser)
    parser.add_argument(
        "--out",
        type=path,
        metavar="FILE",
        help="a moving picture, .gif or, where ffmpeg is, .mp4; or a page that turns and zooms, .html\n"
        "(default: flow.gif in the run's folder)",
    )
    parser.add_argument("--title", help="title of the picture (default: names the data)")
    parser.add_argument("-n", "--count", type=positive, default=600, help="number of particles (default 600)")
    parser.add_argument("--frames", type=positive, default=31, help="times from 0 to 1 (default 31)")
    parser.add_argument("--no-density", action="store_true", help="particles and arrows alone, which is quicker")
    parser.add_argument("--seed", type=seed, default=0, help="of the particles (default 0)")
    parser.add_argument("--force", action="store_true", help="replace the file")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")


def run(arguments: argparse.Namespace) -> None:
    """Write the moving picture of a run."""
    from rfm.command_line.fitted_runs import load_run
    from rfm.command_line.given_conditions import check_required, given_condition
    from rfm.command_line.picture_files import picture_file, title_of
    from rfm.plotting import animated, motion_of, save_animation, save_page

    flow, data = load_run(arguments)
    out = picture_file(arguments, "flow.gif", _ENDINGS)
    condition = given_condition(flow, arguments)
    check_required(flow, condition, arguments)
    motion = motion_of(
        flow,
        count=arguments.count,
        frames=arguments.frames,
        condition=condition,
        coordinates=data.coordinates,
        title=title_of(arguments, flow, data, condition),
        seed=arguments.seed,
        progress=not arguments.quiet,
        **({"evaluations": 0} if arguments.no_density else {}),
    )
    if out.suffix.lower() in (".gif", ".mp4"):
        save_animation(motion, out)
    else:
        save_page(animated(motion), out)
    print(out)
