"""Losses on the distribution that a teacher forecasts: its quantiles, or its shares of bins."""

from __future__ import annotations

from bisect import bisect_left
from typing import Annotated, Literal, Self

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from tsdistill.data.task import Batch
from tsdistill.errors import UnsupportedError, listed
from tsdistill.losses.base import LARGE, BoundLoss, Example, Loss
from tsdistill.models.activations import Activations
from tsdistill.models.base import Forecaster
from tsdistill.spec import Tuned

SAME_PLACE = 0.01
"""Bins stand in the same place when their centres differ by less than this share of their width."""


class QuantileLoss(Loss):
    """The student's quantiles are the teacher's, level by level.

    MSE (or MAE) between q_student(a) and q_teacher(a), a mean over windows, steps, channels and the student's levels a.
    Up to how levels are spaced this is the squared 2-Wasserstein (or the 1-Wasserstein) distance between the two.

    Use it where the student has a `QuantileHead` and the teacher forecasts its uncertainty: it teaches the spread,
    which an `OutputLoss` to the teacher's forecast does not. Add an `OutputLoss` for the truth. Do not use it with a
    teacher whose quantiles are badly calibrated (see coverage in `td.evaluate`); the student takes that over.

    The teacher may have other levels than the student: in between two of its levels its quantile is taken from the
    straight line that joins them, which for wide gaps is coarse. Levels beyond its outermost ones are refused.

    Args:
        error: "squared" or "absolute"; the second makes less of windows in which the two are far apart.
        weight: Factor in a sum of losses.

    Example:
        >>> str(QuantileLoss(weight=0.5))
        '0.5 * MSE(quantiles(student), quantiles(teacher))'

    Source: W. Dabney et al., "Distributional Reinforcement Learning with Quantile Regression", AAAI 2018, section "The
    Wasserstein Metric" (distances as integrals over quantiles). Differs from the source: both sides are quantiles of
    given levels, so that the integral is a plain mean and no regression is needed.
    """

    kind: Literal["quantile"] = "quantile"
    error: Literal["squared", "absolute"] = "squared"
    weight: Annotated[float, LARGE] = Field(default=1.0, gt=0)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Either error."""
        return (cls(), cls(error="absolute"))

    @property
    def formula(self) -> str:
        """Error of the quantiles."""
        return f"{'MSE' if self.error == 'squared' else 'MAE'}(quantiles(student), quantiles(teacher))"

    def bind(self, student: Forecaster, example: Example) -> BoundLoss:
        """Ready for a student and a teacher that both have quantiles, the student's within the teacher's."""
        student_levels, teacher_levels = example.student.levels, example.teacher.levels
        problems = [
            f"`{side}` must have quantiles for a quantile loss, got {_described(shown)}. {remedy}."
            for side, shown, remedy in (
                ("student", example.student, "Give its config head=td.QuantileHead(...)"),
                ("teacher", example.teacher, "Use a teacher with a td.QuantileHead, or td.OutputLoss()"),
            )
            if not shown.levels or shown.distribution is None
        ]
        beyond = [
            level for level in student_levels if teacher_levels and not teacher_levels[0] <= level <= teacher_levels[-1]
        ]
        if beyond and not problems:
            problems.append(
                "`levels` of the student must lie within the teacher's, "
                f"{teacher_levels[0]:g} to {teacher_levels[-1]:g}, got "
                f"{', '.join(f'{level:g}' for level in beyond)}. Leave these out of its td.QuantileHead."
            )
        if problems:
            raise UnsupportedError(listed(problems, "QuantileLoss"))
        return _QuantileError(student_levels, teacher_levels, squared=self.error == "squared")


class _QuantileError(BoundLoss):
    reads = frozenset({"distribution"})
    below: Tensor
    above: Tensor
    share: Tensor

    def __init__(self, student_levels: tuple[float, ...], teacher_levels: tuple[float, ...], *, squared: bool) -> None:
        super().__init__()
        self.squared = squared
        self.alike = student_levels == teacher_levels
        above = [bisect_left(teacher_levels, level) for level in student_levels]
        below = [
            place if teacher_levels[place] == level else place - 1
            for place, level in zip(above, student_levels, strict=True)
        ]
        share = [
            0.0 if low == high else (level - teacher_levels[low]) / (teacher_levels[high] - teacher_levels[low])
            for low, high, level in zip(below, above, student_levels, strict=True)
        ]
        # They follow from the levels: they move along to a device, and are no state of a run.
        self.register_buffer("below", torch.tensor(below), persistent=False)
        self.register_buffer("above", torch.tensor(above), persistent=False)
        self.register_buffer("share", torch.tensor(share), persistent=False)

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        assert student.distribution is not None and teacher.distribution is not None  # `bind` saw both
        student_values, teacher_values = student.distribution.float(), teacher.distribution.detach().float()
        if not self.alike:
            teacher_values = torch.lerp(
                teacher_values.index_select(-1, self.below), teacher_values.index_select(-1, self.above), self.share
            )
        return (
            functional.mse_loss(student_values, teacher_values)
            if self.squared
            else functional.l1_loss(student_values, teacher_values)
        )


class SoftLabelLoss(Loss):
    """The student shares out its bins as the teacher does, both softened by a temperature.

    T^2 * KL(softmax(teacher / T), softmax(student / T)) of the logits of all bins, a sum over bins and a mean over
    windows, steps and channels. Dividing by T shrinks gradients by T^2, which the factor undoes, so that a weight means
    about the same at every temperature.

    Use it where both sides have the same `BinnedHead`, with an `OutputLoss` for the truth: a teacher's shares say which
    other values were likely. A high temperature brings out the unlikely bins; at 1 it is the plain divergence. Do not
    use it for its forecast alone: bins are coarse, and an `OutputLoss` costs less.

    Args:
        temperature: T, above 0.
        weight: Factor in a sum of losses.

    Example:
        >>> str(SoftLabelLoss(temperature=2))
        '2^2 * KL(softmax(teacher / 2), softmax(student / 2))'

    Source: G. Hinton, O. Vinyals and J. Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2, equation
    1 (softened shares) and the remark on T^2. Differs from the source: classes are bins of values, one question per
    step and channel; and the divergence takes the place of the cross-entropy, from which it differs by the teacher's
    entropy alone, so that it is 0 where the two agree.
    """

    kind: Literal["soft-label"] = "soft-label"
    temperature: Annotated[float, Tuned(1.0, 2.0, 4.0)] = Field(default=4.0, gt=0)
    weight: Annotated[float, LARGE] = Field(default=1.0, gt=0)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Softened and plain."""
        return (cls(), cls(temperature=1.0))

    @property
    def formula(self) -> str:
        """The softened divergence."""
        temperature = f"{self.temperature:g}"
        return f"{temperature}^2 * KL(softmax(teacher / {temperature}), softmax(student / {temperature}))"

    def bind(self, student: Forecaster, example: Example) -> BoundLoss:
        """Ready for a student and a teacher that both have bins, in the same places."""
        problems = [
            f"`{side}` must have bins for a soft-label loss, got {_described(shown)}. {remedy}."
            for side, shown, remedy in (
                ("student", example.student, "Give its config head=td.models.BinnedHead(...)"),
                ("teacher", example.teacher, "Use a teacher with a td.models.BinnedHead, or td.OutputLoss()"),
            )
            if shown.support is None or shown.distribution is None
        ]
        problems += [] if problems else _misplaced(student, example)
        if problems:
            raise UnsupportedError(listed(problems, "SoftLabelLoss"))
        return _SoftDivergence(self.temperature)


class _SoftDivergence(BoundLoss):
    reads = frozenset({"distribution"})

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        assert student.distribution is not None and teacher.distribution is not None  # `bind` saw both
        student_values, teacher_values = (
            (logits.float() / self.temperature).log_softmax(-1)
            for logits in (student.distribution, teacher.distribution.detach())
        )
        divergence = functional.kl_div(student_values, teacher_values, reduction="none", log_target=True).sum(-1).mean()
        return divergence * self.temperature**2


def _described(shown: Activations) -> str:
    """What a side forecasts for each step, in words."""
    if shown.distribution is None:
        return "point forecasts"
    if shown.support is not None:
        return f"{shown.distribution.shape[-1]} bins"
    return f"quantiles of levels {', '.join(map(str, shown.levels))}" if shown.levels else "quantiles of unnamed levels"


def _misplaced(student: Forecaster, example: Example) -> list[str]:
    """Why bins of the same rank are not about the same values, if they are not."""
    student_bins, teacher_bins = example.student.support, example.teacher.support
    assert student_bins is not None and teacher_bins is not None  # the caller saw both
    remedy = "Give both the same td.models.BinnedHead."
    if student_bins.shape[-1] != teacher_bins.shape[-1]:
        numbers = f"{student_bins.shape[-1]} for the student and {teacher_bins.shape[-1]} for the teacher"
        return [f"`n_bins` must be the same on both sides, got {numbers}. {remedy}"]
    gap = (student_bins - teacher_bins).abs().amax(-1)
    apart = gap > SAME_PLACE * (student_bins[..., 1] - student_bins[..., 0])
    if bool(apart.any()):
        window, step, channel = apart.nonzero()[0].tolist()
        ends = [
            f"{shown[window, min(step, shown.shape[1] - 1), channel, end]:.3g}"
            for shown in (student_bins, teacher_bins)
            for end in (0, -1)
        ]
        return [
            f"`support` must be the same on both sides, got bins from {ends[0]} to {ends[1]} for the student and from "
            f"{ends[2]} to {ends[3]} for the teacher in one window. {remedy[:-1]} (n_bins and reach) and the same "
            "context; models that normalise a window differently cannot share bins."
        ]
    if _moves(student, example.batch):
        return [
            f"`student` must have bins that stay where they are, got a {student.config.kind!r} model, whose bins move "
            "with what it learns. Use td.OutputLoss(), or a student that centres windows by their mean."
        ]
    return []


def _moves(student: Forecaster, batch: Batch) -> bool:
    """Whether the student's weights decide where its bins are: alike at the start, they would drift apart."""
    one = (None if tensor is None else tensor[:1] for tensor in (batch.context, batch.future, batch.past))
    with torch.enable_grad():
        support = student.activations(*one).support  # type: ignore[arg-type]
    return support is not None and support.requires_grad
