"""Fractional coordinates up to a shift: distances by brute force, volume, what does not change under shifts."""

import itertools
import math

import pytest
import torch
from torch import Tensor

import rfm
from manifolds import SPD, FractionalCoordinates, Product, Simplex
from manifolds.testing import check_manifold
from rfm.sources import Uniform

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


def places(m: FractionalCoordinates, count: int, seed: int = 0) -> Tensor:
    return m.random_uniform(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("k", "d"), [(2, 3), (4, 1)])
def test_laws(k: int, d: int) -> None:
    check_manifold(FractionalCoordinates(k, d), dtypes=(torch.float64,), compile=k == 2).raise_if_failed()


@pytest.mark.parametrize("k", [2, 3, 4, 5])
def test_distance_by_brute_force(k: int) -> None:
    """The least length over all turns of the atoms, each less its mean."""
    m = FractionalCoordinates(k, 1)
    x, y = places(m, 50), places(m, 50, 1)
    turns = torch.tensor(list(itertools.product((-2, -1, 0, 1, 2), repeat=k)), dtype=torch.float64)
    ways = (y - x)[..., 0][:, None] + turns
    ways = ways - ways.mean(-1, keepdim=True)
    torch.testing.assert_close(m.dist(x, y), ways.norm(dim=-1).amin(-1), atol=1e-12, rtol=0)


def test_wrapped_differences_less_their_mean_are_not_the_shortest() -> None:
    """Why the cut is searched for: three atoms whose differences wrap at the wrong place."""
    m = FractionalCoordinates(3, 1)
    x = torch.zeros(3, 1, dtype=torch.float64)
    y = torch.tensor([[0.45], [-0.45], [0.4]], dtype=torch.float64)
    naive = y - y.mean()
    assert float(m.dist(x, y)) < 0.2 < float(naive.norm())


def test_shifts_change_nothing() -> None:
    m = FractionalCoordinates(5)
    x, y = places(m, 20), places(m, 20, 1)
    shift = places(FractionalCoordinates(20), 1, 2)[0][:, None]
    moved = m.projx(x + shift)
    torch.testing.assert_close(m.dist(x, moved), torch.zeros(20, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(m.embed(moved), m.embed(x))
    torch.testing.assert_close(m.dist(moved, y), m.dist(x, y), atol=1e-12, rtol=0)
    torch.testing.assert_close(m.logmap(moved, y), m.logmap(x, y), atol=1e-12, rtol=0)


def test_log_arrives_at_a_shift() -> None:
    m = FractionalCoordinates(6)
    x, y = places(m, 30), places(m, 30, 1)
    u = m.logmap(x, y)
    assert u.mean(-2).abs().max() < 1e-15
    torch.testing.assert_close(m.embed(m.expmap(x, u)), m.embed(y), atol=1e-12, rtol=0)


def test_volume_is_that_of_the_torus_over_that_of_the_shifts() -> None:
    """The shifts of k atoms along one axis are a circle of length sqrt(k)."""
    m = FractionalCoordinates(7, 2)
    assert m.volume == pytest.approx(1 / math.sqrt(7) ** 2)
    assert float(Uniform(m).log_prob(places(m, 1))[0]) == pytest.approx(math.log(7))


def test_injectivity_radius_is_half_of_the_shortest_loop() -> None:
    for k in (2, 3, 5):
        m = FractionalCoordinates(k, 1)
        loops = torch.tensor(list(itertools.product((0, 1), repeat=k))[1:-1], dtype=torch.float64)
        loops = loops - loops.mean(-1, keepdim=True)
        assert m.injectivity_radius == pytest.approx(float(loops.norm(dim=-1).min()) / 2)


@pytest.mark.parametrize("concentration", [0.3, 5.0])
def test_kernel_is_normalised(concentration: float) -> None:
    """By quadrature over the place of the second of two atoms relative to the first."""
    m = FractionalCoordinates(2, 1)
    relative = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    x = m.projx(torch.stack([torch.zeros_like(relative), relative], dim=-1)[..., None])
    k = torch.tensor(concentration, dtype=torch.float64)
    square = (m.kernel.embed(x) - m.kernel.embed(places(m, 1))).square().sum(-1)
    density = torch.exp(-k * square / 2 - m.kernel.log_normaliser(k))
    assert float(density.mean()) * m.volume == pytest.approx(1, rel=1e-9)


def test_needs_two_atoms() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        FractionalCoordinates(1)
    with pytest.raises(ValueError, match="wrap fractions"):
        FractionalCoordinates(2, 1).check_point(torch.tensor([[0.1], [0.9]]))


@pytest.mark.slow
def test_fit_of_a_crystal() -> None:
    """Places, cell and composition at once: a flow of the product draws points near the structures it was given."""
    atoms = FractionalCoordinates(2)
    m = Product(atoms, SPD(3), Simplex(1))
    g = torch.Generator().manual_seed(0)
    # Caesium chloride and rock salt's primitive cell have the second atom in the middle of the cell.
    middle = torch.tensor([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
    noise = 0.03 * torch.randn(600, 2, 3, generator=g) + torch.rand(600, 1, 3, generator=g)
    cell = torch.diag_embed(16 + 0.5 * torch.randn(600, 3, generator=g))
    share = 0.5 + 0.05 * torch.randn(600, 1, generator=g)
    x = m.join(atoms.projx(middle + noise), cell, torch.cat([share, 1 - share], dim=-1))
    flow = rfm.fit(x, m, steps=250, seed=0, refine=False, training=rfm.Training(validations=2), progress=False)
    drawn = flow.sample(200, generator=g)
    m.check_point(drawn)
    near = atoms.dist(m.split(drawn)[0], atoms.projx(middle))
    assert float(near.median()) < 0.15
    # Uniform places are as near as that in one of fifty cells.
    assert float((atoms.dist(places(atoms, 2000).float(), atoms.projx(middle)) < 0.15).double().mean()) < 0.05


def test_fit() -> None:
    """A flow draws the second atom near the middle of the cell, where the data have it."""
    m = FractionalCoordinates(2, 2)
    g = torch.Generator().manual_seed(0)
    middle = torch.tensor([[0.0, 0.0], [0.5, 0.5]])
    x = m.projx(middle + 0.05 * torch.randn(400, 2, 2, generator=g) + torch.rand(400, 1, 2, generator=g))
    flow = rfm.fit(x, m, steps=100, seed=0, refine=False, training=rfm.Training(validations=2), progress=False)
    drawn = flow.sample(200, generator=g)
    m.check_point(drawn)
    assert float(m.dist(drawn, middle).median()) < 0.12 < float(m.dist(places(m, 500).float(), middle).median())
