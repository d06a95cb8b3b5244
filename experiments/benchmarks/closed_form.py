"""What distilling in closed form takes: against scikit-learn, against training by steps, and on more data than memory.

    TSDISTILL_DATA=folder python experiments/benchmarks/closed_form.py

On ETTh1 (7 channels, context 336, horizon 96, the literature's borders; without the folder on the bundled data). The
teacher is an MLP trained for 300 steps; its forecasts are cached beforehand. One thread everywhere:

- `closed form`: `td.distill` into a `LinearConfig` with alpha="validation": 11 shares times 11 penalties, the same
  student without a teacher, and their comparison on validation;
- `scikit-learn`: windows laid out in memory, one `Ridge` (float64, Cholesky) per share with the penalty that the closed
  form has chosen, judged on validation windows: 11 candidates, no control, laying out included;
- `steps`: the same student trained for `EPOCHS` epochs with the share that was chosen, without a control.

`ratio` is to the closed form of the same turn, the median over `REPEATS` turns; the largest difference of weights
(relative to the largest weight) and of validation errors (relative) to scikit-learn stands beside it.

- `stream`: `td.solve` over 32 parts made one after the other, 2 GB of float64 in all, with context 96 and
  horizon 24, in a process that is refused more than `LIMIT` bytes for data; `stream, taught` is 64 MB of it with a
  linear teacher. `peak_mb` is the largest resident set of the process, libraries included.

`closed_form.csv` beside this file keeps the numbers with the machine's name.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import Ridge
from threadpoolctl import threadpool_limits

import tsdistill as td
from tsdistill.data import Item
from tsdistill.data.task import Windows
from tsdistill.errors import TsdistillError
from tsdistill.models.linear import Linear
from tsdistill.report.machine import machine
from tsdistill.teachers import CachedTeacher
from tsdistill.training import TeacherObjective, fit

REPEATS, EPOCHS = 3, 5
N_CHANNELS, LIMIT = 8, 800_000_000
STREAMS = {"stream": (32, 1_000_000), "stream, taught": (8, 125_000)}
"""Parts and rows in each."""


class Stepped(Linear):
    """A linear map that is trained by steps."""

    closed_form = False


def laid_out(windows: Windows, teacher: CachedTeacher | None = None) -> list[np.ndarray]:
    """Inputs, targets and forecasts of a teacher as matrices, centred by each window's mean."""
    batch = windows.batch(torch.arange(len(windows)))
    parts = [batch.context, batch.target] + ([teacher.outputs(windows).of(batch).forecast] if teacher else [])
    flat = [part.transpose(1, 2).flatten(0, 1).numpy().astype(np.float64) for part in parts]
    centre = flat[0].mean(axis=1, keepdims=True)
    return [part - centre for part in flat]


def rival(
    task: td.Task, cached_teacher: CachedTeacher, penalty: float, alphas: list[float]
) -> tuple[list[np.ndarray], list[float]]:
    """Weights and validation errors of one scikit-learn ridge per share of the teacher."""
    (x, truth, soft), (seen, wanted) = laid_out(task.train, cached_teacher), laid_out(task.validation)
    strength = penalty * float(np.einsum("ij,ij->", x, x)) / x.shape[1]
    weights = [
        Ridge(alpha=strength, fit_intercept=False, solver="cholesky").fit(x, (1 - alpha) * truth + alpha * soft).coef_
        for alpha in alphas
    ]
    return weights, [float(np.square(seen @ weight.T - wanted).mean()) for weight in weights]


def compare(task: td.Task, folder: Path) -> list[dict[str, object]]:
    """Closed form, scikit-learn and steps, taking turns."""
    teacher = td.train(td.MLPConfig(width=32), task, td.Training(max_steps=300, precision="float32"))
    cached_teacher = CachedTeacher(teacher, folder)
    cached_teacher.outputs(task.train)
    config, losses = td.LinearConfig(), [td.OutputLoss(alpha="validation")]
    seconds: dict[str, list[float]] = {"closed form": [], "scikit-learn": [], "steps": []}
    for _ in range(REPEATS):
        began = time.perf_counter()
        student = td.distill(teacher, config, task, losses=losses, cache=folder, progress=False)
        seconds["closed form"].append(time.perf_counter() - began)
        metrics = student.lineage[-1].metrics
        candidates, column = metrics["candidates"], config.penalties.index(metrics["penalty"])
        began = time.perf_counter()
        weights, errors = rival(task, cached_teacher, metrics["penalty"], candidates["alpha"])
        seconds["scikit-learn"].append(time.perf_counter() - began)
        stepped = Stepped(config, task.signature)
        objective = TeacherObjective([td.OutputLoss(alpha=metrics["alpha"])], cached_teacher)
        training = td.Training(epochs=EPOCHS, patience=None, learning_rate=1e-3, precision="float32")
        began = time.perf_counter()
        last = fit(stepped, task, training, objective, progress=False)
        seconds["steps"].append(time.perf_counter() - began)
    own_errors = np.array([row[column] for row in candidates["validation_mse"]])
    rival_weights = weights[candidates["alpha"].index(metrics["alpha"])]
    off = float(np.abs(student.state_dict()["map.weight"].numpy() - rival_weights).max() / np.abs(rival_weights).max())
    judged = {"closed form": metrics["validation_mse"], "scikit-learn": min(errors), "steps": last["validation_mse"]}
    counted = {"closed form": 2 * len(config.penalties) * len(errors), "scikit-learn": len(errors), "steps": 1}
    rows: list[dict[str, object]] = []
    for name, taken in seconds.items():
        pairs = zip(taken, seconds["closed form"], strict=True)
        row = {"measure": name, "data": task.panel.name, "seconds": statistics.median(taken)}
        row |= {"ratio": statistics.median(other / own for other, own in pairs), "n_candidates": counted[name]}
        row |= {"alpha": metrics["alpha"], "penalty": metrics["penalty"], "validation_mse": judged[name]}
        if name == "scikit-learn":
            row |= {"weights_off": off, "errors_off": float(np.abs(own_errors / np.array(errors) - 1).max())}
        rows.append(row)
    return rows


def parts(n_parts: int, n_rows: int) -> Iterator[td.Task]:
    """Noise with a rhythm, each part made when it is asked for."""
    names = tuple(f"c{number}" for number in range(N_CHANNELS))
    for seed in range(n_parts):
        random = np.random.default_rng(seed)
        values = np.empty((n_rows, N_CHANNELS))
        random.standard_normal(out=values)
        values += 5 * np.sin(2 * np.pi * np.arange(n_rows) / 24)[:, None]
        yield td.Task(
            td.Panel((Item(f"part {seed}", None, values),), names, "h"), context=96, horizon=24, scaler="item"
        )
        del values


def stream(name: str) -> None:
    """Solve within the limit; print seconds, peak and error."""
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
    torch.set_num_threads(1)
    n_parts, n_rows = STREAMS[name]
    teacher = td.solve(td.LinearConfig(penalties=(1.0,)), parts(1, n_rows)) if "taught" in name else None
    began = time.perf_counter()
    student = td.solve(td.LinearConfig(), parts(n_parts, n_rows), teacher=teacher)
    taken = time.perf_counter() - began
    # Not ru_maxrss, which starts from what the process that started this one held.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = 1024 * int(status.split("VmHWM:")[1].split()[0])
    print(taken, peak / 1e6, student.lineage[-1].metrics["validation_mse"])


def streamed(name: str) -> dict[str, object]:
    """What a fresh process says of a panel in parts."""
    command = [sys.executable, __file__, name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    taken, peak, error = (float(word) for word in done.stdout.split()[-3:])
    n_parts, n_rows = STREAMS[name]
    size = n_parts * n_rows * N_CHANNELS * 8 / 1e6
    return {"measure": name, "data": "synthetic", "seconds": taken, "series_mb": size, "peak_mb": peak,
            "limit_mb": LIMIT / 1e6, "validation_mse": error}  # fmt: skip


def main() -> None:
    """Measure, print and keep."""
    torch.set_num_threads(1)
    try:
        panel = td.datasets.load("etth1")
    except TsdistillError as missing:
        print(f"{missing}\nThe bundled data take its place.")
        panel = td.datasets.load("nyc-weather")
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
        rows = compare(td.Task(panel, context=336, horizon=96), Path(folder))
    rows += [streamed(name) for name in STREAMS]
    table = pd.DataFrame(rows).assign(cpu=machine().get("cpu"), threads=1)
    table.to_csv(Path(__file__).with_suffix(".csv"), index=False, float_format="%.4g")
    print(table.to_string(index=False))


if __name__ == "__main__":
    stream(sys.argv[1]) if len(sys.argv) > 1 else main()
