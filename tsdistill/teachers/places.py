"""Where the windows of a task lie in their items: what a table of forecasts names by identifier and stamp."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch

from tsdistill.data.task import Batch, Part, Task, Windows
from tsdistill.errors import DataError, ShapeError

Learnt = Literal["train", "validation"]
"""Parts that a teacher may forecast while anything is selected; never the test part."""


@dataclass(frozen=True)
class Places:
    """The windows of a task, recognised in a batch by position and content.

    A batch holds the positions of its windows, but not of which part. Code that looks something up by position checks
    here first: with other windows than expected, everything would be off by some steps without an error.
    """

    task: Task

    def windows(self, part: Part) -> Windows:
        """The windows of a part."""
        return self.task.windows(part)

    def locate(self, batch: Batch, parts: tuple[Part, ...] = ("train", "validation")) -> Part | None:
        """Which of the parts a batch was taken from; None if its windows are not where they would have to be."""
        context, target = batch.context.cpu(), batch.target.cpu()
        for part in parts:
            windows = self.windows(part)
            if len(batch.index) and int(batch.index.max()) >= len(windows):
                continue
            same = windows.batch(batch.index)
            if torch.equal(same.target, target) and torch.equal(same.context, context):
                return part
        return None

    def require_training(self, batch: Batch, subject: str) -> None:
        """Refuse windows that are not the task's training windows; `what` looks at what happened in them."""
        if self.locate(batch) != "train":
            raise DataError(
                f"{subject} is known of the training windows of its task only, as it looks at what happened there. Ask "
                "the teachers themselves about other windows."
            )

    def check(self, task: Task, name: str) -> None:
        """Refuse a task of other windows or another scaling; `name` is what was made for these, for the message."""
        own = self.task
        if task is own:
            return
        if (task.signature.horizon, task.channels) != (own.horizon, own.channels):
            raise ShapeError(
                f"`teacher` must forecast the task's {task.horizon} steps of {len(task.channels)} channels, got {name} "
                f"for {own.horizon} steps of {len(own.channels)} channels (or other names). Make it for this task."
            )
        own_windows, task_windows = (one.without_covariates().train.fingerprint for one in (own, task))
        if own_windows != task_windows:
            raise DataError(
                f"`teacher` must know the training windows of the task, got {name} for other windows (other rows, "
                "another context, split or scaler). Make it for this task."
            )

    @property
    def offsets(self) -> np.ndarray:
        """Row of the stacked series at which each item begins, (item,)."""
        return np.cumsum([0, *[len(item) for item in self.task.panel.items[:-1]]])

    def cutoffs(self, part: Part) -> np.ndarray:
        """Row of the stacked series at which the context of each window ends, (window,)."""
        return self.windows(part).starts.numpy().astype(np.int64) + self.task.context - 1

    def items(self, rows: np.ndarray) -> np.ndarray:
        """Number of the item that each row of the stacked series belongs to."""
        return np.searchsorted(self.offsets, rows, side="right") - 1


def on_time_line(stamps: list[pd.DatetimeIndex]) -> np.ndarray:
    """Stamps of several items one below the other, as microseconds or nanoseconds on the UTC time line."""
    plain = [index.tz_convert("UTC").tz_localize(None) if index.tz is not None else index for index in stamps]
    return np.concatenate([index.to_numpy().astype("M8[ns]").astype(np.int64) for index in plain])
