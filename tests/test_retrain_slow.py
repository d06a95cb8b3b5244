"""Retraining under kill -9 and on a full disk, with real processes."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests import retraining
from tsdistill import runtime
from tsdistill.retrain import Gate, Store

pytestmark = pytest.mark.slow

JOBS = """
    import sys
    from tsdistill.retrain import Job, run_job
    job = Job.from_file(sys.argv[1])
    print("ready", flush=True)
    for hour in range(int(sys.argv[2])):
        print(run_job(job, as_of=f"2024-01-16 {hour:02}:00").decision, flush=True)
"""

SWAPS = """
    import dataclasses, itertools, sys
    from tsdistill.artifacts import load
    from tsdistill.retrain import Store, Verdict
    store, model = Store(sys.argv[1]), load(sys.argv[2])
    models = [dataclasses.replace(model, isolate=bool(number % 2)) for number in range(2)]
    for number in itertools.count():
        if number % 3 == 2:
            store.roll_back()
        else:
            verdict = Verdict(decision="promoted", reason="A test.", time=str(number))
            with store.locked():
                chosen = models[number % 2]
                store.promote(chosen, f"{number}-{chosen.digest}", over=store.served(), metrics={}, verdict=verdict)
                store.tidy(keep_runs=1)
        if number == 0:
            print("ready", flush=True)
"""


def start(script: str, *arguments: str | Path | int) -> subprocess.Popen[str]:
    """A process that has imported everything, or has promoted its first model."""
    code = [sys.executable, "-W", "error", "-c", textwrap.dedent(script), *map(str, arguments)]
    process = subprocess.Popen(code, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def killed(process: subprocess.Popen[str], seconds: float, *, n_jobs: int = 0) -> tuple[str, str]:
    """The output of a process until it was killed, some seconds after it had finished some jobs."""
    assert process.stdout is not None
    for _ in range(n_jobs):
        assert process.stdout.readline() in ("promoted\n", "kept\n")
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    out, err = process.communicate()
    assert process.returncode == -signal.SIGKILL, err
    return out, err


def write_job(folder: Path) -> Path:
    """A job whose candidates are nearly always promoted, so that kills often meet a promotion."""
    retraining.write_csv(folder / "fresh.csv")
    path = folder / "job.json"
    path.write_text(retraining.job(folder, gate=Gate(margin=0.9), keep_runs=2).to_json())
    return path


def test_kill_minus_9_at_any_moment_leaves_what_is_served_whole(tmp_path: Path) -> None:
    path, place = write_job(tmp_path), random.Random(3)
    current = tmp_path / "store" / "current"
    n_served = 0
    for n_jobs in (0, 0, 1, 1, 1):
        killed(start(JOBS, path, 24), place.uniform(0.1, 4.0), n_jobs=n_jobs)
        if current.exists():
            n_served += 1
            assert runtime.verify(current)["n_windows"] > 0
    finished = start(JOBS, path, 3)
    out, err = finished.communicate()
    assert (finished.returncode, err) == (0, "")
    assert set(out.split()) <= {"promoted", "kept"}
    assert len(out.split()) == 3
    assert n_served >= 3
    history = Store(tmp_path / "store").history()
    served = [verdict for verdict in history if verdict.decision == "promoted"]
    assert served[-1].current == os.readlink(tmp_path / "store/.live/current").removeprefix("../../")


def test_kill_minus_9_while_links_are_swapped(tmp_path: Path) -> None:
    path, place = write_job(tmp_path), random.Random(5)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(JOBS), str(path), "1"], capture_output=True, text=True
    )
    assert done.stdout.split() == ["ready", "promoted"], done.stderr
    store = tmp_path / "swapped"
    Store(store, create=True)
    for _ in range(6):
        killed(start(SWAPS, store, tmp_path / "store" / "current"), place.uniform(0.05, 0.7))
        assert runtime.verify(store / "current")["n_windows"] > 0
        assert not (store / "previous").exists() or runtime.verify(store / "previous")["n_windows"] > 0
    with Store(store).locked():
        assert len(Store(store).history()) > 20
    assert Store(store).history()[-1].current == os.readlink(store / ".live/current").removeprefix("../../")


def test_a_reader_always_finds_a_whole_model(tmp_path: Path) -> None:
    """While another process promotes and rolls back as fast as it can."""
    path = write_job(tmp_path)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(JOBS), str(path), "1"], capture_output=True, text=True
    )
    assert done.stdout.split() == ["ready", "promoted"], done.stderr
    store = tmp_path / "swapped"
    Store(store, create=True)
    writer = start(SWAPS, store, tmp_path / "store" / "current")
    until, n_read = time.monotonic() + 60, 0
    while n_read < 200 and time.monotonic() < until:
        if (store / "current").exists():
            assert runtime.load(store / "current").signature.context == retraining.CONTEXT
            n_read += 1
    out, err = killed(writer, 0)
    assert (n_read, out, err) == (200, "", "")


def limited(path: Path, limit: int | None) -> subprocess.CompletedProcess[str]:
    """A job whose files may not grow beyond a limit, as on a disk that is full."""

    def small() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-m", "tsdistill.cli", "retrain", str(path), "--as-of", "2024-01-17"]
    return subprocess.run(command, capture_output=True, text=True, preexec_fn=small)


def test_a_full_disk_leaves_what_is_served_whole(tmp_path: Path) -> None:
    """The disk refuses a recipe, then a table of forecasts, then the history's line after the links were swapped."""
    path, store = write_job(tmp_path), tmp_path / "store"
    before = start(JOBS, path, 1)
    assert before.communicate()[0].split() == ["promoted"]
    served, history = os.readlink(store / ".live/current"), store / "history.jsonl"
    for limit in (400, 3000):
        done = limited(path, limit)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (5, "", 1), done.stderr
        assert "File too large" in done.stderr or "Free some space" in done.stderr
        assert os.readlink(store / ".live/current") == served
        assert runtime.verify(store / "current")["n_windows"] > 0
    history.write_text(history.read_text() + "\n" * (30000 - history.stat().st_size))
    done = limited(path, 30000)
    assert (done.returncode, "File too large" in done.stderr) == (5, True), done.stderr
    assert os.readlink(store / ".live/current") != served
    assert runtime.verify(store / "current")["n_windows"] > 0
    again = limited(path, None)
    assert (again.returncode, again.stderr) == (0, "")
    assert [verdict.decision for verdict in Store(store).history()][-2:] == ["promoted", "kept"]
