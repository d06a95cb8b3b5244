"""The one training loop."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from tsdistill.data.task import Task, Windows
from tsdistill.errors import ConfigError, DivergenceError, OrderError, ShapeError
from tsdistill.models.base import Forecaster, ModelConfig, versions
from tsdistill.spec import LineageStep, digest_of
from tsdistill.training import checkpoint as state
from tsdistill.training.averaging import Average
from tsdistill.training.checkpoint import module_tensors as _weights
from tsdistill.training.objectives import Objective, TruthObjective
from tsdistill.training.progress import open_bar
from tsdistill.training.spec import Training
from tsdistill.training.steps import Run, device_of, epoch, optimizer_of, probe, trainable

EVALUATION_BATCH = 256


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
    parameters, device = trainable(model, objective), device_of(training)
    model.to(device)
    objective.to(device)
    optimizer = optimizer_of(parameters, training)
    key = digest_of([model.digest, task.fingerprint, objective.digest, training.to_dict()])
    found = state.read(checkpoint, key) if checkpoint else None
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        open_bar(objective.formula, n_steps, progress) as bar,
    ):
        average = Average(model, training.average) if training.average is not None else None
        # What validation scores, and what is kept.
        judged = model if average is None else average.model
        if found is None:
            so_far, best = state.Progress(key, probe(model, objective, windows, training, device)), _weights(model)
        else:
            so_far, groups = found
            best = groups["best"]
            model.load_state_dict(groups["model"])
            judged.load_state_dict(groups["average" if average else "model"])
            objective.load_state_dict(groups.get("objective", {}))
            state.restore_optimizer(optimizer, groups.get("optimizer", {}))
        run = Run(model, objective, windows, training, device, so_far, n_steps, optimizer, parameters, average)
        bar.at(so_far.step)
        while so_far.step < n_steps and not _out_of_patience(so_far, training):
            parts = epoch(run, bar)
            errors = _validation_errors(judged, task.validation, device)
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
                so_far.best, so_far.best_epoch, best = error, so_far.epoch, _weights(judged)
            bar.note(f"validation {error:.4f}, best {so_far.best:.4f}")
            if checkpoint:
                groups = {
                    "model": _weights(model),
                    "best": best,
                    "objective": _weights(objective),
                    "optimizer": state.optimizer_tensors(optimizer),
                }
                if average is not None:
                    groups["average"] = _weights(average.model)
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
