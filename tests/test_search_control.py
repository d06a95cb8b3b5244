"""What stays in the hands of whoever searches: samplers, pruners, callbacks, limits, objectives, own functions."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.pruners import BasePruner, WilcoxonPruner
from optuna.trial import FixedTrial, TrialState

import tsdistill as td
from tests.recipes import float_recipe
from tests.test_search import ANY, SMALL, but, states
from tests.typed import known
from tsdistill.recipe import Budget, Recipe
from tsdistill.search import best_recipe, create_study, front, objective, optimize, run, run_trials
from tsdistill.search.claims import Claims
from tsdistill.search.study import Callback


def draw(trial: optuna.Trial) -> float:
    return trial.suggest_float("x", 0, 1)


class Case:
    """A toy recipe with its task and an untrained teacher."""

    def __init__(self, folder: Path) -> None:
        self.recipe = float_recipe(folder)
        self.task = self.recipe.task.build(self.recipe.data.load())
        self.teacher = td.MLPConfig(width=7, depth=1).build(self.task.signature)

    def optimize(self, study: optuna.Study, space: Any = SMALL, n_trials: int = 1, **options: Any) -> None:
        options = {"recipe": self.recipe, "progress": False, **options}
        optimize(study, space, self.teacher, self.task, n_trials=n_trials, **options)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("control"))


# --------------------------------------------------------------------------------------------------------- interruption
def test_an_interruption_between_two_trials_leaves_none_running() -> None:
    study = create_study("toy")

    def interrupted() -> None:
        with Claims(study) as claims:
            assert claims.next(3) is not None
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert states(study) == ["FAIL"]
    assert study.trials[0].user_attrs["reason"] == "interrupted"


def test_an_interruption_that_a_library_swallowed_ends_the_search_after_the_trial() -> None:
    study, came = create_study("toy"), threading.Event()

    def swallowing(trial: optuna.Trial) -> float:
        came.set()
        return draw(trial)

    with pytest.raises(KeyboardInterrupt):
        run_trials(study, swallowing, 9, progress=False, is_stopped=came.is_set)
    assert states(study) == ["COMPLETE"]


def test_an_interruption_of_which_a_library_made_an_error_is_no_failure_of_the_trial() -> None:
    study, came = create_study("toy"), threading.Event()

    def translating(trial: optuna.Trial) -> float:
        came.set()
        raise td.errors.UnsupportedError("the session was cut off")

    with pytest.raises(td.errors.UnsupportedError):
        run_trials(study, translating, 9, progress=False, is_stopped=came.is_set)
    assert study.trials[0].user_attrs["reason"] == "interrupted"


# ----------------------------------------------------------------------------------------- callbacks, stop, time, catch
def test_callbacks_see_every_trial_and_can_stop_the_search() -> None:
    study, seen = create_study("toy"), list[tuple[int, str]]()

    def callback(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        seen.append((trial.number, trial.state.name))
        if trial.number == 2:
            study.stop()

    callbacks: list[Callback] = [callback]
    run_trials(study, draw, 9, progress=False, callbacks=callbacks)
    assert seen == [(0, "COMPLETE"), (1, "COMPLETE"), (2, "COMPLETE")]
    run_trials(study, draw, 5, progress=False)  # the next call begins anew
    assert states(study) == ["COMPLETE"] * 5
    with pytest.raises(RuntimeError, match="stop"):  # as Optuna has it: outside a search there is nothing to stop
        study.stop()


def test_a_search_ends_when_its_time_is_over() -> None:
    study = create_study("toy")
    run_trials(study, draw, 9, progress=False, timeout=1e-9)
    assert states(study) == []
    for timeout in (0, -1.0, "long", True, float("nan")):
        with pytest.raises(td.errors.ConfigError, match="`timeout` must be a number of seconds above 0"):
            run_trials(study, draw, 9, progress=False, timeout=timeout)  # type: ignore[arg-type]


def test_errors_that_are_caught_fail_their_trial_and_others_end_the_search() -> None:
    def fragile(trial: optuna.Trial) -> float:
        if trial.number == 0:
            raise ZeroDivisionError("by zero")
        return draw(trial)

    with pytest.raises(ZeroDivisionError):
        run_trials(create_study("toy"), fragile, 2, progress=False)
    study = create_study("toy")
    run_trials(study, fragile, 2, progress=False, catch=ZeroDivisionError)
    assert states(study) == ["FAIL", "COMPLETE", "COMPLETE"]
    assert study.trials[0].user_attrs["reason"] == "ZeroDivisionError: by zero"


# ---------------------------------------------------------------------------------------------------- objectives, costs
def test_a_study_of_another_number_of_objectives_is_one_error(case: Case) -> None:
    two = create_study("two", objectives=("error", "size_bytes"))
    with pytest.raises(td.errors.ConfigError, match="does not minimise error: its directions are minimize, minimize"):
        case.optimize(two)
    with pytest.raises(td.errors.ConfigError, match="does not minimise error and size_bytes"):
        case.optimize(create_study("one"), objectives=("error", "size_bytes"))
    with pytest.raises(td.errors.ConfigError, match="1 values, and the study minimises 2"):
        run_trials(two, draw, 3, progress=False)
    assert states(two) == ["FAIL"]
    for wrong in ((), ("size_bytes",), ("error", "error"), ("error", "colour")):
        with pytest.raises(td.errors.ConfigError, match="`objectives` must begin with 'error'"):
            create_study("toy", objectives=wrong)


def test_several_objectives_give_a_front_and_a_recipe_for_any_budget(case: Case) -> None:
    study = create_study("front", objectives=("error", "size_bytes", "latency_ms"))
    for width, ratio in ((3, 0.5), (17, 0.0), (3, 0.0)):
        study.enqueue_trial({**ANY, "student.model.width": width, "pruning.ratio": ratio})
    case.optimize(study, n_trials=3, objectives=("error", "size_bytes", "latency_ms"))
    trials = study.trials
    assert [len(known(trial.values)) for trial in trials] == [3, 3, 3]
    for trial in trials:
        assert known(trial.values)[1:] == [trial.user_attrs["size_bytes"], trial.user_attrs["latency_ms"]]
    rows = front(study, costs=("size_bytes",))
    sizes, errors = [row["size_bytes"] for row in rows], [row["validation_mse"] for row in rows]
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)
    assert min(known(trial.values)[0] for trial in trials) == errors[-1]
    smallest = min(trial.user_attrs["size_bytes"] for trial in trials)
    assert best_recipe(study, max_size_bytes=smallest) == Recipe.from_json(
        min(trials, key=lambda trial: (trial.user_attrs["size_bytes"], known(trial.values)[0])).user_attrs["recipe"]
    )
    fastest = min(trial.user_attrs["latency_ms"] for trial in trials)
    with pytest.raises(td.errors.UnsupportedError, match=r"the fastest, trial \d, takes .* ms, .* over the budget"):
        best_recipe(study, max_latency_ms=fastest / 2)


def test_a_front_holds_what_nothing_beats() -> None:
    study = create_study("toy")
    points = {"big": (0.1, 900), "middle": (0.2, 500), "beaten": (0.3, 600), "small": (0.4, 100), "twin": (0.4, 100)}
    for name, (error, size) in points.items():
        attrs = {"recipe": name, "size_bytes": size, "n_parameters": 1, "precision": "fp32", "seconds": 1.0}
        study.add_trial(optuna.trial.create_trial(value=error, user_attrs=attrs))
    assert [row["trial"] for row in front(study)] == [3, 1, 0]
    with pytest.raises(td.errors.OrderError, match="timed"):
        front(study, costs=("latency_ms",))
    with pytest.raises(td.errors.OrderError, match="timed"):
        best_recipe(study, max_latency_ms=1.0)
    with pytest.raises(td.errors.ConfigError, match="`costs` must be some of"):
        front(study, costs=("weight",))
    with pytest.raises(td.errors.OrderError, match="no finished trial"):
        front(create_study("empty"))


def test_every_limit_of_a_budget_is_a_constraint(case: Case) -> None:
    budget = Budget(max_size_bytes=12_000, max_parameters=10, max_latency_ms=100.0)
    trial = FixedTrial({**ANY, "student.model.width": 3})
    objective(SMALL, case.teacher, case.task, recipe=case.recipe, budget=budget)(trial)
    costs = trial.user_attrs
    assert trial.constraints == {
        "size_bytes": costs["size_bytes"] - 12_000,
        "n_parameters": costs["n_parameters"] - 10,
        "latency_ms": costs["latency_ms"] - 100.0,
    }
    assert trial.constraints["n_parameters"] > 0 > trial.constraints["latency_ms"]
    with pytest.raises(td.errors.ConfigError, match="`max_size_bytes` must be left out beside a budget"):
        objective(SMALL, case.teacher, case.task, recipe=case.recipe, budget=budget, max_size_bytes=5)


# ------------------------------------------------------------------------------------------------------- early stopping
class Watched(BasePruner):
    """Stops every trial at a step, and keeps what was reported."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.reported = dict[int, float]()

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        self.reported |= trial.intermediate_values
        return trial.last_step == self.step


def test_a_pruner_sees_the_error_of_every_epoch_and_stops_the_trial(case: Case) -> None:
    recipe = case.recipe.replace_at({"student.training.epochs": 5, "student.training.patience": None})
    pruner = Watched(2)
    study = create_study("toy", pruner=pruner)
    case.optimize(study, but(**{"pruning.ratio": 0.0}), recipe=recipe)
    assert states(study) == ["PRUNED"]
    assert list(pruner.reported) == [1, 2]
    proposed = Recipe.from_json(study.trials[0].user_attrs["recipe"]).student
    student = td.distill(
        case.teacher, proposed.model, case.task, losses=proposed.losses, training=proposed.training, control=False
    )
    history = student.lineage[-1].metrics["history"]
    assert pruner.reported == {line["epoch"]: line["validation_mse"] for line in history[:2]}


def test_the_usual_pruner_waits_for_ten_trials_and_two_epochs() -> None:
    def worse_and_worse(trial: optuna.Trial) -> float:
        for epoch in (1, 2):
            trial.report(trial.number, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return float(trial.number)

    study = create_study("toy")
    run_trials(study, worse_and_worse, 12, progress=False)
    assert states(study) == ["COMPLETE"] * 10 + ["PRUNED"] * 2
    assert study.trials[10].last_step == 2


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_wilcoxon_pruner_sees_blocks_of_validation_windows(case: Case) -> None:
    study = create_study("toy", pruner=WilcoxonPruner())
    case.optimize(study)
    (trial,) = study.trials
    assert trial.state == TrialState.COMPLETE
    assert list(trial.intermediate_values) == list(range(16))


def test_a_recipe_that_was_tried_is_not_tried_again(case: Case) -> None:
    study = create_study("toy")
    for _ in range(2):
        study.enqueue_trial({**ANY, "student.model.width": 3})
    case.optimize(study, n_trials=2)
    first, second = study.trials
    assert second.user_attrs["same_as"] == 0
    assert second.value == first.value
    assert {"size_bytes", "precision", "recipe"} <= second.user_attrs.keys()


# ----------------------------------------------------------------------------------------------- functions of one's own
def test_a_function_can_propose_recipes(case: Case) -> None:
    def suggest(trial: optuna.trial.BaseTrial, recipe: Recipe) -> Recipe:
        return recipe.replace_at({"student.model.width": trial.suggest_int("width", 4, 6)})

    study = create_study("toy", sampler=optuna.samplers.RandomSampler(seed=1))
    case.optimize(study, suggest)
    assert study.trials[0].params["width"] == known(best_recipe(study).student.model.to_dict())["width"]

    def straying(trial: optuna.trial.BaseTrial, recipe: Recipe) -> Recipe:
        return recipe.replace_at({"task.horizon": 3})

    with pytest.raises(td.errors.ConfigError, match="share data, task, teacher, and your function changed task"):
        objective(straying, case.teacher, case.task, recipe=case.recipe)(FixedTrial({}))
    with pytest.raises(td.errors.ConfigError, match="a different space"):
        case.optimize(study, SMALL)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"student.model.width": 999}, "'999' not in (3, 17)"),
        ({"student.training.learning_rate": 0.5}, "student.training.learning_rate: 0.5 is not within"),
        ({"student.model.wdith": 3}, "student.model.wdith was not drawn"),
    ],
)
@pytest.mark.filterwarnings("ignore:Fixed parameter")
def test_what_is_enqueued_outside_the_space_fails_with_a_reason(case: Case, params: dict[str, Any], words: str) -> None:
    study = create_study("toy")
    study.enqueue_trial(params)
    case.optimize(study)
    assert states(study) == ["FAIL", "COMPLETE"]
    reason = study.trials[0].user_attrs["reason"]
    assert "`enqueue_trial` must be in the space of the search" in reason
    assert words in reason


def test_a_search_with_limits_of_its_own_from_end_to_end(tmp_path: Path) -> None:
    recipe = float_recipe(tmp_path)
    pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=2)
    result = run(
        recipe,
        tmp_path / "out",
        n_trials=2,
        space=SMALL,
        objectives=("error", "n_parameters"),
        budget=Budget(max_parameters=100_000),
        sampler=optuna.samplers.NSGAIISampler(seed=3),
        pruner=pruner,
        timeout=300,
        progress=False,
    )
    assert len(result.study.directions) == 2
    assert all(trial.constraints["n_parameters"] < 0 for trial in result.study.trials)
    assert result.recipe == best_recipe(result.study).replace(name=result.recipe.name)
