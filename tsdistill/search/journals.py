"""Journals: files that several processes on one machine keep a study in."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from tsdistill.errors import ArtifactError, ConfigError, must
from tsdistill.files import Lock, lock

JOURNAL = "journal:"
FIRST_BYTES = b'{"op_code":'
"""How every line of a journal begins."""

LEFT_BEHIND_SECONDS = 2.0
"""A link that nothing has touched for so long was left behind by a process that was killed."""


class JournalLock(JournalFileSymlinkLock):
    """Optuna's lock of a journal, behind one that the kernel lets go of when its holder is killed.

    Optuna's own is a link, which a killed process leaves behind: the others would wait for its grace period, or for
    ever where a relative path made the link point nowhere. Whoever has the kernel's lock knows that no living
    tsdistill process holds the link. Both are taken, so that plain Optuna may write to the same journal.
    """

    def __init__(self, path: Path) -> None:
        journal = os.path.abspath(path)
        self._kernel_lock = Path(f"{journal}.held")
        self._held: Lock
        self._link = Path(f"{journal}.lock")
        super().__init__(journal, grace_period=None)

    def acquire(self) -> bool:
        """Wait for both locks."""
        self._held = lock(self._kernel_lock)
        try:
            self._clear_away()
            return super().acquire()
        except BaseException:
            self._held.release()
            raise

    def release(self) -> None:
        """Let go of both."""
        try:
            super().release()
        finally:
            self._held.release()

    def _clear_away(self) -> None:
        """Remove a link that stays: plain Optuna holds one for milliseconds."""
        seen: tuple[int, int] | None = None
        since = time.monotonic()
        while True:
            try:
                status = self._link.lstat()
            except FileNotFoundError:
                return
            if (status.st_ino, status.st_mtime_ns) != seen:
                seen = (status.st_ino, status.st_mtime_ns)
                since = time.monotonic()
            elif time.monotonic() - since > LEFT_BEHIND_SECONDS:
                self._link.unlink(missing_ok=True)
                return
            time.sleep(0.01)


def open_journal(path: Path) -> BaseStorage:
    """A journal file as a storage, made if it is not there and mended if it was cut off."""
    if not path.name or path.is_dir():
        raise ConfigError(
            must("storage", "name a file after journal:", f"{JOURNAL}{path}", "Such as journal:study.log")
        )
    _refuse_irregular(path)
    try:
        backend = JournalFileBackend(str(path), lock_obj=JournalLock(path))
        _mend(path)
    except ArtifactError:
        raise
    except OSError as error:
        raise ArtifactError(f"Cannot open the journal {path}: {error.strerror}. Name another file.") from None
    try:
        return JournalStorage(backend)
    except Exception as error:
        # Optuna checks nothing that it reads: a foreign file shows as any error at all.
        raise ArtifactError(
            f"{path} is not a journal that can be read ({type(error).__name__}: {error}). Name another file, or "
            "restore it."
        ) from None


LONGEST_LINE = 64 * 2**20
"""Bytes of one entry of a journal, at most."""


def _refuse_irregular(path: Path) -> None:
    """ArtifactError for a FIFO, a device or the like: opening one could wait for ever."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise ArtifactError(f"Cannot open {path}: {error.strerror}. Name another file.") from None
    if not stat.S_ISREG(mode):
        raise ArtifactError(f"{path} is not a regular file, so that no study can be in it. Name another file.")


def _mend(path: Path) -> None:
    """Cut off a last line that a full disk or a kill left half-written: the next one would be glued to it."""
    with path.open("rb") as file:
        start = file.read(len(FIRST_BYTES))
        file.seek(max(file.seek(0, os.SEEK_END) - 1, 0))
        whole = file.read() in (b"", b"\n")
    if not start.startswith(FIRST_BYTES[: len(start)]):
        raise ArtifactError(f"{path} is not a journal of studies, and is left as it is. Name another file.")
    if whole:
        return
    lock = JournalLock(path)
    lock.acquire()
    try:
        with path.open("rb") as file:
            begin = max(file.seek(0, os.SEEK_END) - LONGEST_LINE, 0)
            file.seek(begin)
            end = file.read().rfind(b"\n")
        if begin and end < 0:
            raise ArtifactError(f"{path} ends with more than {LONGEST_LINE} bytes that are no line. Restore it.")
        os.truncate(path, begin + end + 1)
    finally:
        lock.release()
