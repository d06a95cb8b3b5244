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
"""Parts that a teacher may be asked about while anything is chosen; never the test part."""


@dataclass(frozen=True)
class Places:
    """The windows of a task, recognised in a batch by position and content.

    A batch says at which positions its windows stand, but not in what. Whoever looks something up by position asks
    here first: were the windows others than expected, everything would be off by some steps and nothing would say so.
    """

    task: Task

    def windows(self, part: Part) -> Windows:
        """The windows of a part."""
        return self.task.windows(part)

    def locate(self, batch: Batch, parts: tuple[Part, ...] = ("train", "validation")) -> Part | None:
        """Which of the parts a batch was taken from; None if its windows are not where they would have to be."""
        context, target = batch.context.cpu(), batch.target.cpu()
        for part in parts:
            ours = self.windows(part)
            if len(batch.index) and int(batch.index.max()) >= len(ours):
                continue
            same = ours.batch(batch.index)
            if torch.equal(same.target, target) and torch.equal(same.context, context):
                return part
        return None

    def require_training(self, batch: Batch, what: str) -> None:
        """Refuse windows that are not the task's training windows; `what` looks at what happened in them."""
        if self.locate(batch) != "train":
            raise DataError(
                f"{what} is known of the training windows of its task only, as it looks at what happened there. Ask "
                "the teachers themselves about other windows."
            )

    def check(self, task: Task, what: str) -> None:
        """Refuse a task of other windows or another scaling; `what` says what was made for these."""
        ours = self.task
        if task is ours:
            return
        if (task.signature.horizon, task.channels) != (ours.horizon, ours.channels):
            raise ShapeError(
                f"`teacher` must forecast the task's {task.horizon} steps of {len(task.channels)} channels, got {what} "
                f"for {ours.horizon} steps of {len(ours.channels)} channels (or other names). Make it for this task."
            )
        mine, theirs = (each.without_covariates().train.fingerprint for each in (ours, task))
        if mine != theirs:
            raise DataError(
                f"`teacher` must know the training windows of the task, got {what} for other windows (other rows, "
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
    plain = [each.tz_convert("UTC").tz_localize(None) if each.tz is not None else each for each in stamps]
    return np.concatenate([each.to_numpy().astype("M8[ns]").astype(np.int64) for each in plain])
