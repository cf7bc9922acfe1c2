"""The probability of a region: by cubature, or by draws, with its error."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manifolds.arguments import check_instance, integer, positive
from rfm.flow import Flow
from rfm.flow.progress import counting_bar
from rfm.integrators import Adaptive, Method
from rfm.regions.cubature import Array, Integrand, cubature
from rfm.regions.region import Charts, Region

SOLVER = Adaptive(atol=1e-4, rtol=1e-4)
_BATCH = 4096
_TOLERANCE = 1e-3
_ABSOLUTE = 1e-7
"""Below this, an error matters in no probability."""
_MOST = 20_000
_CHECKING_DRAWS, _DRAWS = 2000, 20_000
_NODES = 17
"""Of the rule that each piece of a plane region takes at least: if they are too many, draws are cheaper."""
_ROUGH = 0.01
"""Relative error of cubature that has not converged, above which draws are tried."""
_Z95 = 1.96


@dataclass(frozen=True)
class Share:
    """How many of a flow's draws lie in a region.

    Args:
        inside: of them.
        draws: how many there are.
    """

    inside: int
    draws: int

    @property
    def mean(self) -> float:
        """The share."""
        return self.inside / self.draws

    @property
    def interval_95(self) -> tuple[float, float]:
        """Wilson's interval, which holds for shares near 0 and 1 too.

        References:
            Wilson, Probable inference, the law of succession, and statistical inference, JASA 22, 1927.
        """
        n, p, z = self.draws, self.mean, _Z95
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        # Exactly 0 and 1 at the ends, where rounding would leave something.
        return (0.0 if self.inside == 0 else middle - half), (1.0 if self.inside == n else middle + half)

    def agrees_with(self, value: float, error: float) -> bool:
        """Return whether the share is one that a probability with this error may give, within four deviations."""
        spread = math.sqrt(max(value * (1 - value), 0.0) / self.draws)
        return abs(self.mean - value) <= 4 * math.hypot(spread, error) + 4 / self.draws


@dataclass(frozen=True)
class Probability:
    """The probability of a region under a flow.

    Args:
        value: from 0 to 1.
        interval_95: what the method leaves open: the error of cubature, which is an upper bound in practice, or a 95 %
            interval of draws. That the flow is an estimate from data is no part of it.
        method: "cubature", "draws in the region" or "draws of the flow".
        evaluations: of the density, or draws.
        share: how many draws of the flow lie in the region: an independent check.
        region: in words.
        note: why the method is not the first choice; empty where it is.
    """

    value: float
    interval_95: tuple[float, float]
    method: str
    evaluations: int
    share: Share
    region: str
    note: str = ""

    @property
    def standard_error(self) -> float:
        """A quarter of the interval's length, about."""
        low, high = self.interval_95
        return (high - low) / (2 * _Z95)

    def describe(self) -> str:
        """Return value, error and check in lines."""
        low, high = self.interval_95
        by = "densities" if self.method != "draws of the flow" else "draws"
        text = f"{self.region}\nprobability {self.value:.6g} ({low:.6g} to {high:.6g}) by {self.method}"
        text += f", {self.evaluations:,} {by}"
        if self.method != "draws of the flow":
            least, most = self.share.interval_95
            text += f"\n{self.share.inside:,} of {self.share.draws:,} draws lie in it: {self.share.mean:.4g} "
            text += f"(95 % interval {least:.4g} to {most:.4g})"
        elif self.share.inside == 0:
            text += f"\nno draw lies in it: the probability is hardly above {high:.2g}; more draws tell more"
        return f"{text}\n{self.note}" if self.note else text

    def record(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return {
            "region": self.region,
            "probability": self.value,
            "interval_95": list(self.interval_95),
            "method": self.method,
            "evaluations": self.evaluations,
            "draws": self.share.draws,
            "draws_inside": self.share.inside,
            **({"note": self.note} if self.note else {}),
        }


def probability(
    flow: Flow,
    region: Region,
    *,
    condition: Tensor | Mapping[str, Any] | None = None,
    tolerance: float = _TOLERANCE,
    evaluations: int = _MOST,
    draws: int | None = None,
    generator: torch.Generator | None = None,
    solver: Method | None = None,
    batch_size: int = _BATCH,
    progress: bool | Callable[[int], Any] = False,
) -> Probability:
    """Return the probability of a region with its error.

    Boxes, balls and polygons of at most three dimensions by adaptive cubature; polygons of very many corners by draws
    in the region, all else by draws of the flow. Cubature is checked by draws of the flow, which replace it where the
    two disagree: a peak that is narrower than its first boxes may be passed over.

    Args:
        flow: a flow with a density, or without one: draws need none.
        region: on the flow's manifold; of a bounded set, also on what it is a part of.
        condition: one condition, as `rfm.Flow.log_prob` takes it.
        tolerance: relative error at which cubature stops.
        evaluations: of the density at most, about.
        draws: of the flow; 2000 as a check, 20,000 where nothing else is known.
        generator: source of randomness; seed 0 by default.
        solver: how to integrate; adaptive to 1e-4 by default.
        batch_size: points computed together, which bounds memory.
        progress: show on stderr how many densities and draws are done, of those at most; or a function that is called
            with their number each time.

    Raises:
        ValueError: the region lies on another manifold, or an argument is not as said.
    """
    check_instance("probability", "flow", flow, Flow, "rfm.fit(points, manifold)")
    check_instance("probability", "region", region, Region, "Ball(manifold, centre, radius)")
    if not (region.manifold.same_as(flow.manifold) or region.manifold.same_as(flow.manifold.unbounded)):
        raise ValueError(
            f"probability: the region lies on {region.manifold}, the flow on {flow.manifold}; make one for the "
            "flow's manifold"
        )
    tolerance = positive("probability", "tolerance", tolerance)
    most = integer("probability", "evaluations", evaluations)
    if generator is None:
        generator = torch.Generator(flow._dtype_and_device()[1]).manual_seed(0)
    charts = region.charts if flow.source.has_density else None
    usual = _CHECKING_DRAWS if charts is not None else _DRAWS
    count = integer("probability", "draws", usual if draws is None else draws)
    with counting_bar(progress, "probability", count + (0 if charts is None else most)) as advance:
        options: dict[str, Any] = {
            "condition": condition,
            "solver": SOLVER if solver is None else solver,
            "batch_size": batch_size,
            "progress": advance,
        }
        share = Share(int(region.contains(flow.sample(count, generator=generator, **options)).sum()), count)
        by_share = Probability(share.mean, share.interval_95, "draws of the flow", count, share, region.describe())
        if charts is None:
            return by_share
        value, error, used, method = _integrated(charts, _density_in(flow, charts, options), tolerance, most)
    if not share.agrees_with(value, error):
        note = (
            f"{method} found {value:.4g} with an error of {error:.1g}, which {share.inside:,} of {count:,} draws "
            "contradict: the density varies within its boxes; more evaluations may do"
        )
        return replace(by_share, note=note)
    interval = (max(value - error, 0.0), min(value + error, 1.0))
    return replace(by_share, value=min(value, 1.0), interval_95=interval, method=method, evaluations=used)


def _density_in(flow: Flow, charts: Charts, options: Mapping[str, Any]) -> Integrand:
    """Return the function that is integrated over the unit cubes of a region."""

    def density(piece: NDArray[np.int64], u: Array) -> Array:
        x, element = charts.place(piece, u)
        scores = flow.log_prob(x, **options).detach().cpu().double().numpy()
        return charts.multiplicity * np.exp(scores) * element

    return density


def _integrated(charts: Charts, density: Integrand, tolerance: float, most: int) -> tuple[float, float, int, str]:
    """Return the integral over a region, its error, the evaluations that it took, and by which method."""
    if _NODES * charts.pieces > most:
        return _by_draws(charts, density, tolerance, most)
    found = cubature(density, charts.pieces, charts.dim, relative=tolerance, absolute=_ABSOLUTE, most=most)
    own = found.value, found.error, found.evaluations, "cubature"
    if found.converged or found.error <= _ROUGH * abs(found.value):
        return own
    # The budget was spent on a first look at many pieces, or along an edge of the density.
    value, error, used, method = _by_draws(charts, density, tolerance, most, found.error)
    return (value, error, used + found.evaluations, method) if error < found.error else own


def _by_draws(
    charts: Charts,
    density: Integrand,
    tolerance: float,
    most: int,
    useful: float = math.inf,
) -> tuple[float, float, int, str]:
    """Return the integral over a region by draws in it, half its 95 % interval, how many were drawn, and the method.

    They end where the last of them would leave no error below ``useful``.
    """
    generator = np.random.default_rng(0)
    middle = np.full((charts.pieces, charts.dim), 0.5)
    sizes = charts.place(np.arange(charts.pieces), middle)[1]
    shares = sizes / sizes.sum()
    values = np.empty(0)
    while len(values) < most:
        piece, u = generator.choice(charts.pieces, _BATCH, p=shares), generator.random((_BATCH, charts.dim))
        likelihood = shares[piece]
        if charts.triangles:
            # Evenly over each triangle, so that the density alone makes values differ.
            u[:, 0] = np.sqrt(u[:, 0])
            likelihood = likelihood * 2 * u[:, 0]
        values = np.append(values, density(piece, u) / likelihood)
        error = float(values.std(ddof=1)) / math.sqrt(len(values))
        if error <= tolerance * values.mean() or _Z95 * error * math.sqrt(len(values) / most) >= useful:
            break
    return float(values.mean()), _Z95 * error, len(values), "draws in the region"
