"""Training and validation part of a task as one, for a model about which nothing is left to choose."""

from __future__ import annotations

import copy

import numpy as np
import torch

from tsdistill.data.task import Task


def with_validation(task: Task) -> Task:
    """The same task with training windows up to the end of the validation part, those across the border as well.

    Scaled as before. Its validation windows are the task's, and no test of what has been trained on it.

    Example:
        >>> from tsdistill.testing import toy_task
        >>> task = toy_task()
        >>> every = with_validation(task)
        >>> len(every.train) > len(task.train) + len(task.validation), len(every.test) == len(task.test)
        (True, True)
    """
    length = task.context + task.horizon
    starts = task.train.starts.numpy()
    firsts = [
        np.arange(offset, max(offset, offset + borders.validation - length + 1), dtype=starts.dtype)
        for offset, borders in zip(task.offsets, task.borders, strict=True)
    ]
    longer = copy.copy(task)
    longer.__dict__.pop("fingerprint", None)
    train = task.train.beginning_at(torch.from_numpy(np.concatenate(firsts)))
    longer._windows = {**task._windows, "train": train}
    return longer
