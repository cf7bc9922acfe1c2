"""``rfm posterior``: draws of a flow given measurements of its columns."""

import argparse
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rfm.command_line.arguments import (
    add_batch_size,
    add_condition,
    add_run,
    add_seed,
    add_table_output,
    path,
    positive,
)

if TYPE_CHECKING:
    from torch import Tensor

    from rfm.command_line.column_measurements import Given
    from rfm.command_line.run_folder import RunData
    from rfm.flow import Flow
    from rfm.posterior import PosteriorDraws, Sampler

SUMMARY = "draw points given measurements of their columns, in the columns and units of the table that was fitted"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `run`."""
    add_run(parser)
    parser.add_argument(
        "--given",
        nargs="+",
        action="extend",
        required=True,
        metavar="COLUMN=VALUE±SD",
        help="what was measured of a column, with its standard deviation, in the units of the\ntable, such as "
        "latitude=10±2 or longitude=179+-5; x=1.2 is known without error; may be\ngiven several times; or a table with "
        "a point in each row, whose columns x_sd hold\nstandard deviations",
    )
    parser.add_argument("-n", type=positive, default=1000, metavar="COUNT", help="how many (default: 1000)")
    parser.add_argument(
        "--particles",
        type=positive,
        help="that are tempered, each giving ten draws at each power (default: 256); where something\nis known without "
        "error, draws of each round of importance sampling (default: 512);\nmore find rarer modes",
    )
    add_condition(parser)
    parser.add_argument("--plot", type=path, metavar="FILE", help="also draw prior and posterior to a PNG file")
    add_seed(parser)
    add_batch_size(parser)
    add_table_output(parser)


def run(arguments: argparse.Namespace) -> None:
    """Draw from the posterior."""
    import torch

    from rfm.command_line.fitted_runs import load_run
    from rfm.command_line.given_conditions import check_required, given_condition, known_columns
    from rfm.command_line.given_table import given_rows
    from rfm.command_line.messages import is_first_process, warn
    from rfm.command_line.output_parts import output_parts
    from rfm.command_line.table_output import checked_output, part_seed
    from rfm.flow.progress import counting_bar

    flow, data = load_run(arguments)
    out = checked_output(arguments)
    rows, notes = given_rows(arguments.given, data.coordinates)
    if arguments.plot and len(rows) > 1:
        raise ValueError(f"--plot draws one posterior, and {len(rows)} rows are given; leave it out, or give one row")
    posteriors = [_Posterior(flow, data, own) for own in rows]
    condition = given_condition(flow, arguments)
    check_required(flow, condition, arguments)
    warn(arguments, notes)
    files, show = [word for word in arguments.given if "=" not in word], not arguments.quiet and is_first_process()
    known = known_columns(flow, condition)
    cells = {name: values * arguments.n for name, values in known.items()}
    leading = data.coordinates.leading(arguments.n, {k: v for k, v in cells.items() if None not in v})
    with (
        counting_bar(show, "posterior", 100 * len(rows), "% of the likelihood") as advance,
        output_parts(arguments, out, len(rows) * arguments.n, files, data.coordinates.file_layout) as output,
    ):
        found = {}
        for row, posterior in enumerate(posteriors, 1):
            if not output.is_due(row - 1):
                continue
            seed = part_seed(arguments.seed, row - 1)
            generator = torch.Generator(flow._dtype_and_device()[1]).manual_seed(seed)
            draws = posterior.draw(arguments, condition, generator, advance)
            columns = {"row": torch.full((arguments.n,), row).numpy()} if len(rows) > 1 else {}
            columns |= leading
            columns |= dict(zip(data.coordinates.names, data.coordinates.columns_of(draws.points).T, strict=True))
            output.write(row - 1, columns, cells)
            found[row] = draws
    if arguments.plot and found:
        _plot(arguments, flow, data, found[1].points, condition)
    for row, draws in found.items():
        warn(arguments, [f"row {row}: {note}" if len(rows) > 1 else note for note in draws.warnings], everywhere=True)
    if not arguments.quiet and found:
        warn(arguments, (_summary(arguments.n, list(found.values())),), everywhere=True)


class _Posterior:
    """What is drawn for one row, checked before anything is drawn."""

    def __init__(self, flow: "Flow", data: "RunData", given: "Sequence[Given]") -> None:
        from rfm.command_line.column_measurements import likelihood_and_slice

        self.flow = flow
        self.likelihood, self.known = likelihood_and_slice(given, data.coordinates, flow.manifold)

    def draw(
        self, arguments: argparse.Namespace, condition: "Tensor | None", generator: Any, advance: Any
    ) -> "PosteriorDraws":
        from rfm.posterior import Tempering, slice_method

        progress = within(advance, 100)
        if self.known is None:
            method: Sampler = Tempering(particles=arguments.particles or 256, progress=progress)
        else:
            method = slice_method(self.known, arguments.particles, progress)
        return self.flow.posterior(
            self.likelihood,
            arguments.n,
            known=self.known,
            method=method,
            condition=condition,
            generator=generator,
            batch_size=arguments.batch_size,
        )


def within(advance: Callable[[int], object], total: int) -> Callable[[int], None]:
    """Return a progress bar's function that stops at a total: a method may run several times."""
    done = 0

    def report(count: int) -> None:
        nonlocal done
        advance(min(count, total - done))
        done = min(total, done + count)

    return report


def _summary(n: int, found: "Sequence[PosteriorDraws]") -> str:
    """Return a sentence on what draws are worth, and on the evidence."""
    least = min(draws.effective_sample_size for draws in found)
    if len(found) > 1:
        return f"{n} draws for each of {len(found)} rows, worth {least:.0f} independent ones or more"
    evidence = found[0].log_evidence
    known = "" if math.isnan(evidence) else f"; log-evidence {evidence:.2f} nats"
    return f"{n} draws, worth {least:.0f} independent ones{known}"


def _plot(
    arguments: argparse.Namespace, flow: "Flow", data: "RunData", points: "Tensor", condition: "Tensor | None"
) -> None:
    import torch

    from rfm.plotting import plot_flow, save_figure
    from rfm.plotting.flows import MOST_POINTS

    generator = torch.Generator(points.device).manual_seed(arguments.seed)
    prior = flow.sample(min(len(points), MOST_POINTS), condition=condition, generator=generator)
    own: dict[str, Any] = {"coordinates": data.coordinates, "condition": condition, "labels": ("prior", "posterior")}
    # The prior first: it is the wider one, whose box holds both.
    figure = plot_flow(flow, prior, points, title=f"given {', '.join(arguments.given)}", **own)
    save_figure(figure, arguments.plot)
