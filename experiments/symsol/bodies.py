"""The five bodies of SYMSOL I: their surfaces, for the renderer, and the rotations that leave them alone.

Each is scaled so that its farthest point is at distance 1 from the origin. Bodies of revolution have the third axis.

Murphy et al., Implicit-PDF: Non-Parametric Representation of Probability Distributions on the Rotation Manifold, 2021,
arXiv:2106.05965, section 4 (the task and the data set, whose pictures are not used here).
"""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from manifolds import Icosahedral, Octahedral, RotationGroup, Tetrahedral
from manifolds.rotations import matrix_from_axis_angle

GOLDEN = (1 + math.sqrt(5)) / 2


@dataclass(frozen=True, eq=False)
class Body:
    """A convex body about the origin: points y with ``normals y <= offsets`` that also lie inside the ``quadric``.

    Args:
        name: its name.
        normals: outward unit normals of the planes ``(planes, 3)``.
        offsets: their distances from the origin ``(planes)``.
        group: rotations that leave it alone; of a body of revolution the finite part, without the turns about its axis.
        quadric: ``(curvature, slope, apex)`` of the surface ``y_1^2 + y_2^2 = curvature + slope^2 (apex - y_3)^2``
            about the third axis: a cylinder or, with curvature 0, a cone; None for a polyhedron.
    """

    name: str
    normals: Tensor
    offsets: Tensor
    group: RotationGroup | None
    quadric: tuple[float, float, float] | None = None

    def symmetric_poses(self, x: Tensor, turns: int = 360) -> Tensor:
        """Return the poses that look like ``x``, ``(*batch, count, 3, 3)``.

        Args:
            x: poses ``(*batch, 3, 3)``.
            turns: how many angles stand for the circle of a body of revolution.
        """
        images = x.unsqueeze(-3)
        if self.quadric is not None:
            angle = 2 * math.pi / turns * torch.arange(turns, dtype=x.dtype, device=x.device)
            axis = torch.tensor([0.0, 0.0, 1.0], dtype=x.dtype, device=x.device)
            images = images @ matrix_from_axis_angle(axis, angle)
        if self.group is None:
            return images
        return (images.unsqueeze(-3) @ self.group.matrices.to(x)).flatten(-4, -3)


def _polyhedron(name: str, normals: list[tuple[float, ...]], inner_radius: float, group: RotationGroup) -> Body:
    n = torch.nn.functional.normalize(torch.tensor(normals, dtype=torch.float64), dim=-1)
    return Body(name, n, torch.full((len(n),), inner_radius, dtype=torch.float64), group)


def _tetrahedron() -> Body:
    # Faces lie opposite the vertices (1, 1, 1), (1, -1, -1), ... of the group's tetrahedron.
    return _polyhedron("tetrahedron", [(-1, -1, -1), (-1, 1, 1), (1, -1, 1), (1, 1, -1)], 1 / 3, Tetrahedral())


def _cube() -> Body:
    normals = [(*(0.0,) * i, s, *(0.0,) * (2 - i)) for i in range(3) for s in (1.0, -1.0)]
    return _polyhedron("cube", normals, 1 / math.sqrt(3), Octahedral())


def _icosahedron() -> Body:
    # Normals of the faces are the vertices of the dodecahedron dual to the group's icosahedron.
    corners = list(itertools.product((1.0, -1.0), repeat=3))
    pairs = itertools.product((1 / GOLDEN, -1 / GOLDEN), (GOLDEN, -GOLDEN))
    edges = [p for a, b in pairs for p in ((a, 0.0, b), (0.0, b, a), (b, a, 0.0))]
    inner = math.sqrt((5 + 2 * math.sqrt(5)) / 15)
    return _polyhedron("icosahedron", [*corners, *edges], inner, Icosahedral())


def _cone() -> Body:
    # From the apex at height 0.8 to a base of radius 0.6 at height -0.8, whose rim is at distance 1.
    down = torch.tensor([[0.0, 0.0, -1.0]], dtype=torch.float64)
    return Body("cone", down, torch.tensor([0.8], dtype=torch.float64), None, (0.0, 0.6 / 1.6, 0.8))


def _cylinder() -> Body:
    caps = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]], dtype=torch.float64)
    # The half turn about the first axis swaps the caps; that about the third is one of the turns.
    return Body("cylinder", caps, torch.full((2,), 0.8, dtype=torch.float64), _HalfTurn(), (0.36, 0.0, 0.0))


class _HalfTurn(RotationGroup):
    """The identity and the half turn about the first axis."""

    def __init__(self) -> None:
        flip = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
        matrices = torch.stack([torch.eye(3, dtype=torch.float64), flip])
        super().__init__(matrices, math.pi, [([(1, 0, 0)], 1), ([(0, 1, 1j)], 2)])


BODIES = (_tetrahedron(), _cube(), _icosahedron(), _cone(), _cylinder())
NAMES = tuple(body.name for body in BODIES)
