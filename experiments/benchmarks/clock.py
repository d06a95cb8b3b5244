"""How much a ratio of two latencies moves from one time to the next, by what the calls are compared by.

    python experiments/benchmarks/clock.py

An LSTM, an MLP and a transformer (context 336, horizon 96, three channels; their weights do not matter) are timed in
float32 against their own dynamic INT8, one window on one thread, `REPEATS` times over, in one run: by plain medians and
by `Latency.paired_ms`, of sessions made once and of five made one after the other. `clock.csv` beside this file keeps
the mean of the ratios and their standard deviation: that of plain medians of one session is what the others are held
against.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

import tsdistill as td
from tsdistill.evaluation import measure_latency
from tsdistill.quantization.forms import Forms
from tsdistill.report.machine import machine
from tsdistill.testing.toys import toy_panel

REPEATS, CALLS = int(os.environ.get("REPEATS", "12")), 300
SESSIONS = {"one session": 1, "five sessions": 5}
MODELS = {
    "lstm 64": td.LSTMConfig(widths=(64, 64), patch=24),
    "mlp 64": td.MLPConfig(width=64, depth=2),
    "patchtst 32": td.PatchTSTConfig(width=32, depth=2, heads=4, patch=24, stride=24),
}


def main() -> None:
    """Time them, and keep a row for each model and way."""
    rows = []
    task = td.Task(toy_panel(n_rows=3000), context=336, horizon=96, split=td.Split.fractions(0.6, 0.2, 0.2))
    for name, config in MODELS.items():
        full = td.export(config.build(task.signature, 0), task)
        models = {"fp32": full, "int8": Forms(full, task).deployed(td.Quantization())}
        context = np.zeros((1, task.context, len(task.channels)), np.float32)

        def make(models: dict[str, td.Deployed] = models, context: np.ndarray = context) -> dict[str, partial[object]]:
            return {key: partial(model.reloaded().predict, context) for key, model in models.items()}

        for sessions, rebuilds in SESSIONS.items():
            latencies = [
                measure_latency(make, n_runs=CALLS, rebuilds=rebuilds, max_seconds=60, seed=seed)
                for seed in range(REPEATS)
            ]
            for way in ("p50_ms", "paired_ms"):
                ratios = np.array([getattr(pair["fp32"], way) / getattr(pair["int8"], way) for pair in latencies])
                rows.append({
                    "model": name, "sessions": sessions, "compared_by": way, "repeats": REPEATS, "ratio": ratios.mean(),
                    "deviation": ratios.std(ddof=1), "cpu": machine().get("cpu"),
                })  # fmt: skip
    frame = pd.DataFrame(rows)
    base = frame[(frame["sessions"] == "one session") & (frame["compared_by"] == "p50_ms")].set_index("model")
    frame["to_plain"] = frame["deviation"] / frame["model"].map(base["deviation"])
    frame.to_csv(Path(__file__).with_suffix(".csv"), index=False, float_format="%.4g")
    sys.stdout.write(frame.to_string(index=False) + "\n")


if __name__ == "__main__":
    main()
