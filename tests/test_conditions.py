"""Conditions: names into vectors and back, networks that know some of them or none, guidance, densities."""

import itertools
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from manifold_zoo import ZOO
from random_fields import points
from torch import Tensor, nn

import rfm
from manifolds import FlatTorus, Manifold, Sphere
from rfm.conditions import Conditions, Label, Number
from rfm.integrators import FixedStep
from rfm.networks import VelocityField
from rfm.networks.condition_inputs import ConditionInputs
from rfm.records.descriptions import SavedFlowError
from rfm.steering import Guidance
from rfm.training.points import _hidden

EVERY = pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in ZOO])
STEPS = FixedStep(steps=4)
QUAKES = Conditions(
    (Number("magnitude", 4.0, 9.0), Label("region", ("chile", "fiji", "japan")), Number("depth", 0, 700))
)
SETTINGS: dict[str, Any] = {
    "condition_dim": 3,
    "condition_labels": [0, 3, 0],
    "condition_offset": [6.0, 0.0, 100.0],
    "condition_scale": [1.0, 1.0, 80.0],
}
NAN = math.nan
FULL = torch.tensor([6.5, 1.0, 40.0], dtype=torch.float64)


def network(m: Manifold, dtype: torch.dtype = torch.float64, std: float = 0.3) -> VelocityField:
    field = VelocityField(m, width=16, depth=1, features=12, max_frequency=4.0, **SETTINGS).to(dtype)
    generator = torch.Generator().manual_seed(0)
    for parameter in field.parameters():
        nn.init.normal_(parameter, std=std, generator=generator)
    return field.requires_grad_(False)


def quakes(std: float = 0.3, m: Manifold | None = None) -> rfm.Flow:
    m = Sphere(2) if m is None else m
    return rfm.Flow(m, network(m, std=std), conditions=QUAKES)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def times(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def known_parts() -> list[Tensor]:
    """The full vector with every set of entries unknown."""
    masks = itertools.product([False, True], repeat=3)
    return [torch.where(torch.tensor(mask), NAN, FULL) for mask in masks]


# Names into vectors, and back.


@given(
    st.lists(
        st.tuples(
            st.none() | st.floats(4, 9), st.none() | st.sampled_from(["chile", "fiji", "japan"]), st.floats(0, 700)
        ),
        max_size=5,
    )
)
def test_decoding_undoes_encoding(rows: list[tuple[float | None, str | None, float]]) -> None:
    magnitude, region, depth = ([row[i] for row in rows] for i in range(3))
    named = {"magnitude": magnitude, "region": region, "depth": depth}
    vectors = QUAKES.encode(named)
    assert vectors.shape == (len(rows), 3)
    assert vectors.dtype == torch.float64
    assert QUAKES.decode(vectors) == named
    assert torch.equal(QUAKES.encode(QUAKES.decode(vectors)), vectors) or vectors.isnan().any()


def test_the_order_of_names_does_not_matter_and_neither_does_case() -> None:
    named = {"depth": [1.0, 2.0], "region": "Fiji", "Magnitude": np.array([5, 6])}
    expected = torch.tensor([[5.0, 1.0, 1.0], [6.0, 1.0, 2.0]], dtype=torch.float64)
    for order in itertools.permutations(named):
        assert torch.equal(QUAKES.encode({name: named[name] for name in order}), expected)


@pytest.mark.parametrize("unknown", [None, NAN, "", " ", np.float32("nan")], ids=repr)
def test_what_is_left_out_is_not_known(unknown: Any) -> None:
    named = {"magnitude": unknown, "region": unknown, "depth": "40"}
    vector = QUAKES.encode(named)
    assert vector[:2].isnan().all()
    assert vector[2] == 40
    torch.testing.assert_close(vector, QUAKES.encode({"depth": 40}), equal_nan=True)
    assert QUAKES.encode({}).isnan().all()


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor], ids=lambda kind: kind.__name__)
def test_kinds_ranges_and_labels_come_from_the_data(kind: Callable[[Any], Any]) -> None:
    named = {"magnitude": kind([4.5, 7.0, 5.0]), "year": kind([2001, 1999, 2001])}
    found = Conditions.of(named, labels=["year"], units={"magnitude": "Mw"})
    assert found.columns == (Number("magnitude", 4.5, 7.0, "Mw"), Label("year", ("1999", "2001")))
    assert found.labels == (0, 2)
    assert found.encode(named)[:, 1].tolist() == [1, 0, 1]
    assert found.encode({"year": 1999.0})[1] == found.encode({"year": "1999"})[1] == 0
    assert found.describe() == "magnitude (a number, 4.5 to 7 Mw in the data), year (a label: 1999, 2001)"
    texts = Conditions.of({"region": ["b", None, "a", "", "NA"]})
    assert texts.columns == (Label("region", ("NA", "a", "b")),)


def test_case_decides_where_labels_differ_in_it_alone() -> None:
    two = Conditions((Label("kind", ("a", "A", "b")),))
    assert [two.encode({"kind": text}).item() for text in ("a", "A", "B")] == [0, 1, 2]


def test_numbers_beyond_the_data_are_told() -> None:
    assert QUAKES.extrapolations(FULL) == []
    assert QUAKES.extrapolations(torch.tensor([NAN, NAN, NAN])) == []
    assert QUAKES.extrapolations(torch.tensor([9.0, 0.0, 700.0])) == []
    (sentence,) = QUAKES.extrapolations(torch.tensor([[9.5, 0.0, 3.0], [10.0, 1.0, 3.0], [8.0, 1.0, 3.0]]))
    assert sentence == ("magnitude=9.5 and 1 more are outside of the data's range, 4 to 9: the flow extrapolates")
    flow = quakes()
    with pytest.warns(UserWarning, match="depth=701 is outside of the data's range, 0 to 700"):
        flow.sample(2, condition={"depth": 701}, solver=STEPS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flow.sample(2, condition={"depth": 700}, solver=STEPS)


def test_json_brings_the_same_back() -> None:
    record = json.loads(json.dumps(QUAKES.to_dict()))
    assert Conditions.from_dict(record) == QUAKES


_BAD_RECORDS: list[Any] = [
    None,
    [],
    {},
    {"columns": []},
    {"columns": None},
    {"columns": [{"kind": "colour", "name": "a"}]},
    {"columns": [{"kind": "label", "name": "a", "values": []}]},
    {"columns": [{"kind": "label", "name": "a", "values": "ab"}]},
    {"columns": [{"kind": "label", "name": "a", "values": ["x", "x"]}]},
    {"columns": [{"kind": "label", "name": "a", "values": [1]}]},
    {"columns": [{"kind": "label", "name": "", "values": ["x"]}]},
    {"columns": [{"kind": "number", "name": "a", "low": 1}]},
    {"columns": [{"kind": "number", "name": "a", "low": "1", "high": 2}]},
    {"columns": [{"kind": "number", "name": "a", "low": 3, "high": 2}]},
    {"columns": [{"kind": "number", "name": "a", "low": 0, "high": math.inf}]},
    {"columns": [{"kind": "number", "name": "a", "low": 0, "high": 1, "unit": 3}]},
    {"columns": [{"kind": "number", "name": "a", "low": 0, "high": 1, "more": 3}]},
    {"columns": [{"kind": "number", "name": n, "low": 0, "high": 1} for n in ("a", "A")]},
]


@pytest.mark.parametrize("record", _BAD_RECORDS, ids=lambda record: str(record)[:60])
def test_other_records_are_refused(record: Any) -> None:
    with pytest.raises(ValueError, match="these are not conditions"):
        Conditions.from_dict(record)


_BAD_VALUES: dict[str, tuple[dict[str, Any], str]] = {
    "column": (
        {"size": 3},
        r"no condition 'size'; the conditions are magnitude \(a number, 4 to 9 in the data\), region",
    ),
    "label": ({"region": "chle"}, "region has no label 'chle'; did you mean chile. it has chile, fiji, japan"),
    "far label": ({"region": "x"}, "region has no label 'x'; it has chile, fiji, japan"),
    "number": ({"magnitude": "big"}, "magnitude=big is not a finite number; magnitude .* 4 to 9"),
    "infinity": ({"magnitude": math.inf}, "magnitude=inf is not a finite number"),
    "truth": ({"magnitude": True}, "magnitude=True is not a finite number"),
    "twice": ({"depth": 3, "DEPTH": 4}, "is given twice"),
    "lengths": ({"depth": [3, 4], "magnitude": [5.0]}, r"different lengths, \[1, 2\]"),
    "nested": ({"depth": [[3, 4]]}, "a number or a text for each point"),
}


@pytest.mark.parametrize("case", _BAD_VALUES)
def test_values_that_mean_nothing_are_refused(case: str) -> None:
    named, message = _BAD_VALUES[case]
    with pytest.raises(ValueError, match=message):
        QUAKES.encode(named)
    if case not in ("lengths", "nested"):
        with pytest.raises(ValueError, match=message):
            quakes().sample(2, condition=named)


_BAD_COLUMNS: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "different names"),
    "unknown": ({"a": [None, NAN, ""]}, "condition a holds nothing that is known"),
    "infinite": ({"a": [1.0, math.inf]}, "condition a holds infinite numbers"),
    "one value": ({"a": 3.0}, "condition a is one value"),
    "ids": ({"a": [f"q{i}" for i in range(30)]}, r"30 different texts in 30 points \(q0, q1, q10, ...\), too many"),
    "case": ({"a": [1.0], "A": [2.0]}, "different names"),
}


@pytest.mark.parametrize("case", _BAD_COLUMNS)
def test_columns_that_cannot_be_conditions_are_refused(case: str) -> None:
    named, message = _BAD_COLUMNS[case]
    with pytest.raises(ValueError, match=message):
        Conditions.of(named)


@pytest.mark.parametrize("entries", [[6.0, 3.0, 1.0], [6.0, -1.0, 1.0], [6.0, 0.5, 1.0]], ids=str)
def test_vectors_that_hold_no_label_are_refused(entries: list[float]) -> None:
    vector = torch.tensor(entries)
    for call in (QUAKES.check, QUAKES.decode, lambda v: quakes().sample(2, condition=v)):
        with pytest.raises(ValueError, match="entries of region are positions of labels, 0 to 2"):
            call(vector)
    for wrong in (vector[:2], torch.tensor(1.0)):
        with pytest.raises(ValueError, match="condition"):
            QUAKES.check(wrong)


# Networks.


@EVERY
def test_nothing_known_is_the_unconditional_field_bit_for_bit(make: Callable[[], Manifold]) -> None:
    m = make()
    field, x, t = network(m), points(m, 5), times(5)
    assert torch.equal(field(x, t, torch.full((5, 3), NAN)), field(x, t))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_part_of_a_condition_counts_and_no_other(dtype: torch.dtype) -> None:
    m = Sphere(2)
    field, x, t = network(m, dtype), points(m, 6, dtype=dtype), times(6).to(dtype)
    values = [field(x, t, part.to(dtype)) for part in known_parts()]
    assert all(value.dtype == dtype for value in values)
    for a, b in itertools.combinations(values, 2):
        assert float((a - b).abs().max()) > 1e-3


def test_rows_of_a_batch_keep_their_own_conditions() -> None:
    m = Sphere(2)
    field, x, t, parts = network(m), points(m, 8), times(8), torch.stack(known_parts())
    together = field(x, t, parts)
    alone = torch.stack([field(x[i], t[i], parts[i]) for i in range(8)])
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(torch.func.vmap(field)(x, t, parts), alone)


def test_a_label_that_was_never_seen_says_only_that_it_is_known() -> None:
    inputs = ConditionInputs([0.0, 0.0], [1.0, 1.0], [3, 0])
    out = inputs(torch.tensor([[0.0, 2.0], [2.0, 2.0]]))
    assert torch.equal(out[0], out[1])
    out[0].sum().backward()
    (table,) = inputs.tables
    assert isinstance(table, nn.Embedding)
    assert table.weight.grad is not None
    assert [bool(row.any()) for row in table.weight.grad] == [True, False, False]


def test_labels_are_not_numbers() -> None:
    """Shift and scale of a label's entry change nothing."""
    m = Sphere(2)
    plain, x, t = network(m), points(m, 3), times(3)
    moved = network(m)
    moved.condition_inputs.offset[1], moved.condition_inputs.scale[1] = 5.0, 0.1
    vectors = torch.tensor([[6.0, float(i), 30.0] for i in range(3)], dtype=torch.float64)
    assert torch.equal(plain(x, t, vectors), moved(x, t, vectors))


def test_vectors_of_another_length_are_refused() -> None:
    m = Sphere(2)
    with pytest.raises(ValueError, match=r"condition vectors have 3 entries, got shape \(2, 4\)"):
        network(m)(points(m, 2), times(2), torch.ones(2, 4))
    with pytest.raises(ValueError, match="have condition_dim = 2 entries, got 3"):
        VelocityField(m, condition_dim=2, condition_labels=[0, 3, 0])


def test_a_flow_refuses_a_field_made_for_other_conditions() -> None:
    m = Sphere(2)
    with pytest.raises(ValueError, match=r"have \[0, 3, 0\] labels, .* condition_labels=\[0, 3, 0\]"):
        rfm.Flow(m, VelocityField(m, condition_dim=3), conditions=QUAKES)
    with pytest.raises(ValueError, match="condition_dim=3"):
        rfm.fit(
            points(m, 6),
            m,
            field=VelocityField(m, width=8, features=4),
            condition={"a": [1.0] * 6, "b": [2.0] * 6, "c": [2.0] * 6},
        )


# Guidance.


@EVERY
@pytest.mark.parametrize("batch", [(), (4,), (2, 3)], ids=str)
def test_both_velocities_of_one_call_are_those_of_two(make: Callable[[], Manifold], batch: tuple[int, ...]) -> None:
    m = make()
    field, x = network(m), points(m, *batch)
    for t in (times(*batch), times()):
        for condition in (FULL, FULL.expand(*batch, 3)):
            free, held = field.without_and_with(x, t, condition)
            torch.testing.assert_close(free, field(x, t), atol=1e-12, rtol=1e-12)
            torch.testing.assert_close(held, field(x, t, condition), atol=1e-12, rtol=1e-12)
            m.check_tangent(x, Guidance(2.5).applied_to(field)(x, t, condition=condition))


def test_the_weight_interpolates_exactly() -> None:
    m = Sphere(2)
    field, x, t = network(m), points(m, 5), times(5)
    free, held = field.without_and_with(x, t, FULL)
    assert torch.equal(Guidance(0.0).applied_to(field)(x, t, condition=FULL), field(x, t))
    assert torch.equal(Guidance(1.0).applied_to(field)(x, t, condition=FULL), held)
    torch.testing.assert_close(Guidance(3.0).applied_to(field)(x, t, condition=FULL), 3 * held - 2 * free)
    # A plain function has no joint evaluation, and gives the same.
    plain = Guidance(3.0).applied_to(lambda *a, **k: field(*a, **k))
    torch.testing.assert_close(plain(x, t, condition=FULL), 3 * held - 2 * free)


def test_guided_samples_at_zero_and_one_are_the_others_bit_for_bit() -> None:
    flow = quakes().double()

    def draw(**options: Any) -> Tensor:
        drawn: Tensor = flow.sample(6, generator=seeded(), solver=STEPS, **options)
        return drawn

    named = {"region": "fiji", "magnitude": 7}
    assert torch.equal(draw(condition=named, guidance=0.0), draw())
    assert torch.equal(draw(condition=named, guidance=1.0), draw(condition=named))
    assert torch.equal(draw(condition=named, guidance=2.0), draw(condition=QUAKES.encode(named), guidance=2.0))
    assert not torch.equal(draw(condition=named, guidance=2.0), draw(condition=named))
    # Where nothing is known there is nothing to go towards.
    torch.testing.assert_close(draw(condition={"region": None}, guidance=3.0), draw())
    with pytest.raises(ValueError, match=r"steered by guidance .* no exact log-density"):
        flow.sample(2, condition=named, guidance=2.0, return_log_prob=True)


def test_guidance_evaluates_the_network_once() -> None:
    m = Sphere(2)
    field = network(m)
    sizes: list[int] = []
    field.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    rfm.Flow(m, field).double().sample(5, condition=FULL, guidance=2.0, generator=seeded(), solver=FixedStep(steps=1))
    rfm.Flow(m, field).double().sample(5, condition=FULL, generator=seeded(), solver=FixedStep(steps=1))
    half = len(sizes) // 2
    assert sizes[:half] == [2] * half  # two velocities, stacked
    assert sizes[half:] == [5] * half


# Densities.


def sphere_grid(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Points of the sphere and their weights, exact for polynomials of low degree."""
    z, w = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(rows))
    angle = torch.arange(columns, dtype=torch.float64) * (2 * math.pi / columns)
    r = torch.sqrt(1 - z**2)
    x = torch.stack(
        [r[:, None] * angle.cos(), r[:, None] * angle.sin(), z[:, None].expand(rows, columns)], dim=-1
    ).reshape(-1, 3)
    return x, (w[:, None] * torch.full((columns,), 2 * math.pi / columns, dtype=torch.float64)).reshape(-1)


@pytest.mark.parametrize("part", [*known_parts()[::2], known_parts()[-1]], ids=str)
def test_conditional_densities_integrate_to_one(part: Tensor) -> None:
    flow = quakes(std=0.2).double()
    x, weights = sphere_grid(20, 40)
    log_prob = flow.log_prob(x, condition=part, solver=FixedStep(steps=12))
    assert float(log_prob.std()) > 0.05
    assert float((weights * log_prob.exp()).sum()) == pytest.approx(1, abs=1e-3)


def test_scores_by_name_are_scores_by_vector() -> None:
    flow = quakes().double()
    x = points(Sphere(2), 3)
    named = {"region": ["fiji", "chile", None], "depth": 30.0}
    by_name = flow.log_prob(x, condition=named, solver=STEPS)
    vectors = QUAKES.encode(named)
    assert torch.equal(by_name, flow.log_prob(x, condition=vectors, solver=STEPS))
    torch.testing.assert_close(
        by_name, torch.stack([flow.log_prob(x[i], condition=vectors[i], solver=STEPS) for i in range(3)])
    )
    path = flow.trajectory(x, (0.0, 1.0), condition=named, solver=STEPS)
    assert torch.equal(path, flow.trajectory(x, (0.0, 1.0), condition=vectors, solver=STEPS))


def test_names_need_a_flow_that_knows_them() -> None:
    m = Sphere(2)
    with pytest.raises(ValueError, match="this flow has no names for conditions"):
        rfm.Flow(m, network(m)).sample(2, condition={"magnitude": 5})


# Training.


def test_training_hides_all_some_and_none_of_a_condition() -> None:
    generator = torch.Generator()
    like = {"generator": generator.manual_seed(0), "device": torch.device("cpu")}
    hidden = _hidden(torch.Size((20_000, 3)), like)
    counts = torch.bincount((hidden.long() * torch.tensor([4, 2, 1])).sum(1), minlength=8) / len(hidden)
    # All: a tenth, and an eighth of the partial ones; none: six tenths, and an eighth; others: an eighth each.
    expected = torch.full((8,), 0.3 / 8)
    expected[0] += 0.6
    expected[7] += 0.1
    torch.testing.assert_close(counts, expected, atol=0.015, rtol=0)
    single = _hidden(torch.Size((20_000, 1)), like)
    assert float(single.float().mean()) == pytest.approx(0.1, abs=0.015)


def two_clusters(n: int = 240) -> tuple[Tensor, dict[str, list[Any]]]:
    """Points on the circle of a torus: the label says near which of two places, the number which side of it."""
    generator = torch.Generator().manual_seed(0)
    side = torch.rand(n, generator=generator, dtype=torch.float64) * 2 - 1
    place = torch.arange(n) % 2
    x = torch.where(place == 0, -1.5, 1.5) + 0.8 * side
    x = x + 0.1 * torch.randn(n, generator=generator, dtype=torch.float64)
    labels: list[Any] = [None if i % 9 == 0 else "east" if p else "west" for i, p in enumerate(place.tolist())]
    sides: list[Any] = [None if i % 7 == 0 else s for i, s in enumerate(side.tolist())]
    return FlatTorus(1).projx(x[:, None]), {"side": sides, "place": labels}


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> rfm.Flow:
    """A small flow fitted to `two_clusters`, saved and loaded."""
    folder = tmp_path_factory.mktemp("learned") / "run"
    x, named = two_clusters()
    m = FlatTorus(1)
    conditions = Conditions.of(named, units={"side": "m"})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        field = VelocityField(m, 32, 1, 16, max_frequency=4.0, condition_dim=2, condition_labels=conditions.labels)
    options: dict[str, Any] = {
        "steps": 250,
        "batch_size": 128,
        "training": rfm.Training(learning_rate=1e-2),
        "progress": False,
    }
    made = rfm.fit(x, m, condition=named, conditions=conditions, field=field, out=folder, device="cpu", **options)
    again = rfm.Flow.load(folder)
    assert again.conditions == made.conditions == conditions
    return again


def test_any_part_of_a_condition_can_be_given(learned: rfm.Flow) -> None:
    x, named = two_clusters()
    rows = [i for i, (s, p) in enumerate(zip(named["side"], named["place"], strict=True)) if s is not None and p]
    x = x[rows].float()
    own = {name: [values[i] for i in rows] for name, values in named.items()}

    def nll(*names: str) -> float:
        return -float(learned.log_prob(x, condition={n: own[n] for n in names}, solver=FixedStep(steps=20)).mean())

    # The label is worth log 2; the number, once the label is known, says nearly all that is left.
    assert nll() > nll("place") + 0.5
    assert nll("place") > nll("place", "side") + 0.5
    assert nll() > nll("side") + 0.2
    assert nll() < math.log(2 * math.pi) - 0.1


def test_labels_that_are_swapped_swap_the_samples(learned: rfm.Flow) -> None:
    for place, centre in (("west", -1.5), ("east", 1.5)):
        for weight in (1.0, 2.0):
            drawn = learned.base.sample(100, condition={"place": place}, guidance=weight, generator=seeded())
            assert float(((drawn[:, 0] - centre).abs() < 1.5).float().mean()) > (0.8 if weight == 1 else 0.9)


def test_a_default_field_is_made_for_the_labels() -> None:
    x, named = two_clusters(40)
    # The first point has no number to leave out.
    options: dict[str, Any] = {"validation": [0], "steps": 1, "batch_size": 8, "progress": False, "device": "cpu"}
    flow = rfm.fit(x, FlatTorus(1), condition=named, **options)
    field = flow.field
    assert isinstance(field, VelocityField)
    assert flow.conditions is not None
    assert flow.conditions.names == ("side", "place")
    assert (field.condition_dim, field.condition_labels) == (2, [0, 2])
    known = torch.tensor([s for s in named["side"] if s is not None], dtype=torch.float64)
    assert field.condition_offset is not None
    assert field.condition_scale is not None
    assert field.condition_offset[0] == pytest.approx(float(known.mean()))
    assert field.condition_scale[0] == pytest.approx(float(known.std(correction=0)))


_BAD_FITS: dict[str, tuple[dict[str, Any], str]] = {
    "short": ({"condition": {"a": [1.0, 2.0]}}, r"fit: condition must hold one finite vector per point, \(40, c\)"),
    "nothing": ({"condition": {"a": [None] * 40}}, "fit: condition a holds nothing that is known"),
    "no values": ({"conditions": QUAKES}, "fit: conditions says what condition means, which is missing"),
    "entries": ({"conditions": QUAKES, "condition": torch.ones(40, 2)}, "fit: condition vectors have 3 entries"),
    "no label": ({"conditions": QUAKES, "condition": torch.full((40, 3), 9.0)}, "fit: entries of region are positions"),
}


@pytest.mark.parametrize("case", _BAD_FITS)
def test_bad_conditions_of_fit(case: str) -> None:
    options, message = _BAD_FITS[case]
    with pytest.raises(ValueError, match=message):
        rfm.fit(two_clusters(40)[0], FlatTorus(1), steps=1, progress=False, **options)


# Saving.


def test_a_saved_flow_knows_its_conditions(tmp_path: Path) -> None:
    flow = quakes()
    flow.save(tmp_path)
    again = rfm.Flow.load(tmp_path)
    assert again.conditions == QUAKES
    named = {"region": "japan", "depth": 10}
    drawn = [f.sample(3, condition=named, generator=seeded(), solver=STEPS) for f in (flow, again)]
    assert torch.equal(*drawn)
    record = json.loads((tmp_path / "flow.json").read_text())
    assert record["conditions"]["columns"][1] == {
        "kind": "label",
        "name": "region",
        "values": ["chile", "fiji", "japan"],
    }
    for change in ({"columns": 3}, {"columns": record["conditions"]["columns"][:2]}):
        (tmp_path / "flow.json").write_text(json.dumps(record | {"conditions": change}))
        with pytest.raises(SavedFlowError, match="is damaged"):
            rfm.Flow.load(tmp_path)
