"""A progress bar on standard error: in a terminal by default, elsewhere on request."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Protocol

from tsdistill.errors import printable


class Bar(Protocol):
    """Progress that a loop reports."""

    def at(self, step: int) -> None:
        """Jump to a step, when resuming."""

    def advance(self) -> None:
        """One more step is done."""

    def note(self, text: str) -> None:
        """Show a short status, such as the loss."""


class _Quiet:
    def at(self, step: int) -> None:
        pass

    def advance(self) -> None:
        pass

    def note(self, text: str) -> None:
        pass


@contextlib.contextmanager
def open_bar(title: str, n_steps: int, show: bool | None = None, *, foretells: bool = True) -> Iterator[Bar]:
    """A bar for `n_steps` steps; `show=None` asks whether standard error is a terminal.

    It foretells the time left by the pace of the steps it has seen; not where the notes say that better.
    """
    if not (sys.stderr.isatty() if show is None else show):
        yield _Quiet()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        *([TimeRemainingColumn()] if foretells else []),
        TextColumn("{task.fields[status]}", markup=False),
    ]
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(printable(title), total=n_steps, status="")

        class Shown:
            def at(self, step: int) -> None:
                progress.update(task, completed=step)

            def advance(self) -> None:
                progress.update(task, advance=1)

            def note(self, text: str) -> None:
                progress.update(task, status=printable(text))

        yield Shown()
