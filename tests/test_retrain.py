"""Retraining: the better of candidate and incumbent is served, whatever happens in between."""

from __future__ import annotations

import dataclasses
import errno
import functools
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from tests import retraining
from tests.retraining import FIRST, SECOND, SPOILT, job
from tsdistill import cli, runtime
from tsdistill.data import Panel, Task
from tsdistill.distillation import distill
from tsdistill.errors import ArtifactError, ConfigError, DataError, OrderError
from tsdistill.evaluation import LossComparison
from tsdistill.exporting import Deployed, export
from tsdistill.models import LinearConfig
from tsdistill.recipe import Source
from tsdistill.retrain import Gate, Job, Store, Verdict, rollback, run_job
from tsdistill.retrain.gate import rule
from tsdistill.retrain.judging import Served, judge
from tsdistill.training import train

PIPELINE = importlib.import_module("tsdistill.recipe.pipeline")  # the package shows the function of this name
TEACHER_BUILDER = importlib.import_module("tsdistill.recipe.teacher_builder")
GUIDE = Path(__file__).resolve().parents[1] / "docs" / "guides" / "retrain.md"


class RetrainRuns(NamedTuple):
    """A folder with data and a store, and what five jobs in a row decided."""

    folder: Path
    spoilt_first: Verdict
    first: Verdict
    spoilt_second: Verdict
    second: Verdict
    again: Verdict
    backwards: Verdict


@pytest.fixture(scope="module", autouse=True)
def _no_controls() -> Iterator[None]:
    """A student without a teacher beside each one would only cost time here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PIPELINE, "distill", functools.partial(distill, control=False))
        yield


@pytest.fixture(scope="module")
def after(tmp_path_factory: pytest.TempPathFactory) -> RetrainRuns:
    folder = tmp_path_factory.mktemp("retrain")
    retraining.write_csv(folder / "fresh.csv")
    good, spoilt = job(folder), job(folder, student=SPOILT)
    return RetrainRuns(
        folder,
        run_job(spoilt, as_of=FIRST),
        run_job(good, as_of=FIRST),
        run_job(spoilt, as_of=SECOND),
        # Fresh data of a day moves a ridge regression by next to nothing: any model that is not clearly worse may pass.
        run_job(good.replace(gate=Gate(margin=0.5)), as_of=SECOND),
        run_job(good, as_of=SECOND),
        run_job(good, as_of=FIRST),
    )


@pytest.fixture
def copy(after: RetrainRuns, tmp_path: Path) -> Path:
    """The folder after those runs, to be changed."""
    shutil.copytree(after.folder / "store", tmp_path / "store", symlinks=True)
    return tmp_path


def same_job(after: RetrainRuns, place: Path, **changes: Any) -> Job:
    """The good job with another store; its finished stages are kept there."""
    return job(after.folder, store=str(place / "store"), **changes)


def served_digest(store: Path) -> str:
    assert runtime.load(store / "current").predict(np.full((1, 29, 2), 5.0)).shape == (1, 7, 2)
    return os.readlink(store / ".live/current").split("-")[-1]


# ------------------------------------------------------------------------------------------------------------ decisions
@pytest.mark.parametrize(
    ("run", "decision", "words"),
    [
        ("spoilt_first", "rejected-first", ["does not beat the seasonal naive forecast's"]),
        ("first", "promoted", ["No model was served yet", "% below the seasonal naive forecast's"]),
        ("spoilt_second", "kept", ["does not beat the seasonal naive"]),
        ("second", "promoted", ["the incumbent's", "47 windows, p = ", "seasonal naive 0."]),
        ("again", "kept", ["The candidate is the incumbent itself"]),
        ("backwards", "kept", ["The incumbent has seen these windows", "until 2024-01-14T06:00:00+00:00"]),
    ],
)
def test_every_run_ends_in_a_decision_with_its_reason(
    after: RetrainRuns, run: str, decision: str, words: list[str]
) -> None:
    verdict = getattr(after, run)
    assert verdict.decision == decision
    for word in words:
        assert word in str(verdict)
    assert "\n" not in str(verdict)


def test_what_is_served_is_the_candidate_of_the_last_promotion(after: RetrainRuns) -> None:
    store = Store(after.folder / "store")
    digest = after.second.scores["candidate"].model
    assert served_digest(store.folder) == digest
    model, details = store.load(str(after.second.current))
    assert model.digest == digest
    assert details["seen_until"] == after.second.seen_until == "2024-01-14T06:00:00+00:00"
    assert details["judged_until"] == after.second.as_of == "2024-01-16T11:00:00+00:00"
    assert runtime.load(store.previous).signature.horizon == 7


def test_all_models_are_scored_on_the_same_windows(after: RetrainRuns) -> None:
    """Through td.evaluate on a task made by hand: judging begins where the split says, in the candidate's scale."""
    verdict = after.second
    panel = job(after.folder).load(SECOND)
    task = Task(panel, context=29, horizon=7, split=job(after.folder).cut(panel).split)
    assert verdict.n_windows == retraining.JUDGE - retraining.HORIZON + 1 == len(task.test)
    from tsdistill.evaluation import evaluate

    for name, place in (("candidate", "current"), ("incumbent", "previous")):
        model, _ = Store(after.folder / "store").load(place)
        assert evaluate(model, task, "test")["mse"] == pytest.approx(verdict.scores[name].mse, rel=1e-9)
    assert verdict.difference == pytest.approx(verdict.scores["candidate"].mse - verdict.scores["incumbent"].mse)
    assert verdict.scores["incumbent"].model == after.first.scores["candidate"].model


def test_training_and_selection_do_not_see_the_judging_windows(after: RetrainRuns, tmp_path: Path) -> None:
    df = retraining.frame()
    held_out = df["ds"] >= pd.Timestamp(str(after.first.judged_from))
    df.loc[held_out, ["load", "wind"]] = np.random.default_rng(7).normal(size=(int(held_out.sum()), 2)) * 1e3
    retraining.write_csv(tmp_path / "fresh.csv", df)
    verdict = run_job(job(tmp_path), as_of=FIRST)
    assert verdict.scores["candidate"].model == after.first.scores["candidate"].model
    assert verdict.data == after.first.data
    assert verdict.scores["candidate"].mse != after.first.scores["candidate"].mse


def test_every_verdict_is_in_the_history_and_in_its_run(after: RetrainRuns) -> None:
    store = after.folder / "store"
    assert Store(store).history() == after[1:]
    assert Verdict.from_file(store / "last-verdict.json") == after.backwards
    assert Verdict.from_file(store / str(after.first.run) / "verdict.json").decision == "kept"  # of the last run there
    assert Verdict.from_file(store / str(after.spoilt_first.run) / "verdict.json") == after.spoilt_first
    assert (store / str(after.first.run) / "recipe.toml").is_file()


def test_a_finished_run_is_not_trained_again(after: RetrainRuns, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TEACHER_BUILDER, "train", None)
    monkeypatch.setattr(PIPELINE, "distill", None)
    assert run_job(same_job(after, copy), as_of=SECOND).decision == "kept"


def test_data_that_ends_early_is_remarked(after: RetrainRuns, copy: Path) -> None:
    """As of a day without new rows: nothing is trained, and the verdict says how old the data is."""
    cut = retraining.frame().loc[lambda df: df["ds"] <= pd.Timestamp(SECOND, tz="UTC")]
    retraining.write_csv(copy / "fresh.csv", cut)
    verdict = run_job(same_job(after, copy, data=Source(path=str(copy / "fresh.csv"))), as_of="2024-01-17 12:00")
    assert "The data ends 1 days 01:00:00 before the time asked for." in verdict.notes


# --------------------------------------------------------------------------------------------------------------- gate
def losses(p_value: float | None, high: float | None) -> LossComparison:
    return LossComparison(0.0, None if high is None else -high, high, None, p_value, 5, 47, 47)


@pytest.mark.parametrize(
    ("gate", "candidate", "incumbent", "comparison", "decision", "word"),
    [
        (Gate(), 1.0, None, None, "promoted", "50 % below the seasonal naive"),
        (Gate(), 2.0, None, None, "kept", "does not beat"),
        (Gate(must_beat_naive=False), 3.0, None, None, "promoted", "50 % above the seasonal naive"),
        (Gate(), 1.0, 1.1, losses(0.4, 0.1), "promoted", "9.09 % below the incumbent's 1.1"),
        (Gate(), 1.0, 1.0, losses(1.0, 0.1), "promoted", "equal to the incumbent's"),
        (Gate(), 1.1, 1.0, losses(0.4, 0.1), "kept", "p = 0.4, within what chance does"),
        (Gate(), 1.0, 1.1, losses(None, None), "promoted", "too few windows to test the difference"),
        (Gate(), 2.5, 3.0, losses(0.01, -0.1), "kept", "though below the incumbent's 3"),
        (Gate(min_improvement=0.05), 0.96, 1.0, losses(0.01, 0.0), "kept", "the gate asks for 5 % below"),
        (Gate(min_improvement=0.05), 0.94, 1.0, losses(0.01, 0.0), "promoted", "beyond chance"),
        (Gate(max_p_value=0.05), 0.9, 1.0, losses(0.06, 0.0), "kept", "not beyond chance"),
        (Gate(max_p_value=0.05), 0.9, 1.0, losses(None, None), "kept", "not beyond chance"),
        (Gate(max_p_value=0.05), 0.9, 1.0, losses(0.04, 0.0), "promoted", "p = 0.04"),
        (Gate(margin=0.1), 1.01, 1.0, losses(0.5, 0.05), "promoted", "at most 0.05 worse, within the margin of 0.1"),
        (Gate(margin=0.1), 1.01, 1.0, losses(0.5, 0.2), "kept", "could be 0.2 worse, and the margin is 0.1"),
        (Gate(margin=0.1), 1.01, 1.0, losses(None, None), "kept", "cannot be tested on so few windows"),
    ],
)
def test_the_gate(
    gate: Gate, candidate: float, incumbent: float | None, comparison: Any, decision: str, word: str
) -> None:
    ruling = rule(gate, candidate=candidate, naive=2.0, incumbent=incumbent, comparison=comparison, first=False)
    assert (ruling.decision, word in ruling.reason) == (decision, True), ruling.reason


def test_nothing_is_kept_where_nothing_is_served() -> None:
    assert rule(Gate(), candidate=3.0, naive=2.0, first=True).decision == "rejected-first"


# ----------------------------------------------------------------------------------------- incumbents hard to compare
class Bench(NamedTuple):
    """A task cut by the toy job and a deployed ridge regression for it."""

    task: Task
    cut: Any
    model: Deployed


@pytest.fixture(scope="module")
def bench(after: RetrainRuns) -> Bench:
    panel = job(after.folder).load(SECOND)
    cut = job(after.folder).cut(panel)
    task = Task(panel, context=29, horizon=7, split=cut.split)
    model, _ = Store(after.folder / "store").load("current")
    return Bench(task, cut, model)


def served(model: Deployed, **changes: Any) -> Served:
    return Served("models/x", model, {"seen_until": "2024-01-13T06:00:00+00:00", **changes})


def shaped(model: Deployed, **changes: Any) -> Deployed:
    return dataclasses.replace(model, signature=model.signature.replace(**changes))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"horizon": 11}, "`horizon` must be the model's 11 steps"),
        ({"channels": ("wind", "load")}, "`channels` must be the model's ['wind', 'load']"),
        ({"frequency": "15min"}, "it forecasts steps of 15min, the data has steps of h"),
        ({"context": 337}, "fewer than context + horizon = 344"),
    ],
)
def test_an_incumbent_of_another_shape_is_kept(bench: Bench, change: dict[str, Any], word: str) -> None:
    ruling = judge(Gate(), bench.task, bench.cut, bench.model, served(shaped(bench.model, **change)))
    assert ruling["decision"] == "kept"
    assert word in ruling["reason"]
    assert "another store" in ruling["reason"]
    assert set(ruling["scores"]) == {"candidate", "seasonal naive"}


def test_an_incumbent_with_a_longer_context_is_scored_on_the_same_windows(bench: Bench) -> None:
    longer = Task(bench.task.panel, context=47, horizon=7, split=bench.task.split)
    incumbent = export(train(LinearConfig(), longer), longer)
    ruling = judge(Gate(), bench.task, bench.cut, bench.model, served(incumbent))
    alone = judge(Gate(), bench.task, bench.cut, bench.model, Served())
    assert ruling["n_windows"] == alone["n_windows"] == len(bench.task.test)
    assert ruling["scores"]["candidate"].mse == pytest.approx(alone["scores"]["candidate"].mse, rel=1e-12)
    assert ruling["scores"]["incumbent"].mse != ruling["scores"]["candidate"].mse
    assert ruling["p_value"] is not None


def other(model: Deployed) -> Deployed:
    """The same forecasts under another digest."""
    return dataclasses.replace(model, isolate=True)


@pytest.mark.parametrize(
    ("details", "decision", "word"),
    [
        ({}, "promoted", "equal to the incumbent's"),
        ({"seen_until": None}, "kept", "does not say until when it has seen data"),
        ({"seen_until": "2024-01-14T07:00:00+00:00"}, "kept", "has seen these windows"),
        ({"seen_until": "2024-01-14T06:00:00+00:00"}, "promoted", "equal to"),
        ({"seen_until": "2024-01-14T06:00:00"}, "promoted", "equal to"),
    ],
)
def test_an_incumbent_that_may_have_seen_the_windows_is_kept(
    bench: Bench, details: dict[str, Any], decision: str, word: str
) -> None:
    ruling = judge(Gate(), bench.task, bench.cut, other(bench.model), served(bench.model, **details))
    assert (ruling["decision"], word in ruling["reason"]) == (decision, True), ruling["reason"]


@pytest.mark.parametrize(("until", "n_notes"), [("2024-01-14T06:00:00+00:00", 0), ("2024-01-14T07:00:00+00:00", 1)])
def test_windows_that_judged_the_incumbent_before_are_remarked(bench: Bench, until: str, n_notes: int) -> None:
    ruling = judge(Gate(), bench.task, bench.cut, other(bench.model), served(bench.model, judged_until=until))
    assert len([note for note in ruling["notes"] if "favours it a little" in note]) == n_notes


def test_an_incumbent_that_forecasts_no_numbers_is_replaced(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = other(bench.model)
    monkeypatch.setattr(broken.predictor, "run", lambda context: np.full((len(context), 7, 2), np.nan, np.float32))
    ruling = judge(Gate(), bench.task, bench.cut, bench.model, served(broken))
    assert ruling["decision"] == "promoted"
    assert "There was no usable incumbent" in ruling["reason"]
    assert "The incumbent cannot be used" in ruling["notes"][0]


def test_a_damaged_incumbent_is_replaced_and_not_gone_back_to(after: RetrainRuns, copy: Path) -> None:
    graph = copy / "store" / "current" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    before = os.readlink(copy / "store/.live/previous")
    verdict = run_job(same_job(after, copy), as_of=SECOND)
    assert verdict.decision == "promoted"
    assert "The incumbent cannot be loaded" in verdict.notes[0]
    assert served_digest(copy / "store") == verdict.scores["candidate"].model
    assert os.readlink(copy / "store/.live/previous") == before


# ----------------------------------------------------------------------------------------------------------- roll back
def test_rolling_back_swaps_and_swaps_again(after: RetrainRuns, copy: Path) -> None:
    store = copy / "store"
    verdict = rollback(store)
    assert (verdict.decision, served_digest(store)) == ("rolled-back", after.first.scores["candidate"].model)
    assert str(after.first.current) in verdict.reason
    assert Store(store).history()[-1] == verdict == Verdict.from_file(store / "last-verdict.json")
    assert rollback(store).current == after.second.current
    assert served_digest(store) == after.second.scores["candidate"].model


def test_a_model_rolled_back_by_hand_is_not_promoted_again(after: RetrainRuns, copy: Path) -> None:
    rollback(copy / "store")
    verdict = run_job(same_job(after, copy, gate=Gate(margin=0.5)), as_of=SECOND)
    assert (verdict.decision, "rolled back by hand" in verdict.reason) == ("kept", True)
    assert served_digest(copy / "store") == after.first.scores["candidate"].model


def test_a_job_does_not_promote_over_a_model_it_has_not_judged(
    after: RetrainRuns, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody rolls back while the job is judging, a model passes its gate, and is not promoted all the same."""
    store, fine = copy / "store", judge

    def meanwhile(*args: Any) -> dict[str, Any]:
        ruling = fine(*args)
        rollback(store)
        return {**ruling, "decision": "promoted"}

    monkeypatch.setattr("tsdistill.retrain.runner.judge", meanwhile)
    verdict = run_job(same_job(after, copy), as_of=SECOND)
    assert (verdict.decision, "changed by hand" in verdict.reason) == ("kept", True)
    assert served_digest(store) == after.first.scores["candidate"].model
    assert Store(store).history()[-1] == verdict


def test_there_must_be_something_to_go_back_to(after: RetrainRuns, copy: Path, tmp_path: Path) -> None:
    Store(tmp_path / "new", create=True)
    with pytest.raises(OrderError, match="has no previous model to go back to"):
        rollback(tmp_path / "new")
    with pytest.raises(ArtifactError, match=r"is no store of retrained models: it has no store\.json"):
        rollback(tmp_path)
    graph = copy / "store" / "previous" / "model.onnx"
    graph.write_bytes(b"")
    with pytest.raises(ArtifactError, match="must have the digest"):
        rollback(copy / "store")
    assert served_digest(copy / "store") == after.second.scores["candidate"].model


# ---------------------------------------------------------------------------------------------------------------- store
STEPS = ("symlink", "rename", "replace", "fsync", "write", "mkdir")


class Stop(BaseException):
    """A kill, as far as the code can see: nothing after it runs."""


@pytest.mark.parametrize("error", [Stop(), OSError(errno.ENOSPC, "No space left on device")], ids=["kill", "full disk"])
def test_stopped_at_any_step_the_store_serves_the_old_model_or_the_new_one(
    after: RetrainRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """A promotion is cut off before its first, second, third ... call of the system, until one gets through."""
    model, _ = Store(after.folder / "store").load("current")
    old, new = model, other(model)
    verdict = after.second.replace(run=None)
    n_steps, outcomes = 0, set()
    while True:
        store = Store(tmp_path / str(n_steps) / "store", create=True)
        for model, name, over in ((new, f"0-{new.digest}", None), (old, f"1-{old.digest}", f"models/0-{new.digest}")):
            store.promote(model, name, over=over, metrics={}, verdict=verdict)
        left = n_steps

        def cut_off(real: Any, *args: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise error
            return real(*args, **options)

        over, finished = f"models/1-{old.digest}", False
        with monkeypatch.context() as patch:
            for step in STEPS:
                patch.setattr(os, step, functools.partial(cut_off, getattr(os, step)))
            try:
                store.promote(new, f"2-{new.digest}", over=over, metrics={}, verdict=verdict.replace(time="later"))
                finished = True
            except (Stop, OSError):
                pass
        current, previous = (os.readlink(store.folder / ".live" / which) for which in ("current", "previous"))
        links = (current.split("/")[-1][0], previous.split("/")[-1][0])
        assert links in {("1", "0"), ("2", "1")}
        outcomes.add(links)
        for path in (store.current, store.previous):
            assert runtime.load(path).signature.context == 29
        with store.locked():  # the next job mends: what is served and what the history says agree
            pass
        assert store.history()[-1].current == os.readlink(store.folder / ".live/current").removeprefix("../../")
        assert not [*store.folder.glob(".live.new-*"), *store.folder.glob("*.part")]
        assert not list(store.folder.glob(".generations/.new-*"))
        if finished:
            break
        n_steps += 1
    assert n_steps > 10
    assert outcomes == {("1", "0"), ("2", "1")}


def test_old_runs_models_and_generations_are_removed(after: RetrainRuns, copy: Path) -> None:
    store = Store(copy / "store")
    for _ in range(5):
        store.roll_back()
    model, _ = store.load("current")
    store.promote(other(model), f"9-{other(model).digest}", over=store.served(), metrics={}, verdict=after.second)
    leads = [os.readlink(store.folder / ".live" / which).removeprefix("../../") for which in ("current", "previous")]
    (store.folder / ".trash").mkdir()
    store.tidy(keep_runs=2)
    assert len(list((store.folder / "runs").iterdir())) == 2
    assert len(list((store.folder / ".generations").iterdir())) == 3
    assert {path.name for path in (store.folder / "models").iterdir()} >= {Path(lead).name for lead in leads}
    assert not (store.folder / ".trash").exists()
    for path in (store.current, store.previous):
        assert runtime.load(path).signature.context == 29


def test_a_torn_line_in_the_history_does_not_tear_the_next(tmp_path: Path, after: RetrainRuns) -> None:
    store = Store(tmp_path / "store", create=True)
    (store.folder / "history.jsonl").write_text('{"decision": "ke')
    store.record(after.first)
    assert json.loads((store.folder / "history.jsonl").read_text().splitlines()[-1])["decision"] == "promoted"


@pytest.mark.parametrize("other", ["file", "folder with things"])
def test_a_store_takes_no_folder_of_others(tmp_path: Path, other: str) -> None:
    place = tmp_path / "taken"
    if other == "file":
        place.write_text("mine")
    else:
        (place / "runs").mkdir(parents=True)
    with pytest.raises(ArtifactError, match="Name another folder"):
        Store(place, create=True)


def test_of_two_jobs_one_runs(after: RetrainRuns, copy: Path) -> None:
    """Another process holds the lock; killed with -9, it does not hold it any more."""
    code = (
        f"import fcntl, time\nf = open({str(copy / 'store' / '.lock')!r}, 'a')\n"
        "fcntl.flock(f, fcntl.LOCK_EX)\nprint('held', flush=True)\ntime.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == "held\n"
        history = (copy / "store" / "history.jsonl").read_bytes()
        with pytest.raises(OrderError, match="Another job is retraining"):
            run_job(same_job(after, copy), as_of=SECOND)
        assert (copy / "store" / "history.jsonl").read_bytes() == history
        assert rollback(copy / "store").decision == "rolled-back"  # an operator does not wait for a job
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
        other.stdout.close()
    assert run_job(same_job(after, copy), as_of=SECOND).decision == "kept"


# ----------------------------------------------------------------------------------------------------------- bad input
def written_job(folder: Path, text: str) -> Path:
    path = folder / "job.toml"
    path.write_text(text)
    return path


DATA = '[data]\npath = "fresh.csv"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["`store` must be given", "`data` must be given"]),
        ('store = ""\n' + DATA, ["`store` must", "at least 1 character"]),
        ('store = "s"\njugde = 5\n' + DATA, ["`jugde` is not a field of Job. Did you mean `judge`?"]),
        (
            'store = "s"\njudge = 23\n' + DATA,
            ["`judge` must be at least the recipe's horizon of 24 steps, got judge=23"],
        ),
        ('store = "s"\nvalidation = 5\njudge = 5\n' + DATA, ["`judge` must be", "`validation` must be"]),
        ('store = "s"\nkeep_runs = 0\nseed = -1\n' + DATA, ["2 problems", "`keep_runs` must", "`seed` must"]),
        ('store = "s"\nrecipe = "none.toml"\n' + DATA, ["Cannot read", "none.toml"]),
        ('store = "s"\nrecipe = 5\n' + DATA, ["`recipe` must"]),
        ('store = "s"\n' + DATA + "[recipe]\nteacher = 5\n", ["In recipe.teacher: "]),
        ('store = "s"\n' + DATA + "[recipe]\nschema_version = 9\n", ["`recipe.schema_version` must be 1"]),
        ('store = "s"\ndata = "postgresql://me:s3cret@host/db"\n', ["`data` must be a table"]),
        ('store = "s"\n[data]\nurl = ["postgresql://me:s3cret@host/db"]\nquery = "q"\n', ["`url` must be text"]),
        ('store = "s"\n[data]\nurl = "postgresql://me:s3cret@host/db"\n', ["`url` and `query` must be given together"]),
        ('store = "s"\n[data]\npath = "a"\nurl = "x://me:s3cret@host/db"\nquery = "q"\n', ["exactly one of dataset"]),
        (
            'store = "s"\n' + DATA + "[gate]\nmin_improvement = 1.0\n",
            ["In gate.min_improvement: `min_improvement` must be less than 1"],
        ),
        (
            'store = "s"\n' + DATA + "[gate]\nmargin = 0.1\nmin_improvement = 0.1\n",
            ["`margin` must not be given together"],
        ),
    ],
)
def test_a_bad_job_is_refused_with_every_problem(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Job.from_file(written_job(tmp_path, text))
    for word in [*words, "job.toml"]:
        assert word in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_paths_of_a_job_are_relative_to_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "my.toml").write_text('[data]\ndataset = "nyc-weather"\n[task]\nhorizon = 11\n')
    text = 'store = "../s"\nrecipe = "../my.toml"\n' + DATA
    monkeypatch.chdir("/")
    read = Job.from_file(written_job(tmp_path / "deep", text))
    assert Path(read.store).resolve() == tmp_path / "s"
    assert read.data == read.recipe.data == Source(path=str(tmp_path / "deep" / "fresh.csv"))
    assert read.recipe.task.horizon == 11
    assert Job.from_toml(read.to_toml()) == read


@pytest.mark.parametrize(
    ("as_of", "changes", "words"),
    [
        ("soon", {}, ["`stamp` must be a time, got stamp='soon'"]),
        ("1999-01-01", {}, ["must not lie before all data"]),
        (
            "2024-01-03",
            {},
            ["must have at least 148 rows", "(36 to train on, 59 to select by, 53 to judge by), got 49"],
        ),
        (None, {"data": Source(path="nowhere.csv")}, ["Cannot read nowhere.csv"]),
        (None, {"data": Source(path="{csv}", time="when")}, ["must name a column of the frame, got time='when'"]),
    ],
)
def test_data_that_cannot_be_used_ends_in_a_verdict_and_an_error(
    after: RetrainRuns, tmp_path: Path, as_of: str | None, changes: dict[str, Any], words: list[str]
) -> None:
    if "data" in changes:
        path = str(changes["data"].path).format(csv=after.folder / "fresh.csv")
        changes = {"data": changes["data"].replace(path=path)}
    with pytest.raises(DataError) as caught:
        run_job(same_job(after, tmp_path, **changes), as_of=as_of)
    verdict = Verdict.from_file(tmp_path / "store" / "last-verdict.json")
    assert (verdict.decision, verdict.error, verdict.reason) == ("failed", "DataError", str(caught.value))
    assert Store(tmp_path / "store").history() == (verdict,)
    for word in words:
        assert word in str(caught.value)


def test_data_without_stamps_is_refused(after: RetrainRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = Panel.from_frame(retraining.frame()[["load", "wind"]], time=None)
    monkeypatch.setattr(Source, "load", lambda self: bare)
    with pytest.raises(DataError, match="needs data with time stamps"):
        run_job(same_job(after, tmp_path))


def test_what_a_disk_refuses_is_an_artifact_error(
    after: RetrainRuns, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tsdistill.files.os.replace", full)
    with pytest.raises(ArtifactError, match=r"No space left on device\. Make room"):
        run_job(same_job(after, copy), as_of=SECOND)
    assert served_digest(copy / "store") == after.second.scores["candidate"].model


# --------------------------------------------------------------------------------------------------------------- shell
def shell(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The exit code of a command line."""
    monkeypatch.setattr(sys, "argv", ["tsdistill", *words])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    try:
        cli.main()
    except SystemExit as exit_:
        return int(exit_.code or 0)
    return 0


def test_a_job_prints_one_line(
    after: RetrainRuns, copy: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = copy / "job.json"
    path.write_text(same_job(after, copy).to_json())
    command = ("retrain", str(path), "--as-of", SECOND)
    assert shell(monkeypatch, *command) == 0
    out, err = capfd.readouterr()
    assert (len(out.splitlines()), err) == (1, "")
    assert out.startswith("kept (as of 2024-01-16T11:00:00+00:00): The candidate is the incumbent itself")
    assert shell(monkeypatch, *command, "--exit-code", "--json", "--quiet") == 3
    out, err = capfd.readouterr()
    assert (json.loads(out)["decision"], err) == ("kept", "")
    assert shell(monkeypatch, "rollback", str(copy / "store")) == 0
    assert capfd.readouterr().out.startswith("rolled-back: models/20240115T070000Z-")
    assert shell(monkeypatch, "rollback", str(copy)) == 5


def test_an_error_is_one_paragraph_and_an_exit_code(
    after: RetrainRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "job.json"
    path.write_text(same_job(after, tmp_path).to_json())
    assert shell(monkeypatch, "retrain", str(path), "--as-of", "never") == 4
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("error: `stamp` must be a time")
    assert shell(monkeypatch, "retrain", str(tmp_path / "none.toml")) == 2


# ------------------------------------------------------------------------------------------------------------- secrets
def everything_in(folder: Path) -> bytes:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return b"\n".join(str(path).encode() + path.read_bytes() for path in files)


PASSWORD = "tr0ub&dor/3"
DOWN = [
    "postgresql+psycopg://job:tr0ub%26dor%2F3@127.0.0.1:9/load",
    "postgresql+psycopg://127.0.0.1:9/load?user=job&password=tr0ub%26dor%2F3",
]


@pytest.mark.parametrize("url", DOWN)
@pytest.mark.parametrize("by_variable", [False, True])
def test_a_database_that_is_down_gives_one_clear_error_without_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], url: str, by_variable: bool
) -> None:
    monkeypatch.setenv("LOAD_DATABASE", url)
    url = "env:LOAD_DATABASE" if by_variable else url
    path = tmp_path / "job.toml"
    path.write_text(f'store = "store"\n[data]\nurl = "{url}"\nquery = "SELECT * FROM hourly ORDER BY ds"\n')
    assert shell(monkeypatch, "retrain", str(path)) == 4
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "Cannot read from postgresql+psycopg://127.0.0.1:9/load" in err
    output = everything_in(tmp_path / "store") + err.encode()
    for form in (PASSWORD, "tr0ub", "%2F3"):
        assert form.encode() not in output
    assert Store(tmp_path / "store").history()[0].error == "DataError"


@pytest.mark.postgres
@pytest.mark.parametrize("form", ["user:password", "?password="])
def test_a_job_from_a_database_leaves_its_password_nowhere(
    tmp_path: Path,
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    form: str,
) -> None:
    engine = sa.create_engine(postgres_url, poolclass=sa.NullPool)
    retraining.frame().to_sql("hourly", engine, index=False)
    address = sa.make_url(postgres_url)
    password = str(address.password)
    assert len(password) > 8
    if form == "?password=":
        query = {"user": str(address.username), "password": password}
        address = sa.URL.create(address.drivername, None, None, address.host, address.port, address.database, query)
    data = Source(url=address.render_as_string(hide_password=False), query="SELECT * FROM hourly ORDER BY ds")
    made = job(tmp_path, data=data)
    caplog.set_level(0)
    verdict = run_job(made, as_of=FIRST)
    assert verdict.decision == "promoted", verdict
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE hourly DROP COLUMN wind, ADD COLUMN wind text"))
    with pytest.raises(DataError) as caught:
        run_job(made, as_of=SECOND)
    written = made.to_toml()
    output = "".join([*capfd.readouterr(), caplog.text, str(caught.value), repr(made), written])
    assert password not in output
    assert password.encode() not in everything_in(tmp_path / "store")
    (tmp_path / "job.toml").write_text(written)
    if form == "user:password":
        # What was written cannot be run as it is, and says so.
        assert shell(monkeypatch, "retrain", str(tmp_path / "job.toml")) == 2
        assert "must hold its password, but it was struck out" in capfd.readouterr().err


# --------------------------------------------------------------------------------------------------------------- guide
def test_the_guides_job_files_and_commands_are_real(tmp_path: Path) -> None:
    text = GUIDE.read_text(encoding="utf-8")
    jobs = re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL)
    assert len(jobs) >= 2
    for block in jobs:
        assert Job.from_file(written_job(tmp_path, block)).store == str(tmp_path / tomllib.loads(block)["store"])
    options = {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in typer_commands().items()
    }
    commands = re.findall(r"tsdistill (retrain|rollback) ([^\n`|]*)", text)
    assert len(commands) >= 4
    for name, rest in commands:
        assert set(re.findall(r"--[a-z-]+", rest)) <= options[name]


def typer_commands() -> dict[str, Any]:
    import typer.main

    return dict(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]
