"""Integrators on manifolds: tableaux, step control, and `integrate`."""

from rfm.integrators.integrate import integrate
from rfm.integrators.methods import Adaptive, FixedStep, Method
from rfm.integrators.solution import IntegrationError, Solution
from rfm.integrators.tableaux import DORMAND_PRINCE, EULER, MIDPOINT, RK4, Tableau

__all__ = [
    "DORMAND_PRINCE",
    "EULER",
    "MIDPOINT",
    "RK4",
    "Adaptive",
    "FixedStep",
    "IntegrationError",
    "Method",
    "Solution",
    "Tableau",
    "integrate",
]
