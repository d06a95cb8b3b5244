"""A task with only the newest windows to train on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tsdistill.data import Item, Panel, Split, Task
from tsdistill.errors import ConfigError, DataError
from tsdistill.testing import toy_task


def test_the_latest_share_of_training_is_scaled_and_judged_as_before() -> None:
    task = toy_task()
    few = task.latest(0.5)
    assert few.fingerprint != task.fingerprint
    assert few.signature == task.signature
    assert torch.equal(few.test.starts, task.test.starts)
    assert few.validation.fingerprint == task.validation.fingerprint
    half = round(task.borders[0].train * 0.5)
    assert few.train.starts.tolist() == [start for start in task.train.starts.tolist() if start >= half]
    assert task.latest(1.0).fingerprint == task.fingerprint
    assert few.train.batch(torch.tensor([3])).target.equal(task.train.batch(torch.tensor([half + 3])).target)


def test_the_latest_share_keeps_items_apart() -> None:
    items = tuple(Item(name, None, np.random.default_rng(n).random((n, 1))) for name, n in (("a", 211), ("b", 307)))
    task = Task(Panel(items, ("y",)), context=7, horizon=3, split=Split.fractions(0.6, 0.2, 0.2))
    cuts = [
        (offset + round(cut.train * 0.75), offset + cut.train)
        for offset, cut in zip((0, 211), task.borders, strict=True)
    ]
    starts = task.latest(0.25).train.starts.tolist()
    assert starts == [start for first, end in cuts for start in range(first, end - 9)]


@pytest.mark.parametrize(("share", "words"), [(0, "above 0"), (1.5, "at most 1"), (0.01, "hold no window")])
def test_a_share_without_windows_is_refused(share: float, words: str) -> None:
    with pytest.raises((ConfigError, DataError), match=words):
        toy_task().latest(share)
