"""A table of forecasts teaches: read and checked against the training windows, never off by a step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import tsdistill as td
from tests.typed import known
from tsdistill.data.panel import Item
from tsdistill.errors import ConfigError, DataError, ShapeError, TsdistillError, UnsupportedError
from tsdistill.models import Forecaster, LinearConfig
from tsdistill.teachers import ForecastTable, check_teacher, forecast_frame, write_forecasts
from tsdistill.testing import toy_panel, toy_task
from tsdistill.training import train

SPLIT = td.Split.fractions(0.6, 0.2, 0.2)


def panel_of(n_items: int = 2, n_channels: int = 1, zone: str | None = "Europe/Berlin") -> td.Panel:
    """Items of their own lengths and scales, hourly over the autumn change of clocks."""
    random = np.random.default_rng(5)
    items = []
    for number in range(n_items):
        n_rows = 149 + 7 * number
        ds = pd.date_range("2024-10-25", periods=n_rows, freq="h", tz=zone)
        items.append(Item(f"i{number}", ds, random.standard_normal((n_rows, n_channels)) * 3 + 10 * number))
    return td.Panel(tuple(items), tuple(f"c{number}" for number in range(n_channels)), frequency="h")


@pytest.fixture(scope="module")
def task() -> td.Task:
    return td.Task(panel_of(), context=19, horizon=5, split=SPLIT)


@pytest.fixture(scope="module")
def ridge(task: td.Task) -> Forecaster:
    return train(LinearConfig(), task)


@pytest.fixture
def frame(task: td.Task, ridge: Forecaster) -> pd.DataFrame:
    return forecast_frame(ridge, task)


def all_of(windows: td.data.Windows) -> td.data.Batch:
    return windows.batch(torch.arange(len(windows)))


@pytest.mark.parametrize("scaler", ["standard", "item", None])
@pytest.mark.parametrize("zone", ["Europe/Berlin", None])
@pytest.mark.parametrize("n_channels", [1, 3])
def test_forecasts_come_back_from_a_table(n_channels: int, zone: str | None, scaler: Any) -> None:
    panel = panel_of(n_channels=n_channels, zone=zone)
    task = td.Task(panel, context=19, horizon=5, split=SPLIT, scaler=scaler)
    model = train(LinearConfig(), task)
    frame = forecast_frame(model, task, ("train", "validation")).sample(frac=1, random_state=3)
    table = ForecastTable.from_frame(frame, task)
    for windows in (task.train, task.validation):
        torch.testing.assert_close(
            table.forecast(all_of(windows)), model.forecast(all_of(windows)), rtol=1e-4, atol=1e-4
        )
    assert (table.parts, table.n_unused) == (("train", "validation"), 0)
    if n_channels > 1:
        long = frame.melt(["unique_id", "ds", "cutoff"], var_name="channel", value_name="forecast")
        assert ForecastTable.from_frame(long, task).digest == table.digest


def test_a_row_is_what_it_says(task: td.Task, ridge: Forecaster, frame: pd.DataFrame) -> None:
    """A slow plain oracle: one window looked up by hand."""
    item, end = task.panel.items[1], 43
    stamps = known(item.ds)
    context = item.values[end - 18 : end + 1]
    raw = np.asarray(ridge.predict(context[None]))[0, :, 0]
    rows = frame[(frame["unique_id"] == "i1") & (frame["cutoff"] == stamps[end])]
    assert rows["ds"].tolist() == stamps[end + 1 : end + 6].tolist()
    np.testing.assert_allclose(rows["forecast"], raw, rtol=1e-5)


@pytest.mark.parametrize("name", ["f.csv", "f.csv.gz", "f.parquet"])
def test_files_of_every_kind_give_the_same_teacher(
    task: td.Task, ridge: Forecaster, frame: pd.DataFrame, tmp_path: Path, name: str
) -> None:
    write_forecasts(ridge, task, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert td.teachers.read_forecasts(tmp_path / name, task).digest == ForecastTable.from_frame(frame, task).digest


def test_columns_may_be_called_otherwise_and_rows_may_be_too_many(task: td.Task, frame: pd.DataFrame) -> None:
    plain = ForecastTable.from_frame(frame, task)
    late = frame.assign(cutoff=frame["cutoff"] + pd.Timedelta("2000h"), ds=frame["ds"] + pd.Timedelta("2000h"))
    names = {"unique_id": "who", "ds": "when", "cutoff": "from", "forecast": "y_hat"}
    other = pd.concat([frame, late]).rename(columns=names)
    table = ForecastTable.from_frame(other, task, id="who", time="when", cutoff="from", forecast="y_hat")
    assert table.digest == plain.digest
    assert table.n_unused == len(late)
    assert "unused" in repr(table)


def test_a_longer_horizon_and_the_other_parts_are_left(task: td.Task, frame: pd.DataFrame) -> None:
    longer = td.Task(task.panel, context=19, horizon=7, split=SPLIT)
    table = ForecastTable.from_frame(forecast_frame(train(LinearConfig(), longer), longer, ["train"]), longer)
    assert table.n_unused == 0
    # Two windows fewer fit, so that the longer table lacks the last two cutoffs of each item.
    with pytest.raises(DataError, match="lacks 4 cutoffs"):
        ForecastTable.from_frame(forecast_frame(train(LinearConfig(), longer), longer), task)
    cut = frame[frame["ds"] < frame["cutoff"] + pd.Timedelta("4h")]
    shorter = td.Task(task.panel, context=19, horizon=3, split=SPLIT)
    with pytest.raises(DataError, match="lacks 4 cutoffs"):
        ForecastTable.from_frame(cut, shorter)


def test_a_shifted_table_is_never_taken_for_the_right_one(task: td.Task, frame: pd.DataFrame) -> None:
    hour = pd.Timedelta("1h")
    moved = frame.assign(ds=frame["ds"] + hour, cutoff=frame["cutoff"] + hour)
    with pytest.raises(DataError, match="lacks 2 cutoffs"):
        ForecastTable.from_frame(moved, task)
    with pytest.raises(DataError, match=r"lacks 136 cutoffs.*1 step of it"):
        ForecastTable.from_frame(frame.assign(ds=frame["ds"] + hour), task)
    rolled = frame.assign(forecast=np.roll(frame["forecast"], 1))
    assert ForecastTable.from_frame(rolled, task).digest != ForecastTable.from_frame(frame, task).digest


def test_only_windows_that_it_was_read_for_are_answered(task: td.Task, frame: pd.DataFrame) -> None:
    table = ForecastTable.from_frame(frame, task)
    subset = task.train.subset(torch.arange(3, 17))
    for windows in (task.validation, task.test, subset):
        with pytest.raises(DataError, match="the windows it covers"):
            table.forecast(windows.batch(torch.tensor([0, 5])))
    check_teacher(table, task)
    check_teacher(table, td.Task(task.panel, context=19, horizon=5, split=SPLIT))
    others: list[tuple[td.Task, type[TsdistillError]]] = [
        (td.Task(task.panel, context=19, horizon=3, split=SPLIT), ShapeError),
        (td.Task(task.panel, context=23, horizon=5, split=SPLIT), DataError),
        (td.Task(task.panel, context=19, horizon=5, split=td.Split.fractions(0.5, 0.3, 0.2)), DataError),
        (td.Task(task.panel, context=19, horizon=5, split=SPLIT, scaler=None), DataError),
    ]
    for other, kind in others:
        with pytest.raises(kind, match=r"Make it for this task|the task's 3 steps"):
            check_teacher(table, other)


def test_a_table_teaches_like_who_wrote_it(task: td.Task, ridge: Forecaster, frame: pd.DataFrame) -> None:
    table = ForecastTable.from_frame(frame, task)
    config = LinearConfig(penalties=(1e-3,))
    by_table, by_ridge = (td.distill(teacher, config, task, control=False) for teacher in (table, ridge))
    torch.testing.assert_close(
        by_table.state_dict()["map.weight"], by_ridge.state_dict()["map.weight"], rtol=0, atol=1e-3
    )
    assert by_table.lineage[-1].spec["teacher"] == table.digest


def test_a_panel_without_stamps_counts_rows(tmp_path: Path) -> None:
    task = toy_task()
    model = train(LinearConfig(), task)
    frame = forecast_frame(model, task)
    assert (frame["cutoff"].iloc[0], frame["ds"].iloc[0]) == (46, 47)
    table = ForecastTable.from_frame(frame.drop(columns="unique_id"), task)
    torch.testing.assert_close(
        table.forecast(all_of(task.train)), model.forecast(all_of(task.train)), rtol=1e-4, atol=1e-4
    )
    with pytest.raises(DataError, match="count rows of an item from 0"):
        ForecastTable.from_frame(frame.assign(cutoff=frame["cutoff"] - 50), task)


Change = Callable[[pd.DataFrame], pd.DataFrame]


def with_cell(column: str, value: object) -> Change:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.astype({column: object}) if isinstance(value, str) else frame.copy()
        frame.loc[7, column] = value  # type: ignore[call-overload]
        return frame

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f[f["cutoff"] > f["cutoff"].min()],
         ["cover all 136 training windows, and lacks 2 cutoffs", "'i0'", "2024-10-25 18:00:00+02:00"]),
        (lambda f: f.drop(index=[3, 4]), ["lacks 1 cutoff:", "2 steps of it"]),
        (lambda f: pd.concat([f, f.iloc[[2, 9]]], ignore_index=True), ["several in 4 rows", "Drop the repeated"]),
        (with_cell("forecast", np.nan), ["finite numbers", "row 7"]),
        (with_cell("unique_id", "i9"), ["must name items of the panel, got 'i9' in row 7", "Known: i0, i1"]),
        (lambda f: f.assign(ds=f["ds"].dt.tz_localize(None), cutoff=f["cutoff"].dt.tz_localize(None)),
         ["2 problems", "`ds` must hold stamps with a zone (Europe/Berlin)", "tz_localize"]),
        (lambda f: f.assign(cutoff=f["cutoff"] + pd.Timedelta("30min")),
         ["`cutoff` must hold steps of the panel", "680 stamps"]),
        (lambda f: f.assign(ds=f["cutoff"]), ["`ds` must be after `cutoff`"]),
        (lambda f: f.rename(columns={"cutoff": "cutof"}), ["lacks cutoff", "Did you mean `cutof`"]),
        (lambda f: f.iloc[:0], ["empty"]),
        (lambda f: with_cell("ds", "yesterday-ish")(f), ["`ds`", "cannot be read"]),
        (lambda f: with_cell("unique_id", "i9")(with_cell("forecast", np.inf)(pd.concat([f, f[90:91]]).reset_index())),
         ["4 problems", "finite", "'i9'", "several", "1 cutoff"]),
    ],
    ids=["cutoffs", "steps", "twice", "nan", "id", "zone", "grid", "before", "column", "empty", "unread", "many"],
)  # fmt: skip
def test_every_problem_of_a_table_is_told(task: td.Task, frame: pd.DataFrame, change: Change, words: list[str]) -> None:
    with pytest.raises(DataError) as error:
        ForecastTable.from_frame(change(frame), task)
    assert [word for word in words if word not in str(error.value)] == []


def test_unknown_channels_and_files_are_told(tmp_path: Path, task: td.Task, ridge: Forecaster) -> None:
    several = td.Task(panel_of(n_channels=3), context=19, horizon=5, split=SPLIT)
    wide = forecast_frame(train(LinearConfig(), several), several)
    long = wide.melt(["unique_id", "ds", "cutoff"], var_name="channel", value_name="forecast")
    with pytest.raises(DataError, match=r"(?s)channels of the task \(c0, c1, c2\), got 'x1'.*136 cutoffs"):
        ForecastTable.from_frame(long.replace({"channel": {"c1": "x1"}}), several)
    with pytest.raises(DataError, match="lacks channel"):
        ForecastTable.from_frame(long.drop(columns="channel"), several)
    with pytest.raises(DataError, match="lacks c1"):
        ForecastTable.from_frame(wide.drop(columns="c1"), several)
    for name in ("no.csv", "no.parquet"):
        with pytest.raises(DataError, match="Cannot read"):
            td.teachers.read_forecasts(tmp_path / name, task)
    with pytest.raises(UnsupportedError, match=r"\.csv"):
        write_forecasts(ridge, task, tmp_path / "f.pickle")
    with pytest.raises(ConfigError, match="not for teaching"):
        forecast_frame(ridge, task, ("test",))
    with pytest.raises(DataError, match="DataFrame"):
        ForecastTable.from_frame([1], task)  # type: ignore[arg-type]
    other = toy_panel()
    clash = td.Panel(other.items, ("load", "ds", "price"), "h")
    model = td.Task(clash, context=47, horizon=11, split=SPLIT)
    with pytest.raises(ConfigError, match="Rename"):
        forecast_frame(train(LinearConfig(), model), model)
