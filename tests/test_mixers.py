"""What sets the inverted transformer, the channel-mixing MLP and the convolutions apart from the others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tsdistill.errors import ConfigError
from tsdistill.exporting import export
from tsdistill.models import (
    Forecaster,
    InvertedTransformerConfig,
    MLPConfig,
    ModelConfig,
    PatchTSTConfig,
    TCNConfig,
    TSMixerConfig,
)
from tsdistill.models.tcn import SeparableBlock
from tsdistill.models.tsmixer import Mixing, TSMixerBlock
from tsdistill.models.widths import spread
from tsdistill.testing import BATCH, CHANNELS, CONTEXT, HORIZON, toy_batch, toy_signature, toy_task
from tsdistill.training import Training, train

INVERTED = InvertedTransformerConfig(depth=2, width=14, heads=(2, 3), head_width=5)
MIXER = TSMixerConfig(depth=2, time_hidden=(13, 7), channel_hidden=(5, 11))
CONVOLUTIONS = TCNConfig(width=7, depth=2, hidden=(13, 11), patch=5)
ALL: list[ModelConfig] = [INVERTED, MIXER, CONVOLUTIONS]


def built(config: ModelConfig) -> Forecaster:
    """With weights off their initial zeros, so that no path is silent."""
    model = config.build(toy_signature()).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def reach(model: Forecaster, channel: int) -> list[bool]:
    """Which channels' forecasts move when one channel's context does."""
    context = toy_batch().context
    other = context.clone()
    other[:, :, channel] = torch.randn(BATCH, CONTEXT, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        moved = (model(other) - model(context)).abs().amax(dim=(0, 1))
    return (moved > 1e-4).tolist()


@pytest.mark.parametrize("config", [INVERTED, MIXER], ids=lambda config: config.kind)
def test_every_channel_hears_every_other(config: ModelConfig) -> None:
    model = built(config)
    assert [reach(model, channel) for channel in range(CHANNELS)] == [[True] * CHANNELS] * CHANNELS


def test_convolutions_keep_channels_apart() -> None:
    model = built(CONVOLUTIONS)
    alone = [[channel == other for other in range(CHANNELS)] for channel in range(CHANNELS)]
    assert [reach(model, channel) for channel in range(CHANNELS)] == alone


@pytest.mark.parametrize("embedding", [False, True])
def test_without_an_embedding_the_order_of_channels_is_nothing_to_an_inverted_transformer(embedding: bool) -> None:
    model = built(INVERTED.replace(channel_embedding=embedding))
    context, order = toy_batch().context, [2, 0, 1]
    with torch.no_grad():
        gap = float((model(context[..., order]) - model(context)[..., order]).abs().max())
    assert gap > 1e-3 if embedding else gap < 1e-5


def test_an_inverted_transformer_has_a_token_and_a_query_per_channel() -> None:
    inside = built(INVERTED).activations(toy_batch().context, attention=True)
    assert [tuple(tensor.shape) for tensor in inside.hidden] == [(BATCH, 1, CHANNELS, 14)] * 2
    assert inside.attention is not None
    assert [tuple(tensor.shape) for tensor in inside.attention] == [(BATCH, 1, h, CHANNELS, CHANNELS) for h in (2, 3)]


def plain_mixing(layer: Mixing, rows: Tensor) -> Tensor:
    """One window's `Mixing`, row by row: (other, size) -> the same shape."""
    centred = rows - rows.mean()
    normal = centred / (centred.square().mean() + 1e-5).sqrt()
    mixed = torch.zeros_like(rows)
    for number, row in enumerate(normal):
        inner = (layer.expand.weight @ row + layer.expand.bias).clamp(min=0)
        mixed[number] = layer.contract.weight @ inner + layer.contract.bias
    return rows + mixed


def test_a_mixer_block_mixes_along_time_then_across_channels() -> None:
    block = TSMixerBlock(context=13, n_channels=3, time_hidden=5, channel_hidden=7, dropout=0.3).eval()
    state = torch.randn(2, 3, 13, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        slow = torch.stack([plain_mixing(block.channels, plain_mixing(block.time, window).T).T for window in state])
        assert torch.allclose(block(state), slow, atol=1e-5)


def test_a_mixers_tokens_are_steps() -> None:
    hidden = built(MIXER).activations(toy_batch().context).hidden
    assert [tuple(tensor.shape) for tensor in hidden] == [(BATCH, 1, CONTEXT, CHANNELS)] * 2


def test_a_separable_block_equals_a_loop_over_tokens_and_filters() -> None:
    block = SeparableBlock(width=3, hidden=5, kernel=3, dilation=2, dropout=0.3).eval()
    torch.nn.init.normal_(block.contract.weight, generator=torch.Generator().manual_seed(1))
    tokens = torch.randn(2, 3, 11, generator=torch.Generator().manual_seed(0))
    slow = tokens.clone()
    biases = [part.bias for part in (block.expand, block.depthwise, block.contract)]
    expand, depthwise, contract = (bias.detach() for bias in biases if bias is not None)
    with torch.no_grad():
        for row in range(2):
            inner = (block.expand.weight[:, :, 0] @ tokens[row] + expand[:, None]).clamp(min=0)
            for token in range(11):
                filtered = depthwise.clone()
                for tap in range(3):
                    seen = token - (2 - tap) * 2
                    if seen >= 0:
                        filtered += block.depthwise.weight[:, 0, tap] * inner[:, seen]
                slow[row, :, token] += block.contract.weight[:, :, 0] @ filtered.clamp(min=0) + contract
        assert torch.allclose(block(tokens), slow, atol=1e-5)
        block.train().dropout.share = 0.0
        assert torch.allclose(block(tokens), slow, atol=1e-5)


@pytest.mark.parametrize(("kernel", "depth"), [(2, 1), (3, 3), (5, 2)])
def test_convolutions_see_as_far_back_as_they_say_and_never_ahead(kernel: int, depth: int) -> None:
    blocks = [SeparableBlock(3, 31, kernel, 2**layer, 0.0) for layer in range(depth)]
    tokens = torch.randn(1, 3, 43, generator=torch.Generator().manual_seed(0), requires_grad=True)
    state = tokens
    for block in blocks:
        with torch.no_grad():
            for parameter in block.parameters():
                parameter.abs_().add_(0.01)  # nothing is clipped, nothing cancels
        state = block(state)
    state[..., 29].sum().backward()
    assert tokens.grad is not None
    seen = tokens.grad.abs().sum(dim=(0, 1)).nonzero().flatten()
    assert int(seen.max()) == 29
    assert int(seen.min()) == 29 - (kernel - 1) * (2**depth - 1)


@pytest.mark.parametrize("config", ALL, ids=lambda config: config.kind)
def test_they_learn_and_their_graphs_say_the_same(config: ModelConfig) -> None:
    task = toy_task()
    model = train(config, task, Training(epochs=3, batch_size=37, learning_rate=3e-3, precision="float32"))
    history = model.lineage[-1].metrics["history"]
    assert history[-1]["validation_mse"] < history[0]["validation_mse"]
    assert export(model, task).parity["max_difference"] < 2e-5


@pytest.mark.parametrize("config", ALL, ids=lambda config: config.kind)
def test_one_channel_is_enough(config: ModelConfig) -> None:
    signature = toy_signature().replace(channels=("load",), mean=(50.0,), scale=(3.0,))
    model = config.build(signature).eval()
    context = toy_batch().context[..., :1]
    with torch.no_grad():
        assert model(context).shape == (BATCH, HORIZON, 1)
        assert float((model(context) - model(context.flip(0))).abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: InvertedTransformerConfig(heads=0), ["heads", "above 0"]),
        (lambda: InvertedTransformerConfig(heads=(2, 0), depth=2, feedforward=0), ["2 problems", "heads", "feedf"]),
        (lambda: InvertedTransformerConfig(heads=(0, 1), depth=0), ["depth"]),
        (lambda: InvertedTransformerConfig(width="wide"), ["width"]),
        (lambda: PatchTSTConfig(heads=(), width=0), ["width"]),
        (lambda: TSMixerConfig(time_hidden=(3,), channel_hidden=-1), ["2 problems", "time_hidden", "channel_hidden"]),
        (lambda: TSMixerConfig(depth=True, time_hidden=0), ["time_hidden"]),
        (lambda: TCNConfig(kernel=1, patch=0), ["2 problems", "kernel", "patch"]),
        (lambda: TCNConfig(patch=53).build(toy_signature()), ["patch", "at most context = 47"]),
        (lambda: MLPConfig(hidden=0), ["hidden", "above 0"]),
    ],
)  # fmt: skip
def test_impossible_configs_are_refused(make: Callable[[], object], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert [word for word in words if word not in str(caught.value)] == []


def test_sizes_are_spread_over_layers_and_stay_when_the_width_changes() -> None:
    assert spread(MLPConfig, "nonsense", hidden=3) == "nonsense"
    config = MLPConfig(width=5, depth=2)
    assert (config.hidden, config.replace(width=7).hidden) == ((10, 10), (10, 10))
    assert InvertedTransformerConfig(width=5, depth=1, heads=(11,)).head_width == 1
