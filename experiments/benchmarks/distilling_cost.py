"""What distilling adds to an epoch, and what it saves against asking the teacher with every batch.

    python experiments/benchmarks/distilling_cost.py [--only lstm transformer]

On the bundled data (context 336, horizon 24, 18 channels), batches of 256 windows, float32, teacher a PatchTST of width
128 and depth 3 (patches of 16, every 8 steps), its cache warm:

- `output`, `output + temporal`, `output + features`: an epoch with these losses against one without a teacher, per kind
  of student (features: hints of the last layer, for students with hidden states worth one);
- `filling`: seconds that the teacher takes to fill the cache, with forecasts alone and with hidden states;
- `naive, 20 epochs`: twenty epochs that run the teacher with every batch, against filling and twenty epochs from the
  cache, with an MLP student. A naive epoch is extrapolated from a few batches.

An epoch and its rival take turns (of the LSTM and the transformer their first batches only: what a loss costs is the
same in every batch); medians of the ratios. `distilling_cost.csv` beside this file keeps them; `--only` measures the
losses of some students anew and leaves the other rows.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch

import tsdistill as td
from tsdistill.data.task import Batch, Windows
from tsdistill.losses import Loss
from tsdistill.models import Activations, Forecaster
from tsdistill.report.machine import machine
from tsdistill.teachers import CachedTeacher
from tsdistill.training import Objective, TeacherObjective, TruthObjective

BATCH, REPEATS, NAIVE_BATCHES, EPOCHS = 256, 9, 3, 20
TIMED_BATCHES = {"lstm": 3, "transformer": 3}
STUDENTS: dict[str, td.models.ModelConfig] = {
    "linear": td.models.DLinearConfig(),
    "mlp": td.MLPConfig(width=64, depth=2),
    "lstm": td.LSTMConfig(widths=(64,), patch=12),
    "transformer": td.PatchTSTConfig(depth=2, width=32, heads=4, patch=12, stride=12),
}
LOSSES: dict[str, list[Loss]] = {
    "output": [td.OutputLoss()],
    "output + temporal": [td.OutputLoss(), td.TemporalLoss(), td.losses.SmoothnessLoss()],
    "output + features": [td.OutputLoss(), td.FeatureLoss()],
}


class Asked:
    """The usual way of distilling: the teacher is asked about every batch, again and again."""

    live = frozenset({"forecast"})

    def __init__(self, teacher: Forecaster) -> None:
        self.teacher = teacher

    def of(self, batch: Batch) -> Activations:
        return Activations(self.teacher.forecast(batch))


def epoch(model: Forecaster, objective: Objective, windows: Windows, n_batches: int | None = None) -> float:
    """Seconds of one epoch of gradient steps, or of its first batches, on a copy of the model."""
    model, objective = copy.deepcopy(model).train(), objective.train()
    parameters = [*model.parameters(), *objective.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    order = torch.randperm(len(windows))
    began = time.perf_counter()
    for batch in windows.batches(BATCH, order if n_batches is None else order[: n_batches * BATCH]):
        objective(model, batch)[0].backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - began


def main() -> None:
    """Measure in a folder of its own, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(STUDENTS))
    only, path = parser.parse_args().only, Path(__file__).with_suffix(".csv")
    with tempfile.TemporaryDirectory() as folder:
        table = measured(Path(folder), only or list(STUDENTS), naive=not only)
    if only:
        before = pd.read_csv(path)
        stale = before["student"].isin(only) & before["measure"].isin(LOSSES)
        table = pd.concat([before[~stale], table[table["student"].notna()]])
    table.to_csv(path, index=False, float_format="%.4g")
    print(table.to_string(index=False))


def measured(folder: Path, students: list[str], *, naive: bool) -> pd.DataFrame:
    """One row per measure and student."""
    task = td.Task(td.datasets.load("nyc-weather"), context=336, horizon=24)
    windows, rows = task.train, []
    teacher = td.PatchTSTConfig(depth=3, width=128, heads=8, patch=16, stride=8).build(task.signature).eval()
    cached_teacher = CachedTeacher(teacher, folder)
    began = time.perf_counter()
    cached_teacher.outputs(windows)
    filling = time.perf_counter() - began
    rows.append({"measure": "filling, forecasts", "seconds": filling})
    began = time.perf_counter()
    bound(STUDENTS["lstm"], LOSSES["output + features"], cached_teacher, task)
    rows.append({"measure": "filling, forecasts and hidden states", "seconds": time.perf_counter() - began})

    for name in students:
        config = STUDENTS[name]
        for losses in LOSSES:
            if losses.endswith("features") and name not in ("lstm", "transformer"):
                continue
            student, taught = bound(config, LOSSES[losses], cached_teacher, task)
            truth = TruthObjective()
            truth.bind(student, windows)
            epoch(student, taught, windows, 1), epoch(student, truth, windows, 1)
            n = TIMED_BATCHES.get(name)
            pairs = [(epoch(student, taught, windows, n), epoch(student, truth, windows, n)) for _ in range(REPEATS)]
            rows.append({"measure": losses, "student": name, **medians(pairs)})
            print(rows[-1], flush=True)

    if naive:
        student, taught = bound(STUDENTS["mlp"], LOSSES["output"], cached_teacher, task)
        _, asking = bound(STUDENTS["mlp"], LOSSES["output"], cached_teacher, task)
        asking._outputs = Asked(teacher)
        share = len(windows) / (NAIVE_BATCHES * BATCH)
        pairs = []
        for _ in range(3):
            slow, fast = epoch(student, asking, windows, NAIVE_BATCHES) * share, epoch(student, taught, windows)
            pairs.append((EPOCHS * slow, filling + EPOCHS * fast))
        rows.append({"measure": f"naive, {EPOCHS} epochs", "student": "mlp", **medians(pairs)})
    columns = ["measure", "student", "ratio", "seconds", "against_seconds"]
    return pd.DataFrame(rows, columns=columns).assign(cpu=machine().get("cpu"), threads=torch.get_num_threads())


def bound(
    config: td.models.ModelConfig, losses: list[Loss], cached_teacher: CachedTeacher, task: td.Task
) -> tuple[Forecaster, TeacherObjective]:
    """An untrained student and its losses, bound to each other; outputs that are not there yet are taken."""
    student, objective = config.build(task.signature), TeacherObjective(losses, cached_teacher)
    objective.bind(student, task.train)
    return student, objective


def medians(pairs: list[tuple[float, float]]) -> dict[str, float]:
    """Median of the ratios, and of either side's seconds."""
    return {
        "ratio": statistics.median(one / other for one, other in pairs),
        "seconds": statistics.median(one for one, _ in pairs),
        "against_seconds": statistics.median(other for _, other in pairs),
    }


if __name__ == "__main__":
    main()
