"""What training reads, serving reads: the same frames in the same way, refused in the same words."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.frames import hours, wide
from tsdistill.data import Covariates, Panel
from tsdistill.errors import DataError, ShapeError
from tsdistill.inputs import predict_raw

CONTEXT, HORIZON, N = 7, 3, 19


def signature(channels: tuple[str, ...] = ("y",), frequency: str | None = "h", **fields: Any) -> Any:
    given = {"future": (), "past": (), "covariates": None, **fields}
    return SimpleNamespace(context=CONTEXT, horizon=HORIZON, channels=channels, frequency=frequency, **given)


def run(context: np.ndarray, future: np.ndarray | None = None) -> np.ndarray:
    """The last steps again, twice as high, plus what is planned."""
    planned = 0 if future is None else future[:, -HORIZON:, :1]
    return 2 * context[:, -HORIZON:] + planned


def long(names: Any = (7, 5), step: str = "h") -> pd.DataFrame:
    parts = [wide(hours(N, step=step), channels=("y",)).assign(unique_id=name) for name in names]
    frame = pd.concat(parts, ignore_index=True)
    return frame.assign(y=np.arange(len(frame)) / 8)


def forecast(frame: pd.DataFrame, given: Any = None, **options: Any) -> pd.DataFrame:
    return predict_raw(frame, given or signature(), run, **options)  # type: ignore[return-value]


def as_columns(result: pd.DataFrame) -> pd.DataFrame:
    """A long forecast in one form, whatever form it came in."""
    names = [name for name in result.index.names if name is not None]
    plain = (result.reset_index(names) if names else result).reset_index(drop=True)[["unique_id", "ds", "y"]]
    return plain.astype({"unique_id": str, "ds": "datetime64[us]"})


def arrow(frame: pd.DataFrame) -> pd.DataFrame:
    texts = frame["unique_id"].astype(str).astype("string[pyarrow]")
    return frame.assign(
        ds=frame["ds"].astype("timestamp[us][pyarrow]"), y=frame["y"].astype("double[pyarrow]"), unique_id=texts
    )


FORMS: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "columns in another order": lambda df: df[["y", "unique_id", "ds"]],
    "stamps in the index": lambda df: df.set_index("ds"),
    "identifiers in the index": lambda df: df.set_index("unique_id"),
    "both in the index": lambda df: df.set_index(["unique_id", "ds"]),
    "both in the index, turned": lambda df: df.set_index(["ds", "unique_id"]),
    "rows of items alternating": lambda df: df.sort_values("ds", kind="stable"),
    "any row numbers": lambda df: df.set_axis(np.arange(len(df))[::-1] * 3),
    "text": lambda df: df.astype({"ds": str, "y": str}),
    "Arrow": arrow,
    "nullable": lambda df: df.astype({"y": "Float64", "unique_id": "Int64"}),
    "categories": lambda df: df.assign(unique_id=df["unique_id"].astype("category"), y=df["y"].astype("category")),
    "Decimal": lambda df: df.assign(y=df["y"].map(lambda value: Decimal(str(value)))),
    "objects": lambda df: df.astype(object),
    "milliseconds": lambda df: df.astype({"ds": "datetime64[ms]"}),
    "other columns beside y": lambda df: df.assign(remark="text", size=3.0),
    "row numbers written by to_csv": lambda df: df.assign(**{"Unnamed: 0": range(len(df))}),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_that_trains_gives_the_same_forecast(form: str) -> None:
    frame = FORMS[form](long())
    panel = Panel.from_frame(frame) if not form.startswith("row numbers") else Panel.from_frame(long())
    result = forecast(frame)
    assert [item.unique_id for item in panel.items] == ["7", "5"]
    expected = np.stack([2 * item.values[-HORIZON:] for item in panel.items]).reshape(-1, 1)
    np.testing.assert_allclose(as_columns(result)[["y"]], expected)
    pd.testing.assert_frame_equal(as_columns(result), as_columns(forecast(long())))
    pd.testing.assert_frame_equal(as_columns(forecast(panel.to_frame())), as_columns(result))


def test_a_forecast_has_the_shape_of_its_input() -> None:
    frame = long()
    assert list(forecast(frame).columns) == ["unique_id", "ds", "y"]
    assert forecast(frame)["unique_id"].dtype == np.int64
    for levels in (["unique_id", "ds"], ["ds", "unique_id"]):
        result = forecast(frame.set_index(levels))
        assert (list(result.index.names), list(result.columns)) == (levels, ["y"])
    by_station = forecast(frame.rename(columns={"unique_id": "station", "ds": "at"}).set_index(["station", "at"]))
    assert by_station.index.names == ["station", "at"]
    assert forecast(frame.set_index("unique_id")).index.tolist() == [7] * HORIZON + [5] * HORIZON
    categories = frame.assign(unique_id=frame["unique_id"].astype("category"))
    assert forecast(categories)["unique_id"].dtype == categories["unique_id"].dtype
    assert forecast(frame.astype({"ds": "datetime64[ms]"}))["ds"].dtype == np.dtype("M8[ms]")


def test_names_of_the_training_data_are_known() -> None:
    reading = SimpleNamespace(time="date", id="shop", time_zone=None)
    frame = long().rename(columns={"ds": "date", "unique_id": "shop"})
    result = forecast(frame.astype({"date": str}), signature(reading=reading))
    assert list(result.columns) == ["shop", "date", "y"]
    np.testing.assert_array_equal(result["y"], forecast(long())["y"])
    np.testing.assert_array_equal(forecast(long(), signature(reading=reading))["y"], forecast(long())["y"])


PAIRS = pd.MultiIndex.from_product([["a", "b"], [1]])


@pytest.mark.parametrize(
    ("columns", "channels"),
    [
        ([3, 1], ("3", "1")),
        (PAIRS, ("('a', 1)", "('b', 1)")),
        (["ds", "b"], ("ds", "b")),
        (["unique_id", "b"], ("unique_id", "b")),
        (["unique_id", "ds"], ("unique_id", "ds")),
    ],
    ids=["numbers", "pairs", "ds", "unique_id", "both"],
)
@pytest.mark.parametrize("stamped", ["index", "column"])
def test_channels_have_any_names(columns: Any, channels: tuple[str, ...], stamped: str) -> None:
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(N, 2)), index=hours(N), columns=columns)
    given = frame if stamped == "index" else frame.rename_axis(index="at").reset_index()
    target = list(channels)
    panel = Panel.from_frame(given, time="ds" if stamped == "index" else "at", target=target)
    assert panel.channels == channels
    result = forecast(given, signature(channels))
    np.testing.assert_allclose(result[target], 2 * frame.to_numpy()[-HORIZON:], rtol=1e-6)
    np.testing.assert_array_equal(
        forecast(panel.to_frame(), signature(channels))[target].to_numpy(), result[target].to_numpy()
    )


ZONES = {
    "Africa/Cairo": "2024-04-26",
    "America/Sao_Paulo": "2015-10-18",
    "Asia/Beirut": "2024-03-31",
    "Asia/Amman": "2016-04-01",
    "America/Santiago": "2023-09-03",
}


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("ahead", range(-HORIZON, CONTEXT, 3))
def test_days_that_begin_at_one_are_days(zone: str, ahead: int) -> None:
    """Whether the day is in the context or in the horizon."""
    plain = pd.date_range(end=pd.Timestamp(ZONES[zone]) + pd.Timedelta(days=ahead), periods=N)
    days = pd.date_range(plain[0], periods=N + HORIZON)
    days = days.tz_localize(zone, nonexistent="shift_forward")
    assert (days.hour == 1).sum() == 1
    frame = wide(days[:N], channels=("y",))
    assert Panel.from_frame(frame).frequency == "D"
    assert list(forecast(frame, signature(frequency="D"))["ds"]) == list(days[N:])


@pytest.mark.parametrize(
    ("steps", "frequency"),
    [
        (("W-MON", "W-THU"), "W-MON"),
        (("QS-JAN", "QS-FEB", "QS-MAR"), "QS-JAN"),
        (("QE-DEC", "QE-OCT"), "QE-DEC"),
        (("YS-JAN", "YS-JUL"), "YS-JAN"),
        (("MS",), "MS"),
        (("ME",), "ME"),
        (("B",), "B"),
    ],
)
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_each_item_steps_from_where_it_begins(steps: tuple[str, ...], frequency: str, zone: str | None) -> None:
    stamps = {step: hours(N + HORIZON, step=step, zone=zone) for step in steps}
    frame = pd.concat([wide(ds[:N], channels=("y",)).assign(unique_id=step) for step, ds in stamps.items()])
    panel = Panel.from_frame(frame)
    assert panel.frequency == frequency
    result = forecast(frame, signature(frequency=frequency))
    for step, ds in stamps.items():
        assert list(result[result["unique_id"] == step]["ds"]) == list(ds[N:])
    gappy = pd.concat([part.drop(part.index[3]) for _, part in frame.groupby("unique_id", sort=False)])
    filled = Panel.from_frame(gappy, fill="zero")
    assert [len(item) for item in filled.items] == [N] * len(steps)


def test_months_of_many_days_are_refused_at_training() -> None:
    stamps = [hours(N, step="MS"), hours(N, step="ME")]
    frame = pd.concat([wide(ds, channels=("y",)).assign(unique_id=number) for number, ds in enumerate(stamps)])
    with pytest.raises(DataError, match="do not fall on steps"):
        Panel.from_frame(frame)


def test_without_a_frequency_each_item_goes_on_as_it_steps() -> None:
    parts = [wide(hours(N, step=step), channels=("y",)).assign(unique_id=step) for step in ("h", "D", "MS")]
    result = forecast(pd.concat(parts), signature(frequency=None))
    for step in ("h", "D", "MS"):
        expected = hours(N + HORIZON, step=step)[N:]
        assert list(result[result["unique_id"] == step]["ds"]) == list(expected)


def broken(row: int, column: str, value: Any, frame: pd.DataFrame | None = None) -> pd.DataFrame:
    frame = (long() if frame is None else frame).astype({column: object})
    frame.loc[row, column] = value
    return frame


ORDERS = [f"{day:02}/{month:02}/2024" for month in (1, 2) for day in range(1, 13)][:N]
REFUSED: dict[str, tuple[Callable[[], pd.DataFrame], list[str]]] = {
    "a date that has two readings": (lambda: wide(ORDERS, channels=("y",)), ["day or the month first"]),
    "an unreadable date": (lambda: broken(20, "ds", "soon"), ["cannot be read: 'soon'"]),
    "no date": (lambda: broken(20, "ds", None), ["no time stamp in row 20"]),
    "no identifier": (lambda: broken(20, "unique_id", None), ["no identifier in row 20"]),
    "identifiers that read alike": (lambda: broken(20, "unique_id", "5"), ["read the same"]),
    "rows backwards": (lambda: long().iloc[::-1], ["must rise", "Sort the rows by item and time"]),
    "the newest rows first": (
        lambda: pd.concat([long((7,)).iloc[10:], long((7,)).iloc[:10]]),
        ["must rise", "goes back in row 9"],
    ),
    "items without names": (lambda: long().drop(columns="unique_id"), ["more than once|must rise"]),
    "text": (lambda: broken(37, "y", "n/a"), ["cannot be read as numbers ('n/a') in row 37", "item '5'"]),
    "nothing": (lambda: broken(37, "y", None), ["1 missing value", "row 37", "18:00", "item '5'"]),
    "infinite": (lambda: broken(37, "y", np.inf), ["infinite", "row 37", "item '5'"]),
    "complex": (lambda: long().assign(y=1j), ["complex numbers"]),
    "times": (lambda: long().assign(y=hours(1)[0]), ["holds times"]),
    "a gap": (lambda: long().drop(index=35), ["Item '5': 1 row missing in 1 gap"]),
    "other steps": (lambda: long(step="D"), ["24 rows|23 rows|missing"]),
    "an item that is short": (lambda: long().iloc[: N + 4], ["at least context = 7", "got 4 in item '5'"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_in_training_is_refused_in_the_same_words(case: str) -> None:
    make, words = REFUSED[case]
    with pytest.raises((DataError, ShapeError)) as served:
        forecast(make(), signature(frequency="D") if "readings" in case else None)
    missing = [word for word in words if not any(one in str(served.value) for one in word.split("|"))]
    assert not missing, str(served.value)
    if case in ("other steps", "an item that is short"):
        return
    with pytest.raises(DataError) as trained:
        Panel.from_frame(make())
    kept = [word for word in words[:1] if not any(one in str(trained.value) for one in word.split("|"))]
    assert not kept, str(trained.value)


def test_one_error_names_every_item_and_every_problem() -> None:
    frame = long(("a", "b", "c", "d"))
    frame = broken(N + 17, "y", None, frame)
    frame = broken(2 * N + 17, "y", "much", frame).drop(index=[2 * N + 14, *range(3 * N, 4 * N - 3)])
    with pytest.raises(DataError) as caught:
        forecast(frame)
    words = ["4 problems", "item 'd'", "Item 'c': 1 row missing", "cannot be read as numbers ('much')", "missing value"]
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


def test_local_clocks_are_read_in_the_place_of_the_training_data() -> None:
    stamps = pd.date_range("2024-10-26 14:00", periods=N + HORIZON, freq="h", tz="Europe/Berlin")
    frame = wide(stamps[:N].tz_localize(None), channels=("y",))
    with pytest.raises(DataError, match=r"looks like local time with daylight saving.*tz_localize"):
        forecast(frame)
    reading = SimpleNamespace(time="ds", id=None, time_zone="Europe/Berlin")
    assert list(forecast(frame, signature(reading=reading))["ds"]) == list(stamps[N:])


# ------------------------------------------------------------------------------------------------------- planned values
PLANNED = signature(future=("price",), covariates=Covariates(future=("price",)))


def plan(shift: int = 0) -> pd.DataFrame:
    """Plans of both items for the horizon and some steps before and after."""
    ds = hours(N + HORIZON + 5)[N - 2 + shift :]
    parts = [pd.DataFrame({"unique_id": name, "ds": ds, "price": np.arange(len(ds)) + 100.0 * name}) for name in (7, 5)]
    return pd.concat(parts, ignore_index=True)


PLANS: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "rows backwards": lambda df: df.iloc[::-1],
    "text": lambda df: df.assign(ds=df["ds"].astype(str)),
    "text, backwards": lambda df: df.assign(ds=df["ds"].astype(str)).iloc[::-1],
    "Arrow": lambda df: df.assign(ds=df["ds"].astype("timestamp[ns][pyarrow]")),
    "stamps in the index": lambda df: df.set_index("ds"),
    "both in the index": lambda df: df.set_index(["ds", "unique_id"]),
    "text in the index": lambda df: df.set_index(df["ds"].astype(str).rename(None)).drop(columns="ds"),
    "another column": lambda df: df.rename(columns={"ds": "when"}),
    "another column of text": lambda df: df.rename(columns={"ds": "when"}).astype({"when": str}).iloc[::-1],
    "identifiers as text": lambda df: df.astype({"unique_id": str}),
    "other columns beside": lambda df: df.assign(load=3.0, remark="none"),
    "numbers as text": lambda df: df.astype({"price": str}),
}


@pytest.mark.parametrize("form", PLANS)
def test_plans_are_found_by_their_stamps(form: str) -> None:
    frame = long().assign(price=1.0)
    result = forecast(frame, PLANNED, future=PLANS[form](plan()))
    bare = forecast(long())["y"].to_numpy()
    np.testing.assert_allclose(result["y"] - bare, [702, 703, 704, 502, 503, 504])
    by_text = forecast(frame.astype({"ds": str}), PLANNED, future=PLANS[form](plan()))
    pd.testing.assert_frame_equal(by_text, result)


def test_plans_without_stamps_are_taken_by_position_and_serve_every_item_when_they_name_none() -> None:
    frame = long().assign(price=1.0)
    bare = forecast(long())["y"].to_numpy()
    ahead = pd.DataFrame({"unique_id": [5, 7] * 3, "price": [5.0, 7.0, 5.5, 7.5, 5.8, 7.8]})
    result = forecast(frame, PLANNED, future=ahead)
    np.testing.assert_allclose(result["y"] - bare, [7.0, 7.5, 7.8, 5.0, 5.5, 5.8], rtol=1e-6)
    for shared in (pd.DataFrame({"price": [1.0, 2, 3]}), plan().query("unique_id == 5").drop(columns="unique_id")):
        together = forecast(frame, PLANNED, future=shared)["y"].to_numpy() - bare
        np.testing.assert_allclose(together[:3], together[3:])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: plan(3), ["3 steps after item '7'", "1 of them missing, the first 2024-01-01 19:00", "item '5'"]),
        (lambda: plan().query("unique_id == 7"), ["item '5'", "3 of them missing"]),
        (lambda: pd.concat([plan(), plan().iloc[[3]]]), ["item '7' once each, got some of them twice"]),
        (lambda: plan().assign(ds=plan()["ds"].dt.tz_localize("UTC")), ["must hold stamps without a zone", "with one"]),
        (lambda: plan().assign(price=np.nan), ["`future`: column `price` has 6 missing values"]),
        (lambda: plan().assign(price="much"), ["`future`: column `price` holds text"]),
        (lambda: plan().drop(columns="ds"), ["hold 3 rows for item '7', got future=10", "item '5'"]),
        (lambda: plan().drop(columns="price"), ["must have the columns price"]),
        (lambda: plan().assign(ds="soon"), ["cannot be read: 'soon'"]),
        (lambda: plan().set_axis(["unique_id", "price", "price"], axis=1), ["'price' stands in it twice"]),
    ],
)
def test_plans_that_cannot_be_used(make: Callable[[], pd.DataFrame], words: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        forecast(long().assign(price=1.0), PLANNED, future=make())
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)
