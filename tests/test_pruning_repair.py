"""Repair without training: least squares against numpy, twins that stand in for each other, and what it reads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.test_pruning_groups import shaken
from tests.typed import known
from tsdistill.data import Task
from tsdistill.models import (
    Forecaster,
    InvertedTransformerConfig,
    LSTMConfig,
    MLPConfig,
    ModelConfig,
    PatchTSTConfig,
    TCNConfig,
    TSMixerConfig,
)
from tsdistill.pruning import Evidence, Pruning, prune, rebuild
from tsdistill.pruning.repairing import folded, refitted, regress
from tsdistill.testing import toy_batch, toy_task
from tsdistill.training import Training, train

MODELS: list[ModelConfig] = [
    MLPConfig(width=5, depth=1, hidden=7),
    LSTMConfig(widths=(7, 5), patch=11),
    LSTMConfig(widths=(5, 3), patch=11, bidirectional=True),
    LSTMConfig(widths=(5, 3), patch=11, mixing=True),
    PatchTSTConfig(depth=1, width=6, heads=3, feedforward=7, patch=11),
    InvertedTransformerConfig(depth=1, width=6, heads=3, feedforward=7),
    TSMixerConfig(depth=1, time_hidden=7, channel_hidden=5),
    TCNConfig(width=5, depth=1, hidden=7, patch=5),
]


@pytest.fixture(scope="module")
def task() -> Task:
    return toy_task()


def test_regression_is_least_squares_with_an_intercept() -> None:
    rng = np.random.default_rng(0)
    given, wanted = rng.standard_normal((101, 5)), rng.standard_normal((101, 3)) + 2
    weights, intercept = regress(torch.from_numpy(given), torch.from_numpy(wanted), (1e-12,))
    expected = np.linalg.lstsq(np.hstack([given, np.ones((101, 1))]), wanted, rcond=None)[0]
    assert np.allclose(weights.numpy(), expected[:5])
    assert np.allclose(intercept.numpy(), expected[5])


def test_what_says_nothing_of_the_rest_is_not_used() -> None:
    rng = np.random.default_rng(1)
    given, wanted = rng.standard_normal((29, 13)), rng.standard_normal((29, 2))
    weights, intercept = regress(torch.from_numpy(given), torch.from_numpy(wanted), (1e-6, 1e-5))
    assert float(weights.abs().max()) == 0
    assert np.allclose(intercept.numpy(), wanted.mean(axis=0))


def with_twins(model: Forecaster, one: int, other: int) -> None:
    """Make a unit of every group do exactly what another one does."""
    parameters = dict(model.named_parameters())
    for group in model.width_groups():
        if group.kind not in ("units", "heads"):
            continue
        for part in group.incoming:
            source, goal = (part.positions(torch.tensor([unit]), group.size).flatten() for unit in (one, other))
            with torch.no_grad():
                tensor, axis = parameters[part.parameter], known(part.axis)
                tensor.index_copy_(axis, goal, tensor.index_select(axis, source))


@pytest.mark.parametrize("config", MODELS, ids=lambda config: config.kind)
def test_a_twin_stands_in_for_its_twin(config: ModelConfig, task: Task) -> None:
    model = shaken(config)
    with_twins(model, 0, 2)
    keep = {
        group.name: [unit for unit in range(group.size) if unit != 2]
        for group in model.width_groups()
        if group.kind in ("units", "heads")
    }
    windows = Evidence(model, task).train
    context = toy_batch().context
    with torch.no_grad():
        repaired = rebuild(model, keep, mend=lambda whole, units: folded(whole, units, windows))
        wanted, cut, restored = (forecaster(context) for forecaster in (model, rebuild(model, keep), repaired))
    assert (cut - wanted).abs().max() > 1e-3
    assert (restored - wanted).abs().max() < 2e-4 * wanted.abs().max()


def test_a_unit_that_never_moves_becomes_a_bias(task: Task) -> None:
    model = shaken(MLPConfig(width=5, depth=1, hidden=7))
    state = model.state_dict()
    with torch.no_grad():
        state["blocks.0.expand.weight"][3] = 0
        state["blocks.0.expand.bias"][3] = 2
        keep, windows = {"block1.hidden": [0, 1, 2, 4, 5, 6]}, Evidence(model, task).train
        repaired = rebuild(model, keep, mend=lambda whole, units: folded(whole, units, windows))
        context = toy_batch().context
        assert torch.allclose(repaired(context), model(context), atol=1e-5)


def test_the_last_layer_is_fitted_to_what_it_said(task: Task) -> None:
    model = shaken(MLPConfig(width=5, depth=1, hidden=7))
    damaged, windows = rebuild(model, {}), Evidence(model, task).train
    with torch.no_grad():
        damaged.state_dict()["last.weight"].add_(1)
        damaged.state_dict()["last.bias"].sub_(2)
        context = toy_batch().context
        repaired = refitted(damaged, model, windows)
        assert (damaged(context) - model(context)).abs().max() > 1
        assert torch.allclose(repaired(context), model(context), atol=1e-3)


@pytest.mark.parametrize(
    "config", [PatchTSTConfig(depth=2, width=16, patch=11, dropout=0.0), LSTMConfig(widths=(16,), patch=11)],
    ids=lambda config: config.kind,
)  # fmt: skip
def test_repair_wins_back_most_of_what_a_cut_costs(config: ModelConfig, task: Task) -> None:
    model = train(config, task, Training(epochs=5, learning_rate=1e-2, precision="float32"))
    before, batch = model.digest, task.validation.batch(torch.arange(len(task.validation)))
    off = {}
    for repair in (False, True):
        smaller = prune(model, task, Pruning(ratio=0.5, repair=repair, recovery=None))
        off[repair] = float((smaller.forecast(batch) - model.forecast(batch)).square().mean())
    assert model.digest == before
    assert off[True] < 0.5 * off[False]


def test_repair_reads_training_windows_only(task: Task) -> None:
    panel = task.panel
    values = panel.items[0].values.copy()
    begin = task.borders[0].train
    values[begin:] = 1e3 * np.random.default_rng(5).standard_normal(values[begin:].shape)
    noisy = Task(
        replace(panel, items=(replace(panel.items[0], values=values),)), context=47, horizon=11, split=task.split
    )
    model = shaken(MLPConfig(width=5, depth=1, hidden=7))
    spec = Pruning(repair=True, criterion="taylor", recovery=None)
    assert prune(model, noisy, spec).digest == prune(model, task, spec).digest != model.digest


@pytest.mark.parametrize("groups", [("context",), ("width",), ("layers",), ("units", "heads", "width", "context")])
def test_every_kind_of_group_can_be_repaired(groups: tuple[str, ...], task: Task) -> None:
    model = shaken(PatchTSTConfig(depth=2, width=6, heads=2, patch=11, shortcut=True))
    spec = Pruning(groups=groups, recovery=None)
    judge = Evidence(model, task)
    errors = [(judge.error(prune(model, task, spec.replace(repair=repair)))) for repair in (False, True)]
    assert np.isfinite(errors).all()
    assert errors[1] != errors[0]
