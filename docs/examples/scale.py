"""Data larger than memory: blocks of files, an array on a disk, a data set of PyTorch."""

import tempfile
from pathlib import Path

import numpy as np
import torch

import rfm
from manifolds import Sphere
from rfm.datasets import ArrayPoints, DatasetPoints

x = Sphere(2).random_uniform(2000, generator=torch.Generator().manual_seed(0)).numpy()
folder = Path(tempfile.mkdtemp())
np.save(folder / "part0.npy", x[:1000])
np.save(folder / "part1.npy", x[1000:])
np.save(folder / "all.npy", x)


# --8<-- [start:files]
points = rfm.datasets.open_points(f"{folder}/part*.npy", Sphere(2), ["1", "2", "3"])  # or Parquet, Arrow
flow = rfm.fit_out_of_core(points, Sphere(2), validation=0.1, steps=20, refine=False, progress=False)
# --8<-- [end:files]


# --8<-- [start:others]
class Made(torch.utils.data.Dataset[torch.Tensor]):
    """Points that are made as they are needed: the same one for the same number."""

    def __len__(self) -> int:
        return 2000

    def __getitem__(self, index: int) -> torch.Tensor:
        return Sphere(2).random_uniform(generator=torch.Generator().manual_seed(index))


made = DatasetPoints(Made())
on_disk = ArrayPoints(np.load(folder / "all.npy", mmap_mode="r"))  # points of any shape; HDF5 and Zarr too
# --8<-- [end:others]
assert sum(on_disk.sizes) == sum(made.sizes) == sum(points.sizes) == 2000
assert next(made.chunks(0, slice(0, None, 500))).x.shape == (4, 3)
assert flow.sample(5).shape == (5, 3)
