"""What a graph costs when its architecture was traced before, against tracing it: seconds of the processor, in one run.

    python experiments/benchmarks/tracing.py

Every model is exported as a graph five times with other weights, on a fresh cache: the first is traced, the others are
filled; then once more as another process would, from the user's cache. `traced` and `filled` are medians over the
repetitions, in seconds of this process's own time, so that a busy machine changes them little; `times` is their ratio.
`tracing.csv` beside this file keeps the rows.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch

import tsdistill as td
from tsdistill.exporting import graph, tracing
from tsdistill.models.base import Forecaster
from tsdistill.testing import toy_task

REPEATS, MODELS_EACH = 3, 5
CONFIGS: dict[str, td.models.ModelConfig] = {
    "linear": td.LinearConfig(),
    "mlp": td.MLPConfig(width=64),
    "lstm": td.LSTMConfig(widths=(64, 64), patch=11),
    "patchtst": td.PatchTSTConfig(depth=3, width=64, heads=4, patch=11, stride=7),
}


def drawn(model: Forecaster, seed: int) -> Forecaster:
    """The model with weights of its own, also where those of a new one are zero."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1, generator=draw)
    return model.eval()


def seconds(model: Forecaster) -> float:
    """The processor's time for the graph of a model."""
    began = time.process_time()
    graph.graph_of(model)
    return time.process_time() - began


def main() -> None:
    """Measure, print and keep."""
    torch.set_num_threads(1)
    signature = toy_task().signature
    seconds(td.models.SeasonalNaiveConfig().build(signature))  # torch's exporter is loaded
    rows = []
    for name, config in CONFIGS.items():
        traced, filled, kept = [], [], []
        for _ in range(REPEATS):
            with tempfile.TemporaryDirectory() as cache:
                os.environ["XDG_CACHE_HOME"] = cache
                models = [drawn(config.build(signature), seed) for seed in range(MODELS_EACH + 1)]
                _forget()
                first, *others = (seconds(model) for model in models[:-1])
                traced.append(first)
                filled += others
                _forget()
                kept.append(seconds(models[-1]))
        medians = {"traced": traced, "filled": filled, "from_cache": kept}
        row = {column: statistics.median(values) for column, values in medians.items()}
        rows.append({"model": name, **row, "times": row["traced"] / row["filled"]})
    table = pd.DataFrame(rows).round(3)
    print(table.to_string(index=False))
    table.to_csv(Path(__file__).with_suffix(".csv"), index=False)


def _forget() -> None:
    """As a new process that has loaded everything."""
    graph._graphs.clear()
    tracing._templates.clear()


if __name__ == "__main__":
    main()
