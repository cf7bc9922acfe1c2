"""Directions in crystals: the sector of those that symmetry leaves different, and their colours.

A Laue group is a group of rotations and the inversion. Each direction has one equivalent in the group's fundamental
sector, whose colour shows it: red, green and blue at the corners, white in the middle, full colours along the edges.

References:
    Nolze and Hielscher, Orientations - perfectly colored, Journal of Applied Crystallography 49, 2016, section 2.4:
    hue from the azimuth about the barycentre, lightness from the share of the way to the edge.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from manifolds import Cyclic, Dihedral, Octahedral, RotationGroup, Tetrahedral
from manifolds.rotations import matrix_from_rotvec
from rfm.arrays import tensor_of
from rfm.plotting.panels import Array

_CLOSE = 1e-6
_STEPS = 512
"""In which the hue between two corners is integrated."""


@dataclass(frozen=True, eq=False)
class Sector:
    """The fundamental sector of a Laue group, in the standard setting: main axis z, a twofold axis or mirror at x.

    Args:
        laue: name of the group.
        normals: inward normals of its sides, ``(k, 3)``.
        corners: its vertices, ``(m, 3)``, counterclockwise as seen from outside; none for the half sphere.
        labels: of the corners.
        frame: rotation from the standard setting to that of the crystal, ``(3, 3)``.
        rotations: of the group in the crystal's setting, ``(order, 3, 3)``.
    """

    laue: str
    normals: Array
    corners: Array
    labels: tuple[str, ...]
    frame: Array
    rotations: Array

    @property
    def centre(self) -> Array:
        """The barycentre: of the corners, where these are three, else of the area."""
        if len(self.corners) == 3:
            total = self.corners.sum(0)
        elif len(self.corners) < 3:
            # Of a lune, and of the half sphere.
            total = self.normals.sum(0)
        else:
            total = _vector_area(self.corners)
        return total / np.linalg.norm(total)

    def reduced(self, directions: Array) -> Array:
        """Return the equivalents ``(n, 3)`` in the sector of directions ``(n, 3)`` in the crystal's coordinates.

        They are in the coordinates of the standard setting.
        """
        own = np.einsum("gij,nj->ngi", self.rotations, directions) @ self.frame
        candidates = np.concatenate([own, -own], axis=1)
        inside = (candidates @ self.normals.T).min(-1)
        found: Array = np.take_along_axis(candidates, inside.argmax(1)[:, None, None], 1)[:, 0]
        return found

    def colours(self, reduced: Array) -> Array:
        """Return the colours of directions in the sector, ``(n, 3)``, red, green and blue from 0 to 1."""
        centre, (first, second) = self.centre, self._axes()
        x, y = reduced @ first, reduced @ second
        azimuth = np.arctan2(y, x) % (2 * math.pi)
        angle = np.arctan2(np.hypot(x, y), reduced @ centre)
        inner = np.clip(1 - angle / self._edge(azimuth), 0, 1)
        full = _pure(np.interp(azimuth, *self._hues()))
        return full * (1 - inner[:, None]) + inner[:, None]

    def _axes(self) -> tuple[Array, Array]:
        """Return the tangents at the centre from which azimuths are counted: towards z, and to its left."""
        centre = self.centre
        start = np.array([0.0, 0.0, 1.0]) if len(self.corners) else np.array([1.0, 0.0, 0.0])
        first = start - (start @ centre) * centre
        first /= np.linalg.norm(first)
        return first, np.cross(centre, first).astype(np.float64)

    def _edge(self, azimuth: Array) -> Array:
        """Return the angles from the centre to the edge in these directions."""
        first, second = self._axes()
        tangent = np.cos(azimuth)[..., None] * first + np.sin(azimuth)[..., None] * second
        edge: Array = np.arctan2(self.normals @ self.centre, -(tangent @ self.normals.T)).min(-1)
        return edge

    def _hues(self) -> tuple[Array, Array]:
        """Return azimuths, and hues from 0 to 1 there: steady in the area swept, a third between each two corners."""
        if not len(self.corners):
            return np.array([0.0, 2 * math.pi]), np.array([0.0, 1.0])
        first, second = self._axes()
        stops = [0.0]
        if len(self.corners) == 3:
            angles = np.arctan2(self.corners @ second, self.corners @ first) % (2 * math.pi)
            # The corner at z is where azimuths begin.
            stops += sorted(float(a) for a in angles if _CLOSE < a < 2 * math.pi - _CLOSE)
        stops.append(2 * math.pi)
        azimuths, hues = [np.zeros(1)], [np.zeros(1)]
        for i, (low, high) in enumerate(itertools.pairwise(stops)):
            nodes = np.linspace(low, high, _STEPS + 1)
            swept = np.cumsum(self._edge((nodes[1:] + nodes[:-1]) / 2))
            azimuths.append(nodes[1:])
            hues.append((i + swept / swept[-1]) / (len(stops) - 1))
        return np.concatenate(azimuths), np.concatenate(hues)


def ipf_colours(rotations: Tensor, symmetry: RotationGroup, direction: Sequence[float] = (0.0, 0.0, 1.0)) -> Array:
    """Return the colours of orientations by which crystal direction points along a direction of the sample.

    Args:
        rotations: orientations ``(n, 3, 3)``, which take crystal coordinates to those of the sample.
        symmetry: the rotations of one of the eleven Laue groups.
        direction: of the sample; its normal by default.

    Returns:
        Red, green and blue from 0 to 1, ``(n, 3)``.

    Raises:
        ValueError: the symmetry is of no Laue group.
    """
    sector = sector_of(symmetry)
    return sector.colours(sector.reduced(crystal_directions(rotations, direction)))


def crystal_directions(rotations: Tensor, direction: Sequence[float]) -> Array:
    """Return a direction of the sample in crystal coordinates, ``(n, 3)``, for orientations ``(n, 3, 3)``."""
    x = tensor_of("crystal_directions", "rotations", rotations, torch.float64).detach().cpu()
    d = torch.nn.functional.normalize(torch.tensor(list(direction), dtype=torch.float64), dim=0)
    turned: Array = (x.mT @ d).numpy()
    return turned


def sector_of(symmetry: RotationGroup) -> Sector:
    """Return the fundamental sector of a group of rotations and the inversion.

    Raises:
        ValueError: the rotations are those of no Laue group, or in a setting that is not known.
    """
    own = symmetry.matrices.detach().cpu().double()
    for laue in _SECTORS:
        standard = _rotations(laue)
        if len(standard) != len(own):
            continue
        for frame in _frames():
            if float(torch.cdist((frame @ standard @ frame.mT).flatten(1), own.flatten(1)).amin(1).max()) < _CLOSE:
                normals, corners, labels = _shape(laue)
                return Sector(laue, normals, corners, labels, frame.numpy(), own.numpy())
    raise ValueError(
        f"sector_of: {symmetry} is none of the eleven Laue groups ({', '.join(_SECTORS)}) in a usual setting; "
        "use pole figures, which need none"
    )


# The groups: their rotations and, but for cubic ones, the azimuths between which their sector lies, in degrees.
_SECTORS: dict[str, tuple[Callable[[], RotationGroup], float, float]] = {
    "m-3m": (Octahedral, 0, 0),
    "m-3": (Tetrahedral, 0, 0),
    "6/mmm": (lambda: Dihedral(6), 0, 30),
    "6/m": (lambda: Cyclic(6), 0, 60),
    "4/mmm": (lambda: Dihedral(4), 0, 45),
    "4/m": (lambda: Cyclic(4), 0, 90),
    "-3m": (lambda: Dihedral(3), -30, 30),
    "-3": (lambda: Cyclic(3), 0, 120),
    "mmm": (lambda: Dihedral(2), 0, 90),
    "2/m": (lambda: Cyclic(2), 0, 180),
    "-1": (lambda: Cyclic(1), 0, 360),
}
_CUBIC: dict[str, tuple[Sequence[Sequence[float]], Sequence[Sequence[float]], tuple[str, ...]]] = {
    "m-3m": ([(0, 1, 0), (1, -1, 0), (-1, 0, 1)], [(0, 0, 1), (1, 0, 1), (1, 1, 1)], ("[001]", "[101]", "[111]")),
    "m-3": (
        [(0, 1, 0), (1, 0, 0), (-1, 0, 1), (0, -1, 1)],
        [(0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)],
        ("[001]", "[101]", "[111]", "[011]"),
    ),
}


@cache
def _rotations(laue: str) -> Tensor:
    return _SECTORS[laue][0]().matrices.double()


@cache
def _frames() -> tuple[Tensor, ...]:
    """Return settings: main axis along z, x or y (monoclinic b), and turned by 30 degrees (trigonal -31m)."""
    eye = torch.eye(3, dtype=torch.float64)
    turn = matrix_from_rotvec(torch.tensor([0.0, 0.0, math.pi / 6], dtype=torch.float64))
    return eye, eye.roll(1, 0), eye.roll(2, 0), turn


def _shape(laue: str) -> tuple[Array, Array, tuple[str, ...]]:
    """Return the normals, the corners and their labels."""
    if laue in _CUBIC:
        normals, corners, labels = _CUBIC[laue]
        return _unit(normals), _unit(corners), labels
    _, low, high = _SECTORS[laue]
    up = [(0.0, 0.0, 1.0)]
    if high - low == 360:
        return _unit(up), np.zeros((0, 3)), ()
    ends = [(math.cos(a), math.sin(a), 0.0) for a in np.radians([low, high])]
    (c, s, _), (d, e, _) = ends
    if high - low == 180:
        return _unit([*up, (-s, c, 0)]), _unit(ends), ("x", "\N{MINUS SIGN}x")
    labels = ("z", *(_azimuth_label(a) for a in (low, high)))
    return _unit([*up, (-s, c, 0), (e, -d, 0)]), _unit([*up, *ends]), labels


def _azimuth_label(degrees: float) -> str:
    axes = {0: "x", 90: "y"}
    return axes.get(int(degrees)) or f"x{'+' if degrees > 0 else chr(0x2212)}{abs(degrees):g}°"


def _unit(vectors: Sequence[Sequence[float]]) -> Array:
    array = np.asarray(vectors, float)
    return array / np.linalg.norm(array, axis=-1, keepdims=True)


def _vector_area(corners: Array) -> Array:
    """Return the integral of the unit vectors over a spherical polygon: half of the sum of its edges' angle vectors."""
    total = np.zeros(3)
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        normal = np.cross(a, b)
        length = float(np.linalg.norm(normal))
        total += normal / length * math.atan2(length, float(a @ b)) / 2
    return total


def _pure(hue: Array) -> Array:
    """Return colours of full saturation and half lightness: red at 0, green at a third, blue at two."""
    thirds = np.stack([hue, hue - 1 / 3, hue - 2 / 3], axis=-1)
    return np.clip(2 - 6 * np.abs((thirds + 0.5) % 1 - 0.5), 0, 1)
