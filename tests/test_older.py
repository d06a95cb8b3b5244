"""What version 0.1 wrote: recipes, artifacts, studies, spaces, reports and jobs still load, and mean the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tsdistill as td
from tsdistill.exporting import Deployed
from tsdistill.losses import FeatureLoss, OutputLoss, TemporalLoss
from tsdistill.models import Forecaster, LSTMConfig
from tsdistill.pruning import Taylor
from tsdistill.quantization import Dynamic
from tsdistill.recipe import Recipe, read_recipe
from tsdistill.search import Space, best_recipe, create_study, leaders, table
from tsdistill.testing import toy_panel

OLDER = Path(__file__).parent / "older"


def test_a_recipe_means_what_it_meant() -> None:
    recipe = read_recipe(OLDER / "recipe.toml")
    assert recipe.student.model == LSTMConfig(widths=(5, 3), patch=11)
    assert recipe.student.losses == (OutputLoss(), TemporalLoss(), FeatureLoss())
    assert recipe.pruning is not None
    assert recipe.pruning.criterion == Taylor()
    assert recipe.quantization == Dynamic(
        weight_bits=8, require_gain=False, max_error_increase=9.0, max_batch_effect=9.0
    )
    assert Recipe.from_toml(recipe.to_toml()) == recipe


def test_artifacts_forecast_what_they_forecast() -> None:
    deployed, student = td.load(OLDER / "deployed"), td.load(OLDER / "student")
    assert isinstance(deployed, Deployed)
    assert isinstance(student, Forecaster)
    context = toy_panel(n_rows=307).items[0].values[None, :47].astype(np.float32)
    now = np.stack([deployed.predict(context), student.predict(context)])
    np.testing.assert_allclose(now, np.load(OLDER / "forecasts.npy"), rtol=1e-3, atol=1e-2)
    # Kept under another name then.
    assert deployed.batch_effect > 0
    assert deployed.mixes_windows
    assert td.runtime.verify(OLDER / "deployed")["n_windows"] > 0


def test_a_study_still_gives_its_best_recipe(tmp_path: Path) -> None:
    (tmp_path / "study.log").write_bytes((OLDER / "study.log").read_bytes())
    study = create_study("toy", storage=f"journal:{tmp_path / 'study.log'}")
    rows = leaders(study)
    assert len(rows) == 3
    assert "student" in rows[0]["params"]  # names of 0.1, not addresses
    lines = table(rows, width=100).splitlines()
    assert lines[0].split()[:2] == ["trial", "val."]
    assert any("mlp width 3" in line or "mlp width 5" in line or "lstm width 4" in line for line in lines)
    best = best_recipe(study)
    assert best.student.model.kind in ("mlp", "lstm")
    assert Recipe.from_toml(best.to_toml()) == best


def test_a_space_is_read_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match="Spaces name addresses now"):
        space = Space.from_file(OLDER / "space.toml")
    assert space.vary is not None
    assert space.vary["student.model.mlp.width"] == (3, 5)
    space.check(read_recipe(OLDER / "recipe.toml"))


def test_a_job_and_a_report_are_read() -> None:
    job = td.retrain.Job.from_file(OLDER / "job.toml")
    assert job.recipe.student.model == td.LinearConfig()
    report = td.Report.from_json((OLDER / "report.json").read_text(encoding="utf-8"))
    assert "student" in str(report)
