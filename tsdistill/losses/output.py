"""The loss on the forecast itself: teacher and truth, blended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn
from torch.nn import functional

from tsdistill.data.task import Batch
from tsdistill.errors import UnsupportedError, must
from tsdistill.losses.base import BoundLoss, Example, Loss
from tsdistill.models.activations import Activations
from tsdistill.models.base import Forecaster
from tsdistill.spec import Range, Tuned

DELTA = 1.0
"""Where Huber's error turns straight by default, in standard deviations of a channel."""

ALPHAS = tuple(step / 10 for step in range(11))
"""Shares of the teacher that validation chooses from."""


class OutputLoss(Loss):
    """The student's forecast follows the teacher's and the truth, blended.

    alpha * E(student, teacher) + (1 - alpha) * E(student, truth), E the mean error over windows, steps and channels.
    The squared error is computed as MSE(student, alpha * teacher + (1 - alpha) * truth): the two differ by alpha *
    (1 - alpha) * MSE(teacher, truth), which no student can change. With `last_step_weight` the error of step t of H
    counts w(t) times, w on a straight line from the first step to the last one, its mean 1.

    Use it in every distillation. Lower `alpha` where the teacher is not clearly better than the student; at 0 there is
    no teacher left in it. A linear student, which is solved, has the best share at no further cost: "validation" tries
    0, 0.1, ... 1 with every penalty, and the lineage records the error of each. Absolute and Huber errors suit data
    with outliers; do not use them where MSE is what counts, since they aim at the median. Lower the weight of late
    steps where they are guesswork, raise it where they decide. Only squared errors whose steps weigh alike are solved
    in closed form: a ridge penalty is shared by all steps, so weights would change each step's optimum.

    Args:
        alpha: Share of the teacher, from 0 to 1; or "validation", for students that are solved in closed form: the
            share with which they forecast the validation windows best.
        error: "squared", "absolute" or "huber", of the forecast whatever the head. None is the error of the student's
            head, squared for a point head; with quantiles or bins the teacher's forecast counts as a second truth.
        delta: Size from which on Huber's error grows straight, in standard deviations of a channel; None is 1.
        last_step_weight: What the last step counts where the first one counts 1; None counts all alike.
        weight: Factor in a sum of losses.

    Example:
        >>> str(OutputLoss(alpha=0.7))
        'MSE(student, 0.7 * teacher + 0.3 * truth)'
        >>> str(OutputLoss(alpha=0.7, error="absolute", weight=2))
        '2 * (0.7 * MAE(student, teacher) + 0.3 * MAE(student, truth))'

    Source: G. Hinton, O. Vinyals and J. Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2 (the
    blend of soft and hard targets); P. Huber, "Robust Estimation of a Location Parameter", Annals of Mathematical
    Statistics 35(1), 1964, section 1 (his error; k is `delta`). Differs from the source: errors of forecasts take the
    place of cross-entropies of classes, so that squared ones can be blended once, before the loss.
    """

    kind: Literal["output"] = "output"
    alpha: Annotated[float | Literal["validation"], Tuned(Range(0.0, 1.0))] = 0.5
    error: Literal["squared", "absolute", "huber"] | None = None
    delta: float | None = Field(default=None, gt=0)
    last_step_weight: float | None = Field(default=None, gt=0)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Every error, with steps that weigh alike and that do not."""
        return (
            cls(),
            cls(alpha=1.0),
            cls(last_step_weight=0.2),
            cls(error="absolute", alpha=0.3),
            cls(error="huber", delta=0.4, last_step_weight=3.0),
        )

    @field_validator("alpha", mode="plain")
    @classmethod
    def _is_share(cls, value: object) -> float | str:
        if value == "validation":
            return "validation"
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise ValueError(must("alpha", 'lie between 0 and 1 or be "validation"', value, "0.5 is the default"))
        return float(value)

    @model_validator(mode="after")
    def _check(self) -> OutputLoss:
        if self.alpha == "validation" and not self._plain:
            remedy = "Give a number, or leave out `error` and `last_step_weight`"
            raise ValueError(must("alpha", "be a number for errors that have no closed form", self.alpha, remedy))
        if self.delta is not None and self.error != "huber":
            remedy = 'Set error="huber", or leave it out'
            raise ValueError(must("delta", f"be left out with error={self.error!r}", self.delta, remedy))
        return self

    @property
    def formula(self) -> str:
        """The blended error."""
        notes = [f"delta {self.delta or DELTA:g}"] if self.error == "huber" else []
        notes += [] if self.last_step_weight is None else [f"last step * {self.last_step_weight:g}"]
        note = "".join(f"; {entry}" for entry in notes)
        if self.alpha == "validation":
            return "MSE(student, alpha * teacher + (1 - alpha) * truth; alpha by validation)"
        shares = {"teacher": self.share, "truth": 1 - self.share}
        if self.error in (None, "squared"):
            return f"MSE(student, {' + '.join(f'{share:g} * {name}' for name, share in shares.items())}{note})"
        name = "MAE" if self.error == "absolute" else "Huber"
        return f"({' + '.join(f'{share:g} * {name}(student, {side}{note})' for side, share in shares.items())})"

    @property
    def share(self) -> float:
        """The teacher's share where it is known beforehand."""
        if self.alpha == "validation":
            raise UnsupportedError(
                must("alpha", "be a number for a model trained by steps", self.alpha, "Give one, or search for one")
            )
        return self.alpha

    @property
    def needs_teacher(self) -> bool:
        """Unless the truth is all there is to learn from."""
        return self.alpha != 0

    @property
    def _plain(self) -> bool:
        """Whether a plain MSE to the blend of teacher and truth is all there is."""
        return self.error in (None, "squared") and self.last_step_weight is None

    @property
    def alphas(self) -> tuple[float, ...] | None:
        """The share, or those to choose from, where a plain MSE is all there is."""
        if not self._plain:
            return None
        return ALPHAS if self.alpha == "validation" else (self.alpha,)

    def blend(self, truth: Tensor, teacher: Tensor) -> Tensor:
        """The blend of teacher and truth."""
        return torch.lerp(truth, teacher.detach().to(truth.dtype), self.share)

    def bind(self, student: Forecaster, example: Example) -> BoundLoss:
        """Ready for any student: only forecasts are compared."""
        if self.error is None and student.head.probabilistic:
            if self.last_step_weight is not None:
                rule = f"be left out for the error of a {student.head.kind} head, which has no steps to weigh"
                remedy = 'Set error="squared", "absolute" or "huber", or leave it out'
                raise UnsupportedError(must("last_step_weight", rule, self.last_step_weight, remedy))
            return _BlendedError(self, student.head.error)
        error = _ForecastError(self, student.horizon)
        return _BlendedTarget(self, error) if self.error in (None, "squared") else _BlendedError(self, error)


class _ForecastError(nn.Module):
    """Mean error of a forecast, its steps weighed."""

    weights: Tensor | None

    def __init__(self, loss: OutputLoss, horizon: int) -> None:
        super().__init__()
        self.kind = loss.error or "squared"
        self.delta = loss.delta or DELTA
        weights = None
        if loss.last_step_weight is not None:
            line = torch.linspace(1.0, loss.last_step_weight, horizon)
            weights = (line / line.mean())[:, None]
        # Follows from the spec: it moves along to a device, and is no state of a run.
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, activations: Activations, target: Tensor) -> Tensor:
        forecast = activations.forecast.float()
        reduction = "mean" if self.weights is None else "none"
        if self.kind == "squared":
            errors = functional.mse_loss(forecast, target, reduction=reduction)
        elif self.kind == "absolute":
            errors = functional.l1_loss(forecast, target, reduction=reduction)
        else:
            errors = functional.huber_loss(forecast, target, reduction=reduction, delta=self.delta)
        return errors if self.weights is None else (errors * self.weights).mean()


class _BlendedTarget(BoundLoss):
    """Squared error: blending the targets is blending the errors."""

    def __init__(self, loss: OutputLoss, error: _ForecastError) -> None:
        super().__init__()
        self.loss = loss
        self.error = error

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        value: Tensor = self.error(student, self.loss.blend(batch.target, teacher.forecast))
        return value


class _BlendedError(BoundLoss):
    """Any other error is taken to each target by itself."""

    def __init__(self, loss: OutputLoss, error: Callable[[Activations, Tensor], Tensor]) -> None:
        super().__init__()
        self.loss = loss
        self.error = error

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        imitated = teacher.forecast.detach().to(batch.target.dtype)
        return torch.lerp(self.error(student, batch.target), self.error(student, imitated), self.loss.share)
