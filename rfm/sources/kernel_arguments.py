"""What a kernel mixture is made of, checked and in float64."""

import math
from typing import Any

import torch
from torch import Tensor

from manifolds import Kernel, Manifold
from rfm.arrays import tensor_of


def checked_points(manifold: Manifold, points: Tensor, name: str) -> Tensor:
    """Return the points detached, in float64; those of less precision are projected after the conversion."""
    points = _numbers(name, points)
    manifold.check_point(points)
    if manifold.batch_shape(points) != (len(points),) or len(points) == 0:
        raise ValueError(
            f"KernelMixture: {name} must have shape (n, {', '.join(map(str, manifold.event_shape))}) with n at least "
            f"1, got {tuple(points.shape)}"
        )
    return points if points.dtype == torch.float64 else manifold.projx(points.double())


def checked_concentrations(concentrations: Tensor, centres: int | None = None) -> Tensor:
    """Return the concentrations in float64, ``(K,)`` or, with so many centres, also ``(K, centres)``."""
    k = _numbers("concentrations", concentrations).double()
    shaped = k.ndim == 1 or (k.ndim == 2 and k.shape[1] == centres)
    if not shaped or len(k) == 0 or not bool((torch.isfinite(k) & (k > 0)).all()):
        shapes = "shape (K,)" if centres is None else f"shape (K,) or, one for each centre, (K, {centres}),"
        found = f"{k.tolist()}" if k.numel() <= 16 else f"shape {tuple(k.shape)} with minimum {float(k.min())}"
        raise ValueError(
            f"KernelMixture: concentrations must be positive and finite, {shapes} with K at least 1, got {found}"
        )
    return k


def checked_mixture_weights(weights: Tensor, kernels: int) -> Tensor:
    """Return the weights of the kernels and the background in float64, ``(kernels + 1,)``."""
    w = _numbers("weights", weights).double()
    if w.shape != (kernels + 1,) or not bool((w >= 0).all()) or not abs(float(w.sum()) - 1) < 1e-6:
        raise ValueError(
            f"KernelMixture: weights must be {kernels + 1} numbers (one for each concentration, and the background's "
            f"last), not negative, with sum 1, got {w.tolist()}; divide them by their sum"
        )
    return w


def checked_shares(weights: Tensor | None, points: Tensor, name: str) -> Tensor:
    """Return the points' weights divided by their sum, float64; equal ones for None."""
    w = torch.ones(len(points)) if weights is None else _numbers(name, weights)
    w = w.to(dtype=torch.float64, device=points.device)
    if w.shape != (len(points),) or not bool((torch.isfinite(w) & (w >= 0)).all()) or not float(w.sum()) > 0:
        raise ValueError(
            f"KernelMixture: {name} must be one finite number for each of the {len(points)} points, not negative and "
            f"not all zero, got shape {tuple(w.shape)} with minimum {float(w.min()) if w.numel() else math.nan}"
        )
    return w / w.sum()


def checked_kernel(manifold: Manifold) -> Kernel:
    """Return the manifold's kernel.

    Raises:
        ValueError: it has none.
    """
    kernel = manifold.kernel
    if kernel is None:
        raise ValueError(
            f"KernelMixture: {manifold} has no smoothing kernel, so no kernel-density baseline; let its property "
            "kernel return a manifolds.Kernel, or compare with the source's density instead"
        )
    return kernel


def log_normalisers(kernel: Kernel, concentrations: Tensor) -> Tensor:
    """Return ``kernel.log_normaliser`` of concentrations of any shape."""
    # In parts: some manifolds find it by quadrature, with many values for each concentration.
    parts = [kernel.log_normaliser(part) for part in concentrations.flatten().split(2**16)]
    return torch.cat([concentrations.new_empty(0), *parts]).reshape(concentrations.shape)


def _numbers(name: str, values: Any) -> Tensor:
    """Return a tensor detached; a saved flow gives nested lists for short ones."""
    dtype = None if isinstance(values, Tensor) else torch.float64
    return tensor_of("KernelMixture", name, values, dtype).detach()
