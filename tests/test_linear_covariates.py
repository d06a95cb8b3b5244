"""The ridge of a task with covariates: what is known ahead is taken off the context and put on the horizon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import tsdistill as td
from tests.typed import known
from tsdistill import runtime
from tsdistill.data import Item, Panel
from tsdistill.errors import UnsupportedError
from tsdistill.models.effects import Effects
from tsdistill.models.linear import Linear
from tsdistill.models.ridge import NormalEquations
from tsdistill.testing import toy_signature

KNOWN = td.Covariates(calendar=("time-of-day", "time-of-week"), holidays=("2024-01-20", "2024-02-14"), future=("plan",))
CALENDAR = td.Covariates(calendar=("time-of-day",))
N_FEATURES = 2 * 12 + 2 * 21 + 2
OPENS = {"load": 2.0, "rain": -1.0}


def driven(n_rows: int = 1499, seed: int = 0, covariates: td.Covariates | None = KNOWN, **options: Any) -> td.Task:
    """Two channels that a plan, the opening hours and holidays drive, and little else: a window shows none of it."""
    draw = np.random.default_rng(seed)
    stamps = pd.date_range("2024-01-02T05", periods=n_rows, freq="h")
    plan = draw.normal(size=n_rows).round(1)
    open_hours = (stamps.hour >= 9) & (stamps.hour < 17)
    holiday = np.isin(stamps.strftime("%Y-%m-%d"), KNOWN.holidays)
    columns = [
        scale * (3 * open_hours + plan - 2 * holiday) + 0.2 * np.cumsum(draw.normal(size=n_rows)) / 20
        for scale in OPENS.values()
    ]
    values = np.stack([*columns, plan], axis=1)
    panel = Panel((Item("shop", stamps, values),), (*OPENS, "plan"), "h")
    return td.Task(panel, context=13, horizon=7, covariates=covariates, **options)


def of_two_sizes() -> td.Task:
    """Two items that differ a thousandfold, each with a scale of its own."""
    items = [
        Item(
            f"shop {size}",
            driven(701, seed).panel.items[0].ds,
            driven(701, seed).panel.items[0].values * [size, size, 1],
        )
        for seed, size in enumerate((1, 1000))
    ]
    return td.Task(Panel(tuple(items), (*OPENS, "plan"), "h"), context=29, horizon=7, covariates=KNOWN, scaler="item")


def mse(model: Any, task: td.Task, part: Any = "validation") -> float:
    return float(td.evaluate(model, task, part=part)["mse"])


@pytest.fixture(scope="module")
def task() -> td.Task:
    return driven()


@pytest.fixture(scope="module")
def model(task: td.Task) -> td.Forecaster:
    return td.train(td.LinearConfig(), task)


def test_what_is_known_ahead_is_learnt(task: td.Task, model: td.Forecaster) -> None:
    plain = td.train(td.LinearConfig(), task.without_covariates())
    for part in ("validation", "test"):
        assert mse(model, task, part) < 0.1 * mse(plain, task.without_covariates(), part)
    assert model.n_parameters == 13 * 7 + 2 * N_FEATURES
    # The plan's effect is the one that the data was made with, in scaled units.
    effect = (
        model.get_parameter("effects.weight")[:, -1].detach().numpy() * task.scale / task.signature.future_scale[-1]
    )
    assert effect == pytest.approx([2.0, -1.0], rel=0.02)


@pytest.mark.parametrize("individual", [False, True])
def test_the_error_that_is_recorded_is_that_of_the_forecasts(task: td.Task, individual: bool) -> None:
    trained = td.train(td.LinearConfig(individual=individual), task)
    metrics = trained.lineage[-1].metrics
    assert metrics["validation_mse"] == pytest.approx(mse(trained, task), rel=1e-4)
    assert len(np.atleast_1d(metrics["effect_penalty"])) == (2 if individual else 1)


def test_the_map_is_the_ridge_of_a_series_without_the_effects(task: td.Task, model: td.Forecaster) -> None:
    """By windows, one after the other, in float64."""
    effects = known(model.effects)
    assert isinstance(effects, Effects)
    batch = task.train.batch(torch.arange(len(task.train)))
    off = effects(known(batch.future), batch.context).detach().double()
    whole = torch.cat([batch.context, batch.target], dim=1).double() - off
    whole = (whole - whole[:, :13].mean(1, keepdim=True)).transpose(1, 2).flatten(0, 1)
    x, y = whole[:, :13], whole[:, 13:]
    gram = x.T @ x
    ridge = model.lineage[-1].metrics["penalty"] * gram.diagonal().mean() * torch.eye(13, dtype=torch.float64)
    weight = torch.linalg.solve(gram + ridge, x.T @ y)
    assert torch.allclose(model.get_parameter("map.weight").double(), weight.T, atol=1e-4)


def test_effects_are_a_ridge_of_targets_on_features_less_the_means_of_the_window(task: td.Task) -> None:
    effects = Effects(task.signature)
    effects.estimate(effects.moments(task.train), [1e-3])
    batch = task.train.batch(torch.arange(len(task.train)))
    z = effects.features(known(batch.future)).double()
    z = (z[:, 13:] - z[:, :13].mean(1, keepdim=True)).flatten(0, 1)
    y = (batch.target - batch.context.mean(1, keepdim=True)).flatten(0, 1).double()
    gram = z.T @ z
    ridge = 1e-3 * gram.diagonal().mean() * torch.eye(N_FEATURES, dtype=torch.float64)
    wanted = torch.linalg.solve(gram + ridge, z.T @ y)
    assert torch.allclose(effects.weight.detach().double(), wanted.T, atol=1e-4)
    effects.estimate(effects.moments(task.train), [None, 1e-3])
    assert not effects.weight[0].any()
    assert torch.allclose(effects.weight[1].detach().double(), wanted[:, 1], atol=1e-4)


def test_harmonics_are_those_of_the_angle_and_no_more_than_the_step_can_show() -> None:
    angle = torch.linspace(-3.1, 3.1, 31)
    future = torch.stack([angle.sin(), angle.cos()], dim=-1)
    signature = toy_signature(("future",), CALENDAR)
    features = Effects(signature).features(future)
    wanted = torch.cat(
        [torch.sin(angle[:, None] * torch.arange(1, 13)), torch.cos(angle[:, None] * torch.arange(1, 13))], 1
    )
    assert torch.allclose(features, wanted, atol=1e-5)
    week = td.Covariates(calendar=("time-of-week",))
    for frequency, n_harmonics in (("D", 3), ("h", 21), ("12h", 7), (None, 21)):
        own = toy_signature(("future",), week).replace(frequency=frequency)
        assert Effects(own).n_harmonics == [n_harmonics]


def test_a_calendar_that_tells_nothing_has_no_effects() -> None:
    draw = np.random.default_rng(5)
    values = np.cumsum(draw.normal(size=(701, 2)), axis=0)
    stamps = pd.date_range("2024-01-02", periods=701, freq="h")
    panel = Panel((Item("walk", stamps, values),), ("a", "b"), "h")
    walk = td.Task(panel, context=13, horizon=7, covariates=CALENDAR)
    plain = td.train(td.LinearConfig(), walk.without_covariates())
    trained = td.train(td.LinearConfig(), walk)
    assert trained.lineage[-1].metrics["validation_mse"] <= plain.lineage[-1].metrics["validation_mse"]
    if trained.lineage[-1].metrics["effect_penalty"] is None:
        assert torch.equal(trained.get_parameter("map.weight"), plain.get_parameter("map.weight"))


def test_no_effect_sees_a_test_row() -> None:
    first = driven()
    values = first.panel.items[0].values.copy()
    values[first.borders[0].validation :] = 1e3
    item = Item("shop", first.panel.items[0].ds, values)
    other = td.Task(Panel((item,), first.panel.channels, "h"), context=13, horizon=7, covariates=KNOWN)
    assert td.train(td.LinearConfig(), first).digest == td.train(td.LinearConfig(), other).digest


@pytest.mark.parametrize("individual", [False, True])
def test_a_student_with_covariates_has_a_control_with_the_same_effects(task: td.Task, individual: bool) -> None:
    config = td.LinearConfig(individual=individual)
    teacher = td.train(td.MLPConfig(width=7, depth=1), task, td.Training(epochs=2, precision="float32"))
    student = td.distill(teacher, config, task, losses=[td.OutputLoss(alpha="validation")])
    control = known(student.control)
    assert torch.equal(student.get_parameter("effects.weight"), control.get_parameter("effects.weight"))
    assert control.digest == td.train(config, task).digest
    assert student.lineage[-1].metrics["validation_mse"] == pytest.approx(mse(student, task), rel=1e-4)


@pytest.mark.parametrize("individual", [False, True])
def test_a_student_of_a_ridge_with_the_same_effects_is_that_ridge(task: td.Task, individual: bool) -> None:
    ridge = td.train(td.LinearConfig(individual=individual), task)
    config = td.LinearConfig(individual=individual, penalties=(1e-9,))
    student = td.distill(ridge, config, task, losses=[td.OutputLoss(alpha=1.0)], control=False)
    batch = task.validation.batch(torch.arange(len(task.validation)))
    assert torch.allclose(student.forecast(batch), ridge.forecast(batch), atol=1e-3)


def test_a_teacher_is_asked_about_windows_as_they_are(task: td.Task) -> None:
    """Cached or not: windows without effects are the ridge's affair."""
    effects = Effects(task.signature)
    effects.estimate(effects.moments(task.train), [1e-3])
    seen = []

    def right(batch: Any) -> torch.Tensor:
        seen.append(torch.equal(batch.context, task.train.batch(batch.index).context) and batch.future is not None)
        return batch.target

    sums = effects.statistics(task.train, right, individual=True)
    assert seen
    assert all(seen)
    assert torch.allclose(known(sums.taught), sums.cross, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("individual", [False, True])
def test_a_refit_keeps_what_was_chosen(task: td.Task, individual: bool) -> None:
    trained = td.train(td.LinearConfig(individual=individual), task)
    again = td.refit(trained, task)
    kept = again.lineage[-1].metrics
    assert kept["effect_penalty"] == trained.lineage[-1].metrics["effect_penalty"]
    assert not torch.equal(again.get_parameter("effects.weight"), trained.get_parameter("effects.weight"))
    assert isinstance(again, Linear)
    choice = {**trained.lineage[-1].metrics}
    again.refit_closed_form(NormalEquations(task.train, task.validation), choice)
    assert torch.allclose(again.get_parameter("map.weight"), trained.get_parameter("map.weight"), atol=1e-5)


@pytest.mark.parametrize("individual", [False, True])
def test_effects_grow_with_an_item_that_has_a_scale_of_its_own(individual: bool) -> None:
    """Forecasts are the same in an item's units, in which it learns, and in the window's, in which it is served."""
    several = of_two_sizes()
    trained = td.train(td.LinearConfig(individual=individual), several)
    plain = td.train(td.LinearConfig(individual=individual), several.without_covariates())
    assert mse(trained, several) < 0.3 * mse(plain, several.without_covariates())
    metrics = trained.lineage[-1].metrics
    assert metrics["validation_mse"] == pytest.approx(mse(trained, several), rel=1e-4)
    batch = several.validation.batch(torch.arange(11))
    with torch.no_grad():
        forecast = trained(batch.context, batch.future)
        moved = trained(batch.context * 7 + 3, batch.future)
    assert torch.allclose(moved, forecast * 7 + 3, atol=1e-3)


@pytest.mark.slow
def test_a_model_of_items_of_two_sizes_is_served_as_it_learnt() -> None:
    several = of_two_sizes()
    trained = td.train(td.LinearConfig(individual=True), several)
    assert mse(td.export(trained, several), several) == pytest.approx(mse(trained, several), rel=1e-3)


def test_a_first_window_that_does_not_move_hides_no_effect() -> None:
    """It has no deviation to measure an effect by."""
    item = driven(701).panel.items[0]
    values = item.values.copy()
    values[:29, :2] = 5.0
    panel = Panel((Item("shop", item.ds, values),), (*OPENS, "plan"), "h")
    still = td.Task(panel, context=29, horizon=7, covariates=KNOWN, scaler="item")
    effects = Effects(still.signature)
    effects.estimate(effects.moments(still.train), [1e-3])
    bare = effects.taken_off(still.train)
    batch = bare.batch(torch.arange(len(bare)))
    x = (batch.context - batch.context.mean(1, keepdim=True)).transpose(1, 2).flatten(0, 1).double()
    assert torch.allclose(effects.statistics(still.train, individual=False).gram, x.T @ x, rtol=1e-5, atol=1e-3)


def test_it_is_saved_exported_and_served_with_what_is_known_ahead(
    task: td.Task, model: td.Forecaster, tmp_path: Path
) -> None:
    td.save(model, tmp_path / "model")
    read = td.load(tmp_path / "model")
    assert read.digest == model.digest
    deployed = td.export(model, task)
    assert deployed.parity["max_difference"] < 1e-4
    td.save(deployed, tmp_path / "deployed")
    frame = task.panel.to_frame().tail(40)
    time = next(name for name in frame if name not in (*task.panel.channels, "unique_id"))
    past, ahead = frame.iloc[:20], frame.iloc[20:27][[name for name in frame if name not in OPENS]]
    served = (model, deployed, runtime.load(tmp_path / "deployed"))
    forecasts = [forecaster.predict(past, future=ahead) for forecaster in served]
    for other in forecasts[1:]:
        assert np.allclose(other[[*OPENS]], forecasts[0][[*OPENS]], atol=1e-3)
    higher = model.predict(past, future=ahead.assign(plan=ahead["plan"] + 1))
    assert np.allclose(higher["load"] - forecasts[0]["load"], 2.0, atol=0.05)
    assert list(forecasts[0][time]) == list(ahead[time])


def test_parts_of_a_panel_are_solved_without_covariates(task: td.Task) -> None:
    with pytest.raises(UnsupportedError, match=r"`tasks` must have no covariates, got .*'plan'.*td.train"):
        td.solve(td.LinearConfig(), [task])
    assert td.solve(td.LinearConfig(), [task.without_covariates()]).n_parameters == 13 * 7


@pytest.mark.slow
def test_a_recipe_has_a_ridge_with_a_calendar_as_student(tmp_path: Path) -> None:
    driven().panel.to_frame().drop(columns="unique_id", errors="ignore").to_csv(tmp_path / "shop.csv", index=False)
    recipe = td.Recipe(
        data={"path": str(tmp_path / "shop.csv")},
        task={"context": 13, "horizon": 7, "covariates": KNOWN},
        teacher={"model": {"kind": "linear", "individual": True}},
        student={"model": td.LinearConfig(), "losses": [td.OutputLoss(alpha="validation")]},
        pruning=None,
        quantization=None,
    )
    finished = td.recipe.run(td.Recipe.from_toml(recipe.to_toml()), tmp_path / "run")
    assert finished.deployed.signature.future == KNOWN.known_ahead
    rows = finished.report.to_frame().set_index("name")["mse"]
    assert rows["student"].min() < 0.1 * rows["ridge"]
    assert "deployed without teacher" in rows.index
