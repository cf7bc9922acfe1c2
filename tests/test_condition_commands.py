"""Conditions on the command line: from the columns of a table to samples, scores, a comparison and a picture."""

import csv
import inspect
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rfm
from rfm.command_line import main as cli
from rfm.conditions import Label, Number
from rfm.datasets import find_conditions, read_conditions, read_table
from rfm.datasets.tables import TableError

_FIT = [
    "--manifold",
    "sphere",
    "--steps",
    "20",
    "--validations",
    "2",
    "--batch-size",
    "32",
    "--device",
    "cpu",
    "--quiet",
]


@pytest.fixture(autouse=True, scope="module")
def _small_networks() -> Iterator[None]:
    """Keep training short: the default network is made for thousands of steps."""
    from rfm.networks import VelocityField

    defaults = VelocityField.__init__.__defaults__
    assert defaults is not None
    assert list(inspect.signature(VelocityField).parameters)[1:4] == ["width", "depth", "features"]
    VelocityField.__init__.__defaults__ = (16, 1, 16, *defaults[3:])
    yield
    VelocityField.__init__.__defaults__ = defaults


def write_quakes(path: Path, n: int = 60) -> Path:
    """Write earthquakes of two regions, with cells left empty, and years."""
    generator = np.random.default_rng(0)
    lines = ["latitude,longitude,magnitude,Region,year"]
    for i in range(n):
        region = "Chile" if i % 2 else "Japan"
        centre = (-30, -70) if i % 2 else (36, 140)
        latitude, longitude = centre + generator.normal(size=2)
        magnitude = "" if i % 10 == 3 else "NA" if i % 10 == 4 else f"{generator.uniform(4, 8):.1f}"
        region = "" if i % 12 == 5 else region
        lines.append(f"{latitude:.3f},{longitude:.3f},{magnitude},{region},{2000 + i % 3}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    table = write_quakes(folder / "quakes.csv")
    columns = ["--condition", "magnitude", "region", "year", "--label", "year"]
    assert cli.main(["fit", str(table), *_FIT, *columns, "--out", str(folder / "run")]) == 0
    assert cli.main(["fit", str(table), *_FIT, "--out", str(folder / "free")]) == 0
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """A copy of the folder of `made`, as the current one."""
    capsys.readouterr()
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 0) -> tuple[str, str]:
    found = cli.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert found == status, err
    return out, err


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must be refused with at most three lines and no output; return what it said."""
    out, err = run(capsys, *arguments, status=2)
    assert out == ""
    assert 1 <= len(err.splitlines()) <= 3
    assert "Traceback" not in err
    return err


def columns(text: str) -> dict[str, list[str]]:
    header, *rows = csv.reader(io.StringIO(text))
    return {name: [row[i] for row in rows] for i, name in enumerate(header)}


def values(text: str) -> np.ndarray[Any, Any]:
    """Return points and scores, without the columns that say what the points were drawn given."""
    given = ("Region", "year", "magnitude")
    return np.array([cells for name, cells in columns(text).items() if name not in given], dtype=float).T


# Fitting.


def test_columns_become_numbers_and_labels(here: Path) -> None:
    flow = rfm.Flow.load(here / "run")
    assert flow.conditions is not None
    magnitude, region, year = flow.conditions.columns
    assert isinstance(magnitude, Number)
    assert 4 <= magnitude.low < magnitude.high <= 8
    assert (region, year) == (Label("Region", ("Chile", "Japan")), Label("year", ("2000", "2001", "2002")))
    table = read_table(here / "quakes.csv")
    found, vectors = find_conditions(table, ["magnitude", "region", "year"], ["year"])
    assert found == flow.conditions
    torch.testing.assert_close(read_conditions(table, found), vectors, equal_nan=True)
    assert vectors.isnan().sum(0).tolist() == [12, 5, 0]
    back = found.decode(vectors)
    assert back["Region"][:6] == ["Japan", "Chile", "Japan", "Chile", "Japan", None]
    assert back["year"][:4] == ["2000", "2001", "2002", "2000"]


def test_the_fit_says_what_it_is_conditional_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_quakes(tmp_path / "quakes.csv")
    fit = ["fit", table, *_FIT, "--condition", "region", "--out", tmp_path / "run"]
    out, _ = run(capsys, *fit)
    assert "conditional on Region (a label: Chile, Japan)\n" in out
    record = json.loads(run(capsys, *fit, "--resume", "--json")[0])
    assert record["conditions"] == [{"kind": "label", "name": "Region", "values": ["Chile", "Japan"]}]
    assert "other data or with other settings" in refused(capsys, *fit, "--resume", "--condition", "year")


def test_a_label_may_be_called_na(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("code,x\n" + "NA,1\nDE,2\n,3\nNA,4\n" * 3)
    conditions, vectors = find_conditions(read_table(tmp_path / "t.csv"), ["code"])
    assert conditions.columns == (Label("code", ("DE", "NA")),)
    assert conditions.decode(vectors)["code"][:4] == ["NA", "DE", None, "NA"]


def test_columns_without_a_header_go_by_number(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("1,a,2\n3,b,4\n" * 3)
    conditions, _ = find_conditions(read_table(tmp_path / "t.csv"), ["2", "3"])
    assert conditions.columns == (Label("2", ("a", "b")), Number("3", 2.0, 4.0))


_BAD_FITS: dict[str, tuple[list[str], list[str]]] = {
    "no column": (["--condition", "depth"], ["there is no column 'depth'", "its columns are 'latitude'"]),
    "no label column": (["--condition", "year", "--label", "epoch"], ["there is no column 'epoch'"]),
    "not a condition": (["--condition", "year", "--label", "region"], ["'Region' is said to hold labels, but is no"]),
    "label alone": (["--label", "year"], ["--label", "give --condition too"]),
    "point": (["--condition", "latitude"], ["column 'latitude' cannot be a condition: it holds the points"]),
    "twice": (["--condition", "year", "YEAR"], ["column 'year' cannot be a condition: it is named twice"]),
    "ids": (["--condition", "id"], ["condition id holds 60 different texts in 60 points", "too many to be labels"]),
    "empty": (["--condition", "empty"], ["condition empty holds nothing that is known"]),
    "typo": (["--condition", "typo"], ["line 3", "'1o' is not a finite number in column 'typo'", "--label typo"]),
}


@pytest.mark.parametrize("case", _BAD_FITS)
def test_bad_columns(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = write_quakes(tmp_path / "q.csv").read_text().splitlines()
    more = ["id,empty,typo"] + [f"q{i},,{'1o' if i == 1 else i}" for i in range(len(lines) - 1)]
    (tmp_path / "q.csv").write_text("".join(f"{a},{b}\n" for a, b in zip(lines, more, strict=True)))
    arguments, words = _BAD_FITS[case]
    err = refused(capsys, "fit", tmp_path / "q.csv", *_FIT, *arguments, "--out", tmp_path / "run")
    assert all(word in err for word in words), err
    assert not (tmp_path / "run").exists()


# Sampling.


def test_samples_given_all_some_and_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def draw(*arguments: object) -> str:
        return run(capsys, "sample", "run", "-n", 5, *arguments)[0]

    free = draw()
    unknown = draw("--condition", "region=", "magnitude=")
    np.testing.assert_allclose(values(unknown), values(free), atol=1e-4)
    np.testing.assert_array_equal(values(draw("--condition", "region=chile", "--guidance", 0)), values(free))
    some = {
        draw("--condition", *given) for given in (["region=chile"], ["region=japan"], ["REGION=Japan", "year=2001"])
    }
    assert len(some | {free}) == 4
    assert draw("--condition", "region=chile", "--guidance", 1) == draw("--condition", "region=chile")
    assert draw("--condition", "region=chile", "--guidance", 2) != draw("--condition", "region=chile")
    scored = draw("--condition", "region=chile", "--log-prob")
    assert values(scored).shape == (5, 4)
    # Samples say what they were drawn given, no more and no less.
    assert columns(scored)["Region"] == ["Chile"] * 5
    assert not {"year", "magnitude"} & set(columns(scored))
    assert not {"Region", "year", "magnitude"} & (set(columns(free)) | set(columns(unknown)))


def test_one_sample_for_each_row_of_a_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "given.csv").write_text("region,year,magnitude\nchile,2000,\n,,7\nJapan,2002,5\nchile,2000,\n")
    out, err = run(capsys, "sample", "run", "--condition-file", "given.csv", "--log-prob")
    assert err == ""
    drawn = values(out)
    assert drawn.shape == (4, 4)
    cells = columns(out)
    assert cells["Region"] == ["Chile", "", "Japan", "Chile"]
    assert cells["year"] == ["2000", "", "2002", "2000"]
    assert cells["magnitude"] == ["", "7.0", "5.0", ""]
    as_json = json.loads(run(capsys, "sample", "run", "--condition-file", "given.csv", "--json")[0])
    assert as_json["Region"] == ["Chile", None, "Japan", "Chile"]
    assert as_json["magnitude"] == [None, 7.0, 5.0, None]
    # The same draws, each under its own condition.
    one = values(run(capsys, "sample", "run", "-n", 4, "--condition", "region=chile", "year=2000", "--log-prob")[0])
    np.testing.assert_allclose(drawn[[0, 3]], one[[0, 3]], atol=1e-3)
    assert np.abs(drawn[1:3] - one[1:3]).max() > 1e-2
    guided = run(capsys, "sample", "run", "--condition-file", "given.csv", "--guidance", 2)[0]
    assert values(guided).shape == (4, 2)


def test_numbers_beyond_the_data_are_told_on_stderr(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = run(capsys, "sample", "run", "-n", 2, "--quiet", "--condition", "magnitude=12")
    assert values(out).shape == (2, 2)
    assert err.startswith("rfm sample: magnitude=12 is outside of the data's range, 4")
    assert len(err.splitlines()) == 1


_BAD_SAMPLES: dict[str, tuple[list[str], list[str]]] = {
    "no condition": (["--condition", "depth=3"], ["no condition 'depth'", "magnitude (a number, 4", "Chile, Japan"]),
    "no label": (["--condition", "region=chlie"], ["Region has no label 'chlie'; did you mean Chile?", "Chile, Japan"]),
    "no year": (["--condition", "year=1999"], ["year has no label '1999'", "2000, 2001, 2002"]),
    "no number": (["--condition", "magnitude=big"], ["magnitude=big is not a finite number"]),
    "infinity": (["--condition", "magnitude=inf"], ["magnitude=inf is not a finite number"]),
    "no value": (["--condition", "magnitude"], ["--condition 'magnitude' is not NAME=VALUE"]),
    "twice": (["--condition", "year=2000", "year=2001"], ["'year=2001' is given twice"]),
    "guidance": (["--guidance", "2"], ["--guidance needs something to guide towards", "--condition-file"]),
    "guided score": (["--guidance", "2", "--condition", "year=2000", "--log-prob"], ["no exact log-density"]),
    "both": (["--condition", "year=2000", "--condition-file", "quakes.csv"], ["not allowed with"]),
    "count": (["-n", "3", "--condition-file", "quakes.csv"], ["-n and --condition-file", "give one of them"]),
    "no file": (["--condition-file", "none.csv"], ["none.csv: there is no such file"]),
    "no column": (["--condition-file", "short.csv"], ["no column 'Region'", "'magnitude', 'year'", "add it"]),
    "bad cell": (
        ["--condition-file", "cell.csv"],
        ["cell.csv, line 3: Region has no label 'Peru'", "repair that cell"],
    ),
}


@pytest.mark.parametrize("case", _BAD_SAMPLES)
def test_bad_conditions(case: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "short.csv").write_text("magnitude,year\n5,2000\n")
    (here / "cell.csv").write_text("magnitude,year,region\n5,2000,chile\n5,2000,Peru\n")
    arguments, words = _BAD_SAMPLES[case]
    err = refused(capsys, "sample", "run", *arguments)
    assert all(word in err for word in words), err


@pytest.mark.parametrize("arguments", [["--condition", "region=chile"], ["--condition-file", "quakes.csv"]], ids=str)
def test_an_unconditional_flow_takes_none(arguments: list[str], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    err = refused(capsys, "sample", "free", *arguments)
    assert "the flow in free knows no conditions by name" in err
    if "--condition" in arguments:
        assert "knows no conditions" in refused(capsys, "log-prob", "free", "quakes.csv", *arguments)
        assert "knows no conditions" in refused(capsys, "plot", "free", *arguments)


# Scores, comparison, picture.


def test_scores_read_their_conditions_from_the_table(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flow = rfm.Flow.load(here / "run")
    assert flow.conditions is not None
    some = (here / "quakes.csv").read_text().splitlines(keepends=True)[:9]
    (here / "quakes.csv").write_text("".join(some))
    table = read_table(here / "quakes.csv")
    points = rfm.datasets.choose_coordinates(flow.manifold, table).points(table)
    for arguments, condition in (
        ([], read_conditions(table, flow.conditions)),
        (["--condition", "region=chile"], flow.conditions.encode({"region": "chile"})),
        (["--condition", "region="], None),
    ):
        scores = values(run(capsys, "log-prob", "run", "quakes.csv", *arguments)[0])
        expected = flow.log_prob(points, condition=condition).numpy()
        np.testing.assert_allclose(scores[:, 0], expected, atol=1e-4)
    (here / "points.csv").write_text("latitude,longitude\n1,2\n")
    err = refused(capsys, "log-prob", "run", "points.csv")
    assert "points.csv: there is no column 'magnitude', a condition of this flow" in err
    assert values(run(capsys, "log-prob", "run", "points.csv", "--condition", "year=2000")[0]).shape == (1, 2)


def test_the_comparison_has_the_flow_with_and_without_conditions(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = json.loads(run(capsys, "evaluate", "run", "--json", "--quiet")[0])
    given = ["one kernel in the condition", "kernels per condition", "flow with conditions"]
    assert list(record["test_nll_nats"])[-4:] == ["flow without conditions", *given]
    nll = {name: row["mean"] for name, row in record["test_nll_nats"].items()}
    gain = record["conditional_minus_unconditional_nats"]
    assert gain["mean"] == pytest.approx(nll["flow with conditions"] - nll["flow without conditions"], abs=1e-6)
    assert gain["interval_95"][0] <= gain["mean"] <= gain["interval_95"][1]
    best = nll[record["best_kernel"]]
    assert "kernel" in record["best_kernel"]
    assert record["flow_minus_best_kernel_nats"]["mean"] == pytest.approx(
        nll["flow without conditions"] - best, abs=1e-6
    )
    best = record["best_conditional_kernel"]
    assert best in given[:2]
    assert record["conditional_flow_minus_best_kernel_nats"]["mean"] == pytest.approx(
        nll["flow with conditions"] - nll[best], abs=1e-6
    )
    text, _ = run(capsys, "evaluate", "run", "--quiet")
    assert "flow with minus without conditions, per point" in text
    assert f"the best kernel given them is that of the validation points: {best}" in text
    free = json.loads(run(capsys, "evaluate", "free", "--json", "--quiet")[0])
    assert list(free["test_nll_nats"])[-1] == "flow"
    assert "conditional_minus_unconditional_nats" not in free


def test_the_picture_of_a_condition(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rfm import plotting

    asked: list[dict[str, Any]] = []

    def few(flow: rfm.Flow, points: torch.Tensor, **options: Any) -> Any:
        asked.append({"points": points, **options})
        return original(flow, points[:20], samples=points[:20], evaluations=60, **options)

    original = plotting.plot_flow
    monkeypatch.setattr(plotting, "plot_flow", few)
    run(capsys, "plot", "run", "--condition", "region=chile", "magnitude=6", "--out", "chile.png")
    run(capsys, "plot", "run", "--out", "free.png")
    assert (here / "chile.png").read_bytes() != (here / "free.png").read_bytes()
    given, free = asked
    assert given["title"] == "quakes.csv: magnitude = 6, Region = Chile"
    assert given["condition"].tolist()[1] == 0
    # Of the 25 rows of Chile, the tenth with magnitudes nearest to 6.
    assert len(given["points"]) == 2
    assert (given["points"][:, 2] < 0).all()
    assert free["condition"] is None
    assert len(free["points"]) == 60


@pytest.mark.slow
def test_regions_are_learned_from_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_quakes(tmp_path / "quakes.csv", 200)
    fit = [
        "fit",
        table,
        *_FIT,
        "--steps",
        600,
        "--batch-size",
        128,
        "--condition",
        "region",
        "magnitude",
        "--out",
        tmp_path / "run",
    ]
    run(capsys, *fit)
    for region, sign in (("chile", -1), ("japan", 1)):
        out, _ = run(capsys, "sample", tmp_path / "run", "-n", 100, "--condition", f"region={region}")
        share = (sign * values(out)[:, 0] > 0).mean()
        assert share > 0.8, region


def test_the_conditions_read_back_are_those_of_the_table_only(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n" + "x,1\ny,2\n" * 4)
    conditions, _ = find_conditions(read_table(tmp_path / "t.csv"), ["a", "b"])
    (tmp_path / "more.csv").write_text("b,a\n1,x\n2,z\n")
    with pytest.raises(TableError, match=r"line 3: a has no label 'z'; it has x, y"):
        read_conditions(read_table(tmp_path / "more.csv"), conditions)
