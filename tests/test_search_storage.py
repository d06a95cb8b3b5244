"""Where studies are kept: addresses, journals and their locks, and errors without a password."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import optuna
import pytest

import tsdistill as td
from tests.test_search import states
from tests.test_search_claims import draw
from tsdistill.cli import main
from tsdistill.search import (
    create_study,
    run_trials,
)
from tsdistill.search.journals import JournalLock

PASSWORD = "geheim-7x"


@pytest.mark.parametrize(
    ("storage", "kind", "words"),
    [
        ("nonsense", td.errors.ConfigError, ["storage", "journal:FILE"]),
        (
            f"postgresql+psycopg://u:{PASSWORD}@host:port/base",
            td.errors.ConfigError,
            ["cannot be read", "postgresql+psycopg"],
        ),
        (f"oracle://u:{PASSWORD}@host/base", td.errors.ConfigError, ["'oracle'", "known kind"]),
        (f"mysql+asyncmy://u:{PASSWORD}@host/base", td.errors.UnsupportedError, ["driver", "tsdistill[mysql]"]),
        (f"mysql+pymysql://u:{PASSWORD}@127.0.0.1:1/b", td.errors.ArtifactError, ["127.0.0.1:1/b", "up"]),
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
    captured = capsys.readouterr()
    assert left.value.code == 5
    assert captured.out == ""
    assert captured.err.startswith("error: Cannot reach the storage")
    assert PASSWORD not in captured.err
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
    monkeypatch.setattr("tsdistill.search.journals.LEFT_BEHIND_SECONDS", 0.05)
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
