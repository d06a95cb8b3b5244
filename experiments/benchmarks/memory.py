"""What memory training takes: peak bytes over the series' own bytes, at several lengths, each in a process of its own.

    python experiments/benchmarks/memory.py

A synthetic panel of one item with 100 channels of float64 noise (1,000,000 rows are 800 MB), made in place; a task with
context 96 and horizon 24; an MLP student of width 64, trained for 20 steps of 32 windows and judged on validation. The
peak is that of the resident set over the whole life of the process, the median of three processes. What a panel of
20,000 rows takes in the same way (libraries, model, batches) is subtracted with its series. `memory.csv` beside this
file keeps the numbers, and the slope of the straight line through all of them: bytes of memory per byte of series.

The panel itself is 1.0 of that and the scaled float32 series 0.5. What else grows with the rows are the windows' first
rows and their order in an epoch, 4 and 8 bytes for a row of 100 values.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

N_CHANNELS, TINY, SIZES = 100, 20_000, (250_000, 500_000, 1_000_000)
REPEATS, BLOCK = 3, 10_000


def peak_bytes() -> int:
    """Largest resident set of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def train_once(n_rows: int) -> None:
    """Make a panel, train on it, print the peak."""
    import tsdistill as td
    from tsdistill.data import Item

    random = np.random.default_rng(0)
    values = np.empty((n_rows, N_CHANNELS))
    for first in range(0, n_rows, BLOCK):
        random.standard_normal(out=values[first : first + BLOCK])
    panel = td.Panel((Item("noise", None, values),), tuple(f"c{number}" for number in range(N_CHANNELS)), "h")
    split = td.Split.rows(n_rows - 4_000, 2_000, 2_000)
    task = td.Task(panel, context=96, horizon=24, split=split)
    training = td.Training(epochs=1, max_steps=20, batch_size=32, seed=0)
    td.train(td.MLPConfig(width=64), task, training)
    print(peak_bytes())


def _peak_of(n_rows: int) -> int:
    done = subprocess.run([sys.executable, __file__, str(n_rows)], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def main() -> None:
    """Measure every size in a fresh process, print and keep."""
    peaks_of = {n_rows: [_peak_of(n_rows) for _ in range(REPEATS)] for n_rows in (TINY, *SIZES)}
    peaks = {n_rows: statistics.median(values) for n_rows, values in peaks_of.items()}
    rows = np.array(list(peaks))
    series, peak = rows * N_CHANNELS * 8, np.array(list(peaks.values()))
    slope = np.polyfit(series, peak, 1)[0]
    off = np.abs(peak - np.polyval(np.polyfit(series, peak, 1), series)) / peak
    table = pd.DataFrame({"rows": rows, "series_mb": series / 1e6, "peak_mb": peak / 1e6})
    table["grown_over_series"] = [float("nan"), *(peak[1:] - peak[0]) / (series[1:] - series[0])]
    table = table.assign(off_the_line=off, slope=slope)
    table.to_csv(Path(__file__).with_suffix(".csv"), index=False, float_format="%.4g")
    print(table.to_string(index=False))


if __name__ == "__main__":
    train_once(int(sys.argv[1])) if len(sys.argv) > 1 else main()
