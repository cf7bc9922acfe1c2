"""Training of a discrete flow on sequences."""

import copy

import torch
from torch import Tensor, nn

from manifolds.arguments import check_instance, integer, seed_of
from rfm.arrays import array_of
from rfm.discrete.flow import DiscreteFlow
from rfm.discrete.mixture_path import MixturePath
from rfm.discrete.posterior_network import PosteriorNetwork

_VALIDATIONS = 20
_LEAST_RATE = 0.01


def fit(
    sequences: Tensor,
    path: MixturePath,
    *,
    posterior: nn.Module | None = None,
    steps: int = 2000,
    batch_size: int = 256,
    learning_rate: float = 2e-3,
    validation: float = 0.1,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> DiscreteFlow:
    """Fit a discrete flow to sequences of labels, by the cross-entropy of the posterior.

    Args:
        sequences: data ``(n, length)``, whole numbers from 0 to ``path.source.classes - 1``.
        path: from noise to data, such as ``MixturePath(MaskedLabels(4))``.
        posterior: a network like `PosteriorNetwork`, which is the default; it is trained in place.
        steps: optimiser steps.
        batch_size: sequences per step.
        learning_rate: of AdamW, which falls to a hundredth along a cosine.
        validation: share of the sequences held out; the weights of the least cross-entropy on them are kept.
        seed: of the network's first weights and every draw; global random state is left as it was.
        device: to train on.

    Returns:
        The flow, on ``device``, with ``history``: steps, and the cross-entropy on what was held out, in nats.

    Raises:
        ValueError: for sequences that are no table of labels, or too few.
    """
    check_instance("discrete.fit", "path", path, MixturePath, "MixturePath(MaskedLabels(4))")
    x = _checked(sequences, path.source.classes).to(device)
    steps, batch_size = integer("discrete.fit", "steps", steps), integer("discrete.fit", "batch_size", batch_size)
    generator = torch.Generator(device).manual_seed(seed_of("discrete.fit", seed))
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).to(device)
    held = max(1, round(validation * len(x)))
    held_out, data = x[order[:held]][:2048], x[order[held:]]
    if posterior is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            posterior = PosteriorNetwork(path.source.states, path.source.classes, x.shape[1])
    flow = DiscreteFlow(posterior.to(device), path, x.shape[1])
    optimiser = torch.optim.AdamW(posterior.parameters(), lr=learning_rate, weight_decay=1e-4)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps, eta_min=_LEAST_RATE * learning_rate)
    best, kept = float("inf"), copy.deepcopy(posterior.state_dict())
    every = max(1, steps // _VALIDATIONS)
    for step in range(1, steps + 1):
        batch = data[torch.randint(len(data), (batch_size,), generator=generator, device=device)]
        loss = flow.loss(batch, generator=generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rate.step()
        if step % every == 0 or step == steps:
            value = _validate(flow, held_out, seed)
            flow.history.append({"step": step, "cross_entropy": value})
            if value < best:
                best, kept = value, copy.deepcopy(posterior.state_dict())
    posterior.load_state_dict(kept)
    return flow.eval()


@torch.no_grad()
def _validate(flow: DiscreteFlow, held_out: Tensor, seed: int) -> float:
    """Return the cross-entropy on fixed draws of the path, so that only the network makes the difference."""
    generator = torch.Generator(held_out.device).manual_seed(seed + 1)
    flow.eval()
    value = float(flow.loss(held_out, generator=generator))
    flow.train()
    return value


def _checked(sequences: Tensor, classes: int) -> Tensor:
    """Return sequences as whole numbers."""
    array = array_of("discrete.fit", "sequences", sequences)
    if array.dtype.kind not in "iu" or array.ndim != 2 or len(array) < 2:
        raise ValueError(
            f"discrete.fit: sequences must be a table (n, length) of whole numbers, of at least 2 rows, got "
            f"{array.dtype} of shape {array.shape}; number the labels from 0 and stack sequences of one length"
        )
    x = torch.from_numpy(array.astype("int64"))
    if int(x.min()) < 0 or int(x.max()) >= classes:
        raise ValueError(
            f"discrete.fit: labels must be 0 to {classes - 1}, got {int(x.min())} to {int(x.max())}; number them from "
            "0, or raise classes"
        )
    return x
