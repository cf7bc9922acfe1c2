"""``python -m experiments.benchmarks.geometry``: the manifolds' maps at a million points, beside other libraries.

On a GPU (``--device cuda``) it prints what share of the bandwidth of a copy the compiled maps reach instead.
"""

import argparse
import functools
import importlib
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from experiments.benchmarks.harness import write_page
from experiments.benchmarks.peers import PEERS
from experiments.benchmarks.rounding import Map
from manifolds import FlatTorus, Manifold, Sphere
from manifolds.hyperbolic import Hyperboloid, PoincareBall
from manifolds.rotations import matrix_from_rotvec, matrix_from_wxyz, rotvec_from_matrix, wxyz_from_matrix
from manifolds.spd import SPD
from manifolds.special_euclidean import SE3
from manifolds.special_orthogonal import SO3

Function = Callable[..., Tensor]


@dataclass(frozen=True)
class Job:
    """One map: what it is called with, who has it, and whose answers fail the accuracy table."""

    name: str
    arguments: tuple[Tensor, ...]
    ours: Function
    others: dict[str, Function]
    wrong: tuple[str, ...] = ()
    same: Callable[[Tensor, Tensor], Tensor] = torch.sub
    goal: float = 1.0
    """What the compiled map's time should be at most, as a multiple of the fastest peer's."""


# Whose values fail the rule of docs/benchmarks/accuracy.md in float32 (exp, log and dist, not their derivatives); those
# of geomstats, which the table leaves out, were judged in the same way.
_WRONG: dict[str, dict[str, tuple[str, ...]]] = {
    "Sphere(2)": {"log": ("geoopt", "flow_matching"), "dist": ("geoopt", "flow_matching", "geomstats")},
    "Hyperboloid(2)": dict.fromkeys(("exp", "log", "dist"), ("geoopt", "geomstats")),
    "PoincareBall(2)": dict.fromkeys(("exp", "log", "dist"), ("geoopt", "geomstats")),
    "SO3()": {"dist": ("pytorch3d", "roma")},
    "SPD(3)": {"log": ("geoopt", "geomstats")},
}


def _inputs(manifold: Manifold, count: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return random points x and y and the tangent vectors log(x, y), float32."""
    generator = torch.Generator().manual_seed(0)
    dtype = torch.float32

    def normal(*shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=generator)

    def point() -> Tensor:
        match manifold:
            case SE3():
                x = torch.eye(4).repeat(count, 1, 1)
                x[:, :3, :3] = manifold.rotations.random_uniform(count, generator=generator, dtype=dtype)
                x[:, :3, 3] = normal(3)
                return x
            case SPD():
                a = normal(manifold.n, manifold.n)
                return a @ a.mT + torch.eye(manifold.n)
            case Hyperboloid():
                return manifold.projx(normal(manifold.n + 1))
            case PoincareBall():
                v = normal(manifold.n)
                return v / (1 + torch.sqrt(1 + (v * v).sum(-1, keepdim=True)))
            case _:
                return manifold.random_uniform(count, generator=generator, dtype=dtype)

    x, y = point(), point()
    u = manifold.screw_logmap(x, y) if isinstance(manifold, SE3) else manifold.logmap(x, y)
    return x.to(device), y.to(device), u.to(device)


def _jobs(count: int, device: str, only: str) -> Iterator[Job]:
    """Yield the rows whose name contains ``only``; drawing their arguments takes seconds, too."""
    for name, manifold in _MANIFOLDS.items():
        if not any(only in f"{name} {what}" for what in ("exp", "log", "dist")):
            continue
        x, y, u = _inputs(manifold, count, device)
        if isinstance(manifold, SE3):
            ours: dict[str, Map] = {"exp": manifold.screw_expmap, "log": manifold.screw_logmap}
        else:
            ours = {"exp": manifold.expmap, "log": manifold.logmap, "dist": manifold.dist}
        theirs = {peer.name: peer.maps[name]() for peer in PEERS if name in peer.maps and _there(peer.module)}
        theirs |= {"geomstats": _geomstats(name)} if name in _GEOMSTATS and _there("geomstats") else {}
        for what, function in ours.items():
            yield Job(
                f"{name} {what}",
                (x, u if what == "exp" else y),
                function,
                {library: maps[what] for library, maps in theirs.items() if what in maps},
                _WRONG.get(name, {}).get(what, ()),
                (lambda a, b: FlatTorus(2).logmap(a, b)) if isinstance(manifold, FlatTorus) else torch.sub,
                0.5 if isinstance(manifold, SO3) and what != "dist" else 1.0,
            )
    if only in _CONVERSIONS:
        yield from _conversions(count, device)


def _conversions(count: int, device: str) -> Iterator[Job]:
    generator = torch.Generator().manual_seed(0)
    x = SO3().random_uniform(count, generator=generator, dtype=torch.float32).to(device)
    omega, q = rotvec_from_matrix(x), wxyz_from_matrix(x)
    others: dict[str, dict[str, Function]] = {}
    if _there("pytorch3d.transforms"):
        t = importlib.import_module("pytorch3d.transforms")
        others["pytorch3d"] = {
            "exp": t.so3_exp_map,
            "log": t.so3_log_map,
            "to matrix": t.quaternion_to_matrix,
            "from matrix": t.matrix_to_quaternion,
        }
    if _there("roma"):
        import roma

        others["roma"] = {
            "exp": roma.rotvec_to_rotmat,
            "log": roma.rotmat_to_rotvec,
            "to matrix": lambda q: roma.unitquat_to_rotmat(q.roll(-1, -1)),
            "from matrix": lambda x: roma.rotmat_to_unitquat(x).roll(1, -1),
        }
    if _there("pypose"):
        import pypose

        others["pypose"] = {
            "exp": lambda v: pypose.so3(v).Exp().matrix(),
            "log": lambda x: pypose.mat2SO3(x, check=False).Log().tensor(),
            "to matrix": lambda q: pypose.SO3(q.roll(-1, -1)).matrix(),
            "from matrix": lambda x: pypose.mat2SO3(x, check=False).tensor().roll(1, -1),
        }
    for title, name, ours, argument in (
        ("rotation vector to matrix", "exp", matrix_from_rotvec, omega),
        ("matrix to rotation vector", "log", rotvec_from_matrix, x),
        ("quaternion to matrix", "to matrix", matrix_from_wxyz, q),
        ("matrix to quaternion", "from matrix", wxyz_from_matrix, x),
    ):
        functions = {library: maps[name] for library, maps in others.items()}
        same = _up_to_sign if name == "from matrix" else torch.sub
        yield Job(title, (argument,), ours, functions, (), same, 0.5 if name in ("exp", "log") else 1.0)


def _up_to_sign(p: Tensor, q: Tensor) -> Tensor:
    return torch.minimum((p - q).abs().amax(-1), (p + q).abs().amax(-1))


_CONVERSIONS = "rotation vector to matrix to rotation vector quaternion to matrix to quaternion"

_MANIFOLDS: dict[str, Manifold] = {
    "SO3()": SO3(),
    "SE3(), screw motion": SE3(),
    "Sphere(2)": Sphere(2),
    "FlatTorus(2)": FlatTorus(2),
    "Hyperboloid(2)": Hyperboloid(2),
    "PoincareBall(2)": PoincareBall(2),
    "SPD(3)": SPD(3),
}

_GEOMSTATS = {
    "Sphere(2)": lambda g: g.hypersphere.Hypersphere(2),
    "Hyperboloid(2)": lambda g: g.hyperboloid.Hyperboloid(2),
    "PoincareBall(2)": lambda g: g.poincare_ball.PoincareBall(2),
    "SPD(3)": lambda g: g.spd_matrices.SPDMatrices(3),
}


@functools.cache
def _there(module: str) -> bool:
    """Return whether a library can be imported; geomstats with its PyTorch backend."""
    os.environ.setdefault("GEOMSTATS_BACKEND", "pytorch")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(module)
    except ImportError:
        return False
    finally:
        # geomstats makes float64 the default of the whole process.
        torch.set_default_dtype(torch.float32)
    return True


def _geomstats(name: str) -> dict[str, Map]:
    for part in ("hypersphere", "hyperboloid", "poincare_ball", "spd_matrices"):
        _there(f"geomstats.geometry.{part}")
    metric = _GEOMSTATS[name](sys.modules["geomstats.geometry"]).metric
    return {
        "exp": lambda x, u: metric.exp(u, x),
        "log": lambda x, y: metric.log(y, x),
        "dist": lambda x, y: metric.dist(x, y),
    }


# Timing.


@dataclass(frozen=True)
class Column:
    """An implementation of a job: seconds of its eager and its compiled form (None where that fails)."""

    eager: float
    compiled: float | None
    difference: float


def _measure(job: Job, seconds: float) -> dict[str, Column]:
    """Time everybody's forms in turns, after comparing their results with ours."""
    functions = {"ours": job.ours} | job.others
    expected = job.ours(*job.arguments)
    forms: dict[tuple[str, bool], Function] = {}
    differences = {}
    for name, function in functions.items():
        difference = job.same(function(*job.arguments), expected).abs()
        # Rotations by nearly pi have two logarithms: of a few points, the other one is as right.
        differences[name] = float(difference.flatten().kthvalue(int(0.999 * difference.numel())).values)
        forms[name, False] = function
        compiled = _compiled(function, job.arguments)
        if compiled is not None:
            forms[name, True] = compiled
    times = _in_turns(forms, job.arguments, seconds)
    return {n: Column(times[n, False], times.get((n, True)), differences[n]) for n in functions}


def _compiled(function: Function, arguments: tuple[Tensor, ...]) -> Function | None:
    torch.compiler.reset()
    compiled: Function = torch.compile(function, dynamic=False)
    try:
        compiled(*arguments)
    except Exception:  # whatever a peer's code makes the compiler raise: it is timed in its eager form alone
        return None
    return compiled


def _in_turns(
    forms: dict[tuple[str, bool], Function], arguments: tuple[Tensor, ...], seconds: float
) -> dict[tuple[str, bool], float]:
    """Return the median seconds of each, called in turns for so many seconds altogether, three times at least."""
    times: dict[tuple[str, bool], list[float]] = {key: [] for key in forms}
    start = time.perf_counter()
    while len(times["ours", False]) < 3 or time.perf_counter() - start < seconds:
        for key, function in forms.items():
            times[key].append(_seconds(functools.partial(function, *arguments), arguments[0].device))
        if time.perf_counter() - start > 8 * seconds:
            break
    return {key: statistics.median(values) for key, values in times.items()}


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


# The page.

_INTRO = """\
Milliseconds for {points:,} points at once, float32: medians of calls made in turns, in one process, of everybody's
eager and compiled (`torch.compile`) forms. `-`: does not compile. Results are compared with ours first; the difference
that 999 of 1000 numbers keep is shown. In brackets: a library whose values fail [the accuracy table](accuracy.md) in
that map, or differ from ours by more than a hundredth.

The last columns are the ratios to aim at: our eager form's time by that of the fastest eager peer whose values pass (at
most 1.2), and our compiled form's by that of the fastest form of any peer (below 1; for log and exp of rotations, below
0.5). Points are random: uniform on compact manifolds, within radius 4 or so elsewhere."""

_HEADER = """\
## {threads} thread{s}

| map | ours, eager | compiled | peers: eager / compiled, ms (difference) | eager ratio | compiled ratio |
|---|---:|---:|---|---:|---:|"""


def _line(job: Job, columns: dict[str, Column]) -> str:
    ours = columns["ours"]
    assert ours.compiled is not None, f"{job.name} does not compile"
    peers = {name: column for name, column in columns.items() if name != "ours"}
    wrong = {*job.wrong, *(name for name, column in peers.items() if not column.difference < 0.01)}
    cells = []
    for name, column in peers.items():
        compiled = "-" if column.compiled is None else f"{1e3 * column.compiled:.1f}"
        cell = f"{name} {1e3 * column.eager:.1f} / {compiled} ({column.difference:.0e})"
        cells.append(f"[{cell}]" if name in wrong else cell)
    right = [column.eager for name, column in peers.items() if name not in wrong]
    all_forms = [t for c in peers.values() for t in (c.eager, c.compiled) if t is not None]
    eager = _verdict(ours.eager / min(right), 1.2) if right else "no peer is right"
    compiled = _verdict(ours.compiled / min(all_forms), job.goal) if all_forms else "no peer"
    times = f"{1e3 * ours.eager:.1f} | {1e3 * ours.compiled:.1f}"
    return f"| {job.name} | {times} | {'; '.join(cells)} | {eager} | {compiled} |"


def _verdict(ratio: float, goal: float) -> str:
    return f"{ratio:.2f}" if ratio <= goal else f"{ratio:.2f} (goal {goal:g})"


def _table(threads: int, points: int, seconds: float, only: str) -> list[str]:
    torch.set_num_threads(threads)
    lines = [_HEADER.format(threads=threads, s="s" if threads > 1 else "")]
    total = 4 + sum(2 if isinstance(m, SE3) else 3 for m in _MANIFOLDS.values())
    for job in tqdm(_jobs(points, "cpu", only), total=total, desc=f"{threads} thread(s)", file=sys.stderr):
        if only in job.name:
            lines.append(_line(job, _measure(job, seconds)))
            print(lines[-1], flush=True)
    return lines


def _bandwidths(points: int, device: str, only: str) -> None:
    """Print what share of the bandwidth of a copy our compiled maps reach."""
    for job in _jobs(points, device, only):
        if only not in job.name or "SPD" in job.name:
            continue
        compiled = torch.compile(job.ours, dynamic=False)
        result = compiled(*job.arguments)
        moved = sum(a.numel() * a.element_size() for a in (*job.arguments, result))
        source = torch.empty(moved // 8, dtype=torch.float32, device=device)
        target = torch.empty_like(source)
        calls = {"map": functools.partial(compiled, *job.arguments), "copy": functools.partial(target.copy_, source)}
        times = {
            key: statistics.median(_seconds(call, source.device) for _ in range(50)) for key, call in calls.items()
        }
        share = times["copy"] / times["map"]
        print(f"{job.name}: {moved / times['map'] / 1e9:.0f} GB/s, {share:.0%} of a copy of as many bytes", flush=True)


def main() -> None:
    """Measure, print the tables, and write the page if asked."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks.geometry", description=__doc__)
    parser.add_argument("--points", type=int, default=1_000_000, help="points to a call (default: a million)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="threads of PyTorch (default: 1 2)")
    parser.add_argument("--seconds", type=float, default=2.0, help="time to spend on a row's turns (default: 2)")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda: the share of a copy's bandwidth instead")
    parser.add_argument("--only", default="", help="only rows whose name contains this")
    parser.add_argument("--out", type=Path, help="markdown file to write")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    # One compiled program for every number of threads; recompiling them all would take most of the time.
    torch._inductor.config.cpp.dynamic_threads = True
    with torch.no_grad():
        if arguments.device != "cpu":
            _bandwidths(arguments.points, arguments.device, arguments.only)
            return
        tables = [
            line
            for threads in arguments.threads
            for line in (*_table(threads, arguments.points, arguments.seconds, arguments.only), "")
        ]
    if arguments.out:
        threads = " ".join(map(str, arguments.threads))
        command = (
            f"python -m experiments.benchmarks.geometry --points {arguments.points} --threads {threads} "
            f"--out {arguments.out}"
        )
        command += f" --only '{arguments.only}'" if arguments.only else ""
        intro = _INTRO.format(points=arguments.points)
        packages = (*(p.distribution for p in PEERS), "geomstats")
        write_page(arguments.out, "Speed of the maps", intro, command, "\n".join(tables).rstrip(), packages)


if __name__ == "__main__":
    main()
