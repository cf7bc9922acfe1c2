"""``rfm check``: the laws, on a manifold of one's own."""

import argparse

from rfm.command_line.arguments import add_seed

SUMMARY = "test a manifold of your own against the laws it must keep"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `run`."""
    parser.add_argument("manifold", metavar="MODULE:NAME", help="an object, or a class without arguments")
    parser.add_argument("--compile", action="store_true", help="also capture every method with torch.compile")
    add_seed(parser)


def run(arguments: argparse.Namespace) -> int:
    """Test a manifold of one's own; return 1 if it breaks a law."""
    from manifolds.testing import check_manifold
    from rfm.command_line.named_objects import imported_manifold

    report = check_manifold(imported_manifold(arguments.manifold), seed=arguments.seed, compile=arguments.compile)
    print(report)
    return 0 if report.passed else 1
