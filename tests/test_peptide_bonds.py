"""Closing the bonds of a backbone."""

import math

import pytest
import torch
from torch import Tensor

from manifolds import SE3, SO3
from manifolds.rotations import hat
from rfm.proteins.backbones import atoms_from_frames, torsions
from rfm.proteins.peptide_bonds import C_N, bond_gaps, close_bonds

F64 = torch.float64


def chain(residues: int, batch: tuple[int, ...] = ()) -> Tensor:
    """Return chains whose bonds are closed, of random phi and psi in the range of strands."""
    frames = torch.eye(4, dtype=F64).repeat(*batch, residues, 1, 1)
    frames[..., 0, 3] = 3.6 * torch.arange(residues, dtype=F64)
    # A zigzag about the way along which the residues are: near enough for Newton's method.
    flip = torch.tensor([1.0, -1.0, -1.0], dtype=F64).diag()
    frames[..., 1::2, :3, :3] = flip
    return close_bonds(shaken(frames, 0.2), rounds=60)


def shaken(frames: Tensor, size: float, seed: int = 0) -> Tensor:
    """Return frames moved by normal steps of so many Angstrom, and turned by as many half radians."""
    noise = size * torch.randn(*frames.shape[:-2], 6, generator=torch.Generator().manual_seed(seed), dtype=F64)
    x = frames.clone()
    x[..., :3, 3] += noise[..., :3]
    x[..., :3, :3] = SO3().expmap(x[..., :3, :3], hat(noise[..., 3:] / 2) @ x[..., :3, :3])
    return x


def test_a_closed_bond_is_flat_and_of_its_length() -> None:
    x = chain(12)
    assert float(bond_gaps(x).abs().max()) < 1e-6
    atoms = atoms_from_frames(x)
    bonds = torch.linalg.vector_norm(atoms[1:, 0] - atoms[:-1, 2], dim=-1)
    assert torch.allclose(bonds, torch.full_like(bonds, C_N))
    assert torch.allclose(torsions(atoms)[:-1, 2].abs(), torch.full((11,), math.pi, dtype=F64))
    apart = torch.linalg.vector_norm(atoms[1:, 1] - atoms[:-1, 1], dim=-1)
    assert torch.allclose(apart, torch.full_like(apart, 3.81), atol=0.02)


def test_what_is_closed_stays() -> None:
    x = chain(9)
    assert torch.allclose(close_bonds(x), x, atol=1e-8)


@pytest.mark.parametrize("size", [0.1, 0.3])
def test_open_bonds_are_closed_by_moving_little(size: float) -> None:
    x = shaken(chain(20, (3,)), size, 1)
    y = close_bonds(x)
    SE3().check_point(y)
    assert float(bond_gaps(y).abs().max()) < 1e-7
    moved = (y - x)[..., :3, 3]
    assert float(torch.linalg.vector_norm(moved, dim=-1).mean()) < 2 * size
    assert torch.allclose(moved.mean(-2), torch.zeros(3, 3, dtype=F64), atol=1e-9)


def test_to_first_order_no_other_closed_chain_is_nearer() -> None:
    """The way to the closed chain is at right angles to the closed chains about it."""
    x = shaken(chain(8), 0.02, 1)
    y = close_bonds(x)
    way = (y - x)[..., :3, 3], _turn(x, y)
    for seed in range(5):
        z = close_bonds(shaken(y, 1e-3, 2 + seed))
        along = (z - y)[..., :3, 3], _turn(y, z)
        product, sizes = _dot(way, along), _dot(way, way) * _dot(along, along)
        assert abs(float(product)) < 0.05 * math.sqrt(float(sizes))


def _turn(x: Tensor, y: Tensor) -> Tensor:
    """Return the rotation vectors, in space, that turn x into y, times the radius by which they count."""
    relative = y[..., :3, :3] @ x[..., :3, :3].mT
    skew = (relative - relative.mT) / 2
    return 1.5 * torch.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], dim=-1)


def _dot(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> Tensor:
    return sum(((u * v).sum() for u, v in zip(a, b, strict=True)), torch.zeros((), dtype=F64))


def test_closing_turns_with_the_chain_and_keeps_what_is_held() -> None:
    x = shaken(chain(10), 0.2, 1)
    g = torch.eye(4, dtype=F64)
    g[:3, :3] = SO3().random_uniform(generator=torch.Generator().manual_seed(3), dtype=F64)
    g[:3, 3] = 5.0
    assert torch.allclose(close_bonds(g @ x), g @ close_bonds(x), atol=1e-7)
    held = (torch.arange(10) > 3) & (torch.arange(10) < 6)
    y = close_bonds(x, held)
    assert torch.equal(y[held], x[held])
    free = [i for i in range(9) if not (held[i] and held[i + 1])]
    assert float(bond_gaps(y)[free].abs().max()) < 1e-6
