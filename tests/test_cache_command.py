"""The folder of teacher forecasts: what it holds, what is removed from it, and what is never touched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.test_cli import shell
from tsdistill import cli, files
from tsdistill.data import Batch, Task
from tsdistill.errors import ArtifactError, ConfigError
from tsdistill.models import Forecaster, MLPConfig
from tsdistill.teachers import CachedTeacher, cached, clean, keeping
from tsdistill.teachers.keeping import entry_key
from tsdistill.testing import toy_task

DAY = 86_400
SIZES = {"hidden.1": 1301, "forecast": 2003}


@pytest.fixture(scope="module")
def task() -> Task:
    return toy_task()


@pytest.fixture(scope="module")
def teacher(task: Task) -> Forecaster:
    return MLPConfig(width=5, depth=2, hidden=3).build(task.signature).eval()


def key(number: int) -> str:
    return entry_key(f"{number:016x}", f"{7 * number:016x}")


def lay(folder: Path, number: int, *, days: float = 0, names: tuple[str, ...] = ("forecast",)) -> Path:
    """An entry that was last used so many days ago."""
    folder.mkdir(exist_ok=True)
    (folder / f"{key(number)}.lock").touch()
    for name in names:
        path = folder / f"{key(number)}.{name}.npy"
        path.write_bytes(bytes(SIZES[name]))
        os.utime(path, (time.time() - days * DAY,) * 2)
    return folder


def test_what_a_teacher_said_is_listed_and_asked_again_when_it_is_gone(
    tmp_path: Path, task: Task, teacher: Forecaster
) -> None:
    cached_teacher = CachedTeacher(teacher, tmp_path)
    before = cached_teacher.outputs(task.train, {"hidden.1"})
    cached_teacher.outputs(task.validation)
    entries = cached(tmp_path)
    assert [entry.windows for entry in entries] == [task.validation.fingerprint, task.train.fingerprint]
    assert {entry.teacher for entry in entries} == {teacher.digest}
    assert entries[1].parts == ("forecast", "hidden.1")
    assert sum(entry.size_bytes for entry in entries) == sum(path.stat().st_size for path in tmp_path.glob("*.npy"))
    done = clean(tmp_path)
    assert (set(done.removed), done.kept, done.in_use, done.n_leftovers) == (set(entries), (), (), 0)
    assert (cached(tmp_path), list(tmp_path.iterdir())) == ([], [])
    # Who had opened it reads on, and who asks anew gets the same.
    batch = task.train.batch(torch.arange(7))
    again = cached_teacher.outputs(task.train, {"hidden.1"}).of(batch)
    assert torch.equal(before.of(batch).forecast, again.forecast)
    assert torch.equal(before.of(batch).hidden[1], again.hidden[1])


def test_a_digest_in_another_style_names_files_all_the_same(tmp_path: Path, task: Task, teacher: Forecaster) -> None:
    class Own:
        digest = "../my teacher, version 2"

        def forecast(self, batch: Batch) -> torch.Tensor:
            return teacher.forecast(batch)

    CachedTeacher(Own(), tmp_path / "inside").outputs(task.validation)
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]
    assert len(cached(tmp_path / "inside")) == 1


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        ({}, []),
        ({"max_bytes": 0}, []),
        ({"max_bytes": 2 * SIZES["forecast"]}, [3, 2]),
        ({"max_bytes": 2 * SIZES["forecast"] - 1}, [3]),
        ({"max_bytes": 10**6}, [3, 2, 1]),
        ({"unused_for": timedelta(days=3)}, [3, 2]),
        ({"unused_for": timedelta(hours=1)}, []),
        ({"unused_for": timedelta(days=31)}, [3, 2, 1]),
    ],
    ids=lambda value: str(value).replace("datetime.", "") if isinstance(value, dict) else str(len(value)),
)
def test_the_longest_unused_goes_first(tmp_path: Path, limits: dict[str, Any], left: list[int]) -> None:
    for number, days in ((2, 2.5), (1, 7), (3, 0.5)):
        lay(tmp_path, number, days=days)
    done = clean(tmp_path, **limits)
    assert [entry.key for entry in cached(tmp_path)] == [key(number) for number in left]
    assert len(done.removed) == 3 - len(left)
    assert done.freed_bytes == len(done.removed) * SIZES["forecast"]
    assert {entry.key for entry in done.kept} == {key(number) for number in left}
    assert sorted(path.name for path in tmp_path.glob("*.lock")) == sorted(f"{key(number)}.lock" for number in left)


def test_an_entry_that_is_asked_for_in_the_meantime_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay(tmp_path, 1, days=9)

    def lock_late(path: Path, *, timeout: float) -> files.Lock:
        os.utime(tmp_path / f"{key(1)}.forecast.npy")
        return files.lock(path, timeout=timeout)

    monkeypatch.setattr(keeping, "lock", lock_late)
    done = clean(tmp_path, unused_for=timedelta(days=3))
    assert (done.removed, len(done.kept), len(cached(tmp_path))) == ((), 1, 1)


def test_an_entry_is_as_old_as_its_youngest_part(tmp_path: Path) -> None:
    lay(tmp_path, 1, days=9, names=("hidden.1",))
    lay(tmp_path, 1, days=1)
    assert clean(tmp_path, unused_for=timedelta(days=2)).removed == ()
    (entry,) = cached(tmp_path)
    assert (entry.parts, entry.size_bytes) == (("forecast", "hidden.1"), sum(SIZES.values()))


STRANGE = [
    "notes.txt",
    f"{key(1)}.forecast.npz",
    f"{key(1)}.forecast.npy.bak",
    f"{key(1)}.FORECAST.npy",
    f"{key(1)}.lock.old",
    f"x{key(1)}.forecast.npy",
    f"{key(1).upper().replace('0', 'A')}.forecast.npy",
    f"{key(1)}.forecast.abc.part",
    "tmpab12cd34.part",
    "weights.npy",
]


def test_nothing_but_the_caches_own_files_is_touched(tmp_path: Path) -> None:
    folder, outside = lay(tmp_path / "cache", 1), tmp_path / "outside.npy"
    outside.write_bytes(b"mine")
    for name in STRANGE:
        (folder / name).write_bytes(b"mine")
        os.utime(folder / name, (0, 0))
    (folder / f"{key(2)}.forecast.npy").symlink_to(outside)
    (folder / f"{key(3)}.forecast.npy").mkdir()
    assert [entry.key for entry in cached(folder)] == [key(1)]
    clean(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*STRANGE, f"{key(2)}.forecast.npy", f"{key(3)}.forecast.npy"]
    )
    assert outside.read_bytes() == b"mine"
    (folder / f"{key(4)}.forecast.npy").write_bytes(b"4")
    (folder / f"{key(4)}.lock").symlink_to(outside)
    with pytest.raises(ArtifactError, match="is a link, which no cache makes"):
        clean(folder)
    assert (folder / f"{key(4)}.forecast.npy").exists()


def test_what_killed_runs_left_is_swept(tmp_path: Path) -> None:
    # As version 0.1 named them, and as they are named now.
    old, new = "forecast.abcd_123.part", f"forecast.npy.{'0123456789abcdef'}.part"
    for number, days, end in ((1, 2, old), (2, 0.5, old), (3, 2, new)):
        path = tmp_path / f"{key(number)}.{end}"
        path.write_bytes(bytes(101))
        os.utime(path, (time.time() - days * DAY,) * 2)
        (tmp_path / f"{key(number)}.lock").touch()
    (tmp_path / f"{key(5)}.lock").touch()
    lay(tmp_path, 3)
    done = clean(tmp_path, max_bytes=10**6)
    # Two old parts, a lock with its part and one that never got any; the young part may still be growing.
    assert (done.removed, done.n_leftovers, done.freed_bytes) == ((), 4, 2 * 101)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {f"{key(2)}.forecast.abcd_123.part"} | {
        f"{key(number)}.{end}" for number, end in ((2, "lock"), (3, "lock"), (3, "forecast.npy"))
    }


def test_a_part_that_is_being_written_is_named_after_its_entry(
    tmp_path: Path, task: Task, teacher: Forecaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    forecast = type(teacher).forecast

    def asked(self: Forecaster, batch: Batch) -> torch.Tensor:
        seen.extend(path.name for path in tmp_path.glob("*.part"))
        return forecast(self, batch)

    monkeypatch.setattr(type(teacher), "forecast", asked)
    CachedTeacher(teacher, tmp_path).outputs(task.train)
    (part,) = set(seen)
    (tmp_path / part).write_bytes(bytes(7))
    os.utime(tmp_path / part, (0, 0))
    assert clean(tmp_path, max_bytes=10**9).n_leftovers == 1


HOLD = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_what_another_process_holds_is_skipped_and_named(tmp_path: Path) -> None:
    folder = lay(lay(tmp_path / "cache", 1, days=5), 2, days=1)
    command = [sys.executable, "-c", HOLD, str(folder / f"{key(1)}.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == "held"
        done = shell("cache", folder, "--clear")
        assert (done.returncode, done.stderr) == (0, "")
        assert f"Left alone, in use: {key(1)}" in done.stdout
        assert [entry.key for entry in cached(folder)] == [key(1)]
        holder.communicate()
    assert [entry.key for entry in clean(folder).removed] == [key(1)]
    assert list(folder.iterdir()) == []


def test_the_shell_shows_a_table_that_fits_and_one_object(tmp_path: Path) -> None:
    folder = lay(lay(tmp_path, 1, names=("forecast", "hidden.1")), 2, days=40)
    lines = shell("cache", folder).stdout.splitlines()
    assert lines[0] == f"{folder}: 2 entries, 5.3 kB"
    assert max(map(len, lines[1:])) <= 80
    for word in (*key(1).split("-"), *key(2).split("-"), "hidden.1", "3.3 kB"):
        assert word in "\n".join(lines[1:])
    output = json.loads(shell("cache", folder, "--unused-for", 30, "--json").stdout)
    assert [entry["teacher"] for entry in output["removed"]] == [key(2).split("-")[0]]
    assert [entry["parts"] for entry in output["entries"]] == [["forecast", "hidden.1"]]
    assert (output["size_bytes"], output["freed_bytes"], output["in_use"]) == (
        sum(SIZES.values()),
        SIZES["forecast"],
        [],
    )


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_bytes": -1}, "`max_bytes` must be 0 or more, got max_bytes=-1"),
        ({"unused_for": timedelta(days=-1)}, "`unused_for` must be 0 or more"),
        ({"max_bytes": 1, "unused_for": timedelta(days=1)}, "must not be given together"),
    ],
    ids=["bytes", "days", "both"],
)
def test_limits_that_make_no_sense_are_refused(tmp_path: Path, limits: dict[str, Any], words: str) -> None:
    lay(tmp_path, 1)
    with pytest.raises(ConfigError, match=words):
        clean(tmp_path, **limits)
    assert len(cached(tmp_path)) == 1


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("none",), 5, "No such file"),
        (("file", "--clear"), 5, "Not a directory"),
        ((".", "--clear", "--max-bytes", "3"), 2, "Only one of --clear"),
        ((".", "--unused-for", "-3"), 2, "--unused-for"),
    ],
)
def test_the_shell_says_what_is_wrong(
    words: tuple[str, ...],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_bytes(b"no folder")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tsdistill", "cache", *words])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as left:
        cli.main()
    out, err = capfd.readouterr()
    assert (left.value.code, out) == (code, "")
    assert message in err
