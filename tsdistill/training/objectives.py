"""What the one training loop minimises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from tsdistill.data.task import Batch, Windows
from tsdistill.errors import UnsupportedError
from tsdistill.losses import Loss, LossSum
from tsdistill.models.base import Activations, Forecaster
from tsdistill.spec import digest_of


class Objective(nn.Module):
    """A scalar to minimise for a batch; its parameters are trained and saved along with the model.

    `digest` names it in checkpoints; `formula` is what a log shows; `bind` is called once, before the first step.
    """

    digest: str = ""
    formula: str = ""

    def bind(self, model: Forecaster, train: Windows) -> None:
        """Get ready for a model and its training windows."""

    def target(self, batch: Batch) -> Tensor:
        """The target whose plain MSE has the same optimum, for models that are solved in closed form."""
        raise UnsupportedError(f"{self.formula} has no closed-form optimum. Use it with a model trained by steps.")

    def forward(self, model: Forecaster, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its parts by name."""
        raise NotImplementedError


class TruthObjective(Objective):
    """The head's own error: MSE(forecast, truth) for a point head, pinball for quantiles, cross-entropy for bins.

    What a teacher is trained with, and a student without a teacher.
    """

    digest = "truth"
    formula = "MSE(model, truth)"

    def bind(self, model: Forecaster, train: Windows) -> None:
        """Name the error after the model's head."""
        self.formula = f"{model.head.measure}(model, truth)"

    def target(self, batch: Batch) -> Tensor:
        """The truth."""
        return batch.target

    def forward(self, model: Forecaster, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean error over windows, steps and channels."""
        loss = model.head.error(model.activations(batch.context, batch.future, batch.past), batch.target)
        return loss, {"truth": loss.detach()}


class Lessons(Protocol):
    """What a teacher says of all windows, computed once; `tsdistill.teachers.CachedTeacher` is one."""

    @property
    def digest(self) -> str:
        """Names the teacher's exact weights."""

    def forecasts(self, windows: Windows) -> Tensor:
        """Forecasts of every window, (window, horizon, channel)."""


class TeacherObjective(Objective):
    """A sum of losses against a teacher whose forecasts were computed once for all training windows.

    Args:
        losses: The terms.
        lessons: What the teacher says.
    """

    def __init__(self, losses: Sequence[Loss], lessons: Lessons) -> None:
        super().__init__()
        self.losses, self.lessons = LossSum(losses), lessons
        inside = [str(term) for term in self.losses.terms if term.reads_insides]
        if inside:
            raise UnsupportedError(f"{', '.join(inside)} needs the teacher's hidden states, which are not cached yet.")
        self.formula = str(self.losses)
        self.digest = digest_of([[term.digest for term in self.losses.terms], lessons.digest])

    def bind(self, model: Forecaster, train: Windows) -> None:
        """Bind the losses to the student and look up what the teacher says of every window."""
        self.sum = self.losses.bind(model)
        self._said = self.lessons.forecasts(train)

    def target(self, batch: Batch) -> Tensor:
        """The blend of teacher and truth, if that is all the losses ask for."""
        blends = [term.target(batch.target, self._said[batch.index]) for term in self.losses.terms]
        if len(blends) != 1 or blends[0] is None:
            raise UnsupportedError(
                f"{self.formula} has no closed-form optimum: only a single td.OutputLoss has. Leave the other losses "
                "out, or distil into a model that is trained by steps."
            )
        return blends[0]

    def forward(self, model: Forecaster, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of all terms."""
        said = self._said[batch.index].to(batch.target.device, torch.float32)
        student = model.activations(batch.context, batch.future, batch.past)
        loss = self.sum(student, Activations(forecast=said), batch)
        return loss, self.sum.breakdown()
