"""Whether points may be drawn anew between the source and an end point: the assumption of FLOWER and PnP-Flow.

They replace ``x_t`` by a point between the end point and a *fresh* draw of the source. That keeps the flow's marginals
where source and data were paired independently, with Gaussian paths and with geodesic ones. Where a coupling ties the
source to the data, as optimal transport does, it does not. The test is on the marginals themselves, so it needs no
knowledge of how a flow was trained.
"""

import torch
from torch import Tensor

from rfm.integrators import FixedStep, integrate
from rfm.posterior.target import SourceTarget

_POINTS = 1024
_PERMUTATIONS = 100
_DEVIATIONS = 8.0
"""Standard deviations of the permuted statistic: a well trained flow stays far below, a coupled one goes far above."""


def marginal_deviation(target: SourceTarget, generator: torch.Generator | None, like: Tensor) -> float:
    """Return how far the middle of the flow is from that of fresh pairs, in standard deviations of a permutation test.

    The statistic is the energy distance between embedded points at time 1/2.

    References:
        Szekely and Rizzo, Energy statistics, 2013.
    """
    manifold = target.manifold
    z = target.noise(_POINTS, generator, like)
    _, middle, end = integrate(target.field, manifold, z, (0.0, 0.5, 1.0), FixedStep(steps=20)).x
    half = torch.full((_POINTS,), 0.5, dtype=z.dtype, device=z.device)
    fresh = manifold.geodesic(target.noise(_POINTS, generator, like), end, half)[0]
    both = manifold.embed(torch.cat([middle, fresh])).double()
    apart = torch.cdist(both, both)
    sign = torch.cat([torch.ones(_POINTS), -torch.ones(_POINTS)]).double().to(z.device)
    order = [torch.randperm(2 * _POINTS, generator=generator, device=z.device) for _ in range(_PERMUTATIONS)]
    signs = torch.stack([sign, *(sign[rows] for rows in order)])
    # The energy distance is minus the sum of distances signed by sample.
    statistic = -((signs @ apart) * signs).sum(-1)
    null = statistic[1:]
    return float((statistic[0] - null.mean()) / null.std())


def check_renoising(
    method: str, coupled: bool, target: SourceTarget, generator: torch.Generator | None, like: Tensor
) -> tuple[str, ...]:
    """Return a warning where ``coupled`` says that source and data may be coupled, which is then not tested.

    Raises:
        ValueError: source and data are coupled, and the method was not requested for that.
    """
    if coupled:
        # The test costs 20,000 velocities: of a large network, more than the draws.
        return (
            f"{method}: fresh noise keeps the marginals of this flow only if its source and data are not coupled; with "
            "coupled=True that is not tested",
        )
    deviation = marginal_deviation(target, generator, like)
    if deviation < _DEVIATIONS:
        return ()
    raise ValueError(
        f"{method}: source and data of this flow are coupled, fresh noise does not keep its marginals ({deviation:.0f} "
        "standard deviations off at half time); use Tempering or Chains, or pass coupled=True to draw all the same"
    )
