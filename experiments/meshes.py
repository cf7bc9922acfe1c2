"""Densities on surfaces: eigenfunctions of bunny and spot, and mazes from one corner to the other.

Targets as in Chen & Lipman 2023, arXiv:2302.03660, section 5: an eigenfunction of the Laplacian on a subdivided mesh,
cut off below 0. Published code draws faces with its mean there as their probability, whatever their area; both that and
the density proportional to it are here. 100,000 draws, in ten parts: one to test, one to choose by. The entropy of each
target is exact: no test NLL can fall below it but by chance.

    python -m experiments.meshes [--quick] [--out runs/meshes]
"""

import argparse
import json
import os
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
from rfm.metrics import negative_log_likelihood
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


SOLVED = 20
"""Test points whose log-density is solved for too, to see that it is that of the closed form."""


@dataclass(frozen=True)
class Size:
    """How large the study is."""

    draws: int = 100_000
    subdivisions: int = 2
    samples: int = 2000
    targets: tuple[int, ...] = (10, 50, 100)


QUICK = Size(2000, 0, 100, (10,))


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
    seconds, clock = time.process_time() - clock, time.process_time()
    generator = torch.Generator().manual_seed(1)
    samples = flow.sample(size.samples, generator=generator)
    sampling = time.process_time() - clock
    scores = flow.log_prob(test)
    found = negative_log_likelihood(scores)
    above = negative_log_likelihood(scores - log_p[:tenth])
    solver = rfm.integrators.Adaptive(atol=1e-5, rtol=1e-5)
    some = test[:SOLVED]
    solved = (flow.log_prob(some, solver=solver) - flow.log_prob(some)).abs()
    density = flow.field.target  # type: ignore[union-attr]
    drawn = negative_log_likelihood(flow.log_prob(samples).double())
    return {
        "entropy": target.entropy(),
        "nll": found.mean,
        "error": found.standard_error,
        "above": above.mean,
        "above_error": above.standard_error,
        "kernel": float(-kernel.log_prob(test).mean()),
        "integral": density.integral(),
        "solved": float(solved.mean()),
        "drawn": drawn.mean - density.entropy(),
        "drawn_error": drawn.standard_error,
        "seconds": seconds,
        "kernel_seconds": kernel_seconds,
        "sampling_ms": 1000 * sampling / size.samples,
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
        "| target | drawn by | entropy | flow, test NLL | above the entropy | heat kernel | Z - 1 | solved | "
        "samples | fit, s | sample, ms | published |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name in ("bunny", "spot"):
        mesh = read(name)
        fine, functions = eigenfunctions(name, mesh, size, folder)
        for by_area in (True, False):
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
                    f"{r['solved']:.1e}",
                    f"{r['drawn']:+.3f} ± {r['drawn_error']:.3f}",
                    f"{r['seconds']:.1f}",
                    f"{r['sampling_ms']:.1f}",
                ]
                lines.append(f"| {name} {k} | {kind} | {' | '.join(cells)} | {shown} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what has not been, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m experiments.meshes", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small, to see that it runs")
    parser.add_argument("--out", type=Path, default=Path("runs/meshes"), help="folder for results, which are kept")
    options = parser.parse_args(arguments)
    size = QUICK if options.quick else Size()
    options.out.mkdir(parents=True, exist_ok=True)
    print("\n".join(targets(size, options.out)), flush=True)


if __name__ == "__main__":
    main()
