"""What it takes to teach."""

from __future__ import annotations

import copy
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from tsdistill.data.task import Batch, Signature, Task
from tsdistill.errors import ShapeError, UnsupportedError
from tsdistill.models.activations import Activations
from tsdistill.models.base import Forecaster
from tsdistill.teachers.lending import own_copy


@runtime_checkable
class Teacher(Protocol):
    """What it takes to teach: forecasts of a batch, and a digest that changes when they do.

    A teacher that can show its insides also has `activations(context, future, past, attention=)`, as a `Forecaster`;
    or, where its forecasts depend on which windows it gets, `show(batch, attention=)`. One whose forecasts
    belong to certain windows of a task (a table of forecasts) has `check(task)`, which refuses a task that it cannot
    teach.
    """

    @property
    def digest(self) -> str:
        """Names the teacher's exact weights."""

    def forecast(self, batch: Batch) -> Tensor:
        """Scaled forecasts (batch, horizon, channel), without gradients."""


def forecast_of(teacher: Teacher, batch: Batch) -> Tensor:
    """A teacher's forecast of a batch; one from elsewhere gets a copy of it, so that it cannot write on ours."""
    return teacher.forecast(batch if is_ours(teacher) else own_copy(batch))


def reached_by(teacher: Teacher, batch: Batch) -> Tensor | None:
    """Which windows of a batch a teacher has a lesson for, (batch,) of True and False; None where it has for all."""
    reaches = getattr(teacher, "reaches", None) if is_ours(teacher) else None
    reached: Tensor | None = None if reaches is None else reaches(batch)
    return None if reached is None or bool(reached.all()) else reached


def title_of(teacher: Teacher) -> str:
    """A teacher in the list of an ensemble's members: its class, and what it is asked with."""
    return getattr(teacher, "title", type(teacher).__name__)


def is_ours(teacher: object) -> bool:
    """Whether a teacher is of this package, and leaves what it is given alone."""
    return type(teacher).__module__.startswith("tsdistill.")


def doubts_of(teacher: Teacher) -> tuple[str, ...]:
    """What a teacher's digest, or that of a member, cannot be sure of; none where its owner answers for it."""
    if isinstance(teacher, Composed):
        held = [getattr(teacher, name) for name in teacher.members]
        members = [member for entry in held for member in (entry if isinstance(entry, tuple) else (entry,))]
        return tuple(dict.fromkeys(doubt for member in members for doubt in doubts_of(member)))
    return tuple(getattr(teacher, "doubts", ()))


def shown_by(teacher: Teacher, batch: Batch, *, attention: bool = False) -> Activations:
    """Everything that a teacher shows of a batch, without gradients; of a teacher without insides its forecast."""
    activations: Activations
    if not is_ours(teacher) and not isinstance(teacher, Forecaster):
        batch = own_copy(batch)
    if (show := getattr(teacher, "show", None)) is not None:
        activations = show(batch, attention=attention)
        return activations
    show = getattr(teacher, "activations", None)
    if show is None:
        return Activations(teacher.forecast(batch).float())
    was_training = isinstance(teacher, torch.nn.Module) and teacher.training
    if isinstance(teacher, torch.nn.Module):
        teacher.eval()
    home = batch.context.device
    if isinstance(teacher, Forecaster):
        batch = batch.to(teacher.device)
    try:
        with torch.no_grad():
            activations = show(batch.context, batch.future, batch.past, attention=attention)
            return activations.to(home)
    finally:
        if was_training and isinstance(teacher, torch.nn.Module):
            teacher.train()


class Composed:
    """A teacher made of others: `members` names the attributes that hold them, one teacher or a tuple each."""

    members: ClassVar[tuple[str, ...]]


def at(teacher: Teacher, device: torch.device | None) -> Teacher:
    """A teacher that computes on a device: of a forecaster that is elsewhere a copy, alone or as a member.

    Foreign teachers stay on the device where their owner put them.
    """
    if device is None:
        return teacher
    if isinstance(teacher, Forecaster):
        return teacher if teacher.device.type == device.type else copy.deepcopy(teacher).to(device)
    if not isinstance(teacher, Composed):
        return teacher
    moved = copy.copy(teacher)
    for name in teacher.members:
        held = getattr(teacher, name)
        setattr(
            moved, name, tuple(at(member, device) for member in held) if isinstance(held, tuple) else at(held, device)
        )
    return moved


def teacher_info(teacher: Teacher) -> dict[str, str]:
    """What a lineage records of the teacher: its digest, and the class of a foreign teacher."""
    kind = {} if isinstance(teacher, Forecaster) else {"teacher_kind": type(teacher).__name__}
    return {"teacher": teacher.digest, **kind}


def teacher_record(teacher: Teacher) -> dict[str, list[str]]:
    """What the lineage of a student records besides of a teacher that was chosen: its candidates, a line each."""
    if not isinstance(teacher, Composed):
        return {}
    record: list[str] | None = getattr(teacher, "record", None)
    if record is not None:
        return {"teacher_candidates": record}
    inside = getattr(teacher, "teacher", None)
    return {} if inside is None else teacher_record(inside)


def check_teacher(teacher: Teacher, task: Task) -> None:
    """Refuse a teacher that forecasts other steps or channels than the task's, or a forecaster with another scaling."""
    if not (hasattr(teacher, "forecast") and isinstance(getattr(teacher, "digest", None), str)):
        raise UnsupportedError(
            f"`teacher` must have forecast(batch) and a digest, got a {type(teacher).__name__}. Train one with "
            "td.train, or wrap your own with td.wrap."
        )
    teacher_signature, task_signature = getattr(teacher, "signature", None), task.signature
    if isinstance(teacher_signature, Signature):
        check_question(teacher_signature, task_signature)
        _check_covariates(teacher, teacher_signature, task_signature)
        if isinstance(teacher, Forecaster) and not same_scaling(teacher_signature, task_signature):
            raise ShapeError(
                "`teacher` must see values scaled as those of the task, but it was trained on other rows or with "
                "another scaler. Give td.teachers.RescaledTeacher(teacher, task) in its place; or, for a student of "
                "the newest rows only, take the teacher's own task.latest(share), which keeps its scale."
            )
    check = getattr(teacher, "check", None)
    if check is not None:
        check(task)


def _check_covariates(teacher: Teacher, own: Signature, task: Signature) -> None:
    """Refuse a forecaster that looks at what the task's batches do not hold."""
    names, given = ([*signature.future, *signature.past] for signature in (own, task))
    if isinstance(teacher, Forecaster) and any(
        getattr(own, s) not in ((), getattr(task, s)) for s in ("future", "past")
    ):
        raise ShapeError(
            f"`teacher` must look at the task's covariates or none, {given}, got {names}. Give "
            "td.teachers.PrivilegedTeacher(teacher, task) in its place, which asks it with its own."
        )


def same_scaling(first: Signature, second: Signature) -> bool:
    """Whether two signatures scale alike what the first one looks at, but for rounding."""
    return first.scales_like(second, *(side for side in ("future", "past") if getattr(first, side)))


def check_question(teacher: Signature, task: Signature) -> None:
    """Refuse other steps or channels than the task's, and more context than it has."""
    if (teacher.horizon, teacher.channels) != (task.horizon, task.channels):
        raise ShapeError(
            f"`teacher` must forecast the task's {task.horizon} steps of {len(task.channels)} channels, got "
            f"{teacher.horizon} steps of {len(teacher.channels)} channels (or other names). Train it on this task."
        )
    if teacher.context > task.context:
        raise ShapeError(
            f"`teacher` must see at most the task's context of {task.context} steps, got context={teacher.context}. "
            "Give td.teachers.PrivilegedTeacher(teacher, task) in its place."
        )
