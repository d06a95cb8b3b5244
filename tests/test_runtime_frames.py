"""What the runtime reads: arrays and frames that can be forecast, and those that cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.deployables import CHANNELS, HORIZON, contexts, exported, forecaster, hourly
from tests.test_runtime import X, gap
from tests.typed import instance_of
from tsdistill.errors import DataError, ShapeError
from tsdistill.runtime import Predictor


def spoilt(value: float) -> np.ndarray:
    x = contexts(5).astype(np.float64)
    x[3, 2, 1] = x[0, 1, 1] = value
    return x


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (X[..., :2], ShapeError, r"\(\[batch,\] 29 or more, 3\), got \(5, 29, 2\).*load, pressure, wind"),
        (X[:, 1:], ShapeError, r"got \(5, 28, 3\)"),
        (X[0, :, 0], ShapeError, r"got \(29,\)"),
        (X[None], ShapeError, r"got \(1, 5, 29, 3\)"),
        (np.float32(3), ShapeError, r"got \(\)"),
        ([[1.0], [1.0, 2.0]], ShapeError, "must be an array of shape"),
        (spoilt(np.nan), DataError, r"got 2 that are not, in the channels pressure \(2\)"),
        (spoilt(-np.inf), DataError, "pressure"),
        (spoilt(1e39), DataError, "must hold finite numbers"),
        (X.astype(complex), DataError, "real numbers, got x='complex128'"),
        (X.astype(str), DataError, "real numbers"),
        (X > 0, DataError, "real numbers, got x='bool'"),
        (None, DataError, "real numbers, got x='object'"),
    ],
)
def test_arrays_that_cannot_be_forecast(x: Any, error: type[Exception], words: str) -> None:
    for model in (exported("linear"), forecaster("linear")):
        with pytest.raises(error, match=words):
            model.predict(x)


def wide(n_rows: int = 37) -> pd.DataFrame:
    return hourly(n_rows)


def test_a_wide_frame_gives_the_steps_after_its_last_stamp() -> None:
    frame = wide()
    forecast = exported("linear").predict(frame)
    assert isinstance(forecast, pd.DataFrame)
    expected = pd.date_range(frame.index[-1] + pd.Timedelta("1h"), periods=HORIZON, freq="h", name="ds")
    pd.testing.assert_index_equal(forecast.index, expected, check_freq=False)  # type: ignore[call-arg]
    assert list(forecast.columns) == list(CHANNELS)
    np.testing.assert_array_equal(forecast.to_numpy(), exported("linear").predict(frame.to_numpy()))


@pytest.mark.parametrize("name", ["ds", "measured_at"])
def test_stamps_may_be_a_column(name: str) -> None:
    frame = wide().rename_axis(index=name)
    forecast = exported("linear").predict(frame.reset_index())
    assert list(forecast.columns) == [name, *CHANNELS]
    pd.testing.assert_frame_equal(forecast.set_index(name), exported("linear").predict(frame))


def test_the_order_of_columns_does_not_matter() -> None:
    frame = wide()
    turned = frame[["wind", "load", "pressure"]]
    pd.testing.assert_frame_equal(exported("linear").predict(turned), exported("linear").predict(frame))


def test_text_stamps_are_read() -> None:
    frame = wide().reset_index()
    text = frame.assign(ds=frame["ds"].astype(str))
    pd.testing.assert_frame_equal(exported("linear").predict(text), exported("linear").predict(frame))


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
def test_time_zones_are_kept_also_where_clocks_change(zone: str) -> None:
    # In Berlin clocks go back in the night to the 27th, among the steps to come: an hour stands there twice.
    stamps = pd.date_range("2013-10-25", periods=47 + HORIZON, freq="h", tz=zone, name="ds")
    frame = pd.DataFrame(hourly(47).to_numpy(), index=stamps[:47], columns=list(CHANNELS))
    forecast = exported("linear").predict(frame)
    index = instance_of(pd.DatetimeIndex, forecast.index)
    assert str(index.tz) == zone
    assert list(forecast.index) == list(stamps[47:])
    assert index.tz_localize(None).has_duplicates == (zone == "Europe/Berlin")


def test_rows_without_stamps_are_numbered_on() -> None:
    plain = wide(37).reset_index(drop=True)
    assert list(exported("linear").predict(plain).index) == list(range(37, 37 + HORIZON))
    every_other = plain.set_axis(pd.RangeIndex(10, 10 + 2 * 37, 2))
    assert list(exported("linear").predict(every_other).index) == list(range(84, 84 + 2 * HORIZON, 2))
    assert list(exported("linear").predict(plain.sample(frac=1, random_state=0)).index) == list(range(37, 44))


def test_a_long_frame_gives_one_forecast_per_item() -> None:
    items = {"b": hourly(31, seed=1), "a": hourly(37, seed=2)}
    parts = [frame.reset_index().assign(unique_id=name) for name, frame in items.items()]
    mixed = pd.concat(parts).sort_values("ds", kind="stable")
    forecast = exported("linear").predict(mixed)
    assert list(forecast.columns) == ["unique_id", "ds", *CHANNELS]
    assert list(forecast["unique_id"].unique()) == ["b", "a"]
    assert list(forecast.index) == list(range(2 * HORIZON))
    for name, frame in items.items():
        one = forecast[forecast["unique_id"] == name].drop(columns="unique_id").reset_index(drop=True)
        pd.testing.assert_frame_equal(one, exported("linear").predict(frame.reset_index()), rtol=1e-5)


def test_without_a_frequency_the_frames_own_step_goes_on() -> None:
    model = exported("linear")
    predictor = Predictor(model.onnx, model.signature.replace(frequency=None))
    every_day = wide().set_axis(pd.date_range("2013-01-01", periods=37, freq="D"))
    assert predictor.predict(every_day).index[0] == pd.Timestamp("2013-02-07")
    with pytest.raises(DataError, match="1 row missing in 1 gap"):
        predictor.predict(every_day.drop(every_day.index[20]))


def test_torch_and_runtime_agree_on_frames() -> None:
    frame = wide().reset_index()
    pd.testing.assert_frame_equal(
        forecaster("mlp").predict(frame), exported("mlp").predict(frame), rtol=1e-5, atol=1e-4
    )


@pytest.mark.parametrize(
    ("frame", "error", "words"),
    [
        (wide().drop(columns="wind"), DataError, "column 'wind' is missing"),
        (
            wide().rename(columns={"wind": "wnid"}),
            DataError,
            r"2 problems[\s\S]*'wind' is missing. Did you mean `wnid`",
        ),
        (wide().assign(extra=1.0), DataError, "column 'extra' is unknown.*Drop it"),
        (wide().assign(load="much"), DataError, "Column `load` holds text and no numbers"),
        (wide()[["load", "load", "pressure", "wind"]], DataError, "column 'load' stands in the frame twice"),
        (wide(28), ShapeError, "at least context = 29 steps, got 28"),
        (
            wide().replace({"load": {wide()["load"].iloc[-3]: np.nan}}),
            DataError,
            r"Column `load` has 1 missing value \(NaN\).* in row 34",
        ),
        (gap(wide()), DataError, "1 row missing in 1 gap, the first after 2013-01-01 19:00"),
        (wide().iloc[::-1], DataError, "`ds` must rise, but goes back in 36 rows"),
        (wide().set_axis(pd.date_range("2013", periods=37, freq="D")), DataError, "644 rows missing"),
        (wide().reset_index().assign(ds=range(37)), DataError, "`ds` must hold time stamps, got int64 numbers"),
        (wide().reset_index().assign(ds="noon"), DataError, "37 time stamps that cannot be read: 'noon'"),
        (
            wide().reset_index().assign(at=pd.Timestamp("2013")).rename(columns={"ds": "t"}),
            DataError,
            "2 columns of st",
        ),
        (wide().assign(unique_id=[None] * 7 + ["a"] * 30), DataError, "`unique_id` has no identifier in 7 rows"),  # type: ignore[arg-type]
        (wide().assign(unique_id=["a"] * 7 + ["b"] * 30), DataError, "got 7 in item 'a'"),
        (wide().iloc[:0].assign(unique_id=[]), DataError, "at least one item"),
        (wide().assign(load=pd.NA).astype({"load": "Float64"}), DataError, "29 missing values"),  # type: ignore[arg-type]
    ],
)
def test_frames_that_cannot_be_forecast(frame: pd.DataFrame, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        exported("linear").predict(frame)


def test_a_frame_of_another_library_is_refused() -> None:
    class Table:
        columns = CHANNELS

    with pytest.raises(DataError, match=r"a pandas frame, got x='Table'.*to_pandas"):
        exported("linear").predict(Table())  # type: ignore[call-overload]


def test_gaps_before_the_context_do_not_matter() -> None:
    frame = hourly(60)
    assert len(exported("linear").predict(gap(frame))) == HORIZON
