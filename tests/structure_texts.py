"""Small structure files, made by hand: an extended chain in the PDB format, with what is to be tried out."""

from collections.abc import Sequence

AMINO = ("ALA", "GLY", "SER", "VAL", "LEU", "THR")


def atom(
    serial: int,
    name: str,
    residue: str,
    number: int,
    position: Sequence[float],
    *,
    chain: str = "A",
    insertion: str = " ",
    altloc: str = " ",
    occupancy: float = 1.0,
    hetero: bool = False,
) -> str:
    x, y, z = position
    record = "HETATM" if hetero else "ATOM  "
    return (
        f"{record}{serial:5d}  {name:<3s}{altloc}{residue:>3s} {chain}{number:4d}{insertion}   "
        f"{x:8.3f}{y:8.3f}{z:8.3f}{occupancy:6.2f}{0.0:6.2f}          {name[0]:>2s}  \n"
    )


def position(index: int, name: str) -> tuple[float, float, float]:
    """Where an atom of residue ``index``, from 0, of a zigzag is: bonds of 1.46, 1.53 and 1.33 Angstrom."""
    x = 3.8 * index
    return {"N": (x, 0.0, 0.0), "CA": (x + 1.2, 0.83, 0.0), "C": (x + 2.55, 0.1, 0.0), "O": (x + 2.6, -1.13, 0.0)}[name]


def residue(
    index: int, name: str, number: int, *, names: Sequence[str] = ("N", "CA", "C"), shift: float = 0.0, **more: object
) -> str:
    lines = []
    for i, one in enumerate(names):
        x, y, z = position(index, one)
        lines.append(atom(4 * index + i + 1, one, name, number, (x, y, z + shift), **more))  # type: ignore[arg-type]
    return "".join(lines)


def chain(count: int, **more: object) -> str:
    return "".join(residue(i, AMINO[i % len(AMINO)], i + 1, **more) for i in range(count))  # type: ignore[arg-type]
