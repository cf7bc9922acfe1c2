"""Self-conditioning: a field that remembers what it predicted."""

from collections.abc import Callable

from torch import Tensor

from rfm.field import Field, as_field
from rfm.steering.steering import Steering


class SelfConditioning(Steering):
    """Give the field, at each step, what it predicted at the step before.

    For fields that have ``self_conditioned``, such as `rfm.networks.FrameField`, and solvers of one evaluation a step.
    Chen, Zhang, Hinton, Analog Bits, 2022, arXiv:2208.04202.
    """

    name = "self-conditioning"

    def applied_to(self, field: Callable[..., Tensor]) -> Field:
        return as_field(as_field(field).self_conditioned())
