"""Integrators on manifolds: tableaux, the coordinates of a step, step control, and `integrate`."""

from rfm.integrators.adams import Adams
from rfm.integrators.adaptive import Adaptive
from rfm.integrators.chart import Chart, Scheme
from rfm.integrators.conditions import Shared
from rfm.integrators.fixed_step import FixedStep
from rfm.integrators.geodesic import GEODESIC_EULER, GEODESIC_MIDPOINT, Geodesic
from rfm.integrators.integrate import integrate
from rfm.integrators.method import Method
from rfm.integrators.munthe_kaas import MuntheKaas
from rfm.integrators.normal_coordinates import NormalCoordinates
from rfm.integrators.projected import Projected
from rfm.integrators.solution import IntegrationError, Solution
from rfm.integrators.tableaux import (
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
    "IntegrationError",
    "Method",
    "MuntheKaas",
    "NormalCoordinates",
    "Projected",
    "Scheme",
    "Shared",
    "Solution",
    "Tableau",
    "integrate",
]
