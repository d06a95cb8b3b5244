"""A toy retraining job: two hourly channels in a CSV file, models that are solved in closed form."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from tsdistill import runtime
from tsdistill.distillation import distill
from tsdistill.losses import OutputLoss
from tsdistill.models import LinearConfig, MLPConfig
from tsdistill.recipe import Recipe, Source, StudentSpec, TaskSpec, TeacherSpec
from tsdistill.retrain import Gate, Job, Verdict, run_job
from tsdistill.training import Training

PIPELINE = importlib.import_module("tsdistill.recipe.pipeline")  # the package shows the function of this name

CONTEXT, HORIZON, JUDGE, VALIDATION, N_ROWS = 29, 7, 53, 59, 397
FIRST, SECOND = "2024-01-15 07:00", "2024-01-16 11:00"
"""Two times the job runs as of."""

SPOILT = StudentSpec(
    model=MLPConfig(width=3, depth=1), losses=(OutputLoss(),), training=Training(learning_rate=1.0, max_steps=1)
)


def frame(seed: int = 0) -> pd.DataFrame:
    """A daily rhythm under noise."""
    hours = np.arange(N_ROWS)
    noise = np.random.default_rng(seed).normal(size=(N_ROWS, 2))
    waves = np.sin(2 * np.pi * hours[:, None] / 24 + [0, 1]) * [9, 3] + noise + [50, -4]
    stamps = pd.date_range("2024-01-01", periods=N_ROWS, freq="h", tz="UTC")
    return pd.DataFrame({"ds": stamps, "load": waves[:, 0], "wind": waves[:, 1]})


def write_csv(path: Path, df: pd.DataFrame | None = None) -> Path:
    (frame() if df is None else df).to_csv(path, index=False)
    return path


def job(folder: Path, **changes: Any) -> Job:
    """The job over `folder/fresh.csv` with its store in `folder/store`; a `student` may replace the recipe's."""
    data = changes.pop("data", Source(path=str(folder / "fresh.csv")))
    linear = LinearConfig()
    recipe = Recipe(
        data=data,
        task=TaskSpec(context=CONTEXT, horizon=HORIZON),
        teacher=TeacherSpec(model=linear),
        student=changes.pop("student", StudentSpec(model=linear, losses=(OutputLoss(),))),
        quantization=None,
    )
    values = {"store": str(folder / "store"), "judge": JUDGE, "validation": VALIDATION, "report": False, **changes}
    return Job(data=data, recipe=recipe, **values)


class RetrainRuns(NamedTuple):
    """A folder with data and a store, and what five jobs in a row decided."""

    folder: Path
    spoilt_first: Verdict
    first: Verdict
    spoilt_second: Verdict
    second: Verdict
    again: Verdict
    backwards: Verdict


def run_jobs(folder: Path) -> RetrainRuns:
    """The jobs in a row, in a new folder."""
    write_csv(folder / "fresh.csv")
    good, spoilt = job(folder), job(folder, student=SPOILT)
    with without_controls():
        return RetrainRuns(
            folder,
            run_job(spoilt, as_of=FIRST),
            run_job(good, as_of=FIRST),
            run_job(spoilt, as_of=SECOND),
            # Fresh data of a day moves a ridge regression by next to nothing: any model not clearly worse may pass.
            run_job(good.replace(gate=Gate(margin=0.5)), as_of=SECOND),
            run_job(good, as_of=SECOND),
            run_job(good, as_of=FIRST),
        )


@contextlib.contextmanager
def without_controls() -> Iterator[None]:
    """A student without a teacher beside each one would only cost time here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PIPELINE, "distill", functools.partial(distill, control=False))
        yield


def same_job(after: RetrainRuns, place: Path, **changes: Any) -> Job:
    """The good job with another store; its finished stages are kept there."""
    return job(after.folder, store=str(place / "store"), **changes)


def served_digest(store: Path) -> str:
    """Digest of the served model, which forecasts."""
    assert runtime.load(store / "current").predict(np.full((1, 29, 2), 5.0)).shape == (1, 7, 2)
    return os.readlink(store / ".live/current").split("-")[-1]
