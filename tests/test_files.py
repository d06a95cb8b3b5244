"""Durable writes: whole files with the umask's mode, lines that never tear, locks that several users can share."""

from __future__ import annotations

import errno
import os
import re
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tsdistill
from tsdistill import files
from tsdistill.data.download import download
from tsdistill.files import AtomicWriter, Busy, append_line, lock, replace_link, write_atomic, write_new
from tsdistill.models import MLPConfig
from tsdistill.recipe import Workspace
from tsdistill.report.page import put
from tsdistill.retrain import Store
from tsdistill.teachers import CachedTeacher
from tsdistill.teachers.writing import write_forecasts
from tsdistill.testing import toy_task
from tsdistill.training import history

PACKAGE = Path(tsdistill.__file__).parent


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask() -> Iterator[Callable[[int], None]]:
    """Sets the umask of this process until the end of the test."""
    before = os.umask(0o022)

    def change(value: int) -> None:
        os.umask(value)

    change(before)
    yield change
    change(before)


def streamed(path: Path) -> None:
    with AtomicWriter(path) as writer:
        writer.file.write(b"1")


def locked(path: Path) -> None:
    lock(path, timeout=0).release()


WRITERS: dict[str, Callable[[Path], object]] = {
    "atomic": lambda path: write_atomic(path, "1"),
    "new": lambda path: write_new(path, b"1"),
    "streamed": streamed,
    "line": lambda path: append_line(path, "1"),
    "lock": locked,
    "page": lambda path: put("<p>1</p>", path, "report"),
    "history": lambda path: history.append(path, {"epoch": 1}),
}


# ----------------------------------------------------------------------------------------------------------- modes
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_a_file_has_the_mode_that_the_umask_gives(
    writer: str, mask: int, expected: int, tmp_path: Path, umask: Callable[[int], None]
) -> None:
    umask(mask)
    WRITERS[writer](tmp_path / "file")
    assert oct(mode(tmp_path / "file")) == oct(expected)
    assert os.umask(mask) == mask  # nobody changed it


def test_what_is_shared_can_be_used_by_the_group(tmp_path: Path, umask: Callable[[int], None]) -> None:
    """Everything that the package puts into a folder which several users share, under the umask of such a group."""
    umask(0o002)
    task = toy_task()
    teacher = MLPConfig(width=5, depth=1).build(task.signature).eval()
    CachedTeacher(teacher, tmp_path / "cache").outputs(task.train)
    write_forecasts(teacher, task, tmp_path / "forecasts.csv")
    write_forecasts(teacher, task, tmp_path / "forecasts.csv.gz")
    workspace = Workspace(tmp_path / "out")
    with workspace.locked():
        workspace.log(stage="student")
    with Store(tmp_path / "store", create=True).locked():
        pass
    source = tmp_path / "source.csv"
    source.write_bytes(b"1")
    download(source.as_uri(), tmp_path / "data" / "set.csv", check=lambda content: content, remedy="None.")
    paths = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in paths} >= {".npy", ".lock", ".csv", ".gz", ".jsonl", ".json"}
    assert {path.name: oct(mode(path)) for path in paths if mode(path) != 0o664} == {}


def test_tables_written_to_an_open_file_read_back(tmp_path: Path) -> None:
    task = toy_task()
    teacher = MLPConfig(width=5, depth=1).build(task.signature).eval()
    for name in ("a.csv", "a.csv.gz", "a.parquet"):
        write_forecasts(teacher, task, tmp_path / name)
    plain, gzipped = pd.read_csv(tmp_path / "a.csv"), pd.read_csv(tmp_path / "a.csv.gz", compression="gzip")
    pd.testing.assert_frame_equal(plain, gzipped)
    parquet = pd.read_parquet(tmp_path / "a.parquet")
    np.testing.assert_allclose(parquet["load"].to_numpy(), plain["load"].to_numpy())
    assert sorted(os.listdir(tmp_path)) == ["a.csv", "a.csv.gz", "a.parquet"]


# ------------------------------------------------------------------------------------------------------- atomicity
def test_a_reader_sees_the_old_content_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = {b"a" * 100_003, b"b" * 200_003}
    write_atomic(path, min(contents))
    done = threading.Event()

    def write() -> None:
        try:
            for _ in range(50):
                for content in sorted(contents):
                    write_atomic(path, content)
        finally:
            done.set()

    thread = threading.Thread(target=write)
    thread.start()
    while not done.is_set():
        assert path.read_bytes() in contents
    thread.join()
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")], ids=str)
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_an_exception_leaves_the_old_content_and_nothing_else(
    step: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise error

    path = tmp_path / "file"
    write_atomic(path, "old")
    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(type(error)):
            write_atomic(path, "new")
        if step == "fsync":
            with pytest.raises(type(error)):
                write_new(tmp_path / "another", b"new")
    assert (path.read_text(), os.listdir(tmp_path)) == ("old", ["file"])


def test_an_exception_in_the_block_discards_what_was_streamed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")

    def fail(writer: AtomicWriter) -> None:
        writer.file.write(b"new")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), AtomicWriter(path) as writer:
        fail(writer)
    assert (path.read_text(), os.listdir(tmp_path)) == ("old", ["file"])


def test_discarding_after_a_commit_changes_nothing(tmp_path: Path) -> None:
    writer = AtomicWriter(tmp_path / "file")
    writer.file.write(b"new")
    writer.commit()
    writer.discard()
    assert (tmp_path / "file").read_text() == "new"


def test_a_missing_folder_is_the_systems_own_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "none" / "file", "1")
    with pytest.raises(FileNotFoundError):
        append_line(tmp_path / "none" / "file", "1")


def test_a_new_file_never_replaces_another(tmp_path: Path) -> None:
    write_new(tmp_path / "file", b"old")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_link_is_led_elsewhere_or_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_link(tmp_path / "link", "one")
    replace_link(tmp_path / "link", "two")

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        replace_link(tmp_path / "link", "three")
    assert (os.readlink(tmp_path / "link"), os.listdir(tmp_path)) == ("two", ["link"])


def test_folders_that_cannot_be_flushed_are_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(code: int) -> Callable[[int], None]:
        def fsync(handle: int) -> None:
            if stat.S_ISDIR(os.fstat(handle).st_mode):
                raise OSError(code, os.strerror(code))

        return fsync

    monkeypatch.setattr(os, "fsync", refuse(errno.EINVAL))
    write_atomic(tmp_path / "file", "1")
    monkeypatch.setattr(os, "fsync", refuse(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        write_atomic(tmp_path / "file", "2")


# ------------------------------------------------------------------------------------------------------------ lines
def test_lines_follow_each_other_and_one_after_a_torn_line_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for line in ("one", "two", "drei \u00fc"):
        append_line(path, line)
    assert path.read_text(encoding="utf-8").splitlines() == ["one", "two", "drei \u00fc"]
    path.write_text("one\ntw")
    append_line(path, "three")
    append_line(path, "four")
    assert path.read_text() == "one\ntw\nthree\nfour\n"


def test_threads_that_append_together_lose_no_line(tmp_path: Path) -> None:
    path = tmp_path / "log"

    def work(name: str) -> None:
        for number in range(40):
            append_line(path, f"{name}{number}" + "x" * 997)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [line.rstrip("x") for line in path.read_text().splitlines()]
    assert sorted(lines) == sorted(f"{name}{number}" for name in "abc" for number in range(40))


# ------------------------------------------------------------------------------------------- a full disk, and kills
def run(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


FULL = """
import resource, sys
from tsdistill.files import AtomicWriter, append_line, write_atomic, write_new

folder, size = sys.argv[1], 4096
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))  # Python ignores the signal, so that writing is an error

def streamed():
    with AtomicWriter(folder + "/file") as writer:
        for _ in range(100):
            writer.file.write(b"x" * 997)

attempts = {
    "atomic": lambda: write_atomic(folder + "/file", "x" * 99_991),
    "streamed": streamed,
    "new": lambda: write_new(folder + "/another", b"x" * 99_991),
    "line": lambda: append_line(folder + "/log", "x" * 99_991),
}
for name, attempt in attempts.items():
    try:
        attempt()
    except OSError as error:
        print(name, error.errno is not None)
"""


def test_a_disk_without_room_is_one_error_and_the_old_state(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "log").write_text("one\n")
    process = run(FULL, tmp_path)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.split() == ["atomic", "True", "streamed", "True", "new", "True", "line", "True"]
    assert sorted(os.listdir(tmp_path)) == ["file", "log"]
    assert ((tmp_path / "file").read_text(), (tmp_path / "log").read_text()) == ("old", "one\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_line_on_a_full_device_is_one_error() -> None:
    with pytest.raises(OSError, match="No space left on device"):
        append_line("/dev/full", "one")


def test_a_line_cut_short_by_a_full_disk_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    append_line(tmp_path / "log", "one")
    monkeypatch.setattr(os, "write", lambda handle, content: write(handle, content[:2]))
    with pytest.raises(OSError, match="No space left on device"):
        append_line(tmp_path / "log", "two")
    assert (tmp_path / "log").read_text() == "one\n"


KILLED = """
import sys, time
from tsdistill.files import AtomicWriter

with AtomicWriter(sys.argv[1]) as writer:
    writer.file.write(b"new" * 99_991)
    writer.file.flush()
    print("written", flush=True)
    time.sleep(60)
"""


def test_kill_minus_nine_in_the_middle_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")
    with run(KILLED, path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert path.read_text() == "old"
    (left,) = (name for name in os.listdir(tmp_path) if name != "file")
    assert re.fullmatch(rf"file\.{files.TOKEN}{re.escape(files.PARTIAL)}", left)


# ------------------------------------------------------------------------------------------------------------ locks
HOLD = """
import sys
from tsdistill.files import lock

with lock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_is_held_until_its_holder_ends(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with run(HOLD, path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        for timeout in (0, 0.2):
            with pytest.raises(Busy):
                lock(path, timeout=timeout)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    with lock(path, timeout=5):
        pass


def test_an_error_in_the_block_frees_the_lock(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), lock(tmp_path / "lock", timeout=0):
        raise ZeroDivisionError
    held = lock(tmp_path / "lock", timeout=0)
    with pytest.raises(Busy):
        lock(tmp_path / "lock", timeout=0)
    held.release()
    lock(tmp_path / "lock", timeout=0).release()


# ---------------------------------------------------------------------------------------------------- the one home
DURABLE = re.compile(
    r"os\.replace|fsync|mkstemp|NamedTemporaryFile|umask\(|\bFileLock|\bfilelock|open\([^)]*[\"'][wxa]b?\+?[\"']"
)


def test_nothing_else_in_the_package_writes_durably() -> None:
    places = {
        f"{path.relative_to(PACKAGE)}:{number}"
        for path in PACKAGE.rglob("*.py")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if DURABLE.search(line) and path != PACKAGE / "files.py"
    }
    assert places == set()


def test_the_search_for_others_sees_them() -> None:
    for line in (
        "os.replace(a, b)",
        "os.fsync(1)",
        "tempfile.mkstemp()",
        "os.umask(0)",
        'open(path, "w")',
        "FileLock(a)",
    ):
        assert DURABLE.search(line), line
    assert len(DURABLE.findall((PACKAGE / "files.py").read_text())) > 8
