"""Objectives of flow maps, for few-step samples: each adds a loss of jumps to flow matching.

`Semigroup` needs no derivative of the map, and is the default; `TrajectoryRegression` solves for where to land;
`Lagrangian` and `Eulerian` look at how a landing point moves with the time of landing, or of departure; `MeanFlow` and
`PlainMeanFlow` at the average velocity at departure; `AlignYourFlow` and `RiemannianConsistency` draw landing points
along their derivative.
"""

from rfm.objectives.flow_maps.align_your_flow import AlignYourFlow, RiemannianConsistency
from rfm.objectives.flow_maps.eulerian import Eulerian
from rfm.objectives.flow_maps.flow_map_objective import FlowMapObjective
from rfm.objectives.flow_maps.lagrangian import Lagrangian
from rfm.objectives.flow_maps.mean_flow import MeanFlow, PlainMeanFlow
from rfm.objectives.flow_maps.semigroup import Semigroup
from rfm.objectives.flow_maps.trajectory_regression import TrajectoryRegression

__all__ = [
    "AlignYourFlow",
    "Eulerian",
    "FlowMapObjective",
    "Lagrangian",
    "MeanFlow",
    "PlainMeanFlow",
    "RiemannianConsistency",
    "Semigroup",
    "TrajectoryRegression",
]
