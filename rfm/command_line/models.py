"""``rfm models``: the trained flows that come with the package, and their cards."""

import argparse

SUMMARY = "list the trained flows that come with the package, or show the card of one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `run`."""
    parser.add_argument("name", nargs="?", help="a model: show its card (default: list all)")


def run(arguments: argparse.Namespace) -> None:
    """Print the list, or a card."""
    from rfm import models

    if arguments.name is not None:
        print("\n".join(models.card(arguments.name).lines()))
        return
    known = models.names()
    width = max(map(len, known), default=0)
    for name in known:
        print(f"{name:{width}}  {models.card(name).summary}")
    if not known:
        print("this installation holds no trained flow")
