"""Flows on bounded sets as meshes with a border: in closed form, and along spectral distances."""

import time

import torch
from torch import Tensor

import rfm
from experiments.borders.known import Known
from experiments.borders.mechanisms import SIZE, SOLVER, Budget, Fitted
from experiments.borders.triangles import Triangles, triangles
from rfm.integrators import EULER, FixedStep, Method
from rfm.networks import VelocityField
from rfm.paths import PremetricPath, SpectralDistance

PREMETRIC_VERTICES = 400
"""Of the mesh on which pairs are simulated: the fewest that hold the eigenfunctions."""
EIGENFUNCTIONS = 60
STEPS = FixedStep(EULER, steps=10)
"""Of each pair, before it is brought to where the premetric has its value: a third of the default's price."""


def closed_form(known: Known, x: Tensor, budget: Budget, seed: int) -> Fitted:
    """Return the flow whose density is that of the heat flow with nothing over the border: nothing is trained."""
    return closed_form_on(triangles(known.manifold), x, seed)


def closed_form_on(parts: Triangles, x: Tensor, seed: int, validation: Tensor | None = None) -> Fitted:
    """Return that flow on a set which is a mesh already."""
    started = time.process_time()
    held = 0.1 if validation is None else validation
    flow = rfm.fit(parts.to_mesh(x)[0], parts.mesh, validation=held, progress=False, seed=seed)
    return _fitted(parts, flow, time.process_time() - started)


def premetric(known: Known, x: Tensor, budget: Budget, seed: int) -> Fitted:
    """Fit a flow along paths down the biharmonic distance, whose eigenfunctions are free at the border.

    Its velocities flow along the border there, and all paths stay inside.
    """
    parts = triangles(known.manifold, PREMETRIC_VERTICES)
    m = parts.mesh
    y = parts.to_mesh(x)[0]
    scale = float((y - y.mean(0)).square().mean().sqrt())
    distance = SpectralDistance(m, "biharmonic", EIGENFUNCTIONS)
    started = time.process_time()
    torch.manual_seed(seed)
    flow = rfm.fit(
        y.float(),
        m,
        field=VelocityField(m, **SIZE, offset=y.mean(0).tolist(), scale=scale),
        objective=rfm.FlowMatching(path=PremetricPath(m, distance, method=STEPS)),
        refine=False,
        steps=budget.steps,
        batch_size=budget.batch_size,
        seed=seed,
        progress=False,
        training=rfm.Training(validations=3),
    )
    return _fitted(parts, flow, time.process_time() - started, SOLVER)


def _fitted(parts: Triangles, flow: rfm.Flow, seconds: float, solver: Method | None = None) -> Fitted:
    def sample(count: int, seed: int) -> Tensor:
        drawn = flow.sample(count, generator=torch.Generator().manual_seed(seed), solver=solver).double()
        return parts.from_mesh(drawn)

    def log_prob(x: Tensor) -> Tensor:
        y, log_area = parts.to_mesh(x.double())
        return flow.log_prob(y, solver=solver).double() + log_area

    return Fitted(sample, log_prob, seconds)
