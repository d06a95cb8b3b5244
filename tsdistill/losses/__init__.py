"""What a student should imitate: losses are data, add up, and print as their formula."""

from __future__ import annotations

from tsdistill.losses.attention import AttentionLoss
from tsdistill.losses.base import (
    LOSSES,
    AnyLoss,
    BoundLoss,
    BoundSum,
    Example,
    Loss,
    LossSum,
    WeightSchedule,
    check_losses_type,
)
from tsdistill.losses.distribution import QuantileLoss, SoftLabelLoss
from tsdistill.losses.feature import FeatureLoss
from tsdistill.losses.output import OutputLoss
from tsdistill.losses.spectral import MultiScaleLoss, SpectralLoss
from tsdistill.losses.temporal import DecompositionLoss, SmoothnessLoss, TemporalLoss

LOSSES.include(
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

register = LOSSES.register
"""Make a loss of your own one that recipes can name: `td.losses.register(MyLoss)`, or as a decorator. See `Family`."""

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
    "check_losses_type",
    "register",
]
