"""The methods on pictures; the settings that their papers tune are tuned here, on pictures held out."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import rfm
from experiments.images.problems import Restoration
from rfm.integrators import EULER, FixedStep
from rfm.posterior import OTODE, DFlow, FlowChef, FlowDPS, FlowDPSSteps, Flower, Guided, Measurement, PnPFlow, Sampler

_TV_STEPS, _TV_INNER_STEPS = 60, 20
TV_WEIGHTS = (0.003, 0.01, 0.03, 0.1, 0.3)


@dataclass(frozen=True)
class Method:
    """A method and what its papers tune.

    Args:
        make: from a setting and the likelihood to the method.
        settings: to try; one, where nothing is tuned.
        draws: at most so many for each picture; 0 for as many as others give.
    """

    make: Callable[[float, Measurement], Sampler]
    settings: tuple[float, ...] = (1.0,)
    draws: int = 0


def methods(task: Restoration, flow: rfm.Flow, quick: bool) -> dict[str, Method]:
    """Return the methods by name.

    Args:
        task: whose operator sets the unit of rates.
        flow: the prior.
        quick: few steps.
    """
    m, norm = flow.manifold, task.norm()
    unit, steps = task.noise**2 / norm**2, 4 if quick else 40
    # Steered fields are stiff where a measurement is exact: many cheap steps do better than few good ones.
    solver = FixedStep(EULER, steps=2 * steps)
    return {
        "FLOWER": Method(lambda _, y: Flower(steps, coupled=True)),
        "FLOWER, as published": Method(lambda _, y: Flower(steps, draw=False, coupled=True)),
        "OT-ODE": Method(lambda _, y: Guided([OTODE(m, y)], solver)),
        "FlowDPS": Method(lambda w, y: Guided([FlowDPS(m, y, w)], solver), (1.0, 0.1, 0.03, 0.01)),
        "FlowDPS, as its code": Method(
            lambda rate, y: FlowDPSSteps(28, rate=rate / norm, centre=torch.zeros(m.event_shape)), (1.0, 3.0, 10.0)
        ),
        "FlowChef": Method(lambda rate, y: Guided([FlowChef(m, y, rate * unit)], solver), (10.0, 30.0, 100.0)),
        "PnP-Flow": Method(
            lambda power, y: PnPFlow(steps, 1 if quick else 3, 1 / norm**2, power, coupled=True), (0.1, 0.5, 1.0)
        ),
        "D-Flow": Method(lambda _, y: DFlow(1, 3 if quick else 20, weight=0.01 / (2 * task.noise**2)), draws=2),
    }


def total_variation(task: Restoration, y: Tensor, weight: float) -> Tensor:
    """Return pictures of least ``|A x - y|^2 / 2 + weight |A|^2 TV(x)``, ``(n, pixels)``.

    By proximal gradient steps with momentum, whose inner problem is deepinv's.

    Args:
        task: whose operator it is.
        y: measurements ``(n, ...)``.
        weight: of the total variation, relative to the squared norm of the operator.

    References:
        Rudin, Osher, Fatemi, Nonlinear total variation based noise removal, 1992; Beck and Teboulle, A fast iterative
        shrinkage-thresholding algorithm, 2009.
    """
    from deepinv.models import TVDenoiser

    prox = TVDenoiser(n_it_max=_TV_INNER_STEPS)
    step = 1 / task.norm() ** 2
    x = task.without_prior(y).reshape(-1, *task.shape)
    ahead, age = x, 1.0
    with torch.no_grad():
        for _ in range(_TV_STEPS):
            lower = ahead - step * task.physics.A_adjoint(task.physics.A(ahead) - y)
            before, x = x, prox(lower, ths=weight)
            older, age = age, (1 + (1 + 4 * age**2) ** 0.5) / 2
            ahead = x + (older - 1) / age * (x - before)
    return x.reshape(len(y), -1)
