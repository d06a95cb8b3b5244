"""A chosen forecaster fitted once more, with the validation rows among what it learns from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsdistill.data.joining import with_validation
from tsdistill.data.task import Task
from tsdistill.errors import ConfigError, OrderError, must
from tsdistill.models.base import Forecaster
from tsdistill.models.provenance import machine, versions
from tsdistill.spec import LineageStep
from tsdistill.training.loop import fit
from tsdistill.training.objectives import Objective
from tsdistill.training.spec import Training

VERB = "refit"
"""The step of a lineage that records it."""

FITTED = ("train", "distill")
"""Steps that fit a new model, and can be taken again."""


def fitted_again(
    model: Forecaster,
    task: Task,
    objective: Objective,
    *,
    details: Mapping[str, Any] | None = None,
    progress: bool | None = None,
) -> Forecaster:
    """A new forecaster fitted on all windows before the test part, as validation chose for `model`, without control.

    Args:
        model: What `train` or `distill` gave; its lineage tells what was chosen.
        task: The task it was trained on.
        objective: What it was trained by, not yet bound to windows.
        details: What the lineage should say about the objective.
        progress: Show a progress bar; None shows one in a terminal only.
    """
    check_fitted(model, task)
    step = choice_of_training(model)
    training = Training.from_dict(step.spec["training"])
    every = with_validation(task)
    again = model.config.build(model.signature, training.seed)
    if again.closed_form:
        objective.bind(again, every.train)
        metrics = again.refit_closed_form(objective.equations(every.train, every.validation), step.metrics)
    else:
        metrics = _trained(again, task, every, training, objective, step.metrics, progress)
    again.lineage = model.lineage
    return again.eval().with_step(
        LineageStep(
            verb=VERB,
            spec={"rows": "training and validation", **(details or {})},
            seed=training.seed,
            data=every.fingerprint,
            metrics={**metrics, "n_windows": len(every.train)},
            versions=versions(),
            machine=machine(),
        )
    )


def check_fitted(model: Forecaster, task: Task) -> None:
    """Refuse a model that does not come straight from training on this task."""
    verbs = [step.verb for step in model.lineage]
    if not verbs or verbs[-1] not in FITTED or not set(verbs) <= set(FITTED):
        raise OrderError(
            "`model` must come straight from td.train or td.distill to be fitted again, got one with the steps "
            f"{', '.join(verbs) or 'none'}. Refit first, then prune and quantize."
        )
    if model.lineage[-1].data != task.fingerprint:
        rule = "be the one that the model was trained on"
        raise ConfigError(
            must("task", rule, task.fingerprint, "Its windows, context, split and scaler must be the same")
        )


def choice_of_training(model: Forecaster) -> LineageStep:
    """The step that says what validation chose: of a control that was kept, that of its own training."""
    last = model.lineage[-1]
    if last.metrics.get("kept") != "control":
        return last
    return next(step for step in reversed(model.lineage) if step.verb == "train")


def is_refitted(model: Any) -> bool:
    """Whether a forecaster, or what it became, has learnt from validation rows."""
    return any(step.verb == VERB for step in getattr(model, "lineage", ()))


def _trained(
    model: Forecaster,
    task: Task,
    every: Task,
    training: Training,
    objective: Objective,
    chosen: Mapping[str, Any],
    progress: bool | None,
) -> dict[str, Any]:
    """Train for the epochs that were chosen; limits grow with the number of windows."""
    share = len(every.train) / len(task.train)
    wider = {
        name: round(value * share)
        for name in ("windows_per_epoch", "max_steps")
        if (value := getattr(training, name)) is not None
    }
    # What was measured for the first training holds for this one.
    precision = chosen.get("precision", training.precision)
    training = training.replace(**wider, precision=precision, patience=None)
    metrics = fit(model, every, training, objective, progress=progress, n_epochs=chosen["best_epoch"])
    return {name: metrics[name] for name in ("epochs", "steps", "precision", "objective")}
