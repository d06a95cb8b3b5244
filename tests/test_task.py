"""Tasks: where windows lie, that they are views, and that nothing selection sees depends on the test part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tests.frames import hours
from tsdistill.data import Borders, Item, Panel, Signature, Split, Task, blocks
from tsdistill.data.task import PARTS
from tsdistill.errors import ConfigError, DataError

CONTEXT, HORIZON, CHANNELS, ROWS = 29, 7, 3, 307


def panel(*rows: int, split: Split | None = None, seed: int = 0, stamped: bool = True) -> Panel:
    """Items of some lengths with the same three channels, each of another level and spread."""
    draw = np.random.default_rng(seed)
    items = tuple(
        Item(f"s{number}", hours(n) if stamped else None, draw.normal([1, -50, 1e4], [1, 9, 1e3], size=(n, CHANNELS)))
        for number, n in enumerate(rows or (ROWS,))
    )
    return Panel(items, tuple("abc"), "h", split)


def task(*rows: int, **how: Any) -> Task:
    return Task(panel(*rows), context=CONTEXT, horizon=HORIZON, **how)


def noisy(of: Panel, first: int, last: int) -> Panel:
    """The same panel with some rows of every item replaced by noise."""
    items = []
    for item in of.items:
        values = item.values.copy()
        values[first:last] = np.random.default_rng(1).normal(size=values[first:last].shape) * 1e6
        items.append(Item(item.unique_id, item.ds, values))
    return Panel(tuple(items), of.channels, of.frequency, of.split)


# ------------------------------------------------------------------------------------------------- where windows lie


@pytest.mark.parametrize(("horizon", "n_test"), [(96, 2785), (192, 2689), (336, 2545), (720, 2161)])
def test_counts_are_those_of_the_literature(horizon: int, n_test: int) -> None:
    long = Panel((Item("ett", None, np.random.default_rng(0).normal(size=(17_420, 2))),), ("x", "y"))
    made = Task(long, context=336, horizon=horizon, split=Split.rows(8640, 2880, 2880))
    assert (len(made.validation), len(made.test)) == (n_test, n_test)
    assert len(made.train) == 8640 - 336 - horizon + 1


@pytest.mark.parametrize("rows", [(ROWS,), (ROWS, 401, 283)], ids=["one item", "three items"])
@pytest.mark.parametrize("part", PARTS)
def test_every_window_of_a_part_is_there_once_and_is_right(rows: tuple[int, ...], part: Any) -> None:
    made = task(*rows)
    expected = []
    for item, borders in zip(made.panel.items, made.borders, strict=True):
        scaled = (item.values - made.mean) / made.scale
        begin = {"train": CONTEXT, "validation": borders.train, "test": borders.validation}[part]
        for first in range(begin, getattr(borders, part) - HORIZON + 1):
            expected.append(scaled[first - CONTEXT : first + HORIZON])
    windows = made.windows(part)
    batch = windows.batch(torch.arange(len(windows)))
    steps = torch.cat([batch.context, batch.target], dim=1)
    assert steps.shape == (len(expected), CONTEXT + HORIZON, CHANNELS)
    assert steps.dtype == torch.float32
    np.testing.assert_allclose(steps, np.stack(expected), rtol=1e-5, atol=1e-5)


def test_batches_give_every_window_once_in_the_order_asked_for() -> None:
    windows = task().train
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(0))
    batches = list(windows.batches(5, order))
    assert [len(batch.index) for batch in batches[:-1]] == [5] * (len(windows) // 5)
    assert torch.equal(torch.cat([batch.index for batch in batches]), order)
    for batch in batches:
        assert torch.equal(batch.target, windows.batch(batch.index).target)
    in_time = torch.cat([batch.index for batch in windows.batches(5)])
    assert torch.equal(in_time, torch.arange(len(windows)))


def test_a_subset_is_the_same_windows() -> None:
    windows = task().train
    index = torch.tensor([3, 11, 2])
    part = windows.subset(index)
    assert len(part) == 3
    assert torch.equal(part.batch(torch.tensor([2, 0])).context, windows.batch(torch.tensor([2, 3])).context)


def test_a_batch_moves_with_all_it_holds() -> None:
    batch = task().train.batch(torch.arange(5))
    moved = batch.to(torch.device("meta"))
    assert {moved.context.device.type, moved.target.device.type} == {"meta"}
    assert moved.mask is None
    assert torch.equal(moved.index, batch.index)


def test_windows_are_views_of_one_series() -> None:
    made = task(ROWS, 401)
    series = made.train.series
    assert series.shape == (ROWS + 401, CHANNELS)
    for part in PARTS:
        windows = made.windows(part)
        assert windows.series.data_ptr() == series.data_ptr()
        assert windows._steps._runs.untyped_storage().data_ptr() == series.untyped_storage().data_ptr()
    assert np.shares_memory(made.train._steps._runs.numpy(), series.numpy())
    assert made.train.subset(torch.arange(5)).series.data_ptr() == series.data_ptr()


# ------------------------------------------------------------------------------------------------------------ scaling


def test_the_scaler_makes_the_training_rows_standard() -> None:
    made = task(ROWS, 401)
    rows = np.concatenate([item.values[: cut.train] for item, cut in zip(made.panel.items, made.borders, strict=True)])
    np.testing.assert_allclose(made.mean, rows.mean(axis=0))
    np.testing.assert_allclose(made.scale, rows.std(axis=0))


def test_no_scaler_leaves_raw_values() -> None:
    made = task(scaler=None)
    assert (made.signature.mean, made.signature.scale) == ((0.0,) * 3, (1.0,) * 3)
    np.testing.assert_allclose(made.train.series, made.panel.items[0].values, rtol=1e-6)


@pytest.mark.parametrize("level", [0.0, 0.1, -1e7 / 3])
def test_a_channel_that_never_moves_in_training_is_only_centred(level: float) -> None:
    values = panel().items[0].values.copy()
    values[:230, 1] = level
    made = Task(Panel((Item("a", None, values),), tuple("abc")), context=CONTEXT, horizon=HORIZON)
    assert made.scale[1] == 1.0
    assert made.mean[1] == pytest.approx(level)
    assert made.train.series[:200, 1].abs().max() < 1e-6


def test_the_signature_survives_a_file() -> None:
    signature = task().signature
    assert (signature.context, signature.horizon, signature.channels) == (CONTEXT, HORIZON, ("a", "b", "c"))
    assert signature.frequency == "h"
    assert Signature.from_json(signature.to_json()) == signature


@pytest.mark.parametrize("block_bytes", [1, 8 * CHANNELS * 13, 1 << 22])
def test_reading_in_blocks_changes_nothing(block_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", block_bytes)
    made = task(ROWS, 401)
    rows = np.concatenate([item.values[: cut.train] for item, cut in zip(made.panel.items, made.borders, strict=True)])
    np.testing.assert_allclose(made.mean, rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(made.scale, rows.std(axis=0), rtol=1e-12)
    values = np.concatenate([item.values for item in made.panel.items])
    np.testing.assert_array_equal(made.train.series, ((values - made.mean) / made.scale).astype(np.float32))


@pytest.mark.parametrize("level", [0.0, 1e6, -1e9])
def test_moments_keep_their_digits_far_from_zero(level: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against sums of whole numbers, which are exact: a textbook variance would have no digit left."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 8 * 17)
    whole = np.random.default_rng(0).integers(-8, 8, size=503)
    values = (level + whole)[:, None].astype(float)
    mean, scale = blocks.moments(lambda: (block for _, block in blocks.blocks(values, (), [0], 0, 503)))
    variance = (503 * int((whole**2).sum()) - int(whole.sum()) ** 2) / 503**2
    assert mean[0] == pytest.approx(level + int(whole.sum()) / 503, rel=1e-14)
    assert scale[0] == pytest.approx(np.sqrt(variance), rel=1e-12)


# ------------------------------------------------------------------------------------ many series of unequal length


def scales(*rows: int) -> Panel:
    """Items of very different scales, the second a hundred thousand times the first."""
    made = panel(*rows)
    items = [Item(item.unique_id, item.ds, item.values * 10.0 ** (5 * n) + n) for n, item in enumerate(made.items)]
    return Panel(tuple(items), made.channels, "h")


def test_a_scaler_per_item_makes_the_training_rows_of_each_standard() -> None:
    origin = scales(ROWS, 401, 283)
    made = Task(origin, context=CONTEXT, horizon=HORIZON, scaler="item")
    offset = 0
    for item, cut, unit in zip(origin.items, made.borders, made.units, strict=True):
        rows, scaled = item.values[: cut.train], made.train.series[offset : offset + len(item)]
        np.testing.assert_allclose(unit, rows.std(axis=0), rtol=1e-12)
        np.testing.assert_allclose(scaled, (item.values - rows.mean(axis=0)) / rows.std(axis=0), atol=1e-5)
        offset += len(item)
    assert made.signature.normalisation == "window"
    assert (made.signature.mean, made.signature.scale) == ((0.0,) * 3, (1.0,) * 3)
    assert Signature.from_json(made.signature.to_json()) == made.signature
    assert task().signature.normalisation == "scaler"


@pytest.mark.parametrize("scaler", ["standard", "item", None])
def test_units_bring_windows_back_to_raw_values(scaler: Any) -> None:
    origin = scales(ROWS, 401, 283)
    made = Task(origin, context=CONTEXT, horizon=HORIZON, scaler=scaler)
    raw = Task(origin, context=CONTEXT, horizon=HORIZON, scaler=None)
    for part in PARTS:
        windows = made.windows(part)
        index = torch.arange(0, len(windows), 11)
        mean, scale = windows.units(index)
        assert mean.shape == scale.shape == (len(index), 1, CHANNELS)
        found = windows.batch(index).target.numpy() * scale + mean
        np.testing.assert_allclose(found, raw.windows(part).batch(index).target, rtol=2e-5, atol=1e-4 * scale.max())


def test_the_scaler_of_an_item_sees_its_own_training_part_only() -> None:
    def made(*changed: slice, item: int = 1) -> Task:
        items = list(scales(ROWS, 401).items)
        values = items[item].values.copy()
        for rows in changed:
            values[rows] += 1e6
        items[item] = Item(items[item].unique_id, items[item].ds, values)
        return Task(
            Panel(tuple(items), tuple("abc")), context=CONTEXT, horizon=HORIZON, scaler="item",
            split=Split.last(validation=41, test=53),
        )  # fmt: skip

    before = made()
    np.testing.assert_array_equal(made(slice(401 - 94, None)).units, before.units)
    assert made(slice(401 - 53, None)).fingerprint == before.fingerprint
    other = made(slice(0, 3))
    assert (other.units[0] == before.units[0]).all()
    assert (other.units[1] != before.units[1]).all()


def test_items_too_short_for_a_part_are_skipped_when_asked_and_counted() -> None:
    """Item s1 has a test window and a validation window but none to train on, s2 none at all, s3 cannot be cut."""
    split = Split.last(validation=HORIZON, test=HORIZON + 4)
    made = task(ROWS, CONTEXT + HORIZON + HORIZON + 4, 31, 11, split=split, short="skip")
    assert made.borders == [Borders(289, 296, 307), Borders(29, 36, 47), Borders(13, 20, 31), Borders(0, 0, 0)]
    assert made.notes == {"n_items_without_train": 3, "n_items_without_validation": 2, "n_items_without_test": 2}
    counts = [len(made.windows(part)) for part in PARTS]
    assert counts == [289 - 36 + 1, 1 + 1, 5 + 5]
    alone = Task(
        Panel(made.panel.items[:2], made.panel.channels), context=CONTEXT, horizon=HORIZON, split=split, short="skip"
    )
    assert alone.notes == {"n_items_without_train": 1}
    assert alone.test.starts.tolist() == made.test.starts.tolist()
    # A window that begins before its item would hold rows of another.
    assert int(made.test.starts[5]) == ROWS + 36 - CONTEXT


def test_a_window_never_reaches_into_another_item() -> None:
    rows = (ROWS, 47, 61, 401)
    made = task(*rows, split=Split.last(validation=HORIZON, test=HORIZON), short="skip")
    ends = np.cumsum(rows)
    for part in PARTS:
        first = made.windows(part).starts.numpy()
        last = first + CONTEXT + HORIZON - 1
        assert (np.searchsorted(ends, first, side="right") == np.searchsorted(ends, last, side="right")).all()


def test_nothing_is_noted_when_nothing_is_skipped() -> None:
    assert task(ROWS, 401, short="skip").notes == {}
    assert task(ROWS, 401, short="skip").fingerprint == task(ROWS, 401).fingerprint


def test_another_context_leaves_the_rest_of_a_task() -> None:
    split = Split.last(validation=HORIZON, test=HORIZON)
    made = task(ROWS, 47, split=split, short="skip", scaler=None)
    longer = made.with_context(31)
    assert (longer.context, longer.split, longer.scaler, longer.short) == (31, split, None, "skip")
    assert longer.panel is made.panel


# ------------------------------------------------------------------------------------------------------------ leakage


def seen(made: Task) -> tuple[Any, ...]:
    """Everything that training and selection may look at."""
    parts = [made.windows(part).batch(torch.arange(len(made.windows(part)))) for part in ("train", "validation")]
    tensors = [tensor.numpy().tobytes() for batch in parts for tensor in (batch.context, batch.target)]
    return made.fingerprint, made.signature.digest, made.train.fingerprint, made.validation.fingerprint, *tensors


@pytest.mark.parametrize("rows", [(ROWS,), (ROWS, 401)], ids=["one item", "two items"])
def test_nothing_that_selection_sees_depends_on_the_test_part(rows: tuple[int, ...]) -> None:
    split = Split.rows(190, 59, 50)
    before = Task(panel(*rows), context=CONTEXT, horizon=HORIZON, split=split)
    after = Task(noisy(panel(*rows), 190 + 59, ROWS + 999), context=CONTEXT, horizon=HORIZON, split=split)
    assert seen(after) == seen(before)
    assert after.test.fingerprint != before.test.fingerprint


def test_the_scaler_sees_the_training_part_only() -> None:
    split = Split.rows(190, 59, 50)
    before, after = (
        Task(one, context=CONTEXT, horizon=HORIZON, split=split) for one in (panel(), noisy(panel(), 190, ROWS))
    )
    assert after.signature == before.signature
    assert after.train.fingerprint == before.train.fingerprint
    assert after.fingerprint != before.fingerprint
    first = Task(noisy(panel(), 0, 1), context=CONTEXT, horizon=HORIZON, split=split)
    assert first.signature != before.signature


def test_rows_after_the_test_part_are_not_used() -> None:
    split = Split.rows(190, 59, 50)
    before, after = (
        Task(one, context=CONTEXT, horizon=HORIZON, split=split) for one in (panel(), noisy(panel(), 299, ROWS))
    )
    assert after.test.fingerprint == before.test.fingerprint


def test_the_fingerprint_tells_tasks_apart() -> None:
    made = panel()
    prints = {
        Task(made, context=CONTEXT, horizon=HORIZON).fingerprint,
        Task(made, context=CONTEXT + 1, horizon=HORIZON).fingerprint,
        Task(made, context=CONTEXT, horizon=HORIZON + 1).fingerprint,
        Task(made, context=CONTEXT, horizon=HORIZON, scaler=None).fingerprint,
        Task(made, context=CONTEXT, horizon=HORIZON, split=Split.fractions(0.6, 0.2, 0.2)).fingerprint,
        Task(panel(seed=1), context=CONTEXT, horizon=HORIZON).fingerprint,
    }
    assert len(prints) == 6
    assert Task(panel(), context=CONTEXT, horizon=HORIZON).fingerprint in prints


# ------------------------------------------------------------------------------------------------------------- splits


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
        lambda: Task(panel().to_frame(), context=0, horizon=7),
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
    "unknown part": (lambda: task().windows("dev"), ConfigError, ["train, validation, test", "dev"]),  # type: ignore[arg-type,return-value]
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
