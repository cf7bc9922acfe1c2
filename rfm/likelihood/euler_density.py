"""The density of what a few of Euler's steps draw, exactly: their Jacobian at their numerical inverse."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from manifolds import Manifold
from rfm.field import Field, FlowMap, as_field
from rfm.integrators import Jumps
from rfm.likelihood.jump_density import Inversion, JumpLogProb, jump_log_prob, jump_transport
from rfm.sources import Source


class _EulerMap(FlowMap):
    """Steps of Euler's method along geodesics as jumps: the average velocity is that at the beginning."""

    def __init__(self, field: Field, manifold: Manifold) -> None:
        self.field, self.manifold = field, manifold

    def average_velocity(self, x: Tensor, s: Tensor, t: Tensor, **condition: Any) -> Tensor:
        return self.field(x, s, **condition)

    def average_pushforward(
        self, x: Tensor, s: Tensor, t: Tensor, tangents: Tensor, **condition: Any
    ) -> tuple[Tensor, Tensor] | None:
        return self.field.pushforward(x, s, tangents, **condition)

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        yield from self.field.named_modules()


def euler_log_prob(
    field: Callable[..., Tensor],
    source: Source,
    x: Tensor,
    steps: int = 10,
    *,
    inversion: Inversion | None = None,
    check: bool = True,
    **condition: Any,
) -> JumpLogProb:
    """Return the log-density at ``x`` of what so many steps of Euler's method draw, with geodesics for straight lines.

    That of the sampler ``FixedStep(GEODESIC_EULER, steps)`` itself, however few its steps: `rfm.likelihood.log_prob` is
    that of the equation, from which few steps depart. A step ``x -> exp_x(h v(x, t))`` is a jump, and is inverted as
    `jump_log_prob` inverts jumps. Not differentiated.

    Args:
        field: ``field(x, t, **condition)``.
        source: the distribution at time 0.
        x: points ``(*batch, *event_shape)``.
        steps: of equal length, from time 0 to 1.
        inversion: how steps are inverted.
        check: raise where the inverse does not converge; otherwise the log-density is NaN there.
        condition: passed on to the field.

    Raises:
        rfm.likelihood.NotInvertibleError: if the inverse does not converge: the steps are too long to be one-to-one.
    """
    steps_map = _EulerMap(as_field(field), source.manifold)
    return jump_log_prob(steps_map, source, x, Jumps(steps), inversion=inversion, check=check, **condition)


def euler_transport(
    field: Callable[..., Tensor], manifold: Manifold, x: Tensor, steps: int = 10, **condition: Any
) -> tuple[Tensor, Tensor]:
    """Return where the steps carry points, and the log-determinant of their differential there, ``(*batch)``.

    The log-density of a point that is carried falls by the latter. Arguments as for `euler_log_prob`.
    """
    return jump_transport(_EulerMap(as_field(field), manifold), manifold, x, Jumps(steps), **condition)
