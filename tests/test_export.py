"""A trained forecaster as an ONNX graph: the same forecasts, the same bytes every time, or an error."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from tests import deployables
from tests.deployables import (
    CHANNELS,
    CONTEXT,
    HORIZON,
    KINDS,
    contexts,
    exported,
    forecaster,
    fresh,
    in_deviations,
    int8,
    task,
)
from tests.typed import known
from tsdistill.data.panel import Panel
from tsdistill.data.task import Signature, Task
from tsdistill.errors import ArtifactError, OrderError, ShapeError
from tsdistill.exporting import Deployed, export, exporter, float_operators, refuse_deployed
from tsdistill.exporting.parity import check_resolution
from tsdistill.models import LinearConfig, SeasonalNaiveConfig
from tsdistill.runtime import TOLERANCE, Predictor, difference
from tsdistill.spec import LineageStep


@pytest.mark.parametrize("batch", [1, 5, 64])
@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_forecasts_what_torch_does_at_every_batch_size(kind: str, batch: int) -> None:
    x = contexts(batch, seed=1)
    from_graph, from_torch = exported(kind).predict(x), forecaster(kind).predict(x)
    assert from_graph.shape == (batch, HORIZON, len(CHANNELS))
    assert from_graph.dtype == np.float32
    assert in_deviations(from_graph - from_torch) < 2e-5


@pytest.mark.parametrize("kind", KINDS)
def test_the_parity_report_speaks_of_real_windows_at_three_batch_sizes(kind: str) -> None:
    parity = exported(kind).parity
    assert list(parity["difference"]) == ["1", "5", "64"]
    assert parity["windows"] == "validation"
    assert 0 <= parity["max_difference"] == max(parity["difference"].values()) < parity["tolerance"] == 1e-4


def test_without_a_task_the_windows_are_synthetic() -> None:
    assert export(forecaster("linear")).parity["windows"] == "synthetic"


def test_exporting_again_gives_the_same_bytes_and_leaves_the_forecaster_as_it_was() -> None:
    model = fresh("lstm").train()
    before = model.digest
    deployed = export(model, task())
    assert (deployed.digest, deployed.files) == (exported("lstm").digest, exported("lstm").files)
    assert model.training
    assert model.digest == before
    assert [step.verb for step in model.lineage] == ["train"]
    assert [step.verb for step in deployed.lineage] == ["train", "export"]
    assert deployed.lineage[-1].data == task().fingerprint
    assert deployed.n_parameters == model.n_parameters


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["patchtst", "lstm"])
def test_another_process_exports_the_same_bytes(kind: str) -> None:
    code = f"from tests.deployables import exported, int8; print(exported({kind!r}).digest, int8({kind!r}).digest)"
    environment = {"PYTHONHASHSEED": "17", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, timeout=120
    )
    assert done.stdout.split() == [exported(kind).digest, deployables.int8(kind).digest]


def test_another_scaler_is_another_digest() -> None:
    moved = replace(exported("linear"), signature=task().signature.replace(mean=(1.0, 2.0, 3.0)))
    assert moved.digest != exported("linear").digest


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_holds_no_paths_of_this_machine_and_no_side_files(kind: str) -> None:
    for deployed in (exported(kind), *([] if kind == "seasonal-naive" else [deployables.int8(kind)])):
        for secret in (str(Path.cwd()), "site-packages", "stack_trace"):
            assert secret.encode() not in deployed.onnx
        model = onnx.load_from_string(deployed.onnx)
        assert {tensor.data_location for tensor in model.graph.initializer} == {onnx.TensorProto.DEFAULT}


def test_a_graph_tells_its_ports_channels_and_units() -> None:
    model = onnx.load_from_string(exported("mlp").onnx)
    shapes = {
        port.name: [size.dim_param or size.dim_value for size in port.type.tensor_type.shape.dim]
        for port in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {"context": ["batch", CONTEXT, 3], "forecast": ["batch", HORIZON, 3]}
    facts = {item.key.removeprefix("tsdistill."): item.value for item in model.metadata_props}
    assert json.loads(facts["channels"]) == list(CHANNELS)
    assert (facts["frequency"], facts["units"], facts["kind"]) == ("h", "raw less the offset", "mlp")


@pytest.mark.parametrize("make", [exported, int8])
def test_a_graph_says_whose_it_is_and_what_its_ports_hold(make: Callable[[str], Deployed]) -> None:
    model = onnx.load_from_string(make("lstm").onnx)
    facts = {item.key.removeprefix("tsdistill."): item.value for item in model.metadata_props}
    source = forecaster("lstm")
    assert [facts[name] for name in ("model", "config", "signature")] == [
        source.digest, source.config.digest, source.signature.digest,
    ]  # fmt: skip
    descriptions = {port.name: port.doc_string for port in (*model.graph.input, *model.graph.output)}
    assert descriptions["context"].startswith(
        "(batch, 29 past steps, channel: load, pressure, wind), float32, in raw values less "
    )
    assert descriptions["forecast"].startswith("(batch, 7 coming steps, channel: load, pressure, wind)")


def test_operators_left_in_float_are_listed() -> None:
    assert exported("linear").float_operators == {"Add": 3, "MatMul": 1, "Mul": 1, "ReduceMean": 1, "Sub": 3, "Div": 1}
    full, small = exported("lstm").float_operators, int8("lstm").float_operators
    assert full["LSTM"] == 2
    assert not {"LSTM", "MatMul", "Gemm"} & set(small)
    assert small["Sqrt"] == full["Sqrt"] == 1
    assert known(exported("lstm").manifest().deployment).float_operators == full


def test_an_operator_between_restored_integers_counts_as_integer() -> None:
    def graph(*restored: str) -> bytes:
        nodes = [helper.make_node("DequantizeLinear", [f"q{name}", "scale"], [name], name=name) for name in restored]
        nodes.append(helper.make_node("Conv", ["x", "w", "bias"], ["y"]))
        floats = {"scale": [], "bias": [3], "x": [1, 2, 7], "w": [3, 2, 1]}
        inputs = [
            helper.make_tensor_value_info(f"q{name}", TensorProto.INT8, shape)
            if name in restored
            else helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in floats.items()
        ]
        output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 7])
        return helper.make_model(helper.make_graph(nodes, "g", inputs, [output])).SerializeToString()

    assert float_operators(graph("x", "w")) == {}
    assert float_operators(graph("w")) == float_operators(graph()) == {"Conv": 1}


def test_channels_far_from_zero_keep_their_precision() -> None:
    # A mean far from zero costs float32 its digits: air pressure, mains frequency (50 +- 0.02 Hz), a counter.
    mean, scale = (0.0, 1012.34, 50.003, 1e5, -7e4), (1e-3, 8.1, 0.02, 3.0, 1e3)
    signature = Signature(context=29, horizon=7, channels=tuple("abcde"), mean=mean, scale=scale)
    model = LinearConfig().build(signature, seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    deployed = export(model)
    x = np.random.default_rng(0).standard_normal((5, 29, 5)) * scale + mean
    gap, where = difference(
        deployed.predict(x), model.predict(x.astype(np.float32)), np.asarray(scale), signature.channels
    )
    assert gap < 2e-5, where


def test_a_channel_that_float32_cannot_tell_apart_gets_an_offset() -> None:
    signature = Signature(context=29, horizon=7, channels=("a", "count"), mean=(0.0, 1e8), scale=(1.0, 2.0))
    deployed = export(SeasonalNaiveConfig(period=5).build(signature))
    x = np.arange(58.0).reshape(29, 2) / 64 + [0, 1e8]
    np.testing.assert_array_equal(deployed.predict(x)[:5], x[-5:])
    # Where nothing says how far it is, the values do.
    plain = signature.replace(mean=(0.0, 0.0), scale=(1.0, 1.0))
    with pytest.raises(ArtifactError, match=r"'count' must be far from the resolution.*Subtract a constant"):
        check_resolution(plain, np.ones(2), x[None])


def test_a_graph_that_forecasts_something_else_is_refused_with_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = exported("linear").onnx
    monkeypatch.setattr(exporter, "graph_of", lambda model: wrong)
    words = r"must forecast what torch does to 0.0001 .* got [\d.]+ at batch \d+, window \d+, step \d+, channel '\w+'"
    with pytest.raises(ArtifactError, match=words):
        export(fresh("linear", seed=5), task())


def test_a_graph_of_nan_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = exported("linear").onnx
    monkeypatch.setattr(exporter, "graph_of", lambda model: graph)

    def nan(self: Predictor, context: np.ndarray) -> dict[str, np.ndarray]:
        return {"forecast": np.full((len(context), HORIZON, 3), np.nan, np.float32)}

    monkeypatch.setattr(Predictor, "outputs", nan)
    with pytest.raises(ArtifactError, match="got inf at batch 1"):
        export(fresh("linear"), task())


def test_differences_are_counted_in_deviations_beyond_what_float32_can_write() -> None:
    reference = np.array([[[50.0, 1.0]]], dtype=np.float32)
    one_step = np.nextafter(reference, np.float32(np.inf), dtype=np.float32)
    unit = np.array([0.02, 2.0])
    assert difference(one_step, reference, unit, ("a", "b"))[0] == 0
    moved = reference + np.array([0.0, 0.5], dtype=np.float32)
    gap, where = difference(moved, reference, unit, ("a", "b"))
    assert gap == pytest.approx(0.25, rel=1e-5)
    assert where == "window 0, step 1, channel 'b'"


def test_without_a_scaler_the_windows_own_spread_is_the_unit() -> None:
    raw = Task(Panel.from_frame(deployables.hourly().reset_index(), time="ds"), context=29, horizon=7, scaler=None)
    deployed = export(SeasonalNaiveConfig(period=5).build(raw.signature), raw)
    spread = deployables.hourly().to_numpy().std(axis=0)
    np.testing.assert_allclose(deployed.parity["unit"], spread, rtol=0.2)


def test_a_control_is_exported_alike() -> None:
    model = fresh("linear", seed=7)
    model.control = fresh("linear")
    deployed = export(model, task())
    assert isinstance(deployed.control, Deployed)
    assert deployed.control.digest == exported("linear").digest != deployed.digest
    assert model.control.digest == forecaster("linear").digest


def test_a_task_with_other_steps_or_channels_is_refused() -> None:
    other = Task(task().panel, context=CONTEXT, horizon=HORIZON + 4)
    with pytest.raises(ShapeError, match=r"29 and 7 steps of .*, got 29 and 11 steps"):
        export(forecaster("linear"), other)


def test_a_longer_task_serves_its_last_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "graph_of", lambda model: exported("linear").onnx)
    assert export(forecaster("linear"), Task(task().panel, context=31, horizon=HORIZON)).context == CONTEXT


@pytest.mark.parametrize(
    ("verb", "made_by", "words"),
    [
        ("train", "export", "`train` must come before `export`.*Swap the two lines"),
        ("distill", "export", "`distill` must come before `export`.*Swap the two lines"),
        ("prune", "quantize", "`prune` must come before `quantize`.*Swap the two lines"),
        ("quantize", "export", "`quantize` must get a trainable forecaster.*Give quantize the forecaster that export"),
        ("export", "quantize", "`export` must get a trainable forecaster.*that quantize was given"),
    ],
)
def test_verbs_refuse_deployed_forecasters(verb: str, made_by: str, words: str) -> None:
    deployed = replace(exported("linear"), lineage=(LineageStep(verb="train"), LineageStep(verb=made_by)))
    with pytest.raises(OrderError, match=words):
        refuse_deployed(deployed, verb)
    refuse_deployed(forecaster("linear"), verb)


def test_exporting_twice_is_refused() -> None:
    with pytest.raises(OrderError, match="`export` must get a trainable forecaster"):
        export(exported("linear"))  # type: ignore[arg-type]


def test_a_deployed_forecaster_can_be_copied() -> None:
    original = exported("mlp")
    x = contexts()
    expected = original.predict(x)
    twin = copy.deepcopy(original)
    assert twin.digest == original.digest
    np.testing.assert_array_equal(twin.predict(x), expected)


def test_golden_windows_are_few_and_small() -> None:
    golden = exported("mlp").golden
    assert golden["context"].shape == (8, CONTEXT, 3)
    np.testing.assert_array_equal(golden["forecast"], exported("mlp").predictor.run(golden["context"]))
    wide = Signature(context=997, horizon=3, channels=tuple("abcdefghijklm"), mean=(0.0,) * 13, scale=(1.0,) * 13)
    assert export(SeasonalNaiveConfig(period=5).build(wide)).golden["context"].shape == (5, 997, 13)


def test_a_forecast_that_runs_away_is_compared_relative_to_its_size() -> None:
    spoilt = copy.deepcopy(forecaster("mlp"))
    with torch.no_grad():
        for parameter in spoilt.parameters():
            parameter.mul_(40.0)
    deployed = export(spoilt, task())
    assert deployed.parity["reach"] > 100
    assert TOLERANCE < deployed.parity["tolerance"] < 1e-6 * deployed.parity["reach"] * 100
    assert export(forecaster("mlp"), task()).parity["tolerance"] == TOLERANCE
