"""What one search can be asked: finalists, limits and samplers, another question, other studies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
import pytest
from optuna.trial import FixedTrial, TrialState, create_trial

import tsdistill as td
from tests.recipes import float_recipe
from tests.test_search import but
from tests.test_search_looking import run as shell
from tsdistill.errors import ConfigError, OrderError, UnsupportedError
from tsdistill.recipe import Budget, Recipe
from tsdistill.search import (
    Range,
    Space,
    best_recipe,
    create_study,
    finalists,
    front,
    leaders,
    load_study,
    objective,
    optimize,
    run,
)
from tsdistill.search.finalists import _choice
from tsdistill.search.results import standing

SPACE = Space(
    vary={
        "student.model.kind": ("mlp", "linear"),
        "student.model.mlp.width": (3, 17),
        "student.model.mlp.depth": 1,
        "student.losses.output.alpha": Range(0.0, 1.0),
        "student.losses.temporal.weight": 0.0,
        "pruning.ratio": 0.0,
    }
)


class Asked(NamedTuple):
    recipe: Recipe
    task: td.Task
    teacher: td.Forecaster
    study: optuna.Study
    folder: Path

    def optimize(self, study: optuna.Study, space: Any = SPACE, n_trials: int = 1, **options: Any) -> None:
        options = {"recipe": self.recipe, "progress": False, "teacher": self.teacher, "task": self.task, **options}
        optimize(study, space, n_trials=n_trials, **options)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    """A study of a ridge, two MLPs, and one of them again."""
    folder = tmp_path_factory.mktemp("asked")
    recipe = float_recipe(folder)
    (folder / "recipe.toml").write_text(recipe.to_toml(), encoding="utf-8")
    result = run(recipe, folder / "out", n_trials=1, space=SPACE, progress=False)
    task = recipe.task.build(recipe.data.load())
    teacher = td.search.shared_teacher(recipe, task, folder / "out", progress=False)
    assert isinstance(teacher, td.Forecaster)
    case = Asked(recipe, task, teacher, result.study, folder)
    for width in (3, 17, 17):
        mlp = {"student.model.kind": "mlp", "student.model.mlp.width": width, "student.losses.output.alpha": 0.25}
        result.study.enqueue_trial(mlp)
    case.optimize(result.study, n_trials=4)
    return case


def test_a_new_study_tries_a_student_first_that_is_solved(asked: Asked) -> None:
    first = asked.study.trials[0]
    assert first.params == {"student.model.kind": "linear", "student.losses.output.alpha": 0.0}
    assert but(**{"student.model.kind": "mlp"}).mark(asked.recipe) == {}
    assert Space(vary={"student.model.kind": ("linear", "mlp")}).mark(asked.recipe) == {"student.model.kind": "linear"}


# ------------------------------------------------------------------------------------------------------------ finalists
def test_finalists_are_trained_again_over_seeds_with_controls(asked: Asked) -> None:
    final = finalists(asked.study, asked.teacher, asked.task, k=3, seeds=2, progress=False)
    assert {row["trial"] for row in final.rows} == {0, 1, 2}  # the fourth trial has the recipe of the third
    by_trial = {row["trial"]: row for row in final.rows}
    assert list(by_trial[0]["by_seed"]) == [1]  # a student that is solved draws nothing
    assert by_trial[0]["mean"] == pytest.approx(by_trial[0]["validation_mse"], rel=1e-5)
    for number in (1, 2):
        row = by_trial[number]
        assert list(row["by_seed"]) == [1, 2]
        assert row["spread"] == pytest.approx(np.std(list(row["by_seed"].values()), ddof=1))
        assert row["luck"] == pytest.approx(1 - row["validation_mse"] / row["mean"])
        assert row["control"] is not None
    assert final.rows[0]["reason"].startswith("chosen")
    chosen = Recipe.from_json(asked.study.trials[final.trial].user_attrs["recipe"])
    assert final.recipe.student.model == chosen.student.model
    assert final.recipe.teacher == asked.recipe.teacher
    assert json.loads(json.dumps(final.rows))


def test_one_seed_gives_what_a_run_of_that_seed_deploys(asked: Asked) -> None:
    final = finalists(asked.study, asked.teacher, asked.task, k=9, seeds=[7], progress=False)
    row = next(row for row in final.rows if row["trial"] == 1)
    recipe = Recipe.from_json(asked.study.trials[1].user_attrs["recipe"])
    training = recipe.student.training.replace(seed=7)
    student = td.distill(
        asked.teacher, recipe.student.model, asked.task, losses=recipe.student.losses, training=training, control=False
    )
    assert row["mean"] == pytest.approx(td.evaluate(td.export(student, asked.task), asked.task)["mse"], rel=1e-5)


def _row(trial: int, by_seed: list[float]) -> dict[str, Any]:
    errors = dict(enumerate(by_seed))
    return {"trial": trial, "mean": np.mean(by_seed), "spread": np.std(by_seed), "by_seed": errors, "size_bytes": 1}


def test_the_luckiest_seed_does_not_win(asked: Asked) -> None:
    """Of those that cannot be told apart the steadiest wins, and its middle seed stands for it."""
    steady, lucky, bad = [1.00, 1.02, 1.01], [0.70, 1.40, 0.90], [5.0, 5.0, 5.0]
    blocks = 1 + 0.01 * np.random.default_rng(0).standard_normal(16)
    table = {n: np.outer(seeds, blocks / blocks.mean()) for n, seeds in enumerate((steady, lucky, bad))}
    rows = [_row(number, seeds) for number, seeds in enumerate((steady, lucky, bad))]
    final = _choice(rows, table, dict.fromkeys(range(3), asked.recipe))
    assert [row["trial"] for row in final.rows] == [0, 1, 2]
    assert final.recipe.student.training.seed == 2
    reasons = [row["reason"] for row in final.rows]
    assert "seeds change it more" in reasons[1]
    assert "more than one standard error" in reasons[2]


def test_a_finalist_that_cannot_be_made_again_is_left_out(asked: Asked) -> None:
    study = create_study("broken")
    for trial in asked.study.trials[:2]:
        recipe = Recipe.from_json(trial.user_attrs["recipe"])
        if trial.number == 1:
            wild = {"student.training.learning_rate": 1e30, "student.losses.output.alpha": 0.0}
            recipe = recipe.replace_at(wild)
        attrs = {**trial.user_attrs, "recipe": recipe.to_json()}
        study.add_trial(create_trial(value=trial.value, user_attrs=attrs))
    final = finalists(study, asked.teacher, asked.task, k=2, seeds=1, progress=False)
    assert [row["trial"] for row in final.rows] == [0, 1]
    assert "could not be made again" in final.rows[1]["reason"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"k": 0}, ["`k` must be", "k=0"]),
        ({"seeds": 0}, ["`seeds` must be", "seeds=0"]),
        ({"seeds": []}, ["`seeds` must be"]),
        ({"seeds": (1, -1)}, ["`seeds` must be", "-1"]),
        ({"budget": 5}, ["`budget`"]),
        ({"task": None}, ["`task`"]),
        ({"budget": Budget(max_size_bytes=10)}, ["10 bytes", "over the budget"]),
    ],
)
def test_finalists_refuse_what_makes_no_sense(asked: Asked, settings: dict[str, Any], words: list[str]) -> None:
    task = settings.pop("task", asked.task)
    with pytest.raises((ConfigError, UnsupportedError)) as caught:
        finalists(asked.study, asked.teacher, task, progress=False, **settings)
    assert [word for word in words if word not in str(caught.value)] == []


def test_finalists_from_a_shell(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(asked.folder / "out")
    assert shell(monkeypatch, "finalists", "--out", out, "--k", "2", "--seeds", "1", "--quiet") == 0
    shown = capsys.readouterr().out
    assert "+-" in shown
    assert "chosen" in shown
    assert Recipe.from_file(asked.folder / "out" / "final.toml").student.model.kind in ("mlp", "linear")
    assert shell(monkeypatch, "finalists", "--out", out, "--k", "1", "--seeds", "1", "--json", "--quiet") == 0
    assert len(json.loads(capsys.readouterr().out)["finalists"]) == 1


# ---------------------------------------------------------------------------------------------------- limits, samplers
def test_multiplications_are_a_cost_like_the_others(asked: Asked) -> None:
    small, large = asked.study.trials[1:3]
    assert 0 < small.user_attrs["n_multiplications"] < large.user_attrs["n_multiplications"]
    limit = small.user_attrs["n_multiplications"]
    trial = FixedTrial({**small.params})
    function = objective(
        SPACE, asked.teacher, asked.task, recipe=asked.recipe, budget=Budget(max_multiplications=limit - 1)
    )
    function(trial)
    assert trial.constraints == {"n_multiplications": 1}
    model = best_recipe(asked.study, max_multiplications=limit).student.model
    assert not isinstance(model, td.MLPConfig) or model.width == 3
    assert [row["trial"] for row in front(asked.study, costs=("n_multiplications",))]
    assert all("n_multiplications" in row for row in leaders(asked.study))


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_multiplications": 5}, ["5 multiplications", "the nearest, trial", "over the budget"]),
        ({"max_parameters": 1}, ["1 parameters", "the nearest, trial 0", "over the budget"]),
        ({"max_size_bytes": 5}, ["5 bytes", "the smallest, trial", "over the budget"]),
    ],
)
def test_a_budget_that_nothing_meets_says_by_how_much(asked: Asked, limits: dict[str, int], words: list[str]) -> None:
    with pytest.raises(UnsupportedError) as caught:
        best_recipe(asked.study, **limits)
    assert [word for word in words if word not in str(caught.value)] == []


def test_trials_of_an_earlier_version_have_no_multiplications(asked: Asked) -> None:
    study = create_study("older")
    for trial in asked.study.trials:
        attrs = {name: value for name, value in trial.user_attrs.items() if name not in ("n_multiplications", "kind")}
        study.add_trial(create_trial(value=trial.value, user_attrs=attrs))
    assert best_recipe(study) == best_recipe(asked.study)
    assert leaders(study)
    with pytest.raises(OrderError, match="has n_multiplications"):
        best_recipe(study, max_multiplications=5)
    with pytest.raises(OrderError, match="n_multiplications"):
        front(study, costs=("n_multiplications",))


@pytest.mark.parametrize(
    ("sampler", "options", "words"),
    [
        (optuna.samplers.CmaEsSampler(), {"budget": Budget(max_size_bytes=9)}, ["CmaEsSampler", "limits (size_bytes)"]),
        (optuna.samplers.CmaEsSampler(), {"objectives": ("error", "size_bytes")}, ["CmaEsSampler", "several"]),
    ],
)
def test_a_sampler_that_cannot_do_it_is_refused(
    asked: Asked, sampler: Any, options: dict[str, Any], words: list[str]
) -> None:
    study = create_study("s", sampler=sampler, objectives=options.get("objectives", ("error",)))
    with pytest.raises(ConfigError) as caught:
        asked.optimize(study, **options)
    assert [word for word in ("`sampler` must", *words) if word not in str(caught.value)] == []
    assert study.trials == []


@pytest.mark.parametrize("alpha", ["validation", 0.5])
def test_a_recipe_with_a_solved_student_has_a_default_space(asked: Asked, alpha: float | str) -> None:
    student = {"model": {"kind": "linear"}, "losses": [{"kind": "output", "alpha": alpha}]}
    recipe = Recipe.from_dict({**asked.recipe.to_dict(), "student": student, "pruning": None})
    space = Space()
    space.check(recipe)
    ranges = space.ranges(recipe)
    assert ranges["student.losses.output.alpha"] == Range(0.0, 1.0)
    lstm = {"student.model.kind": "mlp", "student.losses.output.alpha": 0.25, "student.training.learning_rate": 0.01}
    drawn = {**lstm, "student.model.mlp.width": 16, "student.model.mlp.depth": 1, "pruning.ratio": 0.0}
    assert space.propose(FixedTrial(drawn), recipe).student.losses[0].alphas == (0.25,)
    only = Space(vary={"student.model.kind": ("linear", "mlp")})
    assert only.propose(FixedTrial({"student.model.kind": "mlp"}), recipe).student.model.kind == "mlp"


@pytest.mark.parametrize(
    ("vary", "words"),
    [
        ({"student.model.kind": "mlp", "student.model.width": (3, 5), "student.model.mlp.width": (7, 9)}, "width of a"),
        ({"student.model.mlp.depth": 1, "student.model.depth": 2}, "`student.model.depth` must be left out beside"),
    ],
)
def test_a_space_that_contradicts_itself_is_refused(asked: Asked, vary: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Space(vary=vary).check(asked.recipe)
    assert words in str(caught.value)


# ---------------------------------------------------------------------------------- another question, and other studies
def wider(**values: Any) -> Space:
    assert SPACE.vary is not None
    return Space(vary={**SPACE.vary, **values})


def test_a_study_goes_on_with_a_wider_space_and_another_budget(asked: Asked, tmp_path: Path) -> None:
    study = create_study("grows")
    narrow = wider(**{"student.losses.output.alpha": Range(0.0, 0.5), "student.training.learning_rate": 0.01})
    asked.optimize(study, narrow, n_trials=1, max_size_bytes=10**6)
    rates = {"student.training.learning_rate": Range(1e-3, 0.1, log=True)}
    asked.optimize(study, wider(**rates), n_trials=2, max_size_bytes=10**6)
    smallest = min(trial.user_attrs["size_bytes"] for trial in study.trials)
    asked.optimize(study, wider(**rates), n_trials=2, max_size_bytes=smallest - 1)
    with pytest.raises(UnsupportedError, match="1 over the budget"):
        best_recipe(study)  # the limits are those of the last call
    asked.optimize(study, wider(**rates), n_trials=2)
    assert best_recipe(study).student.model.kind in ("mlp", "linear")


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (wider(**{"student.losses.output.alpha": Range(0.1, 1.0)}), ["alpha is narrower"]),
        (wider(**{"student.model.mlp.width": (3, 17, 29)}), ["width has other choices", "--warm-start"]),
        (wider(**{"student.model.mlp.width": Range(1, 99)}), ["width has other choices"]),
        (wider(**{"pruning.ratio": 0.5}), ["pruning.ratio has other choices"]),
    ],
)
def test_a_study_does_not_go_on_where_it_could_not_be_compared(asked: Asked, space: Space, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        asked.optimize(asked.study, space, n_trials=9)
    assert [word for word in ("a different space", *words) if word not in str(caught.value)] == []
    assert len(asked.study.trials) == 4


def test_a_new_study_takes_over_the_trials_of_another(asked: Asked) -> None:
    """Those that its space can draw, measured by its own limits and objectives."""
    study = create_study("warm", objectives=("error", "size_bytes"))
    space = wider(**{"student.model.mlp.width": (3, 29), "student.training.learning_rate": Range(1e-4, 0.1)})
    n_copied = 2  # the ridge, and the MLP of width 3; one of width 17 is outside
    options: dict[str, Any] = {"objectives": ("error", "size_bytes"), "max_size_bytes": 100}
    asked.optimize(study, space, n_trials=n_copied, warm_start=asked.study, **options)
    assert [trial.user_attrs["from_trial"] for trial in study.trials] == [0, 1]
    for trial in study.trials:
        source = asked.study.trials[trial.user_attrs["from_trial"]]
        assert trial.values == [source.value, source.user_attrs["size_bytes"]]
        assert trial.constraints == {"size_bytes": source.user_attrs["size_bytes"] - 100}
    assert study.trials[1].params["student.training.learning_rate"] == asked.recipe.student.training.learning_rate
    asked.optimize(study, space, n_trials=n_copied + 1, warm_start=asked.study, **options)
    assert len(study.trials) == n_copied + 1  # it is taken over once


def test_the_best_of_a_study_of_another_teacher_are_tried_first(asked: Asked) -> None:
    study = create_study("transfer")
    teacher = td.MLPConfig(width=7, depth=1).build(asked.task.signature)
    asked.optimize(study, n_trials=1, teacher=teacher, warm_start=asked.study)
    (first, *waiting) = study.trials
    best = min(asked.study.trials, key=lambda trial: float(trial.values[0]))
    assert first.state == TrialState.COMPLETE
    assert first.params == best.params
    assert first.user_attrs["from_study"] == asked.study.study_name
    assert {trial.state for trial in waiting} == {TrialState.WAITING}


def test_a_warm_start_from_a_shell(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    space = tmp_path / "space.toml"
    space.write_text(SPACE.to_toml(), encoding="utf-8")
    command = [str(asked.folder / "recipe.toml"), "--space", str(space), "--out", str(tmp_path / "out")]
    assert (
        shell(monkeypatch, *command, "--trials", "4", "--warm-start", str(asked.folder / "out"), "--quiet", "--json")
        == 0
    )
    assert json.loads(capsys.readouterr().out)["n_finished"] == 4
    study = load_study(storage=f"journal:{tmp_path / 'out' / 'study.log'}")
    assert [trial.user_attrs["from_trial"] for trial in study.trials] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"warm_start": "study.log"}, ["`warm_start`", "load_study"]),
        ({"warm_start": create_study("nothing")}, ["`warm_start` must have a finished trial", "nothing"]),
        ({"warm_start": create_study("n"), "space": lambda trial, recipe: recipe}, ["left out with a function"]),
    ],
)
def test_a_warm_start_that_cannot_be_is_refused(asked: Asked, options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        asked.optimize(create_study("new"), **options)
    assert [word for word in words if word not in str(caught.value)] == []


# ------------------------------------------------------------------------------------------------------------- progress
def test_progress_tells_the_best_and_the_time_left(asked: Asked) -> None:
    line = standing(asked.study, 40)
    assert line.startswith("best 0.")
    assert line.endswith(" left")
    assert "left" not in standing(asked.study)
    assert standing(asked.study, 10**6, until=-1.0).endswith(", 0 s left")
    assert standing(create_study("empty"), 9) == "none finished"
