"""The store: rolling back, being stopped at any step, and being tidied."""

from __future__ import annotations

import errno
import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.retraining import (
    SECOND,
    RetrainRuns,
    same_job,
    served_digest,
    without_controls,
)
from tests.test_retrain import other
from tsdistill import runtime
from tsdistill.errors import ArtifactError, OrderError
from tsdistill.retrain import Gate, Store, Verdict, rollback, run_job
from tsdistill.retrain.judging import judge


@pytest.fixture(scope="module", autouse=True)
def _no_controls() -> Iterator[None]:
    with without_controls():
        yield


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
