"""Means of steps, the centre of each channel and the shared basis against slow plain versions; what is deployed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

import tsdistill as td
from tsdistill.data import Panel, Split, Task
from tsdistill.data.panel import Item
from tsdistill.distillation import distill
from tsdistill.errors import ConfigError
from tsdistill.losses import OutputLoss
from tsdistill.models import AveragedLinearConfig, LinearConfig, MLPConfig, MultiResolutionConfig
from tsdistill.models.resolutions import MultiResolution
from tsdistill.testing import toy_panel, toy_task
from tsdistill.training import Training, train

CONFIG = MultiResolutionConfig(resolutions=(1, 3, 7), borders=(5, 19), rank=3, centres=(1, 5, "window"))
Values = NDArray[np.float64]


def solved(config: MultiResolutionConfig, task: Task | None = None) -> MultiResolution:
    """A forecaster of a config, as the class that it is."""
    model = train(config, task or toy_task())
    assert isinstance(model, MultiResolution)
    return model


def plain_features(x: Values) -> Values:
    """What `CONFIG` makes of 47 steps, written down one after the other."""
    middle = [x[..., 28 + 2 + 3 * n : 28 + 5 + 3 * n].mean(-1) for n in range(4)]  # 14 steps: four threes, two left
    middle = [x[..., 28:30].mean(-1), *middle]
    oldest = [x[..., 7 * n : 7 * n + 7].mean(-1) for n in range(4)]  # 28 steps
    return np.stack([*oldest, *middle, *(x[..., step] for step in range(42, 47))], -1)


def plain_centre(x: Values, centre: int | str) -> Values:
    """(..., 47) -> (..., 1)."""
    recent = x if centre == "window" else x[..., -int(centre) :]
    middle: Values = recent.mean(-1, keepdims=True)
    return middle


def windows(task: Task) -> tuple[Values, Values]:
    """Contexts and targets of all training windows, (channel, window, step)."""
    batch = task.train.batch(torch.arange(len(task.train)))
    return batch.context.permute(2, 0, 1).double().numpy(), batch.target.permute(2, 0, 1).double().numpy()


def test_it_is_the_reduced_rank_regression_of_centred_means() -> None:
    task = toy_task()
    model = solved(CONFIG, task)
    ridges = model.lineage[-1].metrics["ridges"]
    x, y = windows(task)
    maps, fitted = [], np.zeros((11, 11))
    for channel, ridge in enumerate(ridges):
        centre = plain_centre(x[channel], ridge["centre"])
        features, target = plain_features(x[channel]) - centre, y[channel] - centre
        gram = features.T @ features
        gram += ridge["penalty"] * np.trace(gram) / len(gram) * np.eye(len(gram))
        maps.append(np.linalg.solve(gram, features.T @ target))
        fitted += maps[-1].T @ gram @ maps[-1]
    basis = np.linalg.eigh(fitted)[1][:, -3:]
    context = task.test.batch(torch.arange(7)).context
    steps = context.permute(2, 0, 1).double().numpy()
    for channel, ridge in enumerate(ridges):
        centre = plain_centre(steps[channel], ridge["centre"])
        expected = (plain_features(steps[channel]) - centre) @ maps[channel] @ basis @ basis.T + centre
        forecast = model(context)[..., channel].detach().numpy()
        assert np.abs(forecast - expected).max() < 1e-4


def test_no_other_maps_of_that_rank_fit_better() -> None:
    # Alternating least squares from elsewhere, without a penalty to speak of, ends no lower.
    task = toy_task()
    config = CONFIG.replace(centres=("window",), penalties=(1e-9,), rank=2)
    model = solved(config, task)
    x, y = windows(task)
    centre = x.mean(-1, keepdims=True)
    features, target = [plain_features(own) for own in x - centre], y - centre
    error = float(
        (
            (model(task.train.batch(torch.arange(len(task.train))).context).detach().permute(2, 0, 1).numpy() - y) ** 2
        ).sum()
    )
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(11, 2)))[0]
    for _ in range(50):
        maps = [np.linalg.lstsq(own, goal @ basis, rcond=None)[0] for own, goal in zip(features, target, strict=True)]
        states = np.concatenate([own @ one for own, one in zip(features, maps, strict=True)])
        basis = np.linalg.qr(np.linalg.lstsq(states, np.concatenate(list(target)), rcond=None)[0].T)[0]
    maps = [np.linalg.lstsq(own, goal @ basis, rcond=None)[0] for own, goal in zip(features, target, strict=True)]
    other = sum(
        float(((own @ one @ basis.T - goal) ** 2).sum()) for own, one, goal in zip(features, maps, target, strict=True)
    )
    assert error <= other * (1 + 1e-5)


def test_steps_one_by_one_and_a_whole_basis_are_the_ridge() -> None:
    task = toy_task()
    config = MultiResolutionConfig(resolutions=(1,), borders=(), rank=11, centres=("window",), penalties=(0.03,))
    context = task.test.batch(torch.arange(5)).context
    for individual in (True, False):
        small = train(config.replace(individual=individual), task)
        ridge = train(LinearConfig(penalties=(0.03,), individual=individual), task)
        assert torch.allclose(small(context), ridge(context), atol=1e-5)
        assert small.lineage[-1].metrics["share_in_basis"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("context", "pieces"),
    [
        (47, ((1, 5), (3, 4), (2, 1), (7, 4))),
        (20, ((1, 5), (3, 4), (2, 1), (1, 1))),
        (19, ((1, 5), (3, 4), (2, 1))),
        (5, ((1, 5),)),
        (2, ((1, 2),)),
    ],
)
def test_the_context_is_cut_from_its_newest_step_back(context: int, pieces: tuple[tuple[int, int], ...]) -> None:
    assert CONFIG.pieces(context) == pieces
    assert sum(steps * number for steps, number in pieces) == context
    assert CONFIG.n_features(context) == sum(number for _, number in pieces)


def test_each_channel_has_the_centre_that_rolling_origins_prefer() -> None:
    # A walk is best centred by its last value, noise around a level by the mean of many.
    draw = np.random.default_rng(7)
    values = np.stack([draw.normal(size=997).cumsum(), draw.normal(size=997)], axis=1)
    panel = Panel((Item("a", None, values),), channels=("walk", "noise"), name="two")
    task = Task(panel, context=47, horizon=11, split=Split.fractions(0.7, 0.1, 0.2))
    model = solved(CONFIG, task)
    assert [ridge["centre"] for ridge in model.lineage[-1].metrics["ridges"]] == [1, "window"]
    assert model.chosen_centre.tolist() == [[1, 0, 0], [0, 0, 1]]


def test_it_is_deployed_as_its_small_self(tmp_path: Path) -> None:
    task = Task(toy_panel(n_rows=1201), context=331, horizon=47, split=Split.fractions(0.6, 0.2, 0.2))
    model = solved(MultiResolutionConfig(rank=2), task)
    n_features = model.config.n_features(331)
    assert n_features == 24 + 16 + 9 + 5
    assert model.n_parameters == 3 * n_features * 2 + 2 * 47
    deployed = td.export(model)
    td.save(deployed, tmp_path / "small")
    sizes = [int(np.prod(tensor.dims)) for tensor in onnx.load(tmp_path / "small" / "model.onnx").graph.initializer]
    assert sum(sizes) < model.n_parameters + 100
    again = td.load(tmp_path / "small")
    x = task.test.batch(torch.arange(5)).context.numpy()
    assert np.allclose(again.predict(x), model.predict(x), rtol=1e-4, atol=1e-4)


def test_a_teacher_blends_in_and_the_control_is_the_same_choice_without_it() -> None:
    task = toy_task()
    teacher = train(MLPConfig(width=5), task, Training(max_steps=3, precision="float32"))
    student = distill(teacher, CONFIG, task, losses=[OutputLoss(alpha=0.5)])
    alone = train(CONFIG, task)
    assert student.control is not None
    assert student.control.digest == alone.digest != student.digest
    assert student.lineage[-1].metrics["ridges"] == alone.lineage[-1].metrics["ridges"]
    chosen = distill(teacher, CONFIG, task, losses=[OutputLoss(alpha="validation")], control=False)
    metrics = chosen.lineage[-1].metrics
    assert metrics["validation_mse"] <= alone.lineage[-1].metrics["validation_mse"]
    assert 0 <= metrics["alpha"] <= 1
    # With a whole basis nothing is cut off, and forecasts are linear in the share.
    whole = CONFIG.replace(rank=11)
    half, none, all_of_it = (
        distill(teacher, whole, task, losses=[OutputLoss(alpha=alpha)], control=False) for alpha in (0.5, 0.0, 1.0)
    )
    context = task.test.batch(torch.arange(5)).context
    assert torch.allclose(half(context), (none(context) + all_of_it(context)) / 2, atol=1e-5)


def test_the_recorded_error_is_that_of_what_is_kept() -> None:
    task = toy_task()
    model = solved(CONFIG, task)
    recorded = model.lineage[-1].metrics["validation_mse"]
    assert recorded == pytest.approx(td.evaluate(model, task, part="validation")["mse"], rel=1e-4)


@pytest.mark.parametrize("config", [CONFIG, CONFIG.replace(individual=False)])
def test_a_refit_keeps_what_was_chosen(config: MultiResolutionConfig) -> None:
    task = toy_task()
    model = train(config, task)
    again = td.refit(model, task)
    assert again.lineage[-1].metrics["ridges"] == model.lineage[-1].metrics["ridges"]
    assert again.digest != model.digest
    assert again.n_parameters == model.n_parameters


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        AveragedLinearConfig(individual=True),
        AveragedLinearConfig(individual=True, centres=(1,)),
        LinearConfig(individual=True),
    ],
    ids=lambda config: config.kind,
)
def test_a_channel_that_never_moves_is_solved_as_well(config: MultiResolutionConfig) -> None:
    values = np.random.default_rng(0).normal(size=(601, 2))
    values[:, 1] = 3.0
    panel = Panel((Item("a", None, values),), channels=("x", "still"), name="two")
    task = Task(panel, context=47, horizon=11, split=Split.fractions(0.7, 0.1, 0.2))
    model = train(config, task)
    assert np.allclose(model.predict(values[None, -47:])[..., 1], 3.0, atol=1e-4)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"resolutions": (1, 3)}, ["`borders` must be one fewer than the 2 resolutions", "got borders=(24, 72, 180)"]),
        ({"borders": (24, 24, 180)}, ["`borders` must grow", "got borders=(24, 24, 180)"]),
        ({"resolutions": (1, 0), "borders": (3,)}, ["`resolutions[1]`", "resolutions[1]=0"]),
        ({"rank": 0}, ["`rank`", "rank=0"]),
        ({"centres": (0,)}, ["`centres[0]`", "centres[0]=0"]),
        ({"penalties": ()}, ["`penalties`"]),
        ({"n_blocks": 1}, ["`n_blocks`", "n_blocks=1"]),
    ],
)
def test_a_wrong_field_is_named(values: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        MultiResolutionConfig(**values)
    assert all(word in str(error.value) for word in words)
    assert "constrained" not in str(error.value)
