"""Values far from zero keep the digits that move: trained, forecast, exported, quantized, scored and saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tsdistill as td
from tsdistill import runtime
from tsdistill.data import Item
from tsdistill.data.blocks import fit
from tsdistill.evaluation.forecasting import forecasts
from tsdistill.evaluation.statistical import statistical
from tsdistill.exporting import check_task, parity_windows
from tsdistill.inputs.levels import own_levels

CONTEXT, HORIZON, ROWS = 29, 7, 211
QUICK = td.Training(max_steps=3, batch_size=31, precision="float32", seed=0)
CONFIGS: dict[str, Any] = {
    "linear": td.LinearConfig(),
    "mlp": td.MLPConfig(width=5, depth=1, dropout=0.0),
    "lstm": td.LSTMConfig(widths=(5,)),
    "seasonal-naive": td.models.SeasonalNaiveConfig(period=24),
}


def slow(value: object) -> Any:
    return pytest.param(value, marks=pytest.mark.slow)


LEVELS = (1e6, 2.0**30, 1e9, -1e9, 1e12)


def frame(level: float = 0.0, n_rows: int = ROWS) -> pd.DataFrame:
    """Two channels that move by 10, in steps that float64 holds at a level of 1e12; one far from zero."""
    draw = np.random.default_rng(0)
    angle = np.arange(n_rows)[:, None] * 2 * np.pi / 24 + np.arange(2)
    values = np.round((10 * np.sin(angle) + draw.normal(size=(n_rows, 2))) * 64) / 64
    stamps = pd.date_range("2021-01-01", periods=n_rows, freq="h")
    return pd.DataFrame({"ds": stamps, "a": values[:, 0] + level, "b": values[:, 1]})


def task(level: float = 0.0, scaler: Any = "standard", **options: Any) -> td.Task:
    panel = td.Panel.from_frame(frame(level), time="ds")
    return td.Task(panel, context=CONTEXT, horizon=HORIZON, scaler=scaler, **options)


def relative(model: Any, level: float) -> np.ndarray:
    """What a model forecasts of the frame at a level, less that level."""
    forecast = model.predict(frame(level))
    return np.stack([forecast["a"].to_numpy(dtype=np.float64) - level, forecast["b"].to_numpy()])


def near(first: np.ndarray, second: np.ndarray, level: float) -> None:
    """Equal to 1e-6 of the 10 that the series moves by, and to what float64 can write down at the level."""
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-5 + np.spacing(abs(level)))


@pytest.mark.parametrize("scaler", ["standard", "item", None])
@pytest.mark.parametrize("kind", CONFIGS)
@settings(max_examples=2, deadline=None, derandomize=True)
@given(level=st.sampled_from(LEVELS))
def test_a_shifted_frame_gives_a_forecast_shifted_by_the_same(kind: str, scaler: Any, level: float) -> None:
    models = {shift: td.train(CONFIGS[kind], task(shift, scaler), QUICK) for shift in (1e6, level)}
    near(relative(models[level], level), relative(models[1e6], 1e6), level)


@pytest.mark.slow
@pytest.mark.parametrize("scaler", ["standard", "item"])
@pytest.mark.parametrize("level", [1e6, 1e9, 1e12])
def test_far_from_zero_it_learns_forecasts_and_is_scored_as_near_zero(level: float, scaler: Any) -> None:
    plain, far = task(0.0, scaler), task(level, scaler)
    models = [td.train(CONFIGS["linear"], made, QUICK) for made in (plain, far)]
    deployed = [td.export(model, made) for model, made in zip(models, (plain, far), strict=True)]
    for pair in (models, deployed):
        near(relative(pair[1], level), relative(pair[0], 0.0), level)
        scores = [td.evaluate(model, made) for model, made in zip(pair, (plain, far), strict=True)]
        assert scores[1] == pytest.approx(scores[0], rel=1e-5)
    assert deployed[1].predict(frame(level))["a"].dtype == np.float64


@pytest.mark.parametrize("scaler", [*map(slow, ("standard", "item")), None])
def test_trained_exported_and_quantized_agree_at_a_level_of_1e9(scaler: Any) -> None:
    far = task(1e9, scaler)
    model = td.train(CONFIGS["mlp"], far, QUICK)
    forms = {"export": td.export(model, far)}
    if scaler == "standard":
        forced = {"require_gain": False, "max_error_increase": 9.0}
        forms["static"] = td.quantize(model, far, td.Quantization(method="static", **forced))
    expected = forecasts(model, far.validation, far.signature)
    for name, deployed in forms.items():
        gap = np.abs(forecasts(deployed, far.validation, far.signature) - expected).max() / expected.std()
        assert gap < (1e-4 if name == "export" else 0.2), name
        assert np.abs(relative(deployed, 1e9)).max() < 30
        assert np.ptp(relative(deployed, 1e9)[0]) > 0.1


def test_what_needs_no_offset_is_written_as_before() -> None:
    model = td.train(CONFIGS["linear"], task(10.0))
    assert model.signature.offset == ()
    assert not {"offset", "future_offset", "past_offset"} & set(model.signature.to_dict())
    assert model.predict(frame(10.0))["a"].dtype == np.float32
    manifest = json.loads(td.export(model).manifest().to_bytes())
    assert manifest["schema_version"] == 1


def test_an_artifact_carries_its_offset_and_earlier_versions_refuse_it(tmp_path: Path) -> None:
    far = task(1e9)
    model = td.train(CONFIGS["linear"], far)
    deployed = td.export(model, far)
    assert model.signature.offset[0] == pytest.approx(1e9, abs=10)
    assert model.signature.offset[1] == 0
    assert abs(model.signature.mean[0]) < 1
    folder = td.save(deployed, tmp_path / "deployed")
    manifest = json.loads((folder / "manifest.json").read_text())
    # A runtime that would not subtract it reads version 1 only.
    assert manifest["schema_version"] == 2
    assert runtime.verify(folder)["max_difference"] <= 1e-6
    served = runtime.load(folder)
    np.testing.assert_array_equal(served.predict(frame(1e9))["a"], deployed.predict(frame(1e9))["a"])
    assert np.abs(deployed.golden["context"]).max() < 100
    again = td.load(td.save(model, tmp_path / "model"))
    assert again.digest == model.digest
    near(relative(again, 1e9), relative(deployed, 1e9), 1e9)


def test_float32_stays_float32_and_everything_else_keeps_its_digits() -> None:
    model = td.train(CONFIGS["linear"], task(1e9))
    x = frame(1e9)[["a", "b"]].to_numpy()
    exact = np.asarray(model.predict(x))
    assert exact.dtype == np.float64
    for same in (x[None], np.stack([x, x])):
        np.testing.assert_allclose(np.asarray(model.predict(same))[0], exact, rtol=0, atol=1e-5)
    rolled = np.asarray(model.predict(x, rolling=11))
    np.testing.assert_allclose(rolled[-1], exact, rtol=0, atol=1e-5)
    assert np.asarray(model.predict(x.astype(np.float32))).dtype == np.float32
    assert np.asarray(model.predict(frame(1e9)[["a", "b"]].round().astype(np.int64).to_numpy())).dtype == np.float64


def test_items_of_very_different_levels_each_keep_their_digits() -> None:
    frames = {name: frame(level) for name, level in (("low", 1e3), ("high", 1e12), ("new", -1e10))}
    items = [Item(name, None, frames[name][["a", "b"]].to_numpy()) for name in ("low", "high")]
    made = td.Task(td.Panel(tuple(items), ("a", "b"), "h"), context=CONTEXT, horizon=HORIZON, scaler="item")
    deployed = td.export(td.train(CONFIGS["linear"], made), made)
    assert deployed.signature.offset == ()
    # An item that training has not seen, too.
    for name, level in (("high", 1e12), ("new", -1e10)):
        forecast = np.asarray(deployed.predict(frames[name][["a", "b"]].to_numpy()))[:, 0] - level
        low = np.asarray(deployed.predict(frames["low"][["a", "b"]].to_numpy()))[:, 0] - 1e3
        # float32 of the low item, whose window is written plainly, is 6e-5.
        np.testing.assert_allclose(forecast, low, atol=3e-4)


def test_a_window_keeps_its_own_level_only_where_it_is_far_from_zero() -> None:
    context = frame()[["a", "b"]].to_numpy()[None, :CONTEXT] + [0.0, 1e9]
    levels = own_levels(context)
    assert levels.shape == (1, 1, 2)
    assert levels[0, 0].tolist() == [0.0, context[0, -1, 1]]
    assert not own_levels(np.full((1, CONTEXT, 1), 0.1)).any()


@pytest.mark.slow
def test_covariates_as_large_as_epoch_seconds() -> None:
    def at(level: float) -> tuple[td.Task, pd.DataFrame]:
        table = frame().assign(clock=np.arange(ROWS) * 3600.0 % 86400 + level)
        known = td.Covariates(future=("clock",), past=("b",))
        panel = td.Panel.from_frame(table, time="ds")
        return td.Task(panel, context=CONTEXT, horizon=HORIZON, covariates=known), table

    results = []
    for level in (0.0, 2.0**40):
        made, table = at(level)
        model = td.train(CONFIGS["mlp"], made, QUICK)
        deployed = td.export(model, made)
        assert bool(made.signature.future_offset) == (level > 0)
        assert made.signature.past_offset == ()
        planned = pd.DataFrame({"clock": np.arange(ROWS, ROWS + HORIZON) * 3600.0 % 86400 + level})
        planned.insert(0, "ds", pd.date_range(table["ds"].iloc[-1], periods=HORIZON + 1, freq="h")[1:])
        results.append([np.asarray(m.predict(table, future=planned)["a"]) for m in (model, deployed)])
    np.testing.assert_allclose(results[1], results[0], rtol=0, atol=1e-4)


def test_a_model_of_one_offset_is_scored_on_a_task_of_another() -> None:
    model = td.train(CONFIGS["linear"], task(1e9))
    own = td.evaluate(model, task(1e9))["mse_raw"]
    for other in (task(1e9, "item"), task(1e9, None), task(1e9, split=td.Split.fractions(0.6, 0.2, 0.2))):
        expected = own if other.split == task().split else td.evaluate(td.export(model), other)["mse_raw"]
        assert td.evaluate(model, other)["mse_raw"] == pytest.approx(expected, rel=1e-4)
        rescaled = td.teachers.RescaledTeacher(model, other) if other.scaler is None else model
        assert td.evaluate(rescaled, other)["mse_raw"] == pytest.approx(expected, rel=1e-4)


def test_teachers_and_baselines_see_what_moves(tmp_path: Path) -> None:
    far, plain = task(1e9), task()
    naive = td.train(CONFIGS["seasonal-naive"], far)
    td.teachers.write_forecasts(naive, far, tmp_path / "table.csv")
    table = td.teachers.read_forecasts(tmp_path / "table.csv", far)
    refitted = td.teachers.from_function(lambda series, n_steps: series[-24:][:n_steps], far)
    batch = next(far.train.batches(11))
    for teacher in (table, refitted):
        np.testing.assert_allclose(teacher.forecast(batch), naive.forecast(batch), atol=1e-6)
    methods = [statistical("theta", made, period=7) for made in (far, plain)]
    first, second = (
        method.forecast(next(made.train.batches(3))) for method, made in zip(methods, (far, plain), strict=True)
    )
    np.testing.assert_allclose(first[..., 0], second[..., 0], atol=1e-3)


def test_a_report_shows_what_moves() -> None:
    far = task(1e9)
    model = td.train(CONFIGS["linear"], far)
    report = td.compare({"model": model, "deployed": td.export(model, far)}, far, latency=False)
    errors = {
        (row.name, row.runtime): float(row.mse or "nan") for row in report.rows if row.name in ("model", "deployed")
    }
    assert len(errors) == 3  # the reference in torch too
    assert list(errors.values()) == pytest.approx([next(iter(errors.values()))] * 3, rel=1e-4)
    assert max(errors.values()) < 0.5


@pytest.mark.parametrize("level", [1e17, 1e18, 5e15])
def test_what_float64_cannot_tell_apart_is_refused_at_training(level: float) -> None:
    with pytest.raises(td.errors.DataError, match=r"values of 'a' must move by more than float64.*Subtract a constant"):
        task(level)


def test_a_constant_and_rounding_errors_are_constant_still() -> None:
    draw = np.random.default_rng(0)
    noise = 0.1 * (1 + draw.integers(-2, 3, size=301) * 2.0**-52)
    large = 1e9 + 1e-3 * np.sin(np.arange(301))
    values = np.stack([np.full(301, 5.5), noise, np.full(301, 1e9 + 0.5), large], axis=1)
    fitted, lost = fit(lambda: iter([values[:150], values[150:]]))
    assert not lost.any()
    assert fitted.scale[:3].tolist() == [1.0, 1.0, 1.0]
    assert fitted.offset[:2].tolist() == [0.0, 0.0]
    assert (fitted.offset + fitted.mean)[2] == 1e9 + 0.5
    assert fitted.scale[3] == pytest.approx(1e-3 / np.sqrt(2), rel=1e-2)


def test_the_parity_check_reads_where_the_values_are() -> None:
    """A signature of an earlier version, without offset, for values that float32 cannot tell apart."""
    far = task(1e9, None)
    model = CONFIGS["linear"].build(far.signature.replace(offset=()))
    check_task(model.signature, far)
    assert np.abs(parity_windows(model.signature, far)[0]["context"][..., 0]).min() > 9e8
    with pytest.raises(
        td.errors.ArtifactError, match=r"'a' must be far from the resolution of float32, got a level of"
    ):
        td.export(model, far)
