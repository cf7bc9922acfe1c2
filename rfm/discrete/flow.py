"""A distribution of sequences: a posterior, a path, and the jumps that follow from them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from manifolds.arguments import check_function, check_instance, integer
from rfm.discrete.cross_entropy import jumped, label_loss, probabilities, spread_times
from rfm.discrete.enumeration import advanced, every_sequence, initial_law
from rfm.discrete.mixture_path import MixturePath
from rfm.discrete.saved_flow import LabelFlow, read_parts, write_parts

_FORMAT = "rfm discrete flow"

Posterior = Callable[[Tensor, Tensor], Tensor]
"""From labels ``(n, length)`` on the way and times ``(n,)`` to logits of the data's labels ``(n, length, classes)``."""


class DiscreteFlow(LabelFlow):
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
        check_function("DiscreteFlow", "posterior", posterior, "PosteriorNetwork(states, classes, length)")
        check_instance("DiscreteFlow", "path", path, MixturePath, "MixturePath(MaskedLabels(4))")
        self.posterior = posterior
        self.path = path
        self.length = integer("DiscreteFlow", "length", length)

    @property
    def network(self) -> nn.Module:
        """The posterior as a module: what training changes."""
        assert isinstance(self.posterior, nn.Module), "a posterior in training is a module"
        return self.posterior

    def save(self, folder: str | Path) -> None:
        """Save to a folder: ``flow.json`` and the tensors it names, which is replaced last, in one step."""
        parts = {"posterior": self.posterior, "path": self.path, "length": self.length}
        write_parts(Path(folder), _FORMAT, parts, self)

    @classmethod
    def load(cls, folder: str | Path, *, posterior: Posterior | None = None) -> "DiscreteFlow":
        """Load a saved flow, in evaluation mode.

        Args:
            folder: where `save` put it.
            posterior: needed if it is no `PosteriorNetwork` but one of your own.

        Raises:
            SavedFlowError: if the folder is not a saved flow, is damaged, or needs the posterior passed in.
        """
        return read_parts(Path(folder), _FORMAT, cls, {"posterior": posterior, "path": None, "length": None})

    def loss(
        self,
        x_1: Tensor,
        t: Tensor | None = None,
        generator: torch.Generator | None = None,
        posterior: Posterior | None = None,
    ) -> Tensor:
        """Return the mean cross-entropy of the posterior, in nats per position: least at the exact one.

        Of a masked source only positions count that are masked: the others are known.

        Args:
            x_1: data ``(n, length)``, labels.
            t: times ``(n,)``; uniform by default, one in each of n equal parts.
            generator: source of randomness.
            posterior: another one than the flow's own, such as that of averaged weights.
        """
        t = spread_times(len(x_1), generator, x_1.device) if t is None else t
        x_t = self.path.sample(x_1, t, generator)
        logits = (self.posterior if posterior is None else posterior)(x_t, t)
        return label_loss(logits, x_t, x_1, self.path.source)

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
        x = self.path.source.sample((count, self.length), generator, device)
        for t, jump in self._steps(steps):
            x = jumped(x, self._probabilities(x, t), jump, generator)
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
        return self.path.jumps(integer("DiscreteFlow", "steps", steps))

    def _probabilities(self, x: Tensor, t: float) -> Tensor:
        logits = self.posterior(x, torch.full((len(x),), t, device=x.device))
        return probabilities(logits, x, self.path.source)
