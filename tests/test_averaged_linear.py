"""Ridges at several contexts and centres against slow plain versions: maps, rolling origins, the mean, the teacher."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tsdistill.data import Panel, Split, Task, Windows
from tsdistill.data.panel import Item
from tsdistill.distillation import distill
from tsdistill.errors import ConfigError
from tsdistill.losses import OutputLoss
from tsdistill.models import AveragedLinearConfig, LinearConfig, MLPConfig
from tsdistill.models.averaged import AveragedLinear
from tsdistill.models.ridge import Statistics
from tsdistill.models.rolling import (
    Block,
    Centre,
    Centred,
    best_penalty,
    blocks,
    channel_of,
    rolling_errors,
    solve,
    squared_error,
)
from tsdistill.testing import toy_panel, toy_task
from tsdistill.training import Training, train

PENALTIES = (0.01, 0.3)


def rows(windows: Windows, index: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Contexts and targets of some windows in float64, channels as windows of their own."""
    batch = windows.batch(index)
    x, y = (values.transpose(1, 2).flatten(0, 1).double().numpy() for values in (batch.context, batch.target))
    return x, y


def plain_forecast(
    learnt: tuple[np.ndarray, np.ndarray], x: np.ndarray, context: int, centre: Centre, penalty: float
) -> np.ndarray:
    """What a ridge of the last steps of windows forecasts, from the windows themselves."""

    def centred(windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        recent = windows[:, -context:]
        middle = recent[:, -(context if centre == "window" else centre) :].mean(1, keepdims=True)
        return recent - middle, middle

    z, middle = centred(learnt[0])
    gram = z.T @ z
    weight = np.linalg.solve(gram + penalty * np.trace(gram) / context * np.eye(context), z.T @ (learnt[1] - middle))
    z, middle = centred(x)
    forecast: np.ndarray = z @ weight + middle
    return forecast


@pytest.mark.parametrize(("context", "centre"), [(47, "window"), (13, "window"), (47, 1), (13, 5), (13, 29)])
def test_a_map_is_the_ridge_of_the_centred_last_steps(context: int, centre: Centre) -> None:
    windows = toy_task().train.subset(torch.arange(83))
    weight = solve(Statistics.of(windows), context, centre, 0.1)
    x, y = rows(windows, torch.arange(83))
    middle = x.mean(1, keepdims=True)
    expected = plain_forecast((x, y), x, context, min(centre, context) if centre != "window" else centre, 0.1)
    forecast = (x - middle) @ weight.numpy() + middle
    assert np.abs(forecast - expected).max() < 1e-8
    error = squared_error(weight, Statistics.of(windows))
    assert error == pytest.approx(float(((expected - y) ** 2).sum()), rel=1e-8)


def test_rolling_origins_learn_from_earlier_blocks_and_leave_shared_targets_out() -> None:
    windows = toy_task().train.subset(torch.arange(120))
    errors, n_values = rolling_errors(blocks(windows, 3), 13, 1, PENALTIES)
    expected = np.zeros(len(PENALTIES))
    count = 0
    for first, end in ((40, 80), (80, 120)):
        learnt = rows(windows, torch.arange(first))
        # A window's target is 11 steps long: ten windows after the border share rows with what was learnt.
        x, y = rows(windows, torch.arange(first + 10, end))
        count += y.size
        for number, penalty in enumerate(PENALTIES):
            expected[number] += ((plain_forecast(learnt, x, 13, 1, penalty) - y) ** 2).sum()
    assert n_values == count
    assert errors == pytest.approx(expected.tolist(), rel=1e-4)


def test_every_item_is_cut_into_blocks_of_its_own_time() -> None:
    values = toy_panel().items[0].values
    items = (Item("a", None, values[:211]), Item("b", None, values[211:]))
    panel = Panel(items, channels=("x", "y", "z"), name="two")
    windows = Task(panel, context=31, horizon=11, split=Split.fractions(0.5, 0.25, 0.25)).train
    parts = blocks(windows, 3)
    n_rows = 3 * len(windows)
    assert sum(part.whole.n_rows for part in parts) == n_rows
    assert sum(part.later.n_rows for part in parts if part.later is not None) == n_rows - 3 * 2 * 2 * 10
    whole = Statistics.of(windows)
    together = sum((part.whole for part in parts[1:]), start=parts[0].whole)
    assert torch.allclose(together.gram, whole.gram, rtol=1e-9)


def test_blocks_without_windows_are_left_out() -> None:
    windows = toy_task().train.subset(torch.arange(2))
    parts = blocks(windows, 5)
    assert [part.whole.n_rows for part in parts] == [3, 3]
    assert all(part.later is None for part in parts[1:])


def test_one_context_is_the_ridge_of_it() -> None:
    task = toy_task()
    averaged = train(AveragedLinearConfig(contexts=(47,), penalties=(0.03,)), task)
    alone = train(LinearConfig(penalties=(0.03,)), task)
    context = task.test.batch(torch.arange(5)).context
    assert torch.allclose(averaged(context), alone(context), atol=1e-5)


def test_several_are_one_map_of_the_same_size_that_forecasts_their_mean() -> None:
    task = toy_task()
    config = AveragedLinearConfig(contexts=(13, 29, 47), centres=("window", 3))
    averaged = train(config, task)
    context = task.test.batch(torch.arange(7)).context
    members = [
        train(config.replace(contexts=(steps,), centres=(centre,)), task)(context)
        for steps in (13, 29, 47)
        for centre in config.centres
    ]
    assert torch.allclose(averaged(context), torch.stack(members).mean(0), atol=1e-5)
    assert averaged.n_parameters == 47 * 11
    recorded = averaged.lineage[-1].metrics["members"]
    assert [(member["context"], member["centre"]) for member in recorded[:3]] == [
        (13, "window"),
        (13, 3),
        (29, "window"),
    ]


def test_the_best_of_rolling_origins_are_averaged() -> None:
    task = toy_task()
    everything = train(AveragedLinearConfig(), task).lineage[-1].metrics["members"]
    best = train(AveragedLinearConfig(n_best=2), task).lineage[-1].metrics["members"]
    by_error = sorted(everything, key=lambda member: member["error"])
    assert sorted(best, key=lambda member: member["error"]) == by_error[:2]


def test_an_individual_map_is_the_one_of_that_channel_alone() -> None:
    task = toy_task()
    model = train(AveragedLinearConfig(individual=True, contexts=(13, 47)), task)
    assert isinstance(model, AveragedLinear)
    for channel in range(3):
        one = Statistics.of(channel_of(task.train, channel))
        ridges = model.lineage[-1].metrics["members"][channel]
        maps = [solve(one, ridge["context"], ridge["centre"], ridge["penalty"]) for ridge in ridges]
        assert torch.allclose(model.map.weight[channel].double(), torch.stack(maps).mean(0).T, atol=1e-5)


def test_a_teacher_blends_in_and_the_control_is_the_same_choice_without_it() -> None:
    task = toy_task()
    teacher = train(MLPConfig(width=5), task, Training(max_steps=3, precision="float32"))
    student = distill(teacher, AveragedLinearConfig(), task, losses=[OutputLoss(alpha=0.5)])
    alone = train(AveragedLinearConfig(), task)
    assert isinstance(student, AveragedLinear)
    assert student.control is not None
    assert student.control.digest == alone.digest
    assert student.lineage[-1].metrics["members"] == alone.lineage[-1].metrics["members"]
    imitation = distill(teacher, AveragedLinearConfig(), task, losses=[OutputLoss(alpha=1.0)], control=False)
    context = task.test.batch(torch.arange(5)).context
    halfway = (imitation(context) + alone(context)) / 2
    assert torch.allclose(student(context), halfway, atol=1e-5)
    chosen = distill(teacher, AveragedLinearConfig(), task, losses=[OutputLoss(alpha="validation")], control=False)
    metrics = chosen.lineage[-1].metrics
    assert metrics["validation_mse"] <= alone.lineage[-1].metrics["validation_mse"]
    assert 0 <= metrics["alpha"] <= 1


def test_a_penalty_at_the_edge_of_its_grid_is_counted() -> None:
    task = toy_task()
    metrics = train(AveragedLinearConfig(penalties=(1e-4, 2e-4)), task).lineage[-1].metrics
    assert metrics["n_at_edge"] == len(metrics["members"])


def test_later_rows_of_a_block_do_not_change_what_it_is_forecast_by() -> None:
    windows = toy_task().train
    parts = blocks(windows, 4)
    errors, _ = rolling_errors(parts[:3], 13, "window", PENALTIES)
    again, _ = rolling_errors([*parts[:3], Block(parts[3].whole, None)], 13, "window", PENALTIES)
    assert errors == again
    spoilt = replace(parts[2], whole=parts[2].whole + parts[2].whole)
    assert rolling_errors([*parts[:2], spoilt], 13, "window", PENALTIES)[0] == errors


@pytest.mark.parametrize("start", [None, 1e-5, 3e3, 7.0])
def test_walking_to_the_best_penalty_finds_it(monkeypatch: pytest.MonkeyPatch, start: float | None) -> None:
    grid = [float(10.0**power) for power in range(-5, 4)] + [3e3]
    parts = blocks(toy_task().train, 4)
    errors, n_values = rolling_errors(parts, 29, "window", grid)
    expected = grid[int(np.argmin(errors))], min(errors) / n_values
    assert expected[0] not in (grid[0], grid[-1])
    assert best_penalty(parts, 29, "window", grid) == expected
    solved = Counter[float]()
    whole = Centred.solved
    monkeypatch.setattr(Centred, "solved", lambda sums, penalty: (solved.update([penalty]), whole(sums, penalty))[1])
    monkeypatch.setattr("tsdistill.models.rolling.CHEAP", 0)
    assert best_penalty(parts, 29, "window", grid[::-1], start) == expected
    assert max(solved.values()) == 3  # once for every origin
    assert len(solved) < len(grid) or start in (1e-5, 3e3)


def test_a_context_longer_than_the_task_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"`contexts` must be at most the task's, 47, got contexts=\(48, 13\)"):
        train(AveragedLinearConfig(contexts=(48, 13)), toy_task())


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"centres": (0,)}, ["`centres[0]` must be greater than or equal to 1", "got centres[0]=0"]),
        ({"contexts": (7, -1)}, ["`contexts[1]`", "contexts[1]=-1"]),
        ({"n_blocks": 10**6}, ["`n_blocks` must be less than or equal to 64"]),
        ({"n_best": 0}, ["`n_best`", "n_best=0"]),
        ({"penalties": (0.0,)}, ["`penalties[0]` must be greater than 0"]),
    ],
)
def test_a_wrong_field_is_named_by_its_address(values: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        AveragedLinearConfig(**values)
    assert all(word in str(error.value) for word in words)
    assert "constrained" not in str(error.value)
