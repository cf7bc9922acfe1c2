"""Draws of a posterior: a flow is the prior, a measurement the likelihood.

Exact in the limit, whatever the likelihood: `Importance`, `Chains` on the source manifold and `Tempering` (sequential
Monte Carlo). `rfm.Flow.posterior` calls them.
"""

from rfm.posterior.chains import Chains
from rfm.posterior.draws import PosteriorDraws
from rfm.posterior.importance import Importance
from rfm.posterior.measurements import LogLikelihood, Measurement, distance_to, inside
from rfm.posterior.proposals import Hamiltonian, Proposal, RandomWalk
from rfm.posterior.sampler import Sampler
from rfm.posterior.target import SourceTarget
from rfm.posterior.tempering import Tempering

__all__ = [
    "Chains",
    "Hamiltonian",
    "Importance",
    "LogLikelihood",
    "Measurement",
    "PosteriorDraws",
    "Proposal",
    "RandomWalk",
    "Sampler",
    "SourceTarget",
    "Tempering",
    "distance_to",
    "inside",
]
