"""Every density integrates to one: by quadrature where a rule of a few thousand points does, else by importance."""

import math
from collections.abc import Callable

import pytest
import torch
from manifold_zoo import ZOO
from random_fields import wavy_field
from torch import Tensor
from zoo_sources import source_of

from manifolds import SO3, FlatTorus, Manifold, Power, Product, Quotient, Simplex, Sphere
from rfm.integrators import RK4, FixedStep
from rfm.likelihood import log_prob
from rfm.sources import Source, WrappedNormal

STEPS = FixedStep(RK4, 4)
Rule = tuple[Tensor, Tensor]
"""Nodes and weights; the weights add up to the volume."""


# Rules for quadrature.


def gauss(n: int, power: float) -> Rule:
    """Gauss's rule for the weight ``(1 - z^2)^power`` on [-1, 1], from the recurrence of Gegenbauer polynomials."""
    k = torch.arange(1, n, dtype=torch.float64)
    a = power + 0.5
    off = torch.sqrt(k * (k + 2 * a - 1) / (4 * (k + a) * (k + a - 1))) if a != 0 else torch.full_like(k, 0.5)
    if a == 0:
        off[0] = math.sqrt(0.5)
    z, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    total = math.sqrt(math.pi) * math.gamma(power + 1) / math.gamma(power + 1.5)
    return z, total * vectors[0] ** 2


def circle_rule(n: int) -> Rule:
    angle = (torch.arange(n, dtype=torch.float64) + 0.5) * (2 * math.pi / n) - math.pi
    return angle[:, None], torch.full((n,), 2 * math.pi / n, dtype=torch.float64)


def sphere_rule(dim: int, n: int) -> Rule:
    """Height by height: the sphere's volume is ``(1 - z^2)^(dim / 2 - 1) dz`` times that of the equator."""
    if dim == 1:
        angle, weight = circle_rule(2 * n)
        return torch.cat([torch.cos(angle), torch.sin(angle)], dim=-1), weight
    equator, inner = sphere_rule(dim - 1, n)
    z, outer = gauss(n, dim / 2 - 1)
    r = torch.sqrt(1 - z * z)
    x = torch.cat([r[:, None, None] * equator, z[:, None, None].expand(-1, len(equator), 1)], dim=-1).flatten(0, 1)
    return x / x.norm(dim=-1, keepdim=True), (outer[:, None] * inner).flatten()


def simplex_rule(n: int) -> Rule:
    """Squares of the coordinates on an octant of the sphere, of radius 2: up to the border, where densities kink."""
    (z, wz), (a, wa) = gauss(n, 0.0), gauss(n, 0.0)
    height, angle = torch.meshgrid((z + 1) / 2, (a + 1) * (math.pi / 4), indexing="ij")
    ring = torch.sqrt(1 - height * height)
    x = torch.stack([ring * torch.cos(angle), ring * torch.sin(angle), height], dim=-1).flatten(0, 1)
    return x * x, (wz[:, None] * wa).flatten() * (math.pi / 2)


def rotation_rule(n: int) -> Rule:
    """Euler's angles, whose volume ``sin(b) da db dc`` adds up to 8 pi^2."""
    (a, wa), (z, wz) = circle_rule(2 * n), gauss(n, 0.0)
    i, j, k = torch.meshgrid(torch.arange(2 * n), torch.arange(n), torch.arange(2 * n), indexing="ij")

    def turn(cosine: Tensor, sine: Tensor, axis: int) -> Tensor:
        r = torch.zeros(len(cosine), 3, 3, dtype=torch.float64)
        p, q = [x for x in range(3) if x != axis]
        r[:, axis, axis], r[:, p, p], r[:, q, q], r[:, p, q], r[:, q, p] = 1.0, cosine, cosine, -sine, sine
        return r

    first, last = turn(torch.cos(a[:, 0]), torch.sin(a[:, 0]), 2), turn(torch.cos(a[:, 0]), torch.sin(a[:, 0]), 2)
    middle = turn(z, torch.sqrt(1 - z * z), 1)
    return (first[i] @ middle[j] @ last[k]).flatten(0, 2), (wa[i] * wz[j] * wa[k]).flatten()


def product_rule(join: Callable[..., Tensor], *rules: Rule) -> Rule:
    index = torch.cartesian_prod(*(torch.arange(len(w)) for _, w in rules)).reshape(-1, len(rules))
    weight = torch.stack([w[index[:, i]] for i, (_, w) in enumerate(rules)]).prod(0)
    return join(*(x[index[:, i]] for i, (x, _) in enumerate(rules))), weight


def normal_rule(m: Manifold, source: WrappedNormal, n: int) -> Rule:
    """Equal steps in normal coordinates about the source's centre, out to five and a half of its widths."""
    reach = 5.5 * 0.6
    step = 2 * reach / n
    line = (torch.arange(n, dtype=torch.float64) + 0.5) * step - reach
    coordinates = torch.cartesian_prod(*([line] * m.dim)).reshape(-1, m.dim)
    centre = source.mean.double()
    u = torch.einsum("nk,k...->n...", coordinates, m.tangent_basis(centre))
    x = centre.expand_as(u)
    return m.expmap(x, u), step**m.dim * m.log_det_expmap(x, u).exp()


def rule_of(m: Manifold, source: Source) -> Rule | None:
    """Return a rule, or None where it would have too many points."""
    if isinstance(m, Quotient):
        return sphere_rule(2, 36)
    if isinstance(m, Sphere):
        return sphere_rule(m.n, {1: 60, 2: 20, 4: 9}[m.n])
    if isinstance(m, FlatTorus):
        return product_rule(lambda *x: torch.cat(x, dim=-1), *[circle_rule(20 if m.dim > 1 else 100)] * m.dim)
    if isinstance(m, SO3):
        return rotation_rule(10)
    if isinstance(m, Product) and m.volume is not None:
        first, second = m.factors
        curved = simplex_rule(12) if isinstance(first, Simplex) else sphere_rule(2, 12)
        x, weight = product_rule(m.join, curved, circle_rule(20))
        return x, weight * math.prod(w ** (f.dim / 2) for f, w in zip((first, second), m.weights, strict=True))
    if isinstance(m, Simplex):
        return simplex_rule(20)
    if isinstance(m, Power) and m.volume is not None:
        return product_rule(lambda *x: torch.stack(x, dim=-2), *[sphere_rule(2, 8)] * 2)
    if isinstance(source, WrappedNormal) and m.dim <= 3:
        return normal_rule(m, source, {1: 100, 2: 40, 3: 16}[m.dim])
    return None


# The laws.


QUADRATURE = [(name, make) for name, make in ZOO if rule_of(make(), source_of(make())) is not None]
IMPORTANCE = [(name, make) for name, make in ZOO if rule_of(make(), source_of(make())) is None]


def test_the_rules_know_the_volume() -> None:
    for _, make in QUADRATURE:
        m = make()
        rule = rule_of(m, source_of(m))
        assert rule is not None
        if m.volume is not None:
            assert float(rule[1].sum()) == pytest.approx(m.volume, rel=1e-12)
            m.check_point(rule[0])


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in QUADRATURE])
def test_densities_integrate_to_one_by_quadrature(make: Callable[[], Manifold]) -> None:
    m = make()
    source = source_of(m)
    rule = rule_of(m, source)
    assert rule is not None
    x, weight = rule
    # A quotient's coordinates are waves: a field made of them is rough.
    log_p = log_prob(wavy_field(m, size=0.2 if m.points_are_classes else 0.3), source, x, STEPS)
    assert float((log_p - source.log_prob(x)).std()) > 0.05
    assert float((weight * log_p.exp()).sum()) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in IMPORTANCE])
def test_densities_integrate_to_one_by_importance(make: Callable[[], Manifold]) -> None:
    m = make()
    # Wider than the flow, which moves nothing by more than its size.
    source, proposal = source_of(m, 0.6), source_of(m, 0.7)
    # Where the volume is finite both are uniform, and the weights spread as the flow's density does.
    x = proposal.sample(
        (2000 if m.volume is None else 4000,), generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    log_p = log_prob(wavy_field(m, size=0.3), source, x, STEPS)
    assert float((log_p - source.log_prob(x)).std()) > 0.1
    ratio = (log_p - proposal.log_prob(x)).exp()
    error = float(ratio.std()) / math.sqrt(len(ratio))
    assert error < 0.02
    assert abs(float(ratio.mean()) - 1) < 4 * error


@pytest.mark.parametrize("m", [FlatTorus(2), Product(Sphere(2), FlatTorus(1)), Power(FlatTorus(1), 2)], ids=str)
def test_densities_have_no_seam(m: Manifold) -> None:
    """Two representatives of the same angles, on both sides of the seam."""
    x = m.random_uniform(20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left, right = x.clone(), x.clone()
    left.flatten(1)[:, -1], right.flatten(1)[:, -1] = -math.pi, math.pi - 1e-9
    field, source = wavy_field(m), source_of(m)
    values = log_prob(field, source, left, STEPS)
    torch.testing.assert_close(values, log_prob(field, source, right, STEPS), atol=1e-7, rtol=0)
    assert float(values.std()) > 0.05


def test_densities_on_a_quotient_have_one_value_per_class() -> None:
    make = dict(ZOO)["Quotient(Sphere(2), Antipodal(2))"]
    m = make()
    x = m.random_uniform(20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = log_prob(wavy_field(m), source_of(m), x, STEPS)
    torch.testing.assert_close(values, log_prob(wavy_field(m), source_of(m), -x, STEPS))
    assert float(values.std()) > 0.05
