"""Searching: what a trial is and what it is worth, exact totals, storages, budgets, and what is said when it fails."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
import pytest
from optuna.trial import FixedTrial

import tsdistill as td
from tests.recipes import float_recipe
from tests.typed import instance_of, known
from tsdistill.cli import main
from tsdistill.errors import TsdistillError
from tsdistill.recipe import Recipe, Source, TaskSpec, TeacherSpec, default_recipe
from tsdistill.search import (
    Range,
    Space,
    best_recipe,
    create_study,
    leaders,
    objective,
    optimize,
    run,
    shared_teacher,
    table,
)

GUIDE = Path(__file__).parents[1] / "docs" / "guides" / "search.md"
CONTEXT, HORIZON = 47, 11
SMALL = Space(
    vary={
        "student.model.kind": "mlp",
        "student.model.width": (3, 17),
        "student.model.depth": 1,
        "student.losses.output.alpha": Range(0.0, 1.0),
        "student.losses.temporal.weight": (0.0, 0.03, 0.1, 0.3),
        "student.training.learning_rate": Range(5e-4, 1e-2, log=True),
        "pruning.ratio": (0.0, 0.5),
    }
)
ANY = {
    "student.model.width": 3,
    "student.losses.output.alpha": 0.25,
    "student.losses.temporal.weight": 0.1,
    "student.training.learning_rate": 0.01,
    "pruning.ratio": 0.5,
}
LONG = Space(vary={"student.model.patch": (11, 48), "student.model.kind": ("lstm", "patchtst")})
"""Patches longer than the context of the toy recipe."""


def but(**values: Any) -> Space:
    """The small space with other values at some addresses."""
    assert SMALL.vary is not None
    return Space(vary={**SMALL.vary, **values})


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.trials]


# ----------------------------------------------------------------------------------------------------------- one trial
class Searched(NamedTuple):
    recipe: Recipe
    task: td.Task
    teacher: td.Forecaster
    study: optuna.Study
    budget: int
    folder: Path


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """A study of two real trials, with a budget that one of them keeps and one breaks."""
    folder = tmp_path_factory.mktemp("search")
    recipe, budget = float_recipe(folder), 12_000
    task = recipe.task.build(recipe.data.load())
    teacher = shared_teacher(recipe, task, folder / "out", progress=False)
    study = create_study("toy", storage=f"journal:{folder / 's.log'}")
    for width, ratio in ((3, 0.5), (17, 0.0)):
        study.enqueue_trial({**ANY, "student.model.width": width, "pruning.ratio": ratio})
    optimize(study, SMALL, teacher, task, n_trials=2, recipe=recipe, max_size_bytes=budget, progress=False)
    return Searched(recipe, task, instance_of(td.Forecaster, teacher), study, budget, folder)


def test_a_trial_keeps_its_recipe_its_size_and_its_budget(searched: Searched) -> None:
    small, large = searched.study.trials
    for trial in (small, large):
        assert {"recipe", "size_bytes", "n_parameters", "precision", "seconds"} <= trial.user_attrs.keys()
        assert trial.constraints == {"size_bytes": trial.user_attrs["size_bytes"] - searched.budget}
        model = instance_of(td.MLPConfig, Recipe.from_json(trial.user_attrs["recipe"]).student.model)
        assert model.width == trial.params["student.model.width"]
    assert small.constraints["size_bytes"] <= 0 < large.constraints["size_bytes"]
    assert small.user_attrs["n_parameters"] < large.user_attrs["n_parameters"]


def test_a_trial_is_worth_the_validation_error_of_what_it_deploys(searched: Searched) -> None:
    trial, task, teacher = searched.study.trials[0], searched.task, searched.teacher
    recipe = best_recipe(searched.study)
    spec = recipe.student
    student = td.distill(teacher, spec.model, task, losses=spec.losses, training=spec.training, control=False)
    deployed = td.export(td.prune(student, task, recipe.pruning, teacher=teacher), task)
    assert td.evaluate(deployed, task, part="validation")["mse"] == pytest.approx(trial.value, rel=1e-6)
    assert deployed.n_parameters == trial.user_attrs["n_parameters"]


def test_a_trial_of_a_recipe_that_keeps_the_better_scores_what_is_kept(searched: Searched) -> None:
    blind = td.MLPConfig(width=7, depth=1).build(searched.task.signature)
    fixed = {"student.losses.output.alpha": 1.0, "student.training.learning_rate": 0.01, "pruning.ratio": 0.0}
    space, chosen = Space(vary=fixed), dict[str, float]()
    recipe = searched.recipe.replace(student=searched.recipe.student.replace(keep="better"))
    value = objective(space, blind, searched.task, recipe=recipe)(FixedTrial(chosen))
    proposed = space.propose(FixedTrial(chosen), recipe)
    assert proposed.pruning is None
    control = td.train(proposed.student.model, searched.task, proposed.student.training)
    mse = td.evaluate(td.export(control, searched.task), searched.task, part="validation")["mse"]
    assert value == pytest.approx(mse, rel=1e-6)


def test_a_fixed_trial_replays_to_the_same_recipe_and_value_whatever_the_test_part_holds(searched: Searched) -> None:
    trial = searched.study.trials[0]
    assert SMALL.propose(FixedTrial(trial.params), searched.recipe) == best_recipe(searched.study)
    panel = searched.recipe.data.load()
    (item,) = panel.items
    values = item.values.copy()
    values[searched.task.borders[0].validation :] = np.random.default_rng(0).normal(size=values.shape[1]) * 1e3
    spoilt = dataclasses.replace(panel, items=(dataclasses.replace(item, values=values),))
    task = searched.recipe.task.build(spoilt)
    again = objective(SMALL, searched.teacher, task, recipe=searched.recipe, max_size_bytes=searched.budget)
    replay = FixedTrial(trial.params)
    assert again(replay) == pytest.approx(trial.value, rel=1e-6)
    assert replay.constraints == trial.constraints


def test_the_best_recipe_keeps_a_budget_and_says_what_the_smallest_takes(searched: Searched) -> None:
    small, large = searched.study.trials
    better = min((small, large), key=lambda trial: known(trial.value))
    assert instance_of(td.MLPConfig, best_recipe(searched.study).student.model).width == 3
    assert best_recipe(searched.study, max_size_bytes=10**6) == Recipe.from_json(better.user_attrs["recipe"])
    with pytest.raises(td.errors.UnsupportedError) as caught:
        best_recipe(searched.study, max_size_bytes=5_000)
    assert all(word in str(caught.value) for word in ("5,000", "trial 0", f"{small.user_attrs['size_bytes']:,}"))
    with pytest.raises(td.errors.OrderError, match="no finished trial"):
        best_recipe(create_study("empty"))


def test_the_table_fits_and_marks_what_breaks_the_budget(searched: Searched) -> None:
    rows = leaders(searched.study)
    assert [row["trial"] for row in rows] == [0, 1]
    assert json.loads(json.dumps(rows)) == rows
    lines = table(rows, width=80).splitlines()
    assert max(map(len, lines)) <= 80
    assert ["!" in line for line in lines[1:3]] == [False, True]
    assert lines[-1] == "! larger than the budget"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"space": but(**{"student.losses.output.alpha": 0.5})}, ["different space"]),
        ({"teacher": td.LinearConfig(), "recipe": {"teacher": {"model": {"kind": "linear"}}}}, ["different teacher"]),
        ({"recipe": {"pruning": None}}, ["different recipe"]),
    ],
)
def test_a_study_is_not_continued_with_another_question(
    searched: Searched, change: dict[str, Any], words: list[str]
) -> None:
    teacher = td.train(change["teacher"], searched.task) if "teacher" in change else searched.teacher
    with pytest.raises(td.errors.ConfigError) as caught:
        optimize(
            create_study("toy", storage=f"journal:{searched.folder / 's.log'}"),
            change.get("space", SMALL),
            teacher,
            searched.task,
            n_trials=3,
            recipe=searched.recipe.replace(**change.get("recipe", {})),
            max_size_bytes=searched.budget,
        )
    assert [word for word in words if word not in str(caught.value)] == []
    assert len(searched.study.trials) == 2


def test_an_objective_serves_a_loop_of_ones_own(searched: Searched) -> None:
    """And a trial that cannot be trained is FAIL with a reason, without stopping the loop that catches it."""
    wild = but(
        **{
            "student.training.learning_rate": 1e30,
            "student.losses.output.alpha": 0.0,
            "student.losses.temporal.weight": 0.0,
        }
    )
    study = create_study("own")
    function = objective(wild, searched.teacher, searched.task, recipe=searched.recipe)
    study.optimize(function, n_trials=1, catch=TsdistillError)
    assert states(study) == ["FAIL"]
    assert "diverged" in study.trials[0].user_attrs["reason"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_size_bytes": 0}, ["max_size_bytes", "above 0"]),
        ({"recipe": None}, ["`recipe` must be given", "td.datasets"]),
        ({"recipe": {"task": TaskSpec(context=46, horizon=7)}}, ["3 problems", "context", "horizon", "split"]),
        ({"recipe": {"teacher": TeacherSpec()}}, ["2 problems", "recipe.teacher.model", "width=5", "max_steps=4"]),
        ({"space": LONG}, ["In student.model.patch:", "context = 47"]),
    ],
)
def test_an_objective_that_cannot_work_is_refused_before_any_trial(
    searched: Searched, settings: dict[str, Any], words: list[str]
) -> None:
    recipe = settings.pop("recipe", {})
    recipe = None if recipe is None else searched.recipe.replace(**recipe)
    with pytest.raises(td.errors.ConfigError) as caught:
        objective(settings.pop("space", SMALL), searched.teacher, searched.task, recipe=recipe, **settings)
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_recipe_is_found_for_a_panel_of_the_catalogue() -> None:
    task = td.Task(td.datasets.load("nyc-weather"), context=48, horizon=12)
    config = td.MLPConfig(width=5, depth=1)
    space = Space(vary={"student.model.kind": "mlp"})
    recipe = objective(space, config.build(task.signature), task).recipe
    assert recipe.data == Source(dataset="nyc-weather")
    assert recipe.task == TaskSpec(context=48, horizon=12)
    assert instance_of(TeacherSpec, recipe.teacher).model == config


# ------------------------------------------------------------------------------------------------------- whole searches
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"workers": 2, "storage": "sqlite:///x.db"}, ["workers", "SQLite", "journal:FILE"]),
        ({"workers": 0}, ["workers=0"]),
        ({"n_trials": 0}, ["n_trials=0"]),
        ({"space": LONG}, ["In student.model.patch:"]),
    ],
)
def test_a_search_that_cannot_work_is_refused_before_the_teacher_is_trained(
    tmp_path: Path, settings: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(td.errors.ConfigError) as caught:
        run(float_recipe(tmp_path), tmp_path / "out", **{"n_trials": 1, "space": SMALL, **settings})
    assert [word for word in words if word not in str(caught.value)] == []
    assert not (tmp_path / "out" / "stages").exists()


def test_the_shell_searches_and_writes_a_recipe_that_can_be_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    recipe, out = float_recipe(tmp_path), tmp_path / "out"
    (tmp_path / "toy.toml").write_text(recipe.to_toml())
    (tmp_path / "space.toml").write_text(SMALL.to_toml())
    command = ["search", str(tmp_path / "toy.toml"), "--space", str(tmp_path / "space.toml"), "--out", str(out)]

    def shell(*more: str) -> str:
        monkeypatch.setattr(sys, "argv", ["tsdistill", *command, *more])
        main()
        captured = capsys.readouterr()
        assert captured.err == ""  # no terminal, no progress
        return captured.out

    text = shell("--trials", "1")
    assert "1 trials, 0 failed" in text
    assert f"tsdistill run {out / 'best.toml'}" in text
    output = json.loads(shell("--trials", "1", "--json"))
    assert (output["n_finished"], output["n_failed"], output["recipe"]) == (1, 0, str(out / "best.toml"))
    best = Recipe.from_file(out / "best.toml")
    assert best == SMALL.propose(FixedTrial(output["best"][0]["params"]), recipe)
    assert list(out.glob("best.toml*.part")) == []


def test_the_space_of_the_guide_is_one() -> None:
    (toml,) = re.findall(r"```toml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)
    space = Space.from_toml(toml)
    assert space.vary is not None
    space.check(default_recipe())
