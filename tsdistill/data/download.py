"""One file from the web: streamed beside its target, checked, and only then put in place."""

from __future__ import annotations

import contextlib
import http.client
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from tsdistill.errors import DataError, printable
from tsdistill.files import AtomicWriter

CHUNK = 1 << 16
PATIENCE_SECONDS = 30


def download(
    url: str, target: Path, *, check: Callable[[bytes], bytes], remedy: str, progress: bool | None = None
) -> bytes:
    """Fetch a file into `target` and return its content; whatever goes wrong, nothing half-done is left behind.

    Args:
        url: Address of the file.
        target: Where it is kept.
        check: Raises if the content is not what it should be; it is not kept then.
        remedy: What to do when the address cannot be reached.
        progress: Show a bar; by default when standard error is a terminal.

    Raises:
        DataError: the address cannot be reached, the connection broke off, or the folder cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with AtomicWriter(target) as writer:
            _fetch(url, writer.file.write, target.name, sys.stderr.isatty() if progress is None else progress)
            writer.file.flush()
            content = check(writer.partial.read_bytes())
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it is an open answer as well as an error
        raise DataError(f"Cannot download {url}: {str(error).rstrip('.') or type(error).__name__}. {remedy}") from None
    return content


def _fetch(url: str, write: Callable[[bytes], object], name: str, progress: bool) -> None:
    with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as response:
        announced = response.headers.get("Content-Length")
        size = int(announced) if announced and announced.isdecimal() else None
        received = 0
        with _bar(name, size, progress) as advance:
            while chunk := response.read(CHUNK):
                write(chunk)
                received += len(chunk)
                advance(len(chunk))
        if size is not None and received < size:
            raise OSError(f"the connection broke off after {received:,} of {size:,} bytes")


@contextlib.contextmanager
def _bar(name: str, size: int | None, progress: bool) -> Iterator[Callable[[int], None]]:
    if not progress:
        yield lambda n_bytes: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(printable(name), total=size)
        yield lambda n_bytes: bar.advance(task, n_bytes)
