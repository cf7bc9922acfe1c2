"""``rfm sample``: points in the columns and units of the table that was fitted; or backbones."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfm.command_line.arguments import (
    add_batch_size,
    add_condition,
    add_run,
    add_seed,
    add_table_output,
    number,
    positive,
    positive_number,
    reject_options,
    residues,
    run_or_model,
)
from rfm.command_line.messages import shows_progress, warn
from rfm.command_line.solver_option import TRIED, add_error, chosen_solver

if TYPE_CHECKING:
    from rfm.integrators import Method

SUMMARY = "draw points, in the columns and units of the table that was fitted"
_DRAWN = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `run`, some of it for tables or for backbones alone."""
    source = add_run(parser, packaged=True)
    parser.add_argument("-n", type=positive, metavar="COUNT", help="how many (default: 1000)")
    parser.add_argument(
        "--steps",
        type=positive,
        help="jumps of a flow that rfm distil made, in place of a solve; of backbones: evaluations of the\nnetwork "
        "(default: 50)",
    )
    group = parser.add_argument_group(
        "for flows of protein backbones", "which are written to a folder as .pdb and .cif"
    )
    for_tables = [source, *_add_for_tables(parser), add_batch_size(parser), add_table_output(parser)]
    for_backbones = _add_for_backbones(group)
    add_seed(parser)
    parser.set_defaults(for_tables=for_tables, for_backbones=for_backbones)


def _add_for_tables(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    condition_group = parser.add_mutually_exclusive_group()
    return [
        add_condition(condition_group),
        condition_group.add_argument(
            "--condition-file",
            metavar="FILE",
            help="table (- for stdin) with the condition columns; a sample for each row",
        ),
        parser.add_argument(
            "--guidance",
            type=number,
            default=1.0,
            help="weight of classifier-free guidance (default: 1, none): above 1 the samples\nare more typical of the "
            "condition than the data are",
        ),
        parser.add_argument("--log-prob", action="store_true", help="add columns with the log-density of each sample"),
        add_error(parser, "the unit of the metric (radians on spheres and tori), with --log-prob in nats"),
        parser.add_argument(
            "--start",
            metavar="FILE",
            help="table of start points in the columns of the run; each row is carried to a sample",
        ),
    ]


def _add_for_backbones(group: argparse._ArgumentGroup) -> list[argparse.Action]:
    return [
        group.add_argument(
            "--length", type=residues, nargs="+", metavar="RESIDUES", help="of the backbones; -n (16) of each are drawn"
        ),
        group.add_argument(
            "--rotation-schedule",
            choices=("exponential", "linear"),
            help="exponential: rotations run ahead, as 1 - exp(-RATE t) (default)",
        ),
        group.add_argument(
            "--rotation-rate",
            type=positive_number,
            metavar="RATE",
            help="of that schedule (default: 5); a higher one draws more regular, less varied chains",
        ),
        group.add_argument(
            "--motif",
            nargs=3,
            action="append",
            metavar=("FILE", "RESIDUES", "PLACE"),
            help="hold residues of a structure, such as 1abc.pdb A:10-25, from this place on,\ncounted from 1, while "
            "the rest is drawn; may be given several times",
        ),
        group.add_argument(
            "--open-bonds",
            action="store_true",
            help="leave residues where they were drawn, instead of closing the bonds between them",
        ),
        group.add_argument(
            "--leave-clashes",
            action="store_true",
            help="do not move residues apart whose atoms are too near each other",
        ),
    ]


def run(arguments: argparse.Namespace) -> None:
    """Draw from a flow of either kind."""
    from rfm.command_line.backbones import holds_backbones, sample_to_folder

    arguments.run, arguments.model = run_or_model(arguments), None
    if not arguments.manifold and holds_backbones(Path(arguments.run)):
        reject_options(
            arguments,
            arguments.for_tables,
            "not for backbones: the flow has no conditions and no density of what is drawn, which is written as "
            "structure files",
        )
        sample_to_folder(arguments)
    else:
        reject_options(
            arguments,
            arguments.for_backbones,
            f"for flows of protein backbones, and {arguments.run} is another",
        )
        _sample_to_table(arguments)


def _sample_to_table(arguments: argparse.Namespace) -> None:
    import torch

    from rfm import datasets
    from rfm.command_line.fitted_runs import load_run
    from rfm.command_line.given_conditions import check_required, condition_file, given_condition, known_columns
    from rfm.command_line.output_parts import output_parts
    from rfm.command_line.start_table import start_points
    from rfm.command_line.table_output import checked_output, part_seed, parts
    from rfm.flow.progress import counting_bar

    flow, data = load_run(arguments)
    out = checked_output(arguments)
    condition = given_condition(flow, arguments)
    if arguments.condition_file is not None:
        condition = condition_file(flow, arguments)
    check_required(flow, condition, arguments)
    if arguments.guidance != 1 and condition is None:
        raise ValueError("--guidance needs something to guide towards; give --condition or --condition-file")
    if arguments.guidance != 1 and flow.refinement is not None:
        warn(arguments, ["samples under guidance are of the flow without its refinement"])
        flow = flow.base
    start = start_points(data, arguments)
    total = (_DRAWN if arguments.n is None else arguments.n) if start is None else len(start)
    if condition is not None and condition.ndim == 2:
        if start is not None and len(condition) != total:
            raise ValueError(f"--condition-file has {len(condition)} rows, --start {total}; give one for each point")
        total = len(condition)
    device = flow._dtype_and_device()[1]

    def tried(solver: "Method") -> torch.Tensor:
        given = condition if condition is None or condition.ndim == 1 else condition[:TRIED]
        few = min(TRIED, total)
        if start is not None:
            return flow.transport(start[:few], condition=given, solver=solver)
        own = torch.Generator(device).manual_seed(arguments.seed)
        drawn = flow.sample(
            few,
            condition=given,
            guidance=arguments.guidance,
            generator=own,
            return_log_prob=arguments.log_prob,
            solver=solver,
        )
        return drawn[1] if arguments.log_prob else drawn

    unit, distance = ("nats", None) if arguments.log_prob else ("units of the metric", flow.manifold.dist)
    solver = chosen_solver(arguments, total, unit, tried, distance, arguments.steps)
    show = shows_progress(arguments, total)
    known = known_columns(flow, condition)
    # The formats of tracks have no column for a score.
    layout = datasets.CSV if arguments.log_prob else data.coordinates.file_layout
    files = [name for name in (arguments.condition_file, arguments.start) if name is not None]
    with (
        output_parts(arguments, out, total, files, layout) as output,
        counting_bar(show, "sample", total) as advance,
    ):
        for number, rows in enumerate(parts(total, arguments.part_rows)):
            if not output.is_due(number):
                continue
            generator = torch.Generator(device).manual_seed(part_seed(arguments.seed, number))
            own = condition if condition is None or condition.ndim == 1 else condition[rows.start : rows.stop]
            if start is None:
                drawn = flow.sample(
                    len(rows),
                    condition=own,
                    guidance=arguments.guidance,
                    generator=generator,
                    steps=arguments.steps,
                    solver=solver,
                    return_log_prob=arguments.log_prob,
                    batch_size=arguments.batch_size,
                    progress=advance,
                )
            else:
                part = start[rows.start : rows.stop]
                how: dict[str, Any] = {"steps": arguments.steps, "solver": solver}
                drawn = flow.transport(part, condition=own, batch_size=arguments.batch_size, **how)
                advance(len(rows))
            points, scores = drawn if arguments.log_prob else (drawn, None)
            cells_by_name = {
                name: cells[rows.start : rows.stop] if len(cells) == total else cells * len(rows)
                for name, cells in known.items()
            }
            complete = {name: cells_by_name[name] for name in known if None not in known[name]}
            columns = dict(data.coordinates.leading(len(rows), complete, rows.start))
            columns |= dict(zip(data.coordinates.names, data.coordinates.columns_of(points).T, strict=True))
            columns |= {} if scores is None else data.coordinates.score_columns(scores)
            output.write(number, columns, cells_by_name)
