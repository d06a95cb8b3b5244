"""What importing tsdistill loads, and which names it shows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

import tsdistill as td

HEAVY = ("torch", "pandas", "optuna", "plotly")

# The public face. A name joins or leaves this list together with a line in CHANGELOG.md, never by accident.
PUBLIC = [
    "ArtifactError",
    "AttentionLoss",
    "BinnedHead",
    "ConfigError",
    "Covariates",
    "CycleNetConfig",
    "DLinearConfig",
    "DataError",
    "DecompositionLoss",
    "Deployed",
    "DivergenceError",
    "FeatureLoss",
    "Forecaster",
    "InvertedTransformerConfig",
    "LSTMConfig",
    "LinearConfig",
    "MLPConfig",
    "MultiScaleLoss",
    "OrderError",
    "OutputLoss",
    "Panel",
    "PatchTSTConfig",
    "Plan",
    "PointHead",
    "Pruning",
    "QuantileHead",
    "QuantileLoss",
    "Quantization",
    "Recipe",
    "Report",
    "SeasonalNaiveConfig",
    "ShapeError",
    "SmoothnessLoss",
    "SoftLabelLoss",
    "SparseTSFConfig",
    "SpectralLoss",
    "Split",
    "TCNConfig",
    "TSMixerConfig",
    "Task",
    "TeacherEnsemble",
    "TemporalLoss",
    "Training",
    "TrustedTeacher",
    "TsdistillError",
    "UnsupportedError",
    "WeightSchedule",
    "compare",
    "datasets",
    "distill",
    "evaluate",
    "export",
    "load",
    "plan_pruning",
    "prune",
    "quantization_sensitivity",
    "quantize",
    "read_csv",
    "read_forecasts",
    "read_parquet",
    "read_sql",
    "retrain",
    "run",
    "runtime",
    "save",
    "search",
    "pruning_sensitivity",
    "shrink",
    "solve",
    "statistical",
    "teachers",
    "testing",
    "train",
    "verify",
    "wrap",
]

# Those of them that are modules.
MODULES = ["datasets", "retrain", "runtime", "search", "teachers", "testing"]


def loaded_by(code: str, *names: str) -> list[str]:
    """Which of the named packages are loaded in a fresh process that has run `code`."""
    report = f"\nimport sys, json; print(json.dumps([n for n in {names!r} if n in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_by("import tsdistill", *HEAVY) == []


def test_the_check_itself_sees_what_is_loaded() -> None:
    assert loaded_by("import tsdistill; tsdistill.Panel", *HEAVY) == ["pandas"]


@pytest.mark.parametrize("module", ["errors", "clock", "spec", "manifest", "runtime"])
def test_floor_zero_is_light(module: str) -> None:
    assert loaded_by(f"import tsdistill.{module}", *HEAVY) == []


def test_the_shell_answers_without_torch() -> None:
    assert loaded_by("import tsdistill.cli", *HEAVY) == []


class Shipped(NamedTuple):
    """A deployed forecaster in a folder, raw contexts, what torch forecasts from them, and a channel's spread."""

    folder: Path
    contexts: np.ndarray
    expected: np.ndarray
    scale: np.ndarray


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    rng = np.random.default_rng(0)
    hours = np.arange(211)
    waves = 20 + 5 * np.sin(hours[:, None] * 2 * np.pi / 24 + np.arange(3)) + rng.normal(size=(211, 3))
    stamps = pd.date_range("2013-01-01", periods=len(hours), freq="h", name="ds")
    frame = pd.DataFrame(waves, columns=["a", "b", "c"]).assign(ds=stamps)
    task = td.Task(td.Panel.from_frame(frame, time="ds"), context=29, horizon=7)
    forecaster = td.train(td.LinearConfig(), task)
    folder = tmp_path_factory.mktemp("artifacts") / "linear"
    td.save(td.export(forecaster, task), folder)
    contexts = np.stack([waves[start : start + 29] for start in (3, 11, 47, 101, 167)]).astype(np.float32)
    return Shipped(folder, contexts, np.asarray(forecaster.predict(contexts)), np.asarray(task.scale))


def test_a_deployed_prediction_loads_neither_torch_nor_pandas(shipped: Shipped, tmp_path: Path) -> None:
    np.save(tmp_path / "contexts.npy", shipped.contexts)
    code = (
        "import numpy\nfrom tsdistill.runtime import load\n"
        f"contexts = numpy.load({str(tmp_path / 'contexts.npy')!r})\n"
        f"forecast = load({str(shipped.folder)!r}).predict(contexts)\n"
        "assert forecast.shape == (5, 7, 3), forecast.shape"
    )
    assert loaded_by(code, *HEAVY, "pydantic", "onnx") == []


def test_a_deployed_prediction_equals_the_forecast_of_torch(shipped: Shipped) -> None:
    from tsdistill.runtime import load

    forecast = np.asarray(load(shipped.folder).predict(shipped.contexts))
    np.testing.assert_allclose(forecast / shipped.scale, shipped.expected / shipped.scale, rtol=0, atol=1e-4)


def test_public_names_are_frozen() -> None:
    assert sorted(td.__all__) == PUBLIC


def test_no_submodule_hides_a_public_name() -> None:
    """Importing a submodule binds its name on the package, so it must never be the name of a function."""
    code = (
        "import importlib, pkgutil, types\nimport tsdistill as td\n"
        "found = list(pkgutil.walk_packages(td.__path__, 'tsdistill.'))\n"
        "modules = [importlib.import_module(info.name) for info in found]\n"
        f"shown = [n for n in {PUBLIC!r} if isinstance(getattr(td, n), types.ModuleType)]\n"
        "assert len(modules) > 20, modules\n"
        f"assert shown == {MODULES!r}, shown"
    )
    assert loaded_by(code, "torch") == ["torch"]


def test_every_public_name_exists_and_is_documented() -> None:
    assert [name for name in PUBLIC if not (getattr(td, name).__doc__ or "").strip()] == []


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        td.no_such_name  # noqa: B018
