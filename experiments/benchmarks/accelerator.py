"""What a GPU gives: training and asking teachers, against the processor of the same machine.

    python experiments/benchmarks/accelerator.py

On ETTh1 (context 336, horizon 96, 7 channels), batches of 256 windows:

- `windows_per_s`: windows that an epoch of the training loop takes in a second, and `times` how many times those of
  the processor (all its threads, float32);
- `of_steps`: seconds of that epoch over those of as many gradient steps on one batch that lies ready on the device:
  1.15 means that 13 % of the epoch went to anything but the model;
- `asked`: windows a second that a teacher answers while its cache is filled.

Medians over the repetitions; `accelerator.csv` beside this file keeps them with the names of both. A figure of the
processor is one step a repetition: read orders of magnitude. The committed rows were put together from what a run
printed that was stopped at its time limit, in a fourth model, before it could write them.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
from torch import nn
from training_loop import package_loop

import tsdistill as td
from tsdistill.models.base import Forecaster
from tsdistill.report.machine import machine
from tsdistill.teachers import CachedTeacher
from tsdistill.training import TruthObjective

BATCH, REPEATS = 256, 2
WINDOWS = {"cpu": 256, "cuda": 4096}
MODELS: dict[str, td.models.ModelConfig] = {
    "mlp 64": td.MLPConfig(width=64),
    "lstm 512": td.LSTMConfig(widths=(512, 512), patch=24),
    "patchtst 128": td.PatchTSTConfig(depth=3, width=128, heads=8, patch=16, stride=8),
}


def bare(model: Forecaster, task: td.Task, training: td.Training) -> float:
    """Seconds of the steps of an epoch, on one batch that lies ready."""
    device = torch.device(training.device)
    model, objective = copy.deepcopy(model).train().to(device), TruthObjective()
    batch = task.train.batch(torch.randperm(len(task.train))[:BATCH]).to(device)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, fused=True)
    began = time.perf_counter()
    for _ in range(int(training.windows_per_epoch or 0) // BATCH):
        with torch.autocast(device.type, torch.bfloat16, enabled=training.precision == "bfloat16"):
            loss, _ = objective(model, batch)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, training.clip_norm, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def asked(model: Forecaster, task: td.Task, device: str) -> float:
    """Windows a second that a teacher answers."""
    windows = task.validation if device == "cuda" else task.validation.subset(torch.arange(WINDOWS["cpu"]))
    began = time.perf_counter()
    CachedTeacher(model, device=torch.device(device), progress=False).outputs(windows)
    return len(windows) / (time.perf_counter() - began)


def main() -> None:
    """Measure, print and keep."""
    if not torch.cuda.is_available():
        print("There is no CUDA device here: nothing was measured.")
        return
    task = td.Task(td.datasets.load("etth1"), context=336, horizon=96)
    rows = []
    for name, config in MODELS.items():
        model = config.build(task.signature)
        for device, precision in (("cpu", "float32"), ("cuda", "float32"), ("cuda", "bfloat16")):
            spec = {"epochs": 1, "batch_size": BATCH, "precision": precision, "device": device}
            training = td.Training.from_dict({**spec, "windows_per_epoch": WINDOWS[device]})
            measured = []
            with tempfile.TemporaryDirectory() as folder:
                for _ in range(REPEATS + 1):
                    speed = len(task.train) / package_loop(model, task, training, Path(folder))
                    measured.append((speed, bare(model, task, training), asked(model, task, device)))
            speed, steps, asking = (statistics.median(values[place] for values in measured[1:]) for place in range(3))
            row = {"model": name, "n_parameters": model.n_parameters, "device": device, "precision": precision}
            row |= {"windows_per_s": speed, "of_steps": WINDOWS[device] / speed / steps, "asked": asking}
            rows.append(row)
            print(row, flush=True)
            keep(pd.DataFrame(rows))


def keep(frame: pd.DataFrame) -> None:
    """Write what is known by now."""
    slow = frame[frame["device"] == "cpu"].set_index("model")["windows_per_s"]
    frame = frame.assign(times=frame["windows_per_s"] / frame["model"].map(slow))
    frame = frame.assign(cpu=machine().get("cpu"), threads=torch.get_num_threads(), gpu=torch.cuda.get_device_name())
    frame.to_csv(Path(__file__).with_suffix(".csv"), index=False, float_format="%.4g")


if __name__ == "__main__":
    main()
