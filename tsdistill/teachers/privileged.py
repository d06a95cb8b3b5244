"""A teacher that sees more than its student: another context, covariates, channels or scaling of the same series."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tsdistill.data.covariates import Covariates
from tsdistill.data.joining import with_validation
from tsdistill.data.task import PARTS, Batch, Signature, Task, Windows
from tsdistill.errors import DataError, ShapeError, TsdistillError, UnsupportedError, check_type
from tsdistill.models.activations import Activations
from tsdistill.models.base import Forecaster
from tsdistill.spec import digest_of
from tsdistill.teachers.aligned import Alignment
from tsdistill.teachers.base import (
    Composed,
    Teacher,
    check_question,
    check_teacher,
    forecast_of,
    same_scaling,
    shown_by,
    title_of,
)
from tsdistill.teachers.places import Places
from tsdistill.teachers.rescaled import RescaledTeacher

Place = Literal["train", "validation", "test", "every"]
"""A part of the task, or every window before its test part: those that a model learns from which is fitted again."""

LEARNT: tuple[Place, ...] = ("train", "every")
"""Where the truth may stand for a lesson."""


class PrivilegedTeacher(Composed):
    """A teacher that is asked about its own windows of the moments that a student is asked about.

    forecast(window) = (teacher(own window) * s_own + m_own - m) / s, where the own window forecasts the same steps of
    the same item; mean m and scale s are those of the task, m_own and s_own those of the teacher's own task.

    Use it for a teacher that sees what the student will not: a longer (or shorter) context, covariates such as the
    calendar, more channels, more history, another scaler. `td.distill` makes one by itself where the teacher's own task
    follows from its signature and the student's panel; name `own_task` where it does not. Training windows that
    the own task does not have (before them lie fewer rows than the longer context, or the item is not in the own panel)
    carry no lesson: the forecast is the truth there, so that a blend of teacher and truth is the truth. On other
    parts they are refused.

    Hidden states and attention are the teacher's own, and are shown if it has a lesson for every training window.
    Quantiles are shown where both tasks scale alike.

    Args:
        teacher: Who teaches: a forecaster, or any other teacher of `own_task`.
        task: The task it teaches.
        own_task: The task it was trained for; None makes it from the teacher's signature and the task's panel.

    Attributes:
        teacher: Who teaches, in its own units.
        own_task: What it is asked about.
        signature: Steps, channels and scaling of the task it teaches, without covariates.
        n_unreached: Training windows that carry no lesson.

    Raises:
        ShapeError: the own task does not forecast the task's steps and channels, or does not fit the teacher.
        DataError: the two tasks do not have the same series, or the own one trains or validates on rows of a later part
            of the task; or it has none of the task's training windows.
        UnsupportedError: the own task does not follow from the teacher.

    Example:
        >>> import tsdistill as td
        >>> from tsdistill.testing import toy_task
        >>> task = toy_task()
        >>> teacher = td.train(td.LinearConfig(), task.with_context(71))
        >>> PrivilegedTeacher(teacher, task).n_unreached
        24
        >>> td.distill(teacher, td.LinearConfig(), task, control=False).lineage[-1].spec["teacher_kind"]
        'PrivilegedTeacher'

    Source: V. Vapnik and A. Vashist, "A new learning paradigm: Learning using privileged information", Neural Networks
    22(5-6), 2009; D. Lopez-Paz et al., "Unifying distillation and privileged information", ICLR 2016, section 4.
    Differs from the source: forecasts are no classes, so that the blend of squared errors takes the place of softened
    cross-entropies.
    """

    members = ("teacher",)

    def __init__(self, teacher: Teacher, task: Task, own_task: Task | None = None) -> None:
        check_type("task", task, Task, "Pass td.Task(panel, context=..., horizon=...)")
        check_type("own_task", own_task, Task, "Pass the task that the teacher was trained for", optional=True)
        if own_task is None:
            if not isinstance(teacher, Forecaster):
                raise UnsupportedError(
                    f"`own_task` must be given for a {type(teacher).__name__}, as only the signature of a forecaster "
                    "says which task it was made for. Pass the task that the teacher was made for."
                )
            own_task = own_task_of(teacher.signature, task)
        if own_task.horizon != task.horizon or not {*task.channels} <= {*own_task.channels}:
            raise ShapeError(
                f"`own_task` must forecast the task's {task.horizon} steps of {list(task.channels)}, got "
                f"{own_task.horizon} steps of {list(own_task.channels)}. A teacher may see more than the task."
            )
        if isinstance(teacher, Forecaster) and not same_scaling(teacher.signature, own_task.signature):
            teacher = RescaledTeacher(teacher, own_task)
        check_teacher(teacher, own_task)
        self.teacher = teacher
        self.task = task
        self.own_task = own_task
        self._plain = task.without_covariates()
        self.signature: Signature = self._plain.signature
        self._places = Places(self._plain)
        self._alignment = Alignment.of(task, own_task)
        self._starts: dict[Place, np.ndarray] = {}
        self._columns = [own_task.channels.index(name) for name in task.channels]
        unreached = self._known_starts("train") < 0
        self.n_unreached = int(unreached.sum())
        if unreached.all():
            raise DataError(
                "`own_task` must have windows that forecast what the task's training windows forecast, got none: its "
                f"context of {own_task.context} steps reaches back before the first row of every one. Take a shorter "
                "one, or more history."
            )

    @property
    def digest(self) -> str:
        """Sixteen hex digits of the teacher, of what it sees, and of the task it teaches; not of the test part."""
        return digest_of(["privileged", self.teacher.digest, self.own_task.fingerprint, self._plain.fingerprint])

    @property
    def shown_digest(self) -> str:
        """Sixteen hex digits of all that a report about this teacher depends on, the test part too."""
        return digest_of([self.digest, self.own_task.test.fingerprint])

    @property
    def remark(self) -> str:
        """What it sees in the place of the task's context, for a report."""
        own, task = self.own_task, self.task
        seen = [f"a context of {own.context} steps"] if own.context != task.context else []
        seen += [*own.signature.future, *own.signature.past]
        seen += [name for name in own.channels if name not in task.channels]
        return f"asked with {', '.join(seen)}" if seen else "asked in a scaling of its own"

    def check(self, task: Task) -> None:
        """Refuse a task of other windows than those it was made for."""
        self._places.check(task, "a privileged teacher")

    def reaches(self, batch: Batch) -> Tensor:
        """Which windows of a batch it has a lesson for, (batch,) of True and False."""
        _, starts, _ = self._located(batch)
        return torch.from_numpy(starts >= 0)

    def forecast(self, batch: Batch) -> Tensor:
        """Scaled forecasts (batch, horizon, channel), without gradients; the truth where there is no lesson.

        Raises:
            DataError: the windows are not of the task; or it has no window of its own for some that are no training
                windows.
        """
        windows, starts, place = self._located(batch)
        reached = torch.from_numpy(starts >= 0)
        if not reached.all():
            self._require_learnt(batch, place, int((~reached).sum()))
        forecast = batch.target.float().clone()
        if reached.any():
            chosen, index = starts[reached.numpy()], batch.index[reached]
            own = self._own_batch(chosen, place)
            answer = self._brought(forecast_of(self.teacher, own).float(), chosen, windows, index)
            forecast[reached.to(forecast.device)] = answer.to(forecast.device)
        return forecast

    def show(self, batch: Batch, *, attention: bool = False) -> Activations:
        """The forecast, and the teacher's own insides where it has a lesson for every training window."""
        if self.n_unreached:
            return Activations(self.forecast(batch))
        windows, starts, place = self._located(batch)
        if (starts < 0).any():
            self._require_learnt(batch, place, int((starts < 0).sum()))
        inside = shown_by(self.teacher, self._own_batch(starts, place), attention=attention).to(batch.target.device)
        forecast = self._brought(inside.forecast.float(), starts, windows, batch.index)
        if self._columns != list(range(len(self.own_task.channels))):
            inside = _of_channels(inside, self._columns, len(self.own_task.channels))
        if not self._scales_alike:
            inside = replace(inside, distribution=None, support=None, levels=())
        return replace(inside, forecast=forecast)

    def _require_learnt(self, batch: Batch, place: Place, n_windows: int) -> None:
        """The truth may stand for a lesson in windows that are learnt from, and nowhere else."""
        # Windows of a series that does not move look alike in every part.
        if place not in LEARNT or self._places.locate(batch, ("validation", "test")) is not None:
            raise DataError(
                f"The teacher cannot forecast {n_windows} windows of the {place} part: its own task, which sees "
                f"{self.own_task.context} steps, has no such windows. Leave it out, or give items more history."
            )

    @property
    def _scales_alike(self) -> bool:
        """Whether a scaled value means the same in both tasks."""
        own, task = self.own_task, self.task
        alike = own.scaler == task.scaler == "standard" and len(own.channels) == len(task.channels)
        return alike and same_scaling(own.without_covariates().signature, self.signature)

    def _located(self, batch: Batch) -> tuple[Windows, np.ndarray, Place]:
        """The windows that a batch was taken from, the first rows of its own windows, and where they are."""
        place: Place | None = self._places.locate(batch, PARTS)
        if place is None and Places(self._every).locate(batch, ("train",)) is not None:
            place = "every"
        if place is None:
            raise DataError(
                "A privileged teacher knows the windows of its task only, as it looks them up in the task it was "
                "trained for, got others. Make one for their task."
            )
        return self._windows(place), self._known_starts(place)[batch.index.numpy()], place

    @functools.cached_property
    def _every(self) -> Task:
        """The task whose training windows are all before the test part."""
        return with_validation(self._plain)

    @functools.cached_property
    def _numbered(self) -> dict[Place, np.ndarray]:
        """First rows of the own task's windows, in order, (window,)."""
        return {part: self.own_task.windows(part).starts.numpy().astype(np.int64) for part in PARTS}

    def _windows(self, place: Place) -> Windows:
        return self._every.train if place == "every" else self._plain.windows(place)

    def _known_starts(self, place: Place) -> np.ndarray:
        if place not in self._starts:
            self._starts[place] = self._alignment.starts(self._windows(place))
        return self._starts[place]

    def _own_windows(self, starts: np.ndarray) -> Windows:
        own = self.own_task.train
        return Windows(
            own.series, torch.from_numpy(starts), own.context, own.horizon,
            future=own.future, past=own.past, scaler=own.scaler,
        )  # fmt: skip

    def _own_batch(self, starts: np.ndarray, place: Place) -> Batch:
        """Own windows, numbered as in the same part of the own task, for teachers that look something up."""
        batch = self._own_windows(starts).batch(torch.arange(len(starts)))
        of_part = self._numbered["train" if place == "every" else place]
        places = np.searchsorted(of_part, starts).clip(max=len(of_part) - 1)
        return replace(batch, index=torch.from_numpy(np.where(of_part[places] == starts, places, 0)))

    def _brought(self, forecast: Tensor, starts: np.ndarray, windows: Windows, index: Tensor) -> Tensor:
        """Own scaled forecasts, (batch, horizon, own channel), in the scale and channels of the task."""
        forecast = forecast[..., self._columns] if self._columns != list(range(forecast.shape[-1])) else forecast
        if self._scales_alike:
            return forecast
        own, every = self._own_windows(starts), torch.arange(len(starts))
        own_mean, own_scale = (array[..., self._columns] for array in own.units(every))
        mean, scale = windows.units(index)
        # Offsets first: the difference of two large numbers, where the means are small.
        shift = own.offsets(every)[..., self._columns] - windows.offsets(index) + own_mean - mean
        factor, shift = (torch.from_numpy(array).to(forecast.device) for array in (own_scale / scale, shift / scale))
        return (forecast.double() * factor + shift).float()

    @property
    def title(self) -> str:
        """The class of the teacher, and what it sees."""
        inside = self.teacher.forecaster if isinstance(self.teacher, RescaledTeacher) else self.teacher
        return f"{title_of(inside)} ({self.remark.removeprefix('asked ')})"

    def __repr__(self) -> str:
        return f"<PrivilegedTeacher {self.title}>"


def _of_channels(inside: Activations, columns: list[int], n_channels: int) -> Activations:
    """Insides of some channels only; what mixes channels (an axis of 1) has no part of its own for any."""

    def chosen(parts: tuple[Tensor, ...] | None) -> tuple[Tensor, ...] | None:
        return None if parts is None else tuple(p[:, columns] if p.shape[1] == n_channels else p for p in parts)

    if inside.tokens_are == "channels":
        return replace(inside, hidden=(), attention=None, values=None, distribution=None, support=None)
    return replace(
        inside, hidden=chosen(inside.hidden) or (), attention=chosen(inside.attention), values=chosen(inside.values)
    )


def own_task_of(signature: Signature, task: Task) -> Task:
    """The task over a task's panel, cut at the same rows, that gives a forecaster the inputs of its signature.

    Raises:
        ShapeError: the panel lacks a column.
        ConfigError, DataError: what `Task` raises, such as a context that is longer than an item.
    """
    return task_with(
        task,
        context=signature.context,
        covariates=signature.covariates,
        scaler=_scaler_of(signature),
        channels=signature.channels,
    )


def task_with(
    task: Task,
    *,
    context: int,
    covariates: Covariates | None,
    scaler: Literal["standard", "item"] | None,
    channels: tuple[str, ...] | None = None,
) -> Task:
    """A task over the same panel, split and horizon with other inputs; of some channels, by default the task's.

    Raises:
        ShapeError: the panel lacks a column.
        ConfigError, DataError: what `Task` raises.

    Example:
        >>> from tsdistill.testing import toy_task
        >>> task_with(toy_task(), context=71, covariates=None, scaler="item").context
        71
    """
    panel, channels = task.panel, task.channels if channels is None else channels
    columns = {*channels, *(covariates.columns if covariates is not None else ())}
    if missing := [name for name in sorted(columns) if name not in panel.channels]:
        raise ShapeError(
            f"The task's panel must have the columns that the teacher sees, and lacks {missing}. Give "
            "td.teachers.PrivilegedTeacher(teacher, task, own_task) the task that it was trained for."
        )
    if columns < {*panel.channels}:
        kept = [number for number, name in enumerate(panel.channels) if name in columns]
        items = tuple(
            replace(item, values=item.values[:, kept], marks=None if item.marks is None else item.marks[:, kept])
            for item in panel.items
        )
        panel = replace(panel, items=items, channels=tuple(panel.channels[number] for number in kept))
    options: dict[str, Any] = {"covariates": covariates, "scaler": scaler, "short": task.short}
    return Task(panel, context=context, horizon=task.horizon, split=task.split, **options)


def adapt(teacher: Teacher, task: Task) -> Teacher:
    """A teacher as it teaches a task: itself, or asked by a `PrivilegedTeacher` where it sees something else.

    A forecaster of another context, other covariates or another kind of scaler is asked about its own windows, if the
    task they belong to follows from its signature: the task's panel and split must give the very scaling it was trained
    with. The verbs that take a teacher all take it through here, and their lineage names what was made.

    Raises:
        ShapeError: it forecasts other steps or channels, or its own task does not follow; the error says what to write.
        UnsupportedError: this is no teacher.
    """
    if not isinstance(teacher, Forecaster) or same_inputs(teacher.signature, task):
        check_teacher(teacher, task)
        return teacher
    if teacher.horizon != task.horizon or not {*task.channels} <= {*teacher.signature.channels}:
        check_question(teacher.signature, task.signature)
    remedy = "Give td.teachers.PrivilegedTeacher(teacher, task, own_task) with the task that it was trained for"
    try:
        own_task = own_task_of(teacher.signature, task)
    except TsdistillError as error:
        raise ShapeError(
            f"`teacher` must see what the task's panel can give, and its own inputs ({_inputs(teacher)}) cannot be "
            f"made of it: {error} {remedy}, or train it on a task that fits."
        ) from None
    if not same_scaling(teacher.signature, own_task.signature):
        raise ShapeError(
            f"`teacher` must have been scaled by the task's training rows, as it is asked with inputs of its own "
            f"({_inputs(teacher)}); it was trained on other rows or with another scaler. {remedy}; without own_task, "
            "its values are rescaled, as by td.teachers.RescaledTeacher."
        )
    return PrivilegedTeacher(teacher, task, own_task)


def _scaler_of(signature: Signature) -> Literal["standard", "item"] | None:
    """The `scaler` of the task that a signature is of."""
    if signature.normalisation == "window":
        return "item"
    return "standard" if any(signature.mean) or any(value != 1 for value in signature.scale) else None


def same_inputs(own: Signature, of_task: Task) -> bool:
    """Whether a teacher of some signature can be asked with a task's batches, once they are in its scale."""
    task = of_task.signature
    sides = all(getattr(own, side) in ((), getattr(task, side)) for side in ("future", "past"))
    return (
        sides
        and own.context <= task.context
        and own.channels == task.channels
        and (_scaler_of(own) == of_task.scaler or same_scaling(own, task))
    )


def _inputs(teacher: Forecaster) -> str:
    own = teacher.signature
    names = [*own.future, *own.past]
    return f"context {own.context}" + (f", {', '.join(names)}" if names else "")
