"""Searches by real processes that are killed, interrupted and started again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

import tsdistill as td
from tests.recipes import float_recipe
from tests.test_search import GUIDE, SMALL
from tests.test_search_storage import PASSWORD
from tsdistill.models import MODELS
from tsdistill.recipe import Recipe
from tsdistill.search import Space, create_study, run
from tsdistill.search.claims import ABANDONED

pytestmark = pytest.mark.slow

SECONDS = 120


@contextmanager
def searching(folder: Path, n_trials: int, *more: str) -> Iterator[subprocess.Popen[str]]:
    """`tsdistill search` over the toy recipe, as a process in a group of its own."""
    if not (folder / "toy.toml").exists():
        (folder / "toy.toml").write_text(float_recipe(folder).to_toml())
        (folder / "space.toml").write_text(SMALL.to_toml())
    command = [sys.executable, "-m", "tsdistill.cli", "search", "toy.toml", "--space", "space.toml", "--out", "out"]
    process = subprocess.Popen(
        [*command, "--trials", str(n_trials), *more],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (0, "")
    return out


def journal(folder: Path) -> optuna.Study:
    return create_study("toy", storage=f"journal:{folder / 'out' / 'study.log'}")


def running(study: Callable[[], optuna.Study], n_finished: int, *, since: int = 0) -> list[optuna.trial.FrozenTrial]:
    """Wait until some trials are finished and others, from number `since` on, are running; those."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        trials = study().trials
        active = [trial for trial in trials[since:] if trial.state == TrialState.RUNNING and trial.params]
        if sum(trial.state == TrialState.COMPLETE for trial in trials) >= n_finished and active:
            return active
        time.sleep(0.05)
    raise AssertionError("the search does not get on")


def counted(study: optuna.Study) -> Counter[str]:
    return Counter(trial.state.name for trial in study.trials)


def test_a_search_that_is_killed_twice_and_interrupted_ends_with_its_exact_total(tmp_path: Path) -> None:
    def study() -> optuna.Study:
        return journal(tmp_path)

    (tmp_path / "out").mkdir()
    with searching(tmp_path, 3, "--workers", "2") as process:  # one worker dies: the other makes up for it
        victim = int(running(study, 1)[0].user_attrs["worker"].split("-")[0])
        os.kill(victim, signal.SIGKILL)
        assert "3 trials, 1 failed" in finish(process)
    assert counted(study()) == {"COMPLETE": 3, "FAIL": 1}
    with searching(tmp_path, 6, "--workers", "2") as process:  # the parent dies: its workers stop with it
        running(study, 4)
        process.kill()
        process.communicate(timeout=SECONDS)
    time.sleep(2)
    before = counted(study())
    assert before["RUNNING"] >= 1
    assert before["COMPLETE"] < 6
    with searching(tmp_path, 7, "--workers", "2") as process:  # Ctrl-C reaches the whole group
        running(study, 5, since=sum(before.values()))
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=SECONDS)
        assert (process.returncode, out) == (130, "")
        assert err == "error: Interrupted. Start the same command again to continue.\n"
    assert counted(study())["RUNNING"] == 0
    with searching(tmp_path, 7, "--workers", "2", "--json") as process:
        output = json.loads(finish(process))
    ended = study().trials
    assert counted(study())["COMPLETE"] == output["n_finished"] == 7
    assert counted(study())["RUNNING"] == counted(study())["WAITING"] == 0
    assert {trial.user_attrs["reason"] for trial in ended if trial.state == TrialState.FAIL} == {
        ABANDONED,
        "interrupted",
    }
    done = [json.dumps(trial.params) for trial in ended if trial.state == TrialState.COMPLETE]
    assert len(set(done)) == 7
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in log if "seconds" in line] == ["teacher"]  # trained once, kept ever after


def test_two_commands_share_teacher_and_trials_and_what_they_find_can_be_run(tmp_path: Path) -> None:
    with searching(tmp_path, 5, "--json") as first, searching(tmp_path, 5, "--json") as second:
        outputs = [json.loads(finish(process)) for process in (first, second)]
    study = journal(tmp_path)
    assert counted(study) == {"COMPLETE": 5}
    assert len({trial.user_attrs["worker"] for trial in study.trials}) == 2
    assert outputs[0]["best"] == outputs[1]["best"]
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in log if "seconds" in line] == ["teacher"]
    finished = td.run(Recipe.from_file(tmp_path / "out" / "best.toml"), tmp_path / "best", progress=False)
    best = outputs[0]["best"][0]
    assert td.evaluate(finished.deployed, finished.task)["mse"] == pytest.approx(best["validation_mse"], rel=1e-4)
    # A trial trains no control; the finished manifest also says how the student did against its own.
    assert finished.deployed.size_bytes == pytest.approx(best["size_bytes"], abs=512)


@pytest.fixture
def on_server(postgres_url: str) -> optuna.Study:
    return create_study("toy", storage=postgres_url)


@pytest.mark.postgres
def test_workers_on_a_server_that_are_killed_end_with_their_exact_total(
    tmp_path: Path, on_server: optuna.Study, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = on_server
    monkeypatch.setenv("TSDISTILL_TEST_STUDIES", postgres_url)
    with searching(tmp_path, 4, "--workers", "2", "--storage", "env:TSDISTILL_TEST_STUDIES") as process:
        victim = int(running(lambda: study, 1)[0].user_attrs["worker"].split("-")[0])
        os.kill(victim, signal.SIGKILL)
        finish(process)
    assert counted(study) == {"COMPLETE": 4, "FAIL": 1}


@pytest.mark.postgres
def test_a_password_is_written_nowhere(tmp_path: Path, on_server: optuna.Study, postgres_url: str) -> None:
    import sqlalchemy as sa

    password = sa.make_url(postgres_url).password or PASSWORD
    with searching(tmp_path, 1, "--storage", postgres_url) as process:
        output = finish(process)
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert password not in output
    assert len(written) > 3
    assert not any(password.encode() in content for content in written)
    assert counted(on_server) == {"COMPLETE": 1}
    assert password not in repr([on_server.user_attrs, *(trial.user_attrs for trial in on_server.trials)])


def test_the_python_of_the_guide_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)
    (tmp_path / "guide.py").write_text("".join(blocks))
    done = subprocess.run(
        [sys.executable, "-W", "error", "guide.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert Recipe.from_toml(done.stdout).student.model.kind == "mlp"


def test_a_search_over_every_architecture_has_no_failed_trial(tmp_path: Path) -> None:
    """The default space over two toy tasks: one without covariates, and one with the clock that a CycleNet reads."""
    plain = float_recipe(tmp_path)
    clock = plain.replace(name="clock", task=plain.task.replace(covariates=td.Covariates(calendar=("time-of-day",))))
    kinds = set()
    for recipe, n_trials in ((plain, 30), (clock, 8)):
        result = run(recipe, tmp_path / recipe.name, n_trials=n_trials, progress=False)
        assert result.counts == {"n_finished": n_trials, "n_failed": 0}
        kinds |= set(Space().ranges(recipe)["student.model.kind"])
    assert kinds == set(MODELS.kinds)
