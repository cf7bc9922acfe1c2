"""What the command line says about input it cannot use: where, what and the remedy, in three lines at most."""

import hashlib
import io
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import rfm
from manifolds import Sphere
from rfm.command_line import main as cli
from rfm.command_line.run_folder import RunData
from rfm.datasets.geographic import LatitudeLongitude
from rfm.datasets.splits import group_split
from rfm.networks import VelocityField
from rfm.records.descriptions import write_json

_GOOD = "latitude,longitude\n" + "".join(f"{i},{10 * i}\n" for i in range(12))


def snapshot(folder: Path) -> dict[str, str]:
    """Every file below a folder, and a hash of its content."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


def refused(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: object) -> str:
    """Run a command that must be refused in the way this file is about; return what it said."""
    before = snapshot(folder)
    status = cli.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert status == 2, (out, err)
    assert out == ""
    assert 1 <= len(err.splitlines()) <= 3, err
    assert "Traceback" not in err
    assert not set(err) & set("│╭╰─┌└║═"), err
    assert err.startswith("rfm")
    assert snapshot(folder) == before
    return err


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RFM_DATA", raising=False)
    return tmp_path


_FIT = ["fit", "t.csv", "--manifold", "sphere", "--out", "run", "--steps", "5", "--quiet", "--device", "cpu"]

# Content of the table; what the message must hold.
_TABLES: dict[str, tuple[str | bytes, list[str]]] = {
    "NaN": (_GOOD + "nan,3\n", ["t.csv, line 14", "is not a finite number", "repair or remove"]),
    "infinity": (_GOOD + "3,-inf\n", ["t.csv, line 14", "is not a finite number", "repair or remove"]),
    "word": (_GOOD + "3,east\n", ["t.csv, line 14", "'east' is not a number", "repair or remove"]),
    "empty cell": (_GOOD + "3,\n", ["t.csv, line 14", "an empty cell", "repair or remove"]),
    "latitude": (_GOOD + "90.5,3\n", ["t.csv, line 14", "latitude 90.5 is not in -90 to 90", "repair"]),
    "longitude": (_GOOD + "3,361\n", ["t.csv, line 14", "longitude 361 is not in -180 to 360", "repair"]),
    "swapped": (
        "latitude,longitude\n" + "".join(f"{20 * i},{i}\n" for i in range(12)),
        ["t.csv, line 7", "latitude 100", "look swapped", "correct the header"],
    ),
    "empty": ("", ["t.csv: the file is empty", "put one point on each line"]),
    "header alone": ("latitude,longitude\n", ["t.csv", "a header but no rows", "add points"]),
    "one row": ("latitude,longitude\n1,2\n", ["t.csv", "1 row", "at least 2", "add points"]),
    "two rows": ("latitude,longitude\n1,2\n3,4\n", ["at least 4 different points, got 2"]),
    "one place": ("latitude,longitude\n" + "1,2\n" * 30, ["at least 4 different points, got 1"]),
    "missing column": ("latitude,depth\n1,2\n3,4\n", ["t.csv", "'latitude', 'depth'", "--columns"]),
    "length": (_GOOD + "1,2,3\n", ["t.csv, line 14", "3 cells", "has 2", "repair that line"]),
    "zero bytes": (b"\x00\x01\x02" * 99, ["t.csv", "not a text file", "save the table as CSV"]),
    "not UTF-8": (_GOOD.encode() + b"\xff\xfe,3\n", ["t.csv, line 14", "not UTF-8", "save"]),
    "off the sphere": (
        "x,y,z\n" + "1,0,0\n0,1,0\n0,0,1\n-1,0,0\n" + "1,1,1\n",
        ["t.csv, line 6", "not on the unit sphere", "1.73205", "divide each row"],
    ),
    "quote": ('latitude,longitude\n1,2\n"3,4\n5,6\n', ["t.csv, line 3", "quoted cell does not end", "repair"]),
}


@pytest.mark.parametrize("case", _TABLES)
def test_bad_tables(case: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, words = _TABLES[case]
    (here / "t.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    err = refused(capsys, here, *_FIT)
    for word in words:
        assert word in err


# Arguments added to a fit of a good table; what the message must hold.
_ARGUMENTS: dict[str, tuple[list[str], list[str]]] = {
    "manifold": (["--manifold", "donut"], ["unknown manifold 'donut'", "choose sphere, torus, euclidean"]),
    "module": (["--manifold", "no_such_module:thing"], ["no_such_module:thing", "cannot be imported"]),
    "no thing": (["--manifold", "math:"], ["'math:' does not name a manifold", "write my_module:thing"]),
    "not a manifold": (["--manifold", "math:pi"], ["math:pi", "is not a manifolds.Manifold but float"]),
    "column": (["--columns", "latitude", "depth"], ["t.csv", "no column 'depth'", "'latitude', 'longitude'"]),
    "condition": (["--condition", "depth"], ["t.csv", "no column 'depth'", "'latitude', 'longitude'"]),
    "weights": (["--weights", "w"], ["t.csv", "no column 'w'"]),
    "source": (["--source", "flat"], ["unknown source 'flat'", "choose uniform, wrapped-normal, kernel"]),
    "not a source": (["--source", "math:pi"], ["math:pi", "is neither a rfm.sources.Source nor a function but float"]),
    "a function of something else": (["--source", "math:sqrt"], ["math:sqrt", "cannot be called with a manifold and"]),
    "no source is made": (["--source", "operator:is_"], ["operator:is_", "makes no rfm.sources.Source but bool"]),
    "coupling": (["--coupling", "magnetic"], ["--coupling", "invalid choice: 'magnetic'"]),
    "device": (["--device", "abacus"], ["device 'abacus' cannot be used", "choose another"]),
    "steps": (["--steps", "0"], ["argument --steps", "at least 1", "see rfm fit --help"]),
    "steps in words": (["--steps", "many"], ["--steps: invalid whole number value: 'many'", "see rfm fit --help"]),
    "time": (["--max-seconds", "nan"], ["--max-seconds", "must be a finite number"]),
    "share": (["--test-share", "0.9"], ["--test-share", "between 0 and 0.5"]),
    "seed": (["--seed", "-1"], ["--seed", "at least 0"]),
    "large seed": (["--seed", str(2**63)], ["--seed", "below 2^63"]),
    "option": (["--stepz", "3"], ["unrecognized arguments", "see rfm --help"]),
    "both": (["--resume", "--force"], ["not allowed with"]),
    "out is a file": (["--out", "t.csv"], ["t.csv is a file", "choose another folder"]),
    "out is empty": (["--out", " "], ["argument --out", "must name a file or a folder"]),
    "out below a file": (["--out", "t.csv/run"], ["below one", "choose another folder"]),
}


@pytest.mark.parametrize("case", _ARGUMENTS)
def test_bad_arguments_of_fit(case: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "t.csv").write_text(_GOOD)
    arguments, words = _ARGUMENTS[case]
    err = refused(capsys, here, *_FIT, *arguments)
    for word in words:
        assert word in err


def test_negative_weights_name_their_row(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "t.csv").write_text("lat,lon,w\n" + "".join(f"{i},{i},{5 - i}\n" for i in range(10)))
    err = refused(capsys, here, *_FIT, "--weights", "w")
    assert "t.csv, line 8: weight -1 is negative" in err


def test_a_missing_table_and_a_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "t.csv: there is no such file" in refused(capsys, here, *_FIT)
    (here / "t.csv").mkdir()
    assert "t.csv: this is a folder; name a file in it" in refused(capsys, here, *_FIT)


def test_no_command_and_unknown_commands(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["fly"], ["fit"], ["sample"], ["demo", "moon"]):
        assert "--help" in refused(capsys, here, *arguments)


# Saved flows.


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as a fit makes it, with an untrained field."""
    folder = tmp_path_factory.mktemp("saved") / "run"
    manifold = Sphere(2)
    points = manifold.random_uniform(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    flow = rfm.Flow(manifold, VelocityField(manifold, width=8, depth=1, features=4))
    flow.history = [{"step": 1, "loss": 1.0, "validation_nll": 2.0, "seconds": 0.1}]
    write_json_folder(folder)
    flow.save(folder)
    RunData(points, group_split(points, 0), LatitudeLongitude(), "t.csv").save(folder)
    return folder


def write_json_folder(folder: Path) -> None:
    folder.mkdir()
    write_json(folder / "fit.json", {"fingerprint": "0"})


@pytest.fixture
def broken(saved: Path, here: Path) -> Path:
    """A copy of the run, to be broken."""
    return Path(shutil.copytree(saved, here / "run"))


def _edit(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def edit(run: Path) -> None:
        record = json.loads((run / name).read_text())
        change(record)
        (run / name).write_text(json.dumps(record))

    return edit


def _cut(pattern: str) -> Callable[[Path], None]:
    def cut(run: Path) -> None:
        (path,) = run.glob(pattern)
        path.write_bytes(path.read_bytes()[:-9])

    return cut


def _flip(pattern: str) -> Callable[[Path], None]:
    def flip(run: Path) -> None:
        (path,) = run.glob(pattern)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    return flip


_BREAKS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "no folder": (shutil.rmtree, ["run is not a folder", "flow.json"]),
    "no flow.json": (lambda run: (run / "flow.json").unlink(), ["flow.json does not exist"]),
    "flow.json cut": (_cut("flow.json"), ["flow.json cannot be read", "copy it again"]),
    "flow.json empty": (lambda run: (run / "flow.json").write_text(""), ["flow.json cannot be read"]),
    "flow.json a list": (lambda run: (run / "flow.json").write_text("[1]"), ["flow.json is damaged"]),
    "flow.json deep": (lambda run: (run / "flow.json").write_text("[" * 10**5), ["flow.json cannot be read"]),
    "flow.json binary": (lambda run: (run / "flow.json").write_bytes(b"\xff\xfe"), ["flow.json cannot be read"]),
    "version": (_edit("flow.json", lambda r: r.update(version=99)), ["format version 99", "this library reads"]),
    "other class": (_edit("flow.json", lambda r: r["field"].update({"class": "os.system"})), ["'os.system'"]),
    "external": (_edit("flow.json", lambda r: r.update(field={"external": "my.Field"})), ["my.Field", "pass it"]),
    "arguments": (_edit("flow.json", lambda r: r["field"]["arguments"].update(width="x")), ["VelocityField"]),
    "other width": (_edit("flow.json", lambda r: r["field"]["arguments"].update(width=9)), ["do not fit the field"]),
    "weights outside": (_edit("flow.json", lambda r: r.update(weights="../x-0.safetensors")), ["damaged"]),
    "no weights": (lambda run: next(run.glob("weights-*")).unlink(), ["is missing", "copy it"]),
    "weights cut": (_cut("weights-*"), ["is damaged", "copy it again, or fit again"]),
    "weights flipped": (_flip("weights-*"), ["is damaged", "copy it again, or fit again"]),
    "no run.json": (lambda run: (run / "run.json").unlink(), ["holds no data", "--resume"]),
    "run.json cut": (_cut("run.json"), ["run.json cannot be read"]),
    "no data": (lambda run: next(run.glob("data-*")).unlink(), ["data-", "is missing"]),
    "data flipped": (_flip("data-*"), ["data-", "is damaged"]),
    "no coordinates": (_edit("run.json", lambda r: r.pop("coordinates")), ["run.json is damaged"]),
    "other coordinates": (
        _edit("run.json", lambda r: r["coordinates"].update(kind="polar")),
        ["run.json is damaged", "the kinds are"],
    ),
    "data of another fit": (_edit("run.json", lambda r: r.update(fit="1")), ["of an earlier fit", "--resume"]),
}


@pytest.mark.parametrize("case", _BREAKS)
def test_damaged_runs(case: str, broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (broken.parent / "t.csv").write_text(_GOOD)
    damage, words = _BREAKS[case]
    damage(broken)
    for command in (["sample", "run"], ["log-prob", "run", "t.csv"], ["evaluate", "run"], ["plot", "run"]):
        err = refused(capsys, broken.parent, *command)
        for word in words:
            assert word in err


def test_the_undamaged_run_works(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sample", "run", "-n", "2"]) == 0
    assert capsys.readouterr().out.startswith("latitude,longitude\n")


def test_scoring_a_bad_table(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = broken.parent / "t.csv"
    for content, words in (
        ("latitude,longitude\n95,3\n", ["t.csv, line 2", "latitude 95"]),
        ("x,y,z\n1,0,0\n", ["t.csv", "no column 'latitude'"]),
        ("", ["t.csv: the file is empty"]),
    ):
        table.write_text(content)
        err = refused(capsys, broken.parent, "log-prob", "run", "t.csv", "--out", "scores.csv")
        for word in words:
            assert word in err
    table.unlink()
    assert "t.csv: there is no such file" in refused(capsys, broken.parent, "log-prob", "run", "t.csv")


def test_bad_arguments_of_sample(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option, value in (("-n", "0"), ("-n", "1e9"), ("-n", "9" * 30), ("--guidance", "inf"), ("--guidance", "2")):
        refused(capsys, broken.parent, "sample", "run", option, value)
    err = refused(capsys, broken.parent, "sample", "run", "--condition", "size=3")
    assert "the flow in run knows no conditions by name" in err


def test_memory_that_is_not_enough(
    broken: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rfm.Flow, "sample", lambda *args, **options: torch.empty(2**58))
    err = refused(capsys, broken.parent, "sample", "run")
    assert err == "rfm sample: the memory is not enough; use a smaller --batch-size\n"
    monkeypatch.setattr(rfm.Flow, "sample", lambda *args, **options: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        cli.main(["sample", str(broken.parent / "run")])


def test_no_held_out_points_means_no_evaluation(here: Path, saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = here / "run"
    shutil.copytree(saved, run)
    data = RunData.load(run)
    empty = data.split._replace(test=data.split.test[:0])
    RunData(data.points, empty, data.coordinates, data.source).save(run)
    err = refused(capsys, here, "evaluate", "run")
    assert "held out no test points; fit again" in err


# Data sets.


def test_a_data_set_with_another_checksum(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "earth").mkdir()
    (here / "earth" / "volerup.csv").write_text(_GOOD)
    monkeypatch.setenv("RFM_DATA", str(here))
    err = refused(capsys, here, "demo", "volcano", "--out", "demo")
    assert "volerup.csv" in err
    assert "set RFM_DATA to a folder with the right file" in err


def test_no_network(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    import urllib.error
    import urllib.request

    def unreachable(*arguments: Any, **options: Any) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    monkeypatch.setattr(urllib.request.OpenerDirector, "open", unreachable)
    monkeypatch.setenv("RFM_CACHE", str(tmp_path_factory.mktemp("cache")))
    err = refused(capsys, here, "demo", "earthquake", "--out", "demo")
    assert "no route to host" in err
    assert "set RFM_DATA to a folder that holds earth/quakes_all.csv" in err


# Rubbish.


def _told(arguments: list[str]) -> int:
    """Run a command; check that whatever it was, the fault was told as it should be."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            status = cli.main(arguments)
        except SystemExit as asked:  # --help and --version
            status = int(asked.code or 0)
    assert status in (0, 2), (status, err.getvalue())
    if status == 2:
        assert out.getvalue() == ""
        assert 1 <= len(err.getvalue().splitlines()) <= 3, err.getvalue()
        assert "Traceback" not in err.getvalue()
    return status


@pytest.fixture
def _no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rubbish that happens to be a table is not worth a fit."""

    def refuse(*arguments: Any, **options: Any) -> None:
        raise ValueError("good enough to train on")

    monkeypatch.setattr("rfm.command_line.fitted_runs.fit", refuse)
    monkeypatch.setattr("rfm.datasets.load", refuse)


@pytest.fixture
def empty_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name, chdir(name):
        yield Path(name)


_rubbish = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
_numbers = st.one_of(
    st.floats().map(str), st.integers(-400, 400).map(str), st.sampled_from(["", "lat", "1,5", "nan", "-", '"', "#"])
)
_tables = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(st.lists(_numbers, min_size=1, max_size=4).map(",".join), max_size=8).map(
        lambda lines: "\n".join(["lat,lon", *lines]).encode()
    ),
)


@pytest.mark.usefixtures("_no_training")
@_rubbish
@given(content=_tables, manifold=st.sampled_from(["sphere", "torus", "euclidean"]))
@example(content=b"\xef\xbb\xbf", manifold="sphere")
@example(content=b"x\n1e308\n-1e308\n1\n2\n3\n", manifold="torus")
@example(content=b"1e308,1e308,1e308\n" * 5, manifold="euclidean")
def test_random_bytes_as_a_table(content: bytes, manifold: str, empty_folder: Path) -> None:
    table = empty_folder / "t.csv"
    table.write_bytes(content)
    _told(["fit", "t.csv", "--manifold", manifold, "--out", "run", "--quiet"])
    assert [path.name for path in empty_folder.iterdir()] == ["t.csv"]


_COMMANDS = ["fit", "sample", "log-prob", "evaluate", "plot", "demo", "check"]
_known_words = """
    run t.csv . / .. --manifold sphere torus --out x --columns 1 2 --condition a=1 = --weights --steps -n 0 -1 1e400
    --seed --json --help --version --force --resume --quiet --device cpu --guidance nan -- - a:b :
"""
_words = st.one_of(st.text(max_size=12), st.sampled_from([*_COMMANDS, *_known_words.split()]))


@pytest.mark.usefixtures("_no_training")
@_rubbish
@given(command=st.sampled_from(_COMMANDS), words=st.lists(_words, max_size=6))
@example(command="fit", words=["t.csv", "--manifold", "sphere", "--out", "a\0b"])
@example(command="sample", words=["a\0b"])
@example(command="check", words=["a\0b:c"])
@example(command="check", words=["a..b:c.d"])
@example(command="check", words=[".:c"])
@example(command="sample", words=["run", "--out", "x" * 300])
@example(command="sample", words=["x" * 5000])
@example(command="log-prob", words=["run", "t.csv", "--manifold", "rfm:Flow"])
def test_random_arguments(command: str, words: list[str], empty_folder: Path) -> None:
    (empty_folder / "t.csv").write_text(_GOOD)
    _told([command, *words])
    assert [path.name for path in empty_folder.iterdir()] == ["t.csv"]


_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 50) | st.just(10**20) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@_rubbish
@given(data=st.data())
def test_random_values_in_a_saved_run(data: st.DataObject, saved: Path, empty_folder: Path) -> None:
    run = empty_folder / "run"
    if run.exists():
        shutil.rmtree(run)
    shutil.copytree(saved, run)
    path = run / data.draw(st.sampled_from(["flow.json", "run.json", "fit.json"]))
    record = json.loads(path.read_text())
    # Go down to some entry, and replace it.
    place: Any = record
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
            place = place[key]
            continue
        place[key] = data.draw(_values)
        break
    path.write_text(json.dumps(record))
    _told(["sample", "run", "-n", "1", "--quiet"])


def test_the_process_itself_ends_with_status_2(here: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rfm", "fit", "none.csv", "--manifold", "sphere", "--out", "run"],
        cwd=here,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "rfm fit: none.csv: there is no such file; check the name and the folder\n"
    assert list(here.iterdir()) == []


def test_numbers_at_the_edge_of_floats(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"{value!r}\n" for value in (1e300, -1e300, 1e299, 5.0, math.pi, -1.0))
    (here / "t.csv").write_text("a\n" + rows)
    fit = ["fit", "t.csv", "--manifold", "euclidean", "--out", "run", "--steps", 3, "--quiet", "--device", "cpu"]
    refused(capsys, here, *fit)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("length", [5, 50, 90, 150])
def test_a_fault_is_told_whole_in_three_lines_at_most(
    count: int, length: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = "; ".join(["word " * (length // 5 - 1) + "end"] * count)

    def refuse(name: str) -> None:
        raise ValueError(sentence)

    monkeypatch.setattr("rfm.datasets.load", refuse)
    assert cli.main(["demo"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert " ".join(lines) == f"rfm demo: {sentence}"
    assert len(lines) <= 3
    assert all(line.endswith("end;") for line in lines[:-1])
    assert all(len(line) <= 120 for line in lines[:2]) or length > 100
    assert len(lines) == 1 or len(lines[0]) + length > 110
