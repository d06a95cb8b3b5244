"""LSTMs that read both ways and all channels together, against a slow loop and through export."""

from __future__ import annotations

import itertools
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from tsdistill.errors import ConfigError
from tsdistill.exporting import export
from tsdistill.models import LSTMConfig
from tsdistill.quantization import Quantization, choice, quantize
from tsdistill.testing import toy_batch, toy_signature, toy_task


def shaken(config: LSTMConfig) -> Any:
    model = config.build(toy_signature()).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def read(tokens: np.ndarray, layer: dict[str, np.ndarray], way: str) -> np.ndarray:
    """One direction of an LSTM layer, (token, before) -> (token, width), a gate at a time."""
    steps = range(len(tokens)) if not way else reversed(range(len(tokens)))
    width = layer["weight_hh_l0"].shape[1]
    state, cell = np.zeros(width), np.zeros(width)
    states = np.zeros((len(tokens), width))
    for step in steps:
        given = layer[f"weight_ih_l0{way}"] @ tokens[step] + layer[f"bias_ih_l0{way}"]
        given = given + layer[f"weight_hh_l0{way}"] @ state + layer[f"bias_hh_l0{way}"]
        enter, forget, fresh, leave = np.split(given, 4)
        squashed = [1 / (1 + np.exp(-gate)) for gate in (enter, forget, leave)]
        cell = squashed[1] * cell + squashed[0] * np.tanh(fresh)
        state = squashed[2] * np.tanh(cell)
        states[step] = state
    return states


@pytest.mark.parametrize(("bidirectional", "mixing"), list(itertools.product((False, True), repeat=2)))
def test_an_lstm_equals_a_loop_over_directions_layers_and_tokens(bidirectional: bool, mixing: bool) -> None:
    model = shaken(LSTMConfig(widths=(5, 3), patch=11, embedding=7, bidirectional=bidirectional, mixing=mixing))
    context = toy_batch().context
    with torch.no_grad():
        inside = model.activations(context)
    weights = {name: value.detach().double().numpy() for name, value in model.named_parameters()}
    x = context.double().numpy().transpose(0, 2, 1)
    centre, spread = x.mean(-1, keepdims=True), np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    x = (x - centre) / spread
    ways = ("", "_reverse") if bidirectional else ("",)
    for window in (0, 4):
        # 47 = 3 + 4 * 11 steps: a token of the channels' patches one behind the other, or a channel's alone.
        patches = x[window, :, 3:].reshape(3, 4, 11)
        rows = [patches.transpose(1, 0, 2).reshape(4, 33)] if mixing else list(patches)
        raw = []
        for row, tokens in enumerate(rows):
            tokens = tokens @ weights["embed.weight"].T + weights["embed.bias"]
            if not mixing:
                tokens = tokens + weights["channel.weight"][row]
            for depth in range(2):
                start = f"layers.{depth}."
                layer = {name[len(start) :]: value for name, value in weights.items() if name.startswith(start)}
                tokens = np.concatenate([read(tokens, layer, way) for way in ways], axis=1)
                assert np.allclose(tokens, inside.hidden[depth][window, row], atol=1e-5)
            end = np.concatenate([tokens[-1, :3], tokens[0, 3:]])
            raw.append(weights["last.weight"] @ end + weights["last.bias"])
        forecast = np.reshape(raw, (3, 11)) + x[window] @ weights["shortcut.weight"].T + weights["shortcut.bias"]
        assert np.allclose((forecast * spread[window] + centre[window]).T, inside.forecast[window], atol=1e-4)


def test_only_a_mixing_lstm_lets_channels_tell_of_each_other() -> None:
    context = toy_batch().context
    moved = context.clone()
    moved[..., 1] = moved[..., 1].flip(1)
    for mixing in (False, True):
        model = shaken(LSTMConfig(widths=(5,), patch=11, mixing=mixing))
        with torch.no_grad():
            change = (model(moved) - model(context)).abs().amax(dim=(0, 1))
        assert [float(value) > 1e-4 for value in change] == [mixing, True, mixing]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"bidirectional": True}, {"mixing": True}], ids=lambda options: next(iter(options))
)
def test_both_kinds_are_exported_and_made_int8(options: dict[str, bool]) -> None:
    model = shaken(LSTMConfig(widths=(5, 3), patch=11, **options))
    task = toy_task()
    exported = export(model, task)
    assert exported.parity["max_difference"] < 1e-4
    with mock.patch.object(choice, "export", return_value=exported):
        int8 = quantize(model, task, Quantization(require_gain=False, max_error_increase=9.0))
    assert int8.precision == "int8"
    assert b"DynamicQuantizeLSTM" in int8.onnx


def test_channels_known_apart_twice_are_refused() -> None:
    assert not LSTMConfig(mixing=True).channel_embedding
    with pytest.raises(ConfigError, match=r"channel_embedding.*mixing=True.*Leave it out"):
        LSTMConfig(mixing=True, channel_embedding=True)
