"""Accuracy of every manifold's maps and gradients, beside other libraries, against 50 digits.

Random base points and separations from 0 to the cut locus, and pairs of points from the whole documented domain
(`experiments.benchmarks.pairs`), in float32 and float64; the error measure is stated in
`experiments.benchmarks.rounding`, the exact maps are in `experiments.benchmarks.truth`.

    python -m experiments.benchmarks.accuracy [--out docs/benchmarks/accuracy.md] [--quick]
"""

import argparse
import importlib.metadata
import sys
import warnings
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import torch
from tqdm import tqdm

from experiments.benchmarks.harness import processor
from experiments.benchmarks.peers import PEERS
from experiments.benchmarks.rounding import RULE, Score, exact, score, worst
from experiments.benchmarks.subjects import SUBJECTS, Subject, label

DTYPES = (torch.float32, torch.float64)
QUANTITIES = ("exp", "exp'", "log", "log'", "dist", "dist'", "round trip")
OURS = "ours"

Scores = dict[tuple[str, torch.dtype, str, str, str], Score]
"""By subject, dtype, separation, library and quantity."""


def measure(points: int, seed: int, quick: bool) -> Scores:
    """Score ours and every peer on every subject."""
    scores: Scores = {}
    cells = [(s, d, i, r) for s in SUBJECTS for d in DTYPES for i, r in enumerate(_separations(s, quick))]
    with tqdm(cells, file=sys.stderr, mininterval=1) as progress:
        for subject, dtype, index, separation in progress:
            progress.set_description(f"{subject.name} {_bits(dtype)} {label(separation)}")
            cell = exact(subject, separation, points, dtype, seed * 1000 + index)
            libraries = {OURS: score(cell, subject.maps)}
            for peer in PEERS:
                if subject.name in peer.maps and peer.version != "not installed":
                    libraries[peer.name] = score(cell, peer.maps[subject.name](), peer.gradients)
            for library, results in libraries.items():
                for quantity, result in results.items():
                    scores[subject.name, dtype, label(separation), library, quantity] = result
    return scores


def _separations(subject: Subject, quick: bool) -> tuple[float | str, ...]:
    return subject.places[::3] if quick else subject.places


def _bits(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _over_separations(scores: Scores, subject: str, dtype: torch.dtype, library: str, quantity: str) -> Score | None:
    """Return the worst score over separations, or None where the library does not have the map."""
    matching = [s for (a, b, _, c, d), s in scores.items() if (a, b, c, d) == (subject, dtype, library, quantity)]
    return worst(matching) if matching else None


def _verdict(own: Score, peers: Sequence[Score]) -> str:
    if not own.passes:
        return "FAILS the rule"
    allowed = max(4.0, 2 * min((p.units for p in peers if p.passes), default=RULE))
    return "ok" if own.units <= allowed else f"more than {allowed:.1f}"


def summary(scores: Scores) -> tuple[list[str], list[str]]:
    """Return the lines of the summary table, and those of its failures."""
    names = [p.name for p in PEERS]
    lines = [f"| manifold | map | | ours | {' | '.join(names)} | verdict |", "|---|---|---|---:" + "|---:" * len(names)]
    lines[1] += "|---|"
    failures = []
    for subject in SUBJECTS:
        for quantity in QUANTITIES:
            for dtype in DTYPES:
                own = _over_separations(scores, subject.name, dtype, OURS, quantity)
                if own is None:
                    continue
                others = [_over_separations(scores, subject.name, dtype, name, quantity) for name in names]
                verdict = _verdict(own, [p for p in others if p is not None])
                cells = ["" if p is None else str(p) for p in others]
                row = f"| {subject.name} | {quantity} | {_bits(dtype)} | {own} | {' | '.join(cells)} | {verdict} |"
                lines.append(row)
                if verdict != "ok":
                    best = ", ".join(f"{n} {c}" for n, c in zip(names, cells, strict=True) if c)
                    units = str(own) if own.mark else f"{own} units"
                    text = f"- {subject.name}, {quantity}, {_bits(dtype)}: {units}, {verdict}"
                    failures.append(text + (f" ({best})" if best else ""))
    return lines, failures


def details(scores: Scores) -> list[str]:
    """Return one table for each manifold and dtype: quantities and libraries by separation."""
    lines = []
    for subject in SUBJECTS:
        for dtype in DTYPES:
            keys = [key for key in scores if key[:2] == (subject.name, dtype)]
            separations = list(dict.fromkeys(key[2] for key in keys))
            libraries = list(dict.fromkeys(key[3] for key in keys))
            lines += ["", f"### {subject.name}, {_bits(dtype)}", "", f"| map | library | {' | '.join(separations)} |"]
            lines.append("|---|---" + "|---:" * len(separations) + "|")
            for quantity in QUANTITIES:
                for library in libraries:
                    row = [scores.get((subject.name, dtype, s, library, quantity)) for s in separations]
                    if any(row):
                        cells = " | ".join("" if s is None else str(s) for s in row)
                        lines.append(f"| {quantity} | {library} | {cells} |")
    return lines


PREAMBLE = """# Accuracy of the manifolds

Worst error over random base points, in units of rounding times the condition of the problem; smaller is better. The
rule is at most 16 units, and at most 4 or twice the best peer that keeps the rule.

```
{command}
```

Measured {date} on a CPU ({processor}), {threads} threads, seed {seed}, {points} base points to a cell, {versions}.

## What is measured

A value computed at arguments z_1, z_2 as they are after rounding is compared with the exact f(z), whose arguments are
first projected to the manifold, all with 80 digits, so that 50 are left where 30 cancel. Its error is

    |computed - f(z)| / (u K)    with K = max(|f|, sum_i |D_i f| |z_i|)    and u = eps / 2,

in plain Euclidean norms of flattened points and vectors and spectral norms of derivatives, restricted to the changes of
z_i that projection does not undo. K is found by differences of the exact map. One unit is the error of rounding the
result, or that which rounding the arguments may cause, whichever is larger.

- **exp** takes a tangent vector as long as the separation; **log** and **dist** two points so far apart.
- **exp', log', dist'** are derivatives: all rows of reverse-mode gradients, contracted with a random tangent vector
  e = (e_1, e_2) of both arguments, Riemannian lengths 1; K = max(|J e|, sum |D_i f| |e_i|, sum |D_i (J e)| |z_i|).
  Every entry of the gradients must be finite.
- **round trip** is exp(x, log(x, y)) against y, with the K of exp. It says whether a log that is ill-conditioned (near
  a sphere's antipode, where K grows without bound and forgives all) still leads to y.

Where a second geodesic is as short to 64 units (angle pi, half a turn) its log and derivatives count as right too, for
everyone. At separation `pi` points of the sphere are exact antipodes. `finite`: nothing to compare with (a distance has
no derivative at 0), and the gradient is finite. `NaN`: not finite. `wrong`: off by more than a tenth of the exact value
and more than the rule. `raises`: an exception. Empty: the library does not have the map.

**Columns with numbers.** Base points are uniform on compact manifolds. On hyperbolic space every second one is at
radius 8 (for separation 10 all are at 5, and the geodesic leads back past the origin), among matrices every second one
has eigenvalues whose logarithms spread over 10 (for separation 6: over 2). Tori and products have the separation in
each factor.

**Columns with names** are pairs from the whole [documented domain](../numerics.md), both points at its ends:

- hyperbolic space: both points at radius 10 / sqrt(c) in float32 and 20 / sqrt(c) in float64 (less 0.1%), in
  independent directions (*both far*), opposite ones, directions 0.01 apart, and 1e-4 apart with radii that differ by
  3%; *one ray*: the second at nine tenths of the radius; *near and far*: the first at a millionth of it;
- positive definite matrices: both with eigenvalues whose logarithms spread over 12 in float32, 30 in float64, with
  independent eigenbases (*both spread*) or ones that differ by about 1e-3;
- compact manifolds: independent uniform points (*anywhere*), and **exp** of vectors of length 100 (*many turns*);
- flat space and poses: positions of the size named. Errors of a pose are relative to all of it, the position included.

Not here: `Stiefel`, `Grassmann`, `LevelSet`, `Ellipsoid` and quotients, of which this benchmark has no exact maps;
`check_manifold` holds their maps against each other.

Points of the hyperboloid are held by their spatial part, as its docstring says, and are projected so; a library that
reads the rounded first coordinate pays for it. The screw motion is the group exponential of SE(3).
pytorch3d is its `transforms`, from the package `easypytorch3d`. pypose's gradients refer to its own Lie types and are
not compared. flow_matching's torus has angles in [0, 2 pi): ends are compared modulo a turn.
"""


def page(scores: Scores, command: str, points: int, seed: int) -> str:
    """Return the page in Markdown."""
    versions = [f"torch {torch.__version__}", f"mpmath {importlib.metadata.version('mpmath')}"]
    versions += [f"{peer.name} {peer.version}" for peer in PEERS]
    table, failures = summary(scores)
    body = PREAMBLE.format(
        command=command,
        date=date.today(),
        processor=processor(),
        threads=torch.get_num_threads(),
        seed=seed,
        points=points,
        versions=", ".join(versions),
    ).splitlines()
    body += ["", "## Where ours does not keep it", "", *(failures or ["Nowhere."])]
    body += ["", "## Worst over separations", "", *table, "", "## By separation", *details(scores)]
    return "\n".join(body) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the summary; write the page to ``--out``."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.accuracy", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--out", type=Path, help="the page to write, in Markdown")
    parser.add_argument("--quick", action="store_true", help="every third separation or pair, two base points")
    parser.add_argument("--points", type=int, help="base points to a cell (default 4; quick: 2)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    points = options.points or (2 if options.quick else 4)
    with warnings.catch_warnings():
        # Peers warn of what they will change.
        warnings.simplefilter("ignore")
        scores = measure(points, options.seed, options.quick)
    table, failures = summary(scores)
    print("\n".join(table))
    print("\n".join(["", "Not kept:", *(failures or ["nothing"])]))
    if options.out is not None:
        words = sys.argv[1:] if arguments is None else arguments
        command = " ".join(["python -m experiments.benchmarks.accuracy", *words])
        options.out.write_text(page(scores, command, points, options.seed), encoding="utf-8")


if __name__ == "__main__":
    main()
