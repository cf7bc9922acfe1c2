"""Whether two manifolds are the same: by class and arguments, not by object, device or dtype."""

import copy
import functools
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from manifold_zoo import ZOO
from torch import Tensor, nn

from manifolds import (
    SE3,
    SO3,
    Antipodal,
    Cyclic,
    Dihedral,
    Euclidean,
    Hyperboloid,
    LevelSet,
    Manifold,
    Power,
    Product,
    Quotient,
    RightMultiplication,
    Scaled,
    Sphere,
)
from manifolds.identity import same
from rfm.records.descriptions import build, describe
from rfm.sources import Uniform, WrappedNormal
from rfm.sources.base import check_same_manifold


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in ZOO])
def test_a_manifold_is_the_same_as_one_made_alike(make: Callable[[], Manifold]) -> None:
    m = make()
    for other in (m, make(), copy.deepcopy(m), build(describe(m), "here"), make().double().eval()):
        assert m.same_as(other)
        assert other.same_as(m)
    assert len({m, make()}) == 2, "modules are hashed by object"


def test_all_of_the_zoo_are_different() -> None:
    for (_, first), (_, second) in pairwise(ZOO):
        assert not first().same_as(second())


class OtherSphere(Sphere):
    pass


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (Sphere(2), Sphere(3)),
        (Sphere(2), OtherSphere(2)),
        (Sphere(2), Scaled(Sphere(2), 1.0)),
        (Scaled(Sphere(2), 1.0), Scaled(Sphere(2), 1.5)),
        (Hyperboloid(2), Hyperboloid(2, 0.5)),
        (SE3(), SE3(2.0)),
        (Power(SE3(), 2), Power(SE3(2.0), 2)),
        (Power(SE3(), 2), Power(SE3(), 3)),
        (Product(Sphere(2), Euclidean(1)), Product(Sphere(2), Euclidean(1), weights=(1.0, 2.0))),
        (Product(Sphere(2), Euclidean(1)), Product(Euclidean(1), Sphere(2))),
        (Quotient(SO3(), RightMultiplication(Cyclic(4))), Quotient(SO3(), RightMultiplication(Dihedral(2)))),
        (Quotient(Sphere(2), Antipodal(2)), Sphere(2)),
    ],
    ids=str,
)
def test_what_differs_is_not_the_same(a: Manifold, b: Manifold) -> None:
    assert not a.same_as(b)
    assert not b.same_as(a)
    with pytest.raises(ValueError, match=r"source lives on .* is required"):
        check_same_manifold("fit", "source", a, b)


def torus(width: float) -> Callable[[Tensor], Tensor]:
    def constraint(x: Tensor) -> Tensor:
        ring = torch.sqrt(x[..., 0] ** 2 + x[..., 1] ** 2)
        return (ring - 1) ** 2 + x[..., 2] ** 2 - width**2

    return constraint


def test_level_sets_are_the_same_if_their_functions_are() -> None:
    make = functools.partial(LevelSet, n=3, radius=2.0, curvature=4.0, volume=5.0)
    assert make(torus(0.3)).same_as(make(torus(0.3)))
    assert not make(torus(0.3)).same_as(make(torus(0.4)))
    assert not make(torus(0.3)).same_as(make(lambda x: (x * x).sum(-1) - 1))


class Holder(nn.Module):
    """Holds itself, and a buffer."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.register_buffer("value", torch.tensor([value]))
        self.known = {"self": [self]}


class Weighted:
    """Neither a module nor with an equality of its own."""

    def __init__(self, weight: float) -> None:
        self.weights = [weight]


def test_parts_of_all_kinds() -> None:
    assert same(Holder(1.0), Holder(1.0))
    assert not same(Holder(1.0), Holder(2.0))
    assert same(Holder(1.0), Holder(1.0).double())
    assert same((1, [2.0, "three"]), (1, [2.0, "three"]))
    assert not same((1, 2), [1, 2])
    assert not same({"a": 1}, {"a": 2})
    assert not same(1, True)
    assert same({1, 2}, {2, 1})
    assert not same(int, float)
    assert not same(torch.sin, torch.cos)
    assert not same(torch.zeros(2), torch.zeros(3))
    assert same(Sphere(2).dist, Sphere(2).dist)
    assert not same(Sphere(2).dist, Sphere(2).norm)
    assert same(np.arange(3.0), np.arange(3.0))
    assert not same(np.arange(3.0), np.arange(3.0) + 1)
    assert same(functools.partial(torus, 0.3), functools.partial(torus, width=0.3)) is False
    assert same(functools.partial(torus, width=0.3), functools.partial(torus, width=0.3))
    assert not same(functools.partial(torus, width=0.3), functools.partial(torus, width=0.4))
    assert same(torch.Size([1, 2]), torch.Size([1, 2]))
    assert not same(torch.float32, torch.float64)
    assert not same(iter([1]), (i for i in [1]))
    assert not same((i for i in [1]), (i for i in [1]))
    assert same(Weighted(2.0), Weighted(2.0))
    assert not same(Weighted(2.0), Weighted(3.0))
    # Sources are compared in the same way.
    assert same(Uniform(Sphere(2)), Uniform(Sphere(2)))
    plane, zero = Euclidean(2), torch.zeros(2)
    assert same(WrappedNormal(plane, zero, 1.0), WrappedNormal(Euclidean(2), zero.clone(), 1.0))
    assert not same(WrappedNormal(plane, zero, 1.0), WrappedNormal(plane, zero, 2.0))
