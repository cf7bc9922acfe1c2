"""The folder of packaged flows: one folder each, named as the model, with a saved flow and a card.

Networks are stored in half precision and used in single; the file of weights has its content's hash in its name, which
loading checks.
"""

import copy
from dataclasses import asdict
from pathlib import Path

import torch

from rfm.flow import Flow
from rfm.models.card import FILE, Card
from rfm.records import write_json

_HERE = Path(__file__).parent
_LARGEST = 10_000_000
"""Bytes of a packaged model, at most."""


def names() -> list[str]:
    """Return the names of the packaged models."""
    return sorted(path.parent.name for path in _HERE.glob(f"*/{FILE}"))


def folder(name: str) -> Path:
    """Return the folder of a packaged model: a saved flow, with its card.

    Raises:
        ValueError: if there is none of that name.
    """
    known = names()
    if name not in known:
        there = f"there are {', '.join(known)}" if known else "this installation holds none"
        raise ValueError(f"no packaged model is called {name!r}; {there}")
    return _HERE / name


def card(name: str) -> Card:
    """Return the card of a packaged model; raises ValueError if there is none of that name."""
    return Card.read(folder(name))


def load(name: str) -> Flow:
    """Return a packaged flow, on the CPU, in single precision.

    Raises:
        ValueError: if there is none of that name, or it is damaged.
    """
    return unpacked(Flow.load(folder(name)))


def unpacked(flow: Flow) -> Flow:
    """Return a flow whose weights in half precision, if it has any, are widened to single precision in place."""
    for parameter in flow.parameters():
        if parameter.dtype == torch.float16:
            parameter.data = parameter.data.float()
    return flow


def pack(flow: Flow, out: str | Path, card: Card) -> None:
    """Write a flow to a folder as packaged ones are: weights in half precision, and the card.

    Args:
        flow: a trained one; it is not changed.
        out: the folder.
        card: what a user should know of it.

    Raises:
        ValueError: if a weight has no value in half precision, or the files would have more than 10 MB.
    """
    out = Path(out)
    packed = copy.deepcopy(flow)
    for name, parameter in packed.named_parameters():
        if parameter.dtype == torch.float32:
            parameter.data = parameter.data.half()
        if not bool(parameter.isfinite().all()):
            raise ValueError(f"pack: the weight {name} is beyond half precision, or not finite; train again")
    weights = sum(value.nbytes for value in packed.state_dict().values())
    if weights > _LARGEST:
        raise ValueError(
            f"pack: the weights have {weights / 1e6:.1f} MB in half precision, and a packaged model {_LARGEST / 1e6:g} "
            "at most; train a smaller network"
        )
    packed.save(out)
    write_json(out / FILE, asdict(card))
