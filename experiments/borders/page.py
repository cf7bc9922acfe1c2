"""The page of the study of borders."""

import itertools
import platform
from datetime import date
from statistics import fmean, stdev
from typing import Any, NamedTuple

import torch

_EARTH = """\
## On the earth

Points on one side of the coast, which is simplified to {simplified} degrees; one fifth held out, {real} steps,
no refinement. Kernel densities are mixtures of 30 bandwidths, divided by their mass inside. Land has several
components, between which no flow leads: the source has the shares of the data, and there are no triangles of it.

{rows}

Not one draw of a bounded flow falls on the wrong side of a coast of hundreds of edges. Its density is another
matter: catalogues crowd along the coast and at few places, where the damping lets a flow of so short a training
resolve least, and it is the worst of all rows; kernels that are cut at the coast are the best. To describe such a
catalogue, use those, or rejection; use `Bounded` where leaving the set is not an option. The triangles do not follow
every edge of the coast, so that some draws of the closed form come to lie on the other side.

"""
_PAGE = """\
# Sets with a border

Which mechanism keeps a flow inside a set best, on densities that are known and high at the border; then
mazes. [`Bounded`](../choose-a-manifold.md) does what serves every set; where there are triangles, a closed form is
better.

- command: `{command}`
- date: {date}; {machine} CPU, one thread; Python {python}, torch {torch}; seeds from 0
- seconds are those of the processor, for the fit

![Trajectories through mazes, from one corner to the other](../images/borders.png)

## Mechanisms

All train the same network on {points:,} points for {steps} steps but the last, which trains nothing; none is
refined. *Gap* is the mean of `log p - log q` over {tests:,} test points, in nats: how much likelier the truth
makes them. Its standard error is over the seeds, of training points and fits, or over the test points where
there is one. *Near* is its mean over those within 0.05 of the border. *Z* is the integral of the density over
the set by quadrature, the one farthest from 1 of the seeds.

{known}

- **Damped** is `Bounded`: a velocity whose component normal to the border falls to zero in proportion to the
  distance, so that the flow maps the set to itself. Trained along straight ways it has to resolve a layer: between
  two points of a convex set hardly any straight way touches the border, so that on the way the density falls to zero
  there. Where half of the ways are **reflected** at the nearest wall there is no such layer. It is on all sets nearer
  to the truth than conditioning, and there is no set that it does not serve: it is what `rfm.fit` does.
- **Mapped to R^n**: a flow on R^n behind the logistic map of each coordinate, or `y / sqrt(1 - |y|^2)` on a disc,
  from a normal source that is fitted. Densities at the border become tails: those of a logistic map suit ranges, on
  boxes and joint limits it is the best of what is trained, and those of a disc are heavy, there it is behind even
  conditioning. There is none for a polygon.
- **Conditioned**: a flow that knows no border, whose draws outside are rejected; *mass* is the share inside. Its
  density is smooth where the truth jumps, and so it is too low at the border, everywhere. Its *Z* has the error of the
  mass, which is counted in 32,768 draws.
- **Spectral premetric**: the set in triangles, and paths down the biharmonic distance of its eigenfunctions,
  which are free at the border (Neumann's condition), so that no path meets it; each pair takes 10 steps. So few
  steps of training leave it far behind all others, at ten times their price and more.
- **Heat kernel, closed form**: the same triangles, with the density of the heat flow that does not leave over
  the border and the flow towards it that is known (`rfm.paths.MoserVelocity`). Nothing is trained. It needs
  triangles, which a region in two dimensions has, and knows no conditions. It is nearest to the truth on every
  set: where it applies, take it (`rfm.fit` on a `manifolds.Mesh`); `Bounded` is for every other set, dimension
  and condition. Its triangles end in straight edges, so that a few draws can lie outside a border that is curved
  or has corners between them.

{earth}## Mazes

From a normal distribution in one corner to one in the opposite corner, both cut at the walls; {double} steps.
*Inside* counts 500 samples and 41 points along each of their trajectories, *arrived* those within three standard
deviations
of the end.

{mazes}

All ways stay inside, and most arrive. Those that do not, and the NLL far above the entropy, are what so short a
training leaves; [on a mesh](meshes.md) the same mazes are solved in closed form. Ways are straight where they can
be; else they lead through nodes that see each other (`rfm.paths.BoundedPath`).
"""


class Budgets(NamedTuple):
    """How much was spent."""

    steps: int
    """Of training on known densities."""
    points: int
    """Of those, to train on."""
    real_steps: int
    """Of training on the earth; twice as many in mazes."""
    seeds: int
    """Of the known densities."""


def page(
    known: list[dict[str, Any]],
    earth: list[dict[str, Any]],
    mazes: list[dict[str, Any]],
    budget: Budgets,
) -> str:
    """Return the page of the rows."""
    from experiments.borders.earth import SIMPLIFIED

    spent = (
        f"--steps {budget.steps} --points {budget.points} --real-steps {budget.real_steps} --seeds {budget.seeds}"
        f"{' --earth' if earth else ''}"
    )
    files = "--page docs/studies/borders.md --figure docs/images/borders.png"
    return _PAGE.format(
        command=f"python -m experiments.borders {spent} {files}",
        steps=budget.steps,
        double=f"{2 * budget.real_steps:,}",
        points=budget.points,
        tests=budget.points // 2,
        date=date.today().isoformat(),
        machine=platform.machine(),
        python=platform.python_version(),
        torch=torch.__version__,
        known=_known(known),
        earth=_EARTH.format(simplified=SIMPLIFIED, real=budget.real_steps, rows=_earth(earth)) if earth else "",
        mazes=_mazes(mazes),
    )


def _known(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| set | mechanism | seeds | gap | near | inside | mass | Z | seconds |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for (name, mechanism), group in itertools.groupby(rows, key=lambda r: (r["set"], r["mechanism"])):
        own = list(group)

        def mean(key: str, own: list[dict[str, Any]] = own) -> float:
            return fmean(r[key] for r in own)

        # Over the seeds, or the test points of the only one.
        error = stdev(r["gap"] for r in own) / len(own) ** 0.5 if len(own) > 1 else own[0]["error"]
        farthest = max((r["integral"] for r in own), key=lambda z: abs(z - 1))
        lines.append(
            f"| {name} | {mechanism} | {len(own)} | {mean('gap'):.3f} ± {error:.3f} | {mean('gap_near'):+.3f} | "
            f"{100 * mean('inside'):.4g} % | {100 * mean('mass'):.3g} % | {farthest:.4f} | {mean('seconds'):.0f} |"
        )
    return "\n".join(lines)


def _earth(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| catalogue | points | edges | model | test NLL, nats | inside | seconds |",
        "|---|---:|---:|---|---:|---:|---:|",
    ]
    for r in rows:
        lines.append(
            f"| {r['catalogue']} | {r['points']:,} | {r['edges']:,} | {r['model']} | "
            f"{r['nll']:.3f} ± {r['error']:.3f} | {100 * r['inside']:.4g} % | {r['seconds']:.0f} |"
        )
    return "\n".join(lines)


def _mazes(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| maze | walls | samples inside | ways inside | arrived | NLL, nats | entropy | seconds |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for r in rows:
        lines.append(
            f"| {r['name']} | {r['edges']} | {100 * r['inside_samples']:.4g} % | {100 * r['inside_ways']:.4g} % | "
            f"{100 * r['arrived']:.3g} % | {r['nll']:.3f} | {r['entropy']:.3f} | {r['seconds']:.0f} |"
        )
    return "\n".join(lines)
