"""Backbone atoms that are too near each other, and the chain near a given one in which few are.

The least distances are the normal limits of Ramachandran, Ramakrishnan and Sasisekharan, Stereochemistry of polypeptide
chain configurations, 1963, doi:10.1016/S0022-2836(63)80023-6, table 2, and 3.8 Angstrom between CA, which side chains
keep apart.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad

from manifolds.numerics.precision import in_full_precision
from rfm.proteins.backbones import atoms_from_frames
from rfm.proteins.peptide_bonds import close_bonds

LIMITS = (
    (2.7, 2.9, 2.9, 2.7),
    (2.9, 3.8, 3.2, 2.8),
    (2.9, 3.2, 3.2, 2.8),
    (2.7, 2.8, 2.8, 2.7),
)
"""Least distances of N, CA, C and O, in this order, of residues three or more apart in the row, Angstrom."""
APART = 3
TOLERANCE = 0.3
"""Angstrom: overlaps of less are no clash. The paper's extreme limits are 0.1 to 0.2 below the normal ones."""
_REACH = 7.6
"""Angstrom: residues whose CA are farther apart cannot overlap: O is 2.4 from CA."""
_SPREAD = 2.0
"""Residues along which a push fades."""
_CLOSED = 2
"""Rounds of closing bonds after each push."""
_TOUCHING = 0.02
"""Angstrom: what is less is left."""


@in_full_precision
def overlaps(frames: Tensor) -> Tensor:
    """Return by how much pairs of residues are too near, ``(*batch, residues, residues)``, Angstrom; 0 where not.

    That is the most by which two of their backbone atoms are nearer than `LIMITS`, and 0 for residues that are less
    than three apart in the row.

    Args:
        frames: of residues, ``(*batch, residues, 4, 4)``, Angstrom.
    """
    return _deepest(frames)[0]


def is_clear(frames: Tensor) -> Tensor:
    """Return whether no two residues three or more apart overlap by 0.3 Angstrom or more, ``(*batch)`` bool.

    Of real chains 19 in 20 are clear.
    """
    return overlaps(frames).amax((-2, -1)) < TOLERANCE


@in_full_precision
def separate(frames: Tensor, held: Tensor | None = None, rounds: int = 20) -> Tensor:
    """Return backbones near the given ones whose atoms overlap less, and whose bonds are closed.

    Each round moves the residues of each overlap apart by half of it, those beside them along the row with them, less
    the farther they are, and closes the bonds again. What remains after the last is measured by `overlaps`: a chain
    that is threaded through itself stays so.

    Args:
        frames: ``(*batch, residues, 4, 4)``, Angstrom.
        held: residues that may not move, ``(*batch, residues)`` bool; none by default.
        rounds: the most that are taken; fewer where nothing overlaps.

    Returns:
        Frames like those given, their mean position too where nothing is held. No derivatives are taken through it.
    """
    x = frames.detach()
    still = torch.zeros(x.shape[:-2], dtype=torch.bool, device=x.device)
    still = still if held is None else held.expand(still.shape)
    for _ in range(rounds):
        depth, direction = _deepest(x)
        if float(depth.amax()) < _TOUCHING:
            break
        push = _pushes(depth, direction, still)
        # As a whole the chain stays where it is, unless some of it is held.
        push = push - push.mean(-2, keepdim=True) * ~still.any(-1)[..., None, None]
        x = x + pad(push[..., None], (3, 0, 0, 1))
        x = close_bonds(x, held, _CLOSED)
    return x


def _deepest(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Return the deepest overlap of each pair of residues, and the direction from the second's atom to the first's."""
    ca = frames[..., :3, 3]
    place = torch.arange(ca.shape[-2], device=ca.device)
    far = (place[:, None] - place).abs() >= APART
    near = torch.nonzero((torch.cdist(ca, ca) < _REACH) & far, as_tuple=True)
    first, second = near[:-1], (*near[:-2], near[-1])
    atoms = atoms_from_frames(frames)
    way = (atoms[first][:, :, None] - atoms[second][:, None]).flatten(1, 2)
    distance = torch.sqrt(way.square().sum(-1) + 1e-12)
    depth, which = (atoms.new_tensor(LIMITS).flatten() - distance).max(-1)
    row = torch.arange(len(which), device=ca.device)
    deepest = ca.new_zeros(*ca.shape[:-1], ca.shape[-2])
    direction = ca.new_zeros(*deepest.shape, 3)
    deepest[near] = depth.clamp(min=0)
    direction[near] = way[row, which] / distance[row, which, None]
    return deepest, direction


def _pushes(depth: Tensor, direction: Tensor, still: Tensor) -> Tensor:
    """Return how each residue is moved: out of its deepest overlap, or with those beside it, ``(*batch, n, 3)``."""
    # What cannot move leaves the whole way to the other.
    share = torch.where(still[..., None, :], 1.0, 0.5) * ~still[..., None]
    size, other = (share * depth).max(-1)
    own = size[..., None] * torch.gather(direction, -2, other[..., None, None].expand(*other.shape, 1, 3))[..., 0, :]
    touched = (size > 0).to(own.dtype)[..., None]
    carried = _smoothed(own) / _smoothed(touched).clamp(min=1.0)
    moved = torch.where(touched > 0, own, carried)
    return torch.where(still[..., None], 0.0, moved)


def _smoothed(values: Tensor) -> Tensor:
    """Return the sum of values along the row ``(*batch, n, k)``, weighted by a Gaussian of their distance."""
    reach = math.ceil(3 * _SPREAD)
    steps = torch.arange(-reach, reach + 1, dtype=values.dtype, device=values.device)
    kernel = torch.exp(-((steps / _SPREAD) ** 2) / 2)
    rows = values.mT.reshape(-1, 1, values.shape[-2])
    summed = conv1d(rows, kernel[None, None], padding=reach)
    return summed.reshape(values.mT.shape).mT
