"""Draws of the von Mises-Fisher distribution's one non-trivial coordinate."""

import torch
from torch import Tensor


def draw_versine(n: int, concentration: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return ``1 - <mean, x>`` for von Mises-Fisher x on S^n, ``(*batch)``, in float64.

    Its density is proportional to ``exp(-k s) (s (2 - s))^(n/2 - 1)`` on [0, 2]. Draws are exact for every
    concentration k from 0 to 1e8 and more: nothing is computed from ``<mean, x>`` itself, which is 1 to rounding there.

    Args:
        n: dimension of the sphere.
        concentration: k of each draw, not negative, ``(*batch)``.
        generator: source of randomness.

    References:
        Wood: Simulation of the von Mises Fisher distribution, 1994, doi:10.1080/03610919408813161, algorithm VM*.
    """
    k = concentration.double()
    return _by_inversion(k, generator) if n == 2 else _by_rejection(n, k.flatten(), generator).reshape(k.shape)


def _by_inversion(k: Tensor, generator: torch.Generator | None) -> Tensor:
    u = torch.rand(k.shape, generator=generator, dtype=k.dtype, device=k.device)
    zero = k == 0
    return torch.where(zero, 2 * u, -torch.log1p(u * torch.expm1(-2 * k)) / torch.where(zero, 1.0, k)).clamp(max=2)


def _by_rejection(n: int, k: Tensor, generator: torch.Generator | None) -> Tensor:
    """Wood's algorithm in terms of s.

    His x_0 is ``1 - e``; his Z, of the distribution Beta(n/2, n/2), is ``a / (a + c)`` for two sums of n squared normal
    numbers, and ``2 b a / (c + b a)`` is 1 - W.
    """
    versine = torch.empty_like(k)
    missing = torch.arange(len(k), device=k.device)
    while len(missing):
        k_left = k[missing]
        b = n / (2 * k_left + torch.hypot(2 * k_left, k.new_full((), n)))
        e = 2 * b / (1 + b)
        normal = torch.randn(2, len(missing), n, generator=generator, dtype=k.dtype, device=k.device)
        a, c = (normal * normal).sum(-1)
        s = 2 * b * a / (c + b * a)
        log_ratio = k_left * (e - s) + n * torch.log((1 + (1 - e) / e * s) / (2 - e))
        u = torch.rand(len(missing), generator=generator, dtype=k.dtype, device=k.device)
        accepted = torch.log(u) <= log_ratio
        versine[missing[accepted]] = s[accepted]
        missing = missing[~accepted]
    return versine
