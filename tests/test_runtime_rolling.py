"""Rolling through a history: forecasts as of each past moment."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.deployables import CHANNELS, HORIZON, exported, forecaster, hourly, task
from tests.test_runtime import X
from tsdistill.errors import ConfigError, DataError, ShapeError
from tsdistill.inputs import CHUNK, predict_raw


def test_a_rolled_frame_names_each_cutoff_and_never_looks_beyond_it() -> None:
    frame = hourly(61)
    forecast = exported("linear").predict(frame, rolling=11)
    assert list(forecast.columns) == ["cutoff", *CHANNELS]
    assert list(forecast["cutoff"].unique()) == [frame.index[row] for row in (38, 49, 60)]
    for cutoff, part in forecast.groupby("cutoff"):
        known = exported("linear").predict(frame.loc[:cutoff])
        pd.testing.assert_frame_equal(part.drop(columns="cutoff"), known, rtol=1e-4, check_freq=False)
    spoilt_later = frame.copy()
    spoilt_later.iloc[50:] = 1e6
    again = exported("linear").predict(spoilt_later, rolling=11)
    pd.testing.assert_frame_equal(again.iloc[: 2 * HORIZON], forecast.iloc[: 2 * HORIZON], rtol=1e-4)


def test_rolling_goes_item_by_item() -> None:
    items = {"b": hourly(45, seed=1), "a": hourly(37, seed=2)}
    mixed = pd.concat([frame.reset_index().assign(unique_id=name) for name, frame in items.items()])
    forecast = exported("linear").predict(mixed, rolling=7)
    assert list(forecast.columns) == ["unique_id", "ds", "cutoff", *CHANNELS]
    assert forecast.groupby("unique_id", sort=False)["cutoff"].nunique().to_dict() == {"b": 3, "a": 2}
    assert (forecast["ds"] > forecast["cutoff"]).all()


def test_rows_without_stamps_roll_as_well() -> None:
    forecast = exported("linear").predict(hourly(31).reset_index(drop=True), rolling=1)
    assert forecast["cutoff"].unique().tolist() == [28, 29, 30]
    assert forecast.index.tolist() == [*range(29, 36), *range(30, 37), *range(31, 38)]


def test_a_long_history_is_cut_into_windows_a_piece_at_a_time() -> None:
    history = np.zeros((20_011, 3), np.float32)
    largest = []

    def run(context: np.ndarray) -> np.ndarray:
        largest.append(context.nbytes)
        return context[:, :HORIZON]

    assert predict_raw(history, task().signature, run, rolling=1).shape == (19_983, HORIZON, 3)
    assert max(largest) == CHUNK * 29 * 3 * 4


@pytest.mark.parametrize(
    ("x", "rolling", "error", "words"),
    [
        (X[0], 0, ConfigError, "`rolling` must be a whole number of at least 1, or None, got rolling=0"),
        (X[0], True, ConfigError, "`rolling` must be"),
        (X[0], 2.0, ConfigError, "`rolling` must be"),
        (X, 3, ShapeError, r"one history \(time, channel\)"),
        (X[0, :28], 3, ShapeError, r"29 or more, 3\), got \(28, 3\)"),
        (np.concatenate([np.full((5, 3), np.nan), X[0]]), 3, DataError, "got 15 that are not"),
        (hourly(28), 3, ShapeError, "at least context = 29 steps, got 28"),
        (hourly(60).drop(hourly(60).index[20]), 3, DataError, "1 row missing in 1 gap"),
    ],
)
def test_what_cannot_be_rolled_through(x: Any, rolling: Any, error: type[Exception], words: str) -> None:
    for model in (exported("linear"), forecaster("linear")):
        with pytest.raises(error, match=words):
            model.predict(x, rolling=rolling)
