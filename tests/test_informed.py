"""Models that look at covariates: what they make of them, and who refuses them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tsdistill.data.covariates import Covariates
from tsdistill.data.panel import Panel
from tsdistill.data.task import Task
from tsdistill.errors import ShapeError, UnsupportedError
from tsdistill.evaluation.baselines import baselines
from tsdistill.models import (
    MODELS,
    InvertedTransformerConfig,
    LinearConfig,
    LSTMConfig,
    MLPConfig,
    ModelConfig,
    PatchTSTConfig,
    SeasonalNaiveConfig,
    TCNConfig,
    TSMixerConfig,
)
from tsdistill.testing import BATCH, CHANNELS, COVARIATES, toy_batch, toy_signature
from tsdistill.training import Training, train

N_FUTURE, N_PAST = len(COVARIATES.known_ahead), len(COVARIATES.past)
BOTH = ("future", "past")
INFORMED: list[ModelConfig] = [
    MLPConfig(width=31, depth=1, dropout=0.0),
    InvertedTransformerConfig(depth=1, width=14, heads=2, dropout=0.0),
    TSMixerConfig(depth=1, time_hidden=13, channel_hidden=11, dropout=0.0),
]


def driven(covariates: Covariates | None) -> Task:
    """Noise that follows a plan made for the same step, and noise that follows a signal seen three steps before."""
    rng = np.random.default_rng(0)
    plan, signal = rng.normal(size=(2, 401))
    late = np.concatenate([np.zeros(3), signal[:-3]])
    stamps = pd.date_range("2024-01-01", periods=401, freq="h")
    frame = pd.DataFrame({"ds": stamps, "a": 5 + plan, "b": 7 - late, "plan": plan, "signal": signal})
    frame = frame if covariates else frame[["ds", "a", "b"]]
    return Task(Panel.from_frame(frame, time="ds"), context=13, horizon=3, covariates=covariates)


@pytest.mark.parametrize("config", INFORMED, ids=lambda config: config.kind)
def test_what_covariates_tell_is_learnt(config: ModelConfig) -> None:
    training = Training(epochs=16, batch_size=23, learning_rate=1e-2, precision="float32", patience=None)
    informed = train(config, driven(Covariates(future=("plan",), past=("signal",))), training)
    plain = train(config, driven(None), training)
    errors = [model.lineage[-1].metrics["validation_mse"] for model in (informed, plain)]
    assert errors[1] > 0.8  # nothing to know without them
    assert errors[0] < 0.5 * errors[1], errors


def test_every_config_that_takes_covariates_is_tried_here() -> None:
    # Those that need a covariate look at that one only, and have tests of their own.
    free = {MODELS.kind_of(config) for config in MODELS if {*BOTH} <= config.takes and config().needs is None}  # type: ignore[call-arg]
    assert {config.kind for config in INFORMED} == free


@pytest.mark.parametrize(
    ("config", "takes", "words"),
    [
        (PatchTSTConfig(patch=7), BOTH, ["'patchtst'", "no future and no past covariates", "'price'", "'rain'"]),
        (TCNConfig(), ("past",), ["'tcn'", "takes no past covariates", "got {'past': ['sun', 'rain']}"]),
        (LSTMConfig(), ("future",), ["'lstm'", "takes no future covariates", "td.models.LinearConfig"]),
        (SeasonalNaiveConfig(), ("future",), ["'seasonal-naive'"]),
        (LinearConfig(), BOTH, ["'linear'", "takes no past covariates", "got {'past': ['sun', 'rain']}"]),
    ],
    ids=["patchtst", "tcn", "lstm", "seasonal-naive", "linear"],
)  # fmt: skip
def test_covariates_are_refused_by_those_who_would_not_look(config: Any, takes: tuple[str], words: list[str]) -> None:
    words += [
        "`covariates` must",
        "td.models.InvertedTransformerConfig",
        "td.models.MLPConfig, td.models.TSMixerConfig",
        ".without_cov",
    ]
    with pytest.raises(UnsupportedError) as caught:
        config.build(toy_signature(takes))
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize("config", INFORMED, ids=lambda config: config.kind)
def test_covariates_of_the_wrong_shape_are_refused(config: ModelConfig) -> None:
    batch = toy_batch(signature=toy_signature(BOTH))
    model, future, past = config.build(toy_signature(BOTH)), batch.future, batch.past
    assert future is not None
    assert past is not None
    for side, wrong in (
        ("future", (None, past)),
        ("past", (future, None)),
        ("future", (future[:, 1:], past)),
        ("past", (future, past[:, 1:])),
        ("past", (future, past[..., :1])),
        ("future", (future[0], past)),
    ):
        with pytest.raises(ShapeError, match=f"`{side}` must have shape"):
            model(batch.context, *wrong)


@pytest.mark.parametrize("config", INFORMED, ids=lambda config: config.kind)
@pytest.mark.parametrize("side", BOTH)
def test_one_kind_of_covariates_is_enough(config: ModelConfig, side: str) -> None:
    signature = toy_signature((side,))
    batch = toy_batch(signature=signature)
    assert (batch.future is None) == (side == "past")
    model = config.build(signature).eval()
    with torch.no_grad():
        forecast = model(batch.context, batch.future, batch.past)
        other = toy_batch(signature=toy_signature(BOTH), seed=1)
        both = {"future": other.future, "past": other.past, side: getattr(batch, side)}
        assert torch.equal(model(batch.context, **both), forecast)


def test_features_are_tokens_that_channels_attend_to_and_that_are_not_forecast() -> None:
    signature = toy_signature(BOTH)
    batch, model = toy_batch(signature=signature), INFORMED[1].build(signature)
    inside = model.activations(batch.context, batch.future, batch.past, attention=True)
    n_tokens = CHANNELS + N_FUTURE + N_PAST
    assert inside.attention is not None
    assert [tuple(layer.shape) for layer in inside.attention] == [(BATCH, 1, 2, n_tokens, n_tokens)]
    assert [tuple(layer.shape) for layer in inside.hidden] == [(BATCH, 1, CHANNELS, 14)]


def test_the_width_that_mixes_the_future_is_pruned_with_the_others() -> None:
    names = [group.name for group in INFORMED[2].build(toy_signature(BOTH)).width_groups()]
    assert names == ["block1.time", "block1.channels", "future.hidden", "layers", "context"]
    assert "future.hidden" not in [group.name for group in INFORMED[2].build(toy_signature()).width_groups()]


def test_baselines_look_at_channels_only() -> None:
    task = driven(Covariates(future=("plan",), past=("signal",)))
    assert [model.signature.covariates for model in baselines(task).values()] == [None, None]
