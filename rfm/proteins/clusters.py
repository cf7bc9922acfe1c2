"""Files that say which chains are alike, such as those that MMseqs2 writes, so that splits keep them together."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rfm.datasets.download import DatasetError

_SHOWN = 5


def read_clusters(path: str | Path, names: Sequence[str]) -> Tensor:
    """Return the cluster of each chain, ``(chains,)`` int64, from a table of a cluster and a member on each line.

    That is the format of ``mmseqs easy-cluster`` (``*_cluster.tsv``: representative, member). Columns are separated by
    a tab, a comma or blanks; empty lines, and those that begin with ``#``, are skipped. A member is a chain, as
    ``1abc:A`` or ``1abc_A``, or a file, as ``1abc``, for all of its chains that are not listed themselves.

    Args:
        path: of the table.
        names: of the chains, as `rfm.proteins.structures.Chain.name`.

    Raises:
        DatasetError: there is no such file, a line has other than two entries, a member is in two clusters, or a chain
            in none.
    """
    cluster_of = _members(Path(path))
    found = [_looked_up(cluster_of, name) for name in names]
    missing = [name for name, cluster in zip(names, found, strict=True) if cluster is None]
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise DatasetError(
            f"{path}: names no cluster for {', '.join(missing[:_SHOWN])}{more}; add a line for each chain or its file"
        )
    labels = {label: i for i, label in enumerate(dict.fromkeys(found))}
    return torch.tensor([labels[label] for label in found])


def _members(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise DatasetError(f"{path} does not exist; give a table of clusters and their members")
    cluster_of: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        separator = "\t" if "\t" in line else "," if "," in line else None
        entries = [entry.strip() for entry in line.strip().split(separator)]
        if len(entries) != 2 or not all(entries):
            raise DatasetError(f"{path}, line {number}: has {len(entries)} entries; write a cluster and a member")
        cluster, member = entries
        if cluster_of.setdefault(member, cluster) != cluster:
            raise DatasetError(
                f"{path}, line {number}: {member} is in the clusters {cluster_of[member]} and {cluster}; keep one"
            )
    return cluster_of


def _looked_up(cluster_of: dict[str, str], name: str) -> str | None:
    stem, _, chain = name.rpartition(":")
    return next((cluster_of[key] for key in (name, f"{stem}_{chain}", stem) if key in cluster_of), None)
