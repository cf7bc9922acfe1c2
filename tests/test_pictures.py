"""Pictures as conditions: from files and numbers to vectors, encoded once, and told in a sentence where they fail."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rfm
from manifolds import SO3
from rfm.command_line import main as cli
from rfm.command_line.run_folder import RunData
from rfm.conditions import Conditions, Number, Picture
from rfm.conditions.pictures import read_picture
from rfm.datasets import Orientations, Split, read_conditions, read_table
from rfm.datasets.tables import TableError
from rfm.networks import Encoded, PictureEncoder, RotationVelocity

SIZE = 8
CONDITIONS = Conditions((Picture("picture", SIZE),))


def picture(seed: int = 0) -> Tensor:
    """Return a picture in shades that a PNG file has."""
    return torch.randint(256, (SIZE, SIZE), generator=torch.Generator().manual_seed(seed)).double() / 255


def written(path: Path, pixels: Tensor, **settings: Any) -> Path:
    from matplotlib.image import imsave

    imsave(path, pixels.numpy(), vmin=0, vmax=1, format="png", **({"cmap": "gray"} | settings))
    return path


def new_flow() -> rfm.Flow:
    velocity = RotationVelocity(channels=1, invariants=2, width=8, depth=1)
    encoder = PictureEncoder(SIZE, velocity.condition_dim, width=2, hidden=8)
    generator = torch.Generator().manual_seed(0)
    nn.init.normal_(velocity.last.weight, std=0.3, generator=generator)
    return rfm.Flow(SO3(), Encoded(encoder, velocity), conditions=CONDITIONS)


def saved(folder: Path) -> Path:
    none = torch.zeros(0, dtype=torch.long)
    new_flow().save(folder)
    columns = Orientations(("qw", "qx", "qy", "qz"), "wxyz")
    RunData(torch.zeros(0, 3, 3), Split(none, none, none), columns, "nothing").save(folder)
    return folder


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    torch.testing.assert_close(read_picture(written(tmp_path / "a.png", picture())), picture(), atol=1 / 255, rtol=0)
    colours = torch.stack([picture(i) for i in range(3)], dim=-1)
    torch.testing.assert_close(
        read_picture(written(tmp_path / "b.png", colours)), colours.mean(-1), atol=1 / 255, rtol=0
    )


def test_files_and_numbers_mean_the_same(tmp_path: Path) -> None:
    files = [written(tmp_path / f"{i}.png", picture(i)) for i in range(2)]
    pictures = torch.stack([picture(0), picture(1), picture(0)])
    vectors = CONDITIONS.encode({"picture": pictures})
    shade = {"atol": 1 / 255, "rtol": 0}
    assert vectors.shape == (3, SIZE**2)
    torch.testing.assert_close(CONDITIONS.encode({"Picture": [files[0], str(files[1]), files[0]]}), vectors, **shade)
    torch.testing.assert_close(CONDITIONS.encode({"picture": str(files[1])}), vectors[1], **shade)
    torch.testing.assert_close(vectors[1].reshape(SIZE, SIZE), picture(1))
    table = tmp_path / "wanted.csv"
    table.write_text("n,picture\n" + "".join(f"1,{files[i]}\n" for i in (0, 1, 0)), encoding="utf-8")
    torch.testing.assert_close(read_conditions(read_table(table), CONDITIONS), vectors, **shade)
    table.write_text(f"n,picture\n1,{files[0]}\n1,\n", encoding="utf-8")
    with pytest.raises(TableError, match=r"line 3.*\n?.*PNG|PNG"):
        read_conditions(read_table(table), CONDITIONS)


def test_a_picture_stands_beside_numbers() -> None:
    both = Conditions((Number("age", 0.0, 9.0), Picture("picture", 2)))
    vectors = both.encode({"picture": [[[0, 1], [0.5, 0]], [[1, 0], [0, 0]]], "age": [3, None]})
    assert vectors[0].tolist() == [3, 0, 1, 0.5, 0]
    assert vectors[1].isnan().tolist() == [True, False, False, False, False]
    assert both.decode(vectors) == {"age": [3.0, None], "picture": [None, None]}
    assert both.title(vectors[0]) == "age = 3, given a picture"
    assert Conditions.from_dict(both.to_dict()) == both
    assert (both.labels, both.required) == ((0,) * 5, ("picture",))
    for record in ({"kind": "picture", "name": "p", "size": "2"}, {"kind": "pictures", "name": "p", "size": 2}):
        with pytest.raises(ValueError, match="these are not conditions"):
            Conditions.from_dict({"columns": [record]})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "must be given"),
        (3, "3 x 3|must be given|pixels"),
        ([["a"]], "must be given"),
        (torch.zeros(SIZE, SIZE - 1), "7 x 8 pixels, 8 x 8 are required"),
        (torch.full((SIZE, SIZE), 255.0), "outside of 0 to 1"),
        (torch.full((SIZE, SIZE), torch.nan), "outside of 0 to 1"),
        (" ", "must be given"),
        ("nowhere.png", "there is no file nowhere.png"),
    ],
)
def test_what_is_no_picture_is_refused(value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CONDITIONS.encode({"picture": value})
    with pytest.raises(ValueError, match="picture is not given"):
        CONDITIONS.encode({})


def test_the_encoder_runs_once_for_a_solve() -> None:
    flow = new_flow()
    calls = []
    flow.field.encoder.register_forward_hook(lambda *_: calls.append(1))  # type: ignore[union-attr]
    x, scores = flow.sample(5, condition={"picture": picture()}, return_log_prob=True)
    assert len(calls) == 1
    # The same as a solver finds that calls the encoder at every step.
    field = flow.field
    plain = rfm.Flow(SO3(), lambda x, t, condition: field(x, t, condition))  # type: ignore[operator]
    own = picture().float().expand(5, SIZE, SIZE).flatten(1)
    torch.testing.assert_close(plain.log_prob(x, condition=own), scores, atol=1e-4, rtol=0)
    # Many pictures, several points each.
    several = torch.stack([picture(i) for i in range(3)]).flatten(1).unsqueeze(1)
    scores = flow.log_prob(x[None].expand(3, 5, 3, 3), condition=several)
    assert scores.shape == (3, 5)
    torch.testing.assert_close(flow.log_prob(x, condition={"picture": picture(2)}), scores[2], atol=1e-4, rtol=0)


def test_what_needs_no_condition_is_refused() -> None:
    flow = new_flow()
    for call in (
        lambda: flow.sample(2),
        lambda: flow.log_prob(torch.eye(3)),
        lambda: flow.trajectory(torch.eye(3), (0.0, 1.0)),
    ):
        with pytest.raises(ValueError, match="condition="):
            call()
    with pytest.raises(ValueError, match="guidance"):
        flow.sample(2, condition={"picture": picture()}, guidance=2.0)


def test_commands_take_the_name_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, file = str(saved(tmp_path / "run")), str(written(tmp_path / "a.png", picture()))
    out = tmp_path / "poses.csv"
    assert cli.main(["sample", run, "-n", "3", "--condition", f"picture={file}", "--out", str(out)]) == 0
    assert out.read_text(encoding="utf-8").splitlines()[0] == "qw,qx,qy,qz"
    rows = ["qw,qx,qy,qz,picture", *(f"{row},{file}" for row in out.read_text(encoding="utf-8").splitlines()[1:])]
    named = tmp_path / "named.csv"
    named.write_text("\n".join(rows), encoding="utf-8")
    scores = []
    for table, more in ((out, ["--condition", f"picture={file}"]), (named, [])):
        capsys.readouterr()
        assert cli.main(["log-prob", run, str(table), *more]) == 0
        lines = capsys.readouterr().out.splitlines()
        scores.append(torch.tensor([float(line.split(",")[0]) for line in lines[1:]]))
    torch.testing.assert_close(scores[0], scores[1], atol=1e-4, rtol=0)
    assert cli.main(["sample", run, "--condition-file", str(named), "--out", str(tmp_path / "each.csv")]) == 0
    assert len((tmp_path / "each.csv").read_text(encoding="utf-8").splitlines()) == 4
    figure = tmp_path / "poses.png"
    assert cli.main(["plot", run, "--condition", f"picture={file}", "--out", str(figure)]) == 0
    assert figure.stat().st_size > 10_000
    small = str(written(tmp_path / "small.png", torch.zeros(4, 4)))
    for command, words in (
        (["sample", run], "--condition picture=FILE"),
        (["plot", run], "--condition picture=FILE"),
        (["sample", run, "--condition", "picture="], "must be given"),
        (["sample", run, "--condition", "picture=none.png"], "there is no file none.png"),
        (["sample", run, "--condition", f"picture={small}"], "4 x 4 pixels, 8 x 8 are required"),
        (["sample", run, "--condition", f"picture={out}"], "is no picture that can be read"),
        (["sample", run, "--condition", f"picture={file}", "--guidance", "2"], "guidance"),
        (["log-prob", run, str(out)], "no column 'picture'"),
        (["evaluate", run], "no test points"),
    ):
        capsys.readouterr()
        assert cli.main(command) == 2, command
        told = capsys.readouterr().err
        assert words in told, told
        assert len(told.splitlines()) <= 3
