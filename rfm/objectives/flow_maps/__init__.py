"""Objectives of flow maps, for few-step samples: each adds a loss of jumps to flow matching."""

from rfm.objectives.flow_maps.flow_map_objective import FlowMapObjective
from rfm.objectives.flow_maps.semigroup import Semigroup

__all__ = ["FlowMapObjective", "Semigroup"]
