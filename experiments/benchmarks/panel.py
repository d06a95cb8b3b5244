"""A ridge of a panel of thousands of items in one fit: seconds, and what memory it takes.

    python experiments/benchmarks/panel.py [--items 5000] [--rows 500]

Synthetic hourly items with a rhythm, a scale and a start of their own, context 96, horizon 24, one thread, each measure
in a process of its own: `ridge`, and `ridge, calendar` (time of day and of week), both with scaler="standard" and with
scaler="item". `series_mb` is the panel in float64, `added_mb` how far the peak of the resident set lies above what the
process held when the task was made. `panel.csv` beside this file keeps the numbers with the machine's name.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal, cast

import numpy as np
import pandas as pd
import torch

import tsdistill as td
from tsdistill.report.machine import machine

MEASURES = {
    "ridge": ("standard", False),
    "ridge, calendar": ("standard", True),
    "ridge, item": ("item", False),
    "ridge, item, calendar": ("item", True),
}


def panel(n_items: int, n_rows: int) -> td.Panel:
    """Items with opening hours of one kind, each with a size and a start of its own."""
    draw = np.random.default_rng(0)
    items = []
    for number in range(n_items):
        first = pd.Timestamp("2024-01-01") + pd.Timedelta(hours=int(draw.integers(0, 168)))
        stamps = pd.date_range(first, periods=n_rows, freq="h")
        is_open = (stamps.hour >= 9) & (stamps.hour < 17) & (stamps.day_of_week < 5)
        values = draw.lognormal() * (5 + 3 * is_open + draw.normal(size=n_rows))
        items.append(td.data.Item(f"item {number}", stamps, values[:, None]))
    return td.Panel(tuple(items), ("sold",), "h")


def resident(name: str) -> float:
    """Megabytes of this process, now ("VmRSS") or at most ("VmHWM")."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(status.split(f"{name}:")[1].split()[0]) / 1e6


def measure(name: str, n_items: int, n_rows: int) -> None:
    """Fit once; print seconds, memory and error."""
    torch.set_num_threads(1)
    scaler, informed = MEASURES[name]
    known = td.Covariates(calendar=("time-of-day", "time-of-week")) if informed else None
    task = td.Task(
        panel(n_items, n_rows),
        context=96,
        horizon=24,
        scaler=cast("Literal['standard', 'item']", scaler),
        covariates=known,
    )
    held = resident("VmRSS")
    began = time.perf_counter()
    model = td.train(td.LinearConfig(), task)
    taken = time.perf_counter() - began
    print(taken, resident("VmHWM") - held, len(task.train), model.lineage[-1].metrics["validation_mse"])


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=5000)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--measure", choices=MEASURES)
    arguments = parser.parse_args()
    n_items, n_rows = arguments.items, arguments.rows
    if arguments.measure:
        measure(arguments.measure, n_items, n_rows)
        return
    rows = []
    for name in MEASURES:
        command = [sys.executable, __file__, "--measure", name, "--items", str(n_items), "--rows", str(n_rows)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        taken, added, n_windows, error = (float(word) for word in done.stdout.split()[-4:])
        rows.append({"measure": name, "items": n_items, "rows": n_rows, "windows": int(n_windows), "seconds": taken,
                     "series_mb": n_items * n_rows * 8 / 1e6, "added_mb": added, "validation_mse": error})  # fmt: skip
    table = pd.DataFrame(rows).assign(cpu=machine().get("cpu"), threads=1)
    table.to_csv(Path(__file__).with_suffix(".csv"), index=False, float_format="%.4g")
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
