"""What importing tsdistill loads, and which names it shows."""

from __future__ import annotations

import importlib
import json
import pkgutil
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
    "AttentionLoss",
    "Budget",
    "Covariates",
    "Deployed",
    "FeatureLoss",
    "Forecaster",
    "LSTMConfig",
    "LinearConfig",
    "MLPConfig",
    "OutputLoss",
    "Panel",
    "PatchTSTConfig",
    "Pruning",
    "QuantileHead",
    "Quantization",
    "Recipe",
    "Report",
    "Split",
    "TCNConfig",
    "Task",
    "TemporalLoss",
    "Training",
    "check_data",
    "compare",
    "compress",
    "datasets",
    "distill",
    "errors",
    "evaluate",
    "evaluation",
    "export",
    "export_c",
    "load",
    "losses",
    "models",
    "plan_pruning",
    "prune",
    "pruning",
    "pruning_sensitivity",
    "quality",
    "quantization",
    "quantization_sensitivity",
    "quantize",
    "read_csv",
    "read_parquet",
    "read_sql",
    "refit",
    "retrain",
    "run",
    "runtime",
    "save",
    "search",
    "shrink",
    "solve",
    "teachers",
    "testing",
    "train",
    "verify",
    "wrap",
]

# Those of them that are modules.
MODULES = [
    "datasets",
    "errors",
    "evaluation",
    "losses",
    "models",
    "pruning",
    "quality",
    "quantization",
    "retrain",
    "runtime",
    "search",
    "teachers",
    "testing",
]

# Names of version 0.1 that moved, each with its place; the table leaves together with the names, in version 0.3.
MOVED = {
    "ArtifactError": "tsdistill.errors.ArtifactError",
    "BinnedHead": "tsdistill.models.BinnedHead",
    "ConfigError": "tsdistill.errors.ConfigError",
    "CycleNetConfig": "tsdistill.models.CycleNetConfig",
    "DLinearConfig": "tsdistill.models.DLinearConfig",
    "DataError": "tsdistill.errors.DataError",
    "DecompositionLoss": "tsdistill.losses.DecompositionLoss",
    "DivergenceError": "tsdistill.errors.DivergenceError",
    "InvertedTransformerConfig": "tsdistill.models.InvertedTransformerConfig",
    "MultiScaleLoss": "tsdistill.losses.MultiScaleLoss",
    "OrderError": "tsdistill.errors.OrderError",
    "Plan": "tsdistill.pruning.Plan",
    "PointHead": "tsdistill.models.PointHead",
    "QuantileLoss": "tsdistill.losses.QuantileLoss",
    "SeasonalNaiveConfig": "tsdistill.models.SeasonalNaiveConfig",
    "ShapeError": "tsdistill.errors.ShapeError",
    "SmoothnessLoss": "tsdistill.losses.SmoothnessLoss",
    "SoftLabelLoss": "tsdistill.losses.SoftLabelLoss",
    "SparseTSFConfig": "tsdistill.models.SparseTSFConfig",
    "SpectralLoss": "tsdistill.losses.SpectralLoss",
    "TSMixerConfig": "tsdistill.models.TSMixerConfig",
    "TeacherEnsemble": "tsdistill.teachers.TeacherEnsemble",
    "TrustedTeacher": "tsdistill.teachers.TrustedTeacher",
    "TsdistillError": "tsdistill.errors.TsdistillError",
    "UnsupportedError": "tsdistill.errors.UnsupportedError",
    "WeightSchedule": "tsdistill.losses.WeightSchedule",
    "read_forecasts": "tsdistill.teachers.read_forecasts",
    "sensitivity": "tsdistill.pruning_sensitivity",
    "statistical": "tsdistill.evaluation.statistical",
}


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


@pytest.mark.parametrize("module", ["errors", "deprecation", "clock", "spec", "manifest", "runtime"])
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


@pytest.mark.slow
def test_no_submodule_hides_a_public_name() -> None:
    """Importing a submodule binds its name on the package, so it must never be the name of a function."""
    code = (
        "import importlib, pkgutil, types\nimport tsdistill as td\n"
        "infos = list(pkgutil.walk_packages(td.__path__, 'tsdistill.'))\n"
        "modules = [importlib.import_module(info.name) for info in infos]\n"
        f"shown = [n for n in {PUBLIC!r} if isinstance(getattr(td, n), types.ModuleType)]\n"
        "assert len(modules) > 20, modules\n"
        f"assert shown == {MODULES!r}, shown"
    )
    assert loaded_by(code, "torch") == ["torch"]


def test_every_public_name_exists_and_is_documented() -> None:
    assert [name for name in PUBLIC if not (getattr(td, name).__doc__ or "").strip()] == []


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        td.no_such_name  # type: ignore[attr-defined]  # noqa: B018


def test_the_table_of_moved_names_is_frozen() -> None:
    assert td.MOVED == MOVED  # type: ignore[attr-defined]
    assert set(MOVED).isdisjoint(PUBLIC)


@pytest.mark.parametrize("name", MOVED)
def test_a_moved_name_is_the_same_thing_and_warns_once(name: str) -> None:
    place = MOVED[name]
    module, _, attribute = place.rpartition(".")
    with pytest.warns(DeprecationWarning, match=rf"`tsdistill\.{name}` is `{place}` now.*0\.3") as caught:
        values = [getattr(td, name) for _ in range(3)]
    assert values == [getattr(importlib.import_module(module), attribute)] * 3
    # A library that is imported on the way may have warnings of its own.
    own = [warning for warning in caught if f"`tsdistill.{name}`" in str(warning.message)]
    assert [Path(warning.filename).name for warning in own] == ["test_imports.py"]


@pytest.mark.parametrize(
    ("package", "name"),
    [
        (package, name)
        for package in ("models", "pruning", "recipe", "report", "search", "teachers", "training")
        for name in importlib.import_module(f"tsdistill.{package}").MOVED
    ],
)
def test_a_name_that_moved_within_a_package_works_and_warns(package: str, name: str) -> None:
    module = importlib.import_module(f"tsdistill.{package}")
    with pytest.warns(DeprecationWarning, match=rf"`tsdistill\.{package}\.{name}` is .*0\.3"):
        moved = getattr(module, name)
    owner, _, attribute = module.MOVED[name].rpartition(".")
    assert moved == getattr(pkgutil.resolve_name(owner), attribute)
    assert name not in module.__all__


def test_a_name_that_no_package_has_or_had_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'tsdistill\.search' has no attribute 'Nobody'"):
        importlib.import_module("tsdistill.search").Nobody  # noqa: B018


def test_a_moved_name_is_imported_as_before() -> None:
    code = (
        "import warnings\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    from tsdistill import ConfigError\n"
        "from tsdistill.errors import ConfigError as same\n"
        "assert ConfigError is same and len(caught) == 1, caught"
    )
    assert loaded_by(code, *HEAVY) == []


def test_families_are_reached_from_the_root() -> None:
    assert callable(td.models.register)
    assert callable(td.losses.register)
    assert callable(td.pruning.register)
    assert callable(td.quantization.register)
    assert "quantile" in td.models.HEADS
