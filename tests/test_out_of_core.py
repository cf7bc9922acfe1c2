"""Data larger than memory: blocks of files, splits by hash, shuffled windows, and the fit on them."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import rfm
from manifolds import SO3, FlatTorus, Sphere
from rfm.datasets import ArrayPoints, DatasetPoints, PointBlocks, TableError, open_blocks, open_points
from rfm.datasets.point_blocks import hashes
from rfm.networks import VelocityField
from rfm.training import HashSplit, survey
from rfm.training.settings import Budget
from rfm.training.windows import LargeTrainingSet

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
ipc = pytest.importorskip("pyarrow.ipc")


def _points(count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    x = np.random.default_rng(seed).normal(size=(count, 3)) + np.eye(3)[0] * 1.5
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def _table(x: np.ndarray[Any, Any], **others: Any) -> Any:
    return pa.table(dict(zip("xyz", x.astype("f4").T, strict=True)) | others)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three Parquet files of 1,000 points each, in row groups of 300, with groups, weights and labels."""
    for i in range(3):
        numbers = np.arange(1000) + 1000 * i
        others = {
            "storm": [f"s{n // 10}" for n in numbers],
            "weight": 1.0 + numbers % 3,
            "kind": ["rare" if n == 2999 else "common" for n in numbers],
            "depth": numbers.astype(float),
        }
        pq.write_table(_table(_points(1000, i), **others), tmp_path / f"part{i}.parquet", row_group_size=300)
    return tmp_path


def _rows(blocks: PointBlocks) -> Tensor:
    return torch.cat([chunk.x for block in range(len(blocks.sizes)) for chunk in blocks.chunks(block)])


def _bytes(x: Tensor) -> list[bytes]:
    """Return what tells rows from each other, whatever the last digits that a projection leaves."""
    return [row.tobytes() for row in np.round(x.numpy(), 9) + 0.0]


def _places(blocks: PointBlocks) -> dict[bytes, int]:
    return {row: i for i, row in enumerate(_bytes(_rows(blocks)))}


@pytest.mark.parametrize("step", [1, 3, 7])
def test_every_few_rows_of_each_block_are_all_rows_once(folder: Path, step: int) -> None:
    blocks = open_points(str(folder), Sphere(2))
    assert blocks.sizes == (300, 300, 300, 100) * 3
    for block in range(len(blocks.sizes)):
        full = torch.cat([chunk.x for chunk in blocks.chunks(block)])
        parts = [torch.cat([c.x for c in blocks.chunks(block, slice(i, None, step))]) for i in range(step)]
        for i, part in enumerate(parts):
            assert torch.equal(part, full[i::step])


def test_formats_hold_the_same_rows(tmp_path: Path) -> None:
    x = _points(500).astype("f4")
    pq.write_table(_table(x), tmp_path / "a.parquet", row_group_size=150)
    with ipc.new_file(tmp_path / "a.arrow", _table(x).schema) as writer:
        writer.write_table(_table(x), max_chunksize=150)
    np.save(tmp_path / "a.npy", x)
    np.save(tmp_path / "records.npy", np.rec.fromarrays(list(x.T), names="x,y,z"))
    expected = torch.from_numpy(x / np.linalg.norm(x.astype("f8"), axis=1, keepdims=True))
    for name in ("a.parquet", "a.arrow", "a.npy", "records.npy"):
        columns = ["1", "2", "3"] if name == "a.npy" else None
        blocks = open_points(str(tmp_path / name), Sphere(2), columns)
        torch.testing.assert_close(_rows(blocks), expected, rtol=0, atol=1e-12)
        chunk = next(blocks.chunks(0, slice(1, None, 2)))
        assert np.array_equal(chunk.key, hashes(list(x.astype("f8").T))[: blocks.sizes[0]][1::2])
    array = ArrayPoints(np.load(tmp_path / "a.npy", mmap_mode="r"))
    torch.testing.assert_close(_rows(array), torch.from_numpy(x).double())
    dataset = DatasetPoints(torch.from_numpy(x))
    assert torch.equal(_rows(dataset), _rows(array))


def test_rows_are_on_the_same_side_in_any_file_and_order(tmp_path: Path) -> None:
    x = _points(2000)
    split = HashSplit(3, 0.2, 0.1)
    pq.write_table(_table(x), tmp_path / "one.parquet")
    order = np.random.default_rng(1).permutation(2000)
    for i, part in enumerate(np.array_split(order, 3)):
        pq.write_table(_table(x[part]), tmp_path / f"several{i}.parquet", row_group_size=100)

    def sides(pattern: str) -> dict[bytes, int]:
        blocks = open_points(str(tmp_path / pattern), Sphere(2))
        chunks = [chunk for block in range(len(blocks.sizes)) for chunk in blocks.chunks(block)]
        return {row.numpy().tobytes(): side for c in chunks for row, side in zip(c.x, split.sides(c), strict=True)}

    one = sides("one.parquet")
    assert one == sides("several*.parquet")
    shares = np.bincount(list(one.values()), minlength=3) / 2000
    # Four standard errors of a share of 2,000 rows.
    assert np.abs(shares - [0.7, 0.2, 0.1]).max() < 4 * np.sqrt(0.21 / 2000)


def test_rows_of_a_group_are_held_out_together(folder: Path) -> None:
    blocks = open_points(str(folder), Sphere(2), groups=["storm"])
    split = HashSplit(0, 0.3, 0.2)
    sides = np.concatenate([split.sides(c) for block in range(len(blocks.sizes)) for c in blocks.chunks(block)])
    storms = sides.reshape(-1, 10)
    assert (storms == storms[:, :1]).all()
    assert len(np.unique(storms)) == 3
    within = open_points(str(folder), Sphere(2), ["x", "y", "z"], blocks={"depth": 50.0})
    sides = np.concatenate([split.sides(c) for block in range(len(within.sizes)) for c in within.chunks(block)])
    assert (sides.reshape(-1, 50) == sides.reshape(-1, 50)[:, :1]).all()


def test_hashes_are_the_same_in_every_run() -> None:
    # Of splitmix64, so that a split outlives this version.
    values = np.array([0.0, -0.0, 1.0])
    assert hashes([values]).tolist() == [16294208416658607535, 16294208416658607535, 9860564707913756141]
    assert hashes([np.array(["a", "b", "a"])])[0] == hashes([np.array(["a"])])[0]


def _training_set(blocks: PointBlocks, **settings: int) -> LargeTrainingSet:
    return survey(blocks, Sphere(2), HashSplit(0), progress=False, **settings).rows


def _epoch(rows: LargeTrainingSet, first: int = 0, count: int | None = None) -> Tensor:
    windows = rows.windows(Sphere(2), Budget(10**6, 50, 1.0, 5), torch.float64, torch.device("cpu"))
    steps = range(first, first + (windows.batches if count is None else count))
    return torch.stack([windows.batch(step).x for step in steps])


def test_an_epoch_has_each_training_row_about_once_in_another_order(folder: Path) -> None:
    rows = _training_set(open_points(str(folder), Sphere(2)), buffer_rows=700, fan_in=6)
    first = _epoch(rows)
    places, counts = first.flatten(0, 1).unique(dim=0, return_counts=True)
    # Windows differ in their share of training rows, so that a few repeat or wait for the next epoch.
    assert len(places) > 0.9 * rows.count
    assert counts.max() <= 2
    second = _epoch(rows, len(first))
    assert not torch.equal(first, second)
    # A batch is of several blocks: files of sorted rows would else be seen one after the other.
    index = _places(rows.blocks)
    files = [len({index[row] // 1000 for row in _bytes(batch)}) for batch in first]
    assert min(files) >= 2


def test_batches_depend_on_nothing_but_the_step(folder: Path) -> None:
    rows = _training_set(open_points(str(folder), Sphere(2)), buffer_rows=700, fan_in=2)
    full = _epoch(rows, 0, 120)
    for first in (1, 37, 70, 119):
        assert torch.equal(_epoch(rows, first, 1)[0], full[first])


def test_weighted_rows_are_drawn_by_their_weight(folder: Path) -> None:
    blocks = open_points(str(folder), Sphere(2), ["x", "y", "z"], weights="weight")
    rows = _training_set(blocks, buffer_rows=10_000, fan_in=32)
    drawn = _epoch(rows, 0, 400).flatten(0, 1)
    index = _places(blocks)
    found = np.bincount([index[row] % 3 for row in _bytes(drawn)], minlength=3) / len(drawn)
    weights = 1.0 + np.arange(3000) % 3
    assert rows.masses.sum() == pytest.approx(weights.sum() * 0.9, rel=0.05)
    # Weights are 1, 2 and 3; which rows train is a matter of chance.
    assert np.abs(found - np.array([1, 2, 3]) / 6).max() < 0.02


def test_a_sample_is_even_over_all_rows(folder: Path) -> None:
    found = survey(open_points(str(folder), Sphere(2)), Sphere(2), HashSplit(0), sample=(600, 90, 10), progress=False)
    assert sum(found.counts) == 3000
    assert found.sides.bincount().tolist() == [600, 90]
    index = {row.numpy().tobytes(): i // 1000 for i, row in enumerate(_rows(found.rows.blocks))}
    files = np.bincount([index[row.numpy().tobytes()] for row in found.sample.x])
    assert np.abs(files / 690 - 1 / 3).max() < 4 * np.sqrt(2 / 9 / 690)


def _field() -> VelocityField:
    torch.manual_seed(0)
    return VelocityField(Sphere(2), width=32, depth=1, features=16, max_frequency=4.0)


_SETTINGS: dict[str, Any] = {
    "steps": 40,
    "batch_size": 64,
    "progress": False,
    "device": "cpu",
    "refine": False,
    "buffer_rows": 700,
    "fan_in": 2,
}


def test_a_resumed_fit_is_that_of_one_run(folder: Path, tmp_path: Path) -> None:
    blocks = open_points(str(folder / "*.parquet"), Sphere(2))
    training = rfm.Training(validations=4)
    one = rfm.fit_out_of_core(blocks, Sphere(2), field=_field(), training=training, **_SETTINGS)

    def interrupt(spent: float, record: dict[str, Any]) -> None:
        if record["step"] == 25:
            raise KeyboardInterrupt

    own: dict[str, Any] = {**_SETTINGS, "out": tmp_path / "run", "training": training}
    with pytest.raises(KeyboardInterrupt):
        rfm.fit_out_of_core(blocks, Sphere(2), field=_field(), **{**own, "progress": interrupt})
    two = rfm.fit_out_of_core(blocks, Sphere(2), field=_field(), resume=True, **own)
    assert [record["step"] for record in two.history] == [10, 20, 30, 40]
    for key, value in one.state_dict().items():
        assert torch.equal(two.state_dict()[key], value)
    with pytest.raises(ValueError, match="other data or"):
        rfm.fit_out_of_core(
            open_points(str(folder / "part[01].parquet"), Sphere(2)), Sphere(2), field=_field(), resume=True, **own
        )


def test_a_fit_of_blocks_learns_what_a_fit_in_memory_does(folder: Path) -> None:
    settings = {**_SETTINGS, "steps": 120, "buffer_rows": 5000}
    large = rfm.fit_out_of_core(open_points(str(folder), Sphere(2)), Sphere(2), field=_field(), **settings)
    test = torch.from_numpy(_points(2000, 9)).float()
    x = torch.from_numpy(np.concatenate([_points(1000, i) for i in range(3)]))
    own = {name: value for name, value in settings.items() if name not in ("buffer_rows", "fan_in")}
    small = rfm.fit(x, Sphere(2), field=_field(), **own)
    difference = large.log_prob(test) - small.log_prob(test)
    assert abs(float(difference.mean())) < 0.03
    assert float(large.log_prob(test).mean()) > -float(np.log(4 * np.pi)) + 0.3


def test_conditions_have_all_labels_and_extremes_of_all_rows(folder: Path) -> None:
    blocks = open_points(str(folder), Sphere(2), ["x", "y", "z"], condition=["kind", "depth"])
    assert blocks.conditions is not None
    kind, depth = blocks.conditions.columns
    assert kind.to_dict()["values"] == ["common", "rare"]
    assert depth.to_dict() == {"name": "depth", "low": 0.0, "high": 2999.0, "unit": ""}
    settings: dict[str, Any] = {**_SETTINGS, "steps": 4}
    flow = rfm.fit_out_of_core(blocks, Sphere(2), **settings)
    assert flow.sample(3, condition={"kind": "rare", "depth": 5}).shape == (3, 3)


class _Torus(torch.utils.data.Dataset[Any]):
    """Points with a condition, made as they are needed."""

    def __len__(self) -> int:
        return 300

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(index)
        return torch.rand(2, generator=generator), torch.rand(1, generator=generator)


def test_data_sets_of_pytorch_and_arrays_of_any_shape() -> None:
    settings: dict[str, Any] = {**_SETTINGS, "steps": 3}
    flow = rfm.fit_out_of_core(DatasetPoints(_Torus(), conditional=True), FlatTorus(2), **settings)
    assert flow.sample(3, condition=torch.zeros(1)).shape == (3, 2)
    x = SO3().random_uniform(200, generator=torch.Generator().manual_seed(0)).numpy()
    flow = rfm.fit_out_of_core(ArrayPoints(x, groups=np.arange(200) // 4), SO3(), **settings)
    assert flow.sample(2).shape == (2, 3, 3)


def test_bad_rows_are_named_by_file_and_row_or_left_out(tmp_path: Path) -> None:
    x = _points(1000)
    x[700] = 3.0
    pq.write_table(_table(x), tmp_path / "a.parquet", row_group_size=300)
    blocks = open_points(str(tmp_path), Sphere(2), skip_bad_rows=True)
    found = survey(blocks, Sphere(2), HashSplit(0), progress=False)
    assert sum(found.counts) == 999
    assert list(found.skipped.values()) == [1]
    with pytest.raises(TableError, match=r"a.parquet, row 701: this point is not on the unit sphere"):
        _rows(dataclasses.replace(blocks, skip_bad_rows=False))


def _empty(path: Path) -> Iterator[tuple[str, str]]:
    (path / "notes.csv").write_text("x,y\n1,2\n")
    pq.write_table(_table(_points(5)), path / "a.parquet")
    pq.write_table(pa.table({"u": [1.0]}), path / "b.parquet")
    (path / "damaged.parquet").write_bytes(b"PAR1 and no more")
    yield str(path / "*.txt"), "there is no such file"
    yield str(path / "none.parquet"), "there is no such file"
    yield str(path / "notes.csv"), "write it as Parquet"
    yield str(path / "damaged.parquet"), "damaged.parquet: cannot be read"
    yield str(path / "[ab].parquet"), "give files with the same columns"


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    for word, message in _empty(tmp_path):
        with pytest.raises(TableError, match=message):
            open_points(word, Sphere(2))
    (tmp_path / "inside").mkdir()
    with pytest.raises(TableError, match="this is a folder; name a file in it"):
        open_blocks(tmp_path / "inside")


def test_points_of_geoparquet_are_read_in_blocks(tmp_path: Path) -> None:
    shapely = pytest.importorskip("shapely")
    degrees = np.random.default_rng(0).uniform([-170, -80], [170, 80], (50, 2))
    table = pa.table({"geometry": shapely.to_wkb(shapely.points(degrees)), "depth": degrees[:, 0]})
    geo = {b"geo": b'{"version": "1.0.0", "primary_column": "geometry", "columns": {}}'}
    pq.write_table(table.replace_schema_metadata(geo), tmp_path / "a.parquet", row_group_size=20)
    found = _rows(open_points(str(tmp_path / "a.parquet"), Sphere(2)))
    latitude, longitude = Sphere.to_degrees(found)
    torch.testing.assert_close(torch.stack([longitude, latitude], 1), torch.from_numpy(degrees))


def test_shares_that_leave_nothing_are_refused(folder: Path) -> None:
    blocks = open_points(str(folder), Sphere(2))
    with pytest.raises(ValueError, match="validation must be a share above 0"):
        rfm.fit_out_of_core(blocks, Sphere(2), validation=0.0)
    few = ArrayPoints(_points(3))
    rows = _training_set(blocks)
    with pytest.raises(ValueError, match="rows are of all; hold out a share"):
        rfm.fit(_points(40), Sphere(2), validation=0.0, rows=rows, progress=False)
    with pytest.raises(ValueError, match="there are too few to validate"):
        rfm.fit_out_of_core(few, Sphere(2), validation=1e-6, progress=False)
    with pytest.raises(ValueError, match="condition has 2 rows, points 3"):
        ArrayPoints(_points(3), condition=np.zeros(2))
