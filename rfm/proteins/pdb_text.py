"""One backbone as the text of a PDB file, by the columns of the Contents Guide 3.30; no other package is needed."""

from collections.abc import Sequence

from torch import Tensor

LARGEST = 9999
"""Residues and Angstrom that the columns have room for."""
_NAMES = {
    "A": "ALA",
    "C": "CYS",
    "D": "ASP",
    "E": "GLU",
    "F": "PHE",
    "G": "GLY",
    "H": "HIS",
    "I": "ILE",
    "K": "LYS",
    "L": "LEU",
    "M": "MET",
    "N": "ASN",
    "O": "PYL",
    "P": "PRO",
    "Q": "GLN",
    "R": "ARG",
    "S": "SER",
    "T": "THR",
    "U": "SEC",
    "V": "VAL",
    "W": "TRP",
    "Y": "TYR",
}
_SEQRES_RESIDUES = 13


def pdb_text(atoms: Tensor, sequence: str, names: Sequence[str]) -> str:
    """Return chain A with its sequence.

    Args:
        atoms: ``(residues, k, 3)``, Angstrom, fewer than 9999 of each.
        sequence: one letter per residue; others than those of amino acids become UNK.
        names: of the atoms of a residue, of which the first k are there; each begins with its element.
    """
    residues = [_NAMES.get(letter, "UNK") for letter in sequence]
    lines = []
    for i in range(0, len(residues), _SEQRES_RESIDUES):
        row = " ".join(residues[i : i + _SEQRES_RESIDUES])
        lines.append(f"SEQRES {i // _SEQRES_RESIDUES + 1:3d} A {len(residues):4d}  {row}")
    serial = 0
    for number, (residue, positions) in enumerate(zip(residues, atoms.tolist(), strict=True), start=1):
        for name, (x, y, z) in zip(names, positions, strict=False):
            serial += 1
            lines.append(
                f"ATOM  {serial % 100_000:5d}  {name:<3s} {residue} A{number:4d}    {x:8.3f}{y:8.3f}{z:8.3f}"
                f"  1.00  0.00          {name[0]:>2s}"
            )
    lines += [f"TER   {(serial + 1) % 100_000:5d}      {residues[-1]} A{len(residues):4d}", "END"]
    return "".join(f"{line:<80s}\n" for line in lines)
