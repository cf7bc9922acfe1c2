"""Bonds between the residues of a backbone: how far they are open, and the nearest chain in which they are closed.

Two neighbours are joined by a flat piece of six atoms, of which CA and C belong to the frame of the first, N and CA to
that of the second. Four numbers measure the distance from it: `bond_gaps`. Turns about N - CA and CA - C, the angles
phi and psi, are free.

Frames that a network predicts hold this to some tenths of an Angstrom. `close_bonds` moves residues as rigid bodies to
the nearest chain that holds it exactly: the constraints of SHAKE (Ryckaert, Ciccotti, Berendsen, Numerical integration
of the Cartesian equations of motion of a system with constraints, 1977, doi:10.1016/0021-9991(77)90098-5), all
multipliers solved for at once.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from manifolds import SO3
from manifolds.numerics.precision import in_full_precision
from manifolds.rotations import hat
from rfm.proteins.backbones import CA_C, N_CA, N_CA_C, dihedral

C_N = 1.336
"""The peptide bond, Angstrom."""
CA_C_N, C_N_CA = math.radians(117.2), math.radians(121.7)
"""Angles at it. Source: as for the bonds in `rfm.proteins.backbones`."""
OPEN = 0.1
"""Angstrom: a bond that is off by more is open."""
_GYRATION = 1.5
"""Angstrom: turning a residue by an angle counts as much as moving it by the angle times this."""
_MOST = 0.5
"""Angstrom: no residue moves farther in a round, for far away the constraints are not linear."""
_DAMPING = 1e-4
_CLOSED = 1e-6
_SPREAD = torch.tensor([_GYRATION**-2] * 3 + [1.0] * 3)


@in_full_precision
def bond_gaps(frames: Tensor) -> Tensor:
    """Return how far the bonds between neighbours are from a flat trans one, ``(*batch, residues - 1, 4)``.

    What C - N, CA - N and C - CA have too much, Angstrom, and omega - 180 degrees, in (-pi, pi].

    Args:
        frames: of residues, ``(*batch, residues, 4, 4)``, Angstrom; see `rfm.proteins.backbones.frames_from_atoms`.
    """
    return _gaps(frames[..., :-1, :3, :], frames[..., 1:, :3, :], frames.new_zeros(2, 6))


@in_full_precision
def open_bonds(frames: Tensor, tolerance: float = OPEN) -> Tensor:
    """Return which bonds between neighbours are open, ``(*batch, residues - 1)`` bool: C - N is off by more than that.

    Args:
        frames: of residues, ``(*batch, residues, 4, 4)``, Angstrom.
        tolerance: Angstrom.
    """
    # What is not finite is no bond.
    return ~(bond_gaps(frames)[..., 0].abs() <= tolerance)


@in_full_precision
def close_bonds(frames: Tensor, held: Tensor | None = None, rounds: int = 50) -> Tensor:
    """Return backbones near the given ones whose bonds are flat, trans and of ideal lengths and angles.

    Each round is a Newton step: the least motion of the residues, as rigid bodies, that closes what is open to first
    order. A few rounds suffice for gaps of some tenths of an Angstrom; of bonds that are Angstroms apart some may stay
    open, as `bond_gaps` measures. The mean position is preserved where nothing is held.

    Args:
        frames: ``(*batch, residues, 4, 4)``, Angstrom.
        held: residues that may not move, ``(*batch, residues)`` bool; none by default.
        rounds: the most that are taken; fewer where all is closed to a millionth.

    Returns:
        Frames like those given. No derivatives are taken through it.
    """
    flat = frames.detach().flatten(0, -4) if frames.dim() > 3 else frames.detach()[None]
    still = torch.zeros(flat.shape[:2], dtype=torch.bool, device=flat.device)
    still = still if held is None else held.expand(frames.shape[:-2]).reshape(still.shape)
    # One over the mass of each of a body's three turns and three moves.
    ease = _SPREAD.to(flat) * ~still[..., None]
    x = flat
    for _ in range(rounds):
        step = _newton_step(x[..., :3, :], ease)
        if float(step.abs().max()) < _CLOSED:
            break
        size = torch.sqrt((step.square() / _SPREAD.to(step)).sum(-1, keepdim=True))
        x = _moved(x, step * (_MOST / size.clamp(min=_MOST)))
    drift = (x - flat)[..., :3, 3].mean(-2, keepdim=True) * ~still.any(-1)[:, None, None]
    x = x - pad(drift[..., None], (3, 0, 0, 1))
    return torch.where(still[..., None, None], flat, x).reshape(frames.shape)


def _newton_step(x: Tensor, ease: Tensor) -> Tensor:
    """Return turns and moves of all bodies, ``(n, residues, 6)``: masses times them in the span of the gradients."""
    first, second = x[:, :-1], x[:, 1:]

    def gaps(twist: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        values = _gaps(first, second, twist)
        return values, values

    each = torch.func.vmap(torch.func.vmap(torch.func.jacrev(gaps, has_aux=True), (None, 0, 0)), (None, 0, 0))
    gradient, gap = each(x.new_zeros(2, 6), first, second)
    left, right = gradient[..., 0, :], gradient[..., 1, :]
    left_eased, right_eased = left * ease[:, :-1, None], right * ease[:, 1:, None]
    own = left_eased @ left.mT + right_eased @ right.mT + _DAMPING * torch.eye(4, dtype=x.dtype, device=x.device)
    next_one = right_eased[:, :-1] @ left[:, 1:].mT
    # Block tridiagonal: a bond shares a body with the bond before and the one after.
    n, bonds = gap.shape[:2]
    matrix = x.new_zeros(n, bonds, 4, bonds, 4)
    i = torch.arange(bonds, device=x.device)
    matrix[:, i, :, i] = own.movedim(1, 0)
    matrix[:, i[:-1], :, i[1:]] = next_one.movedim(1, 0)
    matrix[:, i[1:], :, i[:-1]] = next_one.mT.movedim(1, 0)
    factor = torch.linalg.cholesky(matrix.reshape(n, 4 * bonds, 4 * bonds))
    pull = torch.cholesky_solve(-gap.reshape(n, 4 * bonds, 1), factor).reshape(n, bonds, 4, 1)
    return pad((left_eased * pull).sum(-2), (0, 0, 0, 1)) + pad((right_eased * pull).sum(-2), (0, 0, 1, 0))


def _gaps(first: Tensor, second: Tensor, twist: Tensor) -> Tensor:
    """Return `bond_gaps` of pairs of bodies ``(*batch, 3, 4)``, each moved by a small twist, ``(2, 6)``, in space."""
    ca_1, c_1 = _placed(first, (0.0, 0.0), twist[0]), _placed(first, (CA_C, 0.0), twist[0])
    n_2 = _placed(second, (N_CA * math.cos(N_CA_C), N_CA * math.sin(N_CA_C)), twist[1])
    ca_2 = _placed(second, (0.0, 0.0), twist[1])
    omega = torch.remainder(dihedral(ca_1, c_1, n_2, ca_2), 2 * math.pi) - math.pi
    too_long = [_apart(c_1, n_2) - C_N, _apart(ca_1, n_2) - _CA_N, _apart(c_1, ca_2) - _C_CA]
    return torch.stack([*too_long, omega], dim=-1)


def _placed(body: Tensor, local: tuple[float, float], twist: Tensor) -> Tensor:
    arm = local[0] * body[..., 0] + local[1] * body[..., 1]
    return body[..., 3] + arm + torch.linalg.cross(twist[:3].expand_as(arm), arm) + twist[3:]


def _apart(a: Tensor, b: Tensor) -> Tensor:
    # The root is smooth where both are at one place.
    return torch.sqrt((a - b).square().sum(-1) + 1e-12)


def _moved(x: Tensor, step: Tensor) -> Tensor:
    rotation = SO3().expmap(x[..., :3, :3], hat(step[..., :3]) @ x[..., :3, :3])
    top = torch.cat([rotation, (x[..., :3, 3] + step[..., 3:])[..., None]], dim=-1)
    return torch.cat([top, x[..., 3:, :]], dim=-2)


def _third_side(a: float, b: float, angle: float) -> float:
    return math.sqrt(a * a + b * b - 2 * a * b * math.cos(angle))


_CA_N, _C_CA = _third_side(CA_C, C_N, CA_C_N), _third_side(C_N, N_CA, C_N_CA)
