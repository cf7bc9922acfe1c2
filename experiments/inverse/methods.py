"""The methods that are compared, with their settings."""

from collections.abc import Sequence

import torch

from experiments.inverse.problems import Effort, Problem
from manifolds import Euclidean
from rfm.integrators import FixedStep
from rfm.posterior import (
    OTODE,
    Chains,
    DFlow,
    FlowChef,
    FlowDPS,
    FlowDPSSteps,
    Flower,
    Guided,
    Hamiltonian,
    Importance,
    PnPFlow,
    RandomWalk,
    Sampler,
    Tempering,
    Twisted,
)
from rfm.steering import Steering

NETWORK = ("Tempering", "Importance", "Chains, tempered", "OT-ODE", "FlowDPS", "FlowChef", "FLOWER", "PnP-Flow")
"""Methods that are tried where the flow is a network."""

VARIANTS = (
    "Tempering, random walk",
    "Chains",
    "Chains, random walk",
    "Chains, Hamiltonian",
    "Twisted, no lead",
    "Twisted OT-ODE",
    "Twisted FlowDPS",
    "Twisted FlowChef",
)
"""Other settings of exact methods, which are tried where velocities cost next to nothing."""


REPEATS = 8
"""Runs of an exact method, at most."""


def repeats(problem: Problem, name: str) -> int:
    """Return how often a method runs at most: what it costs decides."""
    dear = problem.score is not None and problem.effort is Effort.METHODS
    return {"Twisted": 1, "Chains, tempered": 2}.get(name, REPEATS) if dear else REPEATS


def methods(problem: Problem, quick: bool) -> dict[str, Sampler]:
    """Return the methods by name; exact ones first."""
    m, y, steps = problem.flow.manifold, problem.measurement, 10 if quick else 60
    solver = FixedStep(steps=steps // 2)
    noise = float(y.noise.square().mean())
    centre = torch.zeros(m.event_shape) if isinstance(m, Euclidean) else None
    cheap = problem.effort is Effort.VARIANTS
    few = quick or problem.effort is Effort.NETWORK
    warm_up, thin = (10, 1) if quick else (200, 10 if cheap else 5)
    moves, particles = 2 if few else 10, 128 if quick else 4096 if cheap else 1024
    found: dict[str, Sampler] = {
        "Tempering": Tempering(moves=moves, particles=particles),
        "Tempering, random walk": Tempering(RandomWalk(), moves=moves, particles=particles),
        "Chains, tempered": Chains(warm_up=warm_up, thin=1 if few else thin, rungs=4 if few else 8),
        "Chains": Chains(warm_up=warm_up, thin=thin),
        "Chains, random walk": Chains(RandomWalk(), warm_up=warm_up, thin=thin),
        "Chains, Hamiltonian": Chains(Hamiltonian(1 if quick else 3), warm_up=5 if quick else 40, thin=1),
        "Importance": Importance(1000 if quick else 50_000 if cheap else 10_000),
        "Twisted": twisted(problem, None, quick),
        "Twisted, no lead": twisted(problem, [], quick),
        "Twisted OT-ODE": twisted(problem, [OTODE(m, y, start=0.02)], quick),
        "Twisted FlowDPS": twisted(problem, [FlowDPS(m, y)], quick),
        "Twisted FlowChef": twisted(problem, [FlowChef(m, y, 1.0)], quick),
        "FLOWER": Flower(steps, coupled=True),
        "FLOWER, no draw": Flower(steps, draw=False, coupled=True),
        "OT-ODE": Guided([OTODE(m, y)], solver),
        "FlowDPS": Guided([FlowDPS(m, y)], solver),
        "FlowDPS, as its code": FlowDPSSteps(28, centre=centre),
        "FlowChef": Guided([FlowChef(m, y, 1.0)], solver),
        "PnP-Flow": PnPFlow(steps, coupled=True),
        "D-Flow": DFlow(1 if quick else 3, 20, weight=0.01 / (2 * noise)),
    }
    if problem.effort is Effort.NETWORK:
        return {name: found[name] for name in found if name in NETWORK}
    return {name: method for name, method in found.items() if cheap or name not in VARIANTS}


def twisted(problem: Problem, steering: Sequence[Steering] | None, quick: bool) -> Twisted:
    """Return twisted sequential Monte Carlo; with fewer, gentler steps where each needs the score of the density."""
    if problem.score is not None:
        particles = 2048 if problem.effort is Effort.VARIANTS else 1024
        return Twisted(steering, problem.score, steps=10 if quick else 100, particles=64 if quick else particles)
    return Twisted(
        steering,
        noise=lambda t: 1 - t,
        steps=4 if quick else 50,
        particles=64 if quick else 1024,
        solver=FixedStep(steps=4),
    )
