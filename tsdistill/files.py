"""The only place that writes durably: whole files, streamed files, lines, links, and locks between processes.

A file appears whole: written beside its target, flushed to the disk, renamed, and the folder flushed as well. After a
crash, a `kill -9` or a full disk a reader finds the old content or the new one. Every file gets the mode that the
umask of the process asks for, so that a shared folder stays shared.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import filelock

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

PARTIAL = ".part"
"""How the name of an unfinished file ends; what a killed process leaves can be recognised by it."""

TOKEN = "[0-9a-f]{16}"
"""What stands between the target's name and `PARTIAL`, as a regular expression."""

Busy = filelock.Timeout
"""Another process holds the lock."""

_MODE = 0o666
"""Before the umask takes its share."""

_CANNOT_FLUSH_FOLDERS = {errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM}
"""What file systems without this service answer, and folders that may be written to but not read."""


def write_atomic(path: str | Path, content: bytes | str) -> None:
    """Replace a file in one atomic step, or make it; text is written as UTF-8.

    Args:
        path: The file; its folder must be there.
        content: All of it.

    Raises:
        OSError: The disk refuses; the file is as it was and nothing else is left.

    Example:
        >>> write_atomic("settings.toml", "width = 32")
        >>> Path("settings.toml").read_text()
        'width = 32'
    """
    with AtomicWriter(path) as writer:
        writer.file.write(content.encode() if isinstance(content, str) else content)


def write_new(path: str | Path, content: bytes) -> None:
    """Write a file that is not there yet and flush it, for a folder that nobody reads before it is renamed.

    Raises:
        OSError: The file is there, or the disk refuses; nothing half-written is left.
    """
    path = Path(path)
    with open(path, "xb") as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            _remove(path)
            raise


class AtomicWriter:
    """A file that is written piece by piece beside its target, and takes its place when it is whole.

    As a context manager it commits at the end of the block and discards when the block raises. Use it for what does not
    fit into memory, or for libraries that write to an open file.

    Args:
        path: The target; its folder must be there.

    Attributes:
        file: The open binary file to write to.
        partial: Path of the unfinished file.

    Raises:
        OSError: The disk refuses.

    Example:
        >>> with AtomicWriter("table.csv") as writer:
        ...     _ = writer.file.write(b"ds,y")
        >>> Path("table.csv").read_text()
        'ds,y'
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.partial = self.path.with_name(f"{self.path.name}.{secrets.token_hex(8)}{PARTIAL}")
        # Not a tempfile: those are for their owner alone, whatever the umask says.
        self.file: IO[bytes] = open(self.partial, "xb")  # noqa: SIM115 - closed by commit and discard

    def commit(self) -> None:
        """Put the file in its place; when that fails it is discarded."""
        try:
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()
            os.replace(self.partial, self.path)
        except BaseException:
            self.discard()
            raise
        flush_folder(self.path.parent)

    def discard(self) -> None:
        """Take the unfinished file away; the target is as it was."""
        with contextlib.suppress(OSError):  # closing writes what is buffered, and a full disk refuses that again
            self.file.close()
        _remove(self.partial)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.commit()
        else:
            self.discard()


def append_line(path: str | Path, line: str) -> None:
    """Add a line to a file in one write and flush it; the file is made if it is not there.

    After a line without an end, which a killed process or a full disk may have left, a new line is begun.

    Args:
        path: The file; its folder must be there.
        line: Without the line break.

    Raises:
        OSError: The disk refuses; what was written of the line is taken back.

    Example:
        >>> append_line("log.jsonl", '{"epoch": 1}')
        >>> append_line("log.jsonl", '{"epoch": 2}')
        >>> len(Path("log.jsonl").read_text().splitlines())
        2
    """
    content = line.encode() + b"\n"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, _MODE)
    try:
        _wait_for_others(handle)
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":
            content = b"\n" + content
        try:
            if os.write(handle, content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))
            os.fsync(handle)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(handle, size)
            raise
    finally:
        os.close(handle)
    if not size:
        flush_folder(Path(path).parent)


def replace_link(path: str | Path, target: str) -> None:
    """Make a symbolic link lead somewhere else in one atomic step.

    Args:
        path: The link; it is made if it is not there.
        target: Where it leads, relative to its folder or absolute.

    Raises:
        OSError: The disk refuses; the link is as it was.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}{PARTIAL}")
    os.symlink(target, partial)
    try:
        os.replace(partial, path)
    except OSError:
        _remove(partial)
        raise
    flush_folder(path.parent)


def move_folder(path: str | Path, to: str | Path) -> None:
    """Give a finished folder its name in one atomic step; what is in it was written durably before.

    Args:
        path: The folder, on the same disk.
        to: Its name; nothing is there, or an empty folder.

    Raises:
        OSError: The disk refuses; both are as they were.
    """
    flush_folder(path)
    os.replace(path, to)
    flush_folder(Path(to).parent)


def flush_folder(path: str | Path) -> None:
    """Make new, renamed and removed names in a folder durable, where the system can."""
    if os.name != "posix":
        return
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _CANNOT_FLUSH_FOLDERS:
            raise


class Lock:
    """A lock that is held until `release` or the end of a `with` block; the kernel drops it when the process dies.

    Made by `lock`.
    """

    def __init__(self, held: filelock.BaseFileLock) -> None:
        self._held = held

    def release(self) -> None:
        """Let others have it."""
        self._held.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def lock(path: str | Path, *, timeout: float | None = None) -> Lock:
    """Lock a file against other processes, and against other holders in this one.

    It is held when the function returns, so that an error of the caller's own can be raised for `Busy` alone.

    Args:
        path: The lock's file; it is made if it is not there, and everybody with the right to write to it can lock it.
        timeout: Seconds to wait; 0 tries once, None waits for ever.

    Returns:
        The held lock.

    Raises:
        Busy: Another holder had it all the time.
        OSError: The file cannot be opened.

    Example:
        >>> with lock("study.lock", timeout=0):
        ...     try:
        ...         lock("study.lock", timeout=0)
        ...     except Busy:
        ...         print("busy")
        busy
    """
    held = filelock.FileLock(path)  # without a mode, so that the umask gives it
    held.acquire(timeout=-1 if timeout is None else timeout)
    return Lock(held)


def _wait_for_others(handle: int) -> None:
    """Lock an open file until it is closed, so that taking a line back never takes another process's line."""
    if fcntl is not None:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
