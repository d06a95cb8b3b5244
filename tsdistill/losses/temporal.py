"""Losses on how a forecast moves along time."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from tsdistill.data.task import Batch
from tsdistill.errors import ConfigError, must
from tsdistill.losses.base import BoundLoss, Example, Loss
from tsdistill.models.activations import Activations
from tsdistill.models.base import Forecaster


class TemporalLoss(Loss):
    """The student's forecast moves from step to step as the teacher's does.

    MSE(D^order student, D^order teacher), D the difference between neighbouring steps of the horizon: order 1 keeps
    slopes, order 2 keeps smoothness.

    Use it beside an `OutputLoss` when the shape of a forecast matters, or when truth is noisy and the teacher is
    smooth. On its own it leaves the level free. Needs a horizon longer than `order`.

    Args:
        order: How many times to take differences, 1 or 2.
        weight: Factor in a sum of losses.

    Example:
        >>> str(TemporalLoss(weight=0.05, order=2))
        '0.05 * MSE(diff2(student), diff2(teacher))'

    Source: V. Le Guen and N. Thome, "Shape and Time Distortion Loss for Training Deep Time Series Forecasting Models",
    NeurIPS 2019, for the aim (shape beside error). Differs from the source: plain differences against a teacher
    instead of a soft alignment with the truth.
    """

    kind: Literal["temporal"] = "temporal"
    order: Literal[1, 2] = 1
    weight: float = Field(default=0.1, gt=0)

    @property
    def formula(self) -> str:
        """MSE of the differences."""
        diff = "diff" if self.order == 1 else f"diff{self.order}"
        return f"MSE({diff}(student), {diff}(teacher))"

    def bind(self, student: Forecaster, example: Example) -> BoundLoss:
        """Ready for a student whose horizon is long enough to have differences."""
        if student.horizon <= self.order:
            raise ConfigError(must("order", f"be below the horizon ({student.horizon})", self.order, "Lower it"))
        return _DifferenceError(self.order)


class _DifferenceError(BoundLoss):
    def __init__(self, order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        moves = student.forecast.float().diff(n=self.order, dim=1)
        return functional.mse_loss(moves, teacher.forecast.detach().to(moves.dtype).diff(n=self.order, dim=1))
