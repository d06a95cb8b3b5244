"""Frames from Parquet files and from folders of them, checked before they are unpacked. Needs pyarrow."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tsdistill.data.opening import PARQUET, opened, refuse_address
from tsdistill.errors import DataError

MAX_FILES = 10_000
"""Files of a folder."""

MAX_COLUMNS = 20_000

LARGEST_FOOTER = 64 * 2**20
"""Bytes of the description at the end of a file."""

UNPACKED = 512 * 2**20
DENSEST = 500
"""A table whose numbers take more than UNPACKED bytes and more than DENSEST times its files' bytes is refused: lengths
of runs may promise any number of rows."""


def frame_of(path: str | Path, time: str | None, wanted: set[str]) -> pd.DataFrame:
    """The table of a file, or of all files of a folder.

    Args:
        path: The file or folder.
        time: Column of stamps by which the rows of several files are sorted.
        wanted: Columns that names of folders (`item=A`) may give; others of them are left out.

    Raises:
        DataError: it cannot be read; whatever pyarrow says of it comes as this.
    """
    refuse_address(path)
    try:
        if Path(path).is_dir():
            return _folder(Path(path), time, wanted)
        return _table(path, {}).to_pandas()
    except DataError:
        raise
    except Exception as error:
        # Of damaged bytes, pyarrow and pandas raise nearly everything.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = getattr(error, "strerror", None) or lines[0]
        raise DataError(f"Cannot read {path}: {reason.rstrip('.')}. Give the path of a Parquet file.") from None


def _folder(folder: Path, time: str | None, wanted: set[str]) -> pd.DataFrame:
    places = sorted(_files(folder), key=lambda place: _natural(str(place.relative_to(folder))))
    if not places:
        raise DataError(f"Cannot read {folder}: it holds no Parquet files. Give one that holds some.")
    tables = [_table(place, _partition(place, folder, wanted)) for place in places]
    table = pa.concat_tables(tables, promote_options="permissive")
    if time in table.column_names and pa.types.is_temporal(table.schema.field(time).type):
        table = table.sort_by(time)
    return table.to_pandas()


def _files(folder: Path) -> Iterator[Path]:
    """Parquet files below a folder; hidden ones, and links to folders, are passed over."""
    n_files = 0
    for home, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name[0] not in "._"]
        for name in names:
            if name[0] in "._" or not name.lower().endswith(PARQUET):
                continue
            n_files += 1
            if n_files > MAX_FILES:
                raise DataError(f"Cannot read {folder}: it holds more than {MAX_FILES:,} files. Join them first.")
            yield Path(home, name)


def _partition(place: Path, folder: Path, wanted: set[str]) -> dict[str, str]:
    """Columns that the names of folders between a file and the table's folder give."""
    pairs = [part.partition("=") for part in place.parent.relative_to(folder).parts if "=" in part]
    return {unquote(name): unquote(value) for name, _, value in pairs if unquote(name) in wanted}


def _table(path: str | Path, columns: dict[str, str]) -> Any:
    """One file, after a look at what it says of its own size."""
    with opened(path, "Parquet") as handle:
        n_bytes = os.fstat(handle.fileno()).st_size
        _check_footer(handle, n_bytes, path)
        file = pq.ParquetFile(handle)
        metadata = file.metadata
        if metadata.num_columns > MAX_COLUMNS:
            raise DataError(f"Cannot read {path}: it has {metadata.num_columns:,} columns, more than {MAX_COLUMNS:,}.")
        n_unpacked = max(
            8 * metadata.num_rows * max(metadata.num_columns, 1),
            sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups)),
        )
        if n_unpacked > max(UNPACKED, DENSEST * n_bytes):
            raise DataError(
                f"Cannot read {path}: its {n_bytes:,} bytes claim to hold {n_unpacked:,}. It is damaged, or no "
                "table of data."
            )
        table = file.read()
    for name, value in columns.items():
        if name not in table.column_names:
            table = table.append_column(name, pa.array([value] * len(table), pa.string()))
    return table


def _check_footer(handle: BinaryIO, n_bytes: int, path: str | Path) -> None:
    """DataError when the end of a file is not that of Parquet, or its description is larger than any is."""
    handle.seek(max(n_bytes - 8, 0))
    end = handle.read(8)
    handle.seek(0)
    if len(end) < 8 or end[4:] not in (b"PAR1", b"PARE"):
        raise DataError(f"Cannot read {path}: it does not end as Parquet does. It is damaged, or of another kind.")
    if int.from_bytes(end[:4], "little") > min(n_bytes, LARGEST_FOOTER):
        raise DataError(f"Cannot read {path}: the description at its end is too large. It is damaged.")


def _natural(path: str) -> list[tuple[int, str]]:
    """A key that sorts `part-9` before `part-10`."""
    parts = re.split(r"([0-9]{1,18})", path)
    return [(int(part), "") if place % 2 else (-1, part) for place, part in enumerate(parts)]
