"""Networks with a second time, made from those that have one."""

from torch import nn

from rfm.field import FlowMap
from rfm.networks.average_velocity import AverageVelocity
from rfm.networks.encoded import Encoded, EncodedMap
from rfm.networks.frame_map import FrameMap
from rfm.networks.frames import FrameField
from rfm.networks.velocity import VelocityField


def with_second_time(network: nn.Module) -> nn.Module:
    """Return a flow map that begins as a network's velocity: the network itself if it is a `rfm.FlowMap`.

    Raises:
        ValueError: for a network that has no such form.
    """
    if isinstance(network, FlowMap):
        return network
    # A subclass may compute something else.
    if type(network) is VelocityField:
        return AverageVelocity.from_velocity(network)
    if type(network) is FrameField:
        return FrameMap.from_field(network)
    if type(network) is Encoded:
        return EncodedMap(network.encoder, with_second_time(network.velocity))
    raise ValueError(
        f"a {type(network).__name__} has no form with a second time; pass a field that is an rfm.FlowMap, such as "
        "AverageVelocity(manifold)"
    )
