"""A graph is traced once for the same model, and never served to one that only looks the same."""

from __future__ import annotations

import copy
import functools
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from tests import deployables
from tsdistill.exporting import graph as graphs
from tsdistill.exporting import templates as templates_of
from tsdistill.exporting import tracing
from tsdistill.models import MODELS, Forecaster, MLPConfig, ModelConfig
from tsdistill.models.mlp import MLP


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[Forecaster]:
    """Models that were traced, none of which was kept before."""
    models: list[Forecaster] = []

    def counted(model: Forecaster) -> bytes:
        models.append(model)
        return model.digest.encode()  # tracing takes seconds, and what it gives does not matter here

    monkeypatch.setattr(graphs, "_graphs", tracing.Latest())
    monkeypatch.setattr(graphs, "_made", counted)
    return models


@pytest.fixture
def templates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Forecaster]:
    """Models whose architecture was traced, none of which was kept before."""
    models: list[Forecaster] = []
    template = tracing._template

    def counted(model: Forecaster, *rest: Any) -> bytes:
        models.append(model)
        return template(model, *rest)

    monkeypatch.setattr(graphs, "_graphs", tracing.Latest())
    monkeypatch.setattr(tracing, "_templates", tracing.Latest())
    monkeypatch.setattr(tracing, "_template", counted)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return models


def _model(seed: int = 0) -> Forecaster:
    return MLPConfig(width=3).build(deployables.task().signature, seed=seed).eval()


def test_an_equal_model_has_the_graph_that_was_traced_before(traced: list[Forecaster]) -> None:
    first = graphs.graph_of(_model())
    assert graphs.graph_of(_model()) is first
    assert graphs.graph_of(copy.deepcopy(_model())) is first
    assert len(traced) == 1


def _check_filled(
    config: ModelConfig, templates: list[Forecaster], monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    """A graph that is filled with weights is the one that tracing the same model gives, to the byte."""
    signature = deployables.task().signature
    elsewhere = signature.replace(
        channels=tuple(f"other {name}" for name in signature.channels),
        mean=tuple(2.5 * mean + 1 for mean in signature.mean),
        scale=tuple(3.5 * scale for scale in signature.scale),
    )
    first = config.build(signature, seed=0).eval()
    second = config.build(elsewhere, seed=1).eval()
    graphs.graph_of(first)
    filled = graphs.graph_of(second)
    assert templates == [first]
    _forget(monkeypatch, cache / "elsewhere")
    assert graphs.graph_of(second) == filled
    assert templates == [first, second]
    _forget(monkeypatch, cache)  # as another process does that finds what the first one kept
    assert graphs.graph_of(second) == filled
    assert templates == [first, second]


def _forget(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    graphs._graphs.clear()
    tracing._templates.clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


def test_a_graph_that_is_filled_is_the_one_that_is_traced(
    templates: list[Forecaster], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _check_filled(MLPConfig(width=3, depth=1), templates, monkeypatch, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("config", [member.examples()[0] for member in MODELS], ids=lambda config: config.kind)
def test_every_architecture_is_traced_once(
    config: ModelConfig, templates: list[Forecaster], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if config.needs is not None:
        pytest.skip("it needs covariates")
    _check_filled(config, templates, monkeypatch, tmp_path)


def test_a_class_of_someone_else_is_traced_for_every_scaling(templates: list[Forecaster]) -> None:
    class WritesItsScale(MLP):
        def activations(self, context: torch.Tensor, *rest: Any, **options: Any) -> Any:
            return super().activations(context * self.signature.scale[0], *rest, **options)

    signature = deployables.task().signature
    models = [MLPConfig(width=3, depth=1).build(signature, seed=seed).eval() for seed in (0, 1)]
    models.append(MLPConfig(width=3, depth=1).build(signature.replace(scale=(7.0,) * len(signature.scale))).eval())
    for model in models:
        model.__class__ = WritesItsScale
        graphs.graph_of(model)
    assert templates == [models[0], models[2]]


@pytest.mark.parametrize("change", ["weights", "class", "attribute", "hook", "unknown state"])
def test_what_may_compute_something_else_is_traced(change: str, traced: list[Forecaster]) -> None:
    graphs.graph_of(_model())
    other = _model(seed=1 if change == "weights" else 0)
    layer = next(module for module in other.modules() if isinstance(module, nn.Linear))
    if change == "class":
        other.__class__ = type("Edited", (type(other),), {})
    elif change == "attribute":
        layer.__dict__["note"] = 2.0
    elif change == "hook":
        layer.register_forward_hook(lambda module, inputs, output: output * 2)
    elif change == "unknown state":
        other.__dict__["shift"] = [torch.ones(1)]
    graphs.graph_of(other)
    graphs.graph_of(other)
    assert len(traced) == (3 if change in ("hook", "unknown state") else 2)


def test_no_more_is_kept_than_was_said(traced: list[Forecaster], monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(graphs.graph_of(_model()))
    monkeypatch.setattr(tracing, "KEPT_BYTES", size + 1)
    graphs.graph_of(_model(seed=1))
    assert len(graphs._graphs) == 1
    monkeypatch.setattr(tracing, "KEPT_BYTES", 0)
    graphs.graph_of(_model(seed=2))
    assert not graphs._graphs
    assert len(traced) == 3


def _kept(folder: Path) -> list[Path]:
    return sorted((folder / "tsdistill" / "graphs").glob("*.onnx"))


@pytest.mark.parametrize("damage", ["cut off", "another byte", "empty", "external data"])
def test_a_kept_trace_that_is_not_whole_is_made_again(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    graph = onnx.helper.make_graph([], "one", [], [], [onnx.numpy_helper.from_array(np.ones(3), "w")])
    whole = onnx.helper.make_model(graph).SerializeToString()
    assert templates_of.template_of(("key", 1), lambda: whole) == whole
    assert templates_of.template_of(("key", 1), lambda: b"another") == whole
    (path,) = _kept(tmp_path)
    content = path.read_bytes()
    if damage == "external data":
        graph.initializer[0].ClearField("raw_data")
        graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
        graph.initializer[0].external_data.add(key="location", value="/etc/hostname")
        changed = onnx.helper.make_model(graph).SerializeToString()
        content = hashlib.sha256(changed).digest() + changed
    path.write_bytes({"cut off": content[:-3], "another byte": content[:-1] + b"x", "empty": b""}.get(damage, content))
    assert templates_of.template_of(("key", 1), lambda: whole) == whole
    assert path.read_bytes()[32:] == whole


def test_what_cannot_be_named_is_not_kept_and_a_cache_that_cannot_be_written_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for key in (None, (lambda: 1,), (type("Own", (), {}),), ([object()],)):
        assert templates_of.template_of(key, lambda: b"made") == b"made"
    assert not _kept(tmp_path)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert templates_of.template_of(("key",), lambda: b"made") == b"made"


def test_the_oldest_traces_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(templates_of, "MAX_FILES", 2)
    for number in range(4):
        templates_of.template_of((number,), functools.partial(bytes, [number]))
        for place, path in enumerate(sorted(_kept(tmp_path), key=lambda path: path.read_bytes()[32:])):
            os.utime(path, (place, place))
    assert sorted(path.read_bytes()[32:] for path in _kept(tmp_path)) == [b"\x02", b"\x03"]
