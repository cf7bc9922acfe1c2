"""What the densities are fitted to: planes of known entropy, tables of scikit-learn, torsion angles, digits."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.ancestors.planes import PLANES
from experiments.density_study import labels_of
from experiments.torsions import backbone_angles, by_chain
from manifolds import Euclidean, FlatTorus, Manifold

TABLES = ("iris", "wine", "diabetes", "breast cancer")
TORSIONS = "torsions, glycine"
DIGITS = "digits"
PROBLEMS = (*PLANES, *TABLES, TORSIONS, DIGITS)


@dataclass(frozen=True)
class Points:
    """One split of a data set.

    Args:
        manifold: what the points lie on.
        train: ``(n, dim)``, float32.
        validation: likewise.
        test: likewise.
        exact: log-densities of the test points, ``(n,)``, where the density is known.
    """

    manifold: Manifold
    train: Tensor
    validation: Tensor
    test: Tensor
    exact: Tensor | None = None


def points_of(problem: str, seed: int, count: int) -> Points:
    """Return a split: of a plane new draws, of other sets other parts.

    Args:
        problem: one of `PROBLEMS`.
        seed: of the draws or of the split.
        count: training points of a plane, and at most of the torsion angles; a quarter as many validate, half as many
            test.
    """
    generator = torch.Generator().manual_seed(seed)
    if problem in PLANES:
        density = PLANES[problem]
        x = density.sample(count + count // 4 + count // 2, generator)
        train, validation, test = x.float().split([count, count // 4, count // 2])
        return Points(Euclidean(2), train, validation, test, density.log_prob(x[-len(test) :]))
    if problem == TORSIONS:
        angles, chains = backbone_angles("glycine")
        parts = by_chain(labels_of(chains), seed)
        return Points(FlatTorus(2), *(angles[part][:count].float() for part in parts))
    x = _table(problem, generator)
    order = torch.randperm(len(x), generator=generator)
    tenth = len(x) // 10
    validation, test, train = x[order].split([tenth, 2 * tenth, len(x) - 3 * tenth])
    # In units of the training points' spread, for everyone alike.
    mean, spread = train.mean(0), train.std(0)
    if problem == DIGITS:
        spread = torch.ones_like(spread) * train.std()
    return Points(Euclidean(x.shape[1]), *(((part - mean) / spread).float() for part in (train, validation, test)))


def _table(name: str, generator: torch.Generator) -> Tensor:
    """Return the numbers of a table; what is rounded coarsely is spread over its cell, or its density has no limit."""
    from sklearn import datasets

    loaders: dict[str, Callable[[], tuple[object, float | None]]] = {
        "iris": lambda: (datasets.load_iris().data, 0.1),
        "wine": lambda: (datasets.load_wine().data, None),
        # Without the sex, which takes two values.
        "diabetes": lambda: (datasets.load_diabetes(scaled=False).data[:, [0, *range(2, 10)]], None),
        "breast cancer": lambda: (datasets.load_breast_cancer().data, None),
        DIGITS: lambda: (datasets.load_digits().data, 1.0),
    }
    table, cell = loaders[name]()
    x = torch.as_tensor(table, dtype=torch.float64)
    if name == "diabetes":
        cells = [1.0, 0.1, 1.0, 1.0, 0.2, 1.0, 0.01, 0.0001, 1.0]
        return x + torch.tensor(cells, dtype=x.dtype) * torch.rand(x.shape, generator=generator, dtype=x.dtype)
    return x if cell is None else x + cell * torch.rand(x.shape, generator=generator, dtype=x.dtype)
