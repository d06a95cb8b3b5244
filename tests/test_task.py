"""Tasks: where windows lie, that they are views, and that nothing selection sees depends on the test part."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.frames import hours
from tsdistill.data import Borders, Item, Panel, Signature, Split, Task, blocks
from tsdistill.data.task import PARTS

CONTEXT, HORIZON, CHANNELS, ROWS = 29, 7, 3, 307


def panel(*rows: int, split: Split | None = None, seed: int = 0, stamped: bool = True) -> Panel:
    """Items of some lengths with the same three channels, each of another level and spread."""
    draw = np.random.default_rng(seed)
    items = tuple(
        Item(f"s{number}", hours(n) if stamped else None, draw.normal([1, -50, 1e4], [1, 9, 1e3], size=(n, CHANNELS)))
        for number, n in enumerate(rows or (ROWS,))
    )
    return Panel(items, tuple("abc"), "h", split)


def task(*rows: int, **options: Any) -> Task:
    return Task(panel(*rows), context=CONTEXT, horizon=HORIZON, **options)


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
        values = windows.batch(index).target.numpy() * scale + mean
        np.testing.assert_allclose(values, raw.windows(part).batch(index).target, rtol=2e-5, atol=1e-4 * scale.max())


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
