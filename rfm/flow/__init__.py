"""A flow: a manifold, a velocity field and a source, as one distribution; and the folder that it is saved in."""

from rfm.flow.conditional_refinement import ConditionalRefinement
from rfm.flow.fastest_solver import SolverChoice, fastest_solver
from rfm.flow.flow import POINT_TOLERANCE, Flow
from rfm.flow.flow_mixture import FlowMixture, RefinedDensity
from rfm.flow.refinement import Refinement
from rfm.flow.stratified_refinement import StratifiedRefinement

__all__ = [
    "POINT_TOLERANCE",
    "ConditionalRefinement",
    "Flow",
    "FlowMixture",
    "RefinedDensity",
    "Refinement",
    "SolverChoice",
    "StratifiedRefinement",
    "fastest_solver",
]
