"""GRUs beside LSTMs: the same forecaster around three gates, and what every step of the product makes of it."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import tsdistill as td
from tests import deployables
from tsdistill import runtime
from tsdistill.losses import FeatureLoss, OutputLoss
from tsdistill.models import MODELS, Forecaster, GRUConfig, LSTMConfig
from tsdistill.models.layers import ChannelLinear
from tsdistill.pruning import CRITERIA, Pruning, prune
from tsdistill.quantization import QAT, Auto, Dynamic, Static, WeightOnly, choice, qat
from tsdistill.quantization.fake_quantized import RoundedGRU, fake_quantize, fold_rounded
from tsdistill.quantization.layers import constant_folded, float_layers
from tsdistill.quantization.torch_int8 import TorchInt8
from tsdistill.quantization.weight_only import weight_only_graph
from tsdistill.runtime import Predictor
from tsdistill.search import Space
from tsdistill.spec import digest_of
from tsdistill.testing import toy_batch, toy_signature, toy_task

ONE_WAY = GRUConfig(widths=(7, 5), patch=7)
BOTH_WAYS = GRUConfig(widths=(5, 3), patch=7, bidirectional=True, mixing=True)
WAYS = [pytest.param(ONE_WAY, id="one way"), pytest.param(BOTH_WAYS, id="both ways", marks=pytest.mark.slow)]
QUICK = td.Training(max_steps=3, batch_size=16, precision="float32")
FORCED: dict[str, Any] = {"require_gain": False, "max_error_increase": 9.0}


def shaken(config: GRUConfig, signature: Any = None) -> Any:
    model = config.build(signature or toy_signature()).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


@functools.cache
def deployed(config: GRUConfig) -> tuple[Forecaster, td.Deployed]:
    model = shaken(config, deployables.task().signature)
    return model, td.export(model, deployables.task())


def quantized(config: GRUConfig, spec: td.Quantization) -> td.Deployed:
    model, full = deployed(config)

    def known(source: Forecaster, task: td.Task) -> td.Deployed:
        return full if source is model else td.export(source, task)

    with mock.patch.object(choice, "export", known):
        return td.quantize(model, deployables.task(), spec, progress=False)


def read(tokens: np.ndarray, layer: dict[str, np.ndarray], way: str) -> np.ndarray:
    """One direction of a GRU layer, (token, before) -> (token, width), a gate at a time."""
    width = layer["weight_hh_l0"].shape[1]
    state, states = np.zeros(width), np.zeros((len(tokens), width))
    for step in reversed(range(len(tokens))) if way else range(len(tokens)):
        given = layer[f"weight_ih_l0{way}"] @ tokens[step] + layer[f"bias_ih_l0{way}"]
        fed_back = layer[f"weight_hh_l0{way}"] @ state + layer[f"bias_hh_l0{way}"]
        reset, keep = (1 / (1 + np.exp(-given[part] - fed_back[part])) for part in (np.s_[:width], np.s_[width:-width]))
        state = (1 - keep) * np.tanh(given[-width:] + reset * fed_back[-width:]) + keep * state
        states[step] = state
    return states


@pytest.mark.parametrize("together", [False, True])
def test_a_gru_equals_a_loop_over_directions_layers_and_tokens(together: bool) -> None:
    model = shaken(GRUConfig(widths=(5, 3), patch=11, embedding=7, bidirectional=together, mixing=together))
    context = toy_batch().context
    with torch.no_grad():
        inside = model.activations(context)
    weights = {name: value.detach().double().numpy() for name, value in model.named_parameters()}
    x = context.double().numpy().transpose(0, 2, 1)
    centre, spread = x.mean(-1, keepdims=True), np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    x = (x - centre) / spread
    for window in (0, 4):
        patches = x[window, :, 3:].reshape(3, 4, 11)
        raw = []
        for row, tokens in enumerate([patches.transpose(1, 0, 2).reshape(4, 33)] if together else patches):
            tokens = tokens @ weights["embed.weight"].T + weights["embed.bias"]
            tokens = tokens if together else tokens + weights["channel.weight"][row]
            for depth in range(2):
                start = f"layers.{depth}."
                layer = {name[len(start) :]: value for name, value in weights.items() if name.startswith(start)}
                tokens = np.concatenate([read(tokens, layer, way) for way in ("", "_reverse")[: 1 + together]], axis=1)
                assert np.allclose(tokens, inside.hidden[depth][window, row], atol=1e-5)
            end = np.concatenate([tokens[-1, :3], tokens[0, 3:]])
            raw.append(weights["last.weight"] @ end + weights["last.bias"])
        forecast = np.reshape(raw, (3, 11)) + x[window] @ weights["shortcut.weight"].T + weights["shortcut.bias"]
        assert np.allclose((forecast * spread[window] + centre[window]).T, inside.forecast[window], atol=1e-4)


def test_its_config_is_that_of_an_lstm() -> None:
    assert MODELS.read({"kind": "gru", "width": 16, "depth": 3}) == GRUConfig(widths=(16, 16, 16))
    assert set(GRUConfig.model_fields) == set(LSTMConfig.model_fields)
    assert GRUConfig.model_validate(LSTMConfig(widths=(7,)).to_dict() | {"kind": "gru"}).embedding == 7
    sizes = [config.build(toy_signature()).n_parameters for config in (GRUConfig(patch=12), LSTMConfig(patch=12))]
    assert sizes[1] - sizes[0] == 2 * (64 * 64 * 2 + 64 * 2)  # a gate of each layer
    with pytest.raises(td.errors.ConfigError, match=r"(?s)GRUConfig.*widths.*patch"):
        GRUConfig(widths=(), patch=0)
    with pytest.raises(td.errors.ConfigError, match=r"channel_embedding.*mixing=True.*Leave it out"):
        GRUConfig(mixing=True, channel_embedding=True)


@pytest.mark.slow
@pytest.mark.parametrize("config", WAYS)
def test_its_graph_is_as_lean_as_that_of_an_lstm(config: GRUConfig) -> None:
    graph = onnx.load_from_string(deployed(config)[1].onnx).graph
    layers = [node for node in graph.node if node.op_type == "GRU"]
    kinds = Counter(node.op_type for node in graph.node)
    assert [node.name for node in layers] == ["layers.0", "layers.1"]
    # From ONNX's own zeros; and the axis of directions, where there is one only, goes at once.
    assert [list(node.input[4:]) for node in layers] == [["", ""]] * 2
    assert kinds["Expand"] == 0
    # One Squeeze is the head's.
    assert (kinds["Squeeze"], kinds["Shape"]) == ((3, 0) if config is ONE_WAY else (1, 1))


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("config", WAYS)
def test_its_weights_are_stored_in_few_bits_and_served(config: GRUConfig, bits: int, tmp_path: Path) -> None:
    full = deployed(config)[1]
    small = quantized(config, WeightOnly(weight_bits=bits, block_size=16, **FORCED))
    names = {layer.name for layer in float_layers(onnx.load_from_string(constant_folded(full.onnx)))}
    assert names == {"embed", "layers.0", "layers.1", "last", "shortcut"}
    assert float_layers(onnx.load_from_string(small.onnx)) == ()
    served = runtime.load(td.save(small, tmp_path / "small"))
    x = deployables.contexts(5)
    gap = np.abs(served.predict(x) - full.predict(x)) / np.asarray(full.signature.scale)
    assert 0 < gap.max() < (0.02 if bits == 8 else 0.5)


REFUSED: dict[str, tuple[td.Quantization, list[str]]] = {
    "dynamic": (Dynamic(**FORCED), ["GRU layers (layers.0, layers.1)", "in float only", "Use method='weight-only'"]),
    "static": (Static(**FORCED), ["GRU layers (layers.0, layers.1)", "keep_float=('layers.0', 'layers.1')"]),
    "qat": (QAT(training=QUICK, **FORCED), ["weight_bits=7 for a 'gru' one", "GRU layers", "or weight_bits=4"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_integer_products_are_refused_with_what_to_use(name: str) -> None:
    spec, words = REFUSED[name]
    with pytest.raises(td.errors.UnsupportedError) as caught:
        quantized(ONE_WAY, spec)
    assert [word for word in words if word not in str(caught.value)] == []


def test_the_linear_layers_around_it_can_be_integers() -> None:
    mixed = quantized(ONE_WAY, Dynamic(keep_float=("layers.0", "layers.1"), **FORCED))
    kinds = Counter(node.op_type for node in onnx.load_from_string(mixed.onnx).graph.node)
    assert (kinds["GRU"], kinds["MatMulInteger"]) == (2, 3)


def test_auto_gets_to_stored_bits_and_keeps_the_reasons() -> None:
    taken = quantized(ONE_WAY, Auto(**FORCED))
    rows = {row["name"]: row for row in taken.lineage[-1].metrics["candidates"]}
    assert (taken.precision, taken.lineage[-1].metrics["chosen"]) == ("int8-weights", "weight-only-8")
    for name in ("dynamic", "static"):
        assert "GRU layers" in rows[name]["refused"][0]


@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_cell_without_rounding_is_the_gru_of_torch(bidirectional: bool) -> None:
    torch.manual_seed(0)
    reference = nn.GRU(7, 5, batch_first=True, bidirectional=bidirectional)
    rounded = RoundedGRU(reference, rounds_inputs=False)
    rows = torch.randn(3, 11, 7, requires_grad=True)
    for value, other in zip(rounded(rows), reference(rows), strict=True):
        torch.testing.assert_close(value, other)
    sums = [layer(rows)[0].square().sum() for layer in (rounded, reference)]
    torch.testing.assert_close(*(torch.autograd.grad(total, rows)[0] for total in sums))
    with pytest.raises(td.errors.UnsupportedError, match=r"a GRU that is not one layer.*td.models.GRUConfig"):
        RoundedGRU(nn.GRU(3, 5, num_layers=2, batch_first=True), rounds_inputs=True)


@pytest.mark.slow
def test_four_bits_are_trained_as_they_are_deployed() -> None:
    model = deployed(ONE_WAY)[0]
    fake = fake_quantize(model, QAT(weight_bits=4, block_size=16).deployed_form(model).rounding()).eval()
    x = deployables.contexts(5)
    graph = weight_only_graph(td.export(fold_rounded(fake, model)).onnx, weight_bits=4, block_size=16)
    served, seen, exact = (m.predict(x) for m in (Predictor(graph, model.signature), fake, model))
    scale = np.asarray(model.signature.scale)
    assert np.abs((seen - exact) / scale).max() > 0.01
    assert np.abs((served - seen) / scale).max() < 1e-4
    trained = quantized(ONE_WAY, QAT(weight_bits=4, training=QUICK, **FORCED))
    assert (trained.precision, trained.config) == ("int4-weights", ONE_WAY)


@pytest.mark.parametrize("criterion", CRITERIA.kinds)
def test_every_criterion_ranks_its_units(criterion: str) -> None:
    model, task = shaken(ONE_WAY), toy_task()
    smaller = prune(model, task, Pruning(ratio=0.4, criterion=criterion, recovery=None), progress=False)
    assert smaller.config == ONE_WAY.replace(widths=(4, 3))
    with torch.no_grad():
        for parameter in smaller.parameters():
            assert torch.isfinite(parameter).all()


def test_repair_makes_the_units_that_stay_replace_those_that_go() -> None:
    model, task = shaken(GRUConfig(widths=(16,), patch=11, shortcut=False)), toy_task()
    context = task.validation.batch(torch.arange(len(task.validation))).context
    gaps = []
    for repair in (False, True):
        smaller = prune(model, task, Pruning(ratio=0.5, repair=repair, recovery=None), progress=False)
        with torch.no_grad():
            gaps.append(float((smaller(context) - model(context)).square().mean()))
    assert gaps[1] < 0.5 * gaps[0]


def test_torch_int8_rounds_it_too() -> None:
    model = deployed(ONE_WAY)[0]
    small = TorchInt8(model)
    x = deployables.contexts(5)
    assert 0 < np.abs((small.predict(x) - model.predict(x)) / np.asarray(model.signature.scale)).max() < 0.2
    assert small.size_bytes < 4 * model.n_parameters


def test_a_transformer_teaches_it_by_its_hidden_states() -> None:
    task = toy_task()
    teacher = td.PatchTSTConfig(depth=2, width=6, heads=2, patch=7).build(task.signature)
    losses = [OutputLoss(), FeatureLoss(weight=0.5)]
    student = td.distill(teacher, ONE_WAY, task, losses=losses, training=QUICK, control=False, progress=False)
    alone = td.distill(teacher, ONE_WAY, task, losses=losses[:1], training=QUICK, control=False, progress=False)
    assert student.config == ONE_WAY
    assert student.digest != alone.digest


def test_searches_draw_it_and_know_what_cannot_round_it() -> None:
    recipe = td.recipe.default_recipe().replace_at({"student.model.kind": "gru", "student.model.width": 32})
    assert recipe.student.model == GRUConfig(widths=(32, 32))
    ranges = Space().ranges(recipe)
    assert ranges["student.model.gru.depth"] == (1, 2)
    for method in ("dynamic", "qat"):
        space = Space(vary={"student.model.kind": ("lstm", "gru"), "quantization.method": method})
        with pytest.raises(td.errors.ConfigError, match=r"'gru' student.*GRU layers.*use 'weight-only'"):
            space.check(recipe)


def test_runs_of_other_models_are_called_what_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    monkeypatch.setattr(qat, "fit", lambda model, task, training, objective, **options: names.append(objective.digest))
    spec, task = QAT(weight_bits=4), toy_task()
    for config in (LSTMConfig(widths=(5,), patch=11), td.MLPConfig(width=5, depth=1), GRUConfig(widths=(5,), patch=11)):
        qat.train_rounded(config.build(task.signature), task, spec)
    kinds = (nn.Linear, ChannelLinear, nn.LSTM, nn.Conv1d)
    before = digest_of(["truth", repr(replace(WeightOnly(weight_bits=4).rounding(), layer_types=kinds))])
    assert names[:2] == [before] * 2
    assert names[2] != before
