"""What going on from last week's weights costs and gives against training from random ones, week after week.

    TSDISTILL_DATA=folder python experiments/benchmarks/warm.py

ETTh1 (without the folder the bundled data), context 168, horizon 24. Each week one more week of rows is there: the
newest two months are a test part that moves along, the month before is for validation. `full` begins with random
weights every week, `warm` goes on from the model of the week before (`td.train(..., start=)`) over a tenth of the
windows at a third of the rate, `never` is the first week's model all along. One thread; `seconds` are this process's
own, `mse` is of the test part in the scale of the first week, `to_full` its ratio to `full` of the same week.
`warm.csv` beside this file keeps the rows.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import tsdistill as td
from tsdistill.errors import TsdistillError
from tsdistill.training.starting import warmed

WEEKS, SEED = 3, 0
MODELS: dict[str, td.models.ModelConfig] = {
    "mlp": td.MLPConfig(width=64, depth=2),
    "lstm": td.LSTMConfig(widths=(64,), patch=24),
}
TRAINING = td.Training(
    epochs=10, windows_per_epoch=2048, learning_rate=1e-3, patience=3, seed=SEED, precision="float32"
)


def week(panel: td.Panel, number: int) -> td.Task:
    """The task of a week: so many weeks of rows fewer than there are at the end of almost two years."""
    n_rows = 24 * 7 * (102 - WEEKS + number)
    item = panel.items[0]
    seen = td.Panel.from_frame(
        pd.DataFrame(
            item.values[:n_rows], columns=list(panel.channels), index=pd.DatetimeIndex(item.ds[:n_rows], name="ds")
        )
    )
    rows = (n_rows - 24 * 90, 24 * 30, 24 * 60)
    return td.Task(seen, context=168, horizon=24, split=td.Split.rows(*rows))


def error(model: td.Forecaster, task: td.Task, scale: np.ndarray) -> float:
    """Mean squared error of the test part in a fixed scale, in raw units otherwise."""
    total = count = 0.0
    mean, own = np.asarray(task.mean), np.asarray(task.scale)
    for batch in task.test.batches(256):
        context = batch.context.numpy() * own + mean
        truth = batch.target.numpy() * own + mean
        total += float((((model.predict(context) - truth) / scale) ** 2).sum())
        count += truth.size
    return total / count


def main() -> None:
    """Measure, print and keep."""
    torch.set_num_threads(1)
    try:
        panel = td.datasets.load("etth1")
    except TsdistillError as missing:
        print(f"{missing}\nThe bundled data take its place.")
        panel = td.datasets.load("nyc-weather")
    rows = []
    for name, config in MODELS.items():
        scale = np.asarray(week(panel, 0).scale)
        first = warm = td.train(config, week(panel, 0), TRAINING, progress=False)
        for number in range(1, WEEKS + 1):
            task = week(panel, number)
            began = time.process_time()
            full = td.train(config, task, TRAINING, progress=False)
            seconds = {"full": time.process_time() - began}
            began = time.process_time()
            warm = td.train(config, task, warmed(TRAINING, len(task.train)), start=warm, progress=False)
            seconds["warm"] = time.process_time() - began
            errors = {
                kind: error(model, task, scale) for kind, model in (("full", full), ("warm", warm), ("never", first))
            }
            rows += [
                {"model": name, "week": number, "kind": kind, "seconds": seconds.get(kind, 0.0), "mse": mse,
                 "to_full": mse / errors["full"]}
                for kind, mse in errors.items()
            ]  # fmt: skip
    table = pd.DataFrame(rows).round(4)
    print(table.to_string(index=False))
    for name in MODELS:
        own = table[table["model"] == name].set_index("kind")
        time_share = statistics.median(own.loc["warm", "seconds"].to_numpy() / own.loc["full", "seconds"].to_numpy())
        print(
            f"{name}: warm takes {time_share:.1%} of the time; mean of to_full {own.loc['warm', 'to_full'].mean():.4f}"
        )
    table.to_csv(Path(__file__).with_suffix(".csv"), index=False)


if __name__ == "__main__":
    main()
