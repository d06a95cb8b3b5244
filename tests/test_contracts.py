"""Every registered model and loss through every public contract check."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsdistill.losses import LOSSES, AttentionLoss, Loss
from tsdistill.models import (
    HEADS,
    MODELS,
    BinnedHead,
    Head,
    LSTMConfig,
    MLPConfig,
    ModelConfig,
    PatchTSTConfig,
    PointHead,
    QuantileHead,
)
from tsdistill.testing import check_forecaster, check_loss, check_pruning

EXAMPLES = MODELS.examples()
HEADED = [config for config in EXAMPLES if "head" in type(config).model_fields]
CONFIGS = EXAMPLES + [config.replace(head=head) for head in HEADS.examples() if head.probabilistic for config in HEADED]
TOKENS = [PatchTSTConfig(depth=1, width=10, heads=5, patch=11, stride=11), LSTMConfig(widths=(5,), patch=11)]
"""Students of attention losses; those that need attention are for the first one."""
HEAD_OF: dict[str, Head] = {
    "quantile": QuantileHead(levels=(0.05, 0.3, 0.5, 0.9)),
    "soft-label": BinnedHead(n_bins=13),
}
"""What both sides of some losses have to say."""


def name(config: ModelConfig) -> str:
    head = getattr(config, "head", None)
    return config.kind if head is None or not head.probabilistic else f"{config.kind}-{head.kind}"


@pytest.mark.parametrize("config", CONFIGS, ids=name)
def test_models_keep_the_forecaster_contract(config: ModelConfig) -> None:
    check_forecaster(config)


@pytest.mark.parametrize("config", HEADED, ids=name)
@settings(max_examples=25)
@given(seed=st.integers(0, 10_000))
def test_pruning_silent_units_changes_nothing(config: ModelConfig, seed: int) -> None:
    check_pruning(config, seed=seed)


@pytest.mark.parametrize("loss", LOSSES.examples(), ids=str)
@pytest.mark.parametrize(
    "student", [LSTMConfig(widths=(5,), patch=11), MLPConfig(width=5, depth=1)], ids=lambda c: c.kind
)
def test_losses_keep_their_contract(loss: Loss, student: ModelConfig) -> None:
    head = HEAD_OF.get(loss.kind, PointHead())
    if isinstance(loss, AttentionLoss):
        student = TOKENS[0 if loss.sees_attention or student.kind == "mlp" else 1]
    check_loss(loss, student.replace(head=head), PatchTSTConfig(depth=2, width=6, heads=2, patch=7, head=head))
