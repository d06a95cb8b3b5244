"""A quantile head is served like any forecast: the same quantiles as in torch, in raw units, never crossing."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from tests.deployables import CHANNELS, CONTEXT, FORCED, HORIZON, contexts, forecaster, hourly, in_deviations, task
from tests.tampering import GOLDEN, replace_file, tensors_of
from tests.typed import instance_of
from tsdistill.artifacts import load, save
from tsdistill.errors import ArtifactError, UnsupportedError
from tsdistill.exporting import Deployed, export
from tsdistill.models import BinnedHead, Forecaster, LSTMConfig, MLPConfig, QuantileHead
from tsdistill.quantization import Quantization, quantize
from tsdistill.quantization.judging import Judge, accuracy_refusals
from tsdistill.runtime import load as load_light
from tsdistill.runtime import verify

LEVELS = (0.05, 0.3, 0.5, 0.9)
CONFIGS = {
    "mlp": MLPConfig(width=5, depth=1, head=QuantileHead(levels=LEVELS)),
    "lstm": LSTMConfig(widths=(5,), patch=7, head=QuantileHead(levels=LEVELS)),
}


def shaken(model: Forecaster) -> Forecaster:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@functools.cache
def made(kind: str) -> tuple[Forecaster, Deployed]:
    model = shaken(CONFIGS[kind].build(task().signature))
    return model, export(model, task())


@pytest.mark.parametrize("kind", CONFIGS)
def test_deployed_quantiles_are_those_of_torch_and_rise(kind: str) -> None:
    model, deployed = made(kind)
    x = contexts(5, seed=1)
    from_graph, from_torch = deployed.predict(x, quantiles=True), model.predict(x, quantiles=True)
    assert from_graph.shape == (5, HORIZON, len(CHANNELS), len(LEVELS))
    assert in_deviations(np.moveaxis(from_graph - from_torch, -1, 1)) < 2e-5
    assert (np.diff(from_graph, axis=-1) > 0).all()
    np.testing.assert_array_equal(from_graph[..., LEVELS.index(0.5)], deployed.predict(x))
    assert np.isclose(deployed.parity["max_difference"], 0, atol=1e-4)


def test_a_graph_names_its_levels_in_every_precision() -> None:
    model, deployed = made("mlp")
    for artifact in (deployed, quantize(model, task(), FORCED)):
        graph = onnx.load_from_string(artifact.onnx)
        facts = {item.key: item.value for item in graph.metadata_props}
        assert json.loads(facts["tsdistill.quantiles"]) == list(LEVELS)
        (port,) = [port for port in graph.graph.output if port.name == "quantiles"]
        assert "quantile: 0.05, 0.3, 0.5, 0.9)" in port.doc_string
    point = onnx.load_from_string(export(forecaster("linear")).onnx)
    assert "tsdistill.quantiles" not in {item.key for item in point.metadata_props}


def test_quantiles_survive_saving_int8_and_a_machine_without_torch(tmp_path: Path) -> None:
    model, deployed = made("mlp")
    x = contexts(5, seed=1)
    again = load(save(deployed, tmp_path / "fp32"))
    np.testing.assert_array_equal(again.predict(x, quantiles=True), deployed.predict(x, quantiles=True))
    small = quantize(model, task(), FORCED)
    assert small.precision == "int8"
    light = load_light(save(small, tmp_path / "int8"))
    assert verify(tmp_path / "int8")["n_windows"] > 0
    quantiles = light.predict(x, quantiles=True)
    assert (np.diff(quantiles, axis=-1) >= 0).all()
    assert in_deviations(np.moveaxis(quantiles - deployed.predict(x, quantiles=True), -1, 1)) < 0.5


def test_golden_windows_hold_quantiles_that_are_replayed(tmp_path: Path) -> None:
    model, deployed = made("mlp")
    for name, artifact in (("fp32", deployed), ("int8", quantize(model, task(), FORCED))):
        n_windows = len(artifact.golden["context"])
        assert artifact.golden["quantiles"].shape == (n_windows, HORIZON, len(CHANNELS), len(LEVELS))
        np.testing.assert_array_equal(
            artifact.golden["quantiles"], artifact.predictor.outputs(artifact.golden["context"])["quantiles"]
        )
        folder = save(artifact, tmp_path / name)
        assert verify(folder)["max_difference"] == 0
        moved = dict(artifact.golden)
        moved["quantiles"] = moved["quantiles"] + np.array([0, 9, 0, 0], np.float32)
        replace_file(folder, GOLDEN, tensors_of(**moved))
        with pytest.raises(ArtifactError, match=r"stored ones, got .* at window .*, channel 'wind', quantile 0.3"):
            verify(folder)


def test_artifacts_from_before_quantiles_were_golden_stay_whole(tmp_path: Path) -> None:
    _, deployed = made("mlp")
    folder = save(deployed, tmp_path / "m")
    replace_file(folder, GOLDEN, tensors_of(**{name: deployed.golden[name] for name in ("context", "forecast")}))
    assert verify(folder)["max_difference"] == 0
    assert "quantiles" not in instance_of(Deployed, load(folder)).golden


def test_frames_get_a_column_for_every_level() -> None:
    _, deployed = made("mlp")
    frame = hourly()
    table = deployed.predict(frame, quantiles=True)
    wanted = [f"{channel}-q{level:g}" for channel in CHANNELS for level in LEVELS]
    assert list(table.columns) == wanted
    array = deployed.predict(frame.to_numpy()[-CONTEXT:], quantiles=True)
    np.testing.assert_allclose(table.to_numpy(), array.reshape(HORIZON, -1), rtol=1e-5)


@pytest.mark.parametrize("head", [None, BinnedHead(n_bins=13)], ids=["point", "bins"])
def test_a_model_without_quantiles_says_so(head: BinnedHead | None) -> None:
    config = MLPConfig(width=5, depth=1) if head is None else MLPConfig(width=5, depth=1, head=head)
    model = forecaster("mlp") if head is None else shaken(config.build(task().signature))
    deployed = export(model, task())
    assert np.isfinite(deployed.predict(contexts(2))).all()
    for source in (model, deployed, deployed.predictor):
        with pytest.raises(UnsupportedError, match=r"without a quantile head.*td.QuantileHead"):
            source.predict(contexts(2), quantiles=True)


def test_forms_are_judged_by_their_quantiles_too() -> None:
    model, full = made("mlp")
    judge, outer = Judge(full, task()), shaken(CONFIGS["mlp"].build(task().signature))
    with torch.no_grad():  # the median stays where it is; the other levels move away from it
        outer.load_state_dict(model.state_dict())
        rows = outer.get_parameter("last.bias").view(len(LEVELS), HORIZON)
        rows[[place for place in range(len(LEVELS)) if LEVELS[place] != 0.5]] += 3
    moved, numbers = judge.errors(export(outer.eval(), task())), judge.errors(full)
    assert numbers["wql_increase"] == numbers["increase"] == 0
    assert moved["mse"] == pytest.approx(numbers["mse"], rel=1e-3)
    assert moved["wql"] > 1.05 * numbers["wql"]
    refused = accuracy_refusals(moved, numbers, Quantization(max_error_increase=0.02))
    assert len(refused) == 1
    assert "weighted quantile loss is" in refused[0]
