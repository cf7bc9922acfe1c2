"""Uniform points of a set that is known by its equations, and its volume."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from manifolds.level_sets.constraint import Constraint, lift

_GRID = 256
"""Intervals in which a line is searched for changes of sign."""
_BISECTIONS = 44
_LINES = 4096
"""Lines at a time, which bounds the memory."""

Random = tuple[torch.Generator | None, torch.device | str | None]
"""What draws: a generator, and the device it lives on."""


class RandomLines:
    """A hypersurface in a ball, met by random lines.

    A line that is uniform among those that meet the ball meets every piece of the surface with a probability in
    proportion to its area, whatever its direction (Cauchy and Crofton's formula). So the number of crossings measures
    the area, and the crossings are uniform. There is no bias but that of the search: two crossings closer than a 256th
    of a line's length in the ball are missed.

    Args:
        function: F, of points ``(*batch, n)``.
        n: dimension of the ambient space.
        radius: of a ball about the origin that holds the surface.
        crossings: a bound on how many times a line meets the surface.

    References:
        Santalo, Integral Geometry and Geometric Probability, 2004, doi:10.1017/CBO9780511617331, section 14.3.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], n: int, radius: float, crossings: int) -> None:
        self.function, self.n, self.radius, self.crossings = function, n, radius, crossings

    def area_per_crossing(self) -> float:
        """Return the area of which one crossing per line is the mean."""
        n = self.n
        disc = (n - 1) / 2 * math.log(math.pi) - math.lgamma((n + 1) / 2) + (n - 1) * math.log(self.radius)
        # The mean of |cos| between a random direction and a normal.
        cosine = math.lgamma(n / 2) - math.lgamma((n + 1) / 2) - math.log(math.pi) / 2
        return math.exp(disc - cosine)

    def area(self, lines: int, random: Random) -> tuple[float, float]:
        """Return an unbiased estimate of the area and its standard error."""
        counts = torch.cat([self._search(min(_LINES, lines - i), random)[2] for i in range(0, lines, _LINES)])
        mean, error = float(counts.double().mean()), float(counts.double().std()) / math.sqrt(lines)
        return self.area_per_crossing() * mean, self.area_per_crossing() * error

    def points(self, count: int, random: Random) -> Tensor:
        """Return independent uniform points in float64, ``(count, n)``.

        Of the crossings of one line at most one is taken, with a probability in proportion to their number.

        Raises:
            ValueError: if a line meets the surface more often than stated, or none does.
        """
        found: list[Tensor] = []
        missing, tries = count, 0
        while missing > 0:
            start, direction, counts, brackets = self._search(_LINES if missing > 256 else 1024, random)
            generator, device = random
            pick = torch.randint(self.crossings, counts.shape, generator=generator, device=device)
            # The pick-th change of sign along the line, where there is one.
            selected = brackets & (brackets.cumsum(-1) == pick[:, None] + 1)
            line, interval = selected.nonzero().unbind(-1)
            found.append(self._bisect(start[line], direction[line], interval)[:missing])
            missing -= len(found[-1])
            tries += 1
            if tries == 20 and missing == count:
                raise ValueError(
                    f"random_uniform: no line through the ball of radius {self.radius} meets the set; correct radius"
                )
        return torch.cat(found) if found else torch.zeros(0, self.n, dtype=torch.float64, device=random[1])

    def _search(self, lines: int, random: Random) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return starts and ends minus starts ``(lines, n)``, numbers of crossings, and where signs change."""
        generator, device = random
        d, across = (torch.randn(lines, self.n, generator=generator, device=device, dtype=torch.float64) for _ in "da")
        d = torch.nn.functional.normalize(d, dim=-1)
        across = torch.nn.functional.normalize(across - (across * d).sum(-1, keepdim=True) * d, dim=-1)
        share = torch.rand(lines, 1, generator=generator, device=device, dtype=torch.float64) ** (1 / (self.n - 1))
        half = self.radius * torch.sqrt(1 - share * share)
        start, direction = self.radius * share * across - half * d, 2 * half * d
        grid = torch.linspace(0, 1, _GRID + 1, dtype=torch.float64, device=d.device)[:, None]
        positive = self.function(start[:, None] + grid * direction[:, None]) > 0
        brackets = positive[:, 1:] != positive[:, :-1]
        counts = brackets.sum(-1)
        most = int(counts.max())
        if most > self.crossings:
            raise ValueError(
                f"LevelSet: a line meets the set {most} times, more than crossings={self.crossings}; raise crossings "
                f"to {2 * most}"
            )
        return start, direction, counts, brackets

    def _bisect(self, start: Tensor, direction: Tensor, interval: Tensor) -> Tensor:
        low, width = interval[:, None].double() / _GRID, 1.0 / _GRID
        sign = self.function(start + low * direction) > 0
        for _ in range(_BISECTIONS):
            width /= 2
            same = (self.function(start + (low + width) * direction) > 0) == sign
            low = torch.where(same[:, None], low + width, low)
        return start + (low + width / 2) * direction


def chain(equations: Constraint, x: Tensor, scale: float, steps: int, random: Random) -> Iterator[Tensor]:
    """Yield the states ``(chains, n)`` of independent Metropolis chains whose limit is uniform.

    A step goes along a Gaussian tangent vector, and back to the set along the normals at its start. Steps that could
    not be taken back the same way are rejected, without which the limit would be another.

    Args:
        equations: of the set.
        x: where the chains begin ``(chains, n)``.
        scale: standard deviation of a step in each coordinate.
        steps: how many.
        random: what draws.

    References:
        Zappa, Holmes-Cerfon & Goodman, Monte Carlo on manifolds: sampling densities and integrating functions, 2018,
        arXiv:1702.08446, section 2.1.
    """
    generator, device = random
    for _ in range(steps):
        v = scale * torch.randn(x.shape, generator=generator, dtype=x.dtype, device=device)
        v = _tangent(equations, x, v)
        y, there = _along_normals(equations, x, v)
        back = _tangent(equations, y, x - y)
        returned, home = _along_normals(equations, y, back)
        reversible = home & ((returned - x).norm(dim=-1) <= 1e-6 * scale)
        ratio = torch.exp((v.square().sum(-1) - back.square().sum(-1)) / (2 * scale * scale))
        accepted = torch.rand(ratio.shape, generator=generator, dtype=x.dtype, device=device) < ratio
        x = torch.where((there & reversible & accepted)[:, None], y, x)
        yield x


def landed(equations: Constraint, x: Tensor) -> Tensor:
    """Return a point of the set for every ambient point; where Newton's method finds none, that of another one.

    Raises:
        ValueError: if it finds none for any.
    """
    x = equations.land(x, 30)
    on = equations.newton_step(x).norm(dim=-1) <= 1e-9 * x.norm(dim=-1).clamp(min=1)
    if len(x) and not bool(on.any()):
        raise ValueError("random_uniform: no point of the set was found within its radius; correct radius")
    good = x[on]
    return torch.where(on[:, None], x, good[torch.arange(len(x), device=x.device) % max(1, len(good))])


def _tangent(equations: Constraint, x: Tensor, u: Tensor) -> Tensor:
    jacobian = equations.jacobian(x)[1]
    return u - lift(jacobian, (jacobian * u[..., None, :]).sum(-1))


def _along_normals(equations: Constraint, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return the point of the set at ``x + v + J(x)' a`` that Newton's method finds, and whether it finds one."""
    normals = equations.jacobian(x)[1].mT
    y, size = x + v, v.norm(dim=-1)
    step = torch.zeros_like(x)
    for _ in range(8):
        value, jacobian = equations.jacobian(y)
        step = -(normals @ torch.linalg.solve_ex(jacobian @ normals, value[..., None])[0])[..., 0]
        y = y + step.nan_to_num(0.0, 0.0, 0.0)
    return y, (step.norm(dim=-1) <= 1e-9 * size) & y.isfinite().all(-1)
