"""How tightly a backbone is packed, and how far along the chain its contacts reach, from CA alone."""

import torch
from torch import Tensor

NEAR, CONTACT = 10.0, 8.0
"""Angstrom: CA that count as packed around a residue, and as in contact with it."""
_APART = 3
"""Residues nearer along the chain than this are in contact whatever the fold."""


def coordination(ca: Tensor) -> Tensor:
    """Return how many other CA are within 10 Angstrom of each, ``(residues,)``: the packing density.

    Args:
        ca: positions of CA ``(residues, 3)``, Angstrom.
    """
    return (torch.cdist(ca, ca) < NEAR).sum(-1) - 1


def relative_contact_order(ca: Tensor) -> float:
    """Return the mean distance along the chain of residues in contact, over its length; 0 without a contact.

    In contact are residues three or more apart in the row whose CA are within 8 Angstrom. Plaxco, Simons and Baker,
    Contact order, transition state placement and the refolding rates of single domain proteins, 1998,
    doi:10.1006/jmbi.1998.1645, count all heavy atoms within 6 Angstrom, which a backbone does not have.

    Args:
        ca: positions of CA ``(residues, 3)``, Angstrom.
    """
    first, second = torch.nonzero((torch.cdist(ca, ca) < CONTACT).triu(_APART), as_tuple=True)
    return float((second - first).double().mean() / len(ca)) if len(first) else 0.0


def contacts_per_residue(ca: Tensor, apart: int = 12) -> float:
    """Return the number of contacts between residues at least so far apart in the row, over the number of residues."""
    return float((torch.cdist(ca, ca) < CONTACT).triu(apart).sum()) / len(ca)
