"""Protein chains as frames: a set of real backbones, an installed package, or a folder of one's own.

Only chains without a break are kept: a residue that is missing would be a bond of the wrong length. Coordinates are in
Angstrom.

References:
    Berman et al., The Protein Data Bank, 2000, doi:10.1093/nar/28.1.235: all coordinates, which are in the public
    domain (CC0). Greener and Jones, Differentiable molecular simulation can learn all the parameters in a
    coarse-grained force field for proteins, 2021, doi:10.1371/journal.pone.0256990: the package ``cgdms``.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rfm.datasets.download import DatasetError, file_sha256, find
from rfm.datasets.splits import Split, group_split
from rfm.proteins.atom_records import StructureError
from rfm.proteins.backbones import frames_from_atoms
from rfm.proteins.chain_records import PEPTIDE_BOND
from rfm.proteins.clusters import read_clusters
from rfm.proteins.structures import Chain, read_backbones, structure_files

MINIMUM, MAXIMUM = 40, 256
"""Lengths of chains in residues, by default."""
_FILE, _SHA256 = "protein/backbones.npz", "1a050ad49298790b2feb7f3ac05610e8c78525cb8f0eaa566dba900dd6bafde9"


@dataclass(frozen=True, eq=False)
class Chains:
    """Backbones of several lengths, one after the other in one tensor.

    Args:
        atoms: N, CA, C of all residues, ``(total, 3, 3)`` float32, Angstrom.
        lengths: residues of each chain ``(chains,)``, in the order of ``atoms``.
        names: of the chains.
        clusters: chains of like sequence have the same number ``(chains,)``, and never cross a split.
        source: where they come from, in words.
        sha256: of what was read; empty for a folder.
        left_out: how many chains were not kept, by the reason, in words; files that could not be read, likewise.
        notes: what else was left out of the files, and which of them could not be read and why, in sentences.
    """

    atoms: Tensor = field(repr=False)
    lengths: Tensor = field(repr=False)
    names: tuple[str, ...] = field(repr=False)
    clusters: Tensor = field(repr=False)
    source: str
    sha256: str = ""
    left_out: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def offsets(self) -> Tensor:
        """Where each chain begins, ``(chains,)``."""
        return torch.cumsum(self.lengths, 0) - self.lengths

    def chain(self, i: int) -> Tensor:
        """Return N, CA, C of one chain, ``(residues, 3, 3)``."""
        start = int(self.offsets[i])
        return self.atoms[start : start + int(self.lengths[i])]

    def frames(self) -> Tensor:
        """Return the residues' frames, each chain's mean CA at the origin, ``(total, 4, 4)``: points of ``SE3``."""
        frames = frames_from_atoms(self.atoms.double())
        chain = torch.repeat_interleave(torch.arange(len(self)), self.lengths)
        total = torch.zeros(len(self), 3, dtype=torch.float64).index_add_(0, chain, frames[:, :3, 3])
        frames[:, :3, 3] -= (total / self.lengths[:, None])[chain]
        return frames.to(torch.float32)

    def take(self, index: Tensor) -> "Chains":
        """Return some of the chains, in the order of ``index``."""
        rows = torch.cat([torch.arange(n) + o for o, n in zip(self.offsets[index], self.lengths[index], strict=True)])
        names = tuple(self.names[i] for i in index.tolist())
        return Chains(self.atoms[rows], self.lengths[index], names, self.clusters[index], self.source, self.sha256)

    def split(self, seed: int = 0) -> Split:
        """Return 80 % of the chains to train, 10 % to validate and 10 % to test, clusters kept together."""
        return group_split(self.clusters, seed)


def backbones(minimum: int = MINIMUM, maximum: int = MAXIMUM) -> Chains:
    """Return real chains of the Protein Data Bank, clustered at 30 % sequence identity; 1,788 of them by default.

    One representative of each cluster at 90 % identity; found in the folder ``RFM_DATA`` as ``protein/backbones.npz``.

    Args:
        minimum: the shortest chain, residues.
        maximum: the longest.

    Raises:
        DatasetNotFoundError: the file is not there.
        DatasetError: it is another one.
    """
    path = find(_FILE, _SHA256)
    with np.load(path, allow_pickle=False) as file:
        lengths, offsets = torch.from_numpy(file["length"]).long(), file["offsets"]
        atoms, unbroken = torch.from_numpy(file["xyz"]), torch.from_numpy(file["n_breaks"]) == 0
        names, clusters = file["id"].tolist(), torch.from_numpy(file["cluster30"]).long()
    if not np.array_equal(np.diff(offsets), lengths.numpy()):
        raise DatasetError(f"{path}: offsets and lengths differ; put the published file there")
    fits = (lengths >= minimum) & (lengths <= maximum)
    everything = Chains(atoms, lengths, tuple(names), clusters, f"{len(names)} chains of {_FILE}", _SHA256)
    selected = everything.take(torch.nonzero(fits & unbroken)[:, 0])
    return replace(selected, left_out={"length": int((~fits).sum()), "break": int((fits & ~unbroken).sum())})


def cgdms(minimum: int = MINIMUM, maximum: int = 100) -> Chains:
    """Return the chains of up to 100 residues that come with the installed package ``cgdms``, which is not imported.

    Nothing is known of their likeness: each is a cluster of its own, and held-out figures may flatter.

    Args:
        minimum: the shortest chain, residues.
        maximum: the longest.

    Raises:
        DatasetError: the package is not installed.
    """
    from importlib.util import find_spec

    spec = find_spec("cgdms")
    if spec is None or spec.origin is None:
        raise DatasetError(
            "the package cgdms is not installed; install it without what it needs: pip install --no-deps cgdms"
        )
    folder = Path(spec.origin).parent / "protein_data" / "train_val"
    files = sorted(folder.glob("*.txt"))
    if not files:
        raise DatasetError(f"{folder} holds no chains; install cgdms 1.0")
    # Each file: sequence, predicted structure, then N, CA, C and the side chain's centre, a residue to a line.
    atoms = [torch.from_numpy(np.loadtxt(f, skiprows=2, dtype=np.float32, ndmin=2)[:, :9]) for f in files]
    digest = file_sha256(folder.parents[1] / "datasets" / "train.txt")
    return _joined(
        [a.reshape(-1, 3, 3) for a in atoms], [f.stem for f in files], "the package cgdms", minimum, maximum, digest
    )


def folder(
    path: str | Path, minimum: int = MINIMUM, maximum: int = MAXIMUM, groups: str | Path | None = None
) -> Chains:
    """Return the chains of a folder of PDB and mmCIF files, as `rfm.proteins.structures` reads them.

    The chains of a file are one cluster, since many are copies of each other. Nothing else is known of their likeness:
    give ``groups``, or put one of each family there, or held-out figures flatter. A file that cannot be used is left
    out, and named in ``notes``.

    Args:
        path: the folder.
        minimum: the shortest chain, residues.
        maximum: the longest.
        groups: a table of clusters and their members, see `rfm.proteins.clusters.read_clusters`.

    Raises:
        DatasetError: no file can be used, no chain fits, or ``groups`` does not name the clusters of those that do.
    """
    files = structure_files(path)
    chains, notes, other = list[Chain](), list[str](), Counter[str]()
    for file in files:
        try:
            structure = read_backbones(file)
        except StructureError as error:
            notes.append(str(error))
            continue
        chains += structure.chains
        other.update(structure.left_out)
    unread = len(notes)
    if not chains:
        raise DatasetError(f"the folder {path}: none of {len(files)} files can be used; {notes[0]}")
    notes += [f"left out {chain.name}: {', '.join(chain.left_out)}" for chain in chains if chain.left_out]
    notes += [f"of unknown kind in {chain.name}: {', '.join(chain.unknown)}" for chain in chains if chain.unknown]
    if other:
        notes.append(f"not read of the files: {', '.join(f'{count} {what}' for what, count in other.items())}")
    joined = _joined([c.atoms for c in chains], [c.name for c in chains], f"the folder {path}", minimum, maximum)
    left_out = joined.left_out | ({"file that cannot be used": unread} if unread else {})
    return replace(joined, clusters=_clusters(joined.names, groups), left_out=left_out, notes=tuple(notes))


def _clusters(names: Sequence[str], groups: str | Path | None) -> Tensor:
    """Return the clusters that a table says, or those of the chains' files."""
    if groups is not None:
        return read_clusters(groups, names)
    files = [name.rpartition(":")[0] for name in names]
    number = {file: i for i, file in enumerate(dict.fromkeys(files))}
    return torch.tensor([number[file] for file in files])


def _joined(
    atoms: Sequence[Tensor], names: Sequence[str], source: str, minimum: int, maximum: int, sha256: str = ""
) -> Chains:
    """Return the chains that have no break and a length that fits."""
    fits = [minimum <= len(a) <= maximum for a in atoms]
    unbroken = [_unbroken(a) for a in atoms]
    index = [i for i in range(len(atoms)) if fits[i] and unbroken[i]]
    left_out = {"length": fits.count(False), "break": sum(f and not w for f, w in zip(fits, unbroken, strict=True))}
    if not index:
        raise DatasetError(
            f"{source}: none of {len(atoms)} chains has {minimum} to {maximum} residues and no break; give other chains"
        )
    lengths = torch.tensor([len(atoms[i]) for i in index])
    chosen = torch.cat([atoms[i] for i in index])
    return Chains(chosen, lengths, tuple(names[i] for i in index), torch.arange(len(index)), source, sha256, left_out)


def _unbroken(atoms: Tensor) -> bool:
    return bool((torch.linalg.vector_norm(atoms[1:, 0] - atoms[:-1, 2], dim=-1) <= PEPTIDE_BOND).all())
