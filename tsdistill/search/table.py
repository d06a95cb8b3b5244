"""The best trials as a table for a terminal."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from typing import Any

from tsdistill.errors import printable

WIDEST = 100
"""Columns the table takes at most, however wide the terminal is."""


def table(rows: Sequence[dict[str, Any]], *, width: int | None = None) -> str:
    """The rows of `leaders` as text that fits the terminal; parts that were not searched have no column."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = list(dict.fromkeys(name for row in rows for name in row["params"]))
    others = [name for name in drawn if not _is_of_student(name)]
    # Heading, what of a row stands below it, and whether the column is wanted.
    columns: list[tuple[str, Any, bool]] = [
        ("trial", lambda row: str(row["trial"]), True),
        ("val. MSE", lambda row: f"{row['validation_mse']:.4f}", True),
        ("bytes", lambda row: f"{row['size_bytes']:,}{'' if row['fits'] else ' !'}", True),
        ("form", lambda row: row["precision"], True),
        ("student", lambda row: _student(row["params"]), len(others) < len(drawn)),
        *((_heading(name), lambda row, name=name: _cell(row["params"].get(name)), True) for name in others),
    ]
    columns = [column for column in columns if column[2]]
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, _, _ in columns:
        shown.add_column(
            Text(printable(name)), justify="left" if name in ("student", "form") else "right", overflow="fold"
        )
    for row in rows:
        shown.add_row(*(Text(printable(cell(row))) for _, cell, _ in columns))
    file = io.StringIO()
    width = width or min(shutil.get_terminal_size(fallback=(WIDEST, 24)).columns, WIDEST)
    Console(file=file, width=width, color_system=None, force_terminal=False).print(shown)
    text = "\n".join(line.rstrip() for line in file.getvalue().splitlines())
    return text if all(row["fits"] for row in rows) else f"{text}\n! larger than the budget"


KIND = "student.model.kind"
SIZES = "student.model."
OLDER = ("student", "lstm_", "mlp_", "patchtst_")
"""How version 0.1 called what a student was drawn from."""


def _is_of_student(name: str) -> bool:
    return name == OLDER[0] or name.startswith((SIZES, *OLDER[1:]))


def _student(params: dict[str, Any]) -> str:
    """Such as "lstm width 64 depth 2 patch 24"."""
    kind = params.get(KIND, params.get(OLDER[0], ""))
    words = [str(kind)] if kind else []
    for name, value in params.items():
        if _is_of_student(name) and name not in (KIND, OLDER[0]):
            size = name.rpartition(".")[2] if name.startswith(SIZES) else name.partition("_")[2]
            words.append(f"{size} {_cell(value)}")
    return " ".join(words)


def described(params: dict[str, Any]) -> str:
    """What a trial drew, in one line."""
    others = [f"{_heading(name)} {_cell(value)}" for name, value in params.items() if not _is_of_student(name)]
    return ", ".join([word for word in [_student(params)] if word] + others)


def _heading(name: str) -> str:
    """The last word of an address, and the one before where that means little by itself."""
    parts = name.split(".")
    words = parts[-2:] if parts[-1] in ("weight", "kind", "method") and len(parts) > 1 else parts[-1:]
    return " ".join(words).replace("learning_rate", "rate")


def _cell(value: Any) -> str:
    """A drawn value; nothing where the trial did not draw it."""
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
