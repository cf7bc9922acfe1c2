"""Parallel tempering: copies of each chain at powers of the likelihood, from the posterior down to the source."""

import math

import numpy as np
import torch
from torch import Tensor

from rfm.posterior.target import State


class Ladder:
    """Powers of the likelihood that neighbouring copies exchange states between.

    Copies lie rung by rung, ``(rungs * chains,)``, from power 1 to power 0. Exchanges alternate between even and odd
    pairs of rungs, so that states travel along the ladder instead of diffusing.

    Args:
        rungs: number of powers; 1 is the posterior alone.
        chains: copies at each power.

    References:
        Syed, Bouchard-Cote, Deligiannidis, Doucet: Non-reversible parallel tempering, a scalable highly parallel MCMC
        scheme, 2022, arXiv:1905.02939, algorithms 1 and 2.
    """

    def __init__(self, rungs: int, chains: int, device: torch.device) -> None:
        self.rungs, self.chains = rungs, chains
        # Geometric at first, as the likelihood is felt at small powers already.
        self.powers = [1.0] if rungs == 1 else [2.0 ** (-2 * i) for i in range(rungs - 1)] + [0.0]
        self.device, self._turn = device, 0
        self._rejected, self._tried = np.zeros(rungs - 1), np.zeros(rungs - 1)
        self.steps: list[Tensor] = []
        """For each exchange the mean likelihood ratio between neighbouring rungs ``(rungs - 1,)``, as logarithms."""

    @property
    def of_copies(self) -> Tensor:
        """The power of each copy, ``(rungs * chains,)``, float64."""
        return torch.tensor(self.powers, dtype=torch.float64, device=self.device).repeat_interleave(self.chains)

    def exchanged(self, state: State, generator: torch.Generator | None) -> State:
        """Return the states after exchanges between every other pair of rungs."""
        lower = torch.arange(self._turn % 2, self.rungs - 1, 2, device=self.device)
        self._turn += 1
        values = state.log_likelihood.reshape(self.rungs, self.chains)
        powers = torch.tensor(self.powers, dtype=torch.float64, device=self.device)
        up = (powers[:-1] - powers[1:])[:, None] * values[1:]
        self.steps.append(up.logsumexp(1) - math.log(self.chains))
        if not len(lower):
            return state
        gap = (powers[lower] - powers[lower + 1])[:, None]
        # Both of likelihood zero: staying is as good.
        log_ratio = (gap * (values[lower + 1] - values[lower])).nan_to_num(nan=-torch.inf)
        u = torch.rand(log_ratio.shape, generator=generator, dtype=torch.float64, device=self.device)
        rows = torch.arange(self.rungs * self.chains, device=self.device).reshape(self.rungs, self.chains)
        accepted = u.log() < log_ratio
        above, below = rows[lower + 1], rows[lower]
        rows[lower], rows[lower + 1] = torch.where(accepted, above, below), torch.where(accepted, below, above)
        pairs = lower.cpu().numpy()
        self._rejected[pairs] += (1 - log_ratio.clamp(max=0).exp()).mean(1).cpu().numpy()
        self._tried[pairs] += 1
        return state.take(rows.flatten())

    @property
    def rejections(self) -> list[float]:
        """The mean rejection between neighbouring rungs since the powers were last set."""
        return (self._rejected / np.maximum(self._tried, 1)).tolist()

    @property
    def log_evidence(self) -> float:
        """Log of the mean likelihood under the prior, in nats, by stepping stones between rungs: Xie et al. 2011."""
        steps = torch.stack(self.steps)
        return float((steps.logsumexp(0) - math.log(len(steps))).sum())

    def equalise(self) -> None:
        """Set the powers so that all neighbours exchange as often, by what was rejected since they were last set."""
        if self.rungs > 2 and (self._tried > 0).all():
            barrier = np.concatenate([[0.0], np.cumsum(np.maximum(self.rejections, 1e-3))])
            even = np.linspace(0, barrier[-1], self.rungs)
            self.powers = [1.0, *np.interp(even[1:-1], barrier, self.powers).tolist(), 0.0]
        self._rejected[:], self._tried[:] = 0, 0
