"""Proposals that leave the source as it is, so that the likelihood alone accepts or rejects them."""

import math
from collections.abc import Callable
from functools import singledispatch
from typing import cast

import torch
from torch import Tensor

from rfm.posterior.proposals import Power, Proposal, Proposed, RandomWalk, normal_velocities
from rfm.posterior.target import SourceTarget, State
from rfm.sources import PowerSource, ProductSource, RigidMotionSource, Source, Uniform, WrappedNormal

Refresh = Callable[[Tensor, Tensor, torch.Generator | None], Tensor]
"""From points ``(n, *event_shape)`` and shares ``(n,)`` in (0, 1] to points: reversible with respect to the source, and
independent of where they were for a share of 1 where the source is normal."""


class CrankNicolson(Proposal):
    """Replace a share of a point's noise by fresh noise: the preconditioned Crank-Nicolson proposal.

    About a normal source ``z' = exp_m(sqrt(1 - b^2) log_m(z) + b xi)`` has the source's distribution if ``z`` has, and
    is reversible, so that the ratio of likelihoods alone accepts it: steps shrink with what is measured, not with the
    dimension. Uniform sources take geodesic steps, products and powers each factor its own. For other sources it is a
    `RandomWalk`.

    References:
        Cotter, Roberts, Stuart, White: MCMC methods for functions, modifying old algorithms to make them faster, 2013,
        section 4.
    """

    goal = 0.3
    largest = 1.0

    def propose(
        self,
        target: SourceTarget,
        state: State,
        scale: Tensor,
        power: Power,
        generator: torch.Generator | None,
    ) -> Proposed:
        refresh = refreshing(target.source)
        if refresh is None:
            return RandomWalk().propose(target, state, scale, power, generator)
        z = refresh(state.z, scale.clamp(max=self.largest).to(state.z), generator)
        new = target.at(target.manifold.projx(z))
        return Proposed(new, new.at_power(power) - state.at_power(power))


@singledispatch
def refreshing(source: Source) -> Refresh | None:
    """Return a move that is reversible with respect to a source, None where none is known.

    A generic function: ``refreshing.register(MySource)`` adds one.
    """
    return None


@refreshing.register
def _(source: Uniform) -> Refresh:
    manifold = source.manifold
    # In one step of a share of 1 a typical point crosses a space of the volume of a sphere.
    reach = math.pi / math.sqrt(manifold.dim)

    def move(z: Tensor, share: Tensor, generator: torch.Generator | None) -> Tensor:
        return manifold.expmap(z, manifold.lift(reach * share) * normal_velocities(manifold, z, generator))

    return move


@refreshing.register
def _(source: WrappedNormal) -> Refresh | None:
    manifold = source.manifold
    if manifold.injectivity_radius != math.inf:
        return None

    def move(z: Tensor, share: Tensor, generator: torch.Generator | None) -> Tensor:
        mean = source.mean.to(z).expand_as(z)
        fresh = manifold.lift(source.scale * share) * normal_velocities(manifold, mean, generator)
        return manifold.expmap(mean, manifold.lift((1 - share.square()).sqrt()) * manifold.logmap(mean, z) + fresh)

    return move


@refreshing.register
def _(source: ProductSource) -> Refresh | None:
    parts = [refreshing(cast(Source, own)) for own in source.sources]

    def move(z: Tensor, share: Tensor, generator: torch.Generator | None) -> Tensor:
        moved = [own(part, share, generator) for own, part in zip(known, source.manifold.split(z), strict=True)]
        return source.manifold.join(*moved)

    known = [own for own in parts if own is not None]
    return move if len(known) == len(parts) else None


@refreshing.register
def _(source: PowerSource) -> Refresh | None:
    own, k = refreshing(source.source), source.manifold.k
    if own is None:
        return None
    return lambda z, share, generator: own(z.flatten(0, 1), share.repeat_interleave(k), generator).reshape(z.shape)


@refreshing.register
def _(source: RigidMotionSource) -> Refresh | None:
    turn = refreshing(source.rotation)
    if turn is None:
        return None

    def move(z: Tensor, share: Tensor, generator: torch.Generator | None) -> Tensor:
        mean = source.translation_mean.to(z)
        xi = torch.randn(len(z), 3, generator=generator, dtype=z.dtype, device=z.device)
        moved, b = z.clone(), share[:, None]
        moved[:, :3, 3] = mean + (1 - b * b).sqrt() * (z[:, :3, 3] - mean) + source.translation_scale * b * xi
        moved[:, :3, :3] = turn(z[:, :3, :3], share, generator)
        return moved

    return move
