"""A ridge of many items: one fit, and no array that holds all windows."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
import pytest
import torch

import tsdistill as td
from tsdistill.data import Item, Panel

N_ITEMS, N_ROWS = 1200, 37


@pytest.fixture(scope="module")
def panel() -> Panel:
    """Many short items, each with a size of its own."""
    draw = np.random.default_rng(0)
    stamps = pd.date_range("2024-01-01", periods=N_ROWS, freq="D")
    week = 3.0 * (stamps.day_of_week >= 5)
    sizes = draw.lognormal(size=N_ITEMS)
    items = (
        Item(f"{number}", stamps, (size * (week + draw.normal(size=N_ROWS)))[:, None])
        for number, size in enumerate(sizes)
    )
    return Panel(tuple(items), ("sold",), "D")


@pytest.mark.parametrize("scaler", ["standard", "item"])
def test_many_items_are_one_fit_and_their_week_is_learnt(
    panel: Panel, scaler: Literal["standard", "item"], monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = 0
    gather = td.data.Windows.batch

    def watched(self: td.data.Windows, index: torch.Tensor) -> object:
        nonlocal largest
        largest = max(largest, len(index))
        return gather(self, index)

    monkeypatch.setattr(td.data.Windows, "batch", watched)
    week = td.Covariates(calendar=("time-of-week",))
    task = td.Task(panel, context=5, horizon=2, covariates=week, scaler=scaler, split=td.Split.fractions(0.5, 0.2, 0.3))
    informed = td.train(td.LinearConfig(), task).lineage[-1].metrics
    plain = td.train(td.LinearConfig(), task.without_covariates()).lineage[-1].metrics
    assert informed["validation_mse"] < 0.9 * plain["validation_mse"]
    assert 0 < largest <= 1 << 13 < len(task.train)
