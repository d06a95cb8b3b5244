"""Losses on the forecast itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from tsdistill.data.task import Batch
from tsdistill.losses.base import BoundLoss, Example, Loss
from tsdistill.models.activations import Activations
from tsdistill.models.base import Forecaster


class OutputLoss(Loss):
    """The student's forecast follows the teacher's and the truth, blended.

    alpha * MSE(student, teacher) + (1 - alpha) * MSE(student, truth), computed as MSE(student, alpha * teacher +
    (1 - alpha) * truth): the two differ by alpha * (1 - alpha) * MSE(teacher, truth), which no student can change. A
    student with a quantile or binned head is blended likewise, by its head's error: the teacher's forecast counts as a
    second truth.

    Use it in every distillation. Lower `alpha` where the teacher is not clearly better than the student; at 0 there is
    no teacher left in it.

    Args:
        alpha: Share of the teacher, from 0 to 1.
        weight: Factor in a sum of losses.

    Example:
        >>> str(OutputLoss(alpha=0.7))
        'MSE(student, 0.7 * teacher + 0.3 * truth)'

    Source: G. Hinton, O. Vinyals and J. Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2 (the
    blend of soft and hard targets). Differs from the source: squared errors of forecasts take the place of
    cross-entropies of classes, so that the blend can be formed once, before the loss.
    """

    kind: Literal["output"] = "output"
    alpha: float = Field(default=0.5, ge=0, le=1)

    @property
    def formula(self) -> str:
        """MSE to the blended target."""
        return f"MSE(student, {self.alpha:g} * teacher + {1 - self.alpha:g} * truth)"

    def target(self, truth: Tensor, teacher: Tensor) -> Tensor:
        """The blend of teacher and truth."""
        return torch.lerp(truth, teacher.detach().to(truth.dtype), self.alpha)

    def bind(self, student: Forecaster, example: Example) -> BoundLoss:
        """Ready for any student: only forecasts are compared."""
        return _BlendedTarget(self) if student.head.kind == "point" else _BlendedError(self, student.head.error)


class _BlendedTarget(BoundLoss):
    """Squared error: blending the targets is blending the errors."""

    def __init__(self, loss: OutputLoss) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        return functional.mse_loss(student.forecast.float(), self.loss.target(batch.target, teacher.forecast))


class _BlendedError(BoundLoss):
    """Any other error is taken to each target by itself."""

    def __init__(self, loss: OutputLoss, error: Callable[[Activations, Tensor], Tensor]) -> None:
        super().__init__()
        self.loss, self.error = loss, error

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        said = teacher.forecast.detach().to(batch.target.dtype)
        return torch.lerp(self.error(student, batch.target), self.error(student, said), self.loss.alpha)
