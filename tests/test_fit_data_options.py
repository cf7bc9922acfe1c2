"""What ``rfm fit`` does with the table: groups, bad rows, ties, times, all points, more steps; and ``rfm data``."""

import inspect
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rfm
from manifolds import Sphere
from rfm.command_line import main as cli
from rfm.command_line.run_folder import RunData
from rfm.datasets import read_table

_FIT = ["--steps", "16", "--validations", "4", "--batch-size", "32", "--device", "cpu", "--quiet"]


@pytest.fixture(autouse=True, scope="module")
def _small_networks() -> Iterator[None]:
    from rfm.networks import VelocityField

    defaults = VelocityField.__init__.__defaults__
    assert defaults is not None
    assert list(inspect.signature(VelocityField).parameters)[1:4] == ["width", "depth", "features"]
    VelocityField.__init__.__defaults__ = (16, 1, 16, *defaults[3:])
    yield
    VelocityField.__init__.__defaults__ = defaults


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 0) -> tuple[str, str]:
    found = cli.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert found == status, err
    return out, err


def storms(path: Path, count: int = 12, length: int = 10, seed: int = 0) -> Path:
    """Tracks of storms, a few kilometres a step."""
    rng = np.random.default_rng(seed)
    lines = ["storm,time,lat,lon,month,wind"]
    for storm in range(count):
        start = rng.uniform((-40, -170), (40, 170))
        for step in range(length):
            lat, lon = start + 0.1 * step
            lines.append(
                f"S{storm},20{storm:02d}-0{1 + storm % 9}-01T{step:02d}:00,{lat:.4f},{lon:.4f},{1 + storm},{step}"
            )
    path.write_text("\n".join(lines) + "\n")
    return path


def winds(path: Path, step: float, count: int = 200) -> Path:
    rng = np.random.default_rng(0)
    lobes = np.where(rng.random(count) < 0.6, rng.vonmises(-2.36, 8, count), rng.vonmises(0.79, 3, count))
    values = np.rint(np.degrees(lobes) % 360 / step) * step
    path.write_text("direction\n" + "".join(f"{value:g}\n" for value in values))
    return path


# Groups.


def test_groups_are_held_out_whole(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storms(here / "t.csv")
    out, err = run(capsys, "fit", "t.csv", "--manifold", "sphere", "--groups", "storm", "--out", "r", *_FIT)
    assert "held out one by one" not in err
    data = RunData.load(here / "r")
    assert data.blocks is not None
    names = np.array(read_table(here / "t.csv").texts("storm"))
    parts = [set(names[part.numpy()]) for part in data.split]
    assert all(parts)
    assert sum(map(len, parts)) == 12
    assert len(data.blocks.unique()) == 12
    result = json.loads(run(capsys, "evaluate", "r", "--json", "--quiet")[0])
    assert result["clusters"] == len(parts[2])
    assert "columns of numbers that are not used: month, wind" in out


def test_rows_that_share_a_name_or_follow_each_other_are_noticed(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storms(here / "t.csv")
    err = run(capsys, "fit", "t.csv", "--manifold", "sphere", "--out", "r", *_FIT)[1]
    assert "rows that share 'storm' (12 different in 120 rows) are near each other" in err
    assert "--groups storm holds them out together" in err
    table = read_table(here / "t.csv")
    lines = ["time,lat,lon", *(",".join(row) for row in zip(*map(table.texts, ("time", "lat", "lon")), strict=True))]
    (here / "u.csv").write_text("\n".join(lines) + "\n")
    err = run(capsys, "fit", "u.csv", "--manifold", "sphere", "--out", "r2", *_FIT)[1]
    assert "each row is near the one before it" in err
    assert "--blocks time=SIZE" in err
    rows = np.random.default_rng(0).permutation(lines[1:])
    (here / "v.csv").write_text("\n".join(["time,lat,lon", *rows]) + "\n")
    err = run(capsys, "fit", "v.csv", "--manifold", "sphere", "--out", "r3", *_FIT)[1]
    assert "held out one by one" not in err
    # Blocks of times, in days.
    run(capsys, "fit", "u.csv", "--manifold", "sphere", "--out", "r4", "--blocks", "time=30", *_FIT)
    blocks = RunData.load(here / "r4").blocks
    assert blocks is not None
    assert len(blocks.unique()) == 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--groups", "storm", "--blocks", "lat=3"], "--groups and --blocks both say"),
        (["--groups", "name"], "there is no column 'name'"),
        (["--groups", "lat", "lon", "storm", "time", "wind", "month"], ""),
    ],
)
def test_groups_that_cannot_be(
    here: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    storms(here / "t.csv", count=3, length=2)
    status = 2 if message else 0
    err = run(capsys, "fit", "t.csv", "--manifold", "sphere", "--out", "r", *options, *_FIT, status=status)[1]
    assert message in err


def test_groups_in_python() -> None:
    x = Sphere(2).random_uniform(40, generator=torch.Generator().manual_seed(0))
    names = [f"s{i % 4}" for i in range(40)]
    settings: dict[str, Any] = {"steps": 4, "batch_size": 8, "progress": False, "device": "cpu", "refine": False}
    flow = rfm.fit(x, Sphere(2), groups=names, validation=0.25, **settings)
    again = rfm.fit(x, Sphere(2), groups=[int(name[1]) for name in names], validation=0.25, **settings)
    assert flow.history[-1]["validation_nll"] == again.history[-1]["validation_nll"]
    for bad, message in (
        (names[:5], "one for each of the 40 points, got 5"),
        ([None, *names[1:]], "1 of 40 points have no"),
    ):
        with pytest.raises(ValueError, match=message):
            rfm.fit(x, Sphere(2), groups=bad, **settings)


# Bad rows.


def test_bad_rows_are_skipped_counted_and_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = [f"{10 + i / 10},{20 + i / 10},{i}" for i in range(30)]
    bad = ["NA,3,1", "95,3,1", "1,2", "5,east,1", "1,999,1", ",3,1", "1,2,inf"]
    text = "\n".join(["lat,lon,depth", *good[:10], *bad, *good[10:]]) + "\n"
    (here / "t.csv").write_text(text)
    (here / "good.csv").write_text("\n".join(["lat,lon,depth", *good]) + "\n")
    options = ["--manifold", "sphere", "--condition", "depth", *_FIT]
    err = run(capsys, "fit", "t.csv", "--out", "r", *options, status=2)[1]
    assert "line 14: 2 cells" in err
    out, err = run(capsys, "fit", "t.csv", "--out", "r", "--skip-bad-rows", "--json", *options)
    assert "skipped 7 of 37 rows: 1 for another number of cells (line 14)" in err
    for words in ("'NA' is not a number in column 'lat' (line", "'east' is not a number in column 'lon' (line 15)"):
        assert words in err
    assert sum(map(len, json.loads(out)["skipped_rows"].values())) == 7
    run(capsys, "fit", "good.csv", "--out", "g", *options)
    ours, theirs = RunData.load(here / "r"), RunData.load(here / "g")
    assert torch.equal(ours.points, theirs.points)
    (here / "none.csv").write_text("lat,lon,depth\nNA,1,2\nx,3,1\n")
    err = run(capsys, "fit", "none.csv", "--out", "n", "--skip-bad-rows", *options, status=2)[1]
    assert "none.csv" in err


# Ties.


def test_ties_are_split_by_row_and_spread(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    winds(here / "w.csv", 10.0)
    options = ["--manifold", "circle", *_FIT]
    err = run(capsys, "fit", "w.csv", "--out", "r", *options)[1]
    assert "direction is rounded to 10 degrees: " in err
    assert "these are ties, not repeats: points are spread evenly over their cells, and split row by row" in err
    data, values = RunData.load(here / "r"), read_table(here / "w.csv").values("direction")
    degrees = np.degrees(data.points[:, 0].numpy())
    off = (degrees - values + 180) % 360 - 180
    assert np.abs(off).max() <= 5
    assert len(np.unique(degrees)) == len(degrees)
    train, test = (set(values[part.numpy()]) for part in (data.split.train, data.split.test))
    assert train & test
    err = run(capsys, "fit", "w.csv", "--out", "k", "--keep-ties", *options)[1]
    assert "rounded" not in err
    kept = RunData.load(here / "k")
    assert not {*values[kept.split.train.numpy()]} & {*values[kept.split.test.numpy()]}


def test_a_fit_that_learns_nothing_says_so(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    angles = rng.uniform(0, 360, 300)
    (here / "u.csv").write_text("direction\n" + "".join(f"{x:.5f}\n" for x in angles))
    out = run(capsys, "fit", "u.csv", "--manifold", "torus", "--out", "r", "--no-refine", *_FIT)[0]
    assert "validation points are no likelier under the flow than under its source, Uniform, by more than chance" in out


# Times and what comes round.


def test_times_and_months_are_conditions(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storms(here / "t.csv")
    base = ["fit", "t.csv", "--manifold", "sphere", "--groups", "storm", *_FIT, "--out", "r"]
    out, err = run(capsys, *base, "--condition", "time", "time:year", "time:day", "month:12")
    assert "conditional on time (a time, 2000-01-01" in out
    assert "month (a number, which comes round after 12)" in out
    assert "plain number" not in err
    # A time counts for the time of year and of day, too.
    args = ["--condition", "time=2005-03-01T12:00", "month=3"]
    out, err = run(capsys, "sample", "r", "-n", "3", *args, "--log-prob", "--quiet")
    header, first = (line.split(",")[-4:] for line in out.replace('"', "").splitlines()[:2])
    assert header == ["time", "time:year", "time:day", "month"]
    assert first[0] == "2005-03-01T12:00:00"
    np.testing.assert_allclose([float(cell) for cell in first[1:]], [59.5 / 365 * 365.2425, 12, 3], atol=1e-3)
    (here / "s.csv").write_text(out)
    known = [float(line.split(",")[2]) for line in out.splitlines()[1:]]
    again = run(capsys, "log-prob", "r", "s.csv", *args, "--quiet")[0]
    np.testing.assert_allclose([float(line.split(",")[0]) for line in again.splitlines()[1:]], known, atol=2e-3)
    scored = run(capsys, "log-prob", "r", "t.csv", "--quiet")[0]
    assert len(scored.splitlines()) == 121
    # December is as near to January as the months between.
    flow = rfm.Flow.load(here / "r")
    assert flow.conditions is not None
    one, thirteen = (flow.conditions.encode({"month": month}) for month in (1, 13))
    torch.testing.assert_close(one, thirteen, equal_nan=True)
    json.loads(run(capsys, "evaluate", "r", "--json", "--quiet")[0])
    err = run(capsys, *base, "--force", "--condition", "month")[1]
    assert "condition month is taken for a plain number" in err
    assert "--condition month:12 lets it come round" in err


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("month:moon", "comes round after 'moon'; write a number in its unit, such as month:12, or month:year"),
        ("month:year", "no time such as 2020-03-01T12:30 in column 'month'"),
        ("storm:12", "'S0' is not a finite number in column 'storm'"),
        ("month:3", "over more than a period of 3"),
        ("depth:12", "there is no column 'depth:12'"),
    ],
)
def test_periods_that_cannot_be(here: Path, capsys: pytest.CaptureFixture[str], condition: str, message: str) -> None:
    storms(here / "t.csv")
    options = ["--manifold", "sphere", "--out", "r", "--condition", condition, *_FIT]
    assert message in " ".join(run(capsys, "fit", "t.csv", *options, status=2)[1].split())


# Other columns.


def test_points_of_other_columns_are_scored(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storms(here / "t.csv")
    run(capsys, "fit", "t.csv", "--manifold", "sphere", "--groups", "storm", "--out", "r", *_FIT)
    want = run(capsys, "log-prob", "r", "t.csv", "--quiet")[0]
    (here / "o.csv").write_text((here / "t.csv").read_text().replace("lat,lon", "breite,laenge"))
    out, err = run(capsys, "log-prob", "r", "o.csv", "--columns", "breite", "laenge", "--quiet")
    assert out == want
    assert "points from columns breite, laenge" in err
    err = run(capsys, "log-prob", "r", "o.csv", "--columns", "breite", "--quiet", status=2)[1]
    assert "2 different columns are needed in place of lat lon" in err


# All points, and more steps.


def test_a_fit_to_all_points(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    places = np.concatenate([rng.normal((10, 20), 5, (150, 2)), rng.normal((-30, 100), 8, (150, 2))])
    (here / "t.csv").write_text("lat,lon\n" + "".join(f"{a:.4f},{b:.4f}\n" for a, b in places))
    fit = ["fit", "t.csv", "--manifold", "sphere", "--validation", "0", "--test-share", "0.2", "--out", "r", *_FIT]
    out = run(capsys, *fit)[0]
    assert "fitted 240 points" in out
    assert "on points held out by five other fits" in out
    data, flow = RunData.load(here / "r"), rfm.Flow.load(here / "r")
    assert [len(part) for part in data.split] == [240, 0, 60]
    assert not (here / "r" / "folds").exists()
    assert all(math.isfinite(record["validation_nll"]) for record in flow.history)
    assert flow.refinement is not None
    assert flow.refinement.validation_nll["refined"] <= flow.refinement.validation_nll["kernels"] + 1e-9
    # Of the kernels, all points are centres.
    (kernels, *_) = flow.refinement.sources
    assert len(kernels.points) == 240
    before = flow.log_prob(data.points[data.split.test].float())
    assert bool(before.isfinite().all())
    result = json.loads(run(capsys, "evaluate", "r", "--json", "--quiet")[0])
    assert "as none were held out to validate" in result["kernels"]
    out = run(capsys, *fit, "--resume")[0]
    assert "nothing left to train" in out
    torch.testing.assert_close(rfm.Flow.load(here / "r").log_prob(data.points[data.split.test].float()), before)
    err = run(capsys, *fit, "--more-steps", "4", status=2)[1]
    assert "validation=0 leaves none" in err


def test_cross_fitting_in_python_is_the_mean_of_its_folds(tmp_path: Path) -> None:
    from rfm.sources.folds import folds_of, places_of

    x = Sphere(2).projx(torch.randn(60, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([1.0, 0, 0]))
    training = rfm.Training(validations=4)
    settings: dict[str, Any] = {"steps": 8, "batch_size": 16, "progress": False, "device": "cpu", "training": training}
    flow = rfm.fit(x, Sphere(2), validation=0, refine=False, **settings)
    fold = folds_of(places_of(x.double()))
    curves = []
    for i in range(5):
        part = (fold == i).nonzero()[:, 0]
        history = rfm.fit(x, Sphere(2), validation=part, refine=False, **settings).history
        curves.append([len(part) / 60 * record["validation_nll"] for record in history])
    want = np.sum(curves, axis=0)
    np.testing.assert_allclose([record["validation_nll"] for record in flow.history], want, rtol=1e-6)
    with pytest.raises(ValueError, match="at least 5 different points or groups, got 3"):
        rfm.fit(x, Sphere(2), validation=0, groups=[i % 3 for i in range(60)], **settings)
    with pytest.raises(ValueError, match="MaximumLikelihood goes on from a trained field"):
        rfm.fit(x, Sphere(2), validation=0, objective=rfm.MaximumLikelihood(), **settings)
    with pytest.raises(ValueError, match="more_steps goes on with the flow in a folder; pass out"):
        rfm.fit(x, Sphere(2), more_steps=3, **settings)


def test_more_steps_go_on_and_never_lose(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    places = rng.normal((10, 20), 9, (120, 2))
    (here / "t.csv").write_text("lat,lon\n" + "".join(f"{a:.4f},{b:.4f}\n" for a, b in places))
    fit = ["fit", "t.csv", "--manifold", "sphere", "--out", "r", "--no-refine", *_FIT]
    run(capsys, *fit)
    first = rfm.Flow.load(here / "r")
    out = run(capsys, *fit, "--more-steps", "12")[0]
    assert "resumed at step 16, trained to step 28" in out
    assert "after 16 before" in out
    flow = rfm.Flow.load(here / "r")
    assert [record["step"] for record in flow.history] == [4, 8, 12, 16, 16, 19, 22, 25, 28]
    assert not (here / "r" / "more").exists()
    best = [min(r["validation_nll"] for r in found.history) for found in (first, flow)]
    assert best[1] <= best[0]
    # The same weights, validated before the first of the new steps.
    assert flow.history[4]["validation_nll"] == pytest.approx(best[0], abs=1e-4)
    out = run(capsys, *fit, "--more-steps", "4")[0]
    assert "resumed at step 28, trained to step 32" in out
    assert "nothing left to train" in run(capsys, *fit, "--resume")[0]
    run(capsys, "evaluate", "r", "--quiet")


# Published data.


@pytest.mark.parametrize("name", ["airports", "earthquakes", "steel", "desk"])
def test_published_data_are_written(here: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    if name != "airports" and not os.environ.get("RFM_DATA"):
        pytest.skip("the published files are in the folder RFM_DATA")
    file = {"steel": "steel.ang", "desk": "desk.txt"}.get(name, "d.csv")
    out = run(capsys, "data", name, "--out", file)[0]
    assert out.startswith(f"{file}: ")
    assert "licence: " in out
    if name == "earthquakes":
        assert (here / file).read_text().splitlines()[0] == "latitude,longitude"
        assert len(read_table(here / file)) == 6120
    assert "use --force" in run(capsys, "data", name, "--out", file, status=2)[1]


# Manifolds by name.


@pytest.mark.parametrize("name", ["circle", "ellipsoid", "so3/4mmm", "so3/2/m-b", "so3/-31m", "so3/432"])
def test_manifolds_by_name(name: str, here: Path) -> None:
    from rfm.command_line.named_objects import manifold_by_name
    from rfm.records.descriptions import build, describe

    (here / "t.csv").write_text("direction\n1\n2\n")
    manifold = manifold_by_name(name, read_table(here / "t.csv"), None)
    record = json.loads(json.dumps(describe(manifold, {}, {})))
    assert repr(build(record, "here")) == repr(manifold)


def test_unknown_manifolds_list_what_there_is(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storms(here / "t.csv")
    err = run(capsys, "fit", "t.csv", "--manifold", "so3/5", "--out", "r", status=2)[1]
    assert "unknown crystal symmetry so3/5; choose a Laue group (m-3m, m-3, 6/mmm" in " ".join(err.split())
    err = run(capsys, "fit", "t.csv", "--manifold", "globe", "--out", "r", status=2)[1]
    assert "choose sphere, torus, euclidean, simplex, circle, ellipsoid, so3, se3, so3/ with a Laue group" in err


def test_the_ellipsoid_has_geodetic_coordinates() -> None:
    from geographiclib.geodesic import Geodesic

    from manifolds import Ellipsoid
    from rfm.datasets import choose_coordinates, table_from
    from rfm.datasets.geographic import EARTH_AXES

    degrees = {"lat": [52.5, -33.9, 89.0, -90.0], "lon": [13.4, 18.4, 170.0, 33.0]}
    table, earth = table_from(degrees), Ellipsoid(EARTH_AXES)
    coordinates = choose_coordinates(earth, table)
    points = coordinates.points(table)
    earth.check_point(points)
    back = coordinates.columns_of(points)
    np.testing.assert_allclose(back[:3], np.stack(list(degrees.values()), axis=1)[:3], atol=1e-9)
    ours = earth.dist(points[:1], points[1:2]) * 6378137.0
    theirs = Geodesic.WGS84.Inverse(52.5, 13.4, -33.9, 18.4)["s12"]
    assert float(ours) == pytest.approx(theirs, rel=1e-9)
