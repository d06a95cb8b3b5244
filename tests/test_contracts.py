"""Every registered model and loss through every public contract check."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsdistill.losses import LOSSES, Loss, OutputLoss, TemporalLoss
from tsdistill.models import (
    CONFIGS,
    LinearConfig,
    LSTMConfig,
    MLPConfig,
    ModelConfig,
    PatchTSTConfig,
    SeasonalNaiveConfig,
)
from tsdistill.testing import check_forecaster, check_loss, check_pruning

MODELS: list[ModelConfig] = [
    PatchTSTConfig(depth=2, width=14, heads=2, head_width=5, feedforward=(13, 11), patch=7, stride=3),
    PatchTSTConfig(depth=1, width=6, heads=3, patch=7, stride=7, channel_embedding=False),
    LSTMConfig(widths=(7, 5), patch=11),
    LSTMConfig(widths=(5,), patch=5, embedding=3, shortcut=False, channel_embedding=False),
    MLPConfig(width=7, depth=2, hidden=(13, 11)),
    MLPConfig(width=5, depth=1, shortcut=False, channel_embedding=False),
    LinearConfig(),
    SeasonalNaiveConfig(period=7),
]
LOSS_EXAMPLES: list[Loss] = [OutputLoss(), OutputLoss(alpha=1.0), TemporalLoss(), TemporalLoss(order=2, weight=0.3)]
PRUNABLE = [config for config in MODELS if config.kind not in ("linear", "seasonal-naive")]


def test_no_model_and_no_loss_is_left_out() -> None:
    assert {config.kind for config in MODELS} == set(CONFIGS)
    assert {type(loss) for loss in LOSS_EXAMPLES} == set(LOSSES)


@pytest.mark.parametrize("config", MODELS, ids=lambda config: config.kind)
def test_models_keep_the_forecaster_contract(config: ModelConfig) -> None:
    check_forecaster(config)


@pytest.mark.parametrize("config", PRUNABLE, ids=lambda config: config.kind)
@given(seed=st.integers(0, 10_000))
def test_pruning_silent_units_changes_nothing(config: ModelConfig, seed: int) -> None:
    check_pruning(config, seed=seed)


@pytest.mark.parametrize("loss", LOSS_EXAMPLES, ids=str)
@pytest.mark.parametrize(
    "student", [LSTMConfig(widths=(5,), patch=11), MLPConfig(width=5, depth=1)], ids=lambda c: c.kind
)
def test_losses_keep_their_contract(loss: Loss, student: ModelConfig) -> None:
    check_loss(loss, student, PatchTSTConfig(depth=1, width=6, heads=2, patch=7))
