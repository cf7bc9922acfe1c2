"""OT-ODE: guidance by a Gaussian about the predicted end point."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from manifolds import Manifold
from manifolds.arguments import check_instance
from rfm.field import Field, as_field
from rfm.posterior.measurements import Measurement
from rfm.posterior.tangent_solve import linearised, solve
from rfm.steering.gradients import end_point, riemannian_gradient
from rfm.steering.steering import Steering


class OTODE(Steering):
    """The field ``v + (1 - t) / t (I + (1 - t) J)' H' (r^2 H H' + noise^2)^-1 (y - H x1)``: biased.

    ``J`` is the field's derivative, ``H`` the operator, ``x1 = x + (1 - t) v`` and ``r^2 = (1 - t)^2 / (t^2 + (1 -
    t)^2)``. It is exact, but for what happens before ``start``, for a standard normal prior in flat space under a
    linear operator; otherwise the distribution of end points given ``x_t`` is no Gaussian of variance ``r^2``. With
    ``r = 0`` it is `FlowDPS`. Before ``start`` the prior's field is followed; the published code starts there instead,
    from ``start H'y + (1 - start) noise``, which has a meaning in flat space only.

    On manifolds ``x1 = exp_x((1 - t) v)``, and the operator is linearised in the tangent space there.

    Args:
        manifold: where the points live.
        measurement: with Gaussian noise.
        start: of the guidance, in (0, 1).
        weight: of the guidance; 1, and the root of ``t / (t^2 + (1 - t)^2)``, were published.

    References:
        Pokle, Muckley, Chen, Karrer: Training-free linear image inverses via flows, 2023, arXiv:2310.04432.
    """

    name = "OT-ODE"

    def __init__(
        self,
        manifold: Manifold,
        measurement: Measurement,
        start: float = 0.2,
        weight: float | Callable[[Tensor], Tensor] = 1.0,
    ) -> None:
        check_instance("OTODE", "manifold", manifold, Manifold, "Sphere(2)")
        check_instance("OTODE", "measurement", measurement, Measurement, "Measurement(operator, y, noise)")
        if not 0 < start < 1:
            raise ValueError(f"OTODE: start is a time between 0 and 1, where the guidance is singular, got {start}")
        self.manifold, self.measurement, self.start = manifold, measurement, start
        self.weight = weight if callable(weight) else lambda t: torch.full_like(t, weight)

    def applied_to(self, field: Callable[..., Tensor]) -> Field:
        return _Pulled(as_field(field), self)


class _Pulled(Field):
    def __init__(self, field: Field, guidance: OTODE) -> None:
        self.field, self.guidance = field, guidance

    def __call__(self, x: Tensor, t: Tensor, **condition: Any) -> Tensor:
        own, manifold = self.guidance, self.guidance.manifold
        active = (t >= own.start).expand(manifold.batch_shape(x))
        if not bool(active.any()):
            return self.field(x, t, **condition)
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            u, x_1 = end_point(manifold, self.field, leaf, t, **condition)
            at = x_1.detach()
            pull = self._pull(at, t.expand(manifold.batch_shape(x)))
            # Inner products are linear in what is differentiated, so this is the adjoint of the end point's derivative.
            [ambient] = torch.autograd.grad(manifold.inner(at, pull, x_1).sum(), leaf)
        strength = torch.where(active, own.weight(t) * (1 - t) / t.clamp(min=own.start), 0.0)
        return u.detach() + manifold.lift(strength).to(u) * riemannian_gradient(manifold, x, ambient)

    def _pull(self, x_1: Tensor, t: Tensor) -> Tensor:
        """Return ``H' (r^2 H H' + noise^2)^-1 (y - H x1)`` as ``(r^2 H'H + noise^2)^-1 H' (y - H x1)``."""
        manifold = self.guidance.manifold
        variance = (1 - t).square() / (t.square() + (1 - t).square())
        # At the end the variance is 0, and the solve is a division.
        precision = 1 / variance.clamp(min=1e-6)
        with torch.no_grad():
            problem = linearised(manifold, self.guidance.measurement, x_1)
            u = solve(problem, -problem.residual, precision)
        return manifold.lift(precision).to(u) * u
