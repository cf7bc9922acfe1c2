"""Packaged models: half precision, a card, and the command line that draws from one by name."""

import sys
from pathlib import Path

import pytest
import torch

import rfm
from manifolds import CentredPoses, Sphere
from rfm import models
from rfm.command_line import main as cli
from rfm.models import Card, packaged
from rfm.networks import FrameField, VelocityField
from rfm.proteins import structures
from rfm.records.descriptions import SavedFlowError
from rfm.sources import CentredPoseSource, Uniform

CARD = Card("draws nothing of use", "no data", "none", {"chains": "0"}, ("It is not trained.",), "rfm sample --model x")


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of models in place of the package's."""
    monkeypatch.setattr(packaged, "_HERE", tmp_path)
    return tmp_path


def flow_of_backbones() -> rfm.Flow:
    manifold = CentredPoses(12, 10.0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        field = FrameField(10.0, 16, 8, 1)
        for parameter in field.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return rfm.Flow(manifold, field, CentredPoseSource(manifold))


def test_a_packed_flow_is_the_flow_rounded_to_half_precision(shelf: Path) -> None:
    flow = flow_of_backbones()
    models.pack(flow, shelf / "small", CARD)
    assert all(p.dtype == torch.float32 for p in flow.parameters())
    loaded = models.load("small")
    for a, b in zip(flow.parameters(), loaded.parameters(), strict=True):
        assert b.dtype == torch.float32
        assert torch.equal(b, a.half().float())
    assert models.names() == ["small"]
    assert models.card("small") == CARD


def test_weights_that_do_not_fit_are_refused(shelf: Path) -> None:
    flow = flow_of_backbones()
    next(flow.parameters()).data[:] = 1e6
    with pytest.raises(ValueError, match="beyond half precision"):
        models.pack(flow, shelf / "wide", CARD)
    large = VelocityField(Sphere(2), width=1500, depth=4)
    with pytest.raises(ValueError, match="train a smaller network"):
        models.pack(rfm.Flow(Sphere(2), large, Uniform(Sphere(2))), shelf / "large", CARD)


def test_damage_is_seen(shelf: Path) -> None:
    models.pack(flow_of_backbones(), shelf / "small", CARD)
    (weights,) = (shelf / "small").glob("weights-*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(SavedFlowError, match="does not match its name"):
        models.load("small")
    (shelf / "small" / "card.json").write_text('{"summary": "s", "data": "d", "hours": 3}')
    with pytest.raises(SavedFlowError, match="missing or unknown: hours, training"):
        models.card("small")


def test_backbones_are_drawn_from_a_model_by_name(
    shelf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("gemmi")
    models.pack(flow_of_backbones(), shelf / "small", CARD)
    drawn = ["--length", "9", "-n", "2", "--steps", "2", "--out"]
    assert cli.main(["sample", "--model", "small", *drawn, str(tmp_path / "a")]) == 0
    assert cli.main(["sample", str(shelf / "small"), *drawn, str(tmp_path / "b")]) == 0
    files = sorted(p.name for p in (tmp_path / "a").glob("*.pdb"))
    assert files == ["length-9-0001.pdb", "length-9-0002.pdb"]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    capsys.readouterr()
    assert cli.main(["models"]) == 0
    assert cli.main(["models", "small"]) == 0
    assert capsys.readouterr().out.startswith("small  draws nothing of use\ndraws nothing of use\ndata: no data\n")


def test_without_gemmi_backbones_are_pdb_files(
    shelf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gemmi", None)
    monkeypatch.setattr(structures, "find_spec", lambda name: None)
    models.pack(flow_of_backbones(), shelf / "small", CARD)
    arguments = ["sample", "--model", "small", "--length", "9", "-n", "1", "--steps", "2", "--out", str(tmp_path / "a")]
    assert cli.main(arguments) == 0
    assert "install the extra" in capsys.readouterr().out
    assert [p.suffix for p in sorted((tmp_path / "a").iterdir())] == [".pdb", ".png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sample", "--model", "nonsense"], "no packaged model is called 'nonsense'; there are small"),
        (["sample"], "either the folder of a run or --model NAME, got neither"),
        (["sample", "run", "--model", "small"], "got both"),
        (["models", "nonsense"], "there are small"),
    ],
)
def test_a_model_that_is_not_there_gets_a_sentence(
    shelf: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    models.pack(flow_of_backbones(), shelf / "small", CARD)
    assert cli.main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", models.names())
def test_what_is_packaged_can_be_loaded_and_is_small(name: str) -> None:
    card = models.card(name)
    assert card.figures
    assert card.limits
    assert sum(path.stat().st_size for path in models.folder(name).iterdir()) < 10e6
    flow = models.load(name)
    assert all(bool(p.isfinite().all()) for p in flow.parameters())
