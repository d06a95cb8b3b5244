"""A toy retraining job: two hourly channels in a CSV file, models that are solved in closed form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tsdistill.losses import OutputLoss
from tsdistill.models import LinearConfig, MLPConfig
from tsdistill.recipe import Recipe, Source, StudentSpec, TaskSpec, TeacherSpec
from tsdistill.retrain import Job
from tsdistill.training import Training

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
