"""A scaler per item: what is trained on it, how that is served, and that scores mean the same on every scaling."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tsdistill as td
from tsdistill.data import Item
from tsdistill.data.windows import window_units
from tsdistill.evaluation import scores

CONTEXT, HORIZON = 29, 7
SPLIT = td.Split.last(validation=43, test=41)
QUICK = td.Training(epochs=1, max_steps=7, batch_size=31, precision="float32", seed=0)
MODELS: dict[str, Any] = {
    "linear": td.LinearConfig(),
    "mlp": td.MLPConfig(width=5, depth=1, dropout=0.0),
    "seasonal-naive": td.models.SeasonalNaiveConfig(period=24),
}


def panel() -> td.Panel:
    """Two items of two channels with a daily rhythm: one moves by hundredths, the other by tens on another level."""
    draw = np.random.default_rng(0)
    items = []
    for name, n_rows, unit, level in (("small", 331, 1e-2, 0.07), ("large", 283, 10.0, -40.0)):
        waves = np.sin(2 * np.pi * (np.arange(n_rows)[:, None] / 24 + draw.random(2)))
        items.append(Item(name, None, level + unit * (waves + 0.2 * draw.normal(size=(n_rows, 2)))))
    return td.Panel(tuple(items), ("load", "wind"), "h")


def task(scaler: Any, *, context: int = CONTEXT) -> td.Task:
    return td.Task(panel(), context=context, horizon=HORIZON, split=SPLIT, scaler=scaler)


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> td.Forecaster:
    return td.train(MODELS[request.param], task("item"), QUICK)


def test_served_by_window_it_forecasts_what_it_was_trained_for() -> None:
    """The deployed form standardises each raw context by itself, the trained one is given the item's scaling.

    Of raw values the model's own normalisation would make something else: its guard against still windows is as large
    as the deviation of the small item.
    """
    made = task("item")
    model = td.train(MODELS["mlp"], made, QUICK)
    deployed = td.export(model, made)
    trained, served = (td.evaluate(forecaster, made, "validation") for forecaster in (model, deployed))
    assert served == pytest.approx(trained, rel=1e-3)
    for name in ("small", "large"):
        (item,) = (item for item in made.panel.items if item.unique_id == name)
        raw = item.values[None, -CONTEXT:].astype(np.float32)
        gap = np.asarray(deployed.predict(raw)) - np.asarray(model.predict(raw))
        assert np.abs(gap).max() < 1e-4 * item.values.std()


def test_scores_in_raw_units_do_not_depend_on_the_tasks_scaler(model: td.Forecaster) -> None:
    own = td.evaluate(model, task("item"), "validation")
    for other in (task("standard"), task(None), task("item", context=CONTEXT + 2)):
        errors = td.evaluate(model, other, "validation")
        assert {name: errors[name] for name in ("mse_raw", "mae_raw", "mase")} == pytest.approx(
            {name: own[name] for name in ("mse_raw", "mae_raw", "mase")}, rel=1e-3
        )


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_of_one_scaler_is_judged_on_items_of_their_own(kind: str) -> None:
    model = td.train(MODELS[kind], task("standard"), QUICK)
    own, other = (td.evaluate(model, task(scaler), "validation") for scaler in ("standard", "item"))
    assert other["mse_raw"] == pytest.approx(own["mse_raw"], rel=1e-3)
    assert other["mase"] == pytest.approx(own["mase"], rel=1e-3)
    # The large item rules the scale of all; on scales of their own, errors of the small one count as well.
    assert other["mse"] != pytest.approx(own["mse"], rel=0.5)


def test_raw_errors_are_in_the_units_of_each_item() -> None:
    """Against forecasts made by hand: the value a day before, in raw units."""
    made = task("item")
    naive = td.train(MODELS["seasonal-naive"], made)
    squared, scaled = [], []
    for item, cut in zip(made.panel.items, made.borders, strict=True):
        spread = item.values[: cut.train].std(axis=0)
        for first in range(cut.train, cut.validation - HORIZON + 1):
            rows = np.arange(first, first + HORIZON)
            error = item.values[rows] - item.values[rows - 24]
            squared.append(error**2)
            scaled.append((error / spread) ** 2)
    errors = td.evaluate(naive, made, "validation")
    assert errors["mse_raw"] == pytest.approx(np.mean(squared), rel=1e-4)
    assert errors["mse"] == pytest.approx(np.mean(scaled), rel=1e-4)
    score = scores.score(naive, made, "validation")
    assert score.scale.shape == (len(made.validation), 2)


def test_a_window_is_standardised_by_itself() -> None:
    draw = np.random.default_rng(0)
    context = (draw.normal(size=(5, CONTEXT, 3)) * [1, 1e-3, 1e4] + [0, 4096, 1e6]).astype(np.float32)
    context[2, :, 1] = np.float32(0.1)
    mean, scale = window_units(context)
    assert mean.shape == scale.shape == (5, 1, 3)
    exact = context.astype(np.float64)
    np.testing.assert_allclose(mean[:, 0], exact.mean(axis=1), rtol=1e-12)
    spread = exact.std(axis=1)
    spread[2, 1] = 1.0
    np.testing.assert_allclose(scale[:, 0], spread, rtol=1e-9)


def test_a_student_trained_on_one_scaling_does_not_go_on_with_another() -> None:
    model, teacher = (td.train(MODELS["mlp"], task(scaler), QUICK) for scaler in ("item", None))
    with pytest.raises(td.errors.ShapeError, match="the task's scaler"):
        td.distill(teacher, model, task(None), training=QUICK)
