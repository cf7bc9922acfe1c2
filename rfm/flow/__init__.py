"""A flow: a manifold, a velocity field and a source, as one distribution; and the folder that it is saved in."""

from rfm.flow.fastest_solver import SolverChoice, fastest_solver
from rfm.flow.flow import POINT_TOLERANCE, Flow
from rfm.flow.refinement import Refinement

__all__ = [
    "POINT_TOLERANCE",
    "Flow",
    "Refinement",
    "SolverChoice",
    "fastest_solver",
]
