"""Exact totals: who runs the next trial, who has died, and what is retried."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial

import tsdistill as td
from tests.test_search import states
from tsdistill.search import (
    create_study,
    run_trials,
)
from tsdistill.search.claims import ABANDONED, Claims


def draw(trial: optuna.Trial) -> float:
    """The cheapest objective there is."""
    return trial.suggest_float("x", 0, 1)


def opened(storage: Any) -> optuna.Study:
    return create_study("toy", storage=storage)


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
