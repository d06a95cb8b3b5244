"""A forecaster as the teacher of a task that scales otherwise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tsdistill.data.task import Batch, Signature, Task
from tsdistill.errors import ShapeError, UnsupportedError
from tsdistill.inputs.levels import offset_of
from tsdistill.models.activations import Activations
from tsdistill.models.base import Forecaster
from tsdistill.spec import digest_of
from tsdistill.teachers.base import Composed, check_question, same_scaling, shown_by


class RescaledTeacher(Composed):
    """A forecaster that teaches a task whose values are scaled otherwise than those it was trained on.

    seen = (context * s + m - m_f) / s_f; forecast = (forecaster(seen) * s_f + m_f - m) / s, with mean m and scale s of
    the task, m_f and s_f of the forecaster, per channel; covariates likewise.

    Use it where teacher and student have other training rows, and therefore other scalers: a teacher trained on all
    rows and a student on the last ones only, or a saved teacher and data that has grown. The forecaster gives the
    forecasts that it would give for the same raw values. Hidden states and attention are its own.
    Quantiles are not shown.

    Args:
        forecaster: Who teaches.
        task: The task it teaches.

    Attributes:
        forecaster: Who teaches, in its own units.
        signature: Steps, channels and scaling of the task, with the forecaster's context.

    Raises:
        ShapeError: it forecasts other steps or channels, or looks at covariates that the task does not have.
        UnsupportedError: one of the two has a scaler per item, or this is no forecaster.

    Example:
        >>> import tsdistill as td
        >>> from tsdistill.testing import toy_panel
        >>> tasks = [td.Task(toy_panel(), context=47, horizon=11, split=td.Split.rows(n, 101, 67)) for n in (331, 151)]
        >>> every, few = tasks
        >>> teacher = td.train(td.LinearConfig(), every)
        >>> td.distill(RescaledTeacher(teacher, few), td.LinearConfig(), few, control=False).lineage[-1].verb
        'distill'
    """

    members = ("forecaster",)

    def __init__(self, forecaster: Forecaster, task: Task) -> None:
        if not isinstance(forecaster, Forecaster):
            raise UnsupportedError(
                f"`forecaster` must be a trainable forecaster, got a {type(forecaster).__name__}. Make other teachers "
                "for this task."
            )
        teacher_signature, task_signature = forecaster.signature, task.signature
        check_question(teacher_signature, task_signature)
        for side in ("future", "past"):
            if (wanted := getattr(teacher_signature, side)) and wanted != getattr(task_signature, side):
                raise ShapeError(
                    f"`task` must have the covariates {list(wanted)} that the teacher looks at, got "
                    f"{list(getattr(task_signature, side))}. Give the task's covariates=..."
                )
        if not same_scaling(teacher_signature, task_signature) and "window" in (
            teacher_signature.normalisation,
            task_signature.normalisation,
        ):
            raise UnsupportedError(
                "`forecaster` and `task` must both have one scaler for all items where the teacher is rescaled, and "
                "one has a scaler per item. Write the teacher's forecasts into a table (td.teachers.write_forecasts)."
            )
        self.forecaster = forecaster
        self._task = task_signature
        looked_at = task_signature if teacher_signature.covariates is not None else task_signature.without_covariates()
        self.signature: Signature = looked_at.replace(context=teacher_signature.context)

    @property
    def digest(self) -> str:
        """Sixteen hex digits of the forecaster and of the task's scaling."""
        return digest_of(["rescaled", self.forecaster.digest, self._task.digest])

    def check(self, task: Task) -> None:
        """Refuse a task that scales otherwise than the one it was made for."""
        if not same_scaling(self._task, task.signature):
            raise ShapeError("`teacher` was rescaled for a task of another scaling. Rescale it for this task.")

    def forecast(self, batch: Batch) -> Tensor:
        """Scaled forecasts (batch, horizon, channel), without gradients."""
        return self.show(batch).forecast

    def show(self, batch: Batch, *, attention: bool = False) -> Activations:
        """The forecast, and the forecaster's own hidden states and attention."""
        teacher_signature = self.forecaster.signature

        def seen(values: Tensor | None, side: str) -> Tensor | None:
            if values is None or (side and not getattr(teacher_signature, side)):
                return None
            return self._moved(values, side, self._task, teacher_signature)

        context = seen(batch.context, "")
        assert context is not None  # every batch has one
        inputs: dict[str, Any] = {name: seen(getattr(batch, name), name) for name in ("future", "past")}
        activations = shown_by(
            self.forecaster, Batch(context, batch.target, batch.index, **inputs), attention=attention
        )
        forecast = self._moved(activations.forecast.float(), "", teacher_signature, self._task)
        return replace(activations, forecast=forecast, distribution=None, support=None, levels=())

    @staticmethod
    def _moved(values: Tensor, side: str, source: Signature, target: Signature) -> Tensor:
        """Values in the scale of one signature, brought to that of another; in double precision, as raw units need."""
        prefix = f"{side}_" if side else ""
        mean, scale = (np.asarray(getattr(source, f"{prefix}{statistic}")) for statistic in ("mean", "scale"))
        centre, unit = (np.asarray(getattr(target, f"{prefix}{statistic}")) for statistic in ("mean", "scale"))
        # Offsets first: the difference of two large numbers, where the means are small.
        apart = offset_of(source, side or "context", len(mean)) - offset_of(target, side or "context", len(mean))
        shift = apart + mean - centre
        factor, shift = (torch.from_numpy(array).to(values.device) for array in (scale / unit, shift / unit))
        return (values.double() * factor + shift).float()

    def __repr__(self) -> str:
        return f"<RescaledTeacher {type(self.forecaster).__name__}>"
