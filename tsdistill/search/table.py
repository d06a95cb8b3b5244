"""The best trials as a table for a terminal."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from typing import Any

WIDEST = 100
"""Columns the table takes at most, however wide the terminal is."""


def table(rows: Sequence[dict[str, Any]], *, width: int | None = None) -> str:
    """The rows of `leaders` as text that fits the terminal; parts that were not searched have no column."""
    from rich.console import Console
    from rich.table import Table

    drawn = {name for row in rows for name in row["params"]}
    # Heading, what of a row stands below it, and whether the column is wanted.
    columns: list[tuple[str, Any, bool]] = [
        ("trial", lambda row: str(row["trial"]), True),
        ("val. MSE", lambda row: f"{row['validation_mse']:.4f}", True),
        ("bytes", lambda row: f"{row['size_bytes']:,}{'' if row['fits'] else ' !'}", True),
        ("form", lambda row: row["precision"], True),
        ("student", lambda row: _student(row["params"]), "student" in drawn),
        *(
            (name.replace("learning_rate", "rate"), lambda row, name=name: f"{row['params'][name]:.3g}", name in drawn)
            for name in ("alpha", "temporal", "ratio", "learning_rate")
        ),
    ]
    columns = [column for column in columns if column[2]]
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, _, _ in columns:
        shown.add_column(name, justify="left" if name in ("student", "form") else "right", overflow="fold")
    for row in rows:
        shown.add_row(*(cell(row) for _, cell, _ in columns))
    file = io.StringIO()
    width = width or min(shutil.get_terminal_size(fallback=(WIDEST, 24)).columns, WIDEST)
    Console(file=file, width=width, color_system=None, force_terminal=False).print(shown)
    text = "\n".join(line.rstrip() for line in file.getvalue().splitlines())
    return text if all(row["fits"] for row in rows) else f"{text}\n! larger than the budget"


def _student(params: dict[str, Any]) -> str:
    """Such as "lstm 64x2 patch 24"."""
    kind = params["student"]
    words = [kind, f"{params[f'{kind}_width']}x{params[f'{kind}_depth']}"]
    if f"{kind}_patch" in params:
        words.append(f"patch {params[f'{kind}_patch']}")
    return " ".join(words)
