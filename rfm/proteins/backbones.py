"""Protein backbones: from atoms to frames and back, torsion angles, helices and strands.

A residue is a rigid body. Its frame is that of AlphaFold 2 (Jumper et al., Highly accurate protein structure prediction
with AlphaFold, 2021, doi:10.1038/s41586-021-03819-2, supplementary algorithm 21): the origin is CA, the first axis
points to C, the second is the part of N - CA orthogonal to it, the third is their cross product. As a point of `SE3` it
takes coordinates in the residue to coordinates in space.

Lengths are in Angstrom, angles in radians. Atoms come in the order N, CA, C and, where there is a fourth, O.
"""

import math

import torch
from torch import Tensor

from manifolds.numerics.precision import in_full_precision

N_CA, CA_C, C_O = 1.459, 1.525, 1.231
"""Bond lengths, Angstrom."""
N_CA_C, CA_C_O = math.radians(111.0), math.radians(120.1)
"""Bond angles. Source: Engh and Huber, Structure quality and target parameters, International Tables for
Crystallography F, 2001, table 18.3.2.3, all residues but proline and glycine."""
LAST_PSI = math.radians(140.0)
"""The torsion N-CA-C-N taken where there is no next residue, which decides where the last O goes: an extended chain."""

COIL, HELIX, STRAND = 0, 1, 2


@in_full_precision
def frames_from_atoms(atoms: Tensor) -> Tensor:
    """Return the frames of residues, algorithm 21.

    Args:
        atoms: N, CA, C and perhaps more, ``(*batch, 3 or more, 3)``, Angstrom.

    Returns:
        Points of ``SE3``, ``(*batch, 4, 4)``.
    """
    n, ca, c = atoms[..., 0, :], atoms[..., 1, :], atoms[..., 2, :]
    first = torch.nn.functional.normalize(c - ca, dim=-1)
    to_n = n - ca
    second = torch.nn.functional.normalize(to_n - (first * to_n).sum(-1, keepdim=True) * first, dim=-1)
    third = torch.linalg.cross(first, second)
    top = torch.stack([first, second, third, ca], dim=-1)
    bottom = torch.zeros_like(top[..., :1, :])
    bottom[..., 3] = 1
    return torch.cat([top, bottom], dim=-2)


@in_full_precision
def atoms_from_frames(frames: Tensor) -> Tensor:
    """Return ideal N, CA, C and O of a chain: exact within residues, and between them as the frames have it.

    O lies in the plane of CA, C and the next N. The last one, which no frame determines, goes where psi would be
    140 degrees.

    Args:
        frames: ``(*batch, residues, 4, 4)``.

    Returns:
        ``(*batch, residues, 4, 3)``, Angstrom.
    """
    rotation, ca = frames[..., :3, :3], frames[..., :3, 3]
    body = ca.new_tensor([[N_CA * math.cos(N_CA_C), N_CA * math.sin(N_CA_C), 0.0], [0.0] * 3, [CA_C, 0.0, 0.0]])
    atoms = body @ rotation.mT + ca[..., None, :]
    return torch.cat([atoms, oxygens(atoms)[..., None, :]], dim=-2)


def oxygens(atoms: Tensor) -> Tensor:
    """Return the carbonyl O of residues with N, CA, C, ``(*batch, residues, 3)``: at 120.1 degrees from CA.

    It lies away from the next N; the last O goes where psi would be 140 degrees.

    Args:
        atoms: N, CA, C of a chain, ``(*batch, residues, 3, 3)``, Angstrom.
    """
    n, ca, c = atoms.unbind(-2)
    # N, CA, C, N turned by psi: a point in the half plane that the next N would lie in.
    back = torch.nn.functional.normalize(ca - c, dim=-1)
    across = torch.nn.functional.normalize(n - ca - ((n - ca) * back).sum(-1, keepdim=True) * back, dim=-1)
    aside = torch.linalg.cross(across, back)
    last = c + math.cos(LAST_PSI) * across + math.sin(LAST_PSI) * aside
    toward = torch.cat([n[..., 1:, :], last[..., -1:, :]], dim=-2) - c
    side = torch.nn.functional.normalize(toward - (toward * back).sum(-1, keepdim=True) * back, dim=-1)
    return c + C_O * (math.cos(CA_C_O) * back - math.sin(CA_C_O) * side)


@in_full_precision
def dihedral(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Return the torsion angle a-b-c-d in (-pi, pi], 0 where it is cis, by the IUPAC's sign, ``(*batch)``."""
    first, axis, last = b - a, c - b, d - c
    left, right = torch.linalg.cross(first, axis), torch.linalg.cross(axis, last)
    sine = (first * right).sum(-1) * torch.linalg.vector_norm(axis, dim=-1)
    return torch.atan2(sine, (left * right).sum(-1))


@in_full_precision
def torsions(atoms: Tensor) -> Tensor:
    """Return phi, psi and omega, ``(*batch, residues, 3)``; NaN for the first phi and the last psi and omega.

    Omega is that of the bond to the next residue.

    Args:
        atoms: N, CA, C and perhaps more, ``(*batch, residues, 3 or more, 3)``.
    """
    n, ca, c = atoms[..., 0, :], atoms[..., 1, :], atoms[..., 2, :]
    unknown = torch.full_like(n[..., :1, 0], math.nan)
    phi = dihedral(c[..., :-1, :], n[..., 1:, :], ca[..., 1:, :], c[..., 1:, :])
    psi = dihedral(n[..., :-1, :], ca[..., :-1, :], c[..., :-1, :], n[..., 1:, :])
    omega = dihedral(ca[..., :-1, :], c[..., :-1, :], n[..., 1:, :], ca[..., 1:, :])
    ends = (torch.cat([unknown, phi], -1), torch.cat([psi, unknown], -1), torch.cat([omega, unknown], -1))
    return torch.stack(ends, dim=-1)


@in_full_precision
def secondary_structure(ca: Tensor) -> Tensor:
    """Return `HELIX`, `STRAND` or `COIL` for each residue of one chain, by distances between CA atoms alone.

    Five consecutive CA look like a helix if the distances from the first to the third, fourth and fifth are 5.5 ± 0.5,
    5.3 ± 0.5 and 6.4 ± 0.6 Angstrom: the inner three are then in one. Four look like a strand if the distances from the
    first to the third and fourth are 6.7 ± 0.6 and 9.9 ± 0.9 Angstrom: the inner two are then in one, if they are in no
    helix and have a partner within 5.5 Angstrom that also looks like a strand and is at least four residues away.

    The windows are those of P-SEA, which is otherwise more elaborate: Labesse et al., P-SEA: a new efficient assignment
    of secondary structure from C-alpha trace of proteins, 1997, doi:10.1093/bioinformatics/13.3.291. It is not DSSP,
    which reads hydrogen bonds.

    Args:
        ca: positions of CA ``(residues, 3)``, Angstrom.

    Returns:
        Integers ``(residues,)``.
    """
    apart = torch.cdist(ca, ca)
    helix = _inside(apart, {2: (5.5, 0.5), 3: (5.3, 0.5), 4: (6.4, 0.6)})
    strand = _inside(apart, {2: (6.7, 0.6), 3: (9.9, 0.9)}) & ~helix
    index = torch.arange(len(ca), device=ca.device)
    far = (index[:, None] - index).abs() >= 4
    paired = ((apart < 5.5) & far & strand).any(1) & strand
    return torch.where(helix, HELIX, torch.where(paired, STRAND, COIL))


def _inside(apart: Tensor, windows: dict[int, tuple[float, float]]) -> Tensor:
    """Return which residues are inside a stretch whose distances from its first residue are within the windows."""
    count, longest = len(apart), max(windows)
    inside = torch.zeros(count, dtype=torch.bool, device=apart.device)
    if count <= longest:
        return inside
    begins = torch.ones(count - longest, dtype=torch.bool, device=apart.device)
    for offset, (middle, width) in windows.items():
        begins &= (apart.diagonal(offset)[: count - longest] - middle).abs() <= width
    for offset in range(1, longest):
        inside[offset : offset + count - longest] |= begins
    return inside
