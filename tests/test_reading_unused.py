"""Columns that training left aside may stand in the frame that is forecast; others are still refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tsdistill as td
from tsdistill import runtime
from tsdistill.data import Panel
from tsdistill.errors import DataError


def _frame() -> pd.DataFrame:
    stamps = pd.date_range("2024-01-01", periods=200, freq="h")
    load = np.sin(np.arange(200) / 4) + 10
    return pd.DataFrame({"date": stamps, "load": load, "code": "A7", "comment": "fine", "price": load * 2})


def test_the_frame_of_training_is_forecast_with_the_columns_that_target_left_aside(tmp_path: Path) -> None:
    frame = _frame()
    task = td.Task(Panel.from_frame(frame, time="date", target="load"), context=24, horizon=6)
    model = td.train(td.LinearConfig(), task)
    expected = model.predict(frame[["date", "load"]])
    pd.testing.assert_frame_equal(model.predict(frame), expected)
    folder = td.save(td.export(model, task), tmp_path / "model")
    served = runtime.load(folder).predict(frame)
    assert isinstance(served, pd.DataFrame)
    assert list(served) == ["date", "load"]
    with pytest.raises(DataError, match="column 'laod' is unknown"):
        model.predict(frame.assign(laod=1.0))


def test_y_of_a_long_frame_leaves_the_others_aside() -> None:
    frame = _frame().rename(columns={"date": "ds", "load": "y"}).assign(unique_id="a")
    panel = Panel.from_frame(frame)
    assert panel.channels == ("y",)
    assert panel.reading is not None
    assert panel.reading.left_out == ("code", "comment", "price")
