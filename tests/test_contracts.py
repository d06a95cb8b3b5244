"""Every registered model and loss through every public contract check."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsdistill.losses import (
    LOSSES,
    AttentionLoss,
    DecompositionLoss,
    FeatureLoss,
    Loss,
    MultiScaleLoss,
    OutputLoss,
    QuantileLoss,
    SmoothnessLoss,
    SoftLabelLoss,
    SpectralLoss,
    TemporalLoss,
)
from tsdistill.models import (
    CONFIGS,
    BinnedHead,
    CycleNetConfig,
    DLinearConfig,
    InvertedTransformerConfig,
    LinearConfig,
    LSTMConfig,
    MLPConfig,
    ModelConfig,
    PatchTSTConfig,
    PointHead,
    QuantileHead,
    SeasonalNaiveConfig,
    SparseTSFConfig,
    TCNConfig,
    TSMixerConfig,
)
from tsdistill.models.heads import AnyHead
from tsdistill.testing import check_forecaster, check_loss, check_pruning

MODELS: list[ModelConfig] = [
    PatchTSTConfig(depth=2, width=14, heads=2, head_width=5, feedforward=(13, 11), patch=7, stride=3),
    PatchTSTConfig(depth=1, width=6, heads=3, patch=7, stride=7, channel_embedding=False, shortcut=True),
    LSTMConfig(widths=(7, 5), patch=11),
    LSTMConfig(widths=(5,), patch=5, embedding=3, shortcut=False, channel_embedding=False),
    LSTMConfig(widths=(5, 3), patch=11, bidirectional=True),
    LSTMConfig(widths=(5, 7), patch=7, mixing=True, shortcut=False),
    LSTMConfig(widths=(3, 7, 5), patch=7, bidirectional=True, mixing=True),
    MLPConfig(width=7, depth=2, hidden=(13, 11)),
    MLPConfig(width=5, depth=1, shortcut=False, channel_embedding=False),
    DLinearConfig(kernel=13),
    DLinearConfig(kernel=7, individual=True),
    DLinearConfig(kernel=1, channel_bias=True),
    SparseTSFConfig(period=5),
    SparseTSFConfig(period=7, hidden=11, channel_bias=True),
    InvertedTransformerConfig(depth=2, width=14, heads=(2, 3), head_width=5, feedforward=(13, 11)),
    InvertedTransformerConfig(depth=1, width=6, heads=3, channel_embedding=False, shortcut=False),
    TSMixerConfig(depth=2, time_hidden=(13, 7), channel_hidden=(5, 11)),
    TSMixerConfig(depth=1, time_hidden=2, channel_hidden=1),
    TCNConfig(width=7, depth=2, hidden=(13, 11), kernel=3, patch=5),
    TCNConfig(width=5, depth=1, kernel=2, patch=1, shortcut=False, channel_embedding=False),
    CycleNetConfig(),
    CycleNetConfig(clock="time-of-week", hidden=7),
    LinearConfig(),
    LinearConfig(individual=True),
    SeasonalNaiveConfig(period=7),
]
HEADED = [config for config in MODELS if "head" in type(config).model_fields]
MODELS += [config.replace(head=QuantileHead(levels=(0.05, 0.3, 0.5, 0.9))) for config in HEADED]
MODELS += [config.replace(head=BinnedHead(n_bins=13)) for config in HEADED]
LOSS_EXAMPLES: list[Loss] = [
    OutputLoss(),
    OutputLoss(alpha=1.0),
    OutputLoss(last_step_weight=0.2),
    OutputLoss(error="absolute", alpha=0.3),
    OutputLoss(error="huber", delta=0.4, last_step_weight=3.0),
    MultiScaleLoss(),
    MultiScaleLoss(scales=(3, 11)),
    SpectralLoss(),
    SpectralLoss(measure="log"),
    QuantileLoss(),
    QuantileLoss(error="absolute"),
    SoftLabelLoss(),
    SoftLabelLoss(temperature=1.0),
    TemporalLoss(),
    TemporalLoss(order=2, weight=0.3),
    SmoothnessLoss(),
    SmoothnessLoss(measure="total-variation", side="both"),
    DecompositionLoss(trend=5),
    DecompositionLoss(trend=11, share=1.0),
    FeatureLoss(),
    FeatureLoss(layers=((0, 1),), weight=0.3),
    FeatureLoss(method="cka", layers="uniform"),
    FeatureLoss(method="relational"),
    AttentionLoss(source="self-similarity"),
    AttentionLoss(layers="uniform"),
    AttentionLoss(source="value-relation", layers=((0, 0),)),
]
TOKENS = [PatchTSTConfig(depth=1, width=10, heads=5, patch=11, stride=11), LSTMConfig(widths=(5,), patch=11)]
"""Students of attention losses; those that need attention are for the first one."""
HEADS: dict[str, AnyHead] = {
    "quantile": QuantileHead(levels=(0.05, 0.3, 0.5, 0.9)),
    "soft-label": BinnedHead(n_bins=13),
}
"""What both sides of some losses have to say."""


def name(config: ModelConfig) -> str:
    head = getattr(config, "head", None)
    return config.kind if head is None or head.kind == "point" else f"{config.kind}-{head.kind}"


def test_no_model_and_no_loss_is_left_out() -> None:
    assert {config.kind for config in MODELS} == set(CONFIGS)
    assert {type(loss) for loss in LOSS_EXAMPLES} == set(LOSSES)


@pytest.mark.parametrize("config", MODELS, ids=name)
def test_models_keep_the_forecaster_contract(config: ModelConfig) -> None:
    check_forecaster(config)


@pytest.mark.parametrize("config", HEADED, ids=name)
@settings(max_examples=25)
@given(seed=st.integers(0, 10_000))
def test_pruning_silent_units_changes_nothing(config: ModelConfig, seed: int) -> None:
    check_pruning(config, seed=seed)


@pytest.mark.parametrize("loss", LOSS_EXAMPLES, ids=str)
@pytest.mark.parametrize(
    "student", [LSTMConfig(widths=(5,), patch=11), MLPConfig(width=5, depth=1)], ids=lambda c: c.kind
)
def test_losses_keep_their_contract(loss: Loss, student: ModelConfig) -> None:
    head = HEADS.get(loss.kind, PointHead())
    if isinstance(loss, AttentionLoss):
        student = TOKENS[0 if loss.sees_attention or student.kind == "mlp" else 1]
    check_loss(loss, student.replace(head=head), PatchTSTConfig(depth=2, width=6, heads=2, patch=7, head=head))
