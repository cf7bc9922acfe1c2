"""Steering: what changes where samples go, and the one rule that they then have no density."""

from collections.abc import Callable, Sequence

from torch import Tensor

from manifolds.arguments import check_instance
from rfm.field import Field


class Steering:
    """A change of the field that samples follow, so that their distribution is no longer that of the flow.

    A subclass defines in `applied_to` what is done to a field.
    """

    name: str = "steering"
    """What it is called in messages."""

    def check(self, where: str, field: Field, condition: Tensor | None) -> None:
        """Raise ValueError unless the field can be steered this way.

        Args:
            where: the caller, for the message.
            field: that of the flow.
            condition: what samples are conditional on, if anything.
        """

    def applied_to(self, field: Callable[..., Tensor]) -> Field:
        """Return the steered field, for one solve of one batch: it may have a memory."""
        raise NotImplementedError(f"{type(self).__name__} has no applied_to")


def check_steering(
    where: str, steering: Sequence[Steering], field: Field, condition: Tensor | None, with_density: bool
) -> None:
    """Raise ValueError unless samples of the field can be steered so; a steered flow has no log-density."""
    for own in steering:
        check_instance(where, "steering", own, Steering, "SelfConditioning()")
        own.check(where, field, condition)
    if steering and with_density:
        names = " and ".join(own.name for own in steering)
        raise ValueError(
            f"{where}: samples steered by {names} have another distribution, and no exact log-density under this flow; "
            f"leave out {names}, or return_log_prob"
        )
