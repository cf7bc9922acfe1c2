"""The symmetry of crystals: what files call it, and whether a manifold has it.

Diffraction sees one of eleven Laue groups, of which the rotations are the symmetry of an orientation. Programs write a
code of their own (43, 62), a point group (432, 6/mmm) or Schoenflies' name for it (Oh).

References:
    Nolze, Euler angles and crystal symmetry, Crystal Research and Technology 50, 2015: Laue groups in EBSD. Hahn (ed.),
    International Tables for Crystallography A, section 3.2.1: the point groups.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from manifolds import SO3, Cyclic, Dihedral, Manifold, Octahedral, Quotient, RotationGroup, Tetrahedral, Turned

_NAMES = {
    "m-3m": "43 432 m-3m m3m -43m oh o td",
    "m-3": "23 m-3 m3 th t",
    "6/mmm": "62 622 6mm -6m2 -62m 6/mmm d6h d6 c6v d3h",
    "6/m": "6 -6 6/m c6h c6 c3h",
    "4/mmm": "42 422 4mm -42m -4m2 4/mmm d4h d4 c4v d2d",
    "4/m": "4 -4 4/m c4h c4 s4",
    "-3m": "32 3m -3m 321 312 3m1 31m -3m1 -31m d3d d3 c3v",
    "-3": "3 -3 c3i c3 s6",
    "mmm": "22 222 mm2 m2m 2mm mmm d2h d2 c2v",
    "2/m": "2 20 21 m 2/m 121 112 211 c2h c2 cs c1h",
    "-1": "1 -1 c1 ci",
}
_LAUE = {name: laue for laue, names in _NAMES.items() for name in names.split()}
_ROTATIONS: dict[str, Callable[[], RotationGroup]] = {
    "m-3m": Octahedral,
    "m-3": Tetrahedral,
    "6/mmm": lambda: Dihedral(6),
    "6/m": lambda: Cyclic(6),
    "4/mmm": lambda: Dihedral(4),
    "4/m": lambda: Cyclic(4),
    "-3m": lambda: Dihedral(3),
    "-3": lambda: Cyclic(3),
    "mmm": lambda: Dihedral(2),
    "2/m": lambda: Cyclic(2),
    "-1": lambda: Cyclic(1),
}
_SEVERAL_SETTINGS = ("-3m", "2/m")
"""Groups whose axes programs lay along different axes of the crystal's frame."""
_CLOSE = 1e-6


LAUE_NAMES = (*_ROTATIONS, "2/m-b", "-31m", "cubic", "hexagonal")
"""Names of `group_named`: the eleven Laue groups, two other settings, and two names in words."""
_SETTINGS: dict[str, Callable[[], RotationGroup]] = {
    "cubic": Octahedral,
    "hexagonal": lambda: Dihedral(6),
    # The second axis is unique, not the third.
    "2/m-b": lambda: Turned(Cyclic(2), ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0))),
    "121": lambda: _SETTINGS["2/m-b"](),
    # Half turns about the second axis, not the first.
    "-31m": lambda: Turned(Dihedral(3), ((0.0, -1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0))),
    "312": lambda: _SETTINGS["-31m"](),
}


def group_named(name: str) -> RotationGroup:
    """Return the rotations of a Laue group, or of a point group that has it: ``m-3m``, ``432``, ``4mmm``, ``6``.

    Axes: the one of most turns is the third; of 2/m too, or the second in ``2/m-b``; half turns of -3m are about the
    first, or the second in ``-31m``.

    Raises:
        ValueError: there is no such group.
    """
    key = name.casefold().replace(" ", "")
    if key in _SETTINGS:
        return _SETTINGS[key]()
    # 4/mmm may be written without the stroke, as 62 and 43 stand for what EDAX means by them.
    slashed = {known.replace("/", ""): known for known in (*_ROTATIONS, "2/m-b")}
    laue = laue_group(key) or slashed.get(key)
    if laue in _SETTINGS:
        return _SETTINGS[laue]()
    if laue is None:
        raise ValueError(
            f"unknown crystal symmetry so3/{name[:40]}; choose a Laue group ({', '.join(LAUE_NAMES)}) or a point "
            "group, such as so3/432"
        )
    return _ROTATIONS[laue]()


def laue_group(name: str) -> str | None:
    """Return the Laue group that a file means, such as m-3m for 43; None for a name that is not known."""
    return _LAUE.get(name.casefold().replace(" ", ""))


def crystal_rotations(manifold: Manifold) -> Tensor | None:
    """Return the rotations g of ``x -> x g`` that a manifold counts as nothing, ``(order, 3, 3)``; None if not known.

    Known are `SO3` and its quotients; what acts from the left is a symmetry of the sample.
    """
    rotations = torch.eye(3, dtype=torch.float64)[None]
    while isinstance(manifold, Quotient):
        factors = _right_factors(manifold)
        if factors is None or (len(factors) > 1 and len(rotations) > 1):
            return None
        rotations = factors if len(factors) > 1 else rotations
        manifold = manifold.m
    return rotations if isinstance(manifold, SO3) else None


def has_symmetry(rotations: Tensor, laue: str) -> bool:
    """Return whether these are the rotations of a Laue group, about the axes where there is one usual setting."""
    own = _ROTATIONS[laue]().matrices.double()
    if len(rotations) != len(own):
        return False
    if laue in _SEVERAL_SETTINGS:
        traces = [x.diagonal(dim1=-2, dim2=-1).sum(-1).sort().values for x in (rotations, own)]
        return bool((traces[0] - traces[1]).abs().max() < _CLOSE)
    apart = torch.cdist(rotations.flatten(1), own.flatten(1))
    return bool(apart.amin(1).max() < _CLOSE) and bool(apart.amin(0).max() < _CLOSE)


def settings_vary(laue: str) -> bool:
    """Return whether the axes of a group are laid along different axes of the crystal's frame by different programs."""
    return laue in _SEVERAL_SETTINGS


def _right_factors(quotient: Quotient) -> Tensor | None:
    """Return g of a group that acts as ``x -> x g``, the identity alone if it acts as ``x -> g x``; None otherwise."""
    if tuple(quotient.event_shape) != (3, 3):
        return None
    eye = torch.eye(3, dtype=torch.float64)
    x = SO3().random_uniform(generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    factors, images = quotient.group.orbit(eye), quotient.group.orbit(x)
    if float((images - x @ factors).abs().max()) < _CLOSE:
        return factors
    return eye[None] if float((images - factors @ x).abs().max()) < _CLOSE else None
