"""Divergence of a velocity field, exact or estimated."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from manifolds import Manifold
from manifolds.arguments import integer
from manifolds.numerics.precision import at_least_float32
from rfm.arrays import points_of
from rfm.integrators.conditions import unmarked
from rfm.likelihood.derivatives import differentiable
from rfm.paths.times import check_times


def rademacher(
    *shape: int,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return independent signs, 1 or -1 with equal probability; the arguments are those of `torch.randn`."""
    bits = torch.randint(2, shape, generator=generator, device=device)
    return bits.to(torch.get_default_dtype() if dtype is None else dtype) * 2 - 1


@dataclass(frozen=True)
class Hutchinson:
    """The stochastic estimator of the divergence: one directional derivative per probe, whatever the dimension.

    Hutchinson, A stochastic estimator of the trace of the influence matrix, Commun. Stat. Simul. Comput. 19 (1990),
    433-450. The noise is ambient and stays the same along one solve, so that the integrand is a function of time
    (FFJORD, Grathwohl et al. 2019, arXiv:1810.01367); `Manifold.divergence_probes` makes it tangent, in a way that is
    smooth along the path and unbiased in any metric.

    It pays where the dimension is much larger than the number of probes. On a sphere or on SO(3) the exact divergence
    costs two or three derivatives.

    Args:
        probes: directional derivatives per point, at least 1; the standard error falls with the root of their number,
            and is NaN for one.
        generator: source of randomness, on the device of the points.
        draw: a function with the signature of `rademacher`, whose entries are independent with mean 0 and variance 1:
            signs have the least variance; `torch.randn` gives normal ones.
    """

    probes: int = 1
    generator: torch.Generator | None = None
    draw: Callable[..., Tensor] = rademacher

    def __post_init__(self) -> None:
        object.__setattr__(self, "probes", integer("Hutchinson", "probes", self.probes, None))
        if self.probes < 1:
            raise ValueError(f"Hutchinson: probes must be at least 1, got {self.probes}")

    def noise(self, manifold: Manifold, x: Tensor) -> Tensor:
        """Return ambient noise for points ``x``, ``(*batch, probes, *event_shape)``."""
        shape = (*manifold.batch_shape(x), self.probes, *manifold.event_shape)
        return self.draw(*shape, generator=self.generator, dtype=x.dtype, device=x.device)


def divergence(
    field: Callable[..., Tensor],
    manifold: Manifold,
    x: Tensor,
    t: Tensor,
    *,
    estimator: Hutchinson | None = None,
    **condition: Any,
) -> tuple[Tensor, Tensor]:
    """Return the field and its Riemannian divergence, exact unless an estimator is given.

    The trace is taken over the tangent space: ``dim`` directional derivatives, not one per ambient coordinate. A field
    may offer them itself, in closed form, by `rfm.Field.pushforward`; others are differentiated in forward mode, or
    in reverse mode where an operator of theirs has no other (attention, `torch.autograd.Function`). Under
    `torch.no_grad` reverse mode, which is faster, takes over once it has agreed with forward mode for that field.

    Args:
        field: ``field(x, t, **condition)``, tangent at ``x``.
        manifold: where the points live.
        x: points ``(*batch, *event_shape)``.
        t: times ``(*batch)``.
        estimator: how to estimate the divergence instead, with new noise at every call.
        condition: passed on to the field.

    Returns:
        ``u`` of the shape of ``x``, and the divergence ``(*batch)`` with respect to the Riemannian volume; both in the
        dtype of ``x``, at least float32.
    """
    # Forward mode refuses tensors that overlap themselves, as expanded ones do.
    x = points_of("divergence", manifold, x)
    x = x.to(at_least_float32(x.dtype)).contiguous()
    check_times("divergence", t, manifold.batch_shape(x))
    if estimator is not None:
        u, estimates = divergence_estimates(field, manifold, x, t, estimator.noise(manifold, x), **condition)
        return u, estimates.mean(-1)
    vectors, covectors = manifold.divergence_frame(x)
    u, terms = differentiable(field).along(manifold, x, t, vectors, covectors, unmarked(condition))
    return u, terms.sum(-1) + manifold.log_volume_derivative(x, u)


def divergence_estimates(
    field: Callable[..., Tensor], manifold: Manifold, x: Tensor, t: Tensor, noise: Tensor, **condition: Any
) -> tuple[Tensor, Tensor]:
    """Return the field and one unbiased estimate of its Riemannian divergence per probe.

    Args:
        field: ``field(x, t, **condition)``, tangent at ``x``.
        manifold: where the points live.
        x: points ``(*batch, *event_shape)``.
        t: times ``(*batch)``.
        noise: ``(*batch, probes, *event_shape)``, see `Hutchinson.noise`.
        condition: passed on to the field.

    Returns:
        ``u`` of the shape of ``x``, and the estimates ``(*batch, probes)``.
    """
    x = x.to(at_least_float32(x.dtype)).contiguous()
    vectors, covectors = manifold.divergence_probes(x, noise)
    u, terms = differentiable(field).along(manifold, x, t, vectors, covectors, unmarked(condition))
    return u, terms + manifold.log_volume_derivative(x, u)[..., None]
