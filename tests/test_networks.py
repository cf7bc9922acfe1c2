"""The velocity network: tangent, smooth across seams, and the same however it is called."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from manifold_zoo import ZOO
from random_fields import normal, points, tangents
from torch import Tensor, nn

from manifolds import SO3, Euclidean, FlatTorus, Manifold, Quotient, RightMultiplication, Sphere, Tetrahedral
from manifolds.composed.finite_group import Antipodal
from rfm.likelihood import divergence
from rfm.networks import VelocityField

EVERY = pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in ZOO])


def network(m: Manifold, dtype: torch.dtype = torch.float64, **settings: Any) -> VelocityField:
    field = VelocityField(m, **{"width": 16, "depth": 2, "features": 12, "max_frequency": 8.0, **settings}).to(dtype)
    generator = torch.Generator().manual_seed(0)
    for parameter in field.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return field.requires_grad_(False)


def times(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


# What comes out.


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [(), (4,), (2, 3), (0,)], ids=str)
def test_velocities_are_tangent_and_keep_the_dtype(
    make: Callable[[], Manifold], dtype: torch.dtype, batch: tuple[int, ...]
) -> None:
    m = make()
    x = points(m, *batch, dtype=dtype)
    u = network(m, dtype)(x, times(*batch).to(dtype))
    assert u.shape == x.shape
    assert u.dtype == dtype
    m.check_tangent(x, u)
    assert bool((u != 0).any()) or not u.numel()


@EVERY
def test_a_new_network_is_at_rest_and_can_learn(make: Callable[[], Manifold]) -> None:
    m = make()
    field = VelocityField(m, width=16, depth=1, features=8).double()
    x = points(m, 5)
    u = field(x, times(5))
    assert not bool(u.any())
    (slope,) = torch.autograd.grad((u * tangents(m, x)).sum(), field.last.weight)
    assert bool(torch.isfinite(slope).all())
    assert bool(slope.any())


@pytest.mark.parametrize("t", [0.0, 1.0, 1.0 + 1e-6, -1e-6])
def test_velocities_are_finite_at_the_ends_of_time(t: float) -> None:
    field = network(Sphere(2), max_frequency=1000.0)
    assert bool(torch.isfinite(field(points(Sphere(2), 5), torch.full((5,), t, dtype=torch.float64))).all())


# However it is called.


@pytest.mark.parametrize("m", [Sphere(2), SO3(), FlatTorus(2)], ids=str)
@pytest.mark.parametrize("condition_dim", [0, 3])
def test_one_time_for_all_is_the_same_as_one_each(m: Manifold, condition_dim: int) -> None:
    field = network(m, condition_dim=condition_dim)
    x, t = points(m, 2, 3), torch.tensor(0.4, dtype=torch.float64)
    conditions: list[dict[str, Tensor]] = [{}]
    if condition_dim:
        conditions += [{"condition": normal(2, 3, 3)}, {"condition": normal(3)}]
    for own in conditions:
        together = field(x, t.expand(2, 3), **own)
        torch.testing.assert_close(field(x, t, **own), together)
        frame = m.divergence_frame(x)[0]
        for a, b in zip(
            field.pushforward(x, t, frame, **own), field.pushforward(x, t.expand(2, 3), frame, **own), strict=True
        ):
            torch.testing.assert_close(a, b)
        torch.testing.assert_close(field.pushforward(x, t, frame, **own)[0], together)
    each = torch.stack([torch.stack([field(x[i, j], t) for j in range(3)]) for i in range(2)])
    torch.testing.assert_close(field(x, t), each)


def test_time_matters() -> None:
    m = Sphere(2)
    field, x = network(m), points(m, 5)
    u = torch.stack([field(x, torch.tensor(t, dtype=torch.float64)) for t in (0.0, 0.5, 0.99, 1.0)])
    assert float((u[1:] - u[:-1]).abs().amax((1, 2)).min()) > 1e-3


def test_it_works_under_vmap() -> None:
    m = Sphere(2)
    field, x, t = network(m), points(m, 5), times(5)
    torch.testing.assert_close(torch.func.vmap(field)(x, t), field(x, t))


# Conditions.


@pytest.mark.parametrize("missing", ["all", "one entry"])
def test_entries_that_are_nan_are_not_known(missing: str) -> None:
    m = Sphere(2)
    field = network(m, condition_dim=3, condition_offset=[1.0, 2.0, 3.0], condition_scale=[0.5, 1.0, 2.0])
    x, t, condition = points(m, 4), times(4), normal(4, 3, seed=4)
    known = field(x, t, condition)
    free = field(x, t)
    condition[1, :] = math.nan
    condition[2, 0 if missing == "one entry" else slice(None)] = math.nan
    mixed = field(x, t, condition)
    same = torch.tensor([0, 1, 3] if missing == "one entry" else [0, 1, 2, 3])
    rows = torch.where(torch.tensor([[False], [True], [True], [False]]), free, known)
    torch.testing.assert_close(mixed[same], rows[same])
    if missing == "one entry":
        assert float((mixed[2] - known[2]).abs().max()) > 1e-3
        assert float((mixed[2] - free[2]).abs().max()) > 1e-3
    assert float((known - free).abs().max()) > 1e-3
    # A zero is known; so is the offset, which standardises to zero.
    offset = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64).expand(4, 3)
    assert float((field(x, t, offset) - free).abs().max()) > 1e-3


def test_gradients_are_finite_where_conditions_are_missing() -> None:
    m = Sphere(2)
    field = network(m, condition_dim=2).requires_grad_(True)
    condition = normal(4, 2)
    condition[1] = math.nan
    field(points(m, 4), times(4), condition).sum().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in field.parameters() if p.grad is not None)


def test_conditions_are_standardised() -> None:
    m = Sphere(2)
    x, t, condition = points(m, 4), times(4), normal(4, 2)
    plain = network(m, condition_dim=2)
    scaled = network(m, condition_dim=2, condition_offset=[5.0, -1.0], condition_scale=[100.0, 0.1])
    units = torch.tensor([100.0, 0.1], dtype=torch.float64)
    shift = torch.tensor([5.0, -1.0], dtype=torch.float64)
    torch.testing.assert_close(scaled(x, t, condition * units + shift), plain(x, t, condition), atol=1e-5, rtol=1e-5)


def test_an_unwanted_condition_is_refused() -> None:
    m = Sphere(2)
    with pytest.raises(ValueError, match="condition_dim=0"):
        network(m)(points(m, 2), times(2), normal(2, 3))


# Continuity.


@pytest.mark.parametrize("n", [1, 3])
def test_no_jump_across_the_seam_of_the_torus(n: int) -> None:
    m = FlatTorus(n)
    field = network(m, max_frequency=16.0)
    left = points(m, 6)
    left[:, 0] = -math.pi
    right = left.clone()
    right[:, 0] = math.pi - 1e-10
    t = times(6)
    torch.testing.assert_close(field(left, t), field(right, t), atol=1e-7, rtol=0)
    frame = m.divergence_frame(left)[0]
    torch.testing.assert_close(
        field.pushforward(left, t, frame)[1], field.pushforward(right, t, frame)[1], atol=1e-6, rtol=0
    )


@EVERY
def test_no_jump_along_a_geodesic(make: Callable[[], Manifold]) -> None:
    """Differences shrink with the step: halved steps halve the largest one, where a jump would stay."""
    m = make()
    field = network(m)
    x = points(m, 1)
    u = tangents(m, x)
    # Once round where that is possible, elsewhere some way out.
    length = 2 * math.pi if m.volume is not None else 1.0
    u = length * u / m.lift(m.norm(x, u))

    def largest_step(n: int) -> float:
        s = torch.linspace(0, 1, n + 1, dtype=torch.float64)
        y = m.shoot(x.expand(n + 1, *m.event_shape), u.expand(n + 1, *m.event_shape), s)[0]
        v = field(y, torch.tensor(0.7, dtype=torch.float64))
        return float(torch.linalg.vector_norm((v[1:] - v[:-1]).flatten(1), dim=1).max())

    coarse, fine = largest_step(600), largest_step(2400)
    assert fine < 0.3 * coarse


@pytest.mark.parametrize(
    "m", [Quotient(Sphere(2), Antipodal(2)), Quotient(SO3(), RightMultiplication(Tetrahedral()))], ids=str
)
def test_fields_on_quotients_are_equivariant(m: Quotient) -> None:
    field = network(m)
    x, t = points(m, 4), times(4)
    images = m.group.orbit(x)
    t_of_images = t[:, None].expand(4, m.group.order)
    torch.testing.assert_close(field(images, t_of_images), m.group.push(x, field(x, t)))


# Construction.


def test_arguments_are_kept_under_their_names() -> None:
    settings: dict[str, Any] = {
        "width": 20,
        "depth": 1,
        "features": 6,
        "max_frequency": 5,
        "condition_dim": 2,
        "offset": (1, 2, 3),
        "scale": 2,
        "condition_offset": (0, 1),
        "condition_scale": [1.0, 4.0],
        "condition_labels": [0, 3],
        "condition_frequencies": [1.0, 3.0],
    }
    m = Sphere(2)
    field = VelocityField(m, **settings)
    assert field.manifold is m
    assert inspect.signature(VelocityField).parameters.keys() == settings.keys() | {"manifold"}
    for name, value in settings.items():
        kept = getattr(field, name)
        assert list(kept) == list(value) if isinstance(value, tuple | list) else kept == value


def test_the_architecture_uses_no_randomness_of_its_own() -> None:
    m = Sphere(2)
    fields = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        fields.append(VelocityField(m, width=8, features=8))
    buffers = [dict(field.named_buffers()) for field in fields]
    assert all(torch.equal(buffers[0][name], buffers[2][name]) for name in buffers[0])
    assert torch.equal(fields[0].hidden[0].weight, fields[1].hidden[0].weight)  # type: ignore[union-attr,arg-type]
    assert not torch.equal(fields[0].hidden[0].weight, fields[2].hidden[0].weight)  # type: ignore[union-attr,arg-type]


def test_units_of_length_do_not_matter() -> None:
    """Data a thousand times larger, with that scale, give velocities a thousand times larger."""
    small = network(Euclidean(2), offset=[0.5, -1.0], scale=1.0)
    large = network(Euclidean(2), offset=[500.0, -1000.0], scale=1000.0)
    x, t = points(Euclidean(2), 5), times(5)
    torch.testing.assert_close(large(1000 * x, t), 1000 * small(x, t))


@pytest.mark.parametrize("n", [5, 3000])
def test_one_condition_serves_batches_of_every_size(n: int) -> None:
    sphere, generator = Sphere(2), torch.Generator().manual_seed(0)
    field = VelocityField(sphere, width=16, depth=1, features=8, condition_dim=2)
    torch.nn.init.normal_(field.last.weight, generator=generator)
    x, t = sphere.random_uniform(n, generator=generator), torch.full((1,), 0.5)
    condition = torch.tensor([0.3, -1.0])
    with torch.no_grad():
        u, div = divergence(field, sphere, x, t, condition=condition)
        each = divergence(field, sphere, x, t.expand(n), condition=condition.expand(n, 2))
    torch.testing.assert_close(u, each[0])
    torch.testing.assert_close(div, each[1])
