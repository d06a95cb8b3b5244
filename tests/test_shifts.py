"""A frame shifted by a constant gives a forecast shifted by the same, to a millionth of its scale, wherever it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import tsdistill as td
from tsdistill import runtime
from tsdistill.data.signature import Signature
from tsdistill.inputs.levels import APART, own_levels
from tsdistill.quantization.torch_int8 import TorchInt8
from tsdistill.teachers import same_scaling
from tsdistill.testing import toy_signature

CONTEXT, HORIZON, ROWS = 29, 7, 211
QUICK = td.Training(max_steps=3, batch_size=31, precision="float32", seed=0)
SHIFTS = (1, 3.5, 17, 100, 500, 1e3, 1e4, 1e6, 1e9)
SCALERS: tuple[Any, ...] = ("standard", "item", None)


def frame(shift: float = 0.0) -> pd.DataFrame:
    """Two channels of deviation 8 or so, in steps that float64 holds; one of them shifted by so many deviations."""
    draw = np.random.default_rng(0)
    angle = np.arange(ROWS)[:, None] * 2 * np.pi / 24 + np.arange(2)
    values = np.round((11 * np.sin(angle) + draw.normal(size=(ROWS, 2))) * 64) / 64
    stamps = pd.date_range("2021-01-01", periods=ROWS, freq="h")
    return pd.DataFrame({"ds": stamps, "a": values[:, 0] + 8 * shift, "b": values[:, 1]})


def task(shift: float = 0.0, scaler: Any = "standard", **options: Any) -> td.Task:
    return td.Task(td.Panel.from_frame(frame(shift)), context=CONTEXT, horizon=HORIZON, scaler=scaler, **options)


def relative(model: Any, shift: float) -> np.ndarray:
    """What a model forecasts of the shifted frame, less the shift, in deviations."""
    forecast = model.predict(frame(shift))
    return np.stack([forecast["a"].to_numpy(dtype=np.float64) - 8 * shift, forecast["b"].to_numpy(np.float64)]) / 8


def near(first: np.ndarray, second: np.ndarray, shift: float, scaler: Any = "standard") -> None:
    """Equal to a millionth of a deviation, and to what float64 can write down at the level.

    A model of a task without a scaler is asked to see raw values: up to 800 deviations as float32 holds them.
    """
    bound = 3e-5 if scaler is None and 8 < shift < 800 else 1e-6
    np.testing.assert_allclose(first, second, rtol=0, atol=bound + np.spacing(8.0 * shift) / 8)


@pytest.mark.parametrize("scaler", SCALERS)
@pytest.mark.parametrize("config", [td.LinearConfig(), td.MLPConfig(width=5, depth=1)], ids=["solved", "trained"])
def test_a_shift_of_the_frame_shifts_the_forecast_of_what_was_trained(config: Any, scaler: Any) -> None:
    plain = td.train(config, task(0.0, scaler), QUICK)
    for shift in SHIFTS:
        near(relative(td.train(config, task(shift, scaler), QUICK), shift), relative(plain, 0.0), shift, scaler)


def served(config: Any, made: td.Task) -> Any:
    return td.export(td.train(config, made, QUICK), made)


def test_a_shift_of_the_frame_shifts_what_is_served(tmp_path: Path) -> None:
    expected = None
    for shift in (0.0, 17.0):
        deployed = served(td.LinearConfig(), task(shift))
        forecast = relative(deployed, shift)
        light = runtime.load(td.save(deployed, tmp_path / f"{shift:g}"))
        np.testing.assert_array_equal(relative(light, shift), forecast)
        expected = forecast if expected is None else expected
        near(forecast, expected, shift)


@pytest.mark.slow
@pytest.mark.parametrize("scaler", SCALERS)
def test_a_shift_of_the_frame_changes_no_score(scaler: Any) -> None:
    forecasts, scores = [], []
    for shift in (0.0, 3.5, 17.0, 1e3, 1e9):
        made = task(shift, scaler)
        deployed = served(td.MLPConfig(width=5, depth=1), made)
        forecasts.append(relative(deployed, shift))
        near(forecasts[-1], forecasts[0], shift, scaler)
        (row,) = (row for row in td.compare({"m": deployed}, made, latency=False).rows if row.name == "m")
        scores.append([row.mse, row.mae])
        assert scores[-1] == pytest.approx(scores[0], rel=3e-5 if scaler is None else 2e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["patchtst", "inverted-transformer", "lstm", "tcn", "tsmixer", "dlinear", "sparse-tsf"]
)
@pytest.mark.parametrize("scaler", SCALERS)
def test_every_architecture_holds_it(kind: str, scaler: Any) -> None:
    config = td.models.MODELS[kind].examples()[0]
    forecasts = []
    for shift in (0.0, 3.5, 17.0):
        made = td.Task(td.Panel.from_frame(frame(shift)), context=47, horizon=11, scaler=scaler)
        forecasts.append(relative(served(config, made), shift))
        near(forecasts[-1], forecasts[0], shift, scaler)


def test_what_is_served_has_an_offset_where_float32_would_lose_a_millionth() -> None:
    near_zero, far = task(APART - 1).signature, task(APART + 1).signature
    assert near_zero.served is near_zero
    assert far.offset == ()
    assert far.served.offset[0] == far.mean[0]
    assert (far.served.offset[1], far.served.mean[0]) == (0.0, 0.0)
    assert far.served.served == far.served
    assert same_scaling(far, far.served)
    assert td.export(td.LinearConfig().build(far)).signature == far.served
    windows = frame(APART + 1)[["a", "b"]].to_numpy()[None, :CONTEXT]
    assert own_levels(windows)[0, 0].tolist() == [windows[0, -1, 0], 0.0]


def test_signatures_are_compared_by_their_fields_also_after_they_were_served() -> None:
    near, again = toy_signature(), toy_signature()
    assert near.served == again.served  # what is cached must not be compared for ever
    assert near == again
    far, alike = (near.replace(mean=(1e6,) * len(near.channels)) for _ in range(2))
    assert far.served != far
    assert far == alike


@pytest.mark.slow
@pytest.mark.parametrize("method", ["weight-only", "dynamic", "qat", "static"])
def test_quantized_forms_forecast_right_at_a_level_of_1e9(method: str) -> None:
    levels = {0.0: task(0.0), 1.25e8: task(1.25e8)}
    outcome = {}
    for shift, made in levels.items():
        model = td.train(td.MLPConfig(width=5, depth=1), made, QUICK)
        spec = td.Quantization(method=method, require_gain=False, max_error_increase=9.0)
        outcome[shift] = td.quantize(model, made, spec)
    assert outcome[1.25e8].signature.offset[0] == pytest.approx(1e9, abs=10)
    # Rounding to 8 bits may fall to either side where inputs differ in the last digit of float32.
    np.testing.assert_allclose(relative(outcome[1.25e8], 1.25e8), relative(outcome[0.0], 0.0), atol=0.02)


def test_the_int8_of_torch_forecasts_right_at_a_level_of_1e9() -> None:
    config = td.LSTMConfig(widths=(5,))
    models = {shift: TorchInt8(td.train(config, task(shift), QUICK)) for shift in (0.0, 1.25e8)}
    forecasts = {
        shift: model.predict(frame(shift)[["a", "b"]].to_numpy()) - [8 * shift, 0] for shift, model in models.items()
    }
    np.testing.assert_allclose(forecasts[1.25e8], forecasts[0.0], atol=0.16)
    scores = [td.evaluate(model, task(shift))["mse"] for shift, model in models.items()]
    assert scores[1] == pytest.approx(scores[0], rel=1e-3)


def plainly(signature: Signature) -> Signature:
    """As an earlier version wrote it: a mean in raw units and no offset."""
    return signature.replace(offset=(), mean=tuple(signature.centre().tolist()))


def test_a_model_saved_without_an_offset_teaches_and_learns_a_task_that_has_one(tmp_path: Path) -> None:
    made = task(1e4)
    solved = td.train(td.LinearConfig(), made)
    old = td.LinearConfig().build(plainly(made.signature))
    old.load_state_dict(solved.state_dict())
    assert same_scaling(old.signature, made.signature)
    assert not same_scaling(old.signature, task(1e4 + 1).signature)
    teacher: Any = td.load(td.save(old, tmp_path / "old"))
    student = td.distill(teacher, td.LinearConfig(), made, control=False)
    assert student.signature.offset == made.signature.offset
    trained = td.MLPConfig(width=5, depth=1).build(old.signature)
    assert td.distill(teacher, trained, made, training=QUICK, control=False).digest != trained.digest
    batch = made.train.batch(torch.arange(5))
    torch.testing.assert_close(teacher.forecast(batch), solved.forecast(batch), rtol=0, atol=1e-5)


def test_a_module_from_elsewhere_sees_raw_values_where_nothing_scales_them() -> None:
    class Last(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))
            self.seen = 0.0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen = float(x[..., 0].mean())
            return self.weight * x[:, -1:].expand(-1, HORIZON, -1)

    made, module = task(1e4, None), Last()
    teacher = td.wrap(module, made)
    batch = made.train.batch(torch.arange(5))
    forecast = teacher.forecast(batch)
    assert module.seen == pytest.approx(8e4, abs=12)
    torch.testing.assert_close(forecast, batch.context[:, -1:].expand(-1, HORIZON, -1), rtol=0, atol=2e-2)
    with pytest.raises(td.errors.UnsupportedError, match=r"must be left to a module in float64.*channel 'a'"):
        td.wrap(Last(), task(1e8, None))


WHOLE = 2**57
NUMBERS = np.arange(ROWS) % 7 * 1000 + np.arange(ROWS) % 3
LOST = r"beyond 2\^53 = 9,007,199,254,740,992, of which float64 loses digits that matter: .*Subtract a constant"


@pytest.mark.parametrize("kind", ["int64", "Int64", "int64[pyarrow]", "object", "str", "uint64"])
def test_whole_numbers_that_lose_digits_are_refused(kind: Any) -> None:
    cells = pd.Series([WHOLE + int(number) for number in NUMBERS], dtype=object)
    table = frame()[["ds"]].assign(y=cells.astype(kind))
    with pytest.raises(td.errors.DataError, match=f"Column `y` holds whole numbers {LOST}"):
        td.Panel.from_frame(table)
    with pytest.raises(td.errors.DataError, match=LOST):
        td.Panel.from_frame(pd.concat([table.assign(unique_id=name) for name in "ab"]))


def test_whole_numbers_that_lose_nothing_that_matters_are_read() -> None:
    draws = np.random.default_rng(0).integers(-(2**60), 2**60, size=ROWS)
    panel = td.Panel.from_frame(frame()[["ds"]].assign(y=draws))
    np.testing.assert_array_equal(panel.items[0].values[:, 0], draws.astype(np.float64))
    labelled = pd.concat([frame()[["ds", "b"]].assign(unique_id=n, label=2**60 + n) for n in (1, 3)])
    assert td.Panel.from_frame(labelled).channels == ("b",)


def test_whole_numbers_are_read_alike_where_they_are_served() -> None:
    wide = td.Task(td.Panel.from_frame(frame()[["ds"]].assign(y=WHOLE + NUMBERS * 2.0**40)), context=24, horizon=3)
    lost = frame()[["ds"]].assign(y=WHOLE + NUMBERS)
    assert len(td.train(td.LinearConfig(), wide).predict(lost)) == 3  # it loses nothing of what moved in training
    own = td.Task(wide.panel, context=24, horizon=3, scaler="item")
    model = td.train(td.LinearConfig(), own)
    for given in (lost, lost[["y"]].to_numpy()):
        with pytest.raises(td.errors.DataError, match=LOST):
            model.predict(given)
    with pytest.raises(td.errors.DataError, match=LOST):
        td.data.Item("series", None, lost[["y"]].to_numpy())
