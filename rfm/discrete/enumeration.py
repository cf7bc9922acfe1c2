"""All sequences at once: the exact law of a chain of jumps, and the exact posterior of a law that is known."""

from collections.abc import Callable

import torch
from torch import Tensor

from rfm.discrete.mixture_path import LabelSource, MixturePath

_MOST = 20_000


def every_sequence(labels: int, length: int) -> Tensor:
    """Return all sequences of labels 0, 1, ... ``labels - 1``, in lexical order, ``(labels^length, length)``.

    Raises:
        ValueError: for more than 20,000.
    """
    if labels**length > _MOST:
        raise ValueError(
            f"every_sequence: {labels} labels at {length} positions make {labels**length} sequences, more than "
            f"{_MOST}; draw some with DiscreteFlow.sample instead"
        )
    return torch.cartesian_prod(*[torch.arange(labels)] * length).reshape(-1, length)


def initial_law(source: LabelSource, sequences: Tensor) -> Tensor:
    """Return the source's probabilities of sequences."""
    return source.probabilities[sequences].prod(-1)


def advanced(
    p: Tensor, sequences: Tensor, posterior: Callable[[Tensor], Tensor], jump: float, states: int, block: int
) -> Tensor:
    """Return the law after a step in which every position is drawn anew with probability ``jump``.

    Args:
        p: the law before, of
        sequences: all of them.
        posterior: probabilities of the labels that positions jump to.
        jump: the probability.
        states: number of labels.
        block: how many sequences to jump from at a time.
    """
    after = torch.zeros_like(p)
    for mass, x in zip(p.split(block), sequences.split(block), strict=True):
        there = mass > 0
        if not bool(there.any()):
            continue
        mass, x = mass[there], x[there]
        move = torch.nn.functional.one_hot(x, states).double() * (1 - jump)
        q = posterior(x)
        move[..., : q.shape[-1]] += jump * q
        # The product over positions, one position at a time: (n, states^i) times (n, states).
        joint = mass[:, None]
        for position in move.unbind(1):
            joint = (joint[:, :, None] * position[:, None, :]).flatten(1)
        after += joint.sum(0)
    return after


def exact_posterior(path: MixturePath, law: Tensor, length: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the posterior of the data's labels where the law of the data is known: the truth for a network.

    Args:
        path: from noise to data.
        law: probabilities of all sequences, ``(classes^length,)``, in the order of `every_sequence`.
        length: of the sequences.

    Returns:
        A function of labels ``(n, length)`` and times ``(n,)``, to logits ``(n, length, classes)``.
    """
    source = path.source
    data = every_sequence(source.classes, length)
    one_hot = torch.nn.functional.one_hot(data, source.classes).double()

    def posterior(x: Tensor, t: Tensor) -> Tensor:
        left = path.kappa(t.double())[0][:, None, None]
        noise = source.probabilities[x][:, None, :]
        # p_t(x | x_1) at each position, for every x_1.
        likelihood = left * noise + (1 - left) * (x[:, None, :] == data[None])
        joint = likelihood.prod(-1) * law
        shares = torch.einsum("ns,slc->nlc", joint, one_hot)
        return torch.log(shares / shares.sum(-1, keepdim=True))

    return posterior


def total_variation(p: Tensor, q: Tensor) -> float:
    """Return half the sum of the differences of two laws of the same sequences, in [0, 1]."""
    return float((p.double() - q.double()).abs().sum() / 2)
