"""A teacher that counts only where it was better than a baseline."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from tsdistill.data.task import Batch, Signature, Task
from tsdistill.errors import ConfigError, listed, must
from tsdistill.models.activations import Activations
from tsdistill.models.naive import SeasonalNaiveConfig
from tsdistill.spec import digest_of
from tsdistill.teachers.base import Composed, Teacher, check_teacher, forecast_of, reached_by, shown_by
from tsdistill.teachers.places import Places
from tsdistill.teachers.privileged import adapt


class TrustedTeacher(Composed):
    """A teacher whose pull is weakened where, on the training part, it is worse than a baseline.

    trust = min(1, baseline's error / teacher's error) ^ sharpness for each training window and channel, where an error
    is the mean square over the horizon; forecast = trust * teacher + (1 - trust) * truth.

    With a share alpha of the teacher in a blended target, the teacher's share becomes alpha * trust and the rest is
    truth: an `OutputLoss`, a closed form and every other loss follow by themselves, and a cache keeps the result. Use
    it for a teacher that is good on the whole and wrong in places (a level shift, an item or channel it never learnt).
    It looks at what happened, so that it can forecast the training windows only. Hidden states and attention
    are the teacher's own, as they are; quantiles are not shown, since they cannot be drawn to a single truth.

    Args:
        teacher: The teacher to weigh.
        task: The task it teaches.
        baseline: "seasonal-naive" (with the shortest of the data's periods that the context holds) or any teacher.
        sharpness: How fast trust falls, above 0: at 1 a teacher with twice the squared error has half the weight; `inf`
            leaves nothing to a teacher that is worse at all.

    Attributes:
        teacher: The teacher to weigh.
        baseline: Whom it has to beat.
        signature: Steps, channels and scaling of the task.

    Raises:
        ConfigError: an unknown baseline, or a sharpness that is not above 0.
        ShapeError: the teacher or the baseline forecasts something else.

    Example:
        >>> import tsdistill as td
        >>> from tsdistill.testing import toy_task
        >>> task = toy_task()
        >>> trusted = TrustedTeacher(td.train(td.LinearConfig(), task), task)
        >>> trusted
        <TrustedTeacher Linear, where it beats SeasonalNaive>
        >>> bool(trusted.trust(task.train.batch(torch.arange(7))).min() > 0)
        True

    Source: G. Chen et al., "Learning Efficient Object Detection Models with Knowledge Distillation", NeurIPS 2017,
    section 3.3 (a regression teacher may point away from the truth, and its error bounds what it may ask for); T. Wen,
    S. Lai and X. Qian, "Preparing Lessons: Improve Knowledge Distillation with Better Supervision", 2019 (wrong lessons
    are corrected towards the truth before they are taught). Differs from the source: the bound is the error of a
    baseline and not of the student, so that it is known before training, and trust falls gradually.
    """

    members = ("teacher", "baseline")

    def __init__(
        self,
        teacher: Teacher,
        task: Task,
        *,
        baseline: Teacher | Literal["seasonal-naive"] = "seasonal-naive",
        sharpness: float = 1.0,
    ) -> None:
        problems = []
        if isinstance(baseline, str) and baseline != "seasonal-naive":
            problems.append(must("baseline", 'be "seasonal-naive" or a teacher', baseline, "Leave it out"))
        if isinstance(sharpness, bool) or not isinstance(sharpness, int | float) or not sharpness > 0:
            problems.append(must("sharpness", "be above 0", sharpness, "Leave it out for 1"))
        if problems:
            raise ConfigError(listed(problems, "TrustedTeacher"))
        if isinstance(baseline, str):
            periods = [period for period in task.panel.periods if period <= task.context] or [1]
            baseline = SeasonalNaiveConfig(period=periods[0]).build(task.without_covariates().signature)
        self.teacher = adapt(teacher, task)
        self.baseline = adapt(baseline, task)
        self.sharpness = float(sharpness)
        self.signature: Signature = task.signature
        self._places = Places(task)

    @property
    def digest(self) -> str:
        """Sixteen hex digits of teacher, baseline and sharpness."""
        return digest_of(["trusted", self.teacher.digest, self.baseline.digest, repr(self.sharpness)])

    def check(self, task: Task) -> None:
        """Refuse a task that the teacher cannot teach, or whose training windows are others."""
        self._places.check(task, "a trusted teacher")
        check_teacher(self.teacher, task)

    def trust(self, batch: Batch) -> Tensor:
        """The weight of the teacher, (batch, channel), from 0 to 1; takes and raises what `forecast` does."""
        return self._trust(batch, forecast_of(self.teacher, batch).float())

    def reaches(self, batch: Batch) -> Tensor:
        """Which windows of a batch the teacher has a lesson for, (batch,) of True and False."""
        reached = reached_by(self.teacher, batch)
        return torch.ones(len(batch.index), dtype=torch.bool) if reached is None else reached

    def forecast(self, batch: Batch) -> Tensor:
        """Scaled forecasts (batch, horizon, channel) of training windows, drawn to the truth where they are worse.

        Raises:
            DataError: the windows are not the training windows of the task.
        """
        return self._drawn(batch, forecast_of(self.teacher, batch).float())

    def show(self, batch: Batch, *, attention: bool = False) -> Activations:
        """The forecast, and the teacher's own hidden states and attention."""
        inside = shown_by(self.teacher, batch, attention=attention)
        return replace(inside, forecast=self._drawn(batch, inside.forecast.float()), distribution=None, support=None)

    def _drawn(self, batch: Batch, forecast: Tensor) -> Tensor:
        return torch.lerp(batch.target, forecast, self._trust(batch, forecast)[:, None])

    def _trust(self, batch: Batch, forecast: Tensor) -> Tensor:
        self._places.require_training(batch, "Trust")
        error, baseline_error = (
            (values - batch.target).square().mean(1) for values in (forecast, forecast_of(self.baseline, batch).float())
        )
        # Where the teacher makes no error at all it has its whole weight, however good the baseline is.
        ratio = torch.where(
            error > baseline_error, baseline_error / error.clamp_min(torch.finfo(error.dtype).tiny), 1.0
        )
        return torch.where(ratio < 1, ratio**self.sharpness, 1.0)

    def __repr__(self) -> str:
        return f"<TrustedTeacher {type(self.teacher).__name__}, where it beats {type(self.baseline).__name__}>"
