"""Recipes with teachers from elsewhere: read as data, run honestly, and never mixed up with older ones."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tsdistill as td
from tests import retraining
from tests.typed import instance_of
from tsdistill import exporting
from tsdistill.cli import main
from tsdistill.errors import ArtifactError, ConfigError, DataError, OrderError, ShapeError
from tsdistill.models import Forecaster
from tsdistill.recipe import Recipe, SavedTeacherSpec, Workspace, make_models, make_teacher, read_recipe
from tsdistill.retrain import Job, run_job
from tsdistill.teachers import ForecastTable, RescaledTeacher, forecast_frame

PIPELINE = importlib.import_module("tsdistill.recipe.pipeline")  # the package shows the function of this name
GUIDE = Path(__file__).resolve().parents[1] / "docs" / "guides" / "foreign-teachers.md"
SPLIT = td.Split.fractions(0.6, 0.2, 0.2)

RECIPE = """
name = "toy"
quantization = "none"

[data]
path = "fresh.csv"

[task]
context = 29
horizon = 7
split = { kind = "fractions", train = 0.6, validation = 0.2, test = 0.2 }

[student]
model = { kind = "linear" }
losses = [{ kind = "output" }]

"""
TABLE = '[teacher]\nkind = "table"\npath = "forecasts.csv"\n'
STEPS = "{ max_steps = 2, batch_size = 37, precision = 'float32' }"


@pytest.fixture(scope="module", autouse=True)
def exported_once() -> Iterator[None]:
    """The same model is exported once in this file: tracing takes a second, and is not what is tested here."""
    real, kept = exporting.export, {}

    def remembered(model: Forecaster, task: td.Task) -> Any:
        key = (model.digest, str(model.lineage), task.fingerprint, getattr(model.control, "digest", None))
        if key not in kept:
            kept[key] = real(model, task)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        for module in (td, exporting, PIPELINE):  # td too, which keeps what it was asked for
            patch.setattr(module, "export", remembered)
        yield


def task_of(path: Path) -> td.Task:
    return td.Task(td.read_csv(path), context=29, horizon=7, split=SPLIT)


@pytest.fixture(scope="module")
def ridge(place: Path) -> Forecaster:
    return td.train(td.LinearConfig(), task_of(place / "fresh.csv"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two hourly channels in a CSV file, and a table of forecasts that covers every part."""
    folder = tmp_path_factory.mktemp("place")
    task = task_of(retraining.write_csv(folder / "fresh.csv"))
    forecasts(td.train(td.LinearConfig(), task)).to_csv(folder / "forecasts.csv", index=False)
    return folder


def forecasts(ridge: Forecaster, n_rows: int = retraining.N_ROWS) -> pd.DataFrame:
    """What the ridge says of every window of the first rows, whatever part it is in."""
    df = retraining.frame().iloc[:n_rows]
    beyond = pd.date_range(df["ds"].iloc[-1], periods=48, freq="h")[1:]
    longer = pd.concat([df, pd.DataFrame({"ds": beyond, "load": 0.0, "wind": 0.0})])
    split = td.Split.rows(n_rows + 7, 17, 23)
    whole = td.Task(td.Panel.from_frame(longer), context=29, horizon=7, split=split)
    frame = forecast_frame(RescaledTeacher(ridge, whole), whole)
    return frame[frame["cutoff"] <= df["ds"].iloc[-1]]


def written(folder: Path, teacher: str, name: str = "recipe.toml") -> Path:
    (folder / name).write_text(RECIPE + teacher)
    return folder / name


def shell(*words: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["tsdistill", *map(str, words)])
        patch.setattr(signal, "signal", lambda *_: None)
        main()


def stages(folder: Path) -> list[tuple[str, bool]]:
    """Stages in the order of the log, and whether they were kept."""
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [(event["stage"], event.get("kept", False)) for event in map(json.loads, lines)]


KINDS = {
    "table": TABLE + 'time = "when"\ntrust = 2.0',
    "huggingface": '[teacher]\nkind = "huggingface"\npath = "hub"\nunits = "raw"',
    "saved": '[teacher]\nkind = "saved"\npath = "models/old"',
    "scikit-learn": '[teacher]\nkind = "scikit-learn"\nregressor = "KNeighborsRegressor"\n'
    'settings = { n_neighbors = 7, weights = "distance" }',
    "ensemble": '[teacher]\nkind = "ensemble"\nweights = "validation"\nmembers = [{ kind = "table", path = "a.csv" }, '
    '{ model = { kind = "linear" } }]\n',
    "trained": '[teacher]\ntrust = 0.5\nmodel = { kind = "linear" }',
}


def test_reading_a_recipe_looks_for_its_files_and_opens_none(place: Path, tmp_path: Path) -> None:
    shutil.copy(place / "fresh.csv", tmp_path)
    ensemble = KINDS["ensemble"]
    with pytest.raises(ConfigError, match=r"`teacher\.members\.0\.path` must name something.*relative to the recipe"):
        read_recipe(written(tmp_path, ensemble))
    (tmp_path / "a.csv").write_bytes(b"\x80 no table")
    assert read_recipe(written(tmp_path, ensemble)).paths["teacher.members.0.path"] == str(tmp_path / "a.csv")


@pytest.fixture(scope="module")
def finished(place: Path) -> Path:
    """A finished run by that table."""
    shell("run", written(place, TABLE), "--out", place / "out", "--quiet")
    return place


def test_a_table_teaches_a_recipe_and_stands_in_its_report(finished: Path, ridge: Forecaster) -> None:
    report = td.Report.from_json((finished / "out" / "report.json").read_text())
    row, first = report.row("teacher"), report.rows[0]
    assert (row, row.runtime, row.kind, row.role) == (first, "foreign", "ForecastTable", "reference")
    task = task_of(finished / "fresh.csv")
    assert row.mse == pytest.approx(td.evaluate(ridge, task, part="test")["mse"], rel=1e-4)
    assert row.mse != pytest.approx(td.evaluate(ridge, task)["mse"], rel=1e-2)
    invented = (row.n_parameters, row.size_bytes, row.latency_p50_ms, row.speedup, row.size_ratio)
    assert invented == (None,) * 5
    assert "than teacher" in report.verdict[0]
    assert "smaller" not in report.verdict[0]
    student = td.load(finished / "out" / "stages" / "student")
    table = td.teachers.read_forecasts(finished / "forecasts.csv", task)
    assert student.lineage[-1].spec["teacher"] == table.digest
    assert student.lineage[-1].spec["teacher_kind"] == "ForecastTable"
    kept = Recipe.from_file(finished / "out" / "recipe.toml")
    assert kept.paths["teacher.path"] == str(finished / "forecasts.csv")


@pytest.mark.slow
def test_what_has_not_changed_is_kept_and_what_has_is_not(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "copy"))
    command = ("run", folder / "recipe.toml", "--out", folder / "out", "--quiet", "--json")
    n_before = len(stages(folder / "out"))
    shell(*command)
    before = json.loads(capsys.readouterr().out)
    read_again = [("teacher", False), ("student", True), ("deployed", True)]
    assert stages(folder / "out")[n_before:] == read_again

    # The forecasts for the test part teach nothing: only the report is about them.
    df = pd.read_csv(folder / "forecasts.csv", parse_dates=["cutoff"])
    late = df["cutoff"] > retraining.frame()["ds"].iloc[340]
    df.loc[late, "load"] += 3.0
    df.to_csv(folder / "forecasts.csv", index=False)
    n_before = len(stages(folder / "out"))
    shell(*command)
    after = json.loads(capsys.readouterr().out)
    assert stages(folder / "out")[n_before:] == [*read_again, ("report", False)]
    assert after["rows"][0]["mse"] > before["rows"][0]["mse"]

    n_before = len(stages(folder / "out"))
    df["load"] += 0.5 * (df.index == 0)
    df.to_csv(folder / "forecasts.csv", index=False)
    shell(*command)
    assert [kept for _, kept in stages(folder / "out")[n_before:]] == [False] * 4
    assert len(list((folder / "out" / "cache").glob("*.forecast.npy"))) == 2
    capsys.readouterr()
    shell("cache", folder / "out" / "cache", "--json")
    assert len(json.loads(capsys.readouterr().out)["entries"]) == 2


def test_a_table_without_the_test_part_says_so_in_its_row(place: Path, ridge: Forecaster, tmp_path: Path) -> None:
    shutil.copy(place / "fresh.csv", tmp_path)
    forecast_frame(ridge, task_of(place / "fresh.csv")).to_csv(tmp_path / "forecasts.csv", index=False)
    result = td.run(read_recipe(written(tmp_path, TABLE)), tmp_path / "out", progress=False)
    row = result.report.row("teacher")
    assert (row.mse, row.mse_ratio, row.mse_by_step, row.size_bytes) == (None, None, (), None)
    assert row.remark is not None
    assert "not scored: A table of forecasts" in row.remark
    assert "those of the test part" in row.remark
    assert result.report.reference == "student"
    text = " ".join(str(result.report).split())
    assert f"teacher: {row.remark}." in text
    assert row.remark in (tmp_path / "out" / "report.html").read_text()
    assert not any("teacher" in example.forecasts for example in result.report.examples)
    assert td.Report.from_json(result.report.to_json()) == result.report


def test_a_table_that_is_wrong_is_told_with_its_file_before_anything_is_trained(
    place: Path, ridge: Forecaster, tmp_path: Path
) -> None:
    shutil.copy(place / "fresh.csv", tmp_path)
    forecasts(ridge).iloc[20:].to_csv(tmp_path / "a.csv", index=False)
    recipe = read_recipe(written(tmp_path, KINDS["ensemble"]))
    with pytest.raises(DataError, match=r"a\.csv: The table must cover all 203 training windows, and lacks 3 cutoffs"):
        td.run(recipe, tmp_path / "out", progress=False)
    assert not (tmp_path / "out" / "stages").exists()


def teacher_of(folder: Path, teacher: str, task: td.Task | None = None) -> Any:
    recipe = read_recipe(written(folder, teacher))
    task = task or recipe.task.build(recipe.data.load())
    return make_teacher(recipe, task, Workspace(folder / "out"), False)


@pytest.fixture
def data(place: Path, tmp_path: Path) -> Path:
    for name in ("fresh.csv", "forecasts.csv"):
        shutil.copy(place / name, tmp_path)
    return tmp_path


def test_an_ensemble_is_weighed_and_trusted_and_its_trained_member_kept(data: Path) -> None:
    text = """[teacher]
kind = "ensemble"
weights = "validation"
trust = 2.0
[[teacher.members]]
model = { kind = "seasonal-naive" }
[[teacher.members]]
kind = "table"
path = "forecasts.csv"
"""
    teachers = [teacher_of(data, text) for _ in range(2)]
    assert [type(teacher) for teacher in teachers] == [td.teachers.TrustedTeacher] * 2
    assert teachers[0].digest == teachers[1].digest
    assert teachers[0].sharpness == 2.0
    naive, table = teachers[0].teacher.weights
    assert table > naive
    assert stages(data / "out") == [
        ("teacher-2", False), ("teacher-1", False), ("teacher", False),
        ("teacher-2", False), ("teacher-1", True), ("teacher", False),
    ]  # fmt: skip


def test_trust_changes_the_students_key_and_not_the_teachers(data: Path) -> None:
    plain = teacher_of(data, '[teacher]\nmodel = { kind = "linear" }')
    trusted = teacher_of(data, '[teacher]\ntrust = 1.0\nmodel = { kind = "linear" }')
    assert isinstance(trusted, td.teachers.TrustedTeacher)
    assert trusted.teacher.digest == plain.digest != trusted.digest
    assert stages(data / "out") == [("teacher", False), ("teacher", True)]


def test_a_saved_forecaster_of_other_rows_is_rescaled(data: Path) -> None:
    panel = td.read_csv(data / "fresh.csv")
    early = td.Task(panel, context=29, horizon=7, split=td.Split.rows(101, 37, 41))
    for task, kind in ((task_of(data / "fresh.csv"), Forecaster), (early, RescaledTeacher)):
        td.save(td.train(td.LinearConfig(), task), data / "old")
        assert isinstance(teacher_of(data, '[teacher]\nkind = "saved"\npath = "old"'), kind)
    old = instance_of(Forecaster, td.load(data / "old"))
    with pytest.raises(ShapeError, match="RescaledTeacher"):
        td.distill(old, td.LinearConfig(), task_of(data / "fresh.csv"), control=False)
    td.save(td.export(td.train(td.LinearConfig(), early), early), data / "deployed")
    with pytest.raises(OrderError, match="holds a deployed one"):
        teacher_of(data, '[teacher]\nkind = "saved"\npath = "deployed"')
    (data / "empty").mkdir()
    with pytest.raises(ArtifactError):
        teacher_of(data, '[teacher]\nkind = "saved"\npath = "empty"')


def test_a_regressor_is_fitted_alike_each_time(data: Path) -> None:
    text = """[teacher]
kind = "scikit-learn"
regressor = "RandomForestRegressor"
settings = { n_estimators = 3, max_depth = 2 }
n_windows = 53
"""
    one, same, other = (teacher_of(data, toml) for toml in (text, text, f"{text}seed = 1"))
    assert one.digest == same.digest != other.digest
    assert one.regressor.get_params()["n_estimators"] == 3
    with pytest.raises(ConfigError, match=r"`teacher\.settings` must be parameters.*Did you mean `max_depth`"):
        teacher_of(data, text.replace("max_depth", "max_dept"))
    with pytest.raises(ConfigError, match=r"(?s)`teacher\.settings` must suit RandomForestRegressor: .*n_estimators"):
        teacher_of(data, text.replace("= 3", "= -3"))


def test_pruning_recovers_from_a_table(data: Path) -> None:
    pruned = f"[pruning]\nratio = 0.5\nrecovery = {STEPS}\n"
    recipe = written(data, TABLE + pruned)
    mlp = '{ kind = "mlp", width = 8, depth = 1 }'
    recipe.write_text(recipe.read_text().replace('{ kind = "linear" }', f"{mlp}\ntraining = {STEPS}"))
    spec = read_recipe(recipe)
    task = spec.task.build(spec.data.load())
    workspace = Workspace(data / "out")
    teacher = make_teacher(spec, task, workspace, False)
    models = make_models(spec, task, teacher, workspace, progress=False)
    assert isinstance(teacher, ForecastTable)
    step = models["pruned"].lineage[-1]
    assert (step.verb, step.spec["teacher"]) == ("prune", teacher.digest)
    assert models["pruned"].n_parameters < models["student"].n_parameters
    assert spec.pruning is not None
    alone = spec.replace(pruning=spec.pruning.replace(recover_from="self"))
    models = make_models(alone, task, teacher, workspace, progress=False)
    assert models["pruned"].lineage[-1].spec["teacher"] == models["student"].digest


def test_a_hugging_face_folder_teaches_and_a_changed_one_is_another(data: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the extra `huggingface` is not installed")
    import torch

    digests = []
    for seed in (4, 4, 5):
        torch.manual_seed(seed)
        config = transformers.PatchTSTConfig(
            num_input_channels=2, context_length=23, prediction_length=7, patch_length=5, patch_stride=3, d_model=6,
            num_attention_heads=2, ffn_dim=13, num_hidden_layers=1,
        )  # fmt: skip
        transformers.PatchTSTForPrediction(config).save_pretrained(data / "hub")
        digests.append(teacher_of(data, '[teacher]\nkind = "huggingface"\npath = "hub"').digest)
    assert digests[0] == digests[1] != digests[2]


def test_a_search_goes_by_the_table_and_not_by_another_one(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "space.toml").write_text(
        '[vary]\nstudent.model.kind = "mlp"\nstudent.model.width = 3\nstudent.model.depth = 1\n'
    )
    recipe = written(data, f"{TABLE}[student.training]\nmax_steps = 2\nbatch_size = 37\n")
    command = ("search", recipe, "--space", data / "space.toml", "--out", data / "found", "--quiet", "--json")
    shell(*command, "--trials", 1)
    assert json.loads(capsys.readouterr().out)["n_finished"] == 1
    best = read_recipe(data / "found" / "best.toml")
    assert best.paths["teacher.path"] == str(data / "forecasts.csv")
    df = pd.read_csv(data / "forecasts.csv")
    df["load"] += 0.5 * (df.index == 0)
    df.to_csv(data / "forecasts.csv", index=False)
    with pytest.raises(SystemExit):
        shell(*command, "--trials", 2)
    assert "begun with a different teacher" in capsys.readouterr().err


def test_a_job_whose_table_has_not_grown_fails_and_serves_what_it_served(data: Path, ridge: Forecaster) -> None:
    written(data, TABLE)
    (data / "job.toml").write_text(
        f'store = "store"\nrecipe = "recipe.toml"\njudge = {retraining.JUDGE}\nvalidation = {retraining.VALIDATION}\n'
        'report = false\n[data]\npath = "fresh.csv"\n[gate]\nmargin = 0.9\n'
    )
    job = Job.from_file(data / "job.toml")
    assert job.recipe.paths["teacher.path"] == str(data / "forecasts.csv")
    forecasts(ridge, 251).to_csv(data / "forecasts.csv", index=False)
    assert run_job(job, as_of=retraining.FIRST).decision == "promoted"
    served = (data / "store" / "current").resolve()
    with pytest.raises(DataError, match=r"forecasts\.csv: The table must cover all .* and lacks \d+ cutoffs: 2024-01-"):
        run_job(job)
    verdict = json.loads((data / "store" / "last-verdict.json").read_text())
    assert (verdict["decision"], verdict["error"]) == ("failed", "DataError")
    assert (data / "store" / "current").resolve() == served


def test_a_job_with_a_saved_teacher_goes_on_as_its_data_grows(data: Path, ridge: Forecaster) -> None:
    td.save(ridge, data / "old")
    job = retraining.job(data)
    job = job.replace(recipe=job.recipe.replace(teacher=SavedTeacherSpec(path=str(data / "old"))))
    assert run_job(job, as_of=retraining.FIRST).decision == "promoted"
    assert run_job(job).decision in ("promoted", "kept")


def test_the_recipe_of_the_guide_can_be_run(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)
    toml = next(block for block in blocks if "[data]" in block)
    (data / "fresh.csv").rename(data / "load.csv")
    (data / "my.toml").write_text(toml)
    shell("run", data / "my.toml", "--out", data / "out", "--quiet")
    assert "foreign" in capsys.readouterr().out
    assert np.isfinite(td.Report.from_json((data / "out" / "report.json").read_text()).row("teacher").measured_mse)
