"""Options of architectures that change which layers there are: individual maps, clocks, embeddings, heads."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tests import matrix
from tests.deployables import FORCED
from tsdistill import runtime
from tsdistill.artifacts import save
from tsdistill.exporting import Deployed, export
from tsdistill.models import (
    BinnedHead,
    CycleNetConfig,
    DLinearConfig,
    Forecaster,
    LinearConfig,
    LSTMConfig,
    MLPConfig,
    ModelConfig,
    PatchTSTConfig,
    QuantileHead,
)
from tsdistill.quantization import WeightOnly, quantize
from tsdistill.quantization.calibration import ranges_of
from tsdistill.quantization.dynamic import dynamic_graph
from tsdistill.quantization.forms import Forms
from tsdistill.quantization.layers import constant_folded, float_layers
from tsdistill.quantization.static import static_graph
from tsdistill.quantization.weight_only import weight_only_graph

BEFORE, CHANNELS = 29, 3
LAYERS = WeightOnly().rounding().layer_types


def stack(weight: np.ndarray) -> bytes:
    """A graph of a map for every channel: (batch, channel, before) -> (batch, channel, after)."""
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", CHANNELS, size])
        for name, size in (("context", BEFORE), ("forecast", weight.shape[-1]))
    ]
    nodes = [
        helper.make_node("Transpose", ["context"], ["x"], perm=[1, 0, 2]),
        helper.make_node("MatMul", ["x", "w"], ["y"], name="layer"),
        helper.make_node("Transpose", ["y"], ["forecast"], perm=[1, 0, 2]),
    ]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString()


# As many outputs as inputs: where a scale for every one of either would pass for the other.
@pytest.mark.parametrize("after", [7, BEFORE])
@pytest.mark.parametrize("form", ["dynamic", "static", "8 bits", "4 bits", "4 bits, one block"])
def test_every_map_of_a_stack_has_its_own_scales(form: str, after: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(1, 2, size=(5, CHANNELS, BEFORE)).astype(np.float32)
    # Scales that are shared by channels, inputs or outputs would not do.
    sizes = np.array([0.1, 3, 1])[:, None, None] * np.linspace(0.2, 2, after) * np.linspace(0.5, 1, BEFORE)[:, None]
    weight = (rng.normal(size=(CHANNELS, BEFORE, after)) * sizes).astype(np.float32)
    weight[1, :, 3] = 0
    graph = stack(weight)
    made = {
        "dynamic": lambda: dynamic_graph(graph),
        "static": lambda: static_graph(graph, ranges_of(graph, {"context": x})),
        "8 bits": lambda: weight_only_graph(graph, weight_bits=8, block_size=16),
        "4 bits": lambda: weight_only_graph(graph, weight_bits=4, block_size=16),
        "4 bits, one block": lambda: weight_only_graph(graph, weight_bits=4, block_size=32),
    }[form]()
    top = {"dynamic": 64, "static": 64, "8 bits": 127}.get(form, 7)
    if form in ("dynamic", "static"):
        scale = (x.max() - x.min()) / 255
        zero = np.round(-x.min() / scale)
        x_read = (np.clip(np.round(x / scale) + zero, 0, 255) - zero) * scale
    else:
        x_read = x
    blocks = [weight[:, :16], weight[:, 16:]] if form == "4 bits" else [weight]
    reach = [np.broadcast_to(np.abs(block).max(axis=1, keepdims=True), block.shape) for block in blocks]
    step = np.concatenate(reach, axis=1) / top
    rounded = np.round(weight / np.where(step > 0, step, 1)) * step
    expected = np.einsum("bcs,cso->bco", x_read, rounded)
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
        outputs = onnxruntime.InferenceSession(made, options).run(None, {"context": x})[0]
        np.testing.assert_allclose(outputs, expected, rtol=1e-3, atol=1e-3)
    assert np.abs(expected - np.einsum("bcs,cso->bco", x, weight)).max() > 0.03


OPTIONS: dict[str, ModelConfig] = {
    "individual maps": DLinearConfig(kernel=5, individual=True),
    "individual maps in closed form": LinearConfig(individual=True),
    "a channel bias": DLinearConfig(kernel=5, channel_bias=True),
    "a clock": CycleNetConfig(),
    "a clock and a hidden layer": CycleNetConfig(hidden=11),
    "no channel embedding": PatchTSTConfig(
        depth=1, width=6, heads=3, patch=7, stride=7, channel_embedding=False, shortcut=True
    ),
    "mixed channels in both directions": LSTMConfig(widths=(5, 7), patch=7, mixing=True, bidirectional=True),
    "quantiles": MLPConfig(width=5, depth=1, head=QuantileHead(levels=(0.05, 0.3, 0.5, 0.9))),
    "quantiles of individual maps": DLinearConfig(
        kernel=5, individual=True, head=QuantileHead(levels=(0.05, 0.3, 0.5, 0.9))
    ),
    "bins": MLPConfig(width=5, depth=1, head=BinnedHead(n_bins=13)),
}


@functools.cache
def made(option: str) -> tuple[Forecaster, Deployed]:
    config = OPTIONS[option]
    model = config.build(matrix.task_of(config.kind).signature, 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval(), export(model, matrix.task_of(config.kind))


@pytest.mark.parametrize(
    "option", [pytest.param(name, marks=[] if name in ("a clock", "bins") else pytest.mark.slow) for name in OPTIONS]
)
def test_what_is_quantized_are_the_layers_with_weights_and_nothing_else(option: str) -> None:
    model, full = made(option)
    names = {name for name, module in model.named_modules() if isinstance(module, LAYERS)}
    assert {layer.name for layer in float_layers(onnx.load_from_string(constant_folded(full.onnx)))} == names


@pytest.mark.slow
@pytest.mark.parametrize("option", OPTIONS)
def test_every_form_of_every_option_is_served(option: str, tmp_path: Path) -> None:
    model, full = made(option)
    task = matrix.task_of(model.config.kind)
    forms = Forms(full, task)
    for form, spec in matrix.FORMS.items():
        if spec is None or spec.needs_teacher or (form == "static" and model.config.kind == "lstm"):
            continue
        deployed = forms.deployed(spec)
        runtime.load(save(deployed, tmp_path / form))
        assert runtime.verify(tmp_path / form)["max_difference"] == 0
        assert float_layers(onnx.load_from_string(deployed.onnx)) == ()
        assert 0 < deployed.parity["max_difference"] < (1.5 if form == "weight-only-4" else 0.3)
    taken = quantize(model, task, FORCED.replace(method="auto"))
    assert taken.lineage[-1].metrics["chosen"] == "dynamic"
