"""Integrators on manifolds: tableaux, the coordinates of a step, step control, stochastic sampling, and `integrate`."""

from rfm.integrators.adams.adams import Adams
from rfm.integrators.adaptive import Adaptive
from rfm.integrators.conditions import Shared
from rfm.integrators.fixed_step import FixedStep
from rfm.integrators.integrate import integrate
from rfm.integrators.jumps import Jumps
from rfm.integrators.method import Method
from rfm.integrators.runge_kutta.chart import Chart
from rfm.integrators.runge_kutta.geodesic import GEODESIC_EULER, GEODESIC_MIDPOINT, Geodesic
from rfm.integrators.runge_kutta.munthe_kaas import MuntheKaas
from rfm.integrators.runge_kutta.normal_coordinates import NormalCoordinates
from rfm.integrators.runge_kutta.runge_kutta import Projected, RungeKutta
from rfm.integrators.runge_kutta.tableaux import (
    BOGACKI_SHAMPINE,
    DORMAND_PRINCE,
    EULER,
    HEUN_EULER,
    KUTTA3,
    MIDPOINT,
    RK4,
    TSITOURAS,
    Tableau,
)
from rfm.integrators.scheme import Scheme
from rfm.integrators.solution import IntegrationError, Solution
from rfm.integrators.stochastic.stochastic import Stochastic
from rfm.integrators.stochastic.walks import GeodesicWalk, ProjectedWalk, Walk

__all__ = [
    "BOGACKI_SHAMPINE",
    "DORMAND_PRINCE",
    "EULER",
    "GEODESIC_EULER",
    "GEODESIC_MIDPOINT",
    "HEUN_EULER",
    "KUTTA3",
    "MIDPOINT",
    "RK4",
    "TSITOURAS",
    "Adams",
    "Adaptive",
    "Chart",
    "FixedStep",
    "Geodesic",
    "GeodesicWalk",
    "IntegrationError",
    "Jumps",
    "Method",
    "MuntheKaas",
    "NormalCoordinates",
    "Projected",
    "ProjectedWalk",
    "RungeKutta",
    "Scheme",
    "Shared",
    "Solution",
    "Stochastic",
    "Tableau",
    "Walk",
    "integrate",
]
