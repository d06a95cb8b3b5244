"""What an epoch costs besides the model's own steps: ratios in one run, the rivals taking turns.

    python experiments/benchmarks/training_loop.py

On ETTh1 (context 336, horizon 96, 7 channels), batches of 256 windows, float32, for a linear map trained by steps and
an MLP of width 64:

- `steps`: an epoch of the training loop against as many gradient steps (forward, backward, clipping, AdamW) on batches
  that lie ready, so that a ratio of 1.15 means that 13 % of the epoch went to anything but the model;
- `loader`: the same steps over a torch DataLoader of a per-window Dataset against an epoch of the training loop.

Medians over the repetitions; `training_loop.csv` beside this file keeps them with the machine's name.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import tsdistill as td
from tsdistill.data.task import Batch, Windows
from tsdistill.models.base import Forecaster
from tsdistill.models.linear import Linear
from tsdistill.report.machine import machine
from tsdistill.training import TruthObjective, fit

BATCH, REPEATS = 256, 7


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


class Stepped(Linear):
    """A linear map that is trained by steps."""

    closed_form = False


def bare(model: Forecaster, batches: Iterable[Batch], clip_norm: float) -> float:
    """Seconds of the steps alone."""
    model, objective = copy.deepcopy(model).train(), TruthObjective()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, fused=True)
    began = time.perf_counter()
    for batch in batches:
        objective(model, batch)[0].backward()
        nn.utils.clip_grad_norm_(parameters, clip_norm, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - began


def package_loop(model: Forecaster, task: td.Task, training: td.Training, folder: Path) -> float:
    """Seconds of the steps of one epoch of the loop, as its history tells them."""
    checkpoint = folder / "run.safetensors"
    checkpoint.unlink(missing_ok=True)
    fit(copy.deepcopy(model), task, training, TruthObjective(), checkpoint=checkpoint, progress=False)
    frame = pd.read_json(checkpoint.with_name(f"{checkpoint.name}.history.jsonl"), lines=True)
    return float(len(task.train) / frame["examples_per_s"].iloc[0])


def ready(windows: Windows) -> list[Batch]:
    """As many batches as an epoch has, all but the last one the same."""
    whole = windows.batch(torch.randperm(len(windows))[:BATCH])
    last = windows.batch(torch.arange(len(windows) % BATCH))
    return [whole] * (len(windows) // BATCH) + ([last] if len(last.index) else [])


def loader(windows: Windows) -> Iterable[Batch]:
    """The usual way to feed a loop."""
    for context, target in DataLoader(PerWindow(windows), batch_size=BATCH, shuffle=True):
        yield Batch(context, target, torch.empty(0))


def main() -> None:
    """Measure, print and keep."""
    import tempfile

    task = td.Task(td.datasets.load("etth1"), context=336, horizon=96)
    training = td.Training(epochs=1, batch_size=BATCH, precision="float32")
    models: dict[str, Forecaster] = {
        "linear": Stepped(td.LinearConfig(), task.signature),
        "mlp": td.MLPConfig(width=64).build(task.signature),
    }
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, model in models.items():
            seconds = []
            for _ in range(REPEATS + 1):
                seconds.append(
                    (
                        package_loop(model, task, training, Path(folder)),
                        bare(model, ready(task.train), training.clip_norm),
                        bare(model, loader(task.train), training.clip_norm),
                    )
                )
            for measure, one, other in (("steps", 0, 1), ("loader", 2, 0)):
                ratio = statistics.median(row[one] / row[other] for row in seconds[1:])
                mine, reference = (statistics.median(row[place] for row in seconds[1:]) for place in (one, other))
                rows.append(
                    {"model": name, "measure": measure, "ratio": ratio, "seconds": mine, "against_seconds": reference}
                )
    table = pd.DataFrame(rows).assign(cpu=machine().get("cpu"), threads=torch.get_num_threads())
    table.to_csv(Path(__file__).with_suffix(".csv"), index=False, float_format="%.4g")
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
