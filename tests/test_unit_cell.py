"""Cells by lengths and angles, against edges in space."""

import math

import pytest
import torch

from manifolds import SPD
from manifolds.matrices.unit_cell import cell_parameters, cell_volume, metric_tensor


def edges(count: int, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return 5 * torch.eye(3, dtype=torch.float64) + torch.randn(count, 3, 3, generator=g, dtype=torch.float64)


def test_parameters_are_those_of_edges_in_space() -> None:
    a = edges(50)
    lengths, degrees = cell_parameters(a @ a.mT)
    torch.testing.assert_close(lengths, a.norm(dim=-1))
    for i, (p, q) in enumerate(((1, 2), (0, 2), (0, 1))):
        # By the sine and the cosine, where the formula has the cosine alone.
        sine = torch.linalg.cross(a[:, p], a[:, q]).norm(dim=-1)
        expected = torch.rad2deg(torch.atan2(sine, (a[:, p] * a[:, q]).sum(-1)))
        torch.testing.assert_close(degrees[:, i], expected)
    torch.testing.assert_close(metric_tensor(lengths, degrees), a @ a.mT)
    torch.testing.assert_close(cell_volume(a @ a.mT), torch.linalg.det(a).abs())


def test_known_cells() -> None:
    quartz = metric_tensor(torch.tensor([4.913, 4.913, 5.405]), torch.tensor([90.0, 90.0, 120.0]))
    assert float(cell_volume(quartz)) == pytest.approx(4.913**2 * 5.405 * math.sqrt(0.75), rel=1e-5)
    SPD(3).check_point(quartz)


def test_other_edges_of_a_lattice_are_an_isometry_of_the_affine_invariant_metric() -> None:
    m, a, b = SPD(3), edges(10), edges(10, 1)
    other = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [-1.0, 2.0, 1.0]], dtype=torch.float64)
    moved = (other @ a) @ (other @ a).mT, (other @ b) @ (other @ b).mT
    torch.testing.assert_close(m.dist(*moved), m.dist(a @ a.mT, b @ b.mT))


def test_what_is_no_cell() -> None:
    with pytest.raises(ValueError, match="no cell has the angles"):
        metric_tensor(torch.ones(2, 3), torch.tensor([[90.0, 90.0, 90.0], [20.0, 20.0, 120.0]]))
    with pytest.raises(ValueError, match="three positive lengths"):
        metric_tensor(torch.tensor([1.0, 0.0, 1.0]), torch.full((3,), 90.0))
