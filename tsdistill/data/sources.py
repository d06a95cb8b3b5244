"""Panels from files."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import pandas as pd

from tsdistill.data.panel import Panel
from tsdistill.data.repair import Fill
from tsdistill.data.split import Split
from tsdistill.errors import DataError, UnsupportedError


def read_csv(
    path: str | Path | IO[Any],
    *,
    time: str | None = "ds",
    id: str | None = None,
    target: str | Sequence[str] | None = None,
    frequency: str | None = None,
    fill: Fill | None = None,
    time_zone: str | None = None,
    name: str | None = None,
    split: Split | None = None,
    separator: str = ",",
    decimal: str = ".",
    encoding: str = "utf-8",
) -> Panel:
    r"""Read a CSV file (gzipped or not) into a panel; every problem comes in one error.

    Use it for one wide table or a long one, see `Panel.from_frame`, whose arguments it takes.

    Args:
        path: The file, or an open one.
        time: Column of time stamps; None when rows have none.
        id: Column of item identifiers of a long table (a column `unique_id` is used by default).
        target: Value column or columns.
        frequency: Step width as a pandas offset alias; by default the commonest step.
        fill: "interpolate", "forward" or "zero" to fill gaps and NaN; refused otherwise.
        time_zone: Zone of stamps that carry none.
        name: What the data set is called in reports; by default the file's name.
        split: Borders that belong to the data set.
        separator: What stands between cells.
        decimal: What stands before decimals.
        encoding: How text is written; old files may be "latin-1".

    Raises:
        DataError: the file cannot be read, or its table cannot be used (see `Panel.from_frame`).

    Example:
        >>> import io
        >>> table = io.StringIO("date,load\n2024-01-01 00:00,1.5\n2024-01-01 01:00,2.5\n")
        >>> read_csv(table, time="date").frequency
        'h'
    """
    shown = path if isinstance(path, (str, Path)) else "the open file"
    try:
        with warnings.catch_warnings():
            # Rows longer than the header would lose cells with no more than a warning.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            df = pd.read_csv(
                path,
                sep=separator,
                decimal=decimal,
                encoding=encoding,
                index_col=False,
                dtype={id or "unique_id": str},
                low_memory=False,
            )
    except pd.errors.EmptyDataError:
        raise DataError(f"Cannot read {shown}: it is empty. Give a table with a header.") from None
    except UnicodeDecodeError as error:
        remedy = "Pass encoding=, such as latin-1"
        raise DataError(f"Cannot read {shown} as {encoding}: {error.reason}. {remedy}.") from None
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        remedy = "Every row must have as many cells as the header; check separator="
        raise DataError(f"Cannot read {shown}: {str(error).strip().rstrip('.')}. {remedy}.") from None
    except (OSError, EOFError, ValueError, LookupError) as error:
        raise DataError(f"Cannot read {shown}: {error}. Give the path of a CSV file.") from None
    if df.shape[1] == 1 and any(mark in str(df.columns[0]) for mark in ";\t|"):
        raise DataError(f"{shown} has one column, {df.columns[0]!r}. Pass separator=, such as ';'.")
    if name is None and isinstance(path, (str, Path)):
        name = _stem(Path(path))
    return Panel.from_frame(
        df, time=time, id=id, target=target, frequency=frequency, fill=fill, time_zone=time_zone, name=name, split=split
    )


def read_parquet(
    path: str | Path,
    *,
    time: str | None = "ds",
    id: str | None = None,
    target: str | Sequence[str] | None = None,
    frequency: str | None = None,
    fill: Fill | None = None,
    time_zone: str | None = None,
    name: str | None = None,
    split: Split | None = None,
) -> Panel:
    """Read a Parquet file into a panel; every problem comes in one error.

    Use it for large tables: it is smaller and faster than CSV and keeps types and time zones.

    Args:
        path: The file, or a folder of them.
        time: Column of time stamps (an index of stamps serves as well); None when rows have none.
        id: Column of item identifiers of a long table.
        target: Value column or columns.
        frequency: Step width as a pandas offset alias; by default the commonest step.
        fill: "interpolate", "forward" or "zero" to fill gaps and NaN; refused otherwise.
        time_zone: Zone of stamps that carry none.
        name: What the data set is called in reports; by default the file's name.
        split: Borders that belong to the data set.

    Raises:
        DataError: the file cannot be read, or its table cannot be used (see `Panel.from_frame`).
        UnsupportedError: pyarrow is not installed.

    Example:
        >>> stamps = pd.date_range("2024-01-01", periods=3, freq="h", tz="UTC")
        >>> pd.DataFrame({"date": stamps, "load": [1.0, 2.0, 3.0]}).to_parquet("load.parquet")
        >>> read_parquet("load.parquet", time="date").channels
        ('load',)
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise UnsupportedError("Reading Parquet needs pyarrow. Install it with: pip install 'tsdistill[parquet]'.")
    try:
        df = pd.read_parquet(path, engine="pyarrow")
    except (OSError, ValueError) as error:
        raise DataError(f"Cannot read {path}: {error}. Give the path of a Parquet file.") from None
    return Panel.from_frame(
        df,
        time=time,
        id=id,
        target=target,
        frequency=frequency,
        fill=fill,
        time_zone=time_zone,
        name=name or _stem(Path(path)),
        split=split,
    )


def _stem(path: Path) -> str:
    """File name without its endings."""
    return path.name.split(".")[0]
