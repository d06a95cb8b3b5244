"""Which precision a run computes in: by a rule that always answers alike, or measured once per machine when asked to.

No clock decides what is computed unless `precision="fastest"` asks for it, and then its answer is kept: two runs of one
seed on one machine give the same model, and all steps of a recipe compute alike.
"""

from __future__ import annotations

import contextlib
import copy
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tsdistill.data.catalog import cache_folder
from tsdistill.data.signature import Signature
from tsdistill.data.task import Batch, Task
from tsdistill.errors import UnsupportedError
from tsdistill.files import Busy, lock, write_atomic
from tsdistill.models.base import Forecaster
from tsdistill.models.lstm import LSTMConfig
from tsdistill.models.patchtst import PatchTSTConfig
from tsdistill.models.provenance import machine, versions
from tsdistill.spec import digest_of
from tsdistill.training.objectives import Objective, TruthObjective
from tsdistill.training.spec import Training

GAIN = 0.9
"""Share of float32's time that bfloat16 may take: above it the exact arithmetic is worth more than the time."""

RUNS = 3
"""Steps that are timed; the quickest counts."""

PATIENCE_SECONDS = 60.0
"""How long a process waits for another one that measures."""

_measured: dict[str, dict[str, Any]] = {}
"""By machine, where the file cannot be written."""


@contextlib.contextmanager
def autocast(precision: str, device: torch.device) -> Iterator[None]:
    """Compute in bfloat16 where that is the precision."""
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        yield


def settled(model: Forecaster, objective: Objective, task: Task, training: Training) -> tuple[str, dict[str, Any]]:
    """The precision of a run, and how it was measured where it was.

    Raises:
        UnsupportedError: bfloat16 was asked for, and the processor cannot compute the model in it.
    """
    device, measured = model.device, dict[str, Any]()
    wanted: str = training.precision
    if wanted == "auto":
        wanted = ruled(device)
    elif wanted == "fastest":
        measured = measure(device)
        wanted = str(measured["precision"])
    if wanted == "float32":
        return "float32", measured
    index = torch.arange(min(training.batch_size, len(task.train)))
    try:
        _step(model, objective, task.train.batch(index).to(device), wanted)
    except RuntimeError as error:
        # Processors without the instructions have no bfloat16 LSTM.
        if training.precision == wanted:
            raise UnsupportedError(
                f"`precision` must be one that this processor computes a {model.config.kind} model in, got "
                f'precision="bfloat16" ({str(error).split(". ")[0]}). Use "auto" or "float32".'
            ) from None
        wanted = "float32"
    finally:
        objective.zero_grad(set_to_none=True)
    return wanted, measured


def ruled(device: torch.device) -> str:
    """What "auto" stands for: float32 on a CPU, bfloat16 on an accelerator that has units for it."""
    short = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if short else "float32"


def measure(device: torch.device, folder: Path | None = None) -> dict[str, Any]:
    """The faster precision on this machine, measured on its first call and kept beside the downloads from then on.

    A step of a transformer and of an LSTM of ordinary sizes is timed in both. The answer holds for this processor,
    number of threads and version of torch.

    Args:
        device: Where to measure.
        folder: Where `precision.json` is kept; by default in the user's cache.

    Returns:
        "precision", "seconds" per step by precision, and the machine they were measured on.
    """
    place = {**machine(), "torch": versions()["torch"]}
    if device.type == "cuda":
        place["device"] = torch.cuda.get_device_name(device)
    key = digest_of(place)
    path = (cache_folder().parent if folder is None else folder) / "precision.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with lock(path.with_suffix(".lock"), timeout=PATIENCE_SECONDS):
            kept = _read(path)
            if key not in kept:
                kept[key] = _measured.get(key) or {**_timed(device), **place}
                write_atomic(path, json.dumps(kept, indent=2))
            return kept[key]
    except (OSError, Busy):
        if key not in _measured:
            _measured[key] = {**_timed(device), **place}
        return _measured[key]


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """What was measured before; a damaged file is measured anew."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    whole = isinstance(kept, dict)
    return {
        key: value
        for key, value in (kept.items() if whole else ())
        if isinstance(value, dict) and value.get("precision") in ("float32", "bfloat16")
    }


def _timed(device: torch.device) -> dict[str, Any]:
    """Seconds of a step of both models by precision, and which is to be taken."""
    signature = Signature(context=192, horizon=24, channels=("y",), mean=(0.0,), scale=(1.0,), frequency="h")
    draw = torch.Generator().manual_seed(0)
    context, target = (torch.randn(32, n_steps, 1, generator=draw) for n_steps in (192, 24))
    batch = Batch(context=context, target=target, index=torch.arange(32)).to(device)
    seconds: dict[str, float] = {}
    for precision in ("float32", "bfloat16"):
        try:
            for config in (PatchTSTConfig(depth=1), LSTMConfig()):
                model = config.build(signature).to(device)
                times = [_step(model, TruthObjective(), batch, precision) for _ in range(RUNS)]
                seconds[precision] = seconds.get(precision, 0.0) + round(min(times), 6)
        except RuntimeError:
            if precision == "float32":
                raise
            seconds.pop(precision, None)
    faster = seconds.get("bfloat16", float("inf")) < GAIN * seconds["float32"]
    return {"precision": "bfloat16" if faster else "float32", "seconds": seconds}


def _step(model: Forecaster, objective: Objective, batch: Batch, precision: str) -> float:
    """Seconds of forward and backward of a copy."""
    # Moved to where it is: the weights of a copied LSTM lie apart, and cuDNN would gather them in every call.
    trial = copy.deepcopy(model).to(model.device).train()
    began = time.perf_counter()
    with autocast(precision, batch.context.device):
        loss, _ = objective(trial, batch)
    loss.backward()
    if batch.context.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began
