"""FlowChef: guidance by a gradient at the predicted end point, without the field's derivative."""

from manifolds import Manifold
from rfm.posterior.likelihood import LogLikelihood
from rfm.steering.energy import EnergyGuidance


class FlowChef(EnergyGuidance):
    """The field plus a rate times the gradient of the log-likelihood at the predicted end point: biased.

    The gradient is taken at ``x1 = exp_x((1 - t) v)`` and carried to ``x`` by the manifold's transport: that the
    derivative of ``x1`` by ``x`` is left out is right where trajectories are straight and parallel. Nothing here
    depends on how sure the measurement is but through the rate, which is tuned. It finds points that fit, not draws of
    the posterior.

    Args:
        manifold: where the points live.
        likelihood: log-likelihoods, differentiable.
        rate: per unit of time. The published update of N steps with step length s on the squared residual is a rate of
            ``2 s N noise^2``.
        start: of the guidance, in [0, 1).

    References:
        Patel et al.: Steering rectified flow models in the vector field for controlled image generation, 2024,
        arXiv:2412.00100.
    """

    name = "FlowChef"

    def __init__(self, manifold: Manifold, likelihood: LogLikelihood, rate: float = 1.0, start: float = 0.0) -> None:
        super().__init__(manifold, lambda x: -likelihood(x), rate, start=start, through_field=False)
