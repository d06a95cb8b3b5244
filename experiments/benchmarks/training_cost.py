"""What an epoch costs besides the model, and what distilling adds to it: ratios in one run, the rivals taking turns.

    python experiments/benchmarks/training_cost.py

On the bundled data (context 336, horizon 24, 18 channels), an MLP student of width 64, batches of 256 windows, float32:

- `windows`: an epoch over our windows against the same epoch over a torch DataLoader of a per-window Dataset;
- `distilling, warm`: an epoch with an output loss, teacher forecasts cached, against one without a teacher;
- `distilling, naive`: steps that run the teacher (PatchTST, width 96, depth 3) on every batch against cached ones.

Medians over the repetitions; `training_cost.csv` beside this file keeps them with the machine's name.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset

import tsdistill as td
from tsdistill.data.task import Batch, Windows
from tsdistill.losses import OutputLoss
from tsdistill.models import Activations
from tsdistill.report.machine import machine
from tsdistill.teachers import CachedTeacher
from tsdistill.training import Objective, TeacherObjective, TruthObjective

BATCH, REPEATS, NAIVE_BATCHES = 256, 7, 4


class PerWindow(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """The usual way: one window per item."""

    def __init__(self, windows: Windows) -> None:
        self.series, self.context, self.length = windows.series, windows.context, windows.context + windows.horizon
        self.starts = windows.starts.tolist()

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        begin = self.starts[index]
        steps = self.series[begin : begin + self.length]
        return steps[: self.context], steps[self.context :]


class Asked:
    """The usual way of distilling: the teacher is asked about every batch, again and again."""

    live = frozenset({"forecast"})

    def __init__(self, teacher: td.Forecaster) -> None:
        self.teacher = teacher

    def of(self, batch: Batch) -> Activations:
        return Activations(self.teacher.forecast(batch))


def epoch(model: torch.nn.Module, objective: Objective, batches: Iterable[Batch]) -> float:
    """Seconds of one epoch of gradient steps on a copy of the model."""
    model = copy.deepcopy(model).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    began = time.perf_counter()
    for batch in batches:
        objective(model, batch)[0].backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - began


def main() -> None:
    """Measure, print and keep."""
    task = td.Task(td.datasets.load("nyc-weather"), context=336, horizon=24)
    windows = task.train
    student = td.MLPConfig(width=64, dropout=0.0).build(task.signature)
    teacher = td.PatchTSTConfig(depth=3, width=96, heads=6, patch=24, stride=24).build(task.signature).eval()
    truth, taught = TruthObjective(), TeacherObjective([OutputLoss()], CachedTeacher(teacher))
    began = time.perf_counter()
    taught.bind(student, windows)
    filling = time.perf_counter() - began

    def ours(n_batches: int | None = None) -> Iterable[Batch]:
        order = torch.randperm(len(windows))
        return windows.batches(BATCH, order if n_batches is None else order[: n_batches * BATCH])

    def loader() -> Iterable[Batch]:
        for context, target in DataLoader(PerWindow(windows), batch_size=BATCH, shuffle=True):
            yield Batch(context, target, torch.empty(0))

    naive = TeacherObjective([OutputLoss()], CachedTeacher(teacher))
    naive.bind(student, windows.subset(torch.arange(BATCH)))
    naive._lessons = Asked(teacher)

    pairs: dict[str, tuple[Callable[[], float], Callable[[], float]]] = {
        "windows": (lambda: epoch(student, truth, ours()), lambda: epoch(student, truth, loader())),
        "distilling, warm": (lambda: epoch(student, taught, ours()), lambda: epoch(student, truth, ours())),
        "distilling, naive": (
            lambda: epoch(student, naive, ours(NAIVE_BATCHES)),
            lambda: epoch(student, taught, ours(NAIVE_BATCHES)),
        ),
    }
    rows = []
    for name, (one, other) in pairs.items():
        one(), other()
        seconds = [(one(), other()) for _ in range(REPEATS)]
        ratio = statistics.median(first / second for first, second in seconds)
        low, high = (statistics.median(each[place] for each in seconds) for place in (0, 1))
        rows.append({"measure": name, "ratio": ratio, "seconds": low, "against_seconds": high})
    naive_epoch = rows[-1]["seconds"] * len(windows) / (NAIVE_BATCHES * BATCH)
    rows.append({"measure": "filling the cache / a naive epoch", "ratio": filling / naive_epoch})
    found = pd.DataFrame(rows).assign(cpu=machine().get("cpu"), threads=torch.get_num_threads())
    found.to_csv(Path(__file__).with_suffix(".csv"), index=False, float_format="%.4g")
    print(found.to_string(index=False))


if __name__ == "__main__":
    main()
