"""Columns of numbers that are no series: row numbers, and labels of items. They are left out, and the notes say so."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from tsdistill.tables.numbers import as_numbers

NUMBERING = ("index", "level_0", "row_nr", "row_number", "rownum", "rowid")
"""What tools call the rows that they number; such a column is left out if it does nothing but count."""

_UNNAMED = re.compile(r"Unnamed: \d+(_level_\d+)?")


def row_numbers(df: pd.DataFrame, places: dict[str, int], problems: list[str]) -> dict[str, str]:
    """Columns (name and position) that number rows, such as `to_csv()`'s, with the reason why they are left out."""
    left_out: dict[str, str] = {}
    for name, place in places.items():
        unnamed = name == "" or _UNNAMED.fullmatch(name) is not None
        if not unnamed and name.lower() not in NUMBERING:
            continue
        values, missing, _ = as_numbers(df.iloc[:, place])
        if unnamed and missing.all() and len(values):
            left_out[name] = "it has no name and is empty"
        elif unnamed and _whole(values) and len(np.unique(values)) == len(values):
            left_out[name] = "it has no name and numbers the rows"
        elif not unnamed and len(values) and values[0] in (0, 1) and (np.diff(values) == 1).all():
            left_out[name] = "it numbers the rows"
        elif unnamed:
            problems.append(
                f"Column `{name}` has no name. Name it in the header, or say which columns to use by target=."
            )
    return left_out


def labels(values: np.ndarray, bounds: np.ndarray, channels: tuple[str, ...], whole: np.ndarray) -> dict[str, str]:
    """Columns of a long table that never change within an item, such as the number of a shop, with the reason.

    Args:
        values: (row, channel), item by item.
        bounds: First row of each item, and the number of rows.
        channels: Names of the columns.
        whole: Whether a column's type is that of whole numbers.
    """
    lengths = np.diff(bounds)
    if len(lengths) < 2 or lengths.max() < 2 or len(channels) < 2:
        return {}
    starts = values[bounds[:-1]]
    constant = (values == np.repeat(starts, lengths, axis=0)).all(axis=0)
    differs = (starts != starts[:1]).any(axis=0)
    label = constant & (differs | whole)
    if label.all() or not label.any():
        return {}
    return {channels[place]: "it never changes within an item" for place in np.flatnonzero(label)}


def _whole(values: np.ndarray) -> bool:
    return len(values) > 0 and bool(np.isfinite(values).all()) and bool((values == np.floor(values)).all())
