"""What a ridge in closed form takes and reaches: a ratio to a rival in one run, and its errors.

    TSDISTILL_DATA=folder python experiments/benchmarks/ridge.py

On ETTm1 (7 channels, context 336, horizon 96, the literature's borders), data loaded beforehand:

- `pooled`: one map for all channels, penalty chosen among eleven on validation windows;
- `individual`: a map and a penalty for every channel;
- `pooled, soft targets`: targets that are not the series' own, as in distillation, so that products with every window
  have to be formed; the same penalty, no test error;
- `rival`: numpy's normal equations on windows laid out in memory, float32, for one penalty and without choosing it;
  every `STRIDE`th training window, so that they fit into memory anywhere. Its seconds are for that subset, and
  `per_window_ratio` counts per window.

Medians over the repetitions, taking turns; the test part is read once, after everything is chosen. `ridge.csv` beside
this file keeps them with the machine's name.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import tsdistill as td
from tsdistill.data.task import Batch, Windows
from tsdistill.evaluation import evaluate
from tsdistill.models.ridge import NormalEquations
from tsdistill.report.machine import machine

REPEATS, STRIDE = 5, 8


def rival(windows: Windows, penalty: float) -> np.ndarray:
    """The usual way: lay the windows out, centre them, solve the normal equations, (context, horizon)."""
    batch = windows.batch(torch.arange(0, len(windows), STRIDE))
    x, y = (part.transpose(1, 2).flatten(0, 1).numpy() for part in (batch.context, batch.target))
    centre = x.mean(axis=1, keepdims=True)
    x, y = x - centre, y - centre
    gram = x.T @ x
    gram[np.diag_indices_from(gram)] += penalty * np.trace(gram) / len(gram)
    return np.linalg.solve(gram, x.T @ y)


def main() -> None:
    """Measure, print and keep."""
    task = td.Task(td.datasets.load("ettm1"), context=336, horizon=96)
    windows, judge = task.train, task.validation

    def solved(
        individual: bool, forecast: Callable[[Batch], torch.Tensor] | None = None
    ) -> tuple[td.Forecaster, dict[str, object]]:
        model = td.LinearConfig(individual=individual).build(task.signature)
        alphas = (0.0,) if forecast is None else (0.5,)
        return model, model.fit_closed_form(NormalEquations(windows, judge, forecast, alphas))

    ways: dict[str, Callable[[], object]] = {
        "pooled": lambda: solved(False),
        "individual": lambda: solved(True),
        "pooled, soft targets": lambda: solved(False, lambda batch: batch.target.flip(1)),
        "rival": lambda: rival(windows, 3e-3),
    }
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPEATS):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - began)
    rows = []
    for name in ways:
        ratio = statistics.median(own / other for own, other in zip(seconds[name], seconds["rival"], strict=True))
        counted = STRIDE if name == "rival" else 1
        row = {
            "measure": name,
            "seconds": statistics.median(seconds[name]),
            "ratio": ratio,
            "per_window_ratio": ratio * counted / STRIDE,
        }
        if name in ("pooled", "individual"):
            model, metrics = solved(name == "individual")
            penalties = metrics["penalty"] if isinstance(metrics["penalty"], list) else [metrics["penalty"]]
            row |= {"penalty": " ".join(f"{penalty:g}" for penalty in penalties)}
            row |= {"validation_mse": metrics["validation_mse"], "test_mse": evaluate(model, task, "test")["mse"]}
        rows.append(row)
    table = pd.DataFrame(rows).assign(cpu=machine().get("cpu"), threads=torch.get_num_threads())
    table.to_csv(Path(__file__).with_suffix(".csv"), index=False, float_format="%.4g")
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
