"""Densities on surfaces: eigenfunctions of bunny and spot, and mazes from one corner to the other.

Targets as in Chen & Lipman 2023, arXiv:2302.03660, section 5: an eigenfunction of the Laplacian on a subdivided mesh,
cut off below 0. Published code draws faces with its mean there as their probability, whatever their area; both that and
the density proportional to it are here. 100,000 draws, in ten parts: one to test, one to choose by. The entropy of each
target is exact: no test NLL can fall below it but by chance.

    python -m experiments.meshes [--quick] [--out runs/meshes] [--figure FILE]
"""

import argparse
import json
import math
import os
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import rfm
from manifolds import Mesh
from rfm import plotting
from rfm.integrators import EULER, RK4, FixedStep, Projected
from rfm.metrics import negative_log_likelihood
from rfm.paths import MoserVelocity, PremetricPath, SpectralDistance
from rfm.sources import MeshDensity

PUBLISHED = {
    ("bunny", 10): (1.16, 1.06),
    ("bunny", 50): (1.48, 1.55),
    ("bunny", 100): (1.53, 1.49),
    ("spot", 10): (0.87, 1.02),
    ("spot", 50): (0.95, 1.08),
    ("spot", 100): (1.08, 1.29),
}
"""Test NLL of Riemannian flow matching with diffusion and biharmonic distances, on its authors' meshes."""

SCALES = {"bunny": 1 / 250, "spot": 1.0, "maze_3x3": 1 / 3, "maze_4x4": 1 / 4}


MOVED = 100
"""Points that are followed through a maze."""


@dataclass(frozen=True)
class Size:
    """How large the study is."""

    draws: int = 100_000
    subdivisions: int = 2
    targets: tuple[int, ...] = (10, 50, 100)


QUICK = Size(2000, 0, (10,))


def read(name: str) -> Mesh:
    """Return a mesh of the benchmark, at its scale."""
    path = Path(os.environ.get("RFM_DATA", "data")) / "mesh" / f"{name}.obj"
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line[:2] in ("v ", "f ")]
    vertices = torch.tensor([[float(a) for a in row[1:4]] for row in rows if row[0] == "v"], dtype=torch.float64)
    faces = torch.tensor([[int(a.split("/")[0]) - 1 for a in row[1:4]] for row in rows if row[0] == "f"])
    return Mesh(vertices * SCALES[name], faces)


@dataclass(frozen=True)
class Target:
    """A density that is constant in each face of a fine mesh."""

    fine: Mesh
    probability: Tensor
    """Of the faces ``(F)``."""

    @classmethod
    def of(cls, fine: Mesh, function: Tensor, by_area: bool) -> "Target":
        """Return the density of a function given at the vertices ``(V)``, cut off below 0."""
        mean = function[fine.faces].mean(-1).clamp(min=0)
        share = mean * fine.face_areas() if by_area else mean
        return cls(fine, share / share.sum())

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return points ``(n, 3)`` and their log-densities ``(n)``."""
        face = torch.multinomial(self.probability, count, replacement=True, generator=generator)
        exponential = -torch.rand(count, 3, generator=generator, dtype=torch.float64).log()
        x = self.fine.position(face, exponential / exponential.sum(-1, keepdim=True))
        return x, self.log_density()[face]

    def log_density(self) -> Tensor:
        """Return the log-density in each face ``(F)``, in nats."""
        return self.probability.log() - self.fine.face_areas().log()

    def entropy(self) -> float:
        """Return the entropy in nats, exactly."""
        return -float((self.probability * self.log_density()).nansum())


def measure_target(mesh: Mesh, target: Target, size: Size) -> dict[str, Any]:
    """Fit one target, and return what the tables show."""
    x, log_p = target.draw(size.draws, torch.Generator().manual_seed(0))
    tenth = size.draws // 10
    test, held, train = x[:tenth], x[tenth : 2 * tenth], x[2 * tenth :]
    clock = time.process_time()
    kernel = MeshDensity.fit(mesh, train, held, corrected=False)
    kernel_seconds, clock = time.process_time() - clock, time.process_time()
    points, rows = torch.cat([train, held]), torch.arange(len(train), len(train) + len(held))
    flow = rfm.fit(points, mesh, validation=rows, progress=False)
    seconds = time.process_time() - clock
    scores = flow.log_prob(test)
    found = negative_log_likelihood(scores)
    above = negative_log_likelihood(scores - log_p[:tenth])
    assert isinstance(flow.field, MoserVelocity)
    density = flow.field.target
    return {
        "entropy": target.entropy(),
        "nll": found.mean,
        "error": found.standard_error,
        "above": above.mean,
        "above_error": above.standard_error,
        "kernel": float(-kernel.log_prob(test).mean()),
        "integral": density.integral(),
        "seconds": seconds,
        "kernel_seconds": kernel_seconds,
        "width": (2 * (density.time or 0.0)) ** 0.5,
    }


def kept(folder: Path, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return a result from its file, or make it and write the file."""
    file = folder / f"{name}.json"
    if not file.exists():
        result = make()
        file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return known


def eigenfunctions(name: str, mesh: Mesh, size: Size, folder: Path) -> tuple[Mesh, Tensor]:
    """Return the subdivided mesh and its eigenfunctions without the constant ``(V, k)``, kept in a file."""
    fine = mesh.subdivided(size.subdivisions) if size.subdivisions else mesh
    file = folder / f"{name}-{size.subdivisions}.npy"
    if not file.exists():
        np.save(file, fine.eigenpairs(1 + max(size.targets))[1][:, 1:].numpy())
    return fine, torch.from_numpy(np.load(file))


def targets(size: Size, folder: Path) -> list[str]:
    """Return the lines of the table of eigenfunctions."""
    lines = [
        "| target | drawn by | entropy | flow, test NLL | above the entropy | heat kernel | Z - 1 | fit, s | "
        "kernel width | published |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for by_area in (True, False):
        for name in ("bunny", "spot"):
            mesh = read(name)
            fine, functions = eigenfunctions(name, mesh, size, folder)
            for k in size.targets:
                target = Target.of(fine, functions[:, k - 1], by_area)
                kind = "area" if by_area else "face"

                def make(target: Target = target, mesh: Mesh = mesh) -> dict[str, Any]:
                    return measure_target(mesh, target, size)

                r = kept(folder, f"{name}-{k}-{kind}", make)
                shown = " / ".join(f"{v:.2f}" for v in PUBLISHED[name, k])
                cells = [
                    f"{r['entropy']:.3f}",
                    f"{r['nll']:.3f} ± {r['error']:.3f}",
                    f"{r['above']:.4f} ± {r['above_error']:.4f}",
                    f"{r['kernel']:.3f}",
                    f"{r['integral'] - 1:.0e}",
                    f"{r['seconds']:.1f}",
                    f"{r['width']:.3f}",
                ]
                lines.append(f"| {name} {k} | {kind} | {' | '.join(cells)} | {shown} |")
    return lines


def corner_draws(mesh: Mesh, cell: tuple[float, float], size: float, count: int, seed: int) -> Tensor:
    """Return draws of a normal distribution in a cell of a maze, cut off by the walls, ``(count, 3)``.

    Args:
        mesh: the maze, in the plane z = 0.
        cell: which one, by column and row.
        size: of a cell; the standard deviation is ``size / 9.5``, as in the published data.
        count: how many.
        seed: of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    centre = torch.tensor([*cell, -0.5], dtype=torch.float64) + 0.5
    noise = torch.randn(2 * count, 3, generator=generator, dtype=torch.float64)
    noise[:, 2] = 0
    x = size * (centre + noise / 9.5)
    inside = (mesh.projx(x) - x).norm(dim=-1) < 1e-9
    return x[inside][:count]


def normal_log_prob(x: Tensor, cell: tuple[float, float], size: float) -> Tensor:
    """Return the log-density of `corner_draws` but for the share that the walls cut off, below 1e-3."""
    centre = size * (torch.tensor(cell, dtype=torch.float64) + 0.5)
    z = (x[:, :2] - centre) * 9.5 / size
    return -(z * z).sum(-1) / 2 - math.log(2 * math.pi) - 2 * math.log(size / 9.5)


def measure_maze(name: str, size: Size) -> dict[str, Any]:
    """Fit a flow from one corner of a maze to the opposite one, and return what the table shows."""
    mesh, cells = read(name), int(name[-1])
    first, last = (0.0, 0.0), (cells - 1.0, cells - 1.0)
    count = size.draws // 5
    starts = corner_draws(mesh, first, SCALES[name], count, 0)
    x = corner_draws(mesh, last, SCALES[name], count, 1)
    tenth = count // 10
    test, held, train = x[:tenth], x[tenth : 2 * tenth], x[2 * tenth :]
    clock = time.process_time()
    source = MeshDensity.fit(mesh, starts)
    points, rows = torch.cat([train, held]), torch.arange(len(train), len(train) + len(held))
    flow = rfm.fit(points, mesh, source=source, validation=rows, progress=False)
    seconds, clock = time.process_time() - clock, time.process_time()
    x_0 = source.sample((MOVED,), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    way = flow.trajectory(x_0, torch.linspace(0, 1, 11).tolist())
    sampling = time.process_time() - clock
    assert isinstance(flow.field, MoserVelocity)
    off = (mesh.projx(way) - way).norm(dim=-1).amax(0) / SCALES[name]
    scores = flow.log_prob(test)
    found = negative_log_likelihood(scores)
    above = negative_log_likelihood(scores - normal_log_prob(test, last, SCALES[name]))
    arrived = (way[-1, :, :2] / SCALES[name] - cells + 1 > 0).all(-1)
    return {
        "nll": found.mean,
        "error": found.standard_error,
        "above": above.mean,
        "above_error": above.standard_error,
        "inside": float((off < 1e-9).double().mean()),
        "arrived": float(arrived.double().mean()),
        "integral": flow.field.target.integral(),
        "seconds": seconds,
        "sampling_ms": 1000 * sampling / MOVED,
    }


def mazes(size: Size, folder: Path) -> list[str]:
    """Return the lines of the table of mazes."""
    lines = [
        "| maze | test NLL | above the true density | Z - 1 | inside at all times | arrived in the corner | "
        "fit, s | path, ms |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name in ("maze_3x3", "maze_4x4"):

        def make(name: str = name) -> dict[str, Any]:
            return measure_maze(name, size)

        r = kept(folder, name, make)
        cells = [
            f"{r['nll']:.3f} ± {r['error']:.3f}",
            f"{r['above']:.4f} ± {r['above_error']:.4f}",
            f"{r['integral'] - 1:.0e}",
            f"{r['inside']:.1%}",
            f"{r['arrived']:.1%}",
            f"{r['seconds']:.1f}",
            f"{r['sampling_ms']:.1f}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


PAIRS = 128
"""Pairs solved at a time, the batch of the published runs, which are 100,000 such batches long."""

BATCHES = 10
"""Batches that are timed, one after the other."""

METHODS = {
    "300 steps of Euler": FixedStep(Projected(EULER), steps=300),
    "50 steps of Euler": FixedStep(Projected(EULER), steps=50),
    "10 steps of Runge-Kutta": FixedStep(Projected(RK4), steps=10),
}


def measure_pairs(name: str, k: int) -> dict[str, Any]:
    """Solve batches of pairs by each method, and return the seconds of one, and the errors of the first."""
    mesh = read(name)
    generator = torch.Generator().manual_seed(0)
    count = PAIRS * BATCHES
    starts, ends = (mesh.random_uniform(count, generator=generator, dtype=torch.float64) for _ in range(2))
    times = torch.rand(count, generator=generator, dtype=torch.float64)
    batches = list(zip(starts.split(PAIRS), ends.split(PAIRS), times.split(PAIRS), strict=True))
    x_0, x_1, t = batches[0]
    distance = SpectralDistance(mesh, "biharmonic", k)
    accurate = PremetricPath(mesh, distance, method=FixedStep(Projected(RK4), steps=500)).sample(x_0, x_1, t).x_t
    found = {}
    for method_name, method in METHODS.items():
        path, clock = PremetricPath(mesh, distance, method=method), time.process_time()
        solved = [path.sample(*batch).x_t for batch in batches]
        x, seconds = solved[0], (time.process_time() - clock) / BATCHES
        off = (distance(x, x_1) / distance(x_0, x_1) - (1 - t)).abs()
        error = (x - accurate).norm(dim=-1)
        found[method_name] = {
            "seconds": seconds,
            "median": float(error.median()),
            "most": float(error.quantile(0.9)),
            "right": float((off < 1e-3).double().mean()),
        }
    return found


def pairs(folder: Path) -> list[str]:
    """Return the lines of the table of premetric paths."""
    lines = [
        f"| surface | k | each pair | a batch of {PAIRS}, s | 100,000 batches, hours | error of position: median | "
        "of nine in ten | premetric right to .001 |",
        "|---|---:|---|---:|---:|---:|---:|---:|",
    ]
    for name, k in (("bunny", 200), ("maze_3x3", 200), ("maze_4x4", 30)):

        def make(name: str = name, k: int = k) -> dict[str, Any]:
            return measure_pairs(name, k)

        for method, r in kept(folder, f"pairs-{name}", make).items():
            cells = f"{r['seconds']:.2f} | {r['seconds'] * 1e5 / 3600:.0f} | {r['median']:.4f} | {r['most']:.4f}"
            lines.append(f"| {name} | {k} | {method} | {cells} | {r['right']:.0%} |")
    return lines


def by_face(size: Size, folder: Path) -> list[str]:
    """Return what keeps a fit of eigenfunction 10 of the bunny, drawn by face, from its entropy: faces, or points."""
    mesh = read("bunny")
    fine, functions = eigenfunctions("bunny", mesh, size, folder)
    target = Target.of(fine, functions[:, 9], False)
    x, log_p = target.draw(size.draws // 5, torch.Generator().manual_seed(9))
    lines = []
    for times in (0, 1):
        own = fine.subdivided(times) if times else fine
        share = (target.probability.repeat_interleave(4**times) / 4**times / 3)[:, None].expand(-1, 3)
        masses = torch.zeros(len(own.vertices), dtype=torch.float64).index_add(0, own.faces.flatten(), share.flatten())
        linear = MeshDensity(own, 0.999 * masses / own.vertex_areas() + 0.001 / float(own.face_areas().sum()))
        gap = float((log_p - linear.log_prob(x)).mean())
        lines.append(f"unlimited points, linear in {len(own.faces):,} faces: {gap:.4f} above the entropy")
    held, _ = target.draw(size.draws // 10, torch.Generator().manual_seed(2))
    for factor in (1, 4):
        train, _ = target.draw(factor * size.draws * 4 // 5, torch.Generator().manual_seed(1))
        found = MeshDensity.fit(mesh, train, held, subdivisions=size.subdivisions, times=torch.logspace(-5.3, -3.3, 5))
        gap, width = float((log_p - found.log_prob(x)).mean()), (2 * (found.time or 0.0)) ** 0.5
        lines.append(f"{len(train):,} points: {gap:.4f} above the entropy, kernel width {width:.4f}")
    return lines


def draw_picture(size: Size, folder: Path, figure: Path) -> None:
    """Draw the fitted density of eigenfunction 50 of the bunny, with draws and samples."""
    mesh = read("bunny")
    fine, functions = eigenfunctions("bunny", mesh, size, folder)
    x, _ = Target.of(fine, functions[:, 49], True).draw(20_000, torch.Generator().manual_seed(0))
    flow = rfm.fit(x, mesh, progress=False)
    plotting.save_figure(plotting.plot_flow(flow, x[:1000]), figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what has not been, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m experiments.meshes", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small, to see that it runs")
    parser.add_argument("--out", type=Path, default=Path("runs/meshes"), help="folder for results, which are kept")
    parser.add_argument("--figure", type=Path, help="draw the density on the bunny to this file, and nothing else")
    parser.add_argument("--by-face", action="store_true", help="why targets drawn by face are harder, and nothing else")
    options = parser.parse_args(arguments)
    size = QUICK if options.quick else Size()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.figure is not None:
        draw_picture(size, options.out, options.figure)
        return
    if options.by_face:
        print("\n".join(by_face(size, options.out)))
        return
    print("\n".join(mazes(size, options.out)), flush=True)
    print("", *pairs(options.out), sep="\n", flush=True)
    print("", *targets(size, options.out), sep="\n", flush=True)
    print(f"\nLargest memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
