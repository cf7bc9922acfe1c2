"""What a training step minimises: flow matching and its relatives, or minus the log-likelihood."""

from rfm.objectives.flow_maps import (
    AlignYourFlow,
    Eulerian,
    FlowMapObjective,
    Lagrangian,
    MeanFlow,
    PlainMeanFlow,
    RiemannianConsistency,
    Semigroup,
    TrajectoryRegression,
)
from rfm.objectives.flow_matching import FlowMatching
from rfm.objectives.maximum_likelihood import MaximumLikelihood, adjoint_log_prob, negative_log_likelihood_loss
from rfm.objectives.objective import Floor, Objective, objective_of
from rfm.objectives.prediction import prediction_loss
from rfm.objectives.regression import endpoint_loss, flow_matching_loss

__all__ = [
    "AlignYourFlow",
    "Eulerian",
    "Floor",
    "FlowMapObjective",
    "FlowMatching",
    "Lagrangian",
    "MaximumLikelihood",
    "MeanFlow",
    "Objective",
    "PlainMeanFlow",
    "RiemannianConsistency",
    "Semigroup",
    "TrajectoryRegression",
    "adjoint_log_prob",
    "endpoint_loss",
    "flow_matching_loss",
    "negative_log_likelihood_loss",
    "objective_of",
    "prediction_loss",
]
