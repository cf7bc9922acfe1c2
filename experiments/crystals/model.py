"""Crystals as labels with points, and the joint flow of both."""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from experiments.crystals.data import Crystal
from experiments.crystals.network import CrystalNetwork
from manifolds import SPD, FractionalCoordinates, Product
from rfm.couplings import Pairs
from rfm.discrete import JointFlow, Labelled, MaskedLabels, MixturePath
from rfm.sources import ProductSource, Uniform, default_source

_PLACES_WEIGHT = 10.0
"""Of squared fractions against squared logarithms of the cell: an atom's way counts as much as the cell's."""


class Elements:
    """The labels of atomic numbers.

    Args:
        crystals: whose elements there are.
    """

    def __init__(self, crystals: Sequence[Crystal]) -> None:
        self.numbers = np.unique(np.concatenate([crystal.numbers for crystal in crystals]))

    def labels(self, numbers: np.ndarray) -> Tensor:
        """Return labels of atomic numbers."""
        return torch.from_numpy(np.searchsorted(self.numbers, numbers))

    def __len__(self) -> int:
        return len(self.numbers)


def space(k: int) -> Product:
    """Return where ``k`` atoms' places and their cell live: the cell's metric tensor, for one atom's share of it."""
    return Product(FractionalCoordinates(k), SPD(3), weights=(_PLACES_WEIGHT, 1.0))


def encoded(crystals: Sequence[Crystal], elements: Elements) -> list[Labelled]:
    """Return crystals as batches by their number of atoms."""
    batches = []
    for k in sorted({len(crystal.numbers) for crystal in crystals}):
        same = [crystal for crystal in crystals if len(crystal.numbers) == k]
        places = torch.tensor(np.stack([c.fractions - 0.5 for c in same]), dtype=torch.float64)
        cells = torch.tensor(np.stack([c.metric / k ** (2 / 3) for c in same]), dtype=torch.float64)
        m = space(k)
        x = m.projx(m.join(places, cells))
        batches.append(Labelled(torch.stack([elements.labels(c.numbers) for c in same]), x))
    return batches


def turned(batches: Sequence[Labelled]) -> list[Labelled]:
    """Return crystals in every order and direction of their edges, 48 times as many: each describes the same one.

    Of these isometries of the space a network would else learn the one that Niggli's rules pick.
    """
    axes = torch.eye(3, dtype=torch.float64)
    turns = [
        axes[list(order)] * torch.tensor(signs, dtype=torch.float64)
        for order in itertools.permutations(range(3))
        for signs in itertools.product((1, -1), repeat=3)
    ]
    made = []
    for labels, x in batches:
        m = space(labels.shape[1])
        places, cells = m.split(x)
        many = [m.join(places @ turn.mT, turn @ cells @ turn.mT) for turn in turns]
        made.append(Labelled(labels.repeat(len(turns), 1), m.projx(torch.cat(many))))
    return made


def decoded(batches: Sequence[Labelled], elements: Elements) -> list[Crystal]:
    """Return batches of labels and points as crystals; a cell's first edge goes along the first axis."""
    crystals = []
    for labels, x in batches:
        k = labels.shape[1]
        places, cells = space(k).split(x.double())
        edges = torch.linalg.cholesky(cells * k ** (2 / 3))
        for row, place, lattice in zip(labels, places, edges, strict=True):
            numbers = elements.numbers[row.numpy()]
            crystals.append(Crystal(numbers, np.mod(place.numpy(), 1.0), lattice.numpy()))
    return crystals


class NearestOrder:
    """A coupling that lays source crystals to data: their atoms in the order in which they have the least to go.

    The source knows no order of atoms, so that it stays what it is; without types on the way yet, atoms are alike.
    Squared ways round the cell are added up, in fractions, and the common shift comes after.
    """

    def __call__(
        self,
        x_0: Tensor,
        x_1: Tensor,
        *,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Pairs:
        """Return the source points with their atoms in another order."""
        m = space((x_0.shape[-1] - 9) // 3)
        (start, cell), (end, _) = m.split(x_0), m.split(x_1)
        step = end[:, :, None] - start[:, None]
        cost = (step - step.round()).square().sum(-1).cpu().numpy()
        order = np.stack([linear_sum_assignment(rows)[1] for rows in cost])
        index = torch.from_numpy(order).to(start.device)[..., None].expand_as(start)
        return Pairs(m.join(start.gather(1, index), cell), x_1, condition)


def joint_flow(crystals: Sequence[Crystal], elements: Elements, seed: int, width: int, layers: int) -> JointFlow:
    """Return an untrained flow, with sizes as frequent as in the crystals.

    Places start uniformly, cells from a wrapped normal about the crystals' mean, types from a mask.
    """
    path = MixturePath(MaskedLabels(len(elements)))
    lengths, counts = np.unique([len(crystal.numbers) for crystal in crystals], return_counts=True)
    cells = torch.tensor(np.stack([c.metric / len(c.numbers) ** (2 / 3) for c in crystals]))
    cell_source = default_source(SPD(3), cells)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = CrystalNetwork(path.source.states, len(elements), width, layers)
    sources = [ProductSource(space(k), [Uniform(FractionalCoordinates(k)), cell_source]) for k in lengths.tolist()]
    return JointFlow(network, path, sources, lengths.tolist(), (counts / counts.sum()).tolist())
