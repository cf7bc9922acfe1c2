"""Finite groups of isometries, to divide a manifold by."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from manifolds.arguments import integer
from manifolds.numerics.constants import Constants
from manifolds.numerics.precision import FullPrecision
from manifolds.rotations.rotation_group import RotationGroup


class FiniteGroup(FullPrecision, Constants):
    """A finite group that acts on the points of a manifold by isometries.

    **Required.** A subclass calls ``super().__init__(order, event_shape)`` and writes `orbit`, the identity's image
    first and exact. **Free.** `push`, the action on tangent vectors, by differentiating the orbit. **Optional.**
    `invariants` in closed form, with ``invariant_dim``; and ``displacement``. Not checked: that the images are those of
    a group of isometries. The distance of a `Quotient` is symmetric only if they are, which the checker tests.

    Args:
        order: number of elements.
        event_shape: shape of the points that it acts on.
    """

    displacement: float | None = None
    """The least distance by which an element other than the identity moves a point; None where it is not known."""

    invariant_dim: int | None = None
    """Length of the vectors that `invariants` returns; None, the default, where it is not written."""

    def __init__(self, order: int, event_shape: Sequence[int]) -> None:
        super().__init__()
        self.order = order
        self.event_shape = torch.Size(event_shape)

    def orbit(self, x: Tensor) -> Tensor:
        """Return the images of ``x`` under every element, ``(*batch, order, *event_shape)``."""
        raise TypeError(f"{type(self).__name__} does not define orbit(x)")

    def push(self, x: Tensor, u: Tensor) -> Tensor:
        """Return the images of the tangent vector ``u`` at ``x``, each at its image of ``x``, shaped as the orbit."""
        # Forward mode refuses tensors that overlap themselves, as expanded ones do.
        x, u = (a.contiguous() for a in torch.broadcast_tensors(x, u))
        return torch.func.jvp(self.orbit, (x,), (u,))[1]

    def invariants(self, x: Tensor) -> Tensor:
        """Return a smooth function of ``x`` that is equal at two points if and only if they share an orbit."""
        raise TypeError(f"{type(self).__name__} does not define invariants(x)")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"


class Antipodal(FiniteGroup):
    """The two elements x -> x and x -> -x on the sphere S^n: its quotient is the space of lines, or axes.

    `invariants` are the entries of the traceless symmetric matrix x x' - I/(n + 1), which gives x up to sign, scaled to
    a unit vector. At a small angle w it moves by w sqrt(2 + 2/n).

    Args:
        n: intrinsic dimension of the sphere.
    """

    displacement = math.pi

    def __init__(self, n: int) -> None:
        n = integer("Antipodal", "n", n)
        super().__init__(2, (n + 1,))
        self.n = n
        self.invariant_dim = (n + 1) * (n + 2) // 2

    def orbit(self, x: Tensor) -> Tensor:
        return torch.stack([x, -x], dim=-2)

    def push(self, x: Tensor, u: Tensor) -> Tensor:
        return self.orbit(u.expand(torch.broadcast_shapes(x.shape, u.shape)))

    def invariants(self, x: Tensor) -> Tensor:
        i, j = torch.triu_indices(self.n + 1, self.n + 1, 1, device=x.device)
        traceless = torch.cat([x * x - 1 / (self.n + 1), math.sqrt(2) * x[..., i] * x[..., j]], dim=-1)
        return traceless * math.sqrt((self.n + 1) / self.n)

    def extra_repr(self) -> str:
        return str(self.n)


class RightMultiplication(FiniteGroup):
    """A rotation group acting on orientations by x -> x g: the symmetry of the body that is oriented (a crystal).

    Args:
        rotations: the group.
        size: 3 for ``SO3``; 4 for ``SE3``, where g turns the body about its own origin: (R, t) -> (R g, t).
    """

    def __init__(self, rotations: RotationGroup, size: int = 3) -> None:
        size = _checked_size(type(self).__name__, size)
        super().__init__(rotations.order, (size, size))
        self.rotations = rotations
        self.size = size
        self.displacement = rotations.smallest_angle
        self.invariant_dim = rotations.invariant_dim + (3 if size == 4 else 0)

    def orbit(self, x: Tensor) -> Tensor:
        return x[..., None, :, :] @ _matrices(self.rotations, x, self.size)

    def push(self, x: Tensor, u: Tensor) -> Tensor:
        return self.orbit(u.expand(torch.broadcast_shapes(x.shape, u.shape)))

    def invariants(self, x: Tensor) -> Tensor:
        """Return the rotated tensors, and the translation where there is one."""
        rotated = self.rotations.invariants(x[..., :3, :3])
        return rotated if self.size == 3 else torch.cat([rotated, x[..., :3, 3]], dim=-1)

    def extra_repr(self) -> str:
        return _describe(self.rotations, self.size)


class LeftMultiplication(FiniteGroup):
    """A rotation group acting on orientations by x -> g x: the symmetry of the surroundings (a sample, a lattice).

    Args:
        rotations: the group.
        size: 3 for ``SO3``; 4 for ``SE3``, where g turns the whole scene: (R, t) -> (g R, g t).
    """

    def __init__(self, rotations: RotationGroup, size: int = 3) -> None:
        size = _checked_size(type(self).__name__, size)
        super().__init__(rotations.order, (size, size))
        self.rotations = rotations
        self.size = size
        self.displacement = rotations.smallest_angle
        self.invariant_dim = rotations.invariant_dim + (3 if size == 4 else 0)

    def orbit(self, x: Tensor) -> Tensor:
        return _matrices(self.rotations, x, self.size) @ x[..., None, :, :]

    def push(self, x: Tensor, u: Tensor) -> Tensor:
        return self.orbit(u.expand(torch.broadcast_shapes(x.shape, u.shape)))

    def invariants(self, x: Tensor) -> Tensor:
        """Return the tensors rotated by R', and R' t where there is a translation: R and these give t."""
        inverse = x[..., :3, :3].mT
        rotated = self.rotations.invariants(inverse)
        return rotated if self.size == 3 else torch.cat([rotated, (inverse @ x[..., :3, 3:])[..., 0]], dim=-1)

    def extra_repr(self) -> str:
        return _describe(self.rotations, self.size)


def _matrices(rotations: RotationGroup, x: Tensor, size: int) -> Tensor:
    """Return the elements in the dtype and on the device of ``x``, as 4 x 4 matrices of poses if ``size`` is 4."""
    matrices = rotations.matrices.to(x)
    if size == 3:
        return matrices
    corner = torch.eye(4, dtype=x.dtype, device=x.device)[3] * torch.ones_like(matrices[:, :1, :1])
    return torch.cat([nn.functional.pad(matrices, (0, 1)), corner], dim=-2)


def _describe(rotations: RotationGroup, size: int) -> str:
    return repr(rotations) if size == 3 else f"{rotations!r}, {size}"


def _checked_size(name: str, size: int) -> int:
    if integer(name, "size", size) not in (3, 4):
        raise ValueError(f"{name}: size is 3 (rotation matrices) or 4 (poses), got {size}")
    return integer(name, "size", size)
