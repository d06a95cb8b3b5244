"""Who can teach, and what a teacher said: forecasts computed once, kept under the digests of teacher and windows."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from tsdistill.data.task import Batch, Task, Windows
from tsdistill.errors import ArtifactError, ShapeError
from tsdistill.models.base import Forecaster

CHUNK = 64
"""Windows forecast at once while a cache is filled."""


@runtime_checkable
class Teacher(Protocol):
    """What it takes to teach: forecasts of a batch, and a digest that changes when they do."""

    @property
    def digest(self) -> str:
        """Names the teacher's exact weights."""

    def forecast(self, batch: Batch) -> Tensor:
        """Scaled forecasts (batch, horizon, channel), without gradients."""


@dataclass(frozen=True)
class CachedTeacher:
    """A teacher that is asked once: what training objectives learn from.

    Args:
        teacher: Who forecasts.
        folder: Where forecasts are kept; None keeps them in memory.
    """

    teacher: Teacher
    folder: Path | None = None

    @property
    def digest(self) -> str:
        """The teacher's."""
        return self.teacher.digest

    def forecasts(self, windows: Windows) -> Tensor:
        """See `cached_forecasts`."""
        return cached_forecasts(self.teacher, windows, folder=self.folder)


def cached_forecasts(teacher: Teacher, windows: Windows, *, folder: Path | None = None) -> Tensor:
    """Forecasts of every window, (window, horizon, channel), computed once.

    Kept in half precision (a rounding of about 0.0005 standard deviations, far below any teacher's error). With a
    folder they are memory-mapped from a file named after the digests of teacher and windows, which other epochs,
    students, trials and processes then share; a second process waits for the first instead of computing them again.

    Args:
        teacher: Who forecasts.
        windows: What to forecast, usually a task's training part.
        folder: Where to keep the file; None keeps the forecasts in memory.

    Returns:
        A float16 tensor, or float32 if a forecast is too large for float16.

    Raises:
        ArtifactError: the folder cannot be written, or the disk is full; nothing half-written stays.
    """
    if folder is None:
        return torch.from_numpy(_compute(teacher, windows))
    folder = Path(folder)
    path = folder / f"{teacher.digest}-{windows.fingerprint}.npy"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(str(path) + ".lock"):
            if not path.exists():
                _write(path, _compute(teacher, windows))
    except OSError as error:
        free = shutil.disk_usage(folder).free if folder.exists() else 0
        raise ArtifactError(
            f"Cannot keep teacher forecasts in {folder}: {error.strerror or error} ({free / 1e6:.0f} MB free). "
            "Free some space or name another folder."
        ) from None
    # Copy-on-write: torch wants writable memory, and nothing is ever written to it.
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))


def _compute(teacher: Teacher, windows: Windows) -> np.ndarray:
    forecasts = np.empty((len(windows), windows.horizon, windows.series.shape[1]), dtype=np.float32)
    for batch in windows.batches(CHUNK):
        forecasts[batch.index.numpy()] = teacher.forecast(batch).float().cpu().numpy()
    fits = np.abs(forecasts).max(initial=0) < np.finfo(np.float16).max
    return forecasts.astype(np.float16) if fits else forecasts


def _write(path: Path, values: np.ndarray) -> None:
    """Write beside the target and rename, so that no reader ever sees half a file."""
    handle, beside = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.save(file, values, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def check_teacher(teacher: Teacher, task: Task) -> None:
    """Refuse a forecaster that answers another question than the task asks."""
    if not isinstance(teacher, Forecaster):
        return
    theirs, ours = teacher.signature, task.signature
    if (theirs.horizon, theirs.channels) != (ours.horizon, ours.channels):
        raise ShapeError(
            f"`teacher` must forecast the task's {ours.horizon} steps of {len(ours.channels)} channels, got "
            f"{theirs.horizon} steps of {len(theirs.channels)} channels (or other names). Train it on this task."
        )
    if theirs.context > ours.context:
        raise ShapeError(
            f"`teacher` must see at most the task's context of {ours.context} steps, got context={theirs.context}. "
            "Give the task the teacher's context; a student may use the last steps of it."
        )
