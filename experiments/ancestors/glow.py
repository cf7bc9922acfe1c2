"""Glow, of the package normflows (extra: ``baselines``), on the digits of scikit-learn."""

import time
from typing import Any

import torch
from torch import Tensor, nn

from experiments.ancestors.budget import Budget, Fitted
from experiments.ancestors.data import Points

_SIDE, _BLOCKS, _RATE, _VALIDATE_EVERY = 8, 4, 1e-3, 100


def multiscale(blocks: int, hidden: int) -> Any:
    """Return Glow for pictures of 8 x 8 pixels: two scales, ``blocks`` steps of flow at each."""
    import normflows as nf

    # Without its decomposition of the mixing matrices, which calls what PyTorch is about to remove.
    fine = [nf.flows.GlowBlock(4, hidden, use_lu=False) for _ in range(blocks)]
    coarse = [nf.flows.GlowBlock(8, hidden, use_lu=False) for _ in range(blocks)]
    bases = [nf.distributions.DiagGaussian((8, 2, 2)), nf.distributions.DiagGaussian((2, 4, 4))]
    # A level is listed from the noise: its blocks, then what undoes the squeezing of pixels to channels.
    levels = [[*coarse, nf.flows.Squeeze()], [*fine, nf.flows.Squeeze()]]
    return nf.MultiscaleFlow(bases, levels, [nf.flows.Merge()], class_cond=False)


def glow(points: Points, budget: Budget, seed: int) -> Fitted:
    """Fit Glow by maximum likelihood; the weights of the best validation are kept."""
    start = time.process_time()
    train, validation = (_pictures(x) for x in (points.train, points.validation))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = multiscale(_BLOCKS, budget.width)
        # The first batch sets the scales of the activations.
        model.log_prob(train[: budget.batch], None)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=_RATE)
    best, state = torch.inf, dict[str, Tensor]()
    for step in range(1, budget.steps + 1):
        rows = torch.randint(len(train), (budget.batch,), generator=generator)
        loss = -model.log_prob(train[rows], None).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()
        if step % _VALIDATE_EVERY and step < budget.steps:
            continue
        with torch.no_grad():
            nll = float(-model.log_prob(validation, None).mean())
        if nll < best:
            best, state = nll, {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(state)
    model.requires_grad_(False)
    count = sum(parameter.numel() for parameter in model.parameters())
    return Fitted(lambda x: _scores(model, x), lambda n, g: _draw(model, n, g), count, time.process_time() - start)


def _pictures(x: Tensor) -> Tensor:
    return x.reshape(-1, 1, _SIDE, _SIDE)


@torch.no_grad()
def _scores(model: Any, x: Tensor) -> Tensor:
    return model.log_prob(_pictures(x), None)


@torch.no_grad()
def _draw(model: Any, n: int, generator: torch.Generator) -> Tensor:
    # The package draws from the global state alone.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        pictures, _ = model.sample(n)
    return pictures.reshape(n, -1)
