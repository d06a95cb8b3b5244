"""The one training loop."""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tsdistill.data.task import Batch, Task, Windows
from tsdistill.errors import ConfigError, DivergenceError, OrderError, ShapeError, UnsupportedError, must
from tsdistill.models.base import Forecaster, ModelConfig, versions
from tsdistill.spec import LineageStep, digest_of
from tsdistill.training import checkpoint as state
from tsdistill.training.objectives import Objective, TruthObjective
from tsdistill.training.progress import Bar, open_bar
from tsdistill.training.spec import Training

EVALUATION_BATCH = 256
PROBE_STEPS = 3


def train(
    config: ModelConfig,
    task: Task,
    training: Training | None = None,
    *,
    checkpoint: Path | None = None,
    progress: bool | None = None,
) -> Forecaster:
    """Train a forecaster on a task's training part; validation picks the epoch whose weights are kept.

    Minimises MSE(forecast, truth) on scaled values. Use it for teachers, and for students without a teacher.
    Architectures that have a closed-form solution (linear) are solved instead, and `training` says nothing to them.

    Args:
        config: The architecture.
        task: Data, context and horizon.
        training: How to train; defaults to `Training()`.
        checkpoint: A file to keep the state in: a run that was stopped continues from it, to the same result.
        progress: Show a progress bar; None shows one in a terminal only.

    Returns:
        The trained forecaster, in evaluation mode.

    Raises:
        ConfigError: the architecture does not fit the task (a patch longer than the context, say).
        DivergenceError: loss or gradient became infinite or NaN.
        ArtifactError: the checkpoint is damaged or of another run.

    Example:
        >>> from tsdistill.models import MLPConfig
        >>> from tsdistill.testing import toy_task
        >>> teacher = train(MLPConfig(width=5, depth=1), toy_task(), Training(max_steps=2, precision="float32"))
        >>> teacher.lineage[-1].metrics["steps"]
        2
    """
    training = training or Training()
    if not isinstance(config, ModelConfig):
        kind = OrderError if hasattr(config, "onnx") else ConfigError
        raise kind(
            f"`train` must get the config of a new model, such as td.LSTMConfig(), got a {type(config).__name__}. "
            "Train before you export or quantize: swap the lines. td.distill goes on from a trained forecaster."
        )
    model = config.build(task.signature, training.seed)
    found = fit(model, task, training, TruthObjective(), checkpoint=checkpoint, progress=progress)
    step = LineageStep(
        verb="train",
        spec={"config": config.to_dict(), "training": training.to_dict()},
        seed=training.seed,
        data=task.fingerprint,
        metrics=found,
        versions=versions(),
    )
    return model.eval().with_step(step)


def fit(
    model: Forecaster,
    task: Task,
    training: Training,
    objective: Objective,
    *,
    checkpoint: Path | None = None,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Train `model` in place on any objective and leave it with its best weights; returns what to record.

    The verbs of tsdistill call this; call it yourself with an `Objective` of your own. An architecture that can be
    solved in closed form is.
    """
    _check_fits(model, task)
    windows, n_steps = task.train, training.n_steps(len(task.train))
    objective.bind(model, windows)
    solved = model.fit_closed_form(windows, task.validation, target=objective.target)
    if solved is not None:
        return solved
    device = _device(training)
    model.to(device)
    objective.to(device)
    optimizer = _optimizer(model, objective, training)
    key = digest_of([model.digest, task.fingerprint, objective.digest, training.to_dict()])
    found = state.read(checkpoint, key) if checkpoint else None
    with torch.random.fork_rng(devices=[]), open_bar(objective.formula, n_steps, progress) as bar:
        if found is None:
            precision = _probe(model, objective, windows, training, device)
            so_far, best = state.Progress(key, precision), state.module_tensors(model)
        else:
            so_far, groups = found
            best = groups["best"]
            model.load_state_dict(groups["model"])
            objective.load_state_dict(groups.get("objective", {}))
            state.restore_optimizer(optimizer, groups.get("optimizer", {}))
        bar.at(so_far.step)
        while so_far.step < n_steps and not _out_of_patience(so_far, training):
            parts = _epoch(model, objective, optimizer, windows, training, so_far, n_steps, device, bar)
            errors = _validation_errors(model, task.validation, device)
            error = errors["validation_mse"] if model.head.kind == "point" else errors["validation_error"]
            if not math.isfinite(error):
                raise DivergenceError(
                    f"Training diverged in epoch {so_far.epoch + 1}: the validation error is {error} after step "
                    f"{so_far.step} ({objective.formula}). Lower the learning rate; the last good checkpoint, if one "
                    "was asked for, is kept."
                )
            so_far.epoch += 1
            so_far.history.append({"epoch": so_far.epoch, **parts, **errors})
            if error < so_far.best:
                so_far.best, so_far.best_epoch, best = error, so_far.epoch, state.module_tensors(model)
            bar.note(f"validation {error:.4f}, best {so_far.best:.4f}")
            if checkpoint:
                groups = {
                    "model": state.module_tensors(model),
                    "best": best,
                    "objective": state.module_tensors(objective),
                    "optimizer": state.optimizer_tensors(optimizer),
                }
                state.write(checkpoint, so_far, groups)
    model.load_state_dict(best)
    model.cpu()
    return {
        "validation_mse": so_far.history[so_far.best_epoch - 1]["validation_mse"],
        "epochs": so_far.epoch,
        "best_epoch": so_far.best_epoch,
        "steps": so_far.step,
        "precision": so_far.precision,
        "objective": objective.formula,
        "history": so_far.history,
    }


def _check_fits(model: Forecaster, task: Task) -> None:
    """Refuse a model made for other steps, channels or scaling than the task's: errors would broadcast in silence."""
    ours, theirs = model.signature, task.signature
    if (ours.horizon, ours.channels) != (theirs.horizon, theirs.channels) or ours.context > theirs.context:
        raise ShapeError(
            f"the forecaster must fit the task (context {theirs.context}, horizon {theirs.horizon}, channels "
            f"{list(theirs.channels)}), got context {ours.context}, horizon {ours.horizon}, channels "
            f"{list(ours.channels)}. Build it for this task."
        )
    if (ours.normalisation, ours.mean, ours.scale) != (theirs.normalisation, theirs.mean, theirs.scale):
        raise ShapeError(
            "the forecaster must have the task's scaler, got other means or scales: it was trained on other data. "
            "Train a new one, or give the task it was trained on."
        )


def _epoch(
    model: Forecaster,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    windows: Windows,
    training: Training,
    so_far: state.Progress,
    n_steps: int,
    device: torch.device,
    bar: Bar,
) -> dict[str, float]:
    """One pass over the windows in an order that depends on seed and epoch only; mean of each loss part."""
    model.train()
    # Seeding every epoch by itself makes a resumed run draw the same numbers without storing generator states.
    generator = torch.Generator().manual_seed(_mix(training.seed, so_far.epoch, 0))
    torch.manual_seed(_mix(training.seed, so_far.epoch, 1))
    order = torch.randperm(len(windows), generator=generator)
    totals: dict[str, float] = {}
    n_batches = 0
    for batch in windows.batches(training.batch_size, order):
        if so_far.step >= n_steps:
            break
        rate = training.rate(so_far.step, n_steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        parts = _step(model, objective, optimizer, batch.to(device), training.clip_norm, so_far, rate)
        for name, value in parts.items():
            totals[name] = totals.get(name, 0.0) + float(value)
        n_batches += 1
        so_far.step += 1
        bar.advance()
    return {f"loss_{name}": total / n_batches for name, total in totals.items()}


def _step(
    model: Forecaster,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    clip_norm: float,
    so_far: state.Progress,
    rate: float,
) -> dict[str, torch.Tensor]:
    with _autocast(so_far.precision, batch.context.device):
        loss, parts = objective(model, batch)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(_trainable(model, objective), clip_norm)
    if not torch.isfinite(loss + norm):
        broken = [name for name, value in parts.items() if not torch.isfinite(value)] or ["gradient"]
        raise DivergenceError(
            f"Training diverged at step {so_far.step + 1}: {', '.join(broken)} is not finite (learning rate "
            f"{rate:.3g}, {objective.formula}). Lower the learning rate or look for extreme values in the data; the "
            "last good checkpoint, if one was asked for, is kept."
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return parts


def _validation_errors(model: Forecaster, windows: Windows, device: torch.device) -> dict[str, float]:
    """MSE over every validation window, in float32; for other heads than point heads their own error as well."""
    model.eval()
    squared, own, count = 0.0, 0.0, 0
    with torch.no_grad():
        for batch in windows.batches(EVALUATION_BATCH):
            batch = batch.to(device)
            said = model.activations(batch.context, batch.future, batch.past)
            squared += float((said.forecast - batch.target).square().double().sum())
            if model.head.kind != "point":
                own += float(model.head.error(said, batch.target)) * batch.target.numel()
            count += batch.target.numel()
    errors = {"validation_mse": squared / count}
    return errors if model.head.kind == "point" else {**errors, "validation_error": own / count}


def _out_of_patience(so_far: state.Progress, training: Training) -> bool:
    return training.patience is not None and so_far.epoch - so_far.best_epoch >= training.patience


def _optimizer(model: Forecaster, objective: Objective, training: Training) -> torch.optim.Optimizer:
    """AdamW that decays matrices and leaves biases, norms and embeddings of one axis alone."""
    parameters = _trainable(model, objective)
    if not parameters:
        raise ConfigError(f"{type(model).__name__} has no weights to train by steps. Use td.train, not fit.")
    decayed = [parameter for parameter in parameters if parameter.ndim > 1]
    plain = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": training.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=training.learning_rate)


def _trainable(model: nn.Module, objective: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in (*model.parameters(), *objective.parameters()) if parameter.requires_grad]


def _device(training: Training) -> torch.device:
    if training.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(must("device", "be one this machine has", "cuda", 'Use "auto" or "cpu"'))
    return torch.device("cuda" if training.device != "cpu" and torch.cuda.is_available() else "cpu")


@contextlib.contextmanager
def _autocast(precision: str, device: torch.device) -> Iterator[None]:
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        yield


def _probe(model: Forecaster, objective: Objective, windows: Windows, training: Training, device: torch.device) -> str:
    """The precision asked for, or the faster of float32 and bfloat16 autocast in a few steps of a copy."""
    if training.precision == "float32":
        return "float32"
    batch = windows.batch(torch.arange(min(training.batch_size, len(windows)))).to(device)
    seconds = {}
    for precision in ("float32", "bfloat16"):
        try:
            seconds[precision] = min(_timed_step(model, objective, batch, precision) for _ in range(PROBE_STEPS))
        except RuntimeError as error:
            # Processors without the instructions have no bfloat16 LSTM.
            if precision == "float32":
                raise
            if training.precision == precision:
                raise UnsupportedError(
                    f"`precision` must be one that this processor computes a {model.config.kind} model in, got "
                    f'precision="bfloat16" ({str(error).split(". ")[0]}). Use "auto" or "float32".'
                ) from None
    objective.zero_grad(set_to_none=True)
    # A tenth faster at least: below that the exact arithmetic is worth more than the time.
    faster = seconds.get("bfloat16", float("inf")) < 0.9 * seconds["float32"]
    return "bfloat16" if faster or training.precision == "bfloat16" else "float32"


def _timed_step(model: Forecaster, objective: Objective, batch: Batch, precision: str) -> float:
    """Seconds of forward and backward of a copy."""
    trial = copy.deepcopy(model).train()
    began = time.perf_counter()
    with _autocast(precision, batch.context.device):
        loss, _ = objective(trial, batch)
    loss.backward()
    if batch.context.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _mix(seed: int, epoch: int, stream: int) -> int:
    return int(digest_of([seed, epoch, stream]), 16) % 2**63
