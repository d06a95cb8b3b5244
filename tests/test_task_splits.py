"""Where a task is cut, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from tests.frames import hours
from tests.test_task import CONTEXT, HORIZON, ROWS, panel, task
from tsdistill.data import Borders, Panel, Split, Task
from tsdistill.errors import ConfigError, DataError


def test_a_task_uses_the_panels_own_borders_unless_told_otherwise() -> None:
    own = Split.rows(190, 59, 50)
    assert Task(panel(split=own), context=CONTEXT, horizon=HORIZON).split == own
    other = Split.fractions(0.6, 0.2, 0.2)
    assert Task(panel(split=own), context=CONTEXT, horizon=HORIZON, split=other).split == other
    assert task().borders == [Borders(214, 246, 307)]


@pytest.mark.parametrize("n_rows", [7, 97, 966, 7588, 52_696])
def test_fractions_leave_no_row_out(n_rows: int) -> None:
    borders = Split.fractions(0.7, 0.1, 0.2).borders(n_rows)
    assert borders.test == n_rows
    assert (borders.train, borders.test - borders.validation) == (int(n_rows * 0.7), int(n_rows * 0.2))
    assert Split.fractions(0.5, 0.2, 0.2).borders(1000) == Borders(500, 700, 900)


def test_last_rows_are_counted_from_the_end_of_each_item() -> None:
    made = task(ROWS, 401, split=Split.last(validation=41, test=53))
    assert made.borders == [Borders(ROWS - 94, ROWS - 53, ROWS), Borders(401 - 94, 401 - 53, 401)]
    assert len(made.test) == 2 * (53 - HORIZON + 1)
    assert Split.from_toml(made.split.to_toml()) == made.split


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
def test_dates_cut_before_the_first_row_of_a_part(zone: str | None) -> None:
    ds = hours(24 * 30, start="2024-03-20", zone=zone)
    split = Split.dates("2024-04-01", "2024-04-08 12:00", "2024-04-15")
    borders = split.borders(len(ds), ds)
    stamps = [str(ds[row].tz_localize(None)) for row in borders]
    assert stamps == ["2024-04-01 00:00:00", "2024-04-08 12:00:00", "2024-04-15 00:00:00"]
    assert Split.dates("2024-04-01", "2024-04-08").borders(len(ds), ds).test == len(ds)


def test_dates_with_an_offset_are_instants() -> None:
    ds = hours(24 * 30, start="2024-03-20", zone="Europe/Berlin")
    borders = Split.dates("2024-04-01T00:00+00:00", "2024-04-08").borders(len(ds), ds)
    assert ds[borders.train] == pd.Timestamp("2024-04-01 02:00", tz="Europe/Berlin")
    naive = hours(24 * 30, start="2024-03-20")
    assert Split.dates("2024-04-01T02:00+02:00", "2024-04-08").borders(len(ds), naive).train == 24 * 12


SPLITS_REFUSED: dict[str, tuple[Callable[[], Split], list[str]]] = {
    "shares above 1": (lambda: Split.fractions(0.8, 0.2, 0.2), ["at most 1", "1.2"]),
    "no training": (lambda: Split.fractions(0, 0.5, 0.5), ["`train` must be above 0"]),
    "negative test": (lambda: Split.fractions(0.5, 0.5, -0.1), ["`test` must be above 0", "-0.1"]),
    "half a row": (lambda: Split.rows(10, 2.5, 3), ["`validation` must be a whole number"]),  # type: ignore[arg-type]
    "several": (lambda: Split.rows(0, 0, 3), ["`train`", "`validation`"]),
    "half a last row": (lambda: Split.last(validation=2.5, test=3), ["`validation` must be a whole number"]),  # type: ignore[arg-type]
    "last rows with a training part": (
        lambda: Split(kind="last", train=100, validation=7, test=7),
        ["`train` must be left out of Split.last", "train=100"],
    ),
    "no last rows": (
        lambda: Split(kind="last", validation=0),
        ["`validation` must be", "`test` must be", "both parts"],
    ),
    "no date": (lambda: Split.dates("soon", "2024-01-01"), ["`validation_start` must be an ISO date", "soon"]),
    "dates out of order": (lambda: Split.dates("2024-02-01", "2024-01-01"), ["time order"]),
    "unknown field": (lambda: Split(trian=0.5), ["`train`?"]),  # type: ignore[call-arg]
}


@pytest.mark.parametrize("case", SPLITS_REFUSED)
def test_impossible_splits_are_refused(case: str) -> None:
    make, words = SPLITS_REFUSED[case]
    with pytest.raises(ConfigError) as caught:
        make()
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


TASKS_REFUSED: dict[str, tuple[Callable[[], Task], type[Exception], list[str]]] = {
    "no context": (lambda: Task(panel(), context=0, horizon=7), ConfigError, ["`context` must be", "context=0"]),
    "no whole horizon": (lambda: Task(panel(), context=29, horizon=7.0), ConfigError, ["`horizon`"]),  # type: ignore[arg-type]
    "true is no number": (lambda: Task(panel(), context=True, horizon=7), ConfigError, ["`context`"]),
    "unknown scaler": (lambda: task(scaler="robust"), ConfigError, ['be "standard", "item" or None', "robust"]),
    "several": (
        lambda: Task(panel(), context=0, horizon=0, scaler="x"),  # type: ignore[arg-type]
        ConfigError,
        ["3 problems", "`context`", "`horizon`", "`scaler`"],
    ),
    "a frame for a panel": (
        lambda: Task(panel().to_frame(), context=0, horizon=7),  # type: ignore[arg-type]
        ConfigError,
        ["2 problems", "`context`", "`panel` must be a td.Panel, got panel='DataFrame'", "from_frame"],
    ),
    "numbers for a split": (lambda: task(split=(0.7, 0.1, 0.2)), ConfigError, ["`split` must be td.Split or None"]),
    "unknown way with short items": (lambda: task(short="drop"), ConfigError, ['`short` must be "refuse" or "skip"']),
    "a horizon longer than the series": (
        lambda: Task(panel(), context=CONTEXT, horizon=ROWS + 4),
        DataError,
        ["3 problems", "214 rows for the train part", "61 rows for the validation part", "context + horizon = 340"],
    ),
    "a context longer than the series": (
        lambda: Task(panel(), context=401, horizon=HORIZON),
        DataError,
        ["3 problems", "train part", "validation part", "test part", "shorter context"],
    ),
    "no item long enough": (
        lambda: task(41, 30, short="skip"),
        DataError,
        ["2 problems", "no item has the context + horizon = 36 rows", "train part", "validation part"],
    ),
    "a scaler for one row": (
        lambda: task(ROWS, 109, short="skip", scaler="item", split=Split.last(validation=61, test=47)),
        DataError,
        ["item 's1' has 1 rows to train on", 'scaler="standard"'],
    ),
    "dates without stamps are no short items": (
        lambda: Task(
            panel(stamped=False), context=29, horizon=7, short="skip", split=Split.dates("2024-01-05", "2024-01-09")
        ),
        DataError,
        ["needs time stamps"],
    ),
    "too few rows for the last ones": (
        lambda: task(ROWS, 107, split=Split.last(validation=60, test=47)),
        DataError,
        ["item 's1'", "leave some of the 107 rows", "(60, 47)"],
    ),
    "too few rows": (lambda: task(53), DataError, ["item 's0'", "validation part", "context + horizon = 36"]),
    "too few rows in some items": (lambda: task(ROWS, 41, 30), DataError, ["item 's1'", "item 's2'"]),
    "too few rows for the split": (
        lambda: task(ROWS, 299, 298, split=Split.rows(190, 59, 50)),
        DataError,
        ["item 's2'", "at most the 298 rows"],
    ),
    "dates without stamps": (
        lambda: Task(panel(stamped=False), context=29, horizon=7, split=Split.dates("2024-01-05", "2024-01-09")),
        DataError,
        ["needs time stamps"],
    ),
    "dates after the end": (
        lambda: task(split=Split.dates("2025-01-05", "2025-01-09")),
        DataError,
        ["validation part", "test part"],
    ),
    "unknown part": (lambda: task().windows("dev"), ConfigError, ["train, validation, test", "dev"]),  # type: ignore[dict-item, return-value, arg-type]
}


@pytest.mark.parametrize("case", TASKS_REFUSED)
def test_impossible_tasks_are_refused(case: str) -> None:
    make, kind, words = TASKS_REFUSED[case]
    with pytest.raises(kind) as caught:
        make()
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


def test_interpolation_does_not_carry_a_part_into_the_one_before() -> None:
    """A gap across each border: what selection sees must not move with the rows after it."""

    def fingerprint(later: float) -> str:
        steps = np.arange(400.0)
        values = np.sin(steps / 5)
        values[320:] += later
        values[[237, 238, 239, 316, 317, 318, 319]] = np.nan
        frame = pd.DataFrame({"ds": pd.date_range("2024-01-01", periods=400, freq="h"), "load": values})
        task = Task(Panel.from_frame(frame, fill="interpolate"), context=29, horizon=7, split=Split.rows(240, 80, 80))
        assert task.validation.series[319] == task.validation.series[315]
        return task.fingerprint

    assert fingerprint(0.0) == fingerprint(1000.0)


def test_a_channel_that_begins_after_a_border_is_refused() -> None:
    values = np.sin(np.arange(400.0))
    values[:250] = np.nan
    frame = pd.DataFrame({"ds": pd.date_range("2024-01-01", periods=400, freq="h"), "load": values})
    with pytest.raises(DataError, match="no observed value before row 240"):
        Task(Panel.from_frame(frame, fill="interpolate"), context=29, horizon=7, split=Split.rows(240, 80, 80))
