"""Searching: what a trial is and what it is worth, exact totals, storages, budgets, and what is said when it fails."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
import pandas as pd
import pytest
import sqlalchemy as sa
from optuna.trial import FixedTrial, TrialState, create_trial

import tsdistill as td
from tsdistill.cli import main
from tsdistill.errors import TsdistillError
from tsdistill.recipe import Recipe, Source, StudentSpec, TaskSpec, TeacherSpec, default_recipe
from tsdistill.search import (
    Range,
    Space,
    best_recipe,
    create_study,
    leaders,
    objective,
    optimize,
    run,
    run_trials,
    shared_teacher,
    table,
)
from tsdistill.search.claims import ABANDONED, Claims
from tsdistill.search.storage import JournalLock
from tsdistill.testing import toy_panel

GUIDE = Path(__file__).parents[1] / "docs" / "guides" / "search.md"
PASSWORD = "geheim-7x"
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


def draw(trial: optuna.Trial) -> float:
    """The cheapest objective there is."""
    return trial.suggest_float("x", 0, 1)


def but(**values: Any) -> Space:
    """The small space with other values at some addresses."""
    assert SMALL.vary is not None
    return Space(vary={**SMALL.vary, **values})


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.trials]


def toy_recipe(folder: Path) -> Recipe:
    """A recipe over a CSV file that runs in a second or two."""
    panel = toy_panel(n_rows=307)
    frame = pd.DataFrame(panel.items[0].values, columns=list(panel.channels))
    frame.insert(0, "ds", pd.date_range("2024-01-01", periods=len(frame), freq="h"))
    frame.to_csv(folder / "toy.csv", index=False)
    quick = td.Training(epochs=1, max_steps=3, batch_size=32, precision="float32")
    small = td.MLPConfig(width=5, depth=1)
    return Recipe(
        name="toy",
        data=Source(path=str(folder / "toy.csv")),
        task=TaskSpec(context=CONTEXT, horizon=HORIZON, split=td.Split.fractions(0.5, 0.25, 0.25)),
        teacher=TeacherSpec(model=small, training=quick),
        student=StudentSpec(model=small, training=quick),
        pruning=td.Pruning(recovery=quick),
        quantization=None,
    )


# ---------------------------------------------------------------------------------------------------- studies, storages
def opened(storage: Any) -> optuna.Study:
    return create_study("toy", storage=storage)


@pytest.mark.parametrize(
    ("storage", "kind", "words"),
    [
        ("nonsense", td.errors.ConfigError, ["storage", "journal:FILE"]),
        (
            f"postgresql+psycopg://u:{PASSWORD}@host:port/base",
            td.errors.ConfigError,
            ["cannot be read", "postgresql+psycopg"],
        ),
        (f"mysql://u:{PASSWORD}@host/base", td.errors.ConfigError, ["'mysql'", "known kind"]),
        ("sqlite://", td.errors.ConfigError, ["memory", "None"]),
        ("sqlite:///no-such-folder/x.db", td.errors.ArtifactError, ["no-such-folder/x.db", "unable to open"]),
        ("journal:", td.errors.ConfigError, ["journal:study.log"]),
        ("journal:no-such-folder/x.log", td.errors.ArtifactError, ["no-such-folder/x.log", "No such file"]),
        ("env:NOT_SET_ANYWHERE", td.errors.ConfigError, ["NOT_SET_ANYWHERE", "not set"]),
        (f"postgresql+pg8000://u:{PASSWORD}@host/base", td.errors.UnsupportedError, ["driver", "tsdistill[postgres]"]),
        (
            f"postgresql+psycopg://u:{PASSWORD}@127.0.0.1:1/b",
            td.errors.ArtifactError,
            ["127.0.0.1:1/b", "refused", "up"],
        ),
        (7, td.errors.ConfigError, ["storage", "int"]),
    ],
)
def test_a_storage_that_cannot_be_used_gives_one_clear_error_without_its_password(
    storage: Any, kind: type[Exception], words: list[str]
) -> None:
    with pytest.raises(kind) as caught:
        create_study("toy", storage=storage)
    assert [word for word in words if word not in str(caught.value)] == []
    assert PASSWORD not in "".join(traceback.format_exception(caught.value)) + repr(caught.value.__dict__)


@pytest.mark.parametrize(("name", "seed"), [("", 0), ("  ", 0), ("toy", -1), ("toy", 1.5)])
def test_a_study_has_a_name_and_a_seed(name: str, seed: Any) -> None:
    with pytest.raises(td.errors.ConfigError, match="must be"):
        create_study(name, seed=seed)


def test_the_shell_says_nothing_of_a_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    url = f"postgresql+psycopg://u:{PASSWORD}@127.0.0.1:1/b"
    monkeypatch.setattr(sys, "argv", ["tsdistill", "search", "--storage", url, "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as left:
        main()
    said = capsys.readouterr()
    assert left.value.code == 5
    assert said.out == ""
    assert said.err.startswith("error: Cannot reach the storage")
    assert PASSWORD not in said.err
    assert [path for path in tmp_path.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()] == []


def test_a_study_is_a_plain_one_that_minimises_and_names_its_sampler(tmp_path: Path) -> None:
    study = create_study("toy", storage=f"journal:{tmp_path / 's.log'}", seed=3)
    assert type(study) is optuna.Study
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
    assert isinstance(study.sampler, optuna.samplers.TPESampler)
    study.optimize(draw, n_trials=2)
    assert len(create_study("toy", storage=f"journal:{tmp_path / 's.log'}").trials) == 2


def test_a_study_that_maximises_is_refused(tmp_path: Path) -> None:
    storage = optuna.storages.InMemoryStorage()
    optuna.create_study(study_name="toy", storage=storage, direction="maximize")
    with pytest.raises(td.errors.ConfigError, match="does not minimise"):
        create_study("toy", storage=storage)


def test_draws_depend_on_seed_and_number_and_not_on_the_process(tmp_path: Path) -> None:
    def drawn(seed: int, *sizes: int) -> list[float]:
        storage = optuna.storages.InMemoryStorage()
        for size in sizes:  # a fresh study object each time, as after a restart
            run_trials(create_study("toy", storage=storage, seed=seed), draw, size, progress=False)
        return [trial.params["x"] for trial in create_study("toy", storage=storage).trials]

    at_once = drawn(1, 13)
    assert drawn(1, 3, 5, 13) == at_once
    assert len(set(at_once)) == 13
    assert set(drawn(2, 13)).isdisjoint(at_once)


def test_a_lock_that_a_killed_worker_left_behind_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tsdistill.search.storage.LEFT_BEHIND_SECONDS", 0.05)
    Path("out").mkdir()
    study = create_study("toy", storage="journal:out/s.log")
    # What Optuna leaves for a relative path: a link that points nowhere.
    Path("out/s.log.lock").symlink_to("out/s.log")
    run_trials(study, draw, 2, progress=False)
    assert states(study) == ["COMPLETE"] * 2
    assert not os.path.lexists("out/s.log.lock")


def test_a_lock_that_somebody_holds_is_waited_for(tmp_path: Path) -> None:
    path, order = tmp_path / "s.log", []
    path.touch()
    first, second = JournalLock(path), JournalLock(path)
    first.acquire()

    def wait() -> None:
        second.acquire()
        order.append("second")
        second.release()

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(0.1)
    order.append("first")
    first.release()
    thread.join(60)
    assert order == ["first", "second"]


def test_a_half_written_last_line_of_a_journal_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "s.log"
    run_trials(create_study("toy", storage=f"journal:{path}"), draw, 2, progress=False)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code":4,"worker_')
    study = create_study("toy", storage=f"journal:{path}")
    assert path.read_bytes().startswith(whole + b'{"op_code":0')  # nothing but whole lines in between
    run_trials(study, draw, 3, progress=False)
    assert states(create_study("toy", storage=f"journal:{path}")) == ["COMPLETE"] * 3


@pytest.mark.parametrize("content", ["date,load\n2024-01-01,3\n", "x", "{}\n"])
def test_a_file_that_is_no_journal_is_left_as_it_is(tmp_path: Path, content: str) -> None:
    path = tmp_path / "data.csv"
    path.write_text(content)
    with pytest.raises(td.errors.ArtifactError, match="not a journal"):
        create_study("toy", storage=f"journal:{path}")
    assert path.read_text() == content


def test_a_damaged_journal_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "s.log"
    run_trials(create_study("toy", storage=f"journal:{path}"), draw, 2, progress=False)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b'{"op_code":4,"wor\n', *lines[2:]]))
    with pytest.raises(td.errors.ArtifactError, match=r"s\.log.*(cannot|can) be read|damaged"):
        create_study("toy", storage=f"journal:{path}")


# --------------------------------------------------------------------------------------------------------------- totals
@pytest.fixture(params=["memory", "journal", "sqlite"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], optuna.Study]:
    """Opens the same study again and again, in each kind of storage."""
    memory = optuna.storages.InMemoryStorage()
    places = {"memory": memory, "journal": f"journal:{tmp_path / 's.log'}", "sqlite": f"sqlite:///{tmp_path / 's.db'}"}
    return lambda: opened(places[request.param])


def test_a_total_is_reached_and_continued_and_never_passed(kept: Callable[[], optuna.Study]) -> None:
    for total in (2, 5, 5, 3):
        run_trials(kept(), draw, total, progress=False)
    assert states(kept()) == ["COMPLETE"] * 5


def test_a_pruned_trial_counts_and_a_failed_one_is_retried(kept: Callable[[], optuna.Study]) -> None:
    def fussy(trial: optuna.Trial) -> float:
        if trial.number == 1:
            raise optuna.TrialPruned
        if trial.number in (2, 3):
            raise td.errors.DivergenceError("the loss is not finite")
        return float("nan") if trial.number == 4 else draw(trial)

    study = kept()
    run_trials(study, fussy, 4, progress=False)
    assert states(study) == ["COMPLETE", "PRUNED", "FAIL", "FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert study.trials[2].value is None
    assert study.trials[2].user_attrs["reason"] == "the loss is not finite"
    assert "finite" in study.trials[4].user_attrs["reason"]


def test_five_failures_in_a_row_stop_the_search_with_the_last_reason() -> None:
    def hopeless(trial: optuna.Trial) -> float:
        if trial.number < 2:
            return draw(trial)
        raise td.errors.DivergenceError(f"trial {trial.number} diverged.")

    study = create_study("toy")
    with pytest.raises(td.errors.DivergenceError, match=r"5 trials in a row failed.*trial 6 diverged"):
        run_trials(study, hopeless, 9, progress=False)
    assert states(study) == ["COMPLETE"] * 2 + ["FAIL"] * 5


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(143), ZeroDivisionError("a fault")])
def test_whatever_stops_a_search_its_trial_is_failed_and_retried(
    kept: Callable[[], optuna.Study], stop: BaseException
) -> None:
    def stopped(trial: optuna.Trial) -> float:
        if trial.number == 2:
            raise stop
        return draw(trial)

    with pytest.raises(type(stop)):
        run_trials(kept(), stopped, 5, progress=False)
    assert states(kept()) == ["COMPLETE", "COMPLETE", "FAIL"]
    assert kept().trials[2].user_attrs["reason"] in ("interrupted", "ZeroDivisionError: a fault")
    run_trials(kept(), stopped, 5, progress=False)
    assert states(kept()).count("COMPLETE") == 5


def test_a_trial_of_a_dead_worker_is_failed_and_retried(kept: Callable[[], optuna.Study]) -> None:
    with Claims(kept()) as dies:
        abandoned = dies.next(3)
        assert abandoned is not None
        abandoned.suggest_float("x", 0, 1)
    run_trials(kept(), draw, 3, progress=False)
    assert states(kept()) == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert kept().trials[0].user_attrs["reason"] == ABANDONED


def test_a_trial_of_a_living_worker_is_left_alone(tmp_path: Path) -> None:
    journal = f"journal:{tmp_path / 's.log'}"
    with Claims(opened(journal)) as one, Claims(opened(journal)) as other:
        assert one.next(2) is not None
        other._reap()
        assert states(opened(journal)) == ["RUNNING"]
        assert other.next(2) is not None
        assert states(opened(journal)) == ["RUNNING", "RUNNING"]


def test_a_worker_that_dies_between_making_and_taking_a_trial_leaves_none_behind(tmp_path: Path) -> None:
    study = create_study("toy", storage=f"journal:{tmp_path / 's.log'}")
    study.add_trial(create_trial(state=TrialState.WAITING, user_attrs={"worker": "1-gone"}))
    run_trials(study, draw, 2, progress=False)
    assert states(study) == ["COMPLETE"] * 2


def test_a_trial_that_a_user_lined_up_is_run_first(kept: Callable[[], optuna.Study]) -> None:
    kept().enqueue_trial({"x": 0.125})
    run_trials(kept(), draw, 2, progress=False)
    assert kept().trials[0].params == {"x": 0.125}
    assert states(kept()) == ["COMPLETE"] * 2


def test_a_result_that_comes_too_late_is_dropped(tmp_path: Path) -> None:
    """A worker that was taken for dead (its connection broke) must not count twice."""
    study = create_study("toy", storage=f"journal:{tmp_path / 's.log'}")

    def late(trial: optuna.Trial) -> float:
        if trial.number == 0:
            study.tell(0, state=TrialState.FAIL)
        return draw(trial) if trial.number else 0.5

    run_trials(study, late, 2, progress=False)
    assert states(study) == ["FAIL", "COMPLETE", "COMPLETE"]


def in_parallel(n_workers: int, opened: Callable[[], optuna.Study], total: int) -> list[BaseException]:
    """Workers in threads, each with a storage and locks of its own, as processes have."""
    failed: list[BaseException] = []

    def work() -> None:
        try:
            run_trials(opened(), draw, total, progress=False)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(n_workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return failed


def test_three_workers_on_a_journal_lose_no_trial_and_double_none(tmp_path: Path) -> None:
    journal = f"journal:{tmp_path / 's.log'}"
    assert in_parallel(3, lambda: opened(journal), 23) == []
    study = opened(journal)
    assert states(study) == ["COMPLETE"] * 23
    assert len({trial.params["x"] for trial in study.trials}) == 23
    assert [path.name for path in (tmp_path / "s.log.workers").iterdir() if "turn" not in path.name] == []


@pytest.mark.postgres
def test_three_workers_on_a_server_lose_no_trial_and_double_none(postgres_url: str) -> None:
    assert in_parallel(3, lambda: opened(postgres_url), 13) == []  # all three make the tables of an empty database
    study = opened(postgres_url)
    assert states(study) == ["COMPLETE"] * 13
    assert len({trial.params["x"] for trial in study.trials}) == 13


@pytest.mark.postgres
def test_a_server_frees_the_trials_of_a_worker_whose_connection_is_gone(postgres_url: str) -> None:
    study = opened(postgres_url)
    with Claims(opened(postgres_url)) as cut_off, Claims(study) as other:
        assert cut_off.next(2) is not None
        other._reap()
        assert states(study) == ["RUNNING"]
        cut_off._locks._connection.invalidate()  # type: ignore[attr-defined]
        until = time.monotonic() + 10
        while states(study) == ["RUNNING"] and time.monotonic() < until:
            other._reap()  # the server may need a moment to notice
    assert states(study) == ["FAIL"]
    run_trials(study, draw, 2, progress=False)
    assert states(study) == ["FAIL", "COMPLETE", "COMPLETE"]


@pytest.mark.postgres
def test_a_server_that_goes_away_gives_one_clear_error(postgres_url: str) -> None:
    study = opened(postgres_url)

    def cut(trial: optuna.Trial) -> float:
        """The server ends every connection to this database, the worker's among them, and lets nobody in again."""
        name = sa.make_url(postgres_url).database
        engine = sa.create_engine(
            os.environ["TSDISTILL_TEST_POSTGRES"], isolation_level="AUTOCOMMIT", poolclass=sa.NullPool
        )
        with engine.connect() as connection:
            connection.execute(sa.text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
            ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"
            connection.execute(sa.text(ended), {"name": name})
        return 0.5

    with pytest.raises(td.errors.ArtifactError) as caught:
        run_trials(study, cut, 1, progress=False)
    assert str(caught.value).startswith("Cannot reach the storage postgresql")
    password = sa.make_url(postgres_url).password
    assert password is not None
    assert password not in "".join(traceback.format_exception(caught.value))


def test_sqlite_serves_one_process(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    first, second = opened(url), opened(url)
    with Claims(first), pytest.raises(td.errors.OrderError, match=r"s\.db.*one only"):
        run_trials(second, draw, 1, progress=False)
    run_trials(second, draw, 1, progress=False)
    assert states(first) == ["COMPLETE"]


@pytest.mark.parametrize("n_trials", [0, -1, 2.5, True, None])
def test_a_total_is_a_whole_number(n_trials: Any) -> None:
    with pytest.raises(td.errors.ConfigError, match="n_trials"):
        run_trials(create_study("toy"), draw, n_trials)


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
    recipe, budget = toy_recipe(folder), 12_000
    task = recipe.task.build(recipe.data.load())
    teacher = shared_teacher(recipe, task, folder / "out", progress=False)
    study = create_study("toy", storage=f"journal:{folder / 's.log'}")
    for width, ratio in ((3, 0.5), (17, 0.0)):
        study.enqueue_trial({**ANY, "student.model.width": width, "pruning.ratio": ratio})
    optimize(study, SMALL, teacher, task, n_trials=2, recipe=recipe, max_size_bytes=budget, progress=False)
    return Searched(recipe, task, teacher, study, budget, folder)


def test_a_trial_keeps_its_recipe_its_size_and_its_budget(searched: Searched) -> None:
    small, large = searched.study.trials
    for trial in (small, large):
        assert {"recipe", "size_bytes", "n_parameters", "precision", "seconds"} <= trial.user_attrs.keys()
        assert trial.constraints == {"size_bytes": trial.user_attrs["size_bytes"] - searched.budget}
        assert Recipe.from_json(trial.user_attrs["recipe"]).student.model.width == trial.params["student.model.width"]
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
    found = objective(space, blind, searched.task, recipe=recipe)(FixedTrial(chosen))
    proposed = space.propose(FixedTrial(chosen), recipe)
    assert proposed.pruning is None
    control = td.train(proposed.student.model, searched.task, proposed.student.training)
    mse = td.evaluate(td.export(control, searched.task), searched.task, part="validation")["mse"]
    assert found == pytest.approx(mse, rel=1e-6)


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
    better = min((small, large), key=lambda trial: trial.value)
    assert best_recipe(searched.study).student.model.width == 3
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
        ({"max_size_bytes": 9_999}, ["different size budget", "--name"]),
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
            max_size_bytes=change.get("max_size_bytes", searched.budget),
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
        ({"recipe": {"teacher": TeacherSpec()}}, ["2 problems", "recipe.teacher.model", "width=5", "max_steps=3"]),
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
    found = objective(space, config.build(task.signature), task).recipe
    assert found.data == Source(dataset="nyc-weather")
    assert found.task == TaskSpec(context=48, horizon=12)
    assert found.teacher.model == config


# ------------------------------------------------------------------------------------------------------- whole searches
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"workers": 2, "storage": "sqlite:///x.db"}, ["workers", "SQLite", "journal:FILE"]),
        ({"workers": 0}, ["workers", "above 0"]),
        ({"n_trials": 0}, ["n_trials", "above 0"]),
        ({"space": LONG}, ["In student.model.patch:"]),
    ],
)
def test_a_search_that_cannot_work_is_refused_before_the_teacher_is_trained(
    tmp_path: Path, settings: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(td.errors.ConfigError) as caught:
        run(toy_recipe(tmp_path), tmp_path / "out", **{"n_trials": 1, "space": SMALL, **settings})
    assert [word for word in words if word not in str(caught.value)] == []
    assert not (tmp_path / "out" / "stages").exists()


def test_the_shell_searches_and_writes_a_recipe_that_can_be_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    recipe, out = toy_recipe(tmp_path), tmp_path / "out"
    (tmp_path / "toy.toml").write_text(recipe.to_toml())
    (tmp_path / "space.toml").write_text(SMALL.to_toml())
    command = ["search", str(tmp_path / "toy.toml"), "--space", str(tmp_path / "space.toml"), "--out", str(out)]

    def shell(*more: str) -> str:
        monkeypatch.setattr(sys, "argv", ["tsdistill", *command, *more])
        main()
        said = capsys.readouterr()
        assert said.err == ""  # no terminal, no progress
        return said.out

    text = shell("--trials", "1")
    assert "1 trials, 0 failed" in text
    assert f"tsdistill run {out / 'best.toml'}" in text
    found = json.loads(shell("--trials", "1", "--json"))
    assert (found["n_finished"], found["n_failed"], found["recipe"]) == (1, 0, str(out / "best.toml"))
    best = Recipe.from_file(out / "best.toml")
    assert best == SMALL.propose(FixedTrial(found["best"][0]["params"]), recipe)
    assert list(out.glob("best.toml*.part")) == []


def test_the_space_of_the_guide_is_one() -> None:
    (toml,) = re.findall(r"```toml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)
    space = Space.from_toml(toml)
    assert space.vary is not None
    space.check(default_recipe())
