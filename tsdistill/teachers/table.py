"""A table of forecasts as a teacher: whatever can write one, a foundation model included, can teach."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd
from torch import Tensor

from tsdistill.data.task import PARTS, Batch, Part, Signature, Task
from tsdistill.errors import DataError, UnsupportedError, listed, must
from tsdistill.spec import digest_of
from tsdistill.teachers.places import Places
from tsdistill.teachers.tabulating import Columns, TableReading


class ForecastTable:
    """A teacher whose forecasts of every training window were made before, read from a table.

    Use `td.teachers.read_forecasts` for a file and `ForecastTable.from_frame` for a data frame. A table belongs to the
    windows of one task and has no forecasts of others.

    Attributes:
        task: The task it was read for.
        n_unused: Rows of the table that concern no window of the task, or steps beyond the horizon.
        parts: Parts whose every window it covers: "train" always, "validation" and "test" where the table does.
    """

    def __init__(self, task: Task, forecasts: dict[Part, Tensor], n_unused: int = 0) -> None:
        self.task = task
        self.n_unused = n_unused
        self._forecasts = forecasts
        self._places = Places(task)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Parts of the task that are covered."""
        return tuple(self._forecasts)

    @property
    def signature(self) -> Signature:
        """Steps, channels and scaling of the task."""
        return self.task.signature

    @property
    def digest(self) -> str:
        """Sixteen hex digits of the forecasts that can teach, and of their windows: not of those of the test part."""
        return self._digest("train", "validation")

    @property
    def shown_digest(self) -> str:
        """Sixteen hex digits of every forecast, the test part's too: what a report about this table depends on."""
        return self._digest(*self.parts)

    def _digest(self, *parts: Part) -> str:
        contents = hashlib.sha256()
        for part in parts:
            if part in self._forecasts:
                contents.update(f"{part}{self._places.windows(part).fingerprint}".encode())
                contents.update(self._forecasts[part].contiguous().numpy().tobytes())
        return digest_of(["forecast table", contents.hexdigest()])

    def check(self, task: Task) -> None:
        """Refuse a task of other windows."""
        self._places.check(task, "a table of forecasts")

    def forecast(self, batch: Batch) -> Tensor:
        """Scaled forecasts (batch, horizon, channel) of windows that the table covers.

        Raises:
            DataError: the batch was not taken from them.
        """
        part = self._places.locate(batch, PARTS)
        if part not in self._forecasts:
            asked = "others" if part is None else f"those of the {part} part"
            raise DataError(
                f"A table of forecasts can be asked about the windows it covers ({', '.join(self.parts)}), got "
                f"{asked}. Read a table that covers them, for the task they come from."
            )
        return self._forecasts[part][batch.index].to(batch.target.device)

    @classmethod
    def from_frame(
        cls,
        df: pd.DataFrame,
        task: Task,
        *,
        id: str = "unique_id",
        time: str = "ds",
        cutoff: str = "cutoff",
        forecast: str = "forecast",
        channel: str = "channel",
    ) -> ForecastTable:
        """A table in memory as a teacher; see `td.teachers.read_forecasts`, whose arguments it takes.

        Example:
            >>> from tsdistill.teachers import forecast_frame
            >>> from tsdistill.testing import toy_task
            >>> import tsdistill as td
            >>> task = toy_task()
            >>> ForecastTable.from_frame(forecast_frame(td.train(td.LinearConfig(), task), task), task).parts
            ('train',)
        """
        if not isinstance(df, pd.DataFrame):
            raise DataError(
                must("df", "be a pandas DataFrame", type(df).__name__, "Make one with pandas.DataFrame(...)")
            )
        names = Columns(id=id, time=time, cutoff=cutoff, forecast=forecast, channel=channel)
        reading = TableReading(df, task, names)
        if reading.problems:
            raise DataError(listed(reading.problems, "the table of forecasts"))
        return cls(task, reading.forecasts, reading.n_unused)

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(forecasts):,} {part}" for part, forecasts in self._forecasts.items())
        unused = f", {self.n_unused:,} rows unused" if self.n_unused else ""
        return f"<ForecastTable {counts} windows{unused}>"


def read_forecasts(
    path: str | Path,
    task: Task,
    *,
    id: str = "unique_id",
    time: str = "ds",
    cutoff: str = "cutoff",
    forecast: str = "forecast",
    channel: str = "channel",
) -> ForecastTable:
    """Read forecasts that were made anywhere, so that they can teach.

    The table has a row for each forecast step: `unique_id` (which item; not needed for a panel of one), `ds` (the step
    that is forecast), `cutoff` (the last step that the forecast has seen) and `forecast`, in raw units. Several
    channels stand either below each other, distinguished by a column `channel`, or side by side in columns named like
    them; a column `forecast` means the first form. For a panel without stamps, rows of an item
    are counted from 0, in `ds` and `cutoff` alike.

    Every training window must be covered: one cutoff for each step of the training part that has a whole context before
    it and a whole horizon after it. A table that covers the validation part as well can be weighed by a
    `td.teachers.TeacherEnsemble`, and one that covers the test part can be scored by `td.compare`, which is all that
    those forecasts are for. Rows about other cutoffs and steps beyond the horizon are left, and counted (`n_unused`).
    Use it for foundation models and whatever else cannot be called from here.

    Args:
        path: A CSV (also gzipped) or Parquet file.
        task: The task to teach.
        id: Column of item identifiers.
        time: Column of the stamps that are forecast.
        cutoff: Column of the last stamp before the forecast.
        forecast: Column of the forecasts.
        channel: Column of channel names, where several stand below each other.

    Returns:
        A teacher for this task.

    Raises:
        DataError: the file cannot be read; columns are lacking; identifiers, channels or stamps are unknown; rows are
            there twice; a forecast is missing, not finite or of a step that is not after its cutoff; training windows
            are not covered. All problems come in one error.
        UnsupportedError: a Parquet file without pyarrow.

    Example:
        >>> import tsdistill as td
        >>> from tsdistill.teachers import write_forecasts
        >>> from tsdistill.testing import toy_task
        >>> task = toy_task()
        >>> write_forecasts(td.train(td.LinearConfig(), task), task, "forecasts.csv")
        >>> teacher = read_forecasts("forecasts.csv", task)
        >>> teacher
        <ForecastTable 242 train windows>
        >>> td.distill(teacher, td.LinearConfig(), task, control=False).lineage[-1].verb
        'distill'
    """
    path = Path(path)
    try:
        if path.suffix in (".parquet", ".pq"):
            df = _read_parquet(path)
        else:
            df = pd.read_csv(path, dtype={id: str, channel: str}, low_memory=False)
    except (OSError, EOFError, ValueError, LookupError) as error:
        raise DataError(f"Cannot read {path}: {error}. Give the path of a CSV or Parquet file.") from None
    return ForecastTable.from_frame(df, task, id=id, time=time, cutoff=cutoff, forecast=forecast, channel=channel)


def _read_parquet(path: Path) -> pd.DataFrame:
    import importlib.util

    if importlib.util.find_spec("pyarrow") is None:
        raise UnsupportedError("TableReading Parquet needs pyarrow. Install it with: pip install 'tsdistill[parquet]'.")
    return pd.read_parquet(path, engine="pyarrow")
