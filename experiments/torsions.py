"""Densities of torsion angles: proteins' backbones and side chains and RNA, on tori of two to seven dimensions.

Test negative log-likelihood in nats with respect to the angles' measure, (2 pi)^n in all; smaller is better. Chains are
held out complete: residues of one chain are not independent, and intervals are clustered by chain. One ribosomal RNA
that holds more than half of the rows stays in training. The published RNA set is split by row, as its protocol says,
although rows of one entry are then in training and test alike.

    python -m experiments.torsions [--sets general glycine t5 rna] [--seeds 5] [--out runs/torsions]
"""

import argparse
import csv
import functools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from experiments.density_study import Problem, add_arguments, labels_of, measure, place_labels, spline_flow, tables
from manifolds import FlatTorus
from rfm.datasets import Split, group_split, raw_split

BACKBONES = {"general": "General", "glycine": "Glycine", "proline": "Proline", "pre-pro": "Pre-Pro"}
SIDE_CHAINS = {"t5": ("GLN", "MET"), "t6": ("ARG", "LYS")}
"""By the number of angles: phi, psi and the side chain's."""

SETS = (*BACKBONES, *SIDE_CHAINS, "rna", "rna, published")
RIBOSOME = "3jbv"
LARGEST = 100_000
"""Rows of a set that are used, as complete chains: more would take hours and move a mean by less than its error."""


def data_folder() -> Path:
    """Return the folder of the data, `RFM_DATA`."""
    return Path(os.environ.get("RFM_DATA", "data"))


def backbone_angles(kind: str) -> tuple[Tensor, list[str]]:
    """Return phi and psi in radians, ``(n, 2)``, of one class of residues, and the chain of each."""
    with (data_folder() / "protein" / "torsions.tsv").open(encoding="utf-8") as file:
        rows = [row for row in csv.reader(file, delimiter="\t") if row[3] == BACKBONES[kind]]
    angles = torch.tensor([[float(row[1]), float(row[2])] for row in rows], dtype=torch.float64)
    return angles.deg2rad(), [row[0].rsplit("|", 1)[0] for row in rows]


def side_chain_angles(kind: str) -> tuple[Tensor, list[str]]:
    """Return phi, psi and side-chain angles in radians, ``(n, 5)`` or ``(n, 6)``, and the chain of each residue."""
    with np.load(data_folder() / "protein" / "top8000" / "top8000_phi_psi_chi.npz") as file:
        angles = torch.from_numpy(file["angles_deg"]).double()[:, : 5 if kind == "t5" else 6]
        kept = np.isin(file["restype"], SIDE_CHAINS[kind]) & angles.isfinite().all(-1).numpy()
        chains = [name.rsplit(" ", 1)[0] for name in file["source"][kept]]
    return angles[torch.from_numpy(kept)].deg2rad(), chains


def rna_angles(published: bool) -> tuple[Tensor, list[str]]:
    """Return seven angles in radians, ``(n, 7)``, and the chain (in the published set the entry) of each residue."""
    name = "rna_benchmark_aggregated_angles.tsv" if published else "torsions.tsv"
    with (data_folder() / "rna" / name).open(encoding="utf-8") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    angles = torch.tensor([[float(cell) for cell in row[2:9]] for row in rows], dtype=torch.float64)
    return angles.deg2rad(), [row[0].rsplit(":", 1)[0] for row in rows]


def by_chain(chains: Tensor, seed: int, always_train: Tensor | None = None) -> Split:
    """Hold out complete chains: a tenth of the rows validates and a tenth tests, as near as chains allow."""
    if always_train is None:
        return group_split(chains[:, None], seed)
    # A fifth each of the other chains, or few residues would be left to test.
    others = (~always_train).nonzero()[:, 0]
    split = group_split(chains[others][:, None], seed, validation=0.2, test=0.2)
    train, validation, test = (others[part] for part in split)
    return Split(torch.cat([always_train.nonzero()[:, 0], train]), validation, test)


def problem(name: str, seeds: int, every: int = 1, peers: bool = False) -> Problem:
    """Return one set of angles with its split."""
    if name in BACKBONES or name in SIDE_CHAINS:
        points, chains = backbone_angles(name) if name in BACKBONES else side_chain_angles(name)
        labels = labels_of(chains)
        # Complete chains, drawn at random.
        order = torch.randperm(int(labels.max()) + 1, generator=torch.Generator().manual_seed(0))
        sizes = labels.bincount()[order]
        kept = torch.isin(labels, order[sizes.cumsum(0) <= max(LARGEST, int(sizes[0]))])
        points, labels = points[kept][::every], labels[kept][::every]
        split = functools.partial(by_chain, labels)
    else:
        points, chains = rna_angles(published=name != "rna")
        points, labels = points[::every], labels_of(chains)[::every]
        ribosome = torch.tensor([RIBOSOME in chain for chain in chains])[::every]
        split = functools.partial(by_chain, labels, always_train=ribosome)
        if name != "rna":
            labels, split = place_labels(points), functools.partial(raw_split, len(points))
    manifold = FlatTorus(points.shape[-1])
    others = spline_flow(manifold) if peers else {}
    return Problem(name, manifold, points, labels, split, range(seeds), others)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit every split that has not been, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m experiments.torsions", description=__doc__.split("\n")[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS, metavar="SET", help=f"of {', '.join(SETS)}")
    parser.add_argument("--peers", action="store_true", help="fit zuko's circular spline flow too (extra: baselines)")
    add_arguments(parser, "runs/torsions")
    options = parser.parse_args(arguments)
    every = 1
    if options.quick:
        options.seeds, options.steps, options.integral_points, every = 1, options.steps or 20, 200, 20
    found = {}
    for name in options.sets:
        one = problem(name, options.seeds, every, options.peers)
        found[one.name] = (one, measure(one, options))
    print(tables(found))


if __name__ == "__main__":
    main()
