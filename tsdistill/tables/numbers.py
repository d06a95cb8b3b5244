"""Cells as numbers, whatever they are: what is none is pointed at, and nothing that a cell may hold raises."""

from __future__ import annotations

import decimal
from typing import Any, NamedTuple

import numpy as np
import pandas as pd


class Numbers(NamedTuple):
    """Values of a column: float64, NaN where a cell is missing or wrong, and which cells are which."""

    values: np.ndarray
    missing: np.ndarray
    wrong: np.ndarray


def missing_in(column: Any) -> np.ndarray:
    """Which cells hold nothing; a cell that cannot even be compared (a signalling NaN) holds something."""
    try:
        return np.asarray(pd.isna(column), dtype=bool)
    except (TypeError, ValueError, decimal.InvalidOperation):
        return np.array([_is_missing(cell) for cell in column], dtype=bool)


def as_numbers(column: pd.Series) -> Numbers:
    """A column as float64; text is read, and complex numbers, lists and numbers beyond all floats are wrong cells."""
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype) or (isinstance(dtype, pd.ArrowDtype) and dtype.kind == "O"):
        column = column.astype(object)
    missing = missing_in(column)
    try:
        numbers = pd.to_numeric(column, errors="coerce")
        if pd.api.types.is_complex_dtype(numbers.dtype):
            raise TypeError
        values = np.array(numbers.to_numpy(dtype=np.float64, na_value=np.nan), dtype=np.float64)
    except (TypeError, ValueError, ArithmeticError):
        values = np.array([_number(cell) for cell in column], dtype=np.float64)
    return Numbers(values, missing, np.isnan(values) & ~missing)


def examples_of(column: pd.Series, wrong: np.ndarray, n: int) -> str:
    """The first few different cells among the wrong ones, as text."""
    return ", ".join(repr(text) for text in dict.fromkeys(shown(cell) for cell in column[wrong][:1000]))[: 60 * n]


def shown(cell: Any) -> str:
    """A cell for a message: short, however large it is."""
    if isinstance(cell, int) and not -(10**40) < cell < 10**40:
        return "a whole number of more than 40 digits"
    text = str(cell)
    return text if len(text) <= 40 else f"{text[:37]}..."


def kinds_of(column: pd.Series, wrong: np.ndarray) -> str:
    """What the wrong cells are: text, complex numbers, or types by their names."""
    kinds = {type(cell) for cell in column[wrong][:1000]}
    if all(issubclass(kind, str) for kind in kinds):
        return "text"
    if all(issubclass(kind, complex | np.complexfloating) for kind in kinds):
        return "complex numbers"
    return f"cells of type {', '.join(sorted(kind.__name__ for kind in kinds))}"


def _is_missing(cell: Any) -> bool:
    return cell is None or cell is pd.NA or cell is pd.NaT or (isinstance(cell, float) and cell != cell)


def _number(cell: Any) -> float:
    if isinstance(cell, str):
        return float(pd.to_numeric(pd.Series([cell], dtype=object), errors="coerce").iloc[0])
    if not isinstance(cell, bool | int | float | decimal.Decimal | np.number | np.bool_):
        return np.nan
    if isinstance(cell, np.complexfloating):
        return np.nan
    try:
        return float(cell)
    except (ValueError, OverflowError, TypeError):
        return np.nan
