"""Forecasts of a long frame of many items: `predict` of the frame against a plain loop over batches of arrays.

    python experiments/benchmarks/serving_frames.py

10,000 items of 60 hours, an MLP of width 64 (context 48, horizon 12; its weights do not matter), deployed in float32 on
one thread. The loop cuts the contexts out of one array and asks the session for 64 windows at a time; it reads nothing,
checks nothing and makes no frame. Where dates are text, the loop reads them with `pandas.to_datetime` first. All take
turns; `serving_frames.csv` beside this file keeps medians in seconds, and how many times its loop's time each takes:
the median over rounds of the ratio within a round.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

import tsdistill as td
from tsdistill.data.signature import Signature
from tsdistill.report.machine import machine

ITEMS = int(os.environ.get("ITEMS", "10000"))
ROUNDS = int(os.environ.get("ROUNDS", "7"))
ROWS, CONTEXT, HORIZON, BATCH = 60, 48, 12, 64
LOOP, READING = "loop over arrays", "loop over arrays, dates read from text"


def main() -> None:
    signature = Signature(
        context=CONTEXT, horizon=HORIZON, channels=("y",), mean=(0.0,), scale=(1.0,), frequency="h"
    )  # fmt: skip
    predictor = td.export(td.MLPConfig(width=64, depth=2).build(signature)).predictor
    stamps = pd.date_range("2024-01-01", periods=ROWS, freq="h")
    values = np.random.default_rng(0).normal(size=(ITEMS, ROWS))
    frame = pd.DataFrame({"unique_id": np.repeat([f"item {number}" for number in range(ITEMS)], ROWS)})
    frame["ds"] = np.tile(stamps, ITEMS)
    frame["y"] = values.ravel()
    text = frame.astype({"ds": str})
    contexts = values[:, -CONTEXT:, None].astype(np.float32)

    def loop() -> np.ndarray:
        return np.concatenate([predictor.run(contexts[row : row + BATCH]) for row in range(0, ITEMS, BATCH)])

    def reading_loop() -> tuple[pd.Series, np.ndarray]:
        return pd.to_datetime(text["ds"]), loop()

    ways: dict[str, Callable[[], object]] = {
        LOOP: loop,
        "predict of the frame": lambda: predictor.predict(frame),
        READING: reading_loop,
        "predict of the frame, dates as text": lambda: predictor.predict(text),
        "Panel.from_frame": lambda: td.Panel.from_frame(frame),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_number in range(ROUNDS + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if round_number:  # the first round warms everything up
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    loops = {name: seconds[READING if "text" in name else LOOP] for name in ways}
    ratios = {
        name: statistics.median(own / other for own, other in zip(seconds[name], loops[name], strict=True))
        for name in ways
    }
    table = pd.DataFrame(
        {
            "way": list(medians),
            "items": ITEMS,
            "seconds": [round(value, 3) for value in medians.values()],
            "times its loop": [round(value, 2) for value in ratios.values()],
            "cpu": machine()["cpu"],
        }
    )
    table.to_csv(Path(__file__).with_suffix(".csv"), index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
