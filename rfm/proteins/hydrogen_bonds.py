"""Hydrogen bonds of a backbone, and the helices and strands that they make, by the rules of DSSP.

Kabsch and Sander, Dictionary of protein secondary structure: pattern recognition of hydrogen-bonded and geometrical
features, 1983, doi:10.1002/bip.360221211: the energy (their equation 1), turns, bridges and minimal helices. Of the
program's later refinements (bulges, bends, polyproline helices) none is here, and a backbone has no sequence: every
residue but the first gives a hydrogen, prolines too, unless they are named.
"""

import torch
from torch import Tensor

from manifolds.numerics.precision import in_full_precision
from rfm.proteins.backbones import COIL, HELIX, STRAND, oxygens

BOUND = -0.5
"""kcal/mol: a hydrogen bond has less energy than this."""
_ELECTROSTATIC = 332.0 * 0.42 * 0.20
"""kcal Angstrom / mol: the unit charges' energy times both partial charges."""
_N_H = 1.01
"""Angstrom."""
_CLOSEST = 0.5
"""Angstrom: atoms nearer than this are bound as well as can be, by DSSP's rule."""
_LEAST = -9.9
"""kcal/mol: what they have then."""
_TURNS = (4, 3, 5)


@in_full_precision
def hydrogen_bond_energies(atoms: Tensor) -> Tensor:
    """Return the energy of the bond from each CO to each NH, ``(residues, residues)``, kcal/mol.

    Entry (i, j) is of the oxygen of residue i and the hydrogen of residue j, which lies 1.01 Angstrom from N, against
    the direction of the carbonyl before it. It is 0 where there can be none: j is i, the residue after i, or the first.

    Args:
        atoms: N, CA, C and perhaps O of one chain, ``(residues, 3 or more, 3)``, Angstrom; O is placed where it is
            missing, as in `rfm.proteins.atoms_from_frames`.
    """
    n, c = atoms[:, 0], atoms[:, 2]
    o = atoms[:, 3] if atoms.shape[1] > 3 else oxygens(atoms[:, :3])
    h = n.clone()
    h[1:] += _N_H * torch.nn.functional.normalize(c[:-1] - o[:-1], dim=-1)
    o_n, c_h, o_h, c_n = (torch.cdist(a, b) for a, b in ((o, n), (c, h), (o, h), (c, n)))
    energy = _ELECTROSTATIC * (1 / o_n + 1 / c_h - 1 / o_h - 1 / c_n)
    nearest = torch.stack([o_n, c_h, o_h, c_n]).amin(0)
    energy = torch.where(nearest < _CLOSEST, _LEAST, energy.clamp(min=_LEAST))
    place = torch.arange(len(atoms), device=atoms.device)
    apart = place - place[:, None]
    possible = (apart != 0) & (apart != 1) & (place > 0)
    return torch.where(possible, energy, 0.0)


def hydrogen_bonds(atoms: Tensor, prolines: Tensor | None = None) -> Tensor:
    """Return which CO binds which NH, ``(residues, residues)`` bool; arguments as for `hydrogen_bond_energies`.

    Args:
        atoms: of one chain.
        prolines: residues that give no hydrogen, ``(residues,)`` bool; none by default.
    """
    bound = hydrogen_bond_energies(atoms) < BOUND
    return bound if prolines is None else bound & ~prolines


def bonds_per_residue(atoms: Tensor) -> float:
    """Return the number of residues whose NH is bound to a CO, over the number of residues."""
    return float(hydrogen_bonds(atoms).any(0).double().mean())


def dssp(atoms: Tensor) -> Tensor:
    """Return `HELIX`, `STRAND` or `COIL` for each residue of one chain, ``(residues,)``, by its hydrogen bonds.

    Helices of 3, 4 or 5 residues to a turn count alike; residues of bridges that continue, in ladders of two or more,
    are in strands. A residue that could be both is in a helix.
    """
    bound = hydrogen_bonds(atoms)
    count = len(atoms)
    helix = torch.zeros(count, dtype=torch.bool, device=atoms.device)
    for turn in _TURNS:
        begins = torch.zeros_like(helix)
        begins[: max(0, count - turn)] = bound.diagonal(turn)
        # Two turns in a row: the helix begins with the second.
        second = begins[1:] & begins[:-1]
        for offset in range(turn):
            inside = second[: max(0, count - 1 - offset)]
            helix[1 + offset : 1 + offset + len(inside)] |= inside
    strand = _in_ladders(bound)
    return torch.where(helix, HELIX, torch.where(strand, STRAND, COIL))


def _in_ladders(bound: Tensor) -> Tensor:
    """Return which residues are in two or more bridges of one kind in a row."""
    count = len(bound)
    place = torch.arange(count, device=bound.device)
    far = (place[:, None] - place).abs() >= 3
    # b[i, j]: CO of i binds NH of j, with a margin so that neighbours of the ends are there and unbound.
    b = torch.nn.functional.pad(bound, (1, 1, 1, 1))
    i, before, after = slice(1, -1), slice(0, -2), slice(2, None)
    parallel = ((b[before, i] & b[i, after].mT) | (b[before, i].mT & b[i, after])) & far
    antiparallel = ((b[i, i] & b[i, i].mT) | (b[before, after] & b[before, after].mT)) & far
    strand = torch.zeros(count, dtype=torch.bool, device=bound.device)
    for bridge, step in ((parallel, 1), (antiparallel, -1)):
        p = torch.nn.functional.pad(bridge, (1, 1, 1, 1))
        next_one = p[after, after] if step == 1 else p[after, before]
        last_one = p[before, before] if step == 1 else p[before, after]
        strand |= (bridge & (next_one | last_one)).any(1)
    return strand
