"""Draws of a posterior: a flow is the prior, a measurement the likelihood.

`rfm.Flow.posterior` calls these methods.

==================== =================================================================================
`Tempering`          exact in the limit; sequential Monte Carlo from the source to the posterior
`Chains`             exact in the limit; `CrankNicolson`, `RandomWalk` or `Hamiltonian` moves on the source
`Twisted`            exact in the limit; a stochastic sampler, guided and weighted
`Importance`         exact in the limit; draws of the prior, weighted
`AdaptiveImportance` exact in the limit; draws of kernels about what fits, weighted; for slices of a density
`Guided`             biased; follows a field steered by `FlowDPS`, `OTODE`, `FlowChef` or an energy
`Flower`             biased; end point, Gaussian correction, fresh noise
`FlowDPSSteps`       biased; the published code of FlowDPS
`PnPFlow`, `DFlow`   one fitting point for each start, no draws of a posterior
==================== =================================================================================

Likelihoods are functions of points: `Measurement` of an operator (`rfm.posterior.operators`), `inside` a region, or one
of your own. What is known without error is a `Slice`.
"""

from rfm.posterior import operators
from rfm.posterior.adaptive_importance import AdaptiveImportance
from rfm.posterior.chains import Chains
from rfm.posterior.crank_nicolson import CrankNicolson
from rfm.posterior.d_flow import DFlow, gaussian_shell
from rfm.posterior.draws import PosteriorDraws, effective_size
from rfm.posterior.flow_chef import FlowChef
from rfm.posterior.flow_dps import FlowDPS, FlowDPSSteps
from rfm.posterior.flower import Flower
from rfm.posterior.guided import DivergenceError, Guided
from rfm.posterior.importance import Importance
from rfm.posterior.likelihood import Likelihood, LogLikelihood, as_likelihood, inside
from rfm.posterior.measurements import Measurement
from rfm.posterior.operators import Operator, Polygon
from rfm.posterior.ot_ode import OTODE
from rfm.posterior.pnp_flow import PnPFlow
from rfm.posterior.pooling import at_points, drawn_until, pooled
from rfm.posterior.proposals import Hamiltonian, Proposal, RandomWalk
from rfm.posterior.sampler import Sampler
from rfm.posterior.slices import Slice, Unmeasured, slice_method, slice_source
from rfm.posterior.target import Carried, NoFieldError, SourceTarget, ZeroLikelihoodError
from rfm.posterior.tempering import Tempering
from rfm.posterior.twisted import Twisted, score_of_normal_noise

__all__ = [
    "OTODE",
    "AdaptiveImportance",
    "Carried",
    "Chains",
    "CrankNicolson",
    "DFlow",
    "DivergenceError",
    "FlowChef",
    "FlowDPS",
    "FlowDPSSteps",
    "Flower",
    "Guided",
    "Hamiltonian",
    "Importance",
    "Likelihood",
    "LogLikelihood",
    "Measurement",
    "NoFieldError",
    "Operator",
    "PnPFlow",
    "Polygon",
    "PosteriorDraws",
    "Proposal",
    "RandomWalk",
    "Sampler",
    "Slice",
    "SourceTarget",
    "Tempering",
    "Twisted",
    "Unmeasured",
    "ZeroLikelihoodError",
    "as_likelihood",
    "at_points",
    "drawn_until",
    "effective_size",
    "gaussian_shell",
    "inside",
    "operators",
    "pooled",
    "score_of_normal_noise",
    "slice_method",
    "slice_source",
]
