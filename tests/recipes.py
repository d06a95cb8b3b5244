"""Recipes over the toy panel that run in seconds, and the file they read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import tsdistill as td
from tsdistill.models import LSTMConfig, MLPConfig, PatchTSTConfig
from tsdistill.quantization import Quantization
from tsdistill.recipe import Recipe, Source, StudentSpec, TaskSpec, TeacherSpec
from tsdistill.testing import CONTEXT, HORIZON, toy_frame

QUICK = td.Training(epochs=1, batch_size=37, max_steps=4, precision="float32", learning_rate=5e-3)


def toy_csv(folder: Path, *, n_rows: int = 499, noise_from: int | None = None) -> Path:
    """The toy panel with hourly stamps as a CSV file; from a row on replaced by noise, if asked for."""
    frame = toy_frame(n_rows=n_rows)
    if noise_from is not None:
        channels = frame.columns[1:]
        noise = np.random.default_rng(5).standard_normal((n_rows - noise_from, len(channels)))
        frame.loc[noise_from:, channels] = 1e3 * noise
    path = folder / "toy.csv"
    frame.to_csv(path, index=False)
    return path


def toy_recipe(path: Path) -> Recipe:
    """A transformer teaches an LSTM, which is pruned and becomes INT8."""
    return Recipe(
        name="toy",
        data=Source(path=str(path)),
        task=TaskSpec(context=CONTEXT, horizon=HORIZON, split=td.Split.fractions(0.6, 0.2, 0.2)),
        teacher=TeacherSpec(model=PatchTSTConfig(depth=1, width=6, heads=2, patch=11), training=QUICK),
        student=StudentSpec(model=LSTMConfig(widths=(8,), patch=11), training=QUICK),
        pruning=td.Pruning(ratio=0.5, recovery=QUICK),
        quantization=Quantization(method="dynamic", require_gain=False, max_error_increase=1.0),
    )


def small_recipe(path: Path) -> Recipe:
    """The same with MLPs, whose graphs are written in a quarter of the time."""
    model = MLPConfig(width=5, depth=1)
    return toy_recipe(path).replace(
        task=TaskSpec(context=CONTEXT, horizon=HORIZON, split=td.Split.fractions(0.5, 0.25, 0.25)),
        teacher=TeacherSpec(model=model, training=QUICK),
        student=StudentSpec(model=model, training=QUICK),
    )


def float_recipe(folder: Path) -> Recipe:
    """The small one over fewer rows, deployed in float32: a trial of it takes a second or two."""
    return small_recipe(toy_csv(folder, n_rows=307)).replace(quantization=None)
