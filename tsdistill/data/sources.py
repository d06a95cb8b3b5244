"""Panels from files."""

from __future__ import annotations

import csv
import importlib.util
import io
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pandas as pd

from tsdistill.data.opening import is_parquet, shown_name, text_of
from tsdistill.data.panel import Panel
from tsdistill.data.reading_options import Reading
from tsdistill.data.repair import Fill
from tsdistill.data.split import Split
from tsdistill.errors import DataError, UnsupportedError, listed, must

MAX_COLUMNS = 20_000
"""Columns of a file; more are a table that lies on its side."""

MISSING = frozenset(
    (
        "",
        "#N/A",
        "#N/A N/A",
        "#NA",
        "-1.#IND",
        "-1.#QNAN",
        "-NaN",
        "-nan",
        "1.#IND",
        "1.#QNAN",
        "<NA>",
        "N/A",
        "NA",
        "NULL",
        "NaN",
        "None",
        "n/a",
        "nan",
        "null",
    )
)
"""Cells that hold no value, as pandas knows them."""


def read_csv(
    path: str | Path | IO[Any],
    *,
    time: str | None = "ds",
    id: str | None = None,
    target: str | Sequence[str] | None = None,
    frequency: str | pd.DateOffset | None = None,
    fill: Fill | None = None,
    time_zone: str | None = None,
    day_first: bool | None = None,
    time_format: str | None = None,
    name: str | None = None,
    split: Split | None = None,
    separator: str = ",",
    decimal: str = ".",
    encoding: str = "utf-8",
) -> Panel:
    r"""Read a CSV file (gzipped or not) into a panel; every problem comes in one error.

    Use it for one wide table or a long one, see `Panel.from_frame`, whose arguments it takes. Identifiers are read as
    they are written: `007` keeps its zeros, and `NA` or `None` is a name. Other packed files are not unpacked.

    Args:
        path: The file, or an open one.
        time: Column of time stamps; None when rows have none.
        id: Column of item identifiers of a long table (a column `unique_id` is used by default).
        target: Value column or columns.
        frequency: Step width as a pandas offset or its alias; by default the commonest step.
        fill: "interpolate", "forward" or "zero" to fill gaps and NaN; refused otherwise.
        time_zone: Zone of stamps that carry none.
        day_first: Whether 01/02/2024 is the first of February; None refuses dates that can be read both ways.
        time_format: How stamps are written, such as "%d.%m.%Y", or "s", "ms", "us" or "ns" for numbers from 1970.
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
    shown = shown_name(path)
    df = _csv(path, shown, id or "unique_id", separator, decimal, encoding)
    if df.shape[1] == 1 and any(mark in str(df.columns[0]) for mark in ";\t|"):
        raise DataError(f"{shown} has one column, {df.columns[0]!r}. Pass separator=, such as ';'.")
    panel = Panel.from_frame(
        df,
        time=time,
        id=id,
        target=target,
        frequency=frequency,
        fill=fill,
        time_zone=time_zone,
        day_first=day_first,
        time_format=time_format,
        name=name or (_stem(Path(path)) if isinstance(path, (str, Path)) else None),
        split=split,
    )
    assert panel.reading is not None
    return replace(panel, reading=panel.reading.replace(separator=separator, decimal=decimal, encoding=encoding))


def read_parquet(
    path: str | Path,
    *,
    time: str | None = "ds",
    id: str | None = None,
    target: str | Sequence[str] | None = None,
    frequency: str | pd.DateOffset | None = None,
    fill: Fill | None = None,
    time_zone: str | None = None,
    day_first: bool | None = None,
    time_format: str | None = None,
    name: str | None = None,
    split: Split | None = None,
) -> Panel:
    """Read a Parquet file, or a folder of them, into a panel; every problem comes in one error.

    Use it for large tables: it is smaller and faster than CSV and keeps types and time zones. The files of a folder are
    one table, whose rows are sorted by their time stamps. A folder called `item=A` within it gives its files a column
    `item`, which is used when `id`, `time` or `target` names it.

    Args:
        path: The file, or a folder of them.
        time: Column of time stamps (an index of stamps serves as well); None when rows have none.
        id: Column of item identifiers of a long table.
        target: Value column or columns.
        frequency: Step width as a pandas offset or its alias; by default the commonest step.
        fill: "interpolate", "forward" or "zero" to fill gaps and NaN; refused otherwise.
        time_zone: Zone of stamps that carry none.
        day_first: Whether 01/02/2024 is the first of February; None refuses dates that can be read both ways.
        time_format: How stamps are written, such as "%d.%m.%Y", or "s", "ms", "us" or "ns" for numbers from 1970.
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
    from tsdistill.data.parquet import frame_of

    wanted = {name for name in (time, id, *([target] if isinstance(target, str) else target or ())) if name}
    return Panel.from_frame(
        frame_of(path, time, wanted | {"unique_id"}),
        time=time,
        id=id,
        target=target,
        frequency=frequency,
        fill=fill,
        time_zone=time_zone,
        day_first=day_first,
        time_format=time_format,
        name=name or _stem(Path(path)),
        split=split,
    )


def read_file(path: str | Path, reading: Reading, *, target: Sequence[str] | None = None) -> Panel:
    """Read a CSV or Parquet file, or a folder of Parquet, as a `Reading` says.

    Args:
        path: The file or folder.
        reading: How it is read; what is for CSV alone is ignored for Parquet.
        target: Value columns; by default all.

    Raises:
        DataError: the file cannot be read, or its table cannot be used (see `Panel.from_frame`).
        UnsupportedError: it is Parquet, and pyarrow is not installed.
    """
    if is_parquet(path):
        return read_parquet(path, target=target, **reading.of_frames)
    return read_csv(path, target=target, **reading.of_files)


def _stem(path: Path) -> str:
    """File name without its endings."""
    return path.name.split(".")[0]


def _csv(source: Any, shown: str, id: str, separator: str, decimal: str, encoding: str) -> pd.DataFrame:
    """The table of a CSV file, its columns named as its header names them; identifiers are kept as they are written."""
    _check_marks(separator, decimal)
    options: dict[str, Any] = {"sep": separator, "decimal": decimal, "index_col": False, "low_memory": False}
    try:
        with warnings.catch_warnings(), text_of(source, encoding) as text:
            # Rows longer than the header would lose cells with no more than a warning.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            names = _header(text, separator, shown)
            if id in names:
                # Only this column keeps "NA" and "None" as text; that takes a list for each of the others.
                options["na_values"] = dict.fromkeys(names, MISSING) | {id: [""]}
                options |= {"keep_default_na": False, "dtype": {id: str}}
            try:
                return pd.read_csv(text, header=None, names=names, **options)
            except pd.errors.EmptyDataError:
                return pd.DataFrame(columns=names)
    except UnicodeDecodeError as error:
        remedy = "Pass encoding=, such as latin-1"
        raise DataError(f"Cannot read {shown} as {encoding}: {error.reason}. {remedy}.") from None
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        remedy = "Every row must have as many cells as the header; check separator="
        raise DataError(f"Cannot read {shown}: {str(error).strip().rstrip('.')}. {remedy}.") from None
    except DataError:
        raise
    except (OSError, EOFError, ValueError, LookupError, TypeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"Cannot read {shown}: {reason.rstrip('.')}. Give the path of a CSV file.") from None


def _check_marks(separator: str, decimal: str) -> None:
    """DataError for marks that no table can be told apart by."""
    problems = []
    if separator != r"\s+" and (len(separator) != 1 or separator in '\n\r"\0'):
        rule = r"be one character, or \s+ for blanks"
        problems.append(must("separator", rule, separator, "Write ',', ';', '|' or a tab"))
    if len(decimal) != 1 or decimal.isalnum() or decimal.isspace() or decimal in '"-+\0':
        problems.append(must("decimal", "be a mark between digits", decimal, "Write '.' or ','"))
    if decimal == separator:
        problems.append(must("decimal", "differ from the separator", decimal, "Pass separator= as well"))
    if problems:
        raise DataError(listed(problems, "read_csv"))


def _header(text: IO[str], separator: str, shown: str) -> list[str]:
    """Names of the columns, read from the beginning of a text; a blank one is called what pandas calls it."""
    record = ""
    for line in iter(text.readline, ""):
        record = (record + line).removeprefix("\ufeff")
        if record.strip() and not record.count('"') % 2:
            break
        record = record if record.strip() else ""
    if not record.strip():
        raise DataError(f"Cannot read {shown}: it is empty. Give a table with a header.")
    if len(separator) == 1:
        names = next(csv.reader(io.StringIO(record, newline=""), delimiter=separator))
    else:
        names = [name.strip('"') for name in record.split()]
    if len(names) > MAX_COLUMNS:
        raise DataError(
            f"Cannot read {shown}: it has {len(names):,} columns, more than {MAX_COLUMNS:,}. Give a row per time step; "
            "many series stand best one below the other, with a column of identifiers."
        )
    repeated = [name for name, n in Counter(names).items() if name and n > 1]
    if repeated:
        places = [str(place + 1) for place, name in enumerate(names) if name == repeated[0]]
        more = f" ({len(repeated) - 1:,} more names are repeated)" if len(repeated) > 1 else ""
        raise DataError(
            f"{shown} has the column {repeated[0]!r} more than once (columns {', '.join(places[:5])}){more}. Rename or "
            "remove all but one."
        )
    return [name or f"Unnamed: {place}" for place, name in enumerate(names)]
