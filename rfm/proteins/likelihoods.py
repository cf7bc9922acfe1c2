"""Exact log-densities of short backbones."""

from torch import Tensor

from manifolds import CentredPoses
from rfm.flow import Flow
from rfm.integrators import GEODESIC_MIDPOINT, FixedStep

LONGEST = 16
"""Residues: of more, the exact divergence takes minutes, one derivative for each of 6 N - 3 dimensions at each step."""
_STEPS, _GRADING = 80, 4.0
"""The velocity to the predicted end points grows like ``1 / (1 - t)``: steps shrink with what is left of the time."""


def exact_log_prob(flow: Flow, frames: Tensor, steps: int = _STEPS) -> Tensor:
    """Return the log-density of backbones of up to 16 residues under the flow as trained, ``(n,)``, nats.

    It is with respect to the volume of `CentredPoses`, of dimension 6 N - 3, without self-conditioning and rotation
    schedule: the exact divergence along the equation, solved by the midpoint rule along geodesics. Longer ones are for
    ``flow.on(CentredPoses(N, length)).log_prob(frames, estimator=rfm.Hutchinson(...))``.

    Args:
        flow: of a `rfm.networks.FrameField`, on `CentredPoses` of any number.
        frames: backbones ``(n, residues, 4, 4)``, Angstrom; their mean position is moved to 0.
        steps: of the solver; twice as many show its error.

    Raises:
        ValueError: there are more than 16 residues, or the flow is on another manifold.
    """
    if not isinstance(flow.manifold, CentredPoses):
        raise ValueError(f"exact_log_prob: takes a flow on CentredPoses, got one on {flow.manifold}")
    residues = frames.shape[-3]
    if residues > LONGEST:
        raise ValueError(
            f"exact_log_prob: takes up to {LONGEST} residues, got {residues}; estimate longer ones by "
            "flow.on(CentredPoses(N, length)).log_prob(frames, estimator=rfm.Hutchinson(16))"
        )
    manifold = CentredPoses(residues, flow.manifold.length)
    own = flow.on(manifold)
    parameter = next(flow.parameters())
    x = manifold.projx(frames.to(parameter))
    log_prob: Tensor = own.log_prob(x, solver=FixedStep(GEODESIC_MIDPOINT, steps, grading=_GRADING))
    return log_prob
