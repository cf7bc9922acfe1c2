"""Saved flows: what goes in comes out, whatever is wrong is said in one sentence, and no file runs code."""

import json
import os
import pickle
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from manifold_zoo import ZOO
from random_fields import points
from torch import Tensor, nn

import manifolds
from manifolds import (
    SO3,
    SPD,
    Cyclic,
    Dihedral,
    Euclidean,
    Hyperboloid,
    Icosahedral,
    LeftMultiplication,
    Manifold,
    Octahedral,
    Power,
    Product,
    Quotient,
    RightMultiplication,
    Sphere,
    Tetrahedral,
)
from rfm import Flow
from rfm.flow.saved_flow import saved_manifold
from rfm.integrators import RK4, FixedStep
from rfm.networks import VelocityField
from rfm.records import descriptions as serialization
from rfm.records.descriptions import SavedFlowError, build, describe
from rfm.sources import IsotropicGaussianSO3, Source, Uniform, VonMisesFisher, WrappedNormal, default_source

STEPS = FixedStep(RK4, 2)
CRYSTALS = [
    Quotient(SO3(), RightMultiplication(Octahedral())),
    Quotient(SO3(), LeftMultiplication(Dihedral(3))),
    Quotient(SO3(), RightMultiplication(Cyclic(4))),
    Quotient(SO3(), RightMultiplication(Tetrahedral())),
    Quotient(SO3(), RightMultiplication(Icosahedral())),
    Power(Product(Quotient(SO3(), RightMultiplication(Octahedral())), Sphere(2), weights=(2.0, 0.5)), 2),
]


class Mine(Sphere):
    """A manifold of the user's own."""

    def __init__(self, scale: float) -> None:
        super().__init__(2)
        self.scale = scale
        self.register_buffer("offset", torch.zeros(3))


class Push(nn.Module):
    """A field of the user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.direction - (x @ self.direction)[..., None] * x


def swirl(x: Tensor, t: Tensor) -> Tensor:
    return torch.stack([-x[..., 1], x[..., 0], 0 * x[..., 2]], dim=-1)


def network(m: Manifold, **settings: Any) -> VelocityField:
    field = VelocityField(m, width=8, depth=1, features=4, **settings)
    generator = torch.Generator().manual_seed(0)
    for parameter in field.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return field


def sphere_flow(seed: int = 0) -> Flow:
    m = Sphere(2)
    flow = Flow(m, network(m))
    with torch.no_grad():
        flow.field.last.bias += seed  # type: ignore[union-attr]
    return flow


def same_samples(a: Flow, b: Flow) -> bool:
    draws = [f.sample(4, generator=torch.Generator().manual_seed(1), solver=STEPS) for f in (a, b)]
    return torch.equal(*draws)


def edit(folder: Path, **changes: Any) -> None:
    record = json.loads((folder / "flow.json").read_text())
    record.update(changes)
    (folder / "flow.json").write_text(json.dumps(record))


# Round trips.


EVERY = [*[pytest.param(make(), id=name) for name, make in ZOO], *[pytest.param(m, id=str(m)) for m in CRYSTALS]]


@pytest.mark.parametrize("m", EVERY)
def test_manifolds_are_described_and_built(m: Manifold) -> None:
    record = json.loads(json.dumps(describe(m), allow_nan=False))
    again = build(record, "here")
    assert type(again) is type(m)
    assert repr(again) == repr(m)
    assert (again.volume, again.dim, again.event_shape) == (m.volume, m.dim, m.event_shape)
    x, y = points(m, 3), points(m, 3, seed=50)
    assert torch.equal(again.embed(x), m.embed(x))
    assert torch.equal(again.dist(x, y), m.dist(x, y))


@pytest.mark.parametrize(
    "m",
    [Sphere(2), Hyperboloid(2, 0.5), Product(Sphere(2), SO3(), weights=(1.0, 0.3)), Power(Sphere(2), 2), CRYSTALS[0]],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_flows_come_back_as_they_were(m: Manifold, dtype: torch.dtype, tmp_path: Path) -> None:
    field = network(m, condition_dim=2, offset=[0.1] * m.embed_dim, scale=0.7, condition_scale=[1.0, 3.0])
    flow = Flow(m, field, default_source(m, points(m, 20))).to(dtype)
    flow.history, flow.stopped = [{"step": 1, "loss": 0.5, "validation_nll": 1 / 3, "seconds": 0.1}], "all steps done"
    flow.save(tmp_path / "run")
    again = Flow.load(tmp_path / "run")
    assert not again.training
    assert (again.history, again.stopped) == (flow.history, flow.stopped)
    assert again.state_dict().keys() == flow.state_dict().keys()
    for name, tensor in flow.state_dict().items():
        assert again.state_dict()[name].dtype == tensor.dtype
        assert torch.equal(again.state_dict()[name], tensor)
    assert again.field.manifold is again.manifold is again.source.manifold  # type: ignore[union-attr]
    assert same_samples(flow, again)
    x = points(m, 2, dtype=dtype)
    condition = torch.tensor([0.5, -0.5])
    values = [f.log_prob(x, solver=STEPS, condition=condition) for f in (flow, again)]
    assert torch.equal(*values)
    assert sorted(p.name for p in (tmp_path / "run").iterdir())[0] == "flow.json"


def test_saving_again_leaves_one_set_of_weights(tmp_path: Path) -> None:
    for seed in (0, 1, 1):
        flow = sphere_flow(seed)
        flow.save(tmp_path)
        assert len(list(tmp_path.iterdir())) == 2
        assert same_samples(flow, Flow.load(tmp_path))


def test_files_are_text_and_plain_tensors_and_nothing_is_pickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("pickled")

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "dumps"), (torch, "load"), (torch, "save")):
        monkeypatch.setattr(module, name, refuse)
    sphere_flow().save(tmp_path)
    Flow.load(tmp_path)
    assert json.loads((tmp_path / "flow.json").read_text())["version"] == 2
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".safetensors"]


@pytest.mark.parametrize(
    "source",
    [
        Uniform(Sphere(2)),
        WrappedNormal(Hyperboloid(2), points(Hyperboloid(2)), 0.3),
        default_source(Product(Sphere(2), Euclidean(1)), points(Product(Sphere(2), Euclidean(1)), 9)),
        default_source(Power(SPD(2), 2), points(Power(SPD(2), 2), 9)),
        VonMisesFisher(Sphere(2), points(Sphere(2)), 3.0),
        IsotropicGaussianSO3(points(SO3()), 0.4),
    ],
    ids=lambda source: type(source).__name__,
)
def test_sources_are_described_and_built(source: Source) -> None:
    record = json.loads(json.dumps(describe(source, {"manifold": source.manifold}), allow_nan=False))
    again = build(record, "here", {"manifold": source.manifold})
    assert type(again) is type(source)
    x = points(source.manifold, 4)
    assert torch.equal(again.log_prob(x), source.log_prob(x))


# What the user wrote must be passed in.


def test_a_manifold_of_your_own_is_passed_in(tmp_path: Path) -> None:
    m = Mine(2.0)
    flow = Flow(m, network(m))
    flow.save(tmp_path)
    with pytest.raises(SavedFlowError, match=r"manifold uses .*Mine.* pass it to load"):
        Flow.load(tmp_path)
    own = Mine(2.0)
    again = Flow.load(tmp_path, manifold=own)
    assert again.manifold is own
    assert again.field.manifold is own  # type: ignore[union-attr]
    assert again.source.manifold is own
    assert same_samples(flow, again)


def test_a_part_of_a_manifold_of_your_own_is_passed_in_with_the_whole(tmp_path: Path) -> None:
    m = Power(Mine(2.0), 2)
    Flow(m, network(m)).save(tmp_path)
    with pytest.raises(SavedFlowError, match="Mine"):
        Flow.load(tmp_path)
    assert Flow.load(tmp_path, manifold=Power(Mine(2.0), 2)).field is not None


def test_a_field_of_your_own_is_passed_in(tmp_path: Path) -> None:
    flow = Flow(Sphere(2), Push())
    with torch.no_grad():
        flow.field.direction += 1  # type: ignore[union-attr,operator]
    flow.save(tmp_path / "module")
    with pytest.raises(SavedFlowError, match=r"field uses .*Push.* pass it to load"):
        Flow.load(tmp_path / "module")
    assert same_samples(flow, Flow.load(tmp_path / "module", field=Push()))
    plain = Flow(Sphere(2), swirl)
    plain.save(tmp_path / "function")
    with pytest.raises(SavedFlowError, match="swirl"):
        Flow.load(tmp_path / "function")
    assert same_samples(plain, Flow.load(tmp_path / "function", field=swirl))


def test_a_source_of_your_own_is_passed_in(tmp_path: Path) -> None:
    class Own(Uniform):
        pass

    Flow(Sphere(2), network(Sphere(2)), Own(Sphere(2))).save(tmp_path)
    with pytest.raises(SavedFlowError, match=r"source uses .*Own"):
        Flow.load(tmp_path)
    assert type(Flow.load(tmp_path, source=Own(Sphere(2))).source) is Own
    assert type(Flow.load(tmp_path, source=Own(saved_manifold(tmp_path))).source) is Own


def test_what_makes_a_source_is_no_source(tmp_path: Path) -> None:
    Flow(Sphere(2), network(Sphere(2))).save(tmp_path)
    with pytest.raises(ValueError, match=r"source must be a Source, got method WrappedNormal.fit; make it first"):
        Flow.load(tmp_path, source=WrappedNormal.fit)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="got str; make it first"):
        Flow.load(tmp_path, source="uniform")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"manifold must be a Manifold, got .* Sphere; make it first"):
        Flow.load(tmp_path, manifold=Sphere)  # type: ignore[arg-type]


def test_a_class_of_the_same_name_is_not_taken_for_ours() -> None:
    own = type("Sphere", (Sphere,), {"__module__": "manifolds"})
    assert describe(own(2)) == {"external": "manifolds.Sphere"}


# Files that name code.


@pytest.mark.parametrize("key", ["manifold", "field", "source"])
@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "posix.system",
        "subprocess.Popen",
        "builtins.eval",
        "torch.nn.Linear",
        "manifolds.base.os.system",
        "manifolds.testing.check_manifold",
        "manifolds.base.torch",
        "rfm.sources.default_source",
        "rfm.sources.base.torch.load",
        "rfm.records.descriptions.build",
        "rfm.networks.__builtins__",
        "evil_module_of_the_file.Thing",
        "manifolds.",
        ".Sphere",
        "Sphere",
        "",
        None,
        3,
        ["os", "system"],
    ],
    ids=str,
)
def test_foreign_names_are_neither_imported_nor_called(
    key: str, name: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sphere_flow().save(tmp_path)
    (tmp_path / "evil_module_of_the_file.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    edit(tmp_path, **{key: {"class": name, "arguments": {"command": f"touch {tmp_path}/owned"}}})
    before = set(sys.modules)
    with pytest.raises(SavedFlowError, match=f"{key} names .* no class of this library"):
        Flow.load(tmp_path)
    assert not (tmp_path / "owned").exists()
    assert not {n for n in set(sys.modules) - before if not n.startswith(("rfm", "manifolds", "torch"))}
    edit(tmp_path, **{key: {"external": "os.system", "arguments": {}}})
    with pytest.raises(SavedFlowError, match=r"uses os\.system"):
        Flow.load(tmp_path)


def test_nested_foreign_names_are_refused_too(tmp_path: Path) -> None:
    sphere_flow().save(tmp_path)
    evil = {"class": "os.system", "arguments": {"command": "true"}}
    edit(tmp_path, manifold={"class": "manifolds.Product", "arguments": {"factors": [evil], "weights": None}})
    with pytest.raises(SavedFlowError, match=r"os\.system"):
        Flow.load(tmp_path)


# Damage.


ARGUMENTS: list[tuple[str, Any]] = [
    ("manifold", None),
    ("manifold", 3),
    ("manifold", "manifolds.Sphere"),
    ("manifold", []),
    ("manifold", {"class": "manifolds.Sphere"}),
    ("manifold", {"class": "manifolds.Sphere", "arguments": [2]}),
    ("manifold", {"class": "manifolds.Sphere", "arguments": {}}),
    ("manifold", {"class": "manifolds.Sphere", "arguments": {"n": "two"}}),
    ("manifold", {"class": "manifolds.Sphere", "arguments": {"n": -4}}),
    ("manifold", {"class": "manifolds.Sphere", "arguments": {"n": 4000}}),
    ("manifold", {"class": "manifolds.Sphere", "arguments": {"n": 2, "m": 3}}),
    ("manifold", {"class": "manifolds.Sphere", "arguments": {"n": 3}}),
    ("manifold", {"class": "manifolds.Power", "arguments": {"m": 5, "k": 2}}),
    ("manifold", {"class": "manifolds.Quotient", "arguments": {"m": 5, "group": None}}),
    ("manifold", {"class": "manifolds.Octahedral", "arguments": {}}),
    ("manifold", {"shared": "manifold"}),
    ("field", {"shared": "manifold"}),
    ("field", {"shared": "nothing"}),
    ("field", {"shared": ["a"]}),
    ("field", {"class": "rfm.networks.VelocityField", "arguments": {"manifold": 3}}),
    ("field", {"class": "manifolds.Sphere", "arguments": {"n": 2}}),
    ("source", {"class": "rfm.sources.Uniform", "arguments": {"manifold": None}}),
    ("source", {"class": "rfm.sources.Source", "arguments": {"manifold": {"shared": "manifold"}}}),
    ("source", {"shared": "manifold"}),
    ("source", None),
    ("weights", None),
    ("weights", "weights-0000000000000000.safetensors"),
    ("weights", "weights-" + "a" * 5000),
    ("version", 3),
    ("version", None),
    ("format", "something else"),
    ("start", "late"),
    ("start", 2),
    ("refinement", 3),
    ("refinement", {}),
    ("refinement", {"starts": [1], "sources": [None], "weights": [1]}),
    ("refinement", {"starts": [1], "sources": [{"shared": "source"}], "weights": "half"}),
    ("refinement", {"starts": [], "sources": [], "weights": []}),
]


@pytest.mark.parametrize(("key", "value"), ARGUMENTS, ids=[f"{k}={str(v)[:60]}" for k, v in ARGUMENTS])
def test_damaged_records_get_one_sentence(key: str, value: object, tmp_path: Path) -> None:
    sphere_flow().save(tmp_path)
    edit(tmp_path, **{key: value})
    with pytest.raises(SavedFlowError) as caught:
        Flow.load(tmp_path)
    said = str(caught.value)
    assert str(tmp_path) in said
    assert "\n" not in said
    assert len(said) < 400 + len(str(tmp_path))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b"null",
        b"\xff\xfe",
        b"\x00" * 50,
        b"[" * 100_000,
        b'{"version": ' + b"1" * 5000 + b"}",
        b'{"format": "rfm flow"}',
        b'{"format": "rfm flow", "weights": "x", "version": 1}',
    ],
    ids=range(11),
)
def test_files_that_are_no_records_get_one_sentence(content: bytes, tmp_path: Path) -> None:
    sphere_flow().save(tmp_path)
    (tmp_path / "flow.json").write_bytes(content)
    with pytest.raises(SavedFlowError, match=r"flow\.json") as caught:
        Flow.load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("depth", [300, 900])
def test_deep_nesting_is_refused(depth: int, tmp_path: Path) -> None:
    sphere_flow().save(tmp_path)
    record = json.loads((tmp_path / "flow.json").read_text())
    record["field"] = "HERE"
    text = json.dumps(record).replace('"HERE"', "[" * depth + "]" * depth)
    (tmp_path / "flow.json").write_text(text)
    with pytest.raises(SavedFlowError):
        Flow.load(tmp_path)


@pytest.mark.parametrize("where", [0.0, 0.3, 0.6, 0.95])
def test_truncated_records_and_weights(where: float, tmp_path: Path) -> None:
    sphere_flow().save(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        path.write_bytes(whole[: int(where * len(whole))])
        with pytest.raises(SavedFlowError, match="copy it again, or fit again"):
            Flow.load(tmp_path)
        path.write_bytes(whole)
    Flow.load(tmp_path)


def test_flipped_bytes_renamed_and_missing_weights(tmp_path: Path) -> None:
    sphere_flow().save(tmp_path)
    (weights,) = tmp_path.glob("*.safetensors")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(SavedFlowError, match="does not match its name"):
        Flow.load(tmp_path)
    weights.write_bytes(whole)
    other = tmp_path / "weights-0123456789abcdef.safetensors"
    weights.rename(other)
    with pytest.raises(SavedFlowError, match="is missing"):
        Flow.load(tmp_path)
    edit(tmp_path, weights=other.name)
    with pytest.raises(SavedFlowError, match="does not match its name"):
        Flow.load(tmp_path)


def test_rubbish_with_the_right_name_is_refused(tmp_path: Path) -> None:
    sphere_flow().save(tmp_path)
    rubbish = b"not tensors at all"
    name = f"weights-{serialization.hashlib.sha256(rubbish).hexdigest()[:16]}.safetensors"
    (tmp_path / name).write_bytes(rubbish)
    edit(tmp_path, weights=name)
    with pytest.raises(SavedFlowError, match="holds no tensors"):
        Flow.load(tmp_path)


@pytest.mark.parametrize("shape", ["wider", "deeper"])
def test_weights_of_another_network_are_refused(shape: str, tmp_path: Path) -> None:
    sphere_flow().save(tmp_path)
    record = json.loads((tmp_path / "flow.json").read_text())
    record["field"]["arguments"]["width" if shape == "wider" else "depth"] += 1
    edit(tmp_path, field=record["field"])
    with pytest.raises(SavedFlowError, match="do not fit the field") as caught:
        Flow.load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["../{}", "{}/../{}", "/etc/passwd", "..", ".", "", "sub/{}", "./{}", "{}\0", "C:\\x", "{}\n"]
)
def test_weights_are_read_from_the_folder_itself_alone(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    sphere_flow().save(folder)
    (weights,) = folder.glob("*.safetensors")
    for place in (tmp_path, folder / "sub"):
        place.mkdir(exist_ok=True)
        (place / weights.name).write_bytes(weights.read_bytes())
    edit(folder, weights=name.replace("{}", weights.name))
    with pytest.raises(SavedFlowError, match="must be a file beside it"):
        Flow.load(folder)


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(SavedFlowError, match="not a folder"):
        Flow.load(tmp_path / "nothing")
    (tmp_path / "file").write_text("x")
    with pytest.raises(SavedFlowError, match="not a folder"):
        Flow.load(tmp_path / "file")
    with pytest.raises(SavedFlowError, match="not a saved flow"):
        Flow.load(tmp_path)
    (tmp_path / "flow.json").mkdir()
    with pytest.raises(SavedFlowError, match="cannot be read"):
        Flow.load(tmp_path)


# Interrupted.


def test_a_kill_at_any_moment_leaves_the_old_flow_or_the_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call that changes the disk is the last one once; nothing after it runs, not even the tidying up."""

    class KilledError(BaseException):
        pass

    old, new = sphere_flow(0), sphere_flow(1)
    outcomes = []
    for last in range(40):
        folder = tmp_path / str(last)
        old.save(folder)
        left = [last]

        def mortal(function: Callable[..., Any], left: list[int] = left) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                if left[0] <= 0:
                    raise KilledError
                left[0] -= 1
                return function(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            for name in ("write_bytes", "write_text", "replace", "chmod", "unlink", "mkdir"):
                patch.setattr(Path, name, mortal(getattr(Path, name)))
            patch.setattr(tempfile, "mkstemp", mortal(tempfile.mkstemp))
            try:
                new.save(folder)
                done = True
            except KilledError:
                done = False
        again = Flow.load(folder)
        is_new = same_samples(new, again)
        assert is_new or same_samples(old, again)
        outcomes.append(is_new)
        # Saving once more works on what is left.
        new.save(folder)
        assert same_samples(new, Flow.load(folder))
        if done:
            break
    assert done
    assert outcomes == sorted(outcomes)
    assert 0 < sum(outcomes) < len(outcomes)


def test_new_files_get_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    sphere_flow().save(tmp_path)
    assert {path.stat().st_mode for path in tmp_path.iterdir()} == {(tmp_path / "plain").stat().st_mode}
    mask = os.umask(0)
    os.umask(mask)
    assert mask == serialization._umask()


# What is public.


def test_every_public_manifold_and_source_is_known() -> None:
    for name in manifolds.__all__:
        if not isinstance(getattr(manifolds, name), type):
            continue
        assert serialization._public_class(f"manifolds.{name}") is getattr(manifolds, name)
    assert serialization._public_class("rfm.sources.WrappedNormal") is WrappedNormal
    assert describe(WrappedNormal(Euclidean(1), torch.tensor([1 / 3], dtype=torch.float64)))["arguments"]["mean"] == [
        1 / 3
    ]
