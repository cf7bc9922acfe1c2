"""Self-consistency: what ProteinMPNN and ESMFold read, and answers in their formats, of which the truth is known."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import structure_texts as texts
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from manifolds import SO3
from rfm.command_line import main as cli
from rfm.datasets.download import DatasetError
from rfm.proteins import refolding
from rfm.proteins.atom_records import StructureError
from rfm.proteins.structures import read_chain, write_chain

pytest.importorskip("gemmi")
pytest.importorskip("tmtools")

RECORDED = """\
>{name}, score=1.7421, global_score=1.7421, fixed_chains=[], designed_chains=['A'], model_name=v_48_020, seed=37
{glycines}
>T=0.1, sample=1, score=0.8312, global_score=0.8312, seq_recovery=0.0400
{first}
>T=0.1, sample=2, score=0.8467, global_score=0.8467, seq_recovery=0.0800
{second}
"""


@pytest.fixture
def backbones(tmp_path: Path) -> Path:
    """Two backbones as rfm sample writes them: each as .pdb and .cif."""
    folder = tmp_path / "backbones"
    folder.mkdir()
    (tmp_path / "zigzag.pdb").write_text(texts.chain(30) + "END\n")
    generator = torch.Generator().manual_seed(3)
    flat = read_chain(tmp_path / "zigzag.pdb").atoms
    for i in (1, 2):
        bent = flat + torch.randn(30, 1, 3, generator=generator).cumsum(0)
        for suffix in (".pdb", ".cif"):
            write_chain(folder / f"length-30-000{i}{suffix}", bent)
    return folder


def moved(atoms: Tensor, noise: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    turn = SO3().random_uniform(1, generator=generator)[0]
    return atoms @ turn.mT + 20.0 + noise * torch.randn(len(atoms), 1, 3, generator=generator)


def folded(path: Path, atoms: Tensor, sequence: str, confidence: float) -> None:
    """Write a structure as ESMFold does: its confidence in the place of B-factors."""
    write_chain(path, atoms, sequence)
    lines = path.read_text().splitlines()
    scored = [f"{line[:60]}{confidence:6.2f}{line[66:]}" if line[:4] == "ATOM" else line for line in lines]
    path.write_text("\n".join(scored))


def test_backbones_are_written_as_proteinmpnn_parses_them(backbones: Path, tmp_path: Path) -> None:
    out = tmp_path / "backbones.jsonl"
    assert cli.main(["refold", str(backbones), "--for-mpnn", str(out)]) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(one["name"] for one in records) == ["length-30-0001", "length-30-0002"]
    for one in records:
        assert (one["num_of_chains"], one["seq"], one["seq_chain_A"]) == (1, "G" * 30, "G" * 30)
        atoms = read_chain(backbones / f"{one['name']}.pdb").atoms
        for i, atom in enumerate(("N", "CA", "C")):
            assert np.allclose(one["coords_chain_A"][f"{atom}_chain_A"], atoms[:, i].numpy(), atol=2e-3)
        o, c = (np.array(one["coords_chain_A"][f"{atom}_chain_A"]) for atom in "OC")
        assert np.allclose(np.linalg.norm(o - c, axis=1), 1.231, atol=2e-3)


def test_recorded_answers_are_read_back(backbones: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seqs, answers = tmp_path / "designs" / "seqs", tmp_path / "folded"
    seqs.mkdir(parents=True)
    answers.mkdir()
    first, second = "MKVLAT" * 5, "GSDEEL" * 5
    for i in (1, 2):
        name = f"length-30-000{i}"
        text = RECORDED.format(name=name, glycines="G" * 30, first=first, second=second)
        (seqs / f"{name}.fa").write_text(text)
    fasta = tmp_path / "designs.fasta"
    assert cli.main(["refold", str(backbones), "--designs", str(tmp_path / "designs"), "--out", str(fasta)]) == 0
    entries = fasta.read_text().split(">")[1:]
    assert entries[0] == f"length-30-0002_1\n{first}\n"
    assert len(entries) == 4
    good, bad = "length-30-0001", "length-30-0002"
    noise = {(good, 1): 0.0, (good, 2): 0.4, (bad, 1): 4.0, (bad, 2): 5.0}
    expected = {}
    for seed, ((name, number), size) in enumerate(noise.items()):
        atoms = read_chain(backbones / f"{name}.pdb").atoms
        answer = moved(atoms, size, seed)
        sequence, confidence = (first, 0.87) if number == 1 else (second, 61.5)
        folded(answers / f"{name}_{number}.pdb", answer, sequence, confidence)
        a, b = (x[:, 1].double().numpy() for x in (atoms, answer))
        expected[name, number] = Rotation.align_vectors(a - a.mean(0), b - b.mean(0))[1] / np.sqrt(30)
    table = tmp_path / "table.csv"
    assert cli.main(["refold", str(backbones), "--folded", str(answers), "--out", str(table)]) == 0
    assert "1 of 2 backbones are within 2 Angstrom" in capsys.readouterr().err
    with table.open(newline="") as file:
        rows = {(row["backbone"], int(row["design"])): row for row in csv.DictReader(file)}
    assert rows.keys() == expected.keys()
    for key, row in rows.items():
        assert float(row["rmsd"]) == pytest.approx(expected[key], abs=2e-3)
        assert float(row["confidence"]) == pytest.approx(87.0 if key[1] == 1 else 61.5)
    assert float(rows["length-30-0001", 1]["tm"]) == pytest.approx(1.0, abs=1e-3)
    assert float(rows["length-30-0002", 2]["tm"]) < 0.5
    assert rows["length-30-0001", 2]["sequence"] == second


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "does not exist; run ProteinMPNN"),
        (">a\nGGG\n", "holds no sequence after its first"),
        (">a\nGGG\n>b\nGG1\n", "has the letters 1"),
    ],
)
def test_answers_that_cannot_be_read_get_a_sentence(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "a.fa").write_text(text)
    with pytest.raises(DatasetError, match=message):
        refolding.read_designs(tmp_path, ["a"])


def test_structures_of_another_length_or_none_are_refused(backbones: Path, tmp_path: Path) -> None:
    own = refolding.read_backbone_folder(backbones)
    with pytest.raises(StructureError, match=r"holds no length-30-0002_1\.pdb"):
        refolding.self_consistency(own, tmp_path)
    for name in own:
        folded(tmp_path / f"{name}_1.pdb", own[name][:-1], "A" * 29, 50.0)
    with pytest.raises(StructureError, match="has 29 residues, and the backbone length-30-0002 has 30"):
        refolding.self_consistency(own, tmp_path)
