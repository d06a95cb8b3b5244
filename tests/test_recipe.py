"""Recipes as data, and running them: resuming, locking, leakage, secrets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

import tsdistill as td
from tests.recipes import QUICK, toy_csv, toy_recipe
from tests.typed import instance_of
from tsdistill.errors import ConfigError, DataError, OrderError
from tsdistill.models import Forecaster, LSTMConfig
from tsdistill.quantization import QAT, Quantization
from tsdistill.recipe import (
    Recipe,
    Run,
    Source,
    StudentSpec,
    TeacherSpec,
    Workspace,
    default_recipe,
    make_teacher,
    read_recipe,
    run,
)
from tsdistill.recipe import run as run_recipe
from tsdistill.recipe.pipeline import make_models


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("finished")
    return run(toy_recipe(toy_csv(folder)), folder / "out")


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_recipe_survives_toml_and_json() -> None:
    for recipe in (
        default_recipe(),
        toy_recipe(Path("toy.csv")),
        Recipe(data=Source(dataset="etth1"), quantization=None),
    ):
        assert Recipe.from_toml(recipe.to_toml()) == recipe
        assert Recipe.from_json(recipe.to_json()) == recipe
        assert Recipe.from_toml(recipe.to_toml()).digest == recipe.digest


def test_a_recipe_names_covariates_scaler_and_short_items(tmp_path: Path) -> None:
    text = f"""
    [data]
    path = "{toy_csv(tmp_path).as_posix()}"
    [task]
    context = 47
    horizon = 11
    scaler = "item"
    short = "skip"
    split = {{ kind = "last", validation = 61, test = 67 }}
    [task.covariates]
    calendar = ["time-of-day"]
    holidays = ["2024-01-06"]
    past = ["wind"]
    """
    recipe = Recipe.from_toml(text)
    assert Recipe.from_toml(recipe.to_toml()) == recipe
    task = recipe.task.build(recipe.data.load())
    assert task.covariates == td.Covariates(calendar=("time-of-day",), holidays=("2024-01-06",), past=("wind",))
    assert (task.scaler, task.short, task.channels) == ("item", "skip", ("load", "price"))
    assert task.split == td.Split.last(validation=61, test=67)
    with pytest.raises(ConfigError, match=r"In task\.covariates\.calender: .* Did you mean `calendar`"):
        Recipe.from_toml(text.replace("calendar", "calender"))
    with pytest.raises(ConfigError, match=r"`holidays` must be ISO dates, got holidays=\['Epiphany'\]"):
        Recipe.from_toml(text.replace("2024-01-06", "Epiphany"))


def test_a_seed_reaches_every_training() -> None:
    recipe = default_recipe().with_seed(7)
    seeds = [instance_of(TeacherSpec, recipe.teacher).training.seed, recipe.student.training.seed]
    assert recipe.pruning is not None
    assert recipe.pruning.recovery is not None
    assert recipe.quantization is not None
    assert [*seeds, recipe.pruning.recovery.seed] == [7, 7, 7]


def test_a_recipe_trains_for_the_quantized_form_with_its_teacher(tmp_path: Path) -> None:
    spec = Quantization(method="qat", training=QUICK, require_gain=False, max_error_increase=1.0)
    recipe = toy_recipe(toy_csv(tmp_path)).replace(pruning=None, quantization=spec)
    recipe = Recipe.from_toml(recipe.to_toml())
    task, workspace = recipe.task.build(recipe.data.load()), Workspace(tmp_path / "out")
    teacher = make_teacher(recipe, task, workspace, False)
    models = make_models(recipe, task, teacher, workspace, progress=False)
    step = models["int8"].lineage[-1]
    assert (step.metrics["chosen"], step.spec["teacher"]) == ("qat", teacher.digest)
    again = make_models(recipe, task, teacher, workspace, progress=False)
    assert again["int8"].digest == models["int8"].digest
    assert events(workspace.folder)[-1]["kept"] is True
    seeded = recipe.with_seed(7).quantization
    assert instance_of(QAT, seeded).training.seed == 7


def test_a_run_leaves_models_report_and_artifact(finished: Run) -> None:
    names = [row.name for row in finished.report.rows]
    for name in ("teacher", "student", "pruned", "int8", "int8 without teacher", "seasonal naive", "ridge"):
        assert name in names
    assert (finished.folder / "report.html").stat().st_size > 10_000
    served = td.runtime.load(finished.artifact)
    history = finished.task.panel.items[0].values[None, -47:]
    assert np.array_equal(served.predict(history), finished.deployed.predict(history))
    assert Recipe.from_file(finished.folder / "recipe.toml") == finished.recipe
    assert [step.verb for step in finished.deployed.lineage] == ["distill", "prune", "export", "quantize"]


def test_running_again_keeps_everything(finished: Run) -> None:
    n_before = len(events(finished.folder))
    again = run_recipe(finished.recipe, finished.folder)
    assert again.deployed.digest == finished.deployed.digest
    assert again.report.to_json() == finished.report.to_json()
    assert again.student.control is not None
    assert finished.student.control is not None
    assert again.student.control.digest == finished.student.control.digest
    assert [event.get("kept") for event in events(finished.folder)[n_before:]] == [True] * 4


@pytest.mark.slow
def test_a_changed_recipe_makes_only_what_it_changes(finished: Run, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(finished.folder, tmp_path / "copy"))
    n_before = len(events(folder))
    run_recipe(finished.recipe.replace(pruning=td.Pruning(ratio=0.25, recovery=QUICK)), folder)
    stages = {event["stage"]: event.get("kept", False) for event in events(folder)[n_before:]}
    assert stages == {"teacher": True, "student": True, "pruned": False, "deployed": False, "report": False}


def test_a_damaged_stage_is_made_again_and_said_so(finished: Run, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(finished.folder, tmp_path / "copy"))
    weights = folder / "stages" / "student" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8] + b"tampered")
    messages: list[str] = []
    again = run_recipe(finished.recipe, folder, say=messages.append)
    assert any("student was damaged" in line for line in messages)
    assert again.student.digest == finished.student.digest


class StopError(Exception):
    """Stands for whatever ends a process."""


def test_a_stopped_run_continues(finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = __import__("tsdistill.recipe.pipeline", fromlist=["prune"])
    with monkeypatch.context() as patch:
        patch.setattr(module, "prune", lambda *_, **__: (_ for _ in ()).throw(StopError))
        with pytest.raises(StopError):
            run_recipe(finished.recipe, tmp_path / "out")
    resumed = run_recipe(finished.recipe, tmp_path / "out")
    assert [event["stage"] for event in events(tmp_path / "out") if event.get("kept")] == ["teacher", "student"]
    assert resumed.deployed.digest == finished.deployed.digest


def test_nothing_selected_depends_on_the_test_rows(finished: Run, tmp_path: Path) -> None:
    """The whole recipe on data whose test rows are noise gives the very same teacher, student, pruned and deployed."""
    noisy = run(toy_recipe(toy_csv(tmp_path, noise_from=finished.task.borders[0].validation)), tmp_path / "out")
    assert noisy.task.test.fingerprint != finished.task.test.fingerprint
    assert noisy.report.rows[0].mse != finished.report.rows[0].mse
    assert noisy.pruned is not None
    assert finished.pruned is not None
    for noisy_model, clean_model in (
        (noisy.teacher, finished.teacher),
        (noisy.student, finished.student),
        (noisy.student.control, finished.student.control),
        (noisy.pruned, finished.pruned),
        (noisy.deployed, finished.deployed),
        (noisy.deployed.control, finished.deployed.control),
    ):
        assert noisy_model is not None
        assert clean_model is not None
        assert noisy_model.digest == clean_model.digest


def test_two_runs_in_one_folder_are_refused(finished: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"), pytest.raises(OrderError, match="Another run"):
        run_recipe(finished.recipe, tmp_path / "out")


SECRET = "hunter2-and-more"


def test_a_password_is_used_and_never_written() -> None:
    url = f"postgresql+psycopg://loader:{SECRET}@db.example:5432/load?password={SECRET}"
    source = Source(url=url, query="select * from load")
    recipe = Recipe(data=source)
    for text in (recipe.to_toml(), recipe.to_json(), repr(recipe), str(recipe), recipe.digest):
        assert SECRET not in text
    assert source._address() == url
    with pytest.raises(ConfigError, match="env:NAME"):
        Recipe.from_toml(recipe.to_toml()).data.load()


def test_an_address_may_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(url="env:TOY_URL", query="select 1")
    with pytest.raises(ConfigError, match="TOY_URL, which is not set"):
        source.load()
    monkeypatch.setenv("TOY_URL", f"postgresql+psycopg://loader:{SECRET}@127.0.0.1:1/load")
    with pytest.raises(DataError) as caught:
        source.load()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "toml",
    [
        f'data = "postgresql+psycopg://u:{SECRET}@h/db"',
        f'[data]\nurl = ["postgresql://u:{SECRET}@h/db"]',
        f'[data]\ndataset = "postgresql://u:{SECRET}@h/db"',
        f'[data]\npath = "postgresql://u:{SECRET}@h/db"',
        f'[data]\nurl = 3\n[data.password]\npassword = "{SECRET}"',
    ],
)
def test_a_misplaced_password_is_not_echoed(toml: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Recipe.from_toml(toml)
    assert SECRET not in str(caught.value)


def test_a_written_address_keeps_its_options_and_asks_for_its_password() -> None:
    url = f"postgresql+psycopg://u@h/db?sslmode=require&password={SECRET}"
    written = Source(url=url, query="select 1").to_dict()["url"]
    assert "sslmode=require" in written
    assert SECRET not in written
    with pytest.raises(ConfigError, match="struck out"):
        Source(url=written, query="select 1").load()
    broken = Source(url=f"postgresql+psycopg://u:a/{SECRET}@h:port/db", query="select 1")
    assert SECRET not in broken.to_toml()


def test_none_can_be_written_for_every_step() -> None:
    recipe = Recipe.from_toml('pruning = "none"\nquantization = "none"\n[data]\ndataset = "etth1"')
    assert recipe.pruning is None
    assert recipe.quantization is None


@pytest.mark.slow
def test_a_report_is_made_again_when_its_page_is_gone(finished: Run, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(finished.folder, tmp_path / "copy"))
    (folder / "report.html").unlink()
    run_recipe(finished.recipe, folder)
    assert (folder / "report.html").exists()
    assert events(folder)[-1]["stage"] == "report"


def test_baselines_change_a_recipe_only_where_they_are_asked_for() -> None:
    plain = toy_recipe(Path("toy.csv"))
    asked = plain.replace(baselines=("theta", "stl"))
    assert "baselines" not in plain.to_dict()
    assert Recipe.from_toml(asked.to_toml()) == asked
    assert asked.digest != plain.digest
    assert Recipe.from_toml('baselines = ["ets"]\n[data]\ndataset = "etth1"').baselines == ("ets",)


def test_a_recipe_asks_for_baselines(finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    from tsdistill.recipe import pipeline

    folder, asked = Path(shutil.copytree(finished.folder, tmp_path / "copy")), []

    def compared(*_: Any, baselines: tuple[str, ...], **__: Any) -> td.Report:
        asked.append(baselines)
        return finished.report

    monkeypatch.setattr(pipeline, "compare", compared)
    again = finished.recipe.replace(baselines=("theta",))
    for _ in range(2):
        run_recipe(again, folder)
    assert asked == [("theta",)]
    with pytest.raises(ConfigError, match="a season that fits twice into the context of 47 steps"):
        run_recipe(again.replace(baselines=("stl",)), folder)


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("", ["`data` must be given"]),
        ('baselines = ["arima"]\n[data]\ndataset = "a"', ["`baselines[0]` must be 'ets', 'theta' or 'stl'", "arima"]),
        ('[data]\ndataset = "a"\npath = "b"', ["exactly one of dataset, path and url"]),
        ('[data]\nurl = "x://y"', ["`url` and `query` must be given together"]),
        ('[data]\ndataset = "a"\n[task]\ncontxt = 3', ["`contxt`", "Did you mean `context`"]),
        ('[data]\ndataset = "a"\n[task]\ncontext = 0\nhorizon = 0', ["2 problems", "context", "horizon"]),
        ('[data]\ndataset = "a"\n[student.model]\nkind = "lstn"', ["kind='lstn'", "Did you mean `lstm`"]),
        ('schema_version = 2\n[data]\ndataset = "a"', ["schema_version", "Update tsdistill"]),
        ("[data\n", ["valid TOML"]),
    ],
)
def test_bad_recipes_are_explained(tmp_path: Path, toml: str, words: list[str]) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(toml)
    with pytest.raises(ConfigError) as caught:
        read_recipe(path)
    assert [word for word in [*words, "bad.toml"] if word not in str(caught.value)] == []


def test_paths_are_relative_to_the_recipe(tmp_path: Path) -> None:
    toy_csv(tmp_path)
    (tmp_path / "recipe.toml").write_text(toy_recipe(Path("toy.csv")).to_toml())
    assert read_recipe(tmp_path / "recipe.toml").data.load().channels == ("load", "wind", "price")
    (tmp_path / "toy.csv").unlink()
    with pytest.raises(ConfigError, match="relative to the recipe"):
        read_recipe(tmp_path / "recipe.toml")


def test_bad_data_stops_before_anything_is_trained(finished: Run, tmp_path: Path) -> None:
    path = toy_csv(tmp_path)
    text = path.read_text().splitlines()
    path.write_text("\n".join([*text[:90], *text[93:]]) + "\n")
    with pytest.raises(DataError, match="fill"):
        run(toy_recipe(path), tmp_path / "out")
    assert not (tmp_path / "out" / "stages").exists()
    assert replace(finished).folder == finished.folder


def test_the_committed_experiment_is_about_the_default_recipe_with_its_own_student_and_more_training() -> None:
    folder = Path(__file__).parents[1] / "experiments" / "001-whole-pipeline"
    recipe = default_recipe()
    assert recipe.student.candidates
    assert isinstance(recipe.teacher, TeacherSpec)
    assert recipe.pruning is not None
    assert recipe.pruning.recovery is not None
    assert recipe.quantization is not None
    alone = recipe.replace(
        teacher=recipe.teacher.replace(training=recipe.teacher.training.replace(windows_per_epoch=4096)),
        student=recipe.student.replace(candidates=(), training=recipe.student.training.replace(windows_per_epoch=4096)),
        pruning=recipe.pruning.replace(recovery=recipe.pruning.recovery.replace(epochs=2)),
        quantization=recipe.quantization.replace(max_error_increase=0.02),
    )
    assert Recipe.from_file(folder / "recipe.toml") == alone


def test_a_recipe_that_keeps_the_better_goes_on_with_it_and_says_so(tmp_path: Path) -> None:
    recipe = toy_recipe(toy_csv(tmp_path)).replace(pruning=None, quantization=None)
    unlearned = recipe.teacher.replace(training=QUICK.replace(max_steps=1, learning_rate=1e-9))
    student = StudentSpec(
        model=LSTMConfig(widths=(8,), patch=11), losses=[td.OutputLoss(alpha=1)], training=QUICK, keep="better"
    )
    recipe = recipe.replace(teacher=unlearned, student=student)
    assert Recipe.from_toml(recipe.to_toml()).student.keep == "better"
    task, workspace = recipe.task.build(recipe.data.load()), Workspace(tmp_path / "out")
    teacher = make_teacher(recipe, task, workspace)
    first, again = (make_models(recipe, task, teacher, workspace)["student"] for _ in range(2))
    assert isinstance(first, Forecaster)
    assert first.lineage[-1].metrics["kept"] == "control"
    assert first.control is not None
    assert first.digest == first.control.digest
    assert again.lineage == first.lineage
    assert "keep" not in StudentSpec().to_dict()
