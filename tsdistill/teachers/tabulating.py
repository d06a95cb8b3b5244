"""TableReading a table of forecasts: which window, step and channel each row is about, every problem found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from tsdistill.data.task import PARTS, Part, Task
from tsdistill.errors import nearest
from tsdistill.tables.rows import SHOWN, rows_of, several
from tsdistill.tables.stamps import parse
from tsdistill.teachers.places import Places, on_time_line


@dataclass(frozen=True)
class Columns:
    """What the columns of a table of forecasts are called."""

    id: str = "unique_id"
    time: str = "ds"
    cutoff: str = "cutoff"
    forecast: str = "forecast"
    channel: str = "channel"


class TableReading:
    """A table taken apart for a task.

    Attributes:
        problems: All that is wrong with it.
        forecasts: Scaled forecasts (window, horizon, channel) of the parts that it covers, if nothing is wrong.
        n_unused: Rows that concern no window of the task, or steps beyond the horizon.
    """

    def __init__(self, df: pd.DataFrame, task: Task, names: Columns) -> None:
        self.task = task
        self.names = names
        self.places = Places(task)
        self.problems: list[str] = []
        self.forecasts: dict[Part, Tensor] = {}
        self.n_unused = 0
        values = self._values(df)
        if values is None:
            return
        item, known = self._items(df)
        n_before = len(self.problems)
        ends, steps = (self._rows(df, name, item, known) for name in (names.cutoff, names.time))
        if len(self.problems) > n_before or ends is None or steps is None:
            return
        self._fill(item, ends, steps, values, known)

    def _values(self, df: pd.DataFrame) -> tuple[np.ndarray, np.ndarray] | None:
        """The forecasts of each row and the channels they are of: (row, 1) below each other, or (row, channel)."""
        names = self.names
        channels = self.task.channels
        problems = self.problems
        long = names.forecast in df.columns
        wanted = [names.time, names.cutoff, *([names.forecast] if long else channels)]
        wanted += [names.id] if len(self.task.panel.items) > 1 else []
        wanted += [names.channel] if long and len(channels) > 1 else []
        if lacking := [name for name in wanted if name not in df.columns]:
            alternative = "" if long else f" (or `{names.forecast}`, in place of one for each channel)"
            hint = nearest(lacking[0], [str(name) for name in df.columns])
            problems.append(
                f"The table must have the columns {', '.join(wanted)}{alternative}, and lacks "
                f"{', '.join(lacking)}. {hint}"
            )
            return None
        if not len(df):
            problems.append("The table is empty: it has no rows. Give some forecasts.")
            return None
        columns = [names.forecast] if long else list(channels)
        frame = df[columns].apply(pd.to_numeric, errors="coerce")
        values = frame.to_numpy(dtype=np.float64, na_value=np.nan)
        for column, numbers in zip(columns, values.T, strict=True):
            if len(bad := np.flatnonzero(~np.isfinite(numbers))):
                problems.append(
                    f"`{column}` must hold finite numbers, and does not in {rows_of(bad)}. Forecast them again."
                )
        if not long or names.channel not in df.columns:
            return values, np.broadcast_to(np.arange(len(columns)), values.shape)
        position = pd.Index(channels).get_indexer(pd.Index(df[names.channel].astype(str)))
        if len(bad := np.flatnonzero(position < 0)):
            shown = ", ".join(repr(str(name)) for name in df[names.channel].iloc[bad].unique()[:SHOWN])
            problems.append(f"`{names.channel}` must name channels of the task ({', '.join(channels)}), got {shown} in "
                            f"{rows_of(bad)}. Rename or drop them.")  # fmt: skip
        return values, position[:, None]

    def _items(self, df: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """The number of each row's item, and where it is one of the panel's."""
        ids = [item.unique_id for item in self.task.panel.items]
        if len(ids) == 1 and self.names.id not in df.columns:
            return np.zeros(len(df), dtype=np.int64), np.ones(len(df), dtype=bool)
        item = pd.Index(ids).get_indexer(pd.Index(df[self.names.id].astype(str)))
        if len(bad := np.flatnonzero(item < 0)):
            shown = ", ".join(repr(str(id_)) for id_ in df[self.names.id].iloc[bad].unique()[:SHOWN])
            hint = nearest(str(df[self.names.id].iloc[bad[0]]), ids[:60])
            self.problems.append(
                f"`{self.names.id}` must name items of the panel, got {shown} in {rows_of(bad)}. {hint}"
            )
        return item, item >= 0

    def _rows(self, df: pd.DataFrame, name: str, item: np.ndarray, known: np.ndarray) -> np.ndarray | None:
        """The row of its item that each stamp means: -1 where it is no step, the length where it is later."""
        items = self.task.panel.items
        lengths = np.array([len(entry) for entry in items])
        if items[0].ds is None:
            numbers = pd.to_numeric(df[name], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
            if len(bad := np.flatnonzero(~((numbers == np.floor(numbers)) & (numbers >= 0)))):
                self.problems.append(f"`{name}` must count rows of an item from 0, as the panel has no "
                                     f"stamps, and does not in {rows_of(bad)}. Write whole numbers.")  # fmt: skip
                return None
            rows = numbers.astype(np.int64)
            return np.minimum(rows, lengths[item])
        n_before = len(self.problems)
        stamps = parse(df[name], name, self.problems)
        if stamps is None or len(self.problems) > n_before:
            return None
        zone = items[0].ds.tz
        if (stamps.tz is None) != (zone is None):
            held, given = ("with a zone", "without") if zone is not None else ("without a zone", "with one")
            self.problems.append(f"`{name}` must hold stamps {held} ({zone}), as the panel's are, got stamps {given}. "
                                 "Convert them, for example with Series.dt.tz_localize.")  # fmt: skip
            return None
        grid = on_time_line([entry.ds for entry in items if entry.ds is not None])
        asked = on_time_line([stamps])
        keys = pd.MultiIndex.from_arrays([np.repeat(np.arange(len(items)), lengths), grid])
        places = keys.get_indexer(pd.MultiIndex.from_arrays([item, asked]))
        rows = np.where(places >= 0, places - self.places.offsets[item], -1)
        late = asked > grid[np.cumsum(lengths) - 1][item]
        if len(bad := np.flatnonzero(known & (rows < 0) & ~late)):
            shown = ", ".join(str(stamps[row]) for row in bad[:SHOWN])
            self.problems.append(
                f"`{name}` must hold steps of the panel, got {several(len(bad), 'stamp')} that are none: {shown}, in "
                f"{rows_of(bad)}. Write the panel's own stamps."
            )
        return np.where(late, lengths[item], rows)

    def _fill(
        self,
        item: np.ndarray,
        ends: np.ndarray,
        steps: np.ndarray,
        values: tuple[np.ndarray, np.ndarray],
        known: np.ndarray,
    ) -> None:
        """Put every row's forecasts where their window, step and channel are."""
        task = self.task
        problems = self.problems
        numbers, channel = values
        n_channels = len(task.channels)
        ahead = steps - ends
        lengths = np.array([len(entry) for entry in task.panel.items])[item]
        known = known & (ends < lengths) & (channel >= 0).all(axis=1)
        if len(bad := np.flatnonzero(known & (ahead < 1))):
            problems.append(f"`{self.names.time}` must be after `{self.names.cutoff}`, and is not in "
                            f"{rows_of(bad)}. The cutoff is the last step that a forecast has seen.")  # fmt: skip
        usable = known & (ahead >= 1) & (ahead <= task.horizon) & (steps < lengths)
        used = np.zeros(len(item), dtype=bool)
        filled = dict[Part, np.ndarray]()
        for part in PARTS:
            window_at = np.full(task.panel.n_rows, -1)
            cutoffs = self.places.cutoffs(part)
            window_at[cutoffs] = np.arange(len(cutoffs))
            stacked = np.where(usable, self.places.offsets[item] + ends, 0)
            window = np.where(usable, window_at[stacked], -1)
            here = np.flatnonzero(window >= 0)
            used[here] = True
            shape = (len(cutoffs), task.horizon, n_channels)
            flat = (window[here, None] * task.horizon + ahead[here, None] - 1) * n_channels + channel[here]
            counts = np.bincount(flat.ravel(), minlength=int(np.prod(shape)))
            if (counts > 1).any():
                again = here[(counts[flat] > 1).any(axis=1)]
                problems.append(f"The table must have one row for each item, cutoff and step, and has "
                                f"several in {rows_of(again)}. Drop the repeated ones.")  # fmt: skip
            forecasts = np.full(shape, np.nan, dtype=np.float64)
            forecasts.ravel()[flat.ravel()] = numbers[here].ravel()
            lacking = (counts == 0).reshape(shape).any(axis=(1, 2))
            if part == "train" and lacking.any():
                problems.append(self._uncovered(lacking, counts.reshape(shape)))
            if not lacking.any():
                filled[part] = forecasts
        self.n_unused = int((~used).sum())
        if not problems:
            self.forecasts = {part: self._scaled(forecasts, part) for part, forecasts in filled.items()}

    def _uncovered(self, lacking: np.ndarray, counts: np.ndarray) -> str:
        """Which training windows are not covered."""
        task = self.task
        windows = np.flatnonzero(lacking)
        rows = self.places.cutoffs("train")[windows[:SHOWN]]
        shown = []
        for window, row in zip(windows, rows, strict=False):
            number = int(self.places.items(np.array([row]))[0])
            item = task.panel.items[number]
            local = int(row - self.places.offsets[number])
            stamp = str(local if item.ds is None else item.ds[local])
            of = f" of item {item.unique_id!r}" if len(task.panel.items) > 1 else ""
            n_lacking = int((counts[window] == 0).sum())
            whole = "" if n_lacking == counts[window].size else f" ({several(n_lacking, 'step')} of it)"
            shown.append(f"{stamp}{of}{whole}")
        more = ", ..." if len(windows) > SHOWN else ""
        return (
            f"The table must cover all {several(len(lacking), 'training window')}, and lacks "
            f"{several(len(windows), 'cutoff')}: {', '.join(shown)}{more}. Forecast from these cutoffs too, "
            f"{several(task.horizon, 'step')} of {several(len(task.channels), 'channel')} each, or "
            "move the start of the training part."
        )

    def _scaled(self, forecasts: np.ndarray, part: Part) -> Tensor:
        """Raw forecasts as the part's windows are scaled."""
        windows = self.places.windows(part)
        scaled = np.empty(forecasts.shape, dtype=np.float32)
        for first in range(0, len(forecasts), 1 << 14):
            index = torch.arange(first, min(first + (1 << 14), len(forecasts)))
            mean, scale = windows.units(index)
            scaled[index] = (forecasts[index] - windows.offsets(index) - mean) / scale
        return torch.from_numpy(scaled)
