"""Conditions that are times, and those that come round again."""

import datetime
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rfm.conditions import Conditions, Label, Number, Periodic, Time
from rfm.conditions.times import parse_time

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
TIMES = st.datetimes(datetime.datetime(1600, 1, 1), datetime.datetime(2400, 1, 1)).map(
    lambda t: t.replace(microsecond=0)
)


@settings(deadline=None)
@given(times=st.lists(TIMES, min_size=1, max_size=6))
def test_times_are_days_since_the_first_and_come_back(times: list[datetime.datetime]) -> None:
    conditions = Conditions.of({"t": times})
    (column,) = conditions.columns
    assert isinstance(column, Time)
    vectors = conditions.encode({"t": times})
    size = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400}[column.unit]
    want = [(time - min(times)).total_seconds() / size for time in times]
    np.testing.assert_allclose(vectors[:, 0], want, rtol=1e-12, atol=0)
    assert [datetime.datetime.fromisoformat(text) for text in conditions.decode(vectors)["t"]] == times
    assert Conditions.from_dict(json.loads(json.dumps(conditions.to_dict()))) == conditions
    assert float(vectors.max()) < 200 or column.unit == "days"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2020-03-01", 1583020800),
        ("2020-03-01T00:00:00Z", 1583020800),
        ("2020-03-01 01:00:00+01:00", 1583020800),
        ("2020-03-01T00:00:00.123456789", 1583020800.123456),
        ("20200301", None),
        ("2020-W10-1", None),
        ("2020", None),
        ("2020-13-01", None),
        ("chile", None),
    ],
)
def test_what_is_a_time(text: str, seconds: float | None) -> None:
    found = parse_time(text)
    assert (None if found is None else (found - EPOCH).total_seconds()) == seconds


@pytest.mark.parametrize(
    "values",
    [
        np.array(["2020-01-01", "2020-01-03", "NaT"], dtype="M8[ns]"),
        ["2020-01-01", "2020-01-03", None],
        [datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 3), None],
        ["2020-01-01", "2020-01-03", ""],
    ],
    ids=str,
)
def test_times_in_many_forms(values: Any) -> None:
    conditions = Conditions.of({"t": values})
    np.testing.assert_array_equal(conditions.encode({"t": values})[:, 0], [0, 48, math.nan])
    assert conditions.describe() == "t (a time, 2020-01-01 to 2020-01-03 in the data, in hours since the first)"
    assert conditions.decode(conditions.encode({"t": values}))["t"] == ["2020-01-01", "2020-01-03", None]


def test_times_beyond_the_data_and_other_texts() -> None:
    conditions = Conditions.of({"t": ["2020-01-01", "2021-01-01"]})
    (sentence,) = conditions.extrapolations(conditions.encode({"t": "2022-01-01"}))
    assert sentence == ("t=2022-01-01 is outside of the data's range, 2020-01-01 to 2021-01-01: the flow extrapolates")
    with pytest.raises(ValueError, match=r"t=spring is no time, such as 2020-03-01.*2020-01-01 to 2021-01-01"):
        conditions.encode({"t": "spring"})
    assert isinstance(Conditions.of({"t": ["2020-01-01"] * 3}, labels=["t"]).columns[0], Label)
    assert isinstance(Conditions.of({"t": ["2020-01-01", "b"] * 3}).columns[0], Label)
    assert isinstance(Conditions.of({"t": [2020, 2021]}).columns[0], Number)


@settings(deadline=None)
@given(
    period=st.sampled_from([12.0, 24.0, 7.0, 365.25, 360.0, 0.5]),
    places=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=6),
    turns=st.integers(-3, 3),
)
def test_what_comes_round_is_a_place_on_a_circle(period: float, places: list[float], turns: int) -> None:
    values = [period * place for place in places]
    conditions = Conditions.of({"m": values}, periods={"m": period})
    vectors = conditions.encode({"m": values})
    assert vectors.shape == (len(values), 2)
    np.testing.assert_allclose(vectors.norm(dim=1), 1, atol=1e-12)
    # Whole turns make no difference, and the way back is within the range that values were written in.
    again = conditions.encode({"m": [value + turns * period for value in values]})
    np.testing.assert_allclose(again, vectors, atol=1e-9)
    for value, found in zip(values, conditions.decode(vectors)["m"], strict=True):
        assert abs((found - value + period / 2) % period - period / 2) < 1e-6 * period
    assert Conditions.from_dict(json.loads(json.dumps(conditions.to_dict()))) == conditions


def test_december_is_beside_january() -> None:
    conditions = Conditions.of({"month": [1, 6, 12]}, periods={"month": 12})
    one, six, twelve = conditions.encode({"month": [1, 6, 12]})
    step = 2 * math.sin(math.pi / 12)
    assert float((one - twelve).norm()) == pytest.approx(step)
    assert float((six - twelve).norm()) == pytest.approx(2.0)
    assert conditions.decode(torch.stack([one, six, twelve]))["month"] == [1, 6, 12]
    assert conditions.title(six.float()) == "month = 6"
    assert conditions.extrapolations(one) == []
    with pytest.raises(ValueError, match=r"month runs from 1 to 13\.5, over more than a period of 12"):
        Conditions.of({"month": [1, 13.5]}, periods={"month": 12})
    with pytest.raises(ValueError, match=r"month=june is not a finite number; month \(a number, which comes round"):
        conditions.encode({"month": "june"})
    with pytest.raises(ValueError, match="'june' is not a finite number"):
        Conditions.of({"month": ["june", "may"]}, periods={"month": 12})
    with pytest.raises(ValueError, match="one of year, week, day, got 'moon'"):
        Conditions.of({"month": ["2020-01-01"]}, periods={"month": "moon"})


@pytest.mark.parametrize(
    ("clock", "text", "value"),
    [
        ("year", "2021-01-01", 0.0),
        ("year", "2021-07-02T12:00:00", 365.2425 / 2),
        ("year", "2020-07-02T00:00:00", 365.2425 / 2),
        ("week", "2024-01-01", 0.0),  # a Monday
        ("week", "2024-01-07T12:00", 6.5),
        ("day", "2024-01-07T18:30:00", 18.5),
        ("day", "2024-01-07T18:30:00+02:00", 18.5),
    ],
)
def test_the_time_of_year_week_and_day(clock: str, text: str, value: float) -> None:
    conditions = Conditions.of({f"time:{clock}": [text, None]}, periods={f"time:{clock}": clock})
    (column,) = conditions.columns
    assert isinstance(column, Periodic)
    assert column.source == "time"
    by_time, by_number = (conditions.encode({f"time:{clock}": known}) for known in (text, value))
    np.testing.assert_allclose(by_time, by_number, atol=1e-12)
    assert Conditions.from_dict(conditions.to_dict()) == conditions


@pytest.mark.parametrize(
    "record",
    [
        {"kind": "time", "name": "t", "low": "2020-01-02", "high": "2020-01-01"},
        {"kind": "time", "name": "t", "low": 3, "high": "2020-01-01"},
        {"kind": "time", "name": "t", "low": "2020-01-01", "high": "2020-01-01", "unit": "weeks"},
        {"kind": "periodic", "name": "t", "period": 0, "low": 0},
        {"kind": "periodic", "name": "t", "period": "12", "low": 0},
        {"kind": "periodic", "name": "t", "period": 12, "low": 0, "clock": "moon"},
        {"kind": "periodic", "name": "t", "period": 12, "low": math.inf},
    ],
    ids=str,
)
def test_other_records_are_refused(record: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="these are not conditions"):
        Conditions.from_dict({"columns": [record]})


def test_a_time_counts_for_all_that_is_taken_from_it() -> None:
    values = ["2020-01-01T06:00", "2021-01-01T18:00"]
    periods = {"time:year": "year", "time:day": "day"}
    conditions = Conditions.of(dict.fromkeys(("time", *periods), values), periods=periods)
    by_time = conditions.encode({"Time": "2020-07-01T12:00"})
    each = conditions.encode(dict.fromkeys(("time", *periods), "2020-07-01T12:00"))
    assert torch.equal(by_time, each)
    # What is given by its own name goes first.
    mixed = conditions.encode({"time:day": 6, "time": "2020-07-01T12:00"})
    assert torch.equal(mixed[:3], each[:3])
    assert conditions.decode(mixed)["time:day"] == [6.0]
    derived = Conditions.of({"time:day": values}, periods={"time:day": "day"})
    assert torch.equal(derived.encode({"time": "2020-07-01T12:00"}), each[3:])
    with pytest.raises(ValueError, match="is given twice"):
        conditions.encode({"time": "2020-07-01", "TIME": "2020-07-01"})
    with pytest.raises(ValueError, match="there is no condition 'day'"):
        conditions.encode({"day": "2020-07-01"})
