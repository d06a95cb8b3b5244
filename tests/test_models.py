"""Architectures against slow plain versions, and configs that cannot be."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tsdistill.errors import ConfigError, ShapeError
from tsdistill.models import MODELS, LSTMConfig, MLPConfig, ModelConfig, PatchTSTConfig, SeasonalNaiveConfig
from tsdistill.models.layers import Attention, Patches, WindowNorm
from tsdistill.testing import toy_signature, toy_task


def test_attention_equals_a_loop_over_heads_and_queries() -> None:
    layer = Attention(width=6, heads=3, head_width=5).eval()
    tokens = torch.randn(2, 7, 6)
    fused, nothing = layer(tokens)
    explicit, shown = layer(tokens, show=True)
    weights = shown[0]
    assert nothing is None
    assert weights is not None
    query, key, value = (part(tokens) for part in (layer.query, layer.key, layer.value))
    slow = torch.zeros(2, 7, 15)
    for row in range(2):
        for head in range(3):
            span = slice(head * 5, head * 5 + 5)
            for step in range(7):
                scores = torch.stack([query[row, step, span] @ key[row, other, span] for other in range(7)])
                share = torch.exp(scores / math.sqrt(5))
                share = share / share.sum()
                assert torch.allclose(share, weights[row, head, step], atol=1e-5)
                slow[row, step, span] = sum(share[other] * value[row, other, span] for other in range(7))
    assert torch.allclose(layer.out(slow), fused, atol=1e-5)
    assert torch.allclose(explicit, fused, atol=1e-6)


def test_patches_end_at_the_last_step_and_overlap_by_the_stride() -> None:
    steps = torch.arange(47.0)[None, None, :]
    overlapping = Patches(47, patch=7, stride=3)(steps)[0, 0]
    assert overlapping[-1].tolist() == list(range(40, 47))
    assert overlapping[-2].tolist() == list(range(37, 44))
    adjoining = Patches(47, patch=7, stride=7)
    assert adjoining.skip == 5
    assert adjoining(steps)[0, 0, :, 0].tolist() == [5, 12, 19, 26, 33, 40]


def test_a_window_is_normalised_by_itself_and_a_flat_one_survives() -> None:
    x = torch.randn(5, 3, 47) * 4 + 11
    normal, centre, spread = WindowNorm()(x)
    assert torch.allclose(normal.mean(-1), torch.zeros(5, 3), atol=1e-5)
    assert torch.allclose(normal * spread + centre, x, atol=1e-4)
    assert torch.isfinite(WindowNorm()(torch.full((1, 1, 47), 3.0))[0]).all()


def test_a_channel_embedding_tells_channels_apart() -> None:
    config = MLPConfig(width=5, depth=1)
    model = config.build(toy_signature()).eval()
    same = torch.randn(1, 47, 1).expand(1, 47, 3)
    with torch.no_grad():
        assert torch.allclose(model(same)[..., 0], model(same)[..., 2], atol=1e-5)
        model.get_parameter("channel.weight")[0, 1] += 1.0
        assert not torch.allclose(model(same)[..., 0], model(same)[..., 2], atol=1e-3)


def test_seasonal_naive_repeats_the_last_season() -> None:
    model = SeasonalNaiveConfig(period=3).build(toy_signature())
    context = torch.randn(2, 47, 3)
    forecast = model(context)
    for step in range(11):
        assert torch.equal(forecast[:, step], context[:, 44 + step % 3])


def test_a_linear_model_is_the_ridge_of_scikit_learn() -> None:
    from sklearn.linear_model import Ridge

    from tsdistill.models.ridge import Statistics, choose

    task = toy_task()
    statistics = Statistics.of(task.train)
    batch = task.train.batch(torch.arange(len(task.train)))
    context, target = (rows.transpose(1, 2).double() for rows in (batch.context, batch.target))
    centre = context.mean(-1, keepdim=True)
    x, y = ((rows - centre).flatten(0, 1).numpy() for rows in (context, target))
    for penalty in (1e-3, 1e-1):
        chosen = choose(statistics, statistics, (penalty,), (0.0,))
        plain = Ridge(alpha=penalty * float(statistics.gram.trace()) / 47, fit_intercept=False).fit(x, y)
        assert abs(plain.coef_.T - chosen.weight.numpy()).max() < 1e-6
        error = ((x @ plain.coef_.T - y) ** 2).mean()
        assert float(chosen.errors) == pytest.approx(error, rel=1e-6)


IMPOSSIBLE: list[tuple[type[ModelConfig], dict[str, Any], list[str]]] = [
    (PatchTSTConfig, {"width": 0}, ["width", "greater than or equal to 1"]),
    (PatchTSTConfig, {"depth": 2, "heads": (2, 2, 2)}, ["heads", "2 of them"]),
    (PatchTSTConfig, {"feedforward": -3}, ["feedforward", "above 0"]),
    (PatchTSTConfig, {"patch": 8, "stride": 9}, ["stride", "at most patch = 8"]),
    (PatchTSTConfig, {"dropout": 1.0, "widht": 3}, ["2 problems", "dropout", "`width`"]),
    (LSTMConfig, {"widths": ()}, ["widths", "at least 1 item"]),
    (LSTMConfig, {"widths": (5, 0)}, ["widths[1]", "greater than 0"]),
    (MLPConfig, {"hidden": (3, 3, 3), "depth": 2}, ["hidden", "one per layer"]),
    (SeasonalNaiveConfig, {"period": 0}, ["period"]),
    (PatchTSTConfig, {"heads": 4.0}, ["heads", "whole number"]),
    (PatchTSTConfig, {"heads": (True, True, True)}, ["heads", "whole number"]),
    (MLPConfig, {"hidden": "ab"}, ["hidden", "whole number"]),
]


@pytest.mark.parametrize(("config", "values", "words"), IMPOSSIBLE)
def test_impossible_configs_are_refused(config: type[ModelConfig], values: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**values)
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (PatchTSTConfig(patch=53), "at most context = 47"),
        (LSTMConfig(patch=53), "at most context = 47"),
        (SeasonalNaiveConfig(period=53), "at most context = 47"),
    ],
)
def test_a_config_that_does_not_fit_the_task_is_refused_when_built(config: ModelConfig, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config.build(toy_signature())


def test_a_context_of_the_wrong_shape_is_refused() -> None:
    model = MLPConfig(width=5, depth=1).build(toy_signature())
    for shape in ((5, 46, 3), (5, 47, 2), (47, 3)):
        with pytest.raises(ShapeError, match="batch, time, channel"):
            model(torch.zeros(shape))


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="lstm"):
        MODELS.read({"kind": "lstn"})


def test_predictions_are_in_raw_units_and_leave_random_state_alone() -> None:
    task = toy_task()
    before = torch.get_rng_state()
    model = SeasonalNaiveConfig(period=11).build(task.signature)
    assert torch.equal(torch.get_rng_state(), before)
    history = task.panel.items[0].values[None, -47:]
    assert model.predict(history) == pytest.approx(history[:, -11:], rel=1e-5)
