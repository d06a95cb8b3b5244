"""Standard output and error: readable whatever is in a name, and an exit code that tells of a closed pipe."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

import typer

from tsdistill.errors import printable, printable_lines

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PIPE_CLOSED = 141
"""Exit code when nobody reads what is written: what a shell reports of a program that SIGPIPE ended."""

WIDE = 160
"""Columns of a table that goes to a file or a pipe."""


def show(text: object = "", *, err: bool = False) -> None:
    """Print text for people; control characters in it are made visible, its line breaks are its own."""
    typer.echo(printable_lines(text), err=err)


def new_table(*headings: str) -> Table:
    """A table without rules; add rows by `add`."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None)
    for heading in headings:
        table.add_column(Text(printable(heading)))
    return table


def add(table: Table, cells: Iterable[object]) -> None:
    """Add a row; nothing in it counts as markup, and every cell is one line."""
    from rich.text import Text

    table.add_row(*(Text(printable(cell)) for cell in cells))


def console(*, wide: bool = False) -> Console:
    """Standard output for tables; `wide` ones are not folded to 80 columns where there is no terminal."""
    from rich.console import Console

    width = WIDE if wide and not sys.stdout.isatty() else None
    return Console(width=width, markup=False, emoji=False, highlight=False)


class PipeClosed(BaseException):
    """Nobody reads standard output or error any more; no `except Exception` of a library may hide it."""


class _Guarded:
    """A stream that raises `PipeClosed`; of a `BrokenPipeError` libraries make exit codes of their own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with _telling():
            raw = getattr(self._stream, "buffer", None)
            if isinstance(raw, io.RawIOBase) and os.linesep == "\n":  # PYTHONUNBUFFERED is set
                self._write_whole(raw, text)
                return len(text)
            return self._stream.write(text)

    def _write_whole(self, raw: io.RawIOBase, text: str) -> None:
        """Without a buffer, Python takes what a pipe did not accept for written when its reader goes away meanwhile."""
        self._stream.flush()
        left = memoryview(text.encode(self._stream.encoding, self._stream.errors or "strict"))
        while left:
            left = left[raw.write(left) or 0 :]

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with _telling():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def _telling() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise PipeClosed from None


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Within it, a pipe that nobody reads raises `PipeClosed`; at the end everything is flushed.

    Raises:
        PipeClosed: standard output or error is a pipe that was closed.
        OSError: what was printed cannot be written, as on a full disk.
    """
    streams: tuple[Any, Any] = (sys.stdout, sys.stderr)
    sys.stdout, sys.stderr = (stream and _Guarded(stream) for stream in streams)
    try:
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
    except (PipeClosed, OSError):
        _discard(streams)
        raise
    finally:
        sys.stdout, sys.stderr = streams


def _discard(streams: Iterable[Any]) -> None:
    """Send what a stream still holds nowhere, or Python would complain about it when it ends."""
    for stream in streams:
        if stream is None:
            continue
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
