"""Train a small student to forecast like a large teacher."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from tsdistill.data.task import Task
from tsdistill.errors import ConfigError, OrderError, UnsupportedError, check_type, must, optional_path
from tsdistill.evaluation.scores import score
from tsdistill.evaluation.significance import SIGNIFICANT, compare_losses
from tsdistill.exporting import refuse_deployed
from tsdistill.losses import Loss, OutputLoss, check_losses_type
from tsdistill.models.base import Forecaster, ModelConfig
from tsdistill.models.provenance import machine, versions
from tsdistill.spec import LineageStep
from tsdistill.teachers import CachedTeacher, Teacher, adapt, teacher_info, teacher_record
from tsdistill.training import Objective, TeacherObjective, Training, TruthObjective, fit
from tsdistill.training.loop import OnEpoch
from tsdistill.training.refitting import check_fitted, fitted_again
from tsdistill.training.starting import start_info, started
from tsdistill.training.steps import device_of


def distill(
    teacher: Teacher,
    student: ModelConfig | Forecaster,
    task: Task,
    *,
    losses: Sequence[Loss] = (OutputLoss(),),
    training: Training | None = None,
    start: Forecaster | None = None,
    balance: Literal["fixed", "start"] = "fixed",
    control: bool = True,
    keep: Literal["student", "better"] = "student",
    cache: str | Path | None = None,
    checkpoint: str | Path | None = None,
    progress: bool | None = None,
    on_epoch: OnEpoch | None = None,
) -> Forecaster:
    """Train a student on a teacher's forecasts and on the truth; the teacher is left as it is.

    Minimises the sum of `losses` over the training windows; the teacher's forecasts are computed once and reused by
    every epoch. Linear students are solved in closed form on the blended targets, which is the exact optimum of an
    `OutputLoss`. Use it when a model that is good enough is too big or too slow, and read `control` before crediting
    the teacher.

    Args:
        teacher: A forecaster, or anything with `forecast(batch)` and a `digest`.
        student: The architecture of a new student, or a forecaster to train on from its weights (see `shrink`).
        task: Data, context and horizon.
        losses: What to imitate; their sum is minimised.
        training: How to train.
        start: Go on from the weights of this forecaster, made of the same config for earlier data, with the task's
            scaler (see `td.train`); the control goes on from its control. To train on for the same data, give the
            forecaster itself as the student.
        balance: "start" divides each loss by the size of its gradient on the untrained student, relative to the first
            one's, so that weights say how hard each pulls whatever its units; "fixed" leaves weights as they are.
        control: Also train the same student without the teacher, from the same weights (from random ones where `shrink`
            has taken them from a teacher), and keep it as `.control`. The lineage then records under "against_control"
            which of the two validation prefers, by how much, and whether that is more than chance (`compare_losses`).
        keep: "better" returns the control in the student's place where validation prefers it, so that what is returned
            is never worse there than what needs no teacher; it is its own `.control` then, and the last step of the
            lineage records that it was kept and against what.
        cache: Folder for the teacher's forecasts, shared by runs and processes; None keeps them in memory.
        checkpoint: A file to keep the state in, so that a stopped run continues (the control keeps its own beside it).
        progress: Show progress bars; None shows them in a terminal only.
        on_epoch: Called after every epoch of the student, not of its control, with its line of the history; what it
            raises ends the training.

    Returns:
        A new forecaster.

    Raises:
        ShapeError: the teacher forecasts other channels or another horizon than the task's, or is a forecaster that was
            trained on another scale (see `td.teachers.RescaledTeacher`).
        UnsupportedError: a loss that this teacher or this student cannot serve.
        ConfigError: an argument of another type, or `keep` asks for the better of two where there is no control.
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
    training = Training() if training is None else training
    _check_keep(keep, control)
    refuse_deployed(student, "distill")
    refuse_deployed(teacher, "distill")
    check_type("student", student, (ModelConfig, Forecaster), "Pass a config, such as td.LSTMConfig(), or a forecaster")
    check_type("task", task, Task, "Pass td.Task(panel, context=..., horizon=...)")
    check_losses_type(losses)
    check_type("training", training, Training, "Pass td.Training(epochs=...)")
    checkpoint = optional_path("checkpoint", checkpoint)
    cache = optional_path("cache", cache)
    teacher = adapt(teacher, task)
    fresh = _start(student, task, training, start)
    if fresh.n_parameters == 0:
        raise UnsupportedError(f"A {fresh.config.kind!r} model has no weights that a teacher could shape.")
    plain = _start_control(student, task, fresh, training, start) if control else None
    # A student that is solved needs no device, and asks for none that is not there.
    solved = fresh.closed_form and training.device == "cuda" and not torch.cuda.is_available()
    cached_teacher = CachedTeacher(teacher, cache, progress=progress, device=None if solved else device_of(training))
    refits, training = training.refit is not None, training.replace(refit=None)
    objective = TeacherObjective(losses, cached_teacher, balance=balance)
    details = {**teacher_info(teacher), **teacher_record(teacher), **start_info(start)}
    _learn(fresh, task, training, objective, checkpoint, progress, details, on_epoch)
    if plain is not None:
        beside = checkpoint.with_name(f"control-{checkpoint.name}") if checkpoint else None
        # What was measured for the student holds for its control: they are to differ in the teacher only.
        alike = training.replace(precision=fresh.lineage[-1].metrics.get("precision", training.precision))
        fresh.control = _learn(plain, task, alike, objective.untaught(), beside, progress)
        fresh = _kept(fresh, fresh.control, _against(fresh, fresh.control, task), keep)
    if not refits:
        return fresh
    again = TeacherObjective(losses, cached_teacher, balance=balance)
    return _fitted_again(fresh, task, again, teacher_info(teacher), progress)


def refit(
    model: Forecaster,
    task: Task,
    *,
    teacher: Teacher | None = None,
    losses: Sequence[Loss] = (OutputLoss(),),
    balance: Literal["fixed", "start"] = "fixed",
    cache: str | Path | None = None,
    progress: bool | None = None,
) -> Forecaster:
    """Fit a trained or distilled forecaster again on training and validation rows, with everything chosen before.

    One that is solved keeps its penalty, its contexts and its share of the teacher, and is solved for all windows
    before the test part. One that is trained by steps starts again from its first weights and takes the epochs that
    validation chose, over windows that are more by what validation adds. The scaler stays.

    Use it last, when nothing is left to choose by validation: the newest rows before the test part are often those
    that are most like it. What comes of it cannot be compared on validation any more, and not with results of the
    literature, whose models learn from training rows only. `td.Training(refit="all")` does the same within
    `td.train` and `td.distill`.

    Args:
        model: From `td.train` or `td.distill`, before it is pruned.
        task: The task it was trained on.
        teacher: Who taught it; needed for what a teacher has shaped. It forecasts the validation windows as well.
        losses: What it imitated.
        balance: As in `distill`.
        cache: Folder of the teacher's forecasts; None keeps them in memory.
        progress: Show progress bars; None shows them in a terminal only.

    Returns:
        A new forecaster; its control is fitted again as well. The lineage records on how many windows.

    Raises:
        OrderError: it was pruned, quantized or cut out of another model since, or is deployed.
        ConfigError: the task is another one, or a teacher is needed and not given.
        UnsupportedError: an architecture that is solved and cannot be solved again.
        DataError: the teacher has no forecasts of some of the windows.

    Example:
        >>> from tsdistill.testing import toy_task
        >>> from tsdistill.models import LinearConfig
        >>> from tsdistill.training import train
        >>> task = toy_task()
        >>> final = refit(train(LinearConfig(), task), task)
        >>> final.lineage[-1].verb, final.lineage[-1].metrics["n_windows"] > len(task.train)
        ('refit', True)

    Source: T. Hastie, R. Tibshirani and J. Friedman, "The Elements of Statistical Learning", second edition, 2009,
    section 7.10. Differs from the source: one validation part that follows the training part in time takes the place
    of cross-validation.
    """
    refuse_deployed(model, "refit")
    check_type("model", model, Forecaster, "Pass what td.train or td.distill gave")
    check_type("task", task, Task, "Pass the td.Task that it was trained on")
    check_losses_type(losses)
    cache = optional_path("cache", cache)
    check_fitted(model, task)
    if not _is_taught(model):
        return _fitted_again(model, task, TruthObjective(), {}, progress)
    if teacher is None:
        raise ConfigError("`teacher` must be given for a distilled model, got None. Give the one that taught it.")
    training = Training.from_dict(model.lineage[-1].spec["training"])
    device = None if model.closed_form else device_of(training)
    teacher = adapt(teacher, task)
    objective = TeacherObjective(
        losses, CachedTeacher(teacher, cache, progress=progress, device=device), balance=balance
    )
    return _fitted_again(model, task, objective, teacher_info(teacher), progress)


def _fitted_again(
    model: Forecaster, task: Task, objective: Objective, teacher: Mapping[str, str], progress: bool | None
) -> Forecaster:
    """A model and its control, fitted again; of one that was kept as its own control, once."""
    details: dict[str, Any] = {}
    if not _is_taught(model):
        objective = TruthObjective()
    elif isinstance(objective, TeacherObjective):
        details = {"losses": str(objective.losses), **teacher}
    if not model.config.learns:
        return model
    control = None if model.control is None else fitted_again(model.control, task, TruthObjective(), progress=progress)
    if control is not None and model.lineage[-1].metrics.get("kept") == "control":
        again = copy.deepcopy(control)
        again.lineage = (*model.lineage, control.lineage[-1])
    else:
        again = fitted_again(model, task, objective, details=details, progress=progress)
    again.control = control
    return again


def _is_taught(model: Forecaster) -> bool:
    """Whether a teacher has shaped it: it was distilled, and its control was not kept in its place."""
    step = model.lineage[-1]
    return step.verb == "distill" and step.metrics.get("kept") != "control"


def _check_keep(keep: str, control: bool) -> None:
    if keep not in ("student", "better"):
        raise ConfigError(must("keep", 'be "student" or "better"', keep, "Leave it out for the student"))
    if keep == "better" and not control:
        raise ConfigError(must("control", 'be True with keep="better"', control, "There is nothing to choose between"))


def _kept(student: Forecaster, control: Forecaster, against: dict[str, Any], keep: str) -> Forecaster:
    """The student, or its control where the better one is to be kept and it is; the lineage records it."""
    step = student.lineage[-1]
    metrics: dict[str, Any] = {"against_control": against}
    if keep == "better":
        step = step.replace(spec={**step.spec, "keep": keep})
        metrics = {**metrics, "kept": against["better"]}
    if metrics.get("kept") == "control":
        # The student's training metrics do not apply to the control, which has a step of its own for them.
        model = copy.deepcopy(control)
        model.control = control
        return model.with_step(step.replace(metrics=metrics))
    student.lineage = (*student.lineage[:-1], step.replace(metrics={**step.metrics, **metrics}))
    return student


def _against(student: Forecaster, control: Forecaster, task: Task) -> dict[str, Any]:
    """Validation scores of a student and of the same student without a teacher, compared."""
    student_scores, control_scores = (score(model, task, "validation") for model in (student, control))
    comparison = compare_losses(
        student_scores.window_losses, control_scores.window_losses, horizon=task.horizon, times=student_scores.times
    )
    student_mse, control_mse = float(student_scores.window_losses.mean()), float(control_scores.window_losses.mean())
    return {
        "validation_mse": student_mse,
        "control_validation_mse": control_mse,
        "relative": student_mse / control_mse - 1 if control_mse else 0.0,
        "p_value": comparison.p_value,
        "better": "student" if student_mse < control_mse else "control",
        "significant": comparison.p_value is not None and comparison.p_value < SIGNIFICANT,
    }


def _learn(
    model: Forecaster,
    task: Task,
    training: Training,
    objective: Objective,
    checkpoint: Path | None,
    progress: bool | None,
    teacher: Mapping[str, Any] | None = None,
    on_epoch: OnEpoch | None = None,
) -> Forecaster:
    """Train in place and write the lineage, with details of the teacher."""
    metrics = fit(model, task, training, objective, checkpoint=checkpoint, progress=progress, on_epoch=on_epoch)
    spec: dict[str, Any] = {"config": model.config.to_dict(), "training": training.to_dict()}
    taught = isinstance(objective, TeacherObjective)
    if isinstance(objective, TeacherObjective):
        spec |= {"losses": str(objective.losses), **(teacher or {})}
        spec |= {} if objective.balance == "fixed" else {"balance": objective.balance}
    step = LineageStep(
        verb="distill" if taught else "train",
        spec=spec,
        seed=training.seed,
        data=task.fingerprint,
        metrics=metrics,
        versions=versions(),
        machine=machine(),
    )
    return model.eval().with_step(step)


def _start(student: ModelConfig | Forecaster, task: Task, training: Training, start: Forecaster | None) -> Forecaster:
    """An untrained student, one with the weights of an earlier one, or a copy of a trained one to go on from."""
    if isinstance(student, ModelConfig):
        return (
            student.build(task.signature, training.seed) if start is None else started(student, task, training, start)
        )
    if start is not None:
        raise ConfigError(must("start", "be None for a student that has weights", type(start).__name__, "Leave it out"))
    return copy.deepcopy(student)


def _start_control(
    student: ModelConfig | Forecaster, task: Task, fresh: Forecaster, training: Training, start: Forecaster | None
) -> Forecaster:
    """Where the control starts: the student's own weights, as long as no teacher has shaped them.

    Of a student with a start it is the start's control. A student that was cut out of a teacher (`shrink`) is compared
    with one that starts from random weights.
    """
    if start is not None:
        if start.control is None:
            remedy = "Give a start that has one, or set control=False: from other weights it would be no comparison"
            raise ConfigError(must("control", "be False with a start that has none", True, remedy))
        return started(fresh.config, task, training, start.control)
    if isinstance(student, Forecaster):
        if student.control is not None:
            return copy.deepcopy(student.control)
        if [step.verb for step in student.lineage] == ["shrink"]:
            return fresh.config.build(fresh.signature, training.seed)
        if any("teacher" in step.spec and step.metrics.get("kept") != "control" for step in student.lineage):
            raise OrderError(
                "`control` must be False for a student that a teacher has shaped and that has no control of its own: "
                "trained on from here it would not be without a teacher. Distil from a config, or set control=False."
            )
    return copy.deepcopy(fresh)
