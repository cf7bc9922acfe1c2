"""Control: flows of action chunks as policies, on the manifolds where robots move.

A policy draws the next H actions given what is seen, carries out the first of them and looks again. `ActionChunks` is
where H actions live, `Observations` what is seen, `ActionNetwork` the velocity field between them; `fit_policy` trains
it by imitation, and `FlowPolicy.act` is the policy. `fit_forecast` learns where a body will be from how it has moved.
"""

from rfm.control.action_chunks import ActionChunks, SameFactors
from rfm.control.action_matching import TEN_STEPS, ActionMatching
from rfm.control.action_network import ActionMap, ActionNetwork
from rfm.control.environments import Environments, GymnasiumEnvironments, Step
from rfm.control.fitting import action_network, action_source, fit_policy
from rfm.control.flow_actor import FlowActor
from rfm.control.forecast import (
    LinearMotion,
    MotionForecast,
    fit_forecast,
    motion_coordinates,
    motion_from_coordinates,
)
from rfm.control.fpo import FPO, Iteration
from rfm.control.observations import Observation, Observations, Point, Vector, Words
from rfm.control.policy import FlowPolicy
from rfm.control.policy_network import PolicyNetwork
from rfm.control.policy_ratio import ClippedSurrogate, LossDraws, LossRatio, generalised_advantages
from rfm.control.real_time import RealTimeChunking
from rfm.control.rollout import Rollout, Runner
from rfm.control.running_scale import RunningScale
from rfm.control.token_encoders import ObservationTokens, TokenEncoder, encoder_of

__all__ = [
    "FPO",
    "TEN_STEPS",
    "ActionChunks",
    "ActionMap",
    "ActionMatching",
    "ActionNetwork",
    "ClippedSurrogate",
    "Environments",
    "FlowActor",
    "FlowPolicy",
    "GymnasiumEnvironments",
    "Iteration",
    "LinearMotion",
    "LossDraws",
    "LossRatio",
    "MotionForecast",
    "Observation",
    "ObservationTokens",
    "Observations",
    "Point",
    "PolicyNetwork",
    "RealTimeChunking",
    "Rollout",
    "Runner",
    "RunningScale",
    "SameFactors",
    "Step",
    "TokenEncoder",
    "Vector",
    "Words",
    "action_network",
    "action_source",
    "encoder_of",
    "fit_forecast",
    "fit_policy",
    "generalised_advantages",
    "motion_coordinates",
    "motion_from_coordinates",
]
