"""What a student should imitate: losses are data, add up, and print as their formula."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tsdistill.losses.attention import AttentionLoss
from tsdistill.losses.base import BoundLoss, BoundSum, Example, Loss, LossSum, WeightSchedule
from tsdistill.losses.feature import FeatureLoss
from tsdistill.losses.output import OutputLoss
from tsdistill.losses.temporal import TemporalLoss

AnyLoss = Annotated[OutputLoss | FeatureLoss | AttentionLoss | TemporalLoss, Field(discriminator="kind")]
"""The type of a field that holds any loss; `kind` says which."""

LOSSES: tuple[type[Loss], ...] = (OutputLoss, FeatureLoss, AttentionLoss, TemporalLoss)
"""Every loss there is."""

__all__ = [
    "LOSSES",
    "AnyLoss",
    "AttentionLoss",
    "BoundLoss",
    "BoundSum",
    "Example",
    "FeatureLoss",
    "Loss",
    "LossSum",
    "OutputLoss",
    "TemporalLoss",
    "WeightSchedule",
]
