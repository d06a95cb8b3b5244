"""Files opened as tables: regular files only, told apart by their content, and never unpacked without end."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

from tsdistill.errors import DataError

SNIFFED = 512
"""Bytes at the beginning that tell what a file is."""

LONGEST_LINE = 64 * 2**20
"""Bytes of one line; a longer one is no line of a table."""

UNPACKED = 64 * 2**20
DENSEST = 100
"""A gzipped file that unpacks to more bytes than UNPACKED and to more than DENSEST times its size is refused."""

PARQUET = (".parquet", ".pq", ".parq")

_MAGIC = (
    (
        (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08"),
        "a zip archive or an Excel workbook",
        "Unpack it, or save it as CSV",
    ),
    ((b"\xfd7zXZ\x00",), "packed by xz", "Unpack it, or pack it with gzip"),
    ((b"\x28\xb5\x2f\xfd",), "packed by zstd", "Unpack it, or pack it with gzip"),
    (tuple(b"BZh%d1AY&SY" % level for level in range(1, 10)), "packed by bzip2", "Unpack it, or pack it with gzip"),
    ((b"7z\xbc\xaf\x27\x1c",), "a 7-zip archive", "Unpack it, or pack it with gzip"),
    ((b"Rar!\x1a\x07",), "a RAR archive", "Unpack it, or pack it with gzip"),
    ((b"\x1f\x8b",), "packed twice", "Unpack it once"),
    ((b"PAR1\x15",), "a Parquet file", "Read it with read_parquet, or give it the ending .parquet"),
    ((b"ARROW1\x00",), "an Arrow file", "Convert it to Parquet or CSV"),
    ((b"SQLite format 3\x00",), "a SQLite database", "Read it with read_sql, or in a recipe by url="),
    ((b"\x89HDF\r\n",), "an HDF5 file", "Convert it to Parquet or CSV"),
    ((b"\xd0\xcf\x11\xe0",), "an old Excel workbook", "Save it as CSV"),
)
"""How files begin that are no text, what they are, and what to do."""


def is_parquet(path: str | Path) -> bool:
    """Whether a path is read as Parquet: by its ending in any case, a folder, or what its first bytes say."""
    refuse_address(path)
    place = Path(path)
    try:
        if place.suffix.lower() in PARQUET or place.is_dir():
            return True
        if place.suffix:
            return False
        with opened(place) as handle:
            return handle.read(4) == b"PAR1"
    except (OSError, DataError):
        return False


def opened(path: str | Path, kind: str = "CSV") -> BinaryIO:
    """A regular file, opened once without waiting and looked at by its handle, so that nothing can change in between.

    Raises:
        DataError: it is a folder, a pipe, a device or the like.
        OSError: it cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            names = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
            what = next((name for test, name in names if test(mode)), "a device")
            remedy = "; a pipe may be passed opened" if what == "a pipe" else ""
            raise DataError(f"Cannot read {path}: it is {what}, not a file. Give the path of a {kind} file{remedy}.")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(descriptor)
        raise


@contextlib.contextmanager
def text_of(source: str | Path | IO[Any], encoding: str) -> Iterator[IO[str]]:
    """The text of a file, plain or gzipped, or of one that is open already.

    Raises:
        DataError: the content is no text, or would not end.
        OSError, EOFError, LookupError: it cannot be opened, or read.
    """
    shown = shown_name(source)
    with contextlib.ExitStack() as stack:
        if isinstance(source, (str, Path)):
            handle: Any = stack.enter_context(opened(source))
            n_packed = os.fstat(handle.fileno()).st_size
        elif isinstance(source.read(0), str):
            yield source
            return
        else:
            handle = io.BufferedReader(_Guarded(source.read, shown, None))
            n_packed = None
        wide = encoding.lower().replace("-", "").replace("_", "").startswith(("utf16", "utf32"))
        read: Callable[[int], bytes] = handle.read
        packed = handle.peek(2)[:2] == b"\x1f\x8b"
        if packed and n_packed is not None:
            _refuse_dense(handle, n_packed, shown)
        if packed:
            read = gzip.GzipFile(fileobj=handle).read
        guard = _Guarded(read, shown, n_packed if packed else None, zeros=b"\0" * (8 if wide else 1))
        buffer = io.BufferedReader(guard, 2**18)
        _refuse_other_kinds(buffer.peek(SNIFFED)[:SNIFFED], shown, wide)
        text = io.TextIOWrapper(buffer, encoding=encoding, newline="")
        yield text
        text.detach()


def shown_name(source: str | Path | IO[Any]) -> str:
    """What messages call a source.

    Raises:
        DataError: it is the address of a database or of something on a network, which may hold a password.
    """
    refuse_address(source)
    return str(source) if isinstance(source, (str, Path)) else "the open file"


def refuse_address(source: object) -> None:
    """DataError for a path that is an address; the message holds nothing of it but its first word."""
    # A Path of it has one slash only.
    if isinstance(source, (str, Path)) and (match := re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,3}", str(source))):
        raise DataError(
            f"`path` must be the path of a file, got an address that begins with {match[1]}:. Read a database with "
            "read_sql, or in a recipe by url=; download other addresses first."
        )


class _Guarded(io.RawIOBase):
    """Bytes of a text as they are asked for; refuses what no text holds, lines and packed files without end."""

    def __init__(
        self, read: Callable[[int], bytes], shown: str, n_packed: int | None, zeros: bytes | None = None
    ) -> None:
        self._read = read
        self._shown = shown
        self._n_packed = n_packed
        self._zeros = zeros
        self._n_bytes = 0
        self._line = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            chunk = self._read(len(buffer))
        except (zlib.error, gzip.BadGzipFile, EOFError) as error:
            raise DataError(f"Cannot read {self._shown}: {error}. It is damaged; copy it again.") from None
        buffer[: len(chunk)] = chunk
        if self._zeros is None:
            return len(chunk)
        if self._n_bytes and self._zeros in chunk:
            place = self._n_bytes + chunk.index(self._zeros)
            raise DataError(
                f"Cannot read {self._shown}: it holds zero bytes (the first at {place:,}), so it is no text."
            )
        self._n_bytes += len(chunk)
        newline = chunk.rfind(b"\n")
        self._line = self._line + len(chunk) if newline < 0 else len(chunk) - newline
        if self._line > LONGEST_LINE:
            raise DataError(
                f"Cannot read {self._shown}: a line of it is longer than {LONGEST_LINE:,} bytes. Give a table with one "
                "row per line."
            )
        if self._n_packed is not None and self._n_bytes > max(UNPACKED, DENSEST * self._n_packed):
            raise DataError(
                f"Cannot read {self._shown}: its {self._n_packed:,} bytes unpack to more than {self._n_bytes:,}. "
                "Unpack it yourself if it is a table."
            )
        return len(chunk)


def _refuse_dense(handle: BinaryIO, n_packed: int, shown: str) -> None:
    """DataError when a gzipped file itself says, in its last bytes, that it unpacks to too much."""
    handle.seek(max(n_packed - 4, 0))
    n_bytes = int.from_bytes(handle.read(4), "little")
    handle.seek(0)
    if n_bytes > max(UNPACKED, DENSEST * n_packed):
        raise DataError(
            f"Cannot read {shown}: its {n_packed:,} bytes claim to unpack to {n_bytes:,}. It is damaged, or "
            "has to be unpacked before."
        )


def _refuse_other_kinds(head: bytes, shown: str, wide: bool) -> None:
    """DataError when a file begins like something else than a text."""
    for beginnings, what, remedy in _MAGIC:
        if head.startswith(beginnings):
            raise DataError(f"Cannot read {shown}: it is {what}. {remedy}.")
    if head[257:262] == b"ustar":
        raise DataError(f"Cannot read {shown}: it is a tar archive. Unpack it.")
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") and not wide:
        raise DataError(f"Cannot read {shown}: it is written in UTF-16. Pass encoding=, such as utf-16.")
    if b"\0" in head and not wide:
        raise DataError(f"Cannot read {shown}: it holds zero bytes, so it is no text. Give the path of a CSV file.")
