"""Ridges of channels that lean on the map of all channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import tsdistill as td
from tests.typed import known
from tsdistill.data import Item, Panel
from tsdistill.errors import ConfigError
from tsdistill.models.pooling import STRENGTHS, choose_pooled, left_by, pooled
from tsdistill.models.ridge import NormalEquations, Statistics, choose
from tsdistill.testing import toy_task

POOLED = td.LinearConfig(individual=True, pooling=True)
PENALTIES = td.LinearConfig().penalties


def relatives(n_rows: int = 173, n_channels: int = 7, seed: int = 0) -> td.Task:
    """Short channels: rhythms of one period and of one kind, each with a damping of its own."""
    draw = np.random.default_rng(seed)
    values = np.zeros((n_rows, n_channels))
    for channel, own in enumerate(np.linspace(0.6, 1.1, n_channels)):
        noise = draw.normal(size=n_rows)
        for row in range(2, n_rows):
            values[row, channel] = own * values[row - 1, channel] - 0.4 * values[row - 2, channel] + noise[row]
    names = tuple(f"c{channel}" for channel in range(n_channels))
    return td.Task(
        Panel((Item("short", None, values),), names), context=23, horizon=5, split=td.Split.fractions(0.4, 0.2, 0.4)
    )


def sums(task: td.Task) -> tuple[Statistics, Statistics]:
    return Statistics.of(task.train, individual=True), Statistics.of(task.validation, individual=True)


def test_a_strong_pull_gives_the_map_of_all_and_a_weak_one_that_of_each() -> None:
    learnt, judged = sums(toy_task())
    whole = choose(pooled(learnt), pooled(judged), [1e-2], [0.0]).weight
    strong = choose_pooled(learnt, judged, [1e-2], [0.0], [1e12])
    assert torch.allclose(strong.weights, whole.expand_as(strong.weights), atol=1e-6)
    weak = choose_pooled(learnt, judged, [1e-2], [0.0], [1e-9])
    own = torch.stack([choose(alone, alone, [1e-9], [0.0]).weight for alone in learnt.channels()])
    assert torch.allclose(weak.weights, own, atol=1e-3)
    assert not torch.allclose(weak.weights, strong.weights, atol=1e-2)


def test_each_map_is_the_ridge_that_its_equation_says() -> None:
    learnt, judged = sums(relatives())
    maps = choose_pooled(learnt, judged, [1e-1], [0.0], [0.3])
    whole = choose(pooled(learnt), pooled(judged), [1e-1], [0.0]).weight
    for channel, own in enumerate(learnt.channels()):
        pull = 0.3 * own.gram.diagonal().mean() * torch.eye(23, dtype=torch.float64)
        wanted = torch.linalg.solve(own.gram + pull, own.cross + pull @ whole)
        assert torch.allclose(maps.weights[channel], wanted, atol=1e-8)


def test_the_sums_of_channels_are_those_of_all_and_what_a_map_leaves_is_what_its_windows_say() -> None:
    task = toy_task()
    learnt, together = Statistics.of(task.train, individual=True), Statistics.of(task.train)
    assert pooled(learnt).n_rows == together.n_rows
    for name, tensor in together.tensors().items():
        assert torch.allclose(pooled(learnt).tensors()[name], tensor, rtol=1e-9, atol=1e-7)
    weight = torch.randn(47, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    batch = task.train.batch(torch.arange(len(task.train)))
    centre = batch.context.double().mean(1, keepdim=True)
    x, y = ((part.double() - centre).transpose(1, 2).flatten(0, 1) for part in (batch.context, batch.target))
    rest = y - x @ weight
    left = left_by(together, weight)
    assert torch.allclose(left.cross, x.T @ rest, rtol=1e-5, atol=1e-2)
    assert float(left.power) == pytest.approx(float(rest.square().sum()), rel=1e-5)


def test_short_channels_gain_from_each_other() -> None:
    errors: dict[str, list[float]] = {"pooled": [], "each": [], "all": []}
    for seed in range(5):
        task = relatives(seed=seed)
        for name, config in (
            ("pooled", POOLED),
            ("each", td.LinearConfig(individual=True)),
            ("all", td.LinearConfig()),
        ):
            errors[name].append(float(td.evaluate(td.train(config, task), task, part="test")["mse"]))
    mean = {name: np.mean(values) for name, values in errors.items()}
    assert mean["pooled"] < mean["all"]
    assert mean["pooled"] < mean["each"]


def test_what_was_chosen_is_recorded_and_kept_by_a_refit() -> None:
    task = relatives()
    model = td.train(POOLED, task)
    metrics = model.lineage[-1].metrics
    assert metrics["strength"] in STRENGTHS
    assert metrics["penalty"] in PENALTIES
    assert metrics["validation_mse"] == pytest.approx(float(td.evaluate(model, task, "validation")["mse"]), rel=1e-4)
    whole = td.train(td.LinearConfig(), task).lineage[-1].metrics["validation_mse"]
    assert metrics["validation_mse"] <= whole * (1 + 1e-4)  # the map of all is among the candidates
    again = td.refit(model, task).lineage[-1].metrics
    assert {name: again[name] for name in ("penalty", "strength")} == {
        name: metrics[name] for name in ("penalty", "strength")
    }


@pytest.mark.parametrize("teacher", [None, "wise"])
def test_a_refit_on_the_same_windows_gives_the_same_maps(teacher: str | None) -> None:
    task = relatives()
    answer, alphas = (None, (0.0,)) if teacher is None else (Wise().forecast, (0.0, 0.3, 0.7))
    equations = NormalEquations(task.train, task.validation, answer, alphas)
    models = [POOLED.build(task.signature) for _ in range(2)]
    metrics = models[0].fit_closed_form(equations)
    models[1].refit_closed_form(equations, metrics)
    assert torch.allclose(models[0].get_parameter("map.weight"), models[1].get_parameter("map.weight"), atol=1e-6)


class Wise:
    """A teacher that says what happened, and a little more."""

    digest = "wise"

    def forecast(self, batch: Any) -> torch.Tensor:
        return batch.target + 0.1


@pytest.mark.parametrize("alpha", [0.5, "validation"])
def test_it_is_taught(alpha: Any) -> None:
    task = relatives()
    student = td.distill(Wise(), POOLED, task, losses=[td.OutputLoss(alpha=alpha)])
    assert known(student.control).digest == td.train(POOLED, task).digest
    solved = td.solve(POOLED, [task_without_scaler()], teacher=Wise(), alpha=alpha)
    assert solved.lineage[-1].metrics["strength"] in STRENGTHS
    again = td.refit(student, task, teacher=Wise())
    assert again.lineage[-1].verb == "refit"


def task_without_scaler() -> td.Task:
    task = relatives()
    return td.Task(task.panel, context=23, horizon=5, split=task.split, scaler=None)


def test_one_map_for_all_is_not_pooled() -> None:
    with pytest.raises(ConfigError, match=r"`pooling` must be False without `individual`, got pooling=True"):
        td.LinearConfig(pooling=True)
    assert td.LinearConfig.from_toml(POOLED.to_toml()) == POOLED
