"""What a student should imitate: losses are data, add up, and print as their formula."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tsdistill.losses.attention import AttentionLoss
from tsdistill.losses.base import BoundLoss, BoundSum, Example, Loss, LossSum, WeightSchedule
from tsdistill.losses.distribution import QuantileLoss, SoftLabelLoss
from tsdistill.losses.feature import FeatureLoss
from tsdistill.losses.output import OutputLoss
from tsdistill.losses.spectral import MultiScaleLoss, SpectralLoss
from tsdistill.losses.temporal import DecompositionLoss, SmoothnessLoss, TemporalLoss

AnyLoss = Annotated[
    OutputLoss
    | MultiScaleLoss
    | SpectralLoss
    | QuantileLoss
    | SoftLabelLoss
    | FeatureLoss
    | AttentionLoss
    | TemporalLoss
    | SmoothnessLoss
    | DecompositionLoss,
    Field(discriminator="kind"),
]
"""The type of a field that holds any loss; `kind` says which."""

LOSSES: tuple[type[Loss], ...] = (
    OutputLoss,
    MultiScaleLoss,
    SpectralLoss,
    QuantileLoss,
    SoftLabelLoss,
    FeatureLoss,
    AttentionLoss,
    TemporalLoss,
    SmoothnessLoss,
    DecompositionLoss,
)
"""Every loss there is."""

__all__ = [
    "LOSSES",
    "AnyLoss",
    "AttentionLoss",
    "BoundLoss",
    "BoundSum",
    "DecompositionLoss",
    "Example",
    "FeatureLoss",
    "Loss",
    "LossSum",
    "MultiScaleLoss",
    "OutputLoss",
    "QuantileLoss",
    "SmoothnessLoss",
    "SoftLabelLoss",
    "SpectralLoss",
    "TemporalLoss",
    "WeightSchedule",
]
