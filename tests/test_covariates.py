"""Covariates: what a spec refuses, what a task makes of it, and that past ones do not reach into the horizon."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tests.frames import hours
from tests.typed import known
from tsdistill import clock
from tsdistill.data import Covariates, Item, Panel, Signature, Split, Task, Windows
from tsdistill.data.split import PARTS
from tsdistill.errors import ConfigError

CONTEXT, HORIZON, ROWS = 29, 7, 307
COLUMNS = ("load", "plan", "flag", "wind", "still", "rare", "price")
KNOWN = Covariates(
    calendar=("time-of-day", "time-of-week"), holidays=("2024-01-06",), future=("rare", "plan"), past=("wind", "still")
)


def panel(*rows: int, zone: str | None = None, stamped: bool = True, seed: int = 0) -> Panel:
    """Items of some lengths with seven columns, among them flags, a rare one, and one that never moves."""
    draw = np.random.default_rng(seed)
    items = []
    for number, n_rows in enumerate(rows or (ROWS,)):
        values = draw.normal([1, -50, 0, 1e4, 5, 0, 7], [1, 9, 1, 1e3, 0, 1, 2], size=(n_rows, len(COLUMNS)))
        values[:, 2] = values[:, 2] > 0
        values[:, 5] = np.arange(n_rows) % 101 == 3
        items.append(Item(f"s{number}", hours(n_rows, zone=zone) if stamped else None, values))
    return Panel(tuple(items), COLUMNS, "h")


def task(*rows: int, covariates: Covariates | None = KNOWN, **options: Any) -> Task:
    return Task(panel(*rows), context=CONTEXT, horizon=HORIZON, covariates=covariates, **options)


def every(windows: Windows) -> Any:
    return windows.batch(torch.arange(len(windows)))


REFUSED: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "nothing": (Covariates, ["`covariates` must name at least one of calendar, holidays, future, past"]),
    "in both": (
        lambda: Covariates(future=("a", "b"), past=("b",)),
        ["`past` must not be named in future as well", "['b']"],
    ),
    "twice": (lambda: Covariates(future=("a", "a")), ["`future` must name each entry once"]),
    "no cycle": (lambda: Covariates(calendar=("time-of-moon",)), ["`calendar[0]`", "'time-of-day'", "time-of-moon"]),
    "no date": (
        lambda: Covariates(holidays=("2024-12-25", "Christmas", "2024-13-01")),
        ["`holidays` must be ISO dates", "['Christmas', '2024-13-01']", "Write 2013-12-25"],
    ),
    "a stamp": (lambda: Covariates(holidays=("2024-12-25 00:00",)), ["`holidays` must be ISO dates", "00:00"]),
    "name of a feature": (
        lambda: Covariates(calendar=("time-of-day",), past=("time-of-day.sin",)),
        ["not be called like a calendar feature", "Rename"],
    ),
    "one text": (lambda: Covariates(future="plan"), ["`future` must", "'plan'"]),
    "unknown field": (lambda: Covariates(hollidays=("2024-12-25",)), ["`holidays`?"]),  # type: ignore[call-arg]
    "several": (
        lambda: Covariates(calendar=("time-of-day",) * 2, future=("a",), past=("a", "time-of-day.cos")),
        ["3 problems in Covariates", "`calendar`", "`past`", "`columns`"],
    ),
    "unknown columns": (
        lambda: task(covariates=Covariates(future=("plann",), past=("winds", "xyz"))),
        ["3 problems in Task", "`covariates.future` must name a column", "`plan`?", "`wind`?", "Known: flag, load"],
    ),
    "no stamps": (
        lambda: Task(panel(stamped=False), context=CONTEXT, horizon=HORIZON, covariates=KNOWN),
        ["2 problems", "`covariates.calendar` must be empty for a panel without time stamps", "`covariates.holidays`"],
    ),
    "no channel left": (
        lambda: task(covariates=Covariates(future=COLUMNS[:4], past=COLUMNS[4:])),
        ["`covariates` must leave at least one channel"],
    ),
    "no spec": (lambda: task(covariates={"past": ("wind",)}), ["be td.Covariates or None"]),  # type: ignore[arg-type]
    "everything at once": (
        lambda: Task(panel(53), context=CONTEXT, horizon=101, scaler="x", covariates=Covariates(past=("winds",))),  # type: ignore[arg-type]
        ["5 problems in Task", "`scaler`", "`wind`?", "train part", "validation part", "context + horizon = 130"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_impossible_covariates_are_refused(case: str) -> None:
    make, words = REFUSED[case]
    with pytest.raises(ConfigError) as caught:
        make()
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


def test_the_spec_is_the_same_after_a_file_and_however_dates_are_written() -> None:
    assert Covariates.from_toml(KNOWN.to_toml()) == KNOWN
    first = Covariates(holidays=("2024-12-25", "2024-01-01", "2024-12-25"))
    assert first == Covariates(holidays=("20240101", "2024-W52-3"))
    assert first.digest != KNOWN.digest


def test_named_columns_are_no_channels() -> None:
    made = task()
    assert made.channels == ("load", "flag", "price")
    assert made.signature.channels == made.channels
    assert made.signature.future == KNOWN.known_ahead == (*clock.names(KNOWN.calendar, ["day"]), "rare", "plan")
    assert made.signature.past == ("wind", "still")
    assert made.signature.covariates == KNOWN
    np.testing.assert_array_equal(made.values(0), panel().items[0].values[:, [0, 2, 6]])
    assert Signature.from_json(made.signature.to_json()) == made.signature


@pytest.mark.parametrize("rows", [(ROWS,), (ROWS, 401, 283)], ids=["one item", "three items"])
def test_batches_carry_the_rows_of_their_windows(rows: tuple[int, ...]) -> None:
    made, origin = task(*rows), panel(*rows)
    signature = made.signature
    for part in PARTS:
        windows = made.windows(part)
        batch = every(windows)
        assert batch.future.shape == (len(windows), CONTEXT + HORIZON, 7)
        assert batch.past.shape == (len(windows), CONTEXT, 2)
        assert batch.future.dtype == batch.past.dtype == torch.float32
        place = 0
        for item, borders in zip(origin.items, made.borders, strict=True):
            begin = {"train": 0, "validation": borders.train - CONTEXT, "test": borders.validation - CONTEXT}[part]
            calendar = clock.features(known(item.ds).to_numpy(), KNOWN.calendar, KNOWN.holidays)
            ahead = np.concatenate([calendar, item.values[:, [5, 1]]], axis=1)
            ahead = (ahead - signature.future_mean) / signature.future_scale
            behind = (item.values[:, [3, 4]] - signature.past_mean) / signature.past_scale
            for first in range(begin, getattr(borders, part) - CONTEXT - HORIZON + 1):
                np.testing.assert_allclose(batch.future[place], ahead[first : first + CONTEXT + HORIZON], atol=1e-5)
                np.testing.assert_allclose(batch.past[place], behind[first : first + CONTEXT], atol=1e-5)
                place += 1
        assert place == len(windows)


def test_columns_are_scaled_by_their_training_rows_and_flags_are_not() -> None:
    made = task(ROWS, 401)
    rows = np.concatenate([item.values[: cut.train] for item, cut in zip(made.panel.items, made.borders, strict=True)])
    signature = made.signature
    np.testing.assert_allclose(signature.future_mean, [0] * 5 + [0, rows[:, 1].mean()], rtol=1e-12)
    np.testing.assert_allclose(signature.future_scale, [1] * 5 + [1, rows[:, 1].std()], rtol=1e-12)
    np.testing.assert_allclose(signature.past_mean, [rows[:, 3].mean(), 5.0], rtol=1e-12)
    np.testing.assert_allclose(signature.past_scale, [rows[:, 3].std(), 1.0], rtol=1e-12)
    # A channel of 0 and 1 is forecast like any other.
    assert made.scale[1] == pytest.approx(rows[:, 2].std())
    raw = task(scaler=None).signature
    assert (set(raw.future_mean + raw.past_mean), set(raw.future_scale + raw.past_scale)) == ({0.0}, {1.0})


def test_the_calendar_is_that_of_the_local_clock() -> None:
    only = Covariates(calendar=("time-of-day",), holidays=("2024-01-06",))
    local = Task(panel(zone="Asia/Kolkata"), context=CONTEXT, horizon=HORIZON, covariates=only)
    naive = Task(panel(), context=CONTEXT, horizon=HORIZON, covariates=only)
    assert torch.equal(every(local.train).future, every(naive.train).future)
    assert every(local.train).past is None
    # Days of 23 and 25 hours: six in the morning stays six in the morning.
    stamps = pd.date_range("2024-03-20", periods=24 * 20, freq="h", tz="Europe/Berlin")
    values = np.random.default_rng(0).normal(size=(len(stamps), 1))
    made = Task(Panel((Item("a", stamps, values),), ("load",), "h"), context=CONTEXT, horizon=HORIZON, covariates=only)
    future = made.train.future
    assert future is not None
    angles = torch.atan2(future[:, 0], future[:, 1]) / (2 * torch.pi) * 24
    np.testing.assert_allclose(angles.numpy() % 24, stamps.hour, atol=1e-4)


def test_without_covariates_the_windows_are_the_same() -> None:
    made = task(ROWS, 401)
    plain = made.without_covariates()
    alone = Task(
        Panel(
            tuple(Item(item.unique_id, item.ds, item.values[:, [0, 2, 6]]) for item in made.panel.items),
            ("load", "flag", "price"),
            "h",
        ),
        context=CONTEXT,
        horizon=HORIZON,
    )
    assert plain.signature == made.signature.without_covariates() == alone.signature
    assert plain.fingerprint == alone.fingerprint != made.fingerprint
    assert plain.channels == made.channels
    for part in PARTS:
        one, other = every(made.windows(part)), every(plain.windows(part))
        assert torch.equal(one.context, other.context)
        assert torch.equal(one.target, other.target)
        assert other.past is None
        assert other.future is None
        assert plain.windows(part).series.data_ptr() == made.windows(part).series.data_ptr()
    assert made.covariates == KNOWN
    assert plain.without_covariates() is plain


def test_a_subset_keeps_the_covariates() -> None:
    windows = task().train
    index = torch.tensor([3, 11, 2])
    part = windows.subset(index)
    kept, picked = every(part), windows.batch(index)
    for rows, wanted in ((kept.future, picked.future), (kept.past, picked.past)):
        assert rows is not None
        assert wanted is not None
        assert torch.equal(rows, wanted)
    assert part.fingerprint != windows.fingerprint
    moved = every(part).to(torch.device("meta"))
    assert {moved.past.device.type, moved.future.device.type} == {"meta"}


# ------------------------------------------------------------------------------------------------------------ leakage


def changed(column: str, first: int, last: int) -> Task:
    """The task with noise in some rows of one column."""
    origin = panel()
    values = origin.items[0].values.copy()
    values[first:last, COLUMNS.index(column)] = np.random.default_rng(1).normal(size=last - first) * 1e3
    spoilt = Panel((Item("s0", origin.items[0].ds, values),), COLUMNS, "h")
    split = Split.rows(190, 59, 50)
    return Task(spoilt, context=CONTEXT, horizon=HORIZON, split=split, covariates=KNOWN)


def honest() -> Task:
    return changed("load", 0, 0)


def test_past_columns_of_the_horizon_do_not_matter() -> None:
    """Of the last validation window the horizon alone lies in these rows; then one row more, and it does matter."""
    before, border = honest(), 190 + 59
    after = changed("wind", border - HORIZON, ROWS)
    assert after.signature == before.signature
    assert after.fingerprint == before.fingerprint
    assert torch.equal(every(after.validation).past, every(before.validation).past)
    assert changed("wind", border - HORIZON - 1, ROWS).fingerprint != before.fingerprint


@pytest.mark.parametrize("column", ["wind", "plan", "rare"])
def test_nothing_that_selection_sees_depends_on_the_test_part(column: str) -> None:
    before, after = honest(), changed(column, 190 + 59, ROWS)
    assert after.fingerprint == before.fingerprint
    assert after.signature.digest == before.signature.digest
    assert after.test.fingerprint != before.test.fingerprint


@pytest.mark.parametrize("column", ["plan", "rare"])
def test_planned_columns_of_the_horizon_do_matter(column: str) -> None:
    assert changed(column, 190 + 58, 190 + 59).fingerprint != honest().fingerprint


def test_signatures_without_covariates_are_written_as_they_always_were() -> None:
    plain = Task(panel(), context=CONTEXT, horizon=HORIZON).signature
    old = {
        "context": CONTEXT,
        "horizon": HORIZON,
        "channels": list(COLUMNS),
        "mean": list(plain.mean),
        "scale": list(plain.scale),
        "frequency": "h",
    }
    assert plain.to_dict() == old
    assert Signature.from_dict(old) == plain


def test_a_signature_holds_one_number_per_feature() -> None:
    with pytest.raises(ConfigError) as caught:
        task().signature.replace(future_mean=(1.0,), past_scale=())
    words = ["2 problems", "`future_mean` must hold one number for each of ['time-of-day.sin'", "`past_scale`"]
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)
