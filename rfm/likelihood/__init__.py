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

__all__ = [
    "DiscreteLogProb",
    "Hutchinson",
    "LeavesDomainError",
    "LogProbEstimate",
    "discrete_log_prob",
    "divergence",
    "divergence_estimates",
    "estimate_log_prob",
    "estimate_transport",
    "log_prob",
    "rademacher",
    "score",
    "transport",
]
