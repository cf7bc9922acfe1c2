"""The ancestors and flow matching, each fitted to the same points and with the same network where there is one."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import rfm
from experiments.ancestors.budget import Budget, Fitted
from experiments.ancestors.data import DIGITS, TORSIONS, Points
from experiments.ancestors.glow import glow
from manifolds import Euclidean, Manifold
from rfm.baselines import NormalizingFlow
from rfm.couplings import Coupling, Independent, OptimalTransport
from rfm.integrators import Adaptive
from rfm.networks import VelocityField
from rfm.objectives import Semigroup
from rfm.paths import DDIM
from rfm.paths.schedules import VariancePreserving
from rfm.sources import Source, Uniform, WrappedNormal

SOLVER = Adaptive(atol=1e-4, rtol=1e-4)
"""Of log-densities and of draws."""
_DDIM_STEPS, _JUMPS = 50, 2
_HIDDEN = 64
"""Width of the networks of zuko's maps."""
_PROBED = 8
"""In more dimensions than this, maximum likelihood estimates the volume by probes."""


def source_of(manifold: Manifold) -> Source:
    """Return the standard normal distribution, or the uniform one where angles go round."""
    return (
        WrappedNormal(manifold, torch.zeros(manifold.dim), 1.0)
        if isinstance(manifold, Euclidean)
        else Uniform(manifold)
    )


def network(manifold: Manifold, width: int) -> VelocityField:
    """Return the network that all flows but the normalising ones share."""
    return VelocityField(manifold, width=width, depth=3, features=2 * width, max_frequency=8.0)


def flow_matching(points: Points, budget: Budget, seed: int) -> Fitted:
    """Fit by flow matching, with independent pairs."""
    return _solved(points, budget, seed)


def paired_flow_matching(points: Points, budget: Budget, seed: int) -> Fitted:
    """Fit by flow matching, with the pairs of optimal transport in each batch."""
    return _solved(points, budget, seed, coupling=OptimalTransport(points.manifold))


def diffusion(points: Points, budget: Budget, seed: int) -> Fitted:
    """Fit the noise of the variance-preserving path; draw by DDIM."""
    path = rfm.GaussianPath(points.manifold, VariancePreserving())
    fitted = _solved(points, budget, seed, objective=rfm.FlowMatching(path, predicts="noise"))
    solver = DDIM(path.schedule, _DDIM_STEPS)
    return Fitted(fitted.log_prob, _drawing(fitted.flow, solver=solver), fitted.parameters, fitted.seconds, fitted.flow)


def maximum_likelihood(points: Points, budget: Budget, seed: int) -> Fitted:
    """Fit the same network from its initial weights by descending the negative log-likelihood itself."""
    probes = 1 if points.manifold.dim > _PROBED else None
    objective = rfm.MaximumLikelihood(probes=probes, tolerance=0.1 if probes is None else 10.0)
    return _solved(points, budget, seed, steps=budget.likelihood_steps, objective=objective, rate=5e-3)


def flow_map(points: Points, budget: Budget, seed: int) -> Fitted:
    """Distil the flow of independent pairs to a map that jumps twice."""
    teacher = flow_matching(points, budget, seed)
    assert teacher.flow is not None
    start = time.process_time()
    flow = rfm.distil(
        teacher.flow,
        objective=Semigroup(invertibility=0.3),
        points=budget.points,
        steps=budget.map_steps,
        batch_size=budget.batch,
        seed=seed,
        progress=False,
    )
    seconds = teacher.seconds + time.process_time() - start
    log_prob = partial(flow.log_prob, steps=_JUMPS)
    return Fitted(log_prob, _drawing(flow, steps=_JUMPS), _count(flow.field), seconds, flow, jumps=True)


def normalizing_flow(kind: str, points: Points, budget: Budget, seed: int) -> Fitted:
    """Fit a normalising flow of zuko."""
    start = time.process_time()
    source = NormalizingFlow.fit(
        points.manifold,
        points.train,
        points.validation,
        kind=kind,
        steps=budget.steps,
        transforms=6 if kind in ("nice", "realnvp") else 3,
        hidden_features=(_HIDDEN, _HIDDEN),
        seed=seed,
    )
    seconds = time.process_time() - start
    return Fitted(source.log_prob, lambda n, g: source.sample((n,), generator=g), _count(source.flow), seconds)


def _solved(
    points: Points,
    budget: Budget,
    seed: int,
    *,
    steps: int | None = None,
    objective: rfm.objectives.Objective | None = None,
    rate: float = 1e-2,
    coupling: Coupling = Independent(),
) -> Fitted:
    manifold = points.manifold
    start = time.process_time()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        field = network(manifold, budget.width)
    both = torch.cat([points.train, points.validation])
    flow = rfm.fit(
        both,
        manifold,
        validation=torch.arange(len(points.train), len(both)),
        source=source_of(manifold),
        field=field,
        objective=objective,
        coupling=coupling,
        refine=False,
        steps=steps or budget.steps,
        batch_size=budget.batch,
        seed=seed,
        device="cpu",
        progress=False,
        training=rfm.Training(learning_rate=rate),
    )
    seconds = time.process_time() - start
    log_prob = partial(flow.log_prob, solver=SOLVER)
    return Fitted(log_prob, _drawing(flow, solver=SOLVER), _count(flow.field), seconds, flow)


def _drawing(flow: rfm.Flow | None, **options: Any) -> Callable[[int, torch.Generator], Tensor]:
    assert flow is not None
    return lambda n, generator: flow.sample(n, generator=generator, **options)


def _count(module: object) -> int:
    assert isinstance(module, nn.Module)
    return sum(parameter.numel() for parameter in module.parameters())


Fit = Callable[[Points, Budget, int], Fitted]

NORMALIZING: dict[str, Fit] = {
    "NICE": partial(normalizing_flow, "nice"),
    "RealNVP": partial(normalizing_flow, "realnvp"),
    "MAF": partial(normalizing_flow, "maf"),
    "NSF": partial(normalizing_flow, "spline"),
}
CIRCULAR: dict[str, Fit] = {"circular NSF": partial(normalizing_flow, "circular-spline")}
SAME_NETWORK: dict[str, Fit] = {
    "maximum likelihood": maximum_likelihood,
    "diffusion, VP": diffusion,
    "flow matching": flow_matching,
    "flow matching, OT": paired_flow_matching,
    "flow map": flow_map,
}


def methods(problem: str) -> dict[str, Fit]:
    """Return what is fitted to a data set, by name."""
    if problem == TORSIONS:
        return CIRCULAR | {name: fit for name, fit in SAME_NETWORK.items() if name != "diffusion, VP"}
    if problem == DIGITS:
        return NORMALIZING | {"Glow": glow} | {n: f for n, f in SAME_NETWORK.items() if n != "flow map"}
    return NORMALIZING | SAME_NETWORK
