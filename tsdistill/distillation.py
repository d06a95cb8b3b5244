"""Train a small student to forecast like a large teacher."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from tsdistill.data.task import Task
from tsdistill.errors import OrderError, UnsupportedError
from tsdistill.evaluation.scores import score
from tsdistill.evaluation.significance import compare_losses
from tsdistill.exporting import refuse_deployed
from tsdistill.losses import Loss, OutputLoss
from tsdistill.models.base import Forecaster, ModelConfig, versions
from tsdistill.spec import LineageStep
from tsdistill.teachers import CachedTeacher, Teacher, check_teacher
from tsdistill.training import Objective, TeacherObjective, Training, fit

SIGNIFICANT = 0.05
"""Chance of a difference as large between equally good students, below which it is called one."""


def distill(
    teacher: Teacher,
    student: ModelConfig | Forecaster,
    task: Task,
    *,
    losses: Sequence[Loss] = (OutputLoss(),),
    training: Training | None = None,
    balance: Literal["fixed", "start"] = "fixed",
    control: bool = True,
    cache: Path | None = None,
    checkpoint: Path | None = None,
    progress: bool | None = None,
) -> Forecaster:
    """Train a student on a teacher's forecasts and on the truth; the teacher is left as it is.

    Minimises the sum of `losses` over the training windows; the teacher's forecasts are computed once and reused by
    every epoch. Linear students are solved in closed form on the blended targets, which is the exact optimum of an
    `OutputLoss`. Use it when a model that is good enough is too big or too slow, and read `control` before crediting
    the teacher.

    Args:
        teacher: A forecaster, or anything with `forecast(batch)` and a `digest`.
        student: The architecture of a new student, or a forecaster to train on from its weights.
        task: Data, context and horizon.
        losses: What to imitate; their sum is minimised.
        training: How to train.
        balance: "start" divides each loss by the size of its gradient on the untrained student, relative to the first
            one's, so that weights say how hard each pulls whatever its units; "fixed" leaves weights as they are.
        control: Also train the same student without the teacher, from the same weights, and keep it as `.control`. The
            lineage then says under "against_control" which of the two validation prefers, by how much, and whether the
            difference is more than chance (`compare_losses`).
        cache: Folder for the teacher's forecasts, shared by runs and processes; None keeps them in memory.
        checkpoint: A file to keep the state in, so that a stopped run continues (the control keeps its own beside it).
        progress: Show progress bars; None shows them in a terminal only.

    Returns:
        A new forecaster.

    Raises:
        ShapeError: the teacher forecasts other channels or another horizon than the task's.
        UnsupportedError: a loss that this teacher or this student cannot serve.
        OrderError: an exported or quantized model was given where a trainable one is needed.
        DivergenceError: loss or gradient became infinite or NaN.

    Example:
        >>> from tsdistill.testing import toy_task
        >>> from tsdistill.models import LinearConfig
        >>> from tsdistill.training import train
        >>> task = toy_task()
        >>> student = distill(train(LinearConfig(), task), LinearConfig(), task, control=False)
        >>> student.lineage[-1].spec["losses"]
        'MSE(student, 0.5 * teacher + 0.5 * truth)'

    Source: G. Hinton, O. Vinyals and J. Dean, "Distilling the Knowledge in a Neural Network", 2015; for regression, G.
    Chen et al., "Learning Efficient Object Detection Models with Knowledge Distillation", NeurIPS 2017, section 3.3.
    Differs from the source: forecasts are not classes, so that squared errors take the place of cross-entropies.
    """
    training = training or Training()
    refuse_deployed(student, "distill")
    refuse_deployed(teacher, "distill")
    check_teacher(teacher, task)
    fresh = _start(student, task, training)
    if fresh.n_parameters == 0:
        raise UnsupportedError(f"A {fresh.config.kind!r} model has no weights that a teacher could shape.")
    plain = _start_control(student, fresh) if control else None
    objective = TeacherObjective(losses, CachedTeacher(teacher, cache, progress=progress), balance=balance)
    _learn(fresh, task, training, objective, checkpoint, progress)
    if plain is not None:
        beside = checkpoint.with_name(f"control-{checkpoint.name}") if checkpoint else None
        # What a probe chose for the student holds for its control: they are to differ in the teacher only.
        alike = training.replace(precision=fresh.lineage[-1].metrics.get("precision", training.precision))
        fresh.control = _learn(plain, task, alike, objective.untaught(), beside, progress)
        last = fresh.lineage[-1]
        told = {**last.metrics, "against_control": _against(fresh, fresh.control, task)}
        fresh.lineage = (*fresh.lineage[:-1], last.replace(metrics=told))
    return fresh


def _against(student: Forecaster, control: Forecaster, task: Task) -> dict[str, Any]:
    """What validation says of a student and of the same student without a teacher."""
    ours, theirs = (score(model, task, "validation") for model in (student, control))
    found = compare_losses(ours.window_losses, theirs.window_losses, horizon=task.horizon, times=ours.times)
    own, other = float(ours.window_losses.mean()), float(theirs.window_losses.mean())
    return {
        "validation_mse": own,
        "control_validation_mse": other,
        "relative": own / other - 1 if other else 0.0,
        "p_value": found.p_value,
        "better": "student" if own < other else "control",
        "significant": found.p_value is not None and found.p_value < SIGNIFICANT,
    }


def _learn(
    model: Forecaster,
    task: Task,
    training: Training,
    objective: Objective,
    checkpoint: Path | None,
    progress: bool | None,
) -> Forecaster:
    """Train in place and write the lineage."""
    found = fit(model, task, training, objective, checkpoint=checkpoint, progress=progress)
    spec: dict[str, Any] = {"config": model.config.to_dict(), "training": training.to_dict()}
    taught = isinstance(objective, TeacherObjective)
    if isinstance(objective, TeacherObjective):
        spec |= {"losses": str(objective.losses), "teacher": objective.mentor.digest}
        spec |= {} if objective.balance == "fixed" else {"balance": objective.balance}
    step = LineageStep(
        verb="distill" if taught else "train",
        spec=spec,
        seed=training.seed,
        data=task.fingerprint,
        metrics=found,
        versions=versions(),
    )
    return model.eval().with_step(step)


def _start(student: ModelConfig | Forecaster, task: Task, training: Training) -> Forecaster:
    """An untrained student, or a copy of a trained one to go on from."""
    if isinstance(student, ModelConfig):
        return student.build(task.signature, training.seed)
    copied = copy.deepcopy(student)
    copied.control = None
    return copied


def _start_control(student: ModelConfig | Forecaster, fresh: Forecaster) -> Forecaster:
    """Where the control starts: the student's own weights, as long as no teacher has shaped them."""
    if isinstance(student, Forecaster):
        if student.control is not None:
            return copy.deepcopy(student.control)
        if any("teacher" in step.spec for step in student.lineage):
            raise OrderError(
                "`control` must be False for a student that a teacher has shaped and that has no control of its own: "
                "trained on from here it would not be without a teacher. Distil from a config, or set control=False."
            )
    return copy.deepcopy(fresh)
