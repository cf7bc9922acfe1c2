"""Divergence of a velocity field, exact or estimated, and the log-density of the flow that it generates."""

from rfm.likelihood.change_of_variables import (
    LogProbEstimate,
    estimate_log_prob,
    estimate_transport,
    log_prob,
    score,
    transport,
)
from rfm.likelihood.discrete_flow import DiscreteLogProb, LeavesDomainError, discrete_log_prob
from rfm.likelihood.divergences import Hutchinson, divergence, divergence_estimates, rademacher
from rfm.likelihood.euler_density import euler_log_prob, euler_transport
from rfm.likelihood.jump_density import (
    Inversion,
    JumpInverse,
    JumpLogProb,
    NotInvertibleError,
    jump_inverse,
    jump_log_prob,
    jump_transport,
)

__all__ = [
    "DiscreteLogProb",
    "Hutchinson",
    "Inversion",
    "JumpInverse",
    "JumpLogProb",
    "LeavesDomainError",
    "LogProbEstimate",
    "NotInvertibleError",
    "discrete_log_prob",
    "divergence",
    "divergence_estimates",
    "estimate_log_prob",
    "estimate_transport",
    "euler_log_prob",
    "euler_transport",
    "jump_inverse",
    "jump_log_prob",
    "jump_transport",
    "log_prob",
    "rademacher",
    "score",
    "transport",
]
