"""Networks with a second time, made from those that have one."""

import inspect
from typing import Any, ClassVar, Self

from torch import nn

from manifolds.arguments import check_instance
from rfm.field import FlowMap
from rfm.networks.encoded import Encoded, EncodedMap
from rfm.records.descriptions import arguments_of


class SecondTime(FlowMap):
    """A flow map with all that a network has, and a part for jumps that is zero at first.

    ``class AverageVelocity(VelocityField, SecondTime, one_time=VelocityField)`` takes the arguments of `VelocityField`,
    and is what `with_second_time` makes of one. The network keeps arguments under their names, as whatever is saved
    does.
    """

    one_time: ClassVar[type[nn.Module]]
    """The network that has one time."""

    def __init_subclass__(cls, one_time: type[nn.Module] | None = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        if one_time is not None:
            cls.one_time = one_time
            cls.__signature__ = inspect.signature(one_time)  # type: ignore[attr-defined]
            _FORMS[one_time] = cls

    @classmethod
    def from_velocity(cls, field: nn.Module) -> Self:
        """Return a network of the same arguments and weights, whose average velocity is the velocity at s.

        Raises:
            ValueError: the field is not the network that has one time.
        """
        kind = cls.one_time
        check_instance(f"{cls.__name__}.from_velocity", "field", field, kind, f"a {kind.__name__}, such as flow.field")
        network: Any = cls(**arguments_of(field, kind))
        # Before the weights are copied, which would be rounded.
        network.to(next(field.parameters()))
        network.load_state_dict(field.state_dict(), strict=False)
        network.train(field.training)
        return network


_FORMS: dict[type[nn.Module], type[SecondTime]] = {}
"""The form with a second time of each network that has one."""


def with_second_time(network: nn.Module) -> nn.Module:
    """Return a flow map that begins as a network's velocity: the network itself if it is a `rfm.FlowMap`.

    Raises:
        ValueError: for a network that has no such form.
    """
    if isinstance(network, FlowMap):
        return network
    # Of the class itself: a subclass may compute something else.
    form = _FORMS.get(type(network))
    if form is not None:
        made: Any = form.from_velocity(network)
        return made
    if type(network) is Encoded:
        return EncodedMap(network.encoder, with_second_time(network.velocity))
    raise ValueError(
        f"a {type(network).__name__} has no form with a second time; pass a field that is an rfm.FlowMap, such as "
        "AverageVelocity(manifold)"
    )
