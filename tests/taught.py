"""What the tests of losses share: two sides of a loss made by hand, and a student that learns by one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from tsdistill.data import Task
from tsdistill.distillation import distill
from tsdistill.losses import Example, Loss, OutputLoss
from tsdistill.models import Activations, MLPConfig
from tsdistill.models.heads import AnyHead, PointHead
from tsdistill.testing import BATCH, CHANNELS, HORIZON, toy_batch, toy_signature
from tsdistill.training import Training, train

STUDENT = MLPConfig(width=5, depth=1)
TEACHER = MLPConfig(width=7, depth=1)
TWO_STEPS = Training(max_steps=2, batch_size=37, precision="float32")


def noise(seed: int, **parts: Any) -> Activations:
    """Noise in the place of a forecast, and other parts as given."""
    generator = torch.Generator().manual_seed(seed)
    return Activations(torch.randn(BATCH, HORIZON, CHANNELS, generator=generator), **parts)


def value_of(loss: Loss, student: Activations, teacher: Activations) -> torch.Tensor:
    """The unweighted term of two sides made by hand."""
    batch = toy_batch()
    bound = loss.bind(STUDENT.build(toy_signature()), Example(student, teacher, batch))
    value: torch.Tensor = bound(student, teacher, batch)
    return value


def under_autocast(loss: Loss, student: Activations, teacher: Activations) -> tuple[torch.Tensor, torch.Tensor]:
    """The term of a student in bfloat16 under autocast, and that of the same numbers in float32."""
    rounded: dict[str, Any] = {name: part.bfloat16() for name, part in student.parts().items()}
    half = replace(student, **rounded)
    whole = replace(student, **{name: part.float() for name, part in rounded.items()})
    with torch.autocast("cpu", torch.bfloat16):
        term = value_of(loss, half, teacher)
    return term, value_of(loss, whole, teacher)


def distilled_history(
    loss: Loss, task: Task, head: AnyHead | None = None, *, taught_by: AnyHead | None = None
) -> list[dict[str, Any]]:
    """What a few steps with an output loss and this one have logged."""
    head = head or PointHead()
    teacher = train(TEACHER.replace(head=taught_by or head), task, TWO_STEPS)
    losses = [loss] if isinstance(loss, OutputLoss) else [OutputLoss(), loss]
    student = distill(teacher, STUDENT.replace(head=head), task, losses=losses, training=TWO_STEPS, control=False)
    assert student.lineage[-1].spec["losses"] == " + ".join(map(str, losses))
    history: list[dict[str, Any]] = student.lineage[-1].metrics["history"]
    return history
