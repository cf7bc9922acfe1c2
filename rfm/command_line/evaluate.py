"""``rfm evaluate``: test likelihood beside the baselines."""

import argparse

from rfm.command_line.arguments import add_output, add_run
from rfm.command_line.messages import progress_note, report

SUMMARY = "print the test likelihood of a flow beside uniform and kernel densities"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `run`."""
    add_run(parser)
    parser.add_argument(
        "--baseline",
        nargs="+",
        default=[],
        metavar="NAME",
        help="compare with these too, normalising flows (extra: baselines): nice, realnvp, maf, spline on flat space, "
        "circular-spline on tori, the sphere and rotations",
    )
    add_output(parser)


def run(arguments: argparse.Namespace) -> None:
    """Score a flow beside the baselines."""
    from rfm.baselines import BASELINES
    from rfm.command_line.evaluation import Evaluation, evaluate
    from rfm.command_line.fitted_runs import load_run
    from rfm.command_line.run_folder import describe_run
    from rfm.command_line.transport_evaluation import TransportEvaluation, evaluate_transport

    unknown = [name for name in arguments.baseline if name not in BASELINES]
    if unknown:
        raise ValueError(f"--baseline: {unknown[0]!r} is none of the baselines; take {', '.join(BASELINES)}")
    flow, data = load_run(arguments)
    result: Evaluation | TransportEvaluation
    if data.start is not None:
        if arguments.baseline:
            raise ValueError(
                "--baseline: a flow from data to data is compared by samples, and baselines are densities; leave it out"
            )
        result = evaluate_transport(flow, data, data.start)
    else:
        baselines = [BASELINES[name] for name in arguments.baseline]
        result = evaluate(flow, data, progress_note(arguments), baselines)
    text = f"{result.table()}\npoints from {data.coordinates.describe()}"
    if data.rounding:
        text += f"\n{data.rounding}; points are spread evenly over their cells, for all models alike"
    report(arguments, describe_run(data) | result.record(), text)
