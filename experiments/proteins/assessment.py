"""Structure files of one's own, measured as samples are: chain by chain, or as complexes."""

from collections.abc import Iterator
from pathlib import Path

from experiments.proteins import designability, measures
from rfm.proteins import Chains, atoms_from_frames, chain_sets, complexes, frames_from_atoms

_COMPLEX_HEADER = """\
| file | chains | residues | residues at an interface | contacts between chains | CA of different chains within 3 Å |
|---|---:|---:|---:|---:|---:|"""


def assess_chains(folder: Path, data: Chains) -> Iterator[str]:
    """Yield the designability of a folder's chains, beside real ones that were held out.

    Args:
        folder: of structure files; chains of any length without a break count.
        data: the real chains, whose training part gives the fragments.
    """
    own = chain_sets.folder(folder, minimum=4, maximum=10_000)
    split = data.split()
    training, held_out = ([data.chain(i) for i in rows.tolist()] for rows in (split.train, split.test))
    fragments = designability.Fragments.of(training)
    yield from own.notes
    yield designability.HEADER
    sets = {"real, held out": held_out, f"{len(own)} of {folder.name}": [own.chain(i) for i in range(len(own))]}
    for name, chains in sets.items():
        yield designability.row(name, [atoms_from_frames(frames_from_atoms(a)) for a in chains], fragments)
    clear = 100 * measures.share_without_overlap([own.chain(i) for i in range(len(own))])
    yield f"\n{clear:.0f} % of the chains are without overlap"


def assess_complexes(folder: Path) -> Iterator[str]:
    """Yield a line for each file of a folder: its chains as they lie, and where they touch."""
    found, faults = complexes.read_complexes(folder)
    yield from faults
    yield _COMPLEX_HEADER
    for one in found:
        yield (
            f"| {one.name} | {len(one.chains)} | {len(one)} | {len(one.interface)} | {len(one.between_chains())} | "
            f"{one.clashes} |"
        )
