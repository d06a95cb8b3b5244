"""Training that goes on from the weights of an earlier model instead of random ones."""

from __future__ import annotations

import math

from tsdistill.data.task import Task
from tsdistill.errors import ConfigError, OrderError, ShapeError, check_type, must
from tsdistill.models.base import Forecaster, ModelConfig
from tsdistill.training.spec import Training

SHARE = 0.1
"""Windows of a warm training as a share of those of a full one, in one epoch."""

RATE = 0.3
"""Its learning rate, of a full one's: weights that are good already need small steps."""


def started(config: ModelConfig, task: Task, training: Training, start: Forecaster) -> Forecaster:
    """A new model of a config for a task, with the weights of a trained one.

    Scalers are the new task's: weights work on scaled values, and carry over though the data's level has moved.

    Args:
        config: The architecture, that of `start`.
        task: What to train on; its steps and channels are those of `start`.
        training: How; it asks for no refit, which begins again from the first weights.
        start: A trained forecaster.

    Raises:
        ConfigError: another architecture, one that is solved, or training that refits.
        OrderError: `start` is deployed.
        ShapeError: it has other steps or channels than the task.
    """
    if hasattr(start, "onnx"):
        raise OrderError(
            "`start` must be a forecaster that can be trained, got a deployed one. Load the stage that it was made of: "
            "a run keeps them in stages/."
        )
    check_type("start", start, Forecaster, "Pass what td.train, td.distill or td.load gave")
    if start.config != config:
        remedy = "Pass start.config, or leave start out"
        raise ConfigError(must("start", f"be a {config.kind} of the same config", repr(start.config), remedy))
    if start.closed_form or not config.learns:
        rule = "be left out for what is not trained by steps"
        raise ConfigError(must("start", rule, config.kind, "It is found from all rows, whatever was before"))
    if training.refit is not None:
        remedy = "A refit begins again from the first weights"
        raise ConfigError(must("training.refit", "be None with a start", training.refit, remedy))
    model = config.build(task.signature, training.seed)
    own, wanted = start.signature, task.signature
    kept = ("context", "horizon", "channels", "future", "past")
    if any(getattr(own, name) != getattr(wanted, name) for name in kept):
        raise ShapeError(
            f"`start` must have the task's steps and channels (context {wanted.context}, horizon {wanted.horizon}, "
            f"channels {list(wanted.channels)}), got context {own.context}, horizon {own.horizon}, channels "
            f"{list(own.channels)}. Train without start."
        )
    model.load_state_dict(start.state_dict())
    return model


def start_info(start: Forecaster | None) -> dict[str, str]:
    """What a lineage says of a start; nothing where weights were random."""
    return {} if start is None else {"start": start.digest}


def fits(config: ModelConfig, task: Task, start: Forecaster) -> bool:
    """Whether `started` takes it: one trained by steps, of the same architecture, steps and channels."""
    try:
        started(config, task, Training(), start)
    except (ConfigError, ShapeError):
        return False
    return True


def warmed(training: Training, n_windows: int) -> Training:
    """The training of a model that has a start: a tenth of the windows, in one epoch, at a third of the rate.

    Args:
        training: Of a model that begins with random weights.
        n_windows: Training windows of the task.
    """
    per_epoch = min(training.windows_per_epoch or n_windows, n_windows)
    share = max(training.windows_per_step, math.ceil(SHARE * training.epochs * per_epoch))
    return training.replace(
        epochs=1,
        windows_per_epoch=min(share, n_windows),
        max_steps=None if training.max_steps is None else max(1, math.ceil(SHARE * training.max_steps)),
        learning_rate=RATE * training.learning_rate,
        refit=None,
    )
