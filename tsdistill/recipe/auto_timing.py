"""How long a candidate would take on this machine, by a few steps of it or by closed forms that were solved before."""

from __future__ import annotations

import math
import time

import torch

from tsdistill.data import Task
from tsdistill.models import AveragedLinearConfig
from tsdistill.recipe.teacher import TeacherSpec
from tsdistill.training import TruthObjective
from tsdistill.training.steps import device_of

N_TIMED = 3
"""Gradient steps that are timed; the fastest counts."""

EVALUATED = 256
"""Windows of a timed look at the validation part."""

SOLUTIONS = 16
"""What a mean of ridges solves more than one ridge: contexts, blocks and penalties, shorter ones being cheaper."""


def operations(spec: TeacherSpec, task: Task) -> float:
    """About how many operations a closed form takes: products over the windows, and solutions."""
    n_rows = (len(task.train) + len(task.validation)) * len(task.channels)
    n_maps = len(task.channels) if getattr(spec.model, "individual", False) else 1
    n_solutions = SOLUTIONS if isinstance(spec.model, AveragedLinearConfig) else 1
    context = task.context
    return float(n_rows * context * (context + task.horizon) + 10 * n_maps * n_solutions * context**3)


def seconds_per_epoch(spec: TeacherSpec, task: Task) -> float:
    """About how long an epoch of a candidate takes here, by the fastest of a few steps; the model is thrown away."""
    training = spec.training
    device = device_of(training)
    model = spec.model.build(task.signature, training.seed).to(device)
    objective = TruthObjective()
    objective.bind(model, task.train)
    size = min(training.batch_size, len(task.train))
    times: dict[str, list[float]] = {"step": [], "look": []}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        batch = task.train.batch(torch.arange(size)).to(device)
        looked = task.validation.batch(torch.arange(min(EVALUATED, len(task.validation)))).to(device)
        for _ in range(N_TIMED):
            began = time.perf_counter()
            loss, _ = objective(model.train(), batch)
            loss.backward()
            float(loss.detach())  # waits for the device
            stepped = time.perf_counter()
            with torch.no_grad():
                float(model.eval()(looked.context, looked.future, looked.past).sum())
            times["step"].append(stepped - began)
            times["look"].append(time.perf_counter() - stepped)
    n_windows = min(len(task.train), training.windows_per_epoch or len(task.train))
    n_steps, n_looks = math.ceil(n_windows / size), math.ceil(len(task.validation) / EVALUATED)
    return n_steps * min(times["step"]) + n_looks * min(times["look"])
