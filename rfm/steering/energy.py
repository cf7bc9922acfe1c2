"""Guidance by an energy of one's own, on any manifold."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from manifolds import Manifold
from manifolds.arguments import check_function, check_instance, number
from rfm.field import Field, as_field
from rfm.steering.gradients import end_point, gradient, riemannian_gradient
from rfm.steering.steering import Steering


class EnergyGuidance(Steering):
    """The field ``v(x, t) - strength(t) grad_x E(x1(x, t))``, where ``x1 = exp_x((1 - t) v(x, t))``.

    Points are led to where the energy of the predicted end point is low. The samples lean towards low energies; they
    are not those of a density proportional to ``p(x) exp(-E(x))``, for which see `rfm.Flow.posterior`.

    Args:
        manifold: where the points live.
        energy: from points ``(*batch, *event_shape)`` to energies ``(*batch)``, differentiable.
        strength: a number, or a function of times ``(*batch)``; per unit of time.
        start: earliest time at which the energy counts, in [0, 1).
        through_field: differentiate through the field. Otherwise the gradient at the end point is carried to ``x`` by
            the manifold's transport, which costs no derivative of the field and is less faithful.

    References:
        Dhariwal and Nichol, Diffusion models beat GANs on image synthesis, 2021, arXiv:2105.05233, for guidance by a
        gradient; Chung et al., Diffusion posterior sampling, 2022, arXiv:2209.14687, for the end point.
    """

    name = "an energy"

    def __init__(
        self,
        manifold: Manifold,
        energy: Callable[[Tensor], Tensor],
        strength: float | Callable[[Tensor], Tensor] = 1.0,
        *,
        start: float = 0.0,
        through_field: bool = True,
    ) -> None:
        owner = type(self).__name__
        check_instance(owner, "manifold", manifold, Manifold, "Sphere(2)")
        check_function(owner, "energy", energy, "lambda x: x[..., 2]")
        if not 0 <= number(owner, "start", start) < 1:
            raise ValueError(f"{owner}: start is a time from 0 to below 1, got {start}")
        self.manifold, self.energy, self.start, self.through_field = manifold, energy, start, through_field
        self.strength = strength if callable(strength) else _constant(number(owner, "strength", strength))

    def applied_to(self, field: Callable[..., Tensor]) -> Field:
        return _Led(as_field(field), self)


def _constant(value: float) -> Callable[[Tensor], Tensor]:
    return lambda t: torch.full_like(t, value)


class _Led(Field):
    def __init__(self, field: Field, guidance: EnergyGuidance) -> None:
        self.field, self.guidance = field, guidance

    def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        own, manifold = self.guidance, self.guidance.manifold
        active = (t >= own.start).expand(manifold.batch_shape(x))
        if not bool(active.any()):
            return self.field(x, t, **condition)
        u, gradient = self._gradient(x, t, condition)
        # The strength may be singular before its start.
        strength = torch.where(active, own.strength(torch.where(active, t, torch.ones_like(t))), 0.0)
        return u - manifold.lift(strength).to(u) * gradient

    def _gradient(self, x: Tensor, t: Tensor, condition: dict[str, Any]) -> tuple[Tensor, Tensor]:
        own, manifold = self.guidance, self.guidance.manifold
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            if own.through_field:
                u, x_1 = end_point(manifold, self.field, leaf, t, **condition)
                ambient = gradient(type(own).__name__, own.energy(x_1), leaf)
                return u.detach(), riemannian_gradient(manifold, x, ambient)
            with torch.no_grad():
                u, x_1 = end_point(manifold, self.field, x, t, **condition)
            at = x_1.detach().requires_grad_()
            ambient = gradient(type(own).__name__, own.energy(at), at)
        return u, manifold.transp(x_1, x, riemannian_gradient(manifold, x_1, ambient))
