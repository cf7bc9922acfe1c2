"""The source a fit starts from unless told otherwise."""

import math
from functools import singledispatch
from typing import cast

from torch import Tensor

from manifolds import SE3, Bounded, CentredPoses, LevelSet, Manifold, Padded, Power, Product, Scaled
from manifolds.arguments import check_instance
from rfm.arrays import points_of
from rfm.sources.base import Source, Uniform
from rfm.sources.centred_poses import CentredPoseSource
from rfm.sources.padded import PaddedSource
from rfm.sources.piecewise_uniform import PiecewiseUniform
from rfm.sources.product import PowerSource, ProductSource
from rfm.sources.rigid_motion import RigidMotionSource
from rfm.sources.scaled import ScaledSource
from rfm.sources.truncated import Truncated
from rfm.sources.wrapped_normal import WrappedNormal


@singledispatch
def default_source(manifold: Manifold, points: Tensor) -> Source:
    """Return the source a fit starts from unless told otherwise.

    It is `Uniform` where the volume is finite; on other products and powers the defaults of their factors, side by
    side; uniform rotations with normal positions on `manifolds.SE3` and `manifolds.CentredPoses`; and a `WrappedNormal`
    about the points where the injectivity radius is infinite; on a bounded part of a manifold, each as it is there.

    A generic function: give your own manifold a default with ``default_source.register(MyManifold)``, a function of
    the manifold and the points.

    Args:
        manifold: the manifold of the data.
        points: the data ``(n, *event_shape)``, for the centre and width of a wrapped normal.

    Raises:
        ValueError: if the manifold has neither, naming what to supply.
    """
    check_instance("default_source", "manifold", manifold, Manifold, "Sphere(2)")
    if manifold.volume is not None:
        return Uniform(manifold)
    if manifold.injectivity_radius != math.inf:
        raise ValueError(
            f"{manifold} has no default source: its volume is not finite and its injectivity radius is not infinite; "
            "pass source=, for example a product of a uniform and a normal part"
        )
    return WrappedNormal.fit(manifold, points)


@default_source.register
def _(manifold: Product, points: Tensor) -> Source:
    if manifold.volume is not None:
        return Uniform(manifold)
    x = points_of("default_source", manifold, points)
    parts = zip(manifold.factors, manifold.split(x), strict=True)
    return ProductSource(manifold, [default_source(cast(Manifold, factor), part) for factor, part in parts])


@default_source.register
def _(manifold: Power, points: Tensor) -> Source:
    if manifold.volume is not None:
        return Uniform(manifold)
    x = points_of("default_source", manifold, points)
    return PowerSource(manifold, default_source(manifold.m, x.flatten(0, 1)))


@default_source.register
def _(manifold: Padded, points: Tensor) -> Source:
    x = points_of("default_source", manifold, points)
    parts = zip(manifold.factors, manifold.split(x), manifold.there(x).unbind(-1), strict=True)
    # A factor that no point has needs a source all the same, which is never drawn from.
    sources = [default_source(cast(Manifold, f), part[own] if bool(own.any()) else part) for f, part, own in parts]
    return PaddedSource(manifold, ProductSource(manifold.full, sources))


@default_source.register
def _(manifold: Scaled, points: Tensor) -> Source:
    if manifold.volume is not None:
        return Uniform(manifold)
    return ScaledSource(manifold, default_source(manifold.m, points_of("default_source", manifold, points)))


@default_source.register
def _(manifold: Bounded, points: Tensor) -> Source:
    if not manifold.constraint.is_connected:
        return PiecewiseUniform.fit(manifold, manifold.projx(points_of("default_source", manifold, points)))
    if manifold.volume is not None:
        return Uniform(manifold)
    return Truncated(manifold, default_source(manifold.m, points_of("default_source", manifold, points)))


@default_source.register
def _(manifold: CentredPoses, points: Tensor) -> Source:
    return CentredPoseSource.fit(manifold, points)


@default_source.register
def _(manifold: LevelSet, points: Tensor) -> Source:
    if manifold.volume is None:
        raise ValueError(
            f"{manifold} has no default source, because it states no volume; make it with radius=, of a ball about the "
            "origin that holds it, or pass source="
        )
    return Uniform(manifold)


@default_source.register
def _(manifold: SE3, points: Tensor) -> Source:
    return RigidMotionSource.fit(manifold, points)
