"""from_frame, then predict on the same frame: any shape, order, index or type gives the same forecast."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from tsdistill.data import Panel
from tsdistill.inputs import predict_raw

CONTEXT, HORIZON = 5, 3
STEPS = ("h", "15min", "D", "W-TUE", "MS", "ME", "QS-FEB", "B", "YE-JUN")
TIME_TYPES = ("datetime64[us]", "datetime64[ns]", "datetime64[ms]", "timestamp[us][pyarrow]", "text", "object")
VALUE_TYPES = ("float64", "float32", "Float64", "double[pyarrow]", "text", "Decimal", "category", "object")
NAMES: tuple[list[Any], ...] = (["load", "wind"], ["wind", "load"], [0, 1], [("a", 1), ("b", 2)], ["ds", "y"], ["y"])


def run(context: np.ndarray) -> np.ndarray:
    """Something that depends on every step and channel."""
    weights = np.arange(1, context.shape[1] + 1)[None, :, None]
    return (context * weights).sum(axis=1, keepdims=True) * np.arange(1, HORIZON + 1)[None, :, None] + context[:, -1:]


def times(stamps: pd.DatetimeIndex, kind: Any) -> Any:
    plain = pd.Series(stamps)
    if kind == "text":
        return plain.astype(str)
    if kind == "object" or stamps.tz is not None:
        return plain.astype(object) if kind == "object" else plain
    return plain.astype(kind)


def numbers(values: np.ndarray, kind: Any) -> Any:
    plain = pd.Series(values)
    if kind == "text":
        return plain.astype(str)
    if kind == "Decimal":
        return pd.Series([Decimal(str(value)) for value in values], dtype=object)
    return plain.astype(kind)


@st.composite
def frames(draw: st.DrawFn) -> tuple[pd.DataFrame, list[Any]]:
    """A frame of one item or several, and the labels of its value columns."""
    labels: list[Any] = list(draw(st.sampled_from(NAMES)))
    step = draw(st.sampled_from(STEPS))
    zone = draw(st.sampled_from([None, "UTC", "Europe/Berlin", "Africa/Cairo", "America/New_York"]))
    time_type = draw(st.sampled_from(TIME_TYPES))
    if time_type in ("text", "object") and zone is not None:
        zone = "UTC"  # offsets that change over the year are one time line, on which local days do not step evenly
    value_type = draw(st.sampled_from(VALUE_TYPES))
    ids = draw(st.sampled_from([["series"], [3, 1], ["a", "b", "c"], None]))
    where = draw(st.sampled_from(["columns", "time in index", "ids in index", "all in index", "all in index, turned"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    parts = []
    for name in ids or [None]:
        n = draw(st.integers(CONTEXT + 1, 14))
        stamps = pd.date_range("2024-02-28", periods=n, freq=step, tz=zone)
        columns: dict[Any, Any] = {("ds", ""): times(stamps, time_type), ("unique_id", ""): name}
        columns |= {label: numbers(rng.integers(-99, 99, n) / 4, value_type) for label in labels}
        part = pd.DataFrame({str(number): column for number, column in enumerate(columns.values())})
        parts.append(part)
    # Rows of items alternate as they like; within an item they keep their order.
    frame = pd.concat(parts, ignore_index=True)
    owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    if draw(st.booleans()):
        mixed = rng.permutation(owner)
        rows = np.empty(len(mixed), dtype=int)
        for number in range(len(parts)):
            rows[mixed == number] = np.flatnonzero(owner == number)
        frame = frame.iloc[rows].reset_index(drop=True)
    clash = "ds" in labels
    stamps_column, names_column = frame.pop("0"), frame.pop("1")
    frame.columns = pd.Index(labels, tupleize_cols=False)
    if draw(st.booleans()):
        frame = frame.iloc[:, ::-1]
    in_index = []
    if where in ("time in index", "all in index", "all in index, turned") or clash:
        in_index.append(stamps_column.rename("ds"))
    else:
        frame.insert(int(rng.integers(0, frame.shape[1] + 1)), "ds", stamps_column)
    if ids is not None:
        if where in ("ids in index", "all in index", "all in index, turned"):
            in_index.append(names_column.rename("unique_id"))
        else:
            frame.insert(int(rng.integers(0, frame.shape[1] + 1)), "unique_id", names_column)
    if where == "all in index, turned":
        in_index.reverse()
    if len(in_index) > 1:
        frame.index = pd.MultiIndex.from_arrays(in_index)
    elif in_index:
        frame.index = pd.Index(in_index[0])
    return frame, labels


@settings(max_examples=25, deadline=None, derandomize=True)
@given(frames())
def test_what_trains_is_served_alike(case: tuple[pd.DataFrame, list[Any]]) -> None:
    frame, _ = case
    panel = Panel.from_frame(frame)
    signature: Any = SimpleNamespace(
        context=CONTEXT, horizon=HORIZON, channels=panel.channels, frequency=panel.frequency, future=(), past=(),
        covariates=None,
    )  # fmt: skip
    expected = run(np.stack([item.values[-CONTEXT:] for item in panel.items]).astype(np.float32))
    channels = list(panel.channels)
    for table in (frame, panel.to_frame()):
        result = predict_raw(table, signature, run)
        assert isinstance(result, pd.DataFrame)
        np.testing.assert_allclose(result[channels].to_numpy(), expected.reshape(-1, len(channels)), rtol=1e-6)
        names = [name for name in result.index.names if name is not None]
        assert {*names, *result.columns} - {*channels} <= {"ds", "unique_id"}
        stamps = pd.DatetimeIndex(result.index.get_level_values("ds") if "ds" in names else result["ds"])
        for number, item in enumerate(panel.items):
            assert item.ds is not None
            ahead = stamps[number * HORIZON : (number + 1) * HORIZON]
            longer = pd.date_range(item.ds[0], periods=len(item) + HORIZON, freq=panel.frequency)
            assert list(ahead) == list(longer[len(item) :])
    rolled = predict_raw(frame, signature, run, rolling=2)
    assert isinstance(rolled, pd.DataFrame)
    n_cutoffs = [(len(item) - CONTEXT) // 2 + 1 for item in panel.items]
    assert len(rolled) == HORIZON * sum(n_cutoffs)
