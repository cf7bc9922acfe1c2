"""One explicit Runge-Kutta step of order eight, for geodesics that have no closed form.

References:
    Cooper & Verner, Some explicit Runge-Kutta methods of high order, 1972, doi:10.1137/0709037, table 1: eleven stages.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

_S = math.sqrt(21.0)

_A: tuple[dict[int, float], ...] = (
    {0: 1 / 2},
    {0: 1 / 4, 1: 1 / 4},
    {0: 1 / 7, 1: (-7 - 3 * _S) / 98, 2: (21 + 5 * _S) / 49},
    {0: (11 + _S) / 84, 2: (18 + 4 * _S) / 63, 3: (21 - _S) / 252},
    {0: (5 + _S) / 48, 2: (9 + _S) / 36, 3: (-231 + 14 * _S) / 360, 4: (63 - 7 * _S) / 80},
    {
        0: (10 - _S) / 42,
        2: (-432 + 92 * _S) / 315,
        3: (633 - 145 * _S) / 90,
        4: (-504 + 115 * _S) / 70,
        5: (63 - 13 * _S) / 35,
    },
    {0: 1 / 14, 4: (14 - 3 * _S) / 126, 5: (13 - 3 * _S) / 63, 6: 1 / 9},
    {0: 1 / 32, 4: (91 - 21 * _S) / 576, 5: 11 / 72, 6: (-385 - 75 * _S) / 1152, 7: (63 + 13 * _S) / 128},
    {
        0: 1 / 14,
        4: 1 / 9,
        5: (-733 - 147 * _S) / 2205,
        6: (515 + 111 * _S) / 504,
        7: (-51 - 11 * _S) / 56,
        8: (132 + 28 * _S) / 245,
    },
    {
        4: (-42 + 7 * _S) / 18,
        5: (-18 + 28 * _S) / 45,
        6: (-273 - 53 * _S) / 72,
        7: (301 + 53 * _S) / 72,
        8: (28 - 28 * _S) / 45,
        9: (49 - 7 * _S) / 18,
    },
)
_B = {0: 1 / 20, 7: 49 / 180, 8: 16 / 45, 9: 49 / 180, 10: 1 / 20}


def step(acceleration: Callable[[Tensor, Tensor], Tensor], x: Tensor, v: Tensor, h: float) -> tuple[Tensor, Tensor]:
    """Return position and velocity after time ``h`` of ``x' = v``, ``v' = acceleration(x, v)``."""
    slopes = [(v, acceleration(x, v))]
    for row in _A:
        stage_v = _advance(v, h, row, slopes, 1)
        slopes.append((stage_v, acceleration(_advance(x, h, row, slopes, 0), stage_v)))
    return _advance(x, h, _B, slopes, 0), _advance(v, h, _B, slopes, 1)


def _advance(start: Tensor, h: float, row: dict[int, float], slopes: list[tuple[Tensor, Tensor]], which: int) -> Tensor:
    # Not weight * slope: forward mode gives a number a tangent of zeros, at a hundred times the cost of the product.
    for i, weight in row.items():
        start = torch.add(start, slopes[i][which], alpha=h * weight)
    return start
