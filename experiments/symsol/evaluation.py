"""How good the flow is: exact likelihoods of poses held out, and how many of the symmetric poses its samples reach."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

import rfm
from experiments.symsol.bodies import BODIES, Body
from experiments.symsol.training import PUBLISHED_MEASURE, SOLVER, log_likelihoods, poses_and_pictures
from manifolds import SO3
from rfm.integrators import Adaptive
from rfm.metrics import negative_log_likelihood
from rfm.networks import Encoded

TEST_SEED = 10**6 + 1
UNIFORM = PUBLISHED_MEASURE - math.log(SO3.volume)
IMPLICIT_PDF = {"icosahedron": 1.28, "mean": 4.10}
"""Murphy et al. 2021, arXiv:2106.05965, table 1: the figures of SYMSOL I that we could check."""
TEST_SOLVER = Adaptive(atol=1e-4, rtol=1e-4)
"""Modes of a third of a degree need more care than training's validation takes."""
REACH = math.radians(15)


@dataclass(frozen=True)
class Modes:
    """How samples cover one body's symmetric poses.

    Args:
        recovered: share of the symmetric poses with a sample within 15 degrees; of a circle of them, of its arcs.
        near: share of the samples within 15 degrees of one.
        spread_degrees: median distance of those from the nearest.
    """

    recovered: float
    near: float
    spread_degrees: float


def test_likelihoods(flow: rfm.Flow, count: int) -> Tensor:
    """Return the log-likelihoods of poses held out, ``(bodies, count)``, in nats and the published measure."""
    assert isinstance(flow.field, Encoded)
    return log_likelihoods(flow.field, *seen_poses(flow, count), TEST_SOLVER).double().cpu()


def seen_poses(flow: rfm.Flow, count: int) -> tuple[Tensor, Tensor]:
    """Return poses held out and their pictures, the same on every device, where the flow is."""
    poses, pictures = poses_and_pictures(count, torch.Generator().manual_seed(TEST_SEED))
    device = next(flow.parameters()).device
    return poses.to(device), pictures.to(device)


def solver_error(flow: rfm.Flow, count: int) -> float:
    """Return by how much the mean log-likelihood of some poses is off, in nats, for the solver's tolerance."""
    assert isinstance(flow.field, Encoded)
    seen = seen_poses(flow, count)
    solvers = (TEST_SOLVER, Adaptive(atol=1e-5, rtol=1e-5))
    usual, finer = (log_likelihoods(flow.field, *seen, solver=solver) for solver in solvers)
    return float((usual - finer).double().mean())


def modes(flow: rfm.Flow, body: Body, poses: Tensor, pictures: Tensor, samples: int) -> Modes:
    """Sample the flow given pictures of a body, and compare with its symmetric poses.

    Args:
        flow: the trained flow.
        body: whose pictures they are.
        poses: its true poses ``(n, 3, 3)``.
        pictures: ``(n, size, size)``.
        samples: number of samples for each picture.
    """
    generator = torch.Generator(poses.device).manual_seed(TEST_SEED)
    condition = pictures.flatten(1).unsqueeze(1)
    drawn = flow.sample((len(poses), samples), condition=condition, generator=generator, solver=SOLVER)
    # A circle of poses is divided into arcs of 15 degrees.
    truth = body.symmetric_poses(poses, turns=24)
    distance = flow.manifold.dist(drawn.unsqueeze(2), truth.unsqueeze(1))
    # Half an arc along the circle is no error: to the circle itself, distances are measured on a finer division.
    exact = distance if body.quadric is None else _to_circle(flow, drawn, body.symmetric_poses(poses, turns=720))
    nearest = exact.amin(2)
    near = nearest < REACH
    reached = (distance < REACH) & near.unsqueeze(2)
    return Modes(
        recovered=float(reached.any(1).double().mean()),
        near=float(near.double().mean()),
        spread_degrees=math.degrees(float(nearest[near].median())) if bool(near.any()) else math.nan,
    )


def _to_circle(flow: rfm.Flow, drawn: Tensor, truth: Tensor) -> Tensor:
    """Return distances from samples ``(n, m, 3, 3)`` to the nearest of many poses, ``(n, m, 1)``, in bounded memory."""
    rows = zip(drawn, truth, strict=True)
    return torch.stack([flow.manifold.dist(x[:, None], y).amin(1, keepdim=True) for x, y in rows])


def report(flow: rfm.Flow, count: int, pictures: int, samples: int) -> str:
    """Return a Markdown table of likelihoods and modes by body.

    Args:
        flow: the trained flow.
        count: held-out poses of each body for the likelihood.
        pictures: pictures of each body to sample from.
        samples: number of samples for each picture.
    """
    scores = test_likelihoods(flow, count)
    poses, seen = seen_poses(flow, pictures)
    lines = [
        "| body | uniform | Implicit-PDF | flow | standard error | poses found | samples within 15° | median error |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for body, own, own_poses, own_pictures in zip(BODIES, scores, poses, seen, strict=True):
        measured = modes(flow, body, own_poses, own_pictures, samples)
        lines.append(
            f"{_likelihood_cells(body.name, own)} {100 * measured.recovered:.1f} % | {100 * measured.near:.1f} % "
            f"| {measured.spread_degrees:.1f}° |"
        )
    lines.append(f"{_likelihood_cells('mean', scores.flatten(), scores)} | | |")
    lines.append(f"\nError of the solver, in nats: {solver_error(flow, max(1, count // 20)):+.3f} on average.")
    return "\n".join(lines)


def _likelihood_cells(name: str, scores: Tensor, groups: Tensor | None = None) -> str:
    estimate = negative_log_likelihood(scores)
    # The mean over the bodies, each with as many poses: their means are known, only what is within them varies.
    error = estimate.standard_error if groups is None else float(groups.var(1).mean().div(groups.numel()).sqrt())
    published = f"{IMPLICIT_PDF[name]:.2f}" if name in IMPLICIT_PDF else ""
    return f"| {name} | {UNIFORM:.2f} | {published} | {-estimate.mean:.2f} | {error:.2f} |"
