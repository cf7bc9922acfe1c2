"""Overlaps of backbone atoms, and chains that are moved out of them."""

import os

import pytest
import torch

import rfm
from manifolds import SO3, CentredPoses
from rfm.integrators import GEODESIC_MIDPOINT, FixedStep
from rfm.networks import FrameField
from rfm.proteins import atoms_from_frames, chain_sets, exact_log_prob, frames_from_atoms
from rfm.proteins.clashes import LIMITS, is_clear, overlaps, separate
from rfm.proteins.peptide_bonds import close_bonds, open_bonds
from rfm.sources import CentredPoseSource

needs_data = pytest.mark.skipif("RFM_DATA" not in os.environ, reason="RFM_DATA names no folder of data sets")


def real(index: int) -> torch.Tensor:
    chains = chain_sets.backbones()
    frames = frames_from_atoms(chains.chain(index))[:60]
    return frames - torch.nn.functional.pad(frames[:, :3, 3].mean(0)[:, None], (3, 0, 0, 1))


def rows(frames: torch.Tensor) -> torch.Tensor:
    """Return overlaps, one pair of atoms at a time."""
    atoms = atoms_from_frames(frames)
    found = torch.zeros(len(frames), len(frames), dtype=frames.dtype)
    for i in range(len(frames)):
        for j in range(len(frames)):
            if abs(i - j) >= 3:
                apart = torch.cdist(atoms[i], atoms[j])
                found[i, j] = (torch.tensor(LIMITS, dtype=frames.dtype) - apart).amax().clamp(min=0)
    return found


@needs_data
def test_overlaps_are_those_of_pairs_of_atoms_and_do_not_turn() -> None:
    crowded = real(3).double()
    crowded[:, :3, 3] *= 0.8
    found = overlaps(crowded)
    assert torch.allclose(found, rows(crowded), atol=1e-6)
    assert torch.equal(found, found.mT)
    turn = torch.eye(4, dtype=torch.float64)
    turn[:3, :3] = SO3().random_uniform(1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)[0]
    assert torch.allclose(overlaps(turn @ crowded), found, atol=1e-9)


@needs_data
def test_most_real_chains_are_clear() -> None:
    chains = chain_sets.backbones()
    clear = [bool(is_clear(frames_from_atoms(chains.chain(i)))) for i in range(0, 1788, 36)]
    assert sum(clear) / len(clear) > 0.85


@needs_data
def test_chains_are_separated_with_their_bonds_closed() -> None:
    start = real(3)[None, :40]
    assert float((separate(start) - start)[..., :3, 3].norm(dim=-1).mean()) < 0.3
    crowded = start.clone()
    crowded[..., :3, 3] *= 0.8
    crowded = close_bonds(crowded)
    assert not bool(is_clear(crowded).any())
    cleared = close_bonds(separate(crowded, rounds=20))
    assert bool(is_clear(cleared).all())
    assert not bool(open_bonds(cleared).any())
    # Mean positions stay, and so do the residues that are held.
    assert float((cleared - crowded)[..., :3, 3].mean(-2).abs().max()) < 1e-3
    held = torch.zeros(1, 40, dtype=torch.bool)
    held[:, 10:30] = True
    around = separate(crowded, held, rounds=2)
    assert torch.equal(around[held], crowded[held])
    assert float(overlaps(around).sum()) < float(overlaps(crowded).sum())


def short_flow() -> rfm.Flow:
    manifold = CentredPoses(4, 10.0)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        field = FrameField(10.0, 16, 8, 1)
        for parameter in field.parameters():
            torch.nn.init.normal_(parameter, std=0.15)
    return rfm.Flow(manifold, field, CentredPoseSource(manifold))


def test_short_backbones_have_an_exact_density_that_estimates_agree_with() -> None:
    flow = short_flow()
    own = flow.on(CentredPoses(2, 10.0))
    frames = own.source.sample((2,), generator=torch.Generator().manual_seed(0))
    shifted = frames + torch.nn.functional.pad(torch.ones(3, 1), (3, 0, 0, 1))
    exact = exact_log_prob(flow, shifted, steps=6)
    solver = FixedStep(GEODESIC_MIDPOINT, 6, grading=4.0)
    assert torch.allclose(own.log_prob(frames, solver=solver), exact, atol=1e-2)
    estimator = rfm.Hutchinson(32, generator=torch.Generator().manual_seed(2))
    estimate = own.log_prob(frames, estimator=estimator, solver=solver)
    assert float(estimate.standard_error.max()) < 20
    assert bool(((estimate.log_prob - exact).abs() < 4 * estimate.standard_error).all())
    with pytest.raises(ValueError, match="up to 16 residues, got 17"):
        exact_log_prob(flow, torch.eye(4).expand(1, 17, 4, 4))


@pytest.mark.slow
def test_the_exact_density_of_short_backbones_does_not_depend_on_the_solver() -> None:
    flow = short_flow()
    own = flow.double().on(CentredPoses(2, 10.0))
    frames = own.source.sample((2,), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(exact_log_prob(flow, frames, steps=160), own.log_prob(frames), atol=2e-2)
