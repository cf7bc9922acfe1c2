"""``rfm evaluate``: test likelihood beside the baselines."""

import argparse

from rfm.command_line.arguments import add_output, add_run
from rfm.command_line.messages import progress_note, report

SUMMARY = "print the test likelihood of a flow beside uniform and kernel densities"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `run`."""
    add_run(parser)
    add_output(parser)


def run(arguments: argparse.Namespace) -> None:
    """Score a flow beside the baselines."""
    from rfm.command_line.evaluation import Evaluation, evaluate
    from rfm.command_line.fitted_runs import load_run
    from rfm.command_line.run_folder import describe_run
    from rfm.command_line.transport_evaluation import TransportEvaluation, evaluate_transport

    flow, data = load_run(arguments)
    result: Evaluation | TransportEvaluation
    if data.start is not None:
        result = evaluate_transport(flow, data, data.start)
    else:
        result = evaluate(flow, data, progress_note(arguments))
    text = f"{result.table()}\npoints from {data.coordinates.describe()}"
    if data.rounding:
        text += f"\n{data.rounding}; points are spread evenly over their cells, for all models alike"
    report(arguments, describe_run(data) | result.record(), text)
