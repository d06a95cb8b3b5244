"""Quantization-aware training: what it computes is what is deployed, and it gives back accuracy that rounding takes."""

from __future__ import annotations

import copy
import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from tests.deployables import contexts, in_deviations, task
from tests.recipes import toy_csv, toy_recipe
from tsdistill.artifacts import load, save
from tsdistill.cli import app
from tsdistill.data.task import Task
from tsdistill.errors import ArtifactError, ConfigError, DivergenceError, UnsupportedError
from tsdistill.evaluation import evaluate
from tsdistill.exporting import export
from tsdistill.models import (
    DLinearConfig,
    Forecaster,
    LinearConfig,
    LSTMConfig,
    MLPConfig,
    ModelConfig,
    PatchTSTConfig,
    QuantileHead,
    SeasonalNaiveConfig,
    TCNConfig,
)
from tsdistill.quantization import QAT, Dynamic, Quantization, Static, WeightOnly, choice, quantize
from tsdistill.quantization.calibration import ranges_of
from tsdistill.quantization.dynamic import dynamic_graph
from tsdistill.quantization.fake_quantized import RoundedLSTM, Rounding, fake_quantize, fold_rounded
from tsdistill.quantization.qat import train_rounded
from tsdistill.quantization.static import static_graph
from tsdistill.quantization.weight_only import weight_only_graph
from tsdistill.runtime import Predictor
from tsdistill.testing import toy_batch, toy_signature, toy_task
from tsdistill.training import Training, TruthObjective, fit, train

QUICK = Training(epochs=2, batch_size=37, learning_rate=1e-3, precision="float32")

MODELS: dict[str, ModelConfig] = {
    "lstm": LSTMConfig(widths=(5, 3), patch=7, bidirectional=True),
    "patchtst": PatchTSTConfig(depth=1, width=6, heads=2, patch=7, stride=5),
    "tcn": TCNConfig(width=5, depth=2, patch=5),
    "dlinear": DLinearConfig(kernel=5, individual=True),
}


def shaken(config: ModelConfig, size: float = 0.3) -> Forecaster:
    """A forecaster whose every weight has something to say."""
    model = config.build(task().signature)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@functools.cache
def folded_graph(kind: str, rounding: Rounding) -> tuple[Forecaster, Forecaster, bytes]:
    """A forecaster, the same fake-quantized, and the float graph of what that folds to."""
    model = shaken(MODELS[kind])
    fake = fake_quantize(model, rounding).eval()
    return model, fake, export(fold_rounded(fake, model)).onnx


@pytest.mark.parametrize(
    ("kind", "rounding"),
    [
        ("lstm", Dynamic().rounding()),
        ("patchtst", Dynamic(per_channel=False).rounding()),
        ("dlinear", Dynamic().rounding()),
        ("lstm", WeightOnly(weight_bits=4, block_size=16).rounding()),
        ("dlinear", WeightOnly(weight_bits=4, block_size=16).rounding()),
        ("dlinear", WeightOnly(weight_bits=4, block_size=32).rounding()),
        ("tcn", WeightOnly(weight_bits=4, block_size=16).rounding()),
    ],
)
def test_what_is_deployed_forecasts_what_the_training_saw(kind: str, rounding: Rounding) -> None:
    model, fake, graph = folded_graph(kind, rounding)
    x = contexts(11, seed=1)
    if rounding.rounds_inputs:
        small = dynamic_graph(graph, per_channel=rounding.per_channel, weight_bits=rounding.weight_bits)
    else:
        small = weight_only_graph(graph, weight_bits=4, block_size=rounding.block_size)
    deployed = Predictor(small, model.signature).predict(x)
    moved = in_deviations(fake.predict(x) - model.predict(x))
    assert moved > 0.01
    # Float32 in raw units: the steps of a pressure of 1012 are 1e-5 deviations.
    assert in_deviations(deployed - fake.predict(x)) < 1e-4


def test_static_forms_differ_by_less_than_what_rounding_moves() -> None:
    # Its ranges are those of float activations, and what a convolution shares with a shortcut is rounded for both.
    model, fake, graph = folded_graph("tcn", Static().rounding())
    x = contexts(11, seed=1)
    small = static_graph(graph, ranges_of(graph, {"context": x}))
    deployed = Predictor(small, model.signature).predict(x)
    differences = (deployed - fake.predict(x), fake.predict(x) - model.predict(x))
    gap, moved = (np.sqrt(np.mean(difference**2)) for difference in differences)
    assert 0 < gap < 1.5 * moved


def test_rounding_without_training_deploys_what_plain_quantization_does() -> None:
    model, _, graph = folded_graph("lstm", Dynamic().rounding())
    plain, rounded = (weights_of(dynamic_graph(source)) for source in (export(model).onnx, graph))
    assert len(plain) > 5
    assert plain.keys() == rounded.keys()
    for name, values in plain.items():
        np.testing.assert_allclose(rounded[name], values, rtol=1e-6, err_msg=name)


def weights_of(graph: bytes) -> dict[str, np.ndarray]:
    """Whole numbers and scales of a graph by name."""
    initializers = onnx.load_from_string(graph).graph.initializer
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in initializers}
    return {name: array for name, array in arrays.items() if "quantized" in name or name.endswith("_scale")}


@pytest.mark.parametrize("kind", MODELS)
def test_folded_weights_lie_on_their_grid_and_nothing_else_changes(kind: str) -> None:
    model, rounding = shaken(MODELS[kind]), WeightOnly().rounding()
    before = model.digest
    plain = fold_rounded(fake_quantize(model, rounding), model)
    rounded = {name for name, _ in rounding.layers(model)}
    assert (model.digest, plain.state_dict().keys()) == (before, model.state_dict().keys())
    assert type(plain) is type(model)
    for name, weight in plain.named_parameters():
        layer, _, own = name.rpartition(".")
        if layer not in rounded or not own.startswith("weight"):
            assert torch.equal(weight, model.get_parameter(name))
            continue
        # Individual maps have a scale for every output of every channel.
        rows = weight.detach().flatten(0, 1) if kind == "dlinear" else weight.detach().flatten(1)
        steps = rows / (rows.abs().amax(dim=1, keepdim=True) / 127)
        torch.testing.assert_close(steps, steps.round(), atol=1e-4, rtol=0)
        assert not torch.equal(weight, model.get_parameter(name))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_cell_without_rounding_is_the_lstm_of_torch(bidirectional: bool) -> None:
    torch.manual_seed(0)
    reference = nn.LSTM(7, 5, batch_first=True, bidirectional=bidirectional)
    rounded = RoundedLSTM(reference, rounds_inputs=False)
    rows = torch.randn(3, 11, 7, requires_grad=True)
    outputs, expected = rounded(rows), reference(rows)
    for value, other in zip((outputs[0], *outputs[1]), (expected[0], *expected[1]), strict=True):
        torch.testing.assert_close(value, other)
    sums = (outputs[0].square().sum(), expected[0].square().sum())
    gradients = [torch.autograd.grad(total, rows, retain_graph=True)[0] for total in sums]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("kind", MODELS)
def test_the_gradient_reaches_every_weight_through_the_rounding(kind: str) -> None:
    config = MODELS[kind]
    model = config.replace(**({"dropout": 0.0} if "dropout" in type(config).model_fields else {})).build(
        toy_signature()
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    form = Static(weight_bits=8) if kind == "tcn" else Dynamic(weight_bits=8)
    batch = toy_batch()
    gradients = []
    for network in (model.train(), fake_quantize(model, form.rounding()).train()):
        loss, _ = TruthObjective()(network, batch)
        slopes = torch.autograd.grad(loss, list(network.parameters()))
        gradients.append(torch.cat([gradient.flatten() for gradient in sorted(slopes, key=lambda g: tuple(g.shape))]))
    assert gradients[0].shape == gradients[1].shape
    # Rounded at 8 bits, the loss pulls nearly as it did.
    norms = [gradient.norm() for gradient in gradients]
    assert float(norms[1] / norms[0]) == pytest.approx(1, abs=0.2)


def test_layers_kept_in_float_round_nothing() -> None:
    model = shaken(MODELS["patchtst"])
    names = tuple(name for name, module in model.named_modules() if isinstance(module, nn.Linear))
    four_bits = replace(Dynamic().rounding(), weight_bits=4)
    kept = fake_quantize(model, replace(four_bits, keep_float=names[1:]))
    assert torch.equal(kept.get_parameter(f"{names[1]}.weight"), model.get_parameter(f"{names[1]}.weight"))
    x = contexts(5)
    few, all_of_them = (in_deviations(forecaster.predict(x) - model.predict(x)) for forecaster in
                        (kept, fake_quantize(model, four_bits)))  # fmt: skip
    assert 0 < few < all_of_them
    with pytest.raises(UnsupportedError, match="nothing to quantize"):
        fake_quantize(model, Dynamic(keep_float=names).rounding())


def error(model: Forecaster, task: Task) -> float:
    return float(evaluate(model, task, part="validation")["mse"])


@pytest.mark.parametrize("config", [MLPConfig(width=17, depth=1, dropout=0.0), LSTMConfig(widths=(13,), patch=8)])
def test_training_recovers_what_four_bits_lose(config: ModelConfig) -> None:
    task = toy_task()
    spec = QAT(weight_bits=4, training=Training(epochs=6, precision="float32"))
    rounding = WeightOnly(weight_bits=4).rounding()
    lost, recovered = [], []
    for seed in (0, 1, 2):
        full = train(config, task, Training(epochs=25, learning_rate=3e-3, precision="float32", seed=seed))
        # As long in float, so that what is compared is the rounding and not the training.
        longer = copy.deepcopy(full)
        fit(longer, task, spec.training, TruthObjective())
        plain = fold_rounded(fake_quantize(longer, rounding), longer)
        trained, metrics = train_rounded(full, task, spec)
        assert metrics["objective"] == "MSE(model, truth)"
        lost.append(error(plain, task) - error(longer, task))
        recovered.append(error(plain, task) - error(trained, task))
    assert np.mean(lost) > 0
    assert np.mean(recovered) > 0.3 * np.mean(lost)


def test_a_stopped_training_continues_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, checkpoint = toy_task(), tmp_path / "run.safetensors"
    spec = QAT(training=QUICK)
    model = LSTMConfig(widths=(5,), patch=11).build(task.signature)
    whole, _ = train_rounded(model, task, spec)

    def stop(progress: float) -> None:
        if progress >= 0.5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TruthObjective, "at", staticmethod(stop))
        with pytest.raises(KeyboardInterrupt):
            train_rounded(model, task, spec, checkpoint=checkpoint)
    assert checkpoint.exists()
    resumed, _ = train_rounded(model, task, spec, checkpoint=checkpoint)
    assert resumed.digest == whole.digest
    assert resumed.digest != model.digest
    # The same forecaster trained without rounding, or with other bits, is another run.
    with pytest.raises(ArtifactError, match="belongs to another run"):
        fit(copy.deepcopy(model), task, QUICK, TruthObjective(), checkpoint=checkpoint)
    with pytest.raises(ArtifactError, match="belongs to another run"):
        train_rounded(model, task, spec.replace(weight_bits=8), checkpoint=checkpoint)


@pytest.mark.slow
def test_paths_may_be_text(tmp_path: Path) -> None:
    task = toy_task()
    model = train(MLPConfig(width=5, depth=1), task, QUICK)
    model.control = copy.deepcopy(model)
    spec = QAT(training=QUICK.replace(max_steps=2), require_gain=False, max_error_increase=9.0)
    cache, checkpoint = str(tmp_path / "cache"), str(tmp_path / "run.safetensors")
    teacher = train(LinearConfig(), task)
    deployed = quantize(model, task, spec, teacher=teacher, cache=cache, checkpoint=checkpoint, progress=False)
    assert deployed.control is not None
    assert {path.name for path in tmp_path.iterdir()} >= {"cache", "run.safetensors", "control-run.safetensors"}


@functools.cache
def aware() -> tuple[Task, Forecaster, Any]:
    """A forecaster with a control, trained by a teacher and deployed."""
    task = toy_task()
    model = train(MLPConfig(width=13, depth=1), task, QUICK)
    model.control = copy.deepcopy(model)
    teacher = train(LinearConfig(), task)
    spec = QAT(training=QUICK.replace(seed=5), require_gain=False, weight_bits=4)
    before = model.digest
    deployed = quantize(model, task, spec, teacher=teacher)
    assert model.digest == before
    return task, model, (teacher, spec, deployed)


@pytest.mark.slow
def test_the_lineage_tells_what_training_gained() -> None:
    task, model, (teacher, spec, deployed) = aware()
    step = deployed.lineage[-1]
    assert [entry.verb for entry in deployed.lineage] == ["train", "export", "quantize"]
    assert step.spec == {"quantization": spec.to_dict(), "teacher": teacher.digest}
    assert step.seed == 5
    rows = {row["name"]: row for row in step.metrics["candidates"]}
    assert list(rows) == ["fp32", "weight-only", "qat"]
    assert rows["qat"]["mse"] == pytest.approx(error(deployed, task))
    assert rows["fp32"]["mse"] == pytest.approx(error(model, task), rel=1e-4)
    assert rows["qat"]["mse"] < rows["weight-only"]["mse"]
    assert rows["qat"]["graph_bytes"] == pytest.approx(rows["weight-only"]["graph_bytes"], rel=0.01)
    assert step.metrics["chosen"] == "qat"
    assert step.metrics["training"]["steps"] > 0
    assert "teacher" in step.metrics["training"]["objective"]
    assert deployed.precision == "int4-weights"


def test_a_control_is_trained_alike_without_the_teacher() -> None:
    _, _, (_, _, deployed) = aware()
    assert deployed.control.precision == deployed.precision
    assert deployed.control.onnx != deployed.onnx
    assert len(deployed.control.onnx) == pytest.approx(len(deployed.onnx), rel=0.01)


def test_training_in_vain_is_refused_with_numbers() -> None:
    task = toy_task()
    model = train(MLPConfig(width=5, depth=1), task, Training(epochs=20, learning_rate=3e-3, precision="float32"))
    spec = QAT(training=Training(epochs=1, learning_rate=0.3, precision="float32"), max_error_increase=99.0)
    with pytest.raises(UnsupportedError, match=r"against .* with method='dynamic', which trains nothing"):
        quantize(model, task, spec)


def test_quantiles_are_trained_with_their_own_error() -> None:
    task = toy_task()
    model = LSTMConfig(widths=(5,), patch=11, head=QuantileHead(levels=(0.1, 0.5, 0.9))).build(task.signature)
    trained, metrics = train_rounded(model, task, QAT(training=QUICK))
    assert metrics["objective"] == "pinball(model, truth)"
    context = task.validation.batch(torch.arange(7)).context
    quantiles = trained.activations(context).distribution
    assert quantiles is not None
    assert bool((quantiles.diff(dim=-1) >= 0).all())


@pytest.mark.parametrize(
    ("config", "spec", "form"),
    [
        (MODELS["tcn"], QAT(), "static"),
        (MODELS["tcn"], QAT(weight_bits=4), "weight-only"),
        (MODELS["lstm"], QAT(weight_bits=8), "dynamic"),
        (MODELS["lstm"], Static(), "static"),
    ],
)
def test_the_form_follows_from_layers_and_bits(config: ModelConfig, spec: Quantization, form: str) -> None:
    chosen = spec.deployed_form(config.build(task().signature))
    assert (chosen.method, chosen.bits) == (form, spec.bits)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (LinearConfig(), r"'linear' one, which is solved in closed form"),
        (SeasonalNaiveConfig(period=24), "'seasonal-naive' one without layers.*Use td.export"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_exported(
    config: ModelConfig, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(choice, "export")
    for verb in (train_rounded, quantize):
        with pytest.raises(UnsupportedError, match=rf"method='qat' for a .*{words}"):
            verb(config.build(toy_signature()), toy_task(), QAT())


@pytest.mark.parametrize("per_channel", [False, True])
def test_four_bits_are_trained_with_a_scale_per_output_as_they_are_deployed(per_channel: bool) -> None:
    # Trained with one scale per layer, the weights would be rounded anew when they are deployed.
    spec = QAT(weight_bits=4, block_size=32, per_channel=per_channel)
    model = shaken(MODELS["dlinear"])
    fake = fake_quantize(model, spec.deployed_form(model).rounding())
    deployed = weight_only_graph(export(fold_rounded(fake, model)).onnx, weight_bits=4, block_size=32)
    x = contexts(5)
    assert in_deviations(Predictor(deployed, model.signature).predict(x) - fake.eval().predict(x)) < 1e-4


def test_lstms_of_another_kind_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="Stack single layers"):
        RoundedLSTM(nn.LSTM(3, 5, num_layers=2, batch_first=True), rounds_inputs=True)


def test_a_diverging_training_is_an_error() -> None:
    task = toy_task()
    model = MLPConfig(width=5, depth=1).build(task.signature)
    with torch.no_grad():
        model.get_parameter("last.bias").fill_(float("nan"))
    with pytest.raises(DivergenceError):
        train_rounded(model, task, QAT(training=QUICK))


def test_a_teacher_of_a_method_that_does_not_train_is_refused() -> None:
    model = MLPConfig(width=5, depth=1).build(toy_signature())
    with pytest.raises(ConfigError, match="`teacher` must be None with method='dynamic'"):
        quantize(model, toy_task(), Quantization(), teacher=model)


def test_a_spec_survives_json_and_toml() -> None:
    spec = QAT(weight_bits=4, training=QUICK)
    assert Quantization.from_json(spec.to_json()) == spec == Quantization.from_toml(spec.to_toml())
    assert "training" not in Quantization().to_dict()


def test_the_shell_trains_too(tmp_path: Path) -> None:
    recipe = toy_recipe(toy_csv(tmp_path))
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    save(train(MLPConfig(width=5, depth=1), recipe.task.build(recipe.data.load()), QUICK), tmp_path / "model")
    options = ["--method", "qat", "--bits", "4", "--epochs", "1", "--max-error-increase", "9", "--force", "--quiet"]
    places = ["--recipe", tmp_path / "recipe.toml", "--teacher", tmp_path / "model", "--out", tmp_path / "out"]
    done = CliRunner().invoke(app, ["quantize", *map(str, (tmp_path / "model", *places)), *options, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["chosen"] == "qat"
    step = load(tmp_path / "out").lineage[-1]
    assert step.spec["quantization"]["training"]["epochs"] == step.metrics["training"]["epochs"] == 1
    assert step.spec["teacher"] == load(tmp_path / "model").digest
