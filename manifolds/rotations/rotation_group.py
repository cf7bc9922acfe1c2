"""Finite groups of rotations of space, and tensors that tell them apart."""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from manifolds.arguments import integer, shown
from manifolds.numerics.constants import Constants


class RotationGroup(Constants):
    """A finite group of rotations of R^3, with tensors that its elements, and no other rotation, leave alone.

    If T is such a tensor, then the rotated tensor x.T is the same at x and x g for each element g, and different
    otherwise: a smooth injective map of SO(3) modulo the group. The tensors here are real parts of sums of powers
    z (x) ... (x) z of vectors z of R^3 or C^3, less their mean over all rotations.

    Args:
        matrices: the elements ``(order, 3, 3)``, the identity first.
        smallest_angle: the least rotation angle of an element but the identity, in radians.
        tensors: for each tensor the vectors z, as nested sequences of numbers, and the power.

    References:
        Arnold, Jupp and Schaeben, Statistics of ambiguous rotations (2017), arXiv:1701.01579. For a regular n-gon we
        take the real part of (e_1 + i e_2)^n instead of the sum of the n-th powers of its vertices, of which it is the
        part that sees the n-gon: the sum itself becomes ill-conditioned as n grows.
    """

    matrices: Tensor

    def __init__(
        self, matrices: Tensor, smallest_angle: float, tensors: Sequence[tuple[Sequence[Sequence[complex]], int]]
    ) -> None:
        super().__init__()
        self.constant("matrices", matrices)
        self.order = len(matrices)
        self.smallest_angle = smallest_angle
        self.tensors = nn.ModuleList(_RotatedTensor(vectors, power) for vectors, power in tensors)
        self.invariant_dim = sum((power + 1) * (power + 2) // 2 for _, power in tensors)

    def invariants(self, x: Tensor) -> Tensor:
        """Return the coordinates of the rotated tensors for rotation matrices ``x``, ``(*batch, invariant_dim)``.

        They are one unit vector for each tensor, and the mean of each over all rotations is zero.
        Two rotations x and y have the same if and only if y = x g for an element g. Lengths of differences do not
        change if both are rotated from the left.
        """
        return torch.cat([tensor.rotated(x) for tensor in self.tensors], dim=-1)  # type: ignore[operator]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"


class Cyclic(RotationGroup):
    """The n rotations by multiples of 2 pi / n about the third axis: those of a pyramid on a regular n-gon.

    Args:
        n: order, at least 1.
    """

    def __init__(self, n: int) -> None:
        n = integer("Cyclic", "n", n)
        super().__init__(_turns((0, 0, 1), n), _angle(n), [([(0, 0, 1)], 1), ([(1, 1j, 0)], n)])
        self.n = n

    def extra_repr(self) -> str:
        return str(self.n)


class Dihedral(RotationGroup):
    """The 2 n rotations of a regular n-gon in space: `Cyclic` and half turns about n axes, one of them the first axis.

    Args:
        n: number of half turns, at least 2; ``Dihedral(2)`` is that of a brick, ``Dihedral(6)`` of hexagonal crystals.
    """

    def __init__(self, n: int) -> None:
        n = integer("Dihedral", "n", n, 2)
        turns = _turns((0, 0, 1), n)
        flip = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
        super().__init__(torch.cat([turns, turns @ flip]), _angle(n), [([(1, 1j, 0)], n)])
        self.n = n

    def extra_repr(self) -> str:
        return str(self.n)


class Tetrahedral(RotationGroup):
    """The 12 rotations of the tetrahedron with vertices (1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)."""

    def __init__(self) -> None:
        vertices = [(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)]
        super().__init__(_signed_permutations(even=True), 2 * math.pi / 3, [(vertices, 3)])


class Octahedral(RotationGroup):
    """The 24 rotations of the cube whose faces are normal to the coordinate axes: those of cubic crystals."""

    def __init__(self) -> None:
        axes = [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
        super().__init__(_signed_permutations(even=False), math.pi / 2, [(axes, 4)])


class Icosahedral(RotationGroup):
    """The 60 rotations of the icosahedron with vertices (0, 1, +-phi) and their cyclic permutations, phi golden."""

    def __init__(self) -> None:
        phi = (1 + math.sqrt(5)) / 2
        axes = [v for s in (phi, -phi) for v in ((0, 1, s), (1, s, 0), (s, 0, 1))]
        # The tetrahedron's rotations, which permute the coordinates, and their five cosets by turns about one vertex.
        cosets = _turns(axes[0], 5)[:, None] @ _signed_permutations(even=True)
        super().__init__(cosets.flatten(0, 1), 2 * math.pi / 5, [(axes, 6)])


class Turned(RotationGroup):
    """The rotations of another group about other axes: ``r g r'`` for each of its elements g.

    Args:
        group: the group.
        rotation: r, three rows of three numbers.

    Raises:
        ValueError: unless that is a rotation.
    """

    def __init__(self, group: RotationGroup, rotation: Sequence[Sequence[float]]) -> None:
        r = torch.tensor(rotation, dtype=torch.float64)
        if r.shape != (3, 3) or float((r @ r.mT - torch.eye(3)).abs().max()) > 1e-9 or not torch.linalg.det(r) > 0:
            raise ValueError(f"Turned: rotation must be three rows of a rotation of R^3, got {shown(rotation)}")
        tensors = [
            ((torch.complex(part.real, part.imag) @ r.mT.to(torch.complex128)).tolist(), part.power)
            for part in (_checked_tensor(module) for module in group.tensors)
        ]
        super().__init__(r @ group.matrices.double() @ r.mT, group.smallest_angle, tensors)
        self.group, self.rotation = group, tuple(map(tuple, rotation))

    def extra_repr(self) -> str:
        return f"{self.group}, {self.rotation}"


class _RotatedTensor(Constants):
    """The map x -> coordinates of Re sum_z (x z)^power, less its mean over rotations x, in an orthonormal basis.

    It is scaled to length 1, which rotations do not change. At angle w from x it moves by a multiple of w, the same in
    every direction for the tetrahedron, the cube and the icosahedron (Schur's lemma).
    """

    exponents: Tensor
    real: Tensor
    imag: Tensor
    mean: Tensor
    coefficients: Tensor

    def __init__(self, vectors: Sequence[Sequence[complex]], power: int) -> None:
        super().__init__()
        z = torch.tensor(vectors, dtype=torch.complex128)
        z = z / torch.linalg.vector_norm(z, dim=-1, keepdim=True)
        # Monomials v_1^a v_2^b v_3^c, a + b + c = power. With the root of its multiplicity each has norm 1 in the space
        # of symmetric tensors.
        exponents = [(a, b, power - a - b) for a in range(power + 1) for b in range(power + 1 - a)]
        counts = [math.factorial(power) / math.prod(map(math.factorial, e)) for e in exponents]
        square = float((z * z).sum(-1).pow(power / 2).real.sum())
        self.power = power
        self.register_buffer("exponents", torch.tensor(exponents).T, persistent=False)
        self.constant("real", z.real)
        self.constant("imag", z.imag)
        self.constant("mean", torch.tensor([square * _sphere_moment(e) for e in exponents], dtype=torch.float64))
        self.constant("coefficients", torch.tensor(counts, dtype=torch.float64).sqrt())
        length = torch.linalg.vector_norm(self.rotated(torch.eye(3, dtype=torch.float64)))
        self.constant("coefficients", self.coefficients / length)

    def rotated(self, x: Tensor) -> Tensor:
        re, im = x @ self.real.to(x).mT, x @ self.imag.to(x).mT
        res, ims = [torch.ones_like(re)], [torch.zeros_like(im)]
        for _ in range(self.power):
            res, ims = [*res, res[-1] * re - ims[-1] * im], [*ims, res[-1] * im + ims[-1] * re]
        re, im = torch.stack(res, dim=-3), torch.stack(ims, dim=-3)
        a, b, c = self.exponents
        re_ab = re[..., a, 0, :] * re[..., b, 1, :] - im[..., a, 0, :] * im[..., b, 1, :]
        im_ab = re[..., a, 0, :] * im[..., b, 1, :] + im[..., a, 0, :] * re[..., b, 1, :]
        monomials = (re_ab * re[..., c, 2, :] - im_ab * im[..., c, 2, :]).sum(-1)
        return self.coefficients.to(x) * (monomials - self.mean.to(x))


def _checked_tensor(module: nn.Module) -> _RotatedTensor:
    assert isinstance(module, _RotatedTensor)
    return module


def _sphere_moment(exponents: Sequence[int]) -> float:
    """Return the mean of v_1^a v_2^b v_3^c over the unit sphere in R^3."""
    if any(e % 2 for e in exponents):
        return 0.0
    odd = [math.prod(range(1, e, 2)) for e in exponents]
    return math.prod(odd) / math.prod(range(1, sum(exponents) + 2, 2))


def _turns(axis: Sequence[float], n: int) -> Tensor:
    """Return the rotations by 2 pi k / n about ``axis``, k = 0 ... n - 1, by Rodrigues' formula."""
    a = torch.tensor(axis, dtype=torch.float64)
    a = a / torch.linalg.vector_norm(a)
    eye = torch.eye(3, dtype=torch.float64)
    hat = torch.linalg.cross(a.expand(3, 3), eye, dim=-1).mT
    angle = 2 * math.pi / n * torch.arange(n, dtype=torch.float64)[:, None, None]
    return eye + torch.sin(angle) * hat + 2 * torch.sin(angle / 2) ** 2 * (hat @ hat)


def _signed_permutations(even: bool) -> Tensor:
    """Return the 24 permutation matrices with signs and determinant 1, or the 12 whose permutation is even too."""
    elements = []
    for order, signs in itertools.product(itertools.permutations(range(3)), itertools.product((1.0, -1.0), repeat=3)):
        parity = 1 if order in ((0, 1, 2), (1, 2, 0), (2, 0, 1)) else -1
        if math.prod(signs) * parity == 1 and (parity == 1 or not even):
            elements.append([[signs[i] * (j == order[i]) for j in range(3)] for i in range(3)])
    return torch.tensor(elements, dtype=torch.float64)


def _angle(n: int) -> float:
    return math.inf if n == 1 else 2 * math.pi / n
