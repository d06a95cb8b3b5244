"""A day or a month on which weeks, quarters and years begin binds serving just where it binds training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tsdistill as td
from tsdistill import runtime


def table(start: str, step: str) -> pd.DataFrame:
    return pd.DataFrame({"ds": pd.date_range(start, periods=40, freq=step), "y": np.arange(40.0) % 7})


ANCHORS = [("2023-01-02", "W-MON", "2023-01-01", "W-SUN"), ("2000-02-01", "QS-FEB", "2000-01-01", "QS-JAN")]


@pytest.mark.parametrize(("start", "step", "other_start", "other_step"), ANCHORS)
def test_what_was_named_in_training_binds_what_is_served(
    start: str, step: str, other_start: str, other_step: str, tmp_path: Path
) -> None:
    other = table(other_start, other_step)
    with pytest.raises(td.errors.DataError, match=f"do not fall on steps of '{step}'"):
        td.Panel.from_frame(other, frequency=step)
    for frequency in (step, None):
        task = td.Task(td.Panel.from_frame(table(start, step), frequency=frequency), context=7, horizon=3)
        model = td.models.SeasonalNaiveConfig(period=7).build(task.signature)
        served = [model]
        if step == "W-MON":
            served.append(runtime.load(td.save(td.export(model), tmp_path / str(frequency))))  # type: ignore[arg-type]
        for predictor in served:
            assert len(predictor.predict(table(start, step))) == 3
            if frequency is None:  # found in the data: each item from where it begins, as in training
                assert len(predictor.predict(other)) == 3
                continue
            with pytest.raises(td.errors.DataError, match=f"steps of '{step}'"):
                predictor.predict(other)
