"""The kernels of a mixture: their densities at any points, with all centres or with those that matter."""

import math

import torch
from torch import Tensor

from manifolds import Manifold
from manifolds.numerics.constants import Constants
from rfm.sources.kernel_arguments import checked_kernel, log_normalisers
from rfm.sources.kernel_sums import log_kernel_sums, log_varying_sums
from rfm.sources.truncated_sums import Precision, truncated_log_sums

_CHUNK_ELEMENTS = 2**18
"""Distances held at a time: 2 MiB, about a second-level cache, where the passes over them are fastest."""

_TRUNCATED_PAIRS = 2**16
"""Where there are fewer pairs of a point and a centre, complete sums are as fast."""


class KernelComponents(Constants):
    """Kernel densities of several widths on the same centres.

    Args:
        manifold: a manifold with a kernel.
        points: centres, ``(n, *event_shape)``.
        concentrations: ``(K,)`` or ``(K, n)``.
        shares: of the centres, ``(n,)``, sum 1; None for equal ones.
    """

    embedded: Tensor
    shared_k: Tensor
    shared_log_z: Tensor
    varying_k: Tensor
    varying_log_a: Tensor
    log_shares: Tensor

    def __init__(self, manifold: Manifold, points: Tensor, concentrations: Tensor, shares: Tensor | None) -> None:
        super().__init__()
        kernel, k, n = checked_kernel(manifold), concentrations, len(points)
        # Components of one width have the faster sums, however they were given.
        same = torch.ones(len(k), dtype=torch.bool) if k.ndim == 1 else (k == k[:, :1]).all(-1).cpu()
        self.shared, self.varying = same.nonzero().flatten().tolist(), (~same).nonzero().flatten().tolist()
        self.constant("shared_k", k[self.shared] if k.ndim == 1 else k[self.shared, 0])
        self.constant("shared_log_z", log_normalisers(kernel, self.shared_k))
        # Where points are classes, a kernel is shared by its representatives.
        centres = kernel.centres(points)
        self.copies = centres.shape[1]
        embedded = kernel.embed(centres.flatten(0, 1)).unflatten(0, (-1, self.copies))
        # Centres of weight zero add nothing, but would undo the bound on what the sums drop.
        used = torch.ones(n, dtype=torch.bool, device=points.device) if shares is None else shares > 0
        self.equal = shares is None
        self.constant("log_shares", points.new_full((n,), -math.log(n)) if shares is None else shares[used].log())
        self.constant("embedded", embedded[used].flatten(0, 1))
        varying = k.new_empty(0, len(self.log_shares)) if k.ndim == 1 else k[self.varying][:, used]
        self.constant("varying_k", varying)
        self.constant("varying_log_a", -log_normalisers(kernel, varying))

    @property
    def count(self) -> int:
        """The number K of components."""
        return len(self.shared) + len(self.varying)

    def chunks(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return points in parts whose distances from all centres may be held at once."""
        return x.split(max(1, _CHUNK_ELEMENTS // len(self.embedded)))

    def log_prob(self, x: Tensor) -> list[Tensor]:
        """Return the log-density of each component at embedded points ``(m, D)``: K of ``(m,)``."""
        columns: dict[int, Tensor] = {}
        log_copy = self.log_shares - math.log(self.copies)
        if self.shared:
            log_w = None if self.equal else log_copy.repeat_interleave(self.copies)
            sums = log_kernel_sums(x, self.embedded, self.shared_k, log_w) - self.shared_log_z
            columns |= dict(zip(self.shared, sums.unbind(-1), strict=True))
        if self.varying:
            sums = log_varying_sums(x, self.embedded, self.varying_k, self.varying_log_a + log_copy)
            columns |= dict(zip(self.varying, sums.unbind(-1), strict=True))
        return [columns[j] for j in range(self.count)]

    def truncates(self, x: Tensor) -> bool:
        """Return whether `truncated` is the faster way at points ``(m, *event_shape)``, and a possible one.

        It is for many terms, on the CPU, where no gradient is requested.
        """
        graph = x.requires_grad and torch.is_grad_enabled()
        return len(x) * len(self.embedded) >= _TRUNCATED_PAIRS and self.embedded.device.type == "cpu" and not graph

    @torch.no_grad()
    def truncated(self, x: Tensor, weights: Tensor, log_floor: Tensor, precision: Precision) -> Tensor:
        """Return the log of weight times density of each component, ``(m, K)``, by `truncated_log_sums`.

        Args:
            x: embedded points ``(m, D)``.
            weights: of the components, ``(K,)``; those of weight zero take no time.
            log_floor: log of what else is added to the components' sum, ``(m,)``.
            precision: of the sums.
        """
        used = weights.nonzero().flatten()
        n = len(self.log_shares)
        k, log_a = (weights.new_empty(self.count, n) for _ in range(2))
        k[self.shared], log_a[self.shared] = self.shared_k[:, None], -self.shared_log_z[:, None]
        k[self.varying], log_a[self.varying] = self.varying_k, self.varying_log_a
        log_a = log_a[used] + weights[used, None].log()
        result = x.new_full((len(x), self.count), -math.inf)
        result[:, used] = truncated_log_sums(x, self.embedded, k[used], log_a, self.log_shares, log_floor, precision)
        return result
