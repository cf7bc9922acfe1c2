"""Runge-Kutta methods, as data."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Tableau:
    """The Butcher tableau of an explicit Runge-Kutta method.

    The stages are ``k_i = f(x + h sum_j a[i][j] k_j, t + c[i] h)`` and the step is ``x + h sum_i b[i] k_i``.

    Args:
        order: order of convergence of ``b``.
        c: times of the stages, as fractions of the step.
        a: weights of earlier stages, row ``i`` of length ``i``.
        b: weights of the step.
        b_error: ``b`` minus the weights of the embedded method, whose step estimates the error; None without one.
        bump: weights ``d`` that raise the cubic Hermite interpolant of a step to order four by adding
            ``s^2 (1 - s)^2 h sum_i d[i] k_i`` at the fraction ``s`` of the step; None for the cubic alone.
    """

    order: int
    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    b_error: tuple[float, ...] | None = None
    bump: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        sizes = [len(row) for row in self.a]
        if len(self.b) != len(self.c) or sizes != list(range(len(self.c))):
            raise ValueError(
                f"Tableau: an explicit method of {len(self.c)} stages has as many weights b and rows of a of lengths "
                f"0, 1, ..., {len(self.c) - 1}, got {len(self.b)} weights and rows of lengths {sizes}"
            )

    @property
    def first_same_as_last(self) -> bool:
        """Whether the last stage is the field at the end of the step, hence the first stage of the next one."""
        return self.c[-1] == 1 and self.a[-1] == self.b[:-1] and self.b[-1] == 0

    def integrands_at(self, with_error: bool) -> tuple[bool, ...]:
        """Return which stages a scalar is needed at, that is integrated along the path and feeds back into nothing.

        Those with a weight; where the last stage is the next step's first, it is evaluated if that one is.

        Args:
            with_error: whether the integral's error is estimated too.
        """
        errors = self.b_error if with_error and self.b_error is not None else (0.0,) * len(self.b)
        weighed = [b != 0 or e != 0 for b, e in zip(self.b, errors, strict=True)]
        return (*weighed[:-1], weighed[-1] or (self.first_same_as_last and weighed[0]))

    def with_last_stage(self) -> "Tableau":
        """Return the same method with the field at the end of the step as its last stage."""
        if self.first_same_as_last:
            return self
        return replace(
            self,
            c=(*self.c, 1.0),
            a=(*self.a, self.b),
            b=(*self.b, 0.0),
            b_error=None if self.b_error is None else (*self.b_error, 0.0),
            bump=None if self.bump is None else (*self.bump, 0.0),
        )


EULER = Tableau(order=1, c=(0.0,), a=((),), b=(1.0,))

MIDPOINT = Tableau(order=2, c=(0.0, 1 / 2), a=((), (1 / 2,)), b=(0.0, 1.0))
"""Runge (1895)."""

KUTTA3 = Tableau(order=3, c=(0.0, 1 / 2, 1.0), a=((), (1 / 2,), (-1.0, 2.0)), b=(1 / 6, 2 / 3, 1 / 6))
"""Kutta (1901), of order three: Simpson's rule where the field depends on time alone."""

RK4 = Tableau(
    order=4,
    c=(0.0, 1 / 2, 1 / 2, 1.0),
    a=((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)),
    b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
)
"""The classical method of Kutta (1901)."""

HEUN_EULER = Tableau(order=2, c=(0.0, 1.0), a=((), (1.0,)), b=(1 / 2, 1 / 2), b_error=(-1 / 2, 1 / 2))
"""Heun's method of order two with Euler's embedded: 2(1), the cheapest step."""

BOGACKI_SHAMPINE = Tableau(
    order=3,
    c=(0.0, 1 / 2, 3 / 4, 1.0),
    a=((), (1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
    b=(2 / 9, 1 / 3, 4 / 9, 0.0),
    b_error=(2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8),
)
"""Bogacki & Shampine, A 3(2) pair of Runge-Kutta formulas, Appl. Math. Lett. 2 (1989), 321-325: 4 stages."""

DORMAND_PRINCE = Tableau(
    order=5,
    c=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    a=(
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    b=(35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0),
    b_error=(
        35 / 384 - 5179 / 57600,
        0.0,
        500 / 1113 - 7571 / 16695,
        125 / 192 - 393 / 640,
        -2187 / 6784 + 92097 / 339200,
        11 / 84 - 187 / 2100,
        -1 / 40,
    ),
    bump=(
        -12715105075 / 11282082432,
        0.0,
        87487479700 / 32700410799,
        -10690763975 / 1880347072,
        701980252875 / 199316789632,
        -1453857185 / 822651844,
        69997945 / 29380423,
    ),
)
"""Dormand & Prince, A family of embedded Runge-Kutta formulae, J. Comp. Appl. Math. 6 (1980), 19-26: 5(4), 7 stages.

The interpolant is that of Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I, 1993, section II.6.
"""

TSITOURAS = Tableau(
    order=5,
    c=(0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0),
    a=(
        (),
        (0.161,),
        (-0.008480655492356989, 0.335480655492357),
        (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
        (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
        (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383),
        (
            0.09646076681806523,
            0.01,
            0.4798896504144996,
            1.379008574103742,
            -3.290069515436081,
            2.324710524099774,
        ),
    ),
    b=(
        0.09646076681806523,
        0.01,
        0.4798896504144996,
        1.379008574103742,
        -3.290069515436081,
        2.324710524099774,
        0.0,
    ),
    b_error=(
        -0.00178001105222577714,
        -0.0008164344596567469,
        0.007880878010261995,
        -0.1447110071732629,
        0.5823571654525552,
        -0.45808210592918697,
        1 / 66,
    ),
    bump=(
        -0.9094322442330666,
        0.1675905547535106,
        1.8545989824585576,
        -4.869163534275951,
        0.38023592987164334,
        2.0989772702530507,
        1.2771930411722547,
    ),
)
"""Tsitouras, Runge-Kutta pairs of order 5(4) satisfying only the first column simplifying assumption, Comput. Math.
Appl. 62 (2011), 770-775: 7 stages, with a smaller leading error than Dormand & Prince's.

The weights of the interpolant are the shortest vector that gives it order four.
"""
