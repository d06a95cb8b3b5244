"""Every contract check of losses fails on a loss that breaks exactly its rule."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import pytest
from torch import Tensor, nn
from torch.nn import functional

from tsdistill.data.task import Batch
from tsdistill.losses import BoundLoss, BoundSum, Example, Loss, OutputLoss
from tsdistill.models import (
    Activations,
    Forecaster,
    MLPConfig,
    PatchTSTConfig,
)
from tsdistill.testing import (
    ContractError,
    check_loss,
    check_losses,
    toy_task,
)

TST_CONFIG = PatchTSTConfig(depth=1, width=6, heads=2, patch=7)
MLP_CONFIG = MLPConfig(width=5, depth=1)


class BrokenLoss(Loss):
    kind: Literal["broken"] = "broken"
    faults: ClassVar[dict[str, type[BoundLoss]]] = {}
    fault: str

    @property
    def formula(self) -> str:
        return "broken"

    def bind(self, student: Forecaster, example: Example) -> BoundLoss:
        return self.faults[self.fault]()


class Leaks(BoundLoss):
    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        return functional.mse_loss(student.forecast, teacher.forecast)


class Sums(BoundLoss):
    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        return functional.mse_loss(student.forecast, teacher.forecast.detach(), reduction="sum")


class Silent(BoundLoss):
    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        return 0.0 * student.forecast.mean()


class NeverZero(BoundLoss):
    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        return functional.mse_loss(student.forecast, teacher.forecast.detach()) + 1


class IdleProjector(BoundLoss):
    def __init__(self) -> None:
        super().__init__()
        self.projector = nn.Linear(2, 2)

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        return functional.mse_loss(student.forecast, teacher.forecast.detach())


class Constant(BoundLoss):
    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        return functional.mse_loss(batch.target, teacher.forecast.detach())


class Detached(BoundLoss):
    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        return functional.mse_loss(student.forecast.detach(), teacher.forecast.detach())


class NotANumber(BoundLoss):
    """The logarithm of a negative forecast."""

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        return (student.forecast.log() - teacher.forecast.detach()).square().mean()


class SteepAtNothing(BoundLoss):
    """Finite itself, but not its gradient: the root of a square that is zero."""

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        return (student.forecast - student.forecast.detach()).square().mean().sqrt() + student.forecast.mean()


class Projected(BoundLoss):
    """The forecast through a trained map; subclasses do not keep it where it is found."""

    def keep(self, projector: nn.Linear) -> None:
        self.projector: Any = projector

    def kept(self) -> nn.Linear:
        return self.projector

    def __init__(self) -> None:
        super().__init__()
        self.keep(nn.Linear(3, 3))

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        return functional.mse_loss(self.kept()(student.forecast), teacher.forecast.detach())


class InAList(Projected):
    def keep(self, projector: nn.Linear) -> None:
        self.projector = [projector]

    def kept(self) -> nn.Linear:
        return self.projector[0]


class MadeOnTheFly(Projected):
    def kept(self) -> nn.Linear:
        return nn.Linear(3, 3)


class Unsaved(Projected):
    def keep(self, projector: nn.Linear) -> None:
        super().keep(projector)
        projector._save_to_state_dict = lambda *arguments: None  # type: ignore[method-assign]


class ReadsInSecret(BoundLoss):
    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        gap = functional.mse_loss(student.forecast, teacher.forecast.detach())
        return gap * (1 + teacher.hidden[0].detach().square().mean())


class ReadsWhatMayBeMissing(BoundLoss):
    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        gap = functional.mse_loss(student.forecast, teacher.forecast.detach())
        return gap * (1 + len(teacher.hidden))


class ReadsWhatIsNotThere(BoundLoss):
    reads = frozenset({"distribution"})

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        return functional.mse_loss(student.forecast, teacher.forecast.detach())


LOSSES = [
    (Leaks, "sends a gradient to the teacher"),
    (Sums, "changes with the batch size"),
    (Silent, "gives the student no gradient"),
    (NeverZero, "not zero when"),
    (IdleProjector, "gets no gradient"),
    (ReadsInSecret, "does not name"),
    (ReadsWhatMayBeMissing, "is left of the teacher"),
    (ReadsWhatIsNotThere, "which the teacher does not show"),
]


TERMS = [
    (Constant, "does not change the student's gradient"),
    (Detached, "does not change the student's gradient"),
    (Silent, "does not change the student's gradient"),
    (NotANumber, "is not a finite number"),
    (SteepAtNothing, "a gradient that is not finite"),
    (Leaks, "sends a gradient to the teacher, through forecast"),
    (IdleProjector, "projector.weight of broken gets no gradient"),
    (InAList, r"of shape \(3,.*\), that no parameter group of the optimizer holds"),
    (MadeOnTheFly, "that no parameter group of the optimizer holds"),
    (Unsaved, r"of shape \(3,.*\), that a checkpoint does not store"),
    (ReadsInSecret, "cannot be computed from what it says it reads"),
]


BrokenLoss.faults.update({bound.__name__: bound for bound, _ in [*LOSSES, *TERMS]})


@pytest.mark.parametrize(("bound", "words"), LOSSES)
def test_a_broken_loss_is_found(bound: type[BoundLoss], words: str) -> None:
    loss = BrokenLoss(fault=bound.__name__)
    with pytest.raises(ContractError, match=words):
        check_loss(loss, MLPConfig(width=5, depth=1), TST_CONFIG)


@pytest.mark.parametrize(("bound", "words"), TERMS)
def test_a_broken_term_of_a_distillation_is_found_among_whole_ones(bound: type[BoundLoss], words: str) -> None:
    task = toy_task()
    teacher, losses = TST_CONFIG.build(task.signature, seed=2), [OutputLoss(), BrokenLoss(fault=bound.__name__)]
    with pytest.raises(ContractError, match=words):
        check_losses(losses, teacher, MLP_CONFIG, task)


def test_a_sum_that_forgets_a_term_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: BoundSum, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        return self.bound[0](student, teacher, batch)

    task = toy_task()
    losses = [OutputLoss(), OutputLoss(error="absolute", weight=0.1)]
    monkeypatch.setattr(BoundSum, "forward", forward)
    with pytest.raises(ContractError, match=r"0\.1 .* does not change"):
        check_losses(losses, TST_CONFIG.build(task.signature, seed=2), MLP_CONFIG, task)
