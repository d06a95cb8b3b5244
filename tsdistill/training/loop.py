"""The one training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tsdistill.data.task import Task, Windows
from tsdistill.errors import ConfigError, DivergenceError, OrderError, ShapeError, check_type, must, optional_path
from tsdistill.models.base import Forecaster, ModelConfig
from tsdistill.models.provenance import machine, versions
from tsdistill.progress import open_bar
from tsdistill.spec import LineageStep, digest_of
from tsdistill.training import checkpoint as state
from tsdistill.training import history
from tsdistill.training.averaging import Average
from tsdistill.training.objectives import Objective, TruthObjective
from tsdistill.training.precision import settled
from tsdistill.training.ranks import Ranks, join
from tsdistill.training.spec import Training
from tsdistill.training.starting import start_info, started
from tsdistill.training.steps import TrainingRun, device_of, epoch, trainable

EVALUATION_BATCH = 256

OnEpoch = Callable[[Mapping[str, Any]], None]
"""Gets the line of an epoch: its number as "epoch", "validation_mse", "validation_error" for probabilistic heads."""


def train(
    config: ModelConfig,
    task: Task,
    training: Training | None = None,
    *,
    start: Forecaster | None = None,
    checkpoint: str | Path | None = None,
    progress: bool | None = None,
    on_epoch: OnEpoch | None = None,
) -> Forecaster:
    """Train a forecaster on a task's training part; validation picks the epoch whose weights are kept.

    Minimises MSE(forecast, truth) on scaled values. Use it for teachers, and for students without a teacher.
    Architectures that have a closed-form solution (linear) are solved instead, and `training` has no effect on them.

    Args:
        config: The architecture.
        task: Data, context and horizon.
        training: How to train; defaults to `Training()`.
        start: Go on from the weights of this forecaster, of the same config, steps and channels, instead of random
            ones: what was trained on last month's rows needs few steps on this month's. The scaler is the task's.
        checkpoint: A file to keep the state in: a run that was stopped continues from it, to the same result. Beside
            it grows `<checkpoint>.history.jsonl`, one line per epoch, which `tsdistill history` shows.
        progress: Show a progress bar; None shows one in a terminal only.
        on_epoch: Called after every epoch with its line of the history (`epoch`, `validation_mse`, ...); what it
            raises ends the training.

    Returns:
        The trained forecaster, in evaluation mode.

    Raises:
        ConfigError: an argument of another type, an architecture that does not fit the task (a patch longer than the
            context, say), or a start for what is solved in closed form.
        ShapeError: `start` has other steps or channels.
        DivergenceError: loss or gradient became infinite or NaN.
        ArtifactError: the checkpoint is damaged or of another run.

    Example:
        >>> from tsdistill.models import MLPConfig
        >>> from tsdistill.testing import toy_task
        >>> teacher = train(MLPConfig(width=5, depth=1), toy_task(), Training(max_steps=2, precision="float32"))
        >>> teacher.lineage[-1].metrics["steps"]
        2
    """
    training = Training() if training is None else training
    if not isinstance(config, ModelConfig):
        kind = OrderError if hasattr(config, "onnx") else ConfigError
        raise kind(
            f"`train` must get the config of a new model, such as td.LSTMConfig(), got a {type(config).__name__}. "
            "Train before you export or quantize: swap the lines. td.distill goes on from a trained forecaster."
        )
    check_type("task", task, Task, "Pass td.Task(panel, context=..., horizon=...)")
    check_type("training", training, Training, "Pass td.Training(epochs=...)")
    model = config.build(task.signature, training.seed) if start is None else started(config, task, training, start)
    first = training.replace(refit=None)
    metrics = fit(model, task, first, TruthObjective(), checkpoint=checkpoint, progress=progress, on_epoch=on_epoch)
    step = LineageStep(
        verb="train",
        spec={"config": config.to_dict(), "training": first.to_dict()} | start_info(start),
        seed=training.seed,
        data=task.fingerprint,
        metrics=metrics,
        versions=versions(),
        machine=machine(),
    )
    model = model.eval().with_step(step)
    if training.refit is None or not config.learns:
        return model
    from tsdistill.training.refitting import fitted_again  # which calls `fit`

    return fitted_again(model, task, TruthObjective(), progress=progress)


def fit(
    model: Forecaster,
    task: Task,
    training: Training,
    objective: Objective,
    *,
    checkpoint: str | Path | None = None,
    progress: bool | None = None,
    n_epochs: int | None = None,
    on_epoch: OnEpoch | None = None,
) -> dict[str, Any]:
    """Train `model` in place on any objective and leave it with its best weights; returns what to record.

    The verbs of tsdistill call this; call it yourself with an `Objective` of your own. An architecture that can be
    solved in closed form is. With `n_epochs`, so many epochs of the schedule are taken and the last weights kept:
    there is nothing left for validation to choose. `on_epoch` is called with every new line of the history; what it
    raises ends the training.

    Started by `torchrun`, every process takes its share of each batch, and all return the same model as one process
    would, up to rounding and dropout; only the first one shows progress and writes files.
    """
    check_type("model", model, Forecaster, "Build one: config.build(task.signature)")
    check_type("task", task, Task, "Pass td.Task(panel, context=..., horizon=...)")
    check_type("training", training, Training, "Pass td.Training(epochs=...)")
    check_type("objective", objective, Objective, "Pass an Objective, such as TruthObjective()")
    checkpoint = optional_path("checkpoint", checkpoint)
    if training.refit is not None:
        raise ConfigError(
            must("refit", "be None here", training.refit, "Only td.train and td.distill fit what they chose again")
        )
    _check_fits(model, task)
    windows = task.train
    n_steps = training.n_steps(len(task.train))
    objective.bind(model, windows)
    if model.closed_form:
        return model.fit_closed_form(objective.equations(windows, task.validation))
    parameters = trainable(model, objective)
    device = device_of(training)
    model.to(device)
    objective.to(device)
    key = digest_of([model.digest, task.fingerprint, objective.digest, training.to_dict()])
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        join(device) as ranks,
        open_bar(objective.formula, n_steps, progress if ranks.leads else False) as bar,
    ):
        _check_alike(ranks, key)
        saved = state.read(checkpoint, key, ranks) if checkpoint else None
        if saved is None:
            precision, measured = ranks.gather(settled(model, objective, task, training))[0]
        so_far = saved[0] if saved else state.Progress(key, precision, measured)
        average = Average(model, training.average) if training.average is not None else None
        validation = task.validation.on(device)
        run = TrainingRun(model, objective, windows.on(device), training, so_far, n_steps, parameters, average, ranks)
        best = state.module_tensors(model)
        if saved is not None:
            best = saved[1].pop("best")
            run.load(saved[1])
        if checkpoint:
            log = history.beside(checkpoint)
            ranks.lead(lambda: history.cut(log, so_far.epoch))
        bar.at(so_far.step)
        while so_far.step < n_steps and so_far.epoch != n_epochs and not _out_of_patience(so_far, training):
            began = time.perf_counter()
            parts, n_windows = epoch(run, bar)
            stepped = time.perf_counter()
            errors = _validation_errors(run.judged, validation, ranks)
            error = errors["validation_error" if model.head.probabilistic else "validation_mse"]
            if not math.isfinite(error):
                raise DivergenceError(
                    f"Training diverged in epoch {so_far.epoch + 1}: the validation error is {error} after step "
                    f"{so_far.step} ({objective.formula}). Lower the learning rate; the last good checkpoint, if one "
                    "was asked for, is kept."
                )
            so_far.epoch += 1
            so_far.history.append({"epoch": so_far.epoch, **parts, **errors})
            if error < so_far.best or n_epochs is not None:
                so_far.best = error
                so_far.best_epoch = so_far.epoch
                best = state.module_tensors(run.judged)
            bar.note(f"validation {error:.4f}, best {so_far.best:.4f}")
            if checkpoint:
                _keep(run, best, checkpoint, n_windows, stepped - began, time.perf_counter() - began)
            if on_epoch is not None:
                on_epoch(so_far.history[-1])
        ranks.agree(best)
    model.load_state_dict(best)
    model.cpu()
    return {
        "validation_mse": so_far.history[so_far.best_epoch - 1]["validation_mse"],
        "epochs": so_far.epoch,
        "best_epoch": so_far.best_epoch,
        "steps": so_far.step,
        "precision": so_far.precision,
        **({"precision_measured": so_far.measured} if so_far.measured else {}),
        **({"device": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}),
        "objective": objective.formula,
        **objective.notes,
        "history": so_far.history,
    }


def _keep(
    run: TrainingRun, best: dict[str, Tensor], checkpoint: Path, n_windows: int, stepping: float, whole: float
) -> None:
    """Write where a run stands at the end of an epoch that took `whole` seconds, `stepping` of them for steps."""

    def write() -> None:
        # Times go to this file alone: the lineage of a resumed run has to equal that of an undisturbed one.
        timing = {"examples_per_s": round(n_windows / stepping, 1), "seconds": round(whole, 3)}
        record = {**run.so_far.history[-1], **timing, "precision": run.so_far.precision}
        # The history first: a line too many is cut off when the run is resumed, a missing one would stay missing.
        history.append(history.beside(checkpoint), record)
        state.write(checkpoint, run.so_far, {**run.state(), "best": best})

    run.ranks.lead(write)


def _check_fits(model: Forecaster, task: Task) -> None:
    """Refuse a model made for other steps, channels or scaling than the task's: errors would broadcast in silence."""
    own, wanted = model.signature, task.signature
    if (own.horizon, own.channels) != (wanted.horizon, wanted.channels) or own.context > wanted.context:
        raise ShapeError(
            f"the forecaster must fit the task (context {wanted.context}, horizon {wanted.horizon}, channels "
            f"{list(wanted.channels)}), got context {own.context}, horizon {own.horizon}, channels "
            f"{list(own.channels)}. Build it for this task."
        )
    if not own.scales_like(wanted):
        raise ShapeError(
            "the forecaster must have the task's scaler, got other means or scales: it was trained on other data. "
            "Train a new one, or give the task it was trained on."
        )


def _check_alike(ranks: Ranks, key: str) -> None:
    """Refuse to train together what is not the same: the mean of two gradients of two models is of neither."""
    keys = ranks.gather(key)
    if len(set(keys)) > 1:
        raise ConfigError(
            f"All processes must train the same model on the same data in the same way, got {len(set(keys))} different "
            f"runs ({', '.join(sorted(set(keys)))}). Give every process the same script, data and seed."
        )


def _validation_errors(model: Forecaster, windows: Windows, ranks: Ranks) -> dict[str, float]:
    """MSE over every validation window, in float32; for other heads than point heads their own error as well."""
    model.eval()
    device = model.device
    squared, own, count = 0.0, 0.0, 0.0
    with torch.no_grad():
        for index in ranks.share(torch.arange(len(windows))).split(EVALUATION_BATCH):
            if len(index) == 0:
                continue
            batch = windows.batch(index).to(device)
            activations = model.activations(batch.context, batch.future, batch.past)
            squared += float((activations.forecast - batch.target).square().double().sum())
            if model.head.probabilistic:
                own += float(model.head.error(activations, batch.target)) * batch.target.numel()
            count += batch.target.numel()
    sums = ranks.sum({"squared": squared, "own": own, "count": count})
    errors = {"validation_mse": sums["squared"] / sums["count"]}
    return {**errors, "validation_error": sums["own"] / sums["count"]} if model.head.probabilistic else errors


def _out_of_patience(so_far: state.Progress, training: Training) -> bool:
    return training.patience is not None and so_far.epoch - so_far.best_epoch >= training.patience
