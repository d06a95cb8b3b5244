"""Reading a file that somebody else may have put there: opened once, never waited for, regular and of a sane size."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tsdistill.formats.errors import FormatError

MAX_FILE_BYTES = 2**31
"""Of a file that is read whole: weights and graphs are the largest."""

_LEAST_SPARSE = 64 * 2**20
_SPARSENESS = 16

# Not waiting: opening a FIFO would stop until somebody writes to it.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)


def read_regular(path: str | Path, limit: int = MAX_FILE_BYTES) -> bytes:
    """Content of a regular file, links followed.

    What is checked is what is read: the file is opened once, without waiting, and asked what it is only then.

    Args:
        path: The file.
        limit: Bytes that it may have at most.

    Raises:
        OSError: There is no such file, or it cannot be read; a `FormatError` when it is a folder, a device, a FIFO,
            larger than the limit or almost nothing but holes.
    """
    return _content(os.open(path, _FLAGS), limit)


def read_head(path: str | Path, n_bytes: int) -> tuple[bytes, int]:
    """The first bytes of a regular file, and how many it has altogether.

    Raises:
        OSError: As in `read_regular`.
    """
    handle = os.open(path, _FLAGS)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise FormatError("it is not a regular file")
        with open(handle, "rb", closefd=False) as file:
            return file.read(n_bytes), status.st_size
    finally:
        os.close(handle)


def read_inside(folder: Path, name: str, limit: int, handle: int | None = None) -> bytes:
    """The same of a file that must lie in a folder itself: a link leads at most to another name in it.

    Args:
        folder: The folder.
        name: A plain name in it.
        limit: Bytes that it may have at most.
        handle: The open folder, so that all files are of the same one; None opens it by its path.

    Raises:
        OSError: As in `read_regular`, or for a link that leads out of the folder.
    """
    if os.open not in os.supports_dir_fd or not _NO_LINKS:  # not a POSIX system
        if os.path.islink(folder / name):
            raise FormatError("it is a link, which may lead outside the folder")
        return read_regular(folder / name, limit)
    if handle is None:
        opened = os.open(folder, _FLAGS | os.O_DIRECTORY)
        try:
            return read_inside(folder, name, limit, opened)
        finally:
            os.close(opened)
    try:
        status = os.lstat(name, dir_fd=handle)
    except OSError as error:
        raise FormatError(error.strerror or str(error)) from None
    if stat.S_ISLNK(status.st_mode):
        name = os.readlink(name, dir_fd=handle)
        if os.path.basename(name) != name:
            raise FormatError("it is a link to somewhere outside the folder")
    try:
        return _content(os.open(name, _FLAGS | _NO_LINKS, dir_fd=handle), limit)
    except FormatError:
        raise
    except OSError as error:
        raise FormatError(error.strerror or str(error)) from None


def _content(handle: int, limit: int) -> bytes:
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise FormatError("it is not a regular file")
        size = status.st_size
        if size > limit:
            raise FormatError(f"it has {size} bytes, more than the {limit} allowed")
        if size > _LEAST_SPARSE and getattr(status, "st_blocks", size) * 512 * _SPARSENESS < size:
            raise FormatError(f"it has {size} bytes, almost all of them holes that were never written")
        with open(handle, "rb", closefd=False) as file:
            content = file.read(size + 1)
        if len(content) > size:
            raise FormatError("it grows while it is read")
        return content
    finally:
        os.close(handle)
