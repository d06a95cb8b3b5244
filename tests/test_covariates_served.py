"""Covariates reach a served model: from frames, from arrays and from files, with and without torch."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tsdistill import clock
from tsdistill.artifacts import load, save
from tsdistill.data import Covariates, Panel, Task
from tsdistill.errors import DataError, ShapeError
from tsdistill.evaluation import evaluate
from tsdistill.exporting import Deployed, export
from tsdistill.models import Forecaster, MLPConfig
from tsdistill.runtime import load as load_light
from tsdistill.runtime import verify

CONTEXT, HORIZON, N_ROWS = 23, 5, 211
KNOWN = Covariates(calendar=("time-of-day",), holidays=("2024-04-01",), future=("price",), past=("wind",))


@functools.cache
def history() -> pd.DataFrame:
    """Two channels, a planned column and a past one, over the hour that the clocks in Berlin jump."""
    rng = np.random.default_rng(0)
    stamps = pd.date_range("2024-03-25", periods=N_ROWS, freq="h", tz="Europe/Berlin", name="ds")
    values = rng.normal(size=(N_ROWS, 4)) * [2, 3, 5, 7] + [50, 1012, 30, -4]
    return pd.DataFrame(values, columns=["load", "level", "price", "wind"], index=stamps).reset_index()


@functools.cache
def task() -> Task:
    return Task(Panel.from_frame(history()), context=CONTEXT, horizon=HORIZON, covariates=KNOWN)


@functools.cache
def made() -> tuple[Forecaster, Deployed]:
    model = MLPConfig(width=7, depth=1).build(task().signature)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval(), export(model, task())


def planned(n_rows: int = HORIZON, shift: int = 0) -> pd.DataFrame:
    stamps = pd.date_range(history()["ds"].iloc[-1], periods=n_rows + 1 + shift, freq="h", name="ds")[1 + shift :]
    return pd.DataFrame({"ds": stamps, "price": 30 + np.arange(float(n_rows))})


def arrays() -> dict[str, Any]:
    """What the frames say, as arrays, put together by hand."""
    recent, ahead = history().iloc[-CONTEXT:], planned()
    stamps = pd.DatetimeIndex([*recent["ds"], *ahead["ds"]]).tz_localize(None)
    wall = clock.features(stamps.to_numpy(), KNOWN.calendar, KNOWN.holidays)
    prices = np.concatenate([recent["price"], ahead["price"]])[:, None]
    return {
        "x": recent[["load", "level"]].to_numpy(),
        "future": np.concatenate([wall, prices], axis=1),
        "past": recent[["wind"]].to_numpy(),
    }


def test_the_graph_says_what_torch_says_and_scores_alike() -> None:
    model, deployed = made()
    assert deployed.signature.future == ("time-of-day.sin", "time-of-day.cos", "holiday", "price")
    assert deployed.parity["max_difference"] < 2e-5
    served, trained = (evaluate(forecaster, task())["mse"] for forecaster in (deployed, model))
    assert served == pytest.approx(trained, rel=1e-4)


def test_frames_and_arrays_give_the_same_forecast() -> None:
    for model in made():
        table = model.predict(history(), planned())
        assert list(table["ds"]) == list(planned()["ds"])
        np.testing.assert_allclose(table[["load", "level"]].to_numpy(), model.predict(**arrays()), rtol=1e-5)
        unstamped = planned().drop(columns="ds")
        pd.testing.assert_frame_equal(model.predict(history(), unstamped), table)
        longer = pd.concat([history()[["ds", "price"]], planned(11)], ignore_index=True)
        pd.testing.assert_frame_equal(model.predict(history(), longer), table)


@pytest.mark.parametrize("name", ["future", "past"])
def test_every_covariate_has_a_say(name: str) -> None:
    _, deployed = made()
    inputs = arrays()
    usual = deployed.predict(**inputs)
    for feature in range(inputs[name].shape[1]):
        changed = {**inputs, name: inputs[name].copy()}
        changed[name][-1, feature] += 1
        assert np.abs(deployed.predict(**changed) - usual).max() > 1e-4, feature


def test_several_items_bring_plans_of_their_own() -> None:
    _, deployed = made()
    both, plans = (
        pd.concat([frame.assign(unique_id="a"), frame.assign(unique_id="b", price=frame["price"] + 3)])
        for frame in (history(), planned())
    )
    table = deployed.predict(both, plans)
    alone = deployed.predict(
        history().assign(price=history()["price"] + 3), planned().assign(price=planned()["price"] + 3)
    )
    assert list(table["unique_id"]) == ["a"] * HORIZON + ["b"] * HORIZON
    np.testing.assert_allclose(table[["load", "level"]].to_numpy()[HORIZON:], alone[["load", "level"]], rtol=1e-5)


def test_artifacts_keep_covariates_for_machines_without_torch(tmp_path: Path) -> None:
    _, deployed = made()
    folder = save(deployed, tmp_path / "m")
    assert verify(folder)["max_difference"] < 1e-4
    for again in (load(folder), load_light(folder)):
        np.testing.assert_array_equal(again.predict(**arrays()), deployed.predict(**arrays()))
    code = (
        "import sys, numpy as np, json\n"
        "from tsdistill.runtime import load\n"
        "inputs = {name: np.array(values) for name, values in json.load(sys.stdin).items()}\n"
        "print(json.dumps(load(sys.argv[1]).predict(**inputs).tolist()))\n"
        "assert not {'torch', 'pandas', 'pydantic'} & set(sys.modules)\n"
    )
    given = json.dumps({name: values.tolist() for name, values in arrays().items()})
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], input=given, capture_output=True, text=True, check=True
    )
    np.testing.assert_allclose(json.loads(done.stdout), deployed.predict(**arrays()), rtol=1e-5)


def test_the_shell_reads_plans_from_a_file(tmp_path: Path) -> None:
    _, deployed = made()
    save(deployed, tmp_path / "m")
    utc = history().assign(ds=history()["ds"].dt.tz_convert("UTC"))
    utc.to_csv(tmp_path / "history.csv", index=False)
    ahead = pd.concat([utc[["ds", "price"]].tail(2), planned().assign(ds=planned()["ds"].dt.tz_convert("UTC"))])
    ahead.to_csv(tmp_path / "plan.csv", index=False)
    command = [sys.executable, "-m", "tsdistill.cli", "predict", "m", "history.csv", "--future", "plan.csv"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.splitlines()[0] == "ds,load,level"
    assert len(done.stdout.splitlines()) == 1 + HORIZON
    without = subprocess.run(command[:-2], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (without.returncode, "`future` must be a frame of the horizon's price" in without.stderr) == (4, True)


WRONG: dict[str, tuple[Any, type[Exception], list[str]]] = {
    "no plan": (lambda m: m.predict(history()), DataError, ["`future`", "frame of the horizon's price"]),
    "no plan in arrays": (
        lambda m: m.predict(arrays()["x"], past=arrays()["past"]),
        DataError,
        ["`future`", "28, 4", "price"],
    ),
    "no past in arrays": (lambda m: m.predict(arrays()["x"], arrays()["future"]), DataError, ["`past`", "wind"]),
    "too few planned rows": (lambda m: m.predict(history(), planned(3)[["price"]]), DataError, ["hold 5 rows", "3"]),
    "plan of other steps": (
        lambda m: m.predict(history(), planned(5, shift=2)),
        DataError,
        ["5 steps after x", "2 of them missing"],
    ),
    "plan without its column": (
        lambda m: m.predict(history(), planned().rename(columns={"price": "prize"})),
        DataError,
        ["price"],
    ),
    "a gap in the plan": (
        lambda m: m.predict(history(), planned().replace(31.0, np.nan)),
        DataError,
        ["`future`", "column `price` has 1 missing value"],
    ),
    "past column gone": (
        lambda m: m.predict(history().drop(columns="wind"), planned()),
        DataError,
        ["'wind' is missing"],
    ),
    "axes swapped": (
        lambda m: m.predict(**{**arrays(), "future": arrays()["future"].T}),
        ShapeError,
        ["`future`", "(4, 28)"],
    ),
    "another number of windows": (
        lambda m: m.predict(**{**arrays(), "past": np.stack([arrays()["past"]] * 2)}),
        ShapeError,
        ["1 windows"],
    ),
    "no stamps": (
        lambda m: m.predict(history().drop(columns="ds"), planned()[["price"]]),
        DataError,
        ["calendar", "time stamps"],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_covariates_that_cannot_be_used_are_one_clear_error(case: str) -> None:
    ask, kind, words = WRONG[case]
    for model in made():
        with pytest.raises(kind) as caught:
            ask(model)
        assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


def test_a_model_without_covariates_takes_none() -> None:
    plain = task().without_covariates()
    model = MLPConfig(width=5, depth=1).build(plain.signature)
    frame = history()[["ds", "load", "level"]]
    with pytest.raises(DataError, match="`future` must be None without planned columns"):
        model.predict(frame, planned())
    with pytest.raises(DataError, match="`past` must be None"):
        model.predict(arrays()["x"], past=arrays()["past"])


def test_rolling_forecasts_know_the_plans_of_each_moment() -> None:
    _, deployed = made()
    rows = history()
    rolled = deployed.predict(rows, planned(), rolling=47)
    assert rolled["cutoff"].nunique() == 5
    for cutoff, part in rolled.groupby("cutoff"):
        seen = rows[rows["ds"] <= cutoff]
        ahead = pd.concat([rows, planned()])[["ds", "price"]]
        ahead = ahead[ahead["ds"] > cutoff].iloc[:HORIZON]
        one = deployed.predict(seen, ahead)
        pd.testing.assert_frame_equal(part.drop(columns="cutoff").reset_index(drop=True), one, rtol=1e-4)


def test_arrays_roll_with_their_covariates() -> None:
    _, deployed = made()
    random = np.random.default_rng(0)
    sizes = {"x": (61, 2), "future": (61 + HORIZON, 4), "past": (61, 1)}
    given: dict[str, Any] = {name: random.normal(size=shape) for name, shape in sizes.items()}
    rolled = deployed.predict(**given, rolling=19)
    assert rolled.shape == (3, HORIZON, 2)
    for number, end in enumerate((23, 42, 61)):
        seen: dict[str, Any] = {
            "x": given["x"][:end],
            "future": given["future"][: end + HORIZON],
            "past": given["past"][:end],
        }
        np.testing.assert_allclose(rolled[number], deployed.predict(**seen), rtol=1e-4, atol=1e-3)
    with pytest.raises(ShapeError, match=r"`future` must have shape \(\[batch,\] 66 or more, 4\)"):
        deployed.predict(**{**given, "future": given["future"][:-1]}, rolling=19)
