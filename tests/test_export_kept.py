"""A graph is traced once for the same model, and never served to one that only looks the same."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tests import deployables
from tsdistill.exporting import graph as graphs
from tsdistill.models import Forecaster, LSTMConfig, MLPConfig


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[Forecaster]:
    """Models that were traced, none of which was kept before."""
    models: list[Forecaster] = []

    def counted(model: Forecaster) -> bytes:
        models.append(model)
        return model.digest.encode()  # tracing takes seconds, and what it gives does not matter here

    monkeypatch.setattr(graphs, "_kept", {})
    monkeypatch.setattr(graphs, "_traced", counted)
    return models


def _model(seed: int = 0) -> Forecaster:
    return MLPConfig(width=3).build(deployables.task().signature, seed=seed).eval()


def test_an_equal_model_has_the_graph_that_was_traced_before(traced: list[Forecaster]) -> None:
    first = graphs.graph_of(_model())
    assert graphs.graph_of(_model()) is first
    assert graphs.graph_of(copy.deepcopy(_model())) is first
    assert len(traced) == 1


def test_a_graph_that_is_traced_again_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = LSTMConfig(widths=(3,), patch=7).build(deployables.task().signature).eval()
    monkeypatch.setattr(graphs, "_kept", {})
    first = graphs.graph_of(model)
    monkeypatch.setattr(graphs, "_kept", {})
    assert graphs.graph_of(model) == first


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
    monkeypatch.setattr(graphs, "KEPT_BYTES", size + 1)
    graphs.graph_of(_model(seed=1))
    assert len(graphs._kept) == 1
    monkeypatch.setattr(graphs, "KEPT_BYTES", 0)
    graphs.graph_of(_model(seed=2))
    assert not graphs._kept
    assert len(traced) == 3
