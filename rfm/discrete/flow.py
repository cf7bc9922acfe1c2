"""A distribution of sequences: a posterior, a path, and the jumps that follow from them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from manifolds.arguments import check_instance, integer
from rfm.discrete.enumeration import advanced, every_sequence, initial_law
from rfm.discrete.mixture_path import MixturePath

Posterior = Callable[[Tensor, Tensor], Tensor]
"""From labels ``(n, length)`` on the way and times ``(n,)`` to logits of the data's labels ``(n, length, classes)``."""


class DiscreteFlow(nn.Module):
    """Sequences of ``length`` labels, drawn by jumps from noise to data.

    Draws take ``steps`` steps, within which the posterior is kept as it was at the step's start; labels then jump
    independently of each other (tau-leaping), with the exact probability of having jumped by the end. With the exact
    posterior the law of the draws goes to that of the data as one over the number of steps; every position is a draw
    from the posterior in the end.

    Args:
        posterior: logits of the data's labels, a module or a function.
        path: from noise to data.
        length: of the sequences.
    """

    def __init__(self, posterior: Posterior, path: MixturePath, length: int) -> None:
        super().__init__()
        check_instance("DiscreteFlow", "path", path, MixturePath, "MixturePath(MaskedLabels(4))")
        self.posterior = posterior
        self.path = path
        self.length = integer("DiscreteFlow", "length", length)
        self.history: list[dict[str, float]] = []

    def loss(self, x_1: Tensor, t: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Return the mean cross-entropy of the posterior, in nats per position: least at the exact one.

        Of a masked source only positions count that are masked: the others are known.

        Args:
            x_1: data ``(n, length)``, labels.
            t: times ``(n,)``; uniform by default, one in each of n equal parts.
            generator: source of randomness.
        """
        if t is None:
            like: dict[str, Any] = {"generator": generator, "device": x_1.device}
            t = (torch.arange(len(x_1), device=x_1.device) + torch.rand(len(x_1), **like)) / len(x_1)
        x_t = self.path.sample(x_1, t, generator)
        each = cross_entropy(self.posterior(x_t, t).flatten(0, 1), x_1.flatten(), reduction="none")
        masked = self.path.source.states > self.path.source.classes
        counts = (x_t == self.path.source.classes if masked else torch.ones_like(x_t)).flatten().to(each)
        return (counts * each).sum() / counts.sum().clamp(min=1)

    @torch.no_grad()
    def sample(
        self,
        count: int,
        *,
        steps: int = 64,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Return sequences ``(count, length)`` of labels of the data.

        Args:
            count: how many.
            steps: of equal length in time; one more call of the posterior each.
            generator: source of randomness, on ``device``.
            device: of the posterior.
        """
        count = integer("DiscreteFlow.sample", "count", count)
        like: dict[str, Any] = {"generator": generator, "device": device}
        x = self.path.source.sample((count, self.length), **like)
        for t, jump in self._steps(steps):
            q = self._probabilities(x, t)
            drawn = torch.multinomial(q.flatten(0, 1), 1, generator=generator).reshape(x.shape)
            x = torch.where(torch.rand(x.shape, dtype=torch.float64, **like) < jump, drawn, x)
        return x

    @torch.no_grad()
    def law(self, *, steps: int = 64, block: int = 512) -> Tensor:
        """Return the exact probabilities of all sequences under `sample`, ``(classes^length,)``, as `every_sequence`.

        The law of the jumps' chain on all ``states^length`` sequences, step by step: for a few thousand of them.

        Args:
            steps: as for `sample`.
            block: how many sequences to jump from at a time.

        Raises:
            ValueError: for more than 20,000 sequences on the way.
        """
        source = self.path.source
        sequences = every_sequence(source.states, self.length)
        p = initial_law(source, sequences)
        for t, jump in self._steps(steps):
            p = advanced(p, sequences, partial(self._probabilities, t=t), jump, source.states, block)
        final = (sequences < source.classes).all(-1)
        return p[final]

    def _steps(self, steps: int) -> list[tuple[float, float]]:
        """Return the time at which each step starts, and the probability to jump in it."""
        steps = integer("DiscreteFlow", "steps", steps)
        return [(i / steps, self.path.jump_probability(i / steps, (i + 1) / steps)) for i in range(steps)]

    def _probabilities(self, x: Tensor, t: float) -> Tensor:
        """Return the posterior ``(n, length, classes)``: where the source is masked, certain at what is no mask."""
        logits = self.posterior(x, torch.full((len(x),), t, device=x.device))
        q = torch.softmax(logits.double(), dim=-1)
        source = self.path.source
        if source.states == source.classes:
            return q
        known = torch.nn.functional.one_hot(x, source.states)[..., : source.classes].to(q)
        return torch.where((x < source.classes)[..., None], known, q)
