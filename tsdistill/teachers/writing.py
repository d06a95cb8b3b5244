"""Writing the forecasts of a teacher as a table."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from tsdistill.data.task import PARTS, Part, Task
from tsdistill.errors import ConfigError, UnsupportedError, must
from tsdistill.files import AtomicWriter
from tsdistill.teachers.base import Teacher, check_teacher, forecast_of
from tsdistill.teachers.places import Places, on_time_line
from tsdistill.teachers.tabulating import Columns

CHUNK = 256
"""Windows that a teacher forecasts at once while a table is written."""


def forecast_frame(teacher: Teacher, task: Task, parts: Iterable[Part] = ("train",)) -> pd.DataFrame:
    """The forecasts of a teacher for every window, as the table that `td.teachers.read_forecasts` reads, in raw units.

    Use it to look at a teacher's forecasts, to teach on a machine that the teacher cannot run on, or to see what a
    table should look like. The test part is not for teaching: beside the others it gives the teacher a row in a
    comparison where only the table is.

    Args:
        teacher: Any teacher of the task.
        task: Whose windows to forecast.
        parts: "train", "validation" or both, and "test" beside them.

    Returns:
        Columns `unique_id`, `ds`, `cutoff`, and `forecast` or, with several channels, one named like each of them. A
        panel without stamps has row numbers in `ds` and `cutoff`.

    Raises:
        ConfigError: another part, or a channel that is called like one of the other columns.
        ShapeError: the teacher forecasts something else.

    Example:
        >>> import tsdistill as td
        >>> from tsdistill.testing import toy_task
        >>> task = toy_task()
        >>> frame = forecast_frame(td.train(td.LinearConfig(), task), task)
        >>> len(frame) == len(task.train) * task.horizon, list(frame.columns)
        (True, ['unique_id', 'ds', 'cutoff', 'load', 'wind', 'price'])
    """
    check_parts(parts := tuple(parts))
    check_teacher(teacher, task)
    names = Columns()
    places = Places(task)
    columns = [names.forecast] if len(task.channels) == 1 else list(task.channels)
    if clash := sorted({names.id, names.time, names.cutoff} & set(columns)):
        raise ConfigError(must("channels", "be called otherwise than the table's own columns", clash, "Rename them"))
    frames = []
    for part in parts:
        windows = places.windows(part)
        raw = []
        for batch in windows.batches(CHUNK):
            mean, scale = windows.units(batch.index)
            raw.append(forecast_of(teacher, batch).cpu().double().numpy() * scale + mean + windows.offsets(batch.index))
        cutoffs = np.repeat(places.cutoffs(part), task.horizon)
        steps = cutoffs + np.tile(np.arange(1, task.horizon + 1), len(windows))
        frame = pd.DataFrame(np.concatenate(raw).reshape(-1, len(columns)), columns=columns)
        item = places.items(cutoffs)
        ids = np.array([entry.unique_id for entry in task.panel.items], dtype=object)
        frame.insert(0, names.id, ids[item])
        frame.insert(1, names.time, _stamps(places, steps, item))
        frame.insert(2, names.cutoff, _stamps(places, cutoffs, item))
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def write_forecasts(teacher: Teacher, task: Task, path: str | Path, parts: Iterable[Part] = ("train",)) -> None:
    """Write `forecast_frame` to a CSV (also gzipped) or Parquet file, whole or not at all; takes and raises the same.

    Raises:
        UnsupportedError: a Parquet file without pyarrow, or a file of another kind.

    Example:
        >>> import tsdistill as td
        >>> from tsdistill.testing import toy_task
        >>> task = toy_task()
        >>> write_forecasts(td.train(td.LinearConfig(), task), task, "forecasts.parquet", parts=("train", "validation"))
        >>> td.teachers.read_forecasts("forecasts.parquet", task).parts
        ('train', 'validation')
    """
    path = Path(path)
    check_table(path, parts := tuple(parts))
    frame = forecast_frame(teacher, task, parts)
    with AtomicWriter(path) as writer:
        if path.suffix in (".parquet", ".pq"):
            frame.to_parquet(writer.file, engine="pyarrow", index=False)
        else:
            frame.to_csv(writer.file, index=False, compression="gzip" if path.suffix == ".gz" else None)


def check_parts(parts: tuple[Part, ...]) -> None:
    """Refuse parts that no table is written for."""
    if not {*parts} - {"test"} or {*parts} - {*PARTS}:
        rule = 'be "train", "validation" or both, and "test" beside them only'
        raise ConfigError(must("parts", rule, parts, "The test part is not for teaching"))


def check_table(path: str | Path, parts: tuple[Part, ...]) -> None:
    """Refuse a table that cannot be written, before what stands in it is computed."""
    check_parts(parts)
    if not Path(path).name.endswith((".csv", ".csv.gz", ".parquet", ".pq")):
        raise UnsupportedError(f"`path` must end in .csv, .csv.gz or .parquet, got path={str(path)!r}. Name it so.")
    if Path(path).suffix in (".parquet", ".pq") and importlib.util.find_spec("pyarrow") is None:
        raise UnsupportedError("Writing Parquet needs pyarrow: pip install 'tsdistill[parquet]'.")


def _stamps(places: Places, rows: np.ndarray, item: np.ndarray) -> pd.Index | np.ndarray:
    """Stamps of rows of the stacked series; row numbers of their items where the panel has none."""
    items = places.task.panel.items
    if items[0].ds is None:
        return rows - places.offsets[item]
    zone = items[0].ds.tz
    stamps = pd.DatetimeIndex(on_time_line([entry.ds for entry in items if entry.ds is not None])[rows].view("M8[ns]"))
    return stamps if zone is None else stamps.tz_localize("UTC").tz_convert(zone)
