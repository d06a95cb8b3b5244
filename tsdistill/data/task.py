"""A forecasting task: which past steps a model sees, which steps it forecasts, and which rows it is evaluated on.

Windows are views. The scaled series is stored once; a batch gathers its windows through a strided view of it, so memory
grows with the series and not with windows times context. The raw series is read block by block, never copied.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tsdistill import clock
from tsdistill.data.blocks import Fit, blocks, fit, is_flag
from tsdistill.data.covariates import Covariates, misfits
from tsdistill.data.cuts import Cuts, cut_items, held_values
from tsdistill.data.signature import Signature
from tsdistill.data.split import PARTS, Part, Split, spans
from tsdistill.data.windows import Batch, Scaler, Windows
from tsdistill.errors import ConfigError, DataError, listed, must
from tsdistill.spec import digest_of

if TYPE_CHECKING:
    from tsdistill.data.panel import Panel

__all__ = ["PARTS", "Batch", "Part", "Signature", "Task", "Windows"]


class Task:
    """A panel with a context, a horizon, a split, and a scaler fitted on the training part only.

    Args:
        panel: The data.
        context: Past steps a model sees.
        horizon: Future steps a model forecasts.
        split: How to cut each item; by default the panel's own borders, else 70 / 10 / 20 %.
        scaler: "standard" (mean and standard deviation of the training rows, per channel), "item" (those of each item's
            own training rows, for items of very different scales) or None (raw values). A forecaster of a task with
            "item" is served on series it has never seen: it standardises each context by that context's own mean and
            deviation. Linear maps and models that normalise windows themselves forecast the same either way; others
            are trained on one scaling and served on another, so evaluate them deployed.
        covariates: Inputs of models besides the channels; the columns it names are no channels. They have one
            scaler for all items.
        short: What to do with an item that is too short for the windows of a part: "refuse" the task, or "skip" that
            part of it. `notes` counts the skipped ones.

    Raises:
        ConfigError: context or horizon below 1, an unknown scaler, covariates that the panel does not have, or an
            argument of another kind.
        DataError: an item is too short for the windows of a part, of which every one is listed, or, with "skip", a part
            has no windows at all; or an item with a scaler of its own has fewer than two training rows.

    Example:
        >>> import tsdistill as td
        >>> task = td.Task(td.datasets.load("nyc-weather"), context=336, horizon=24)
        >>> len(task.channels), task.train.context
        (18, 336)
    """

    def __init__(
        self,
        panel: Panel,
        *,
        context: int,
        horizon: int,
        split: Split | None = None,
        scaler: Literal["standard", "item"] | None = "standard",
        covariates: Covariates | None = None,
        short: Literal["refuse", "skip"] = "refuse",
    ) -> None:
        from tsdistill.data.panel import Panel

        problems = [
            must(name, "be a whole number of at least 1", value, "Give a number of steps")
            for name, value in (("context", context), ("horizon", horizon))
            if not isinstance(value, int) or isinstance(value, bool) or value < 1
        ]
        sized = not problems
        if not isinstance(panel, Panel):
            remedy = "Make one with td.Panel.from_frame(...)"
            raise ConfigError(listed([*problems, must("panel", "be a td.Panel", type(panel).__name__, remedy)], "Task"))
        if split is not None and not isinstance(split, Split):
            problems.append(must("split", "be td.Split or None", split, "Write td.Split.fractions(0.7, 0.1, 0.2)"))
            sized = False
        if scaler not in ("standard", "item", None):
            problems.append(must("scaler", 'be "standard", "item" or None', scaler, "Leave it out for the default"))
        if short not in ("refuse", "skip"):
            problems.append(must("short", 'be "refuse" or "skip"', short, "Leave it out for the default"))
        if isinstance(covariates, Covariates):
            problems += misfits(covariates, panel)
        elif covariates is not None:
            problems.append(must("covariates", "be td.Covariates or None", covariates, "Write td.Covariates(...)"))
        self.panel = panel
        self.context = context
        self.horizon = horizon
        self.split = split or panel.split or Split.fractions(0.7, 0.1, 0.2)
        self.scaler = scaler
        self.covariates = covariates
        self.short = short
        cuts = cut_items(panel, self.split, context, horizon, scaler, short) if sized else Cuts([], {}, [])
        self.borders = cuts.borders
        self._n_skipped = cuts.n_skipped
        if problems:
            raise ConfigError(listed(problems + cuts.problems, "Task"))
        named = covariates.columns if covariates is not None else ()
        self._columns = [number for number, name in enumerate(panel.channels) if name not in named]
        self._holds, unfillable = held_values(panel, self.borders) if not cuts.problems else ([], [])
        if cuts.problems or unfillable:
            raise DataError(listed(cuts.problems + unfillable, "the task"))
        self._fit = self._fit_scaler()
        # In raw units; a signature has the offset and what is left of the mean apart, as their sum may lose digits.
        self.mean, self.scale = self._fit.offset + self._fit.mean, self._fit.scale

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the columns that are forecast, in the panel's order."""
        return tuple(self.panel.channels[column] for column in self._columns)

    @property
    def notes(self) -> dict[str, Any]:
        """What was done to the data: the panel's notes, and how many items were skipped here."""
        return {**self.panel.notes, **self._n_skipped}

    @functools.cached_property
    def signature(self) -> Signature:
        """What a forecaster for this task takes and gives."""
        plain = Signature(
            context=self.context,
            horizon=self.horizon,
            channels=self.channels,
            mean=tuple(self._fit.mean.tolist()),
            scale=tuple(self.scale.tolist()),
            frequency=self.panel.frequency,
            normalisation="window" if self.scaler == "item" else "scaler",
            reading=self.panel.reading,
            offset=_written(self._fit.offset),
        )
        if self.covariates is None:
            return plain
        n_calendar = len(self.covariates.known_ahead) - len(self.covariates.future)
        calendar = [0.0] * n_calendar
        planned, past = self._planned_scaler, self._past_scaler
        return plain.replace(
            covariates=self.covariates,
            future=self.covariates.known_ahead,
            future_mean=(*calendar, *planned.mean.tolist()),
            future_scale=(*[1.0] * n_calendar, *planned.scale.tolist()),
            future_offset=_written(np.concatenate([calendar, planned.offset])),
            past=self.covariates.past,
            past_mean=tuple(past.mean.tolist()),
            past_scale=tuple(past.scale.tolist()),
            past_offset=_written(past.offset),
        )

    @property
    def train(self) -> Windows:
        """Windows that lie wholly in the training part."""
        return self.windows("train")

    @property
    def validation(self) -> Windows:
        """Windows whose targets lie in the validation part; their context may reach back into training."""
        return self.windows("validation")

    @property
    def test(self) -> Windows:
        """Windows whose targets lie in the test part. Only evaluation reads them."""
        return self.windows("test")

    def windows(self, part: Part) -> Windows:
        """The windows of a part, every one of them (stride 1, nothing dropped)."""
        if part not in PARTS:
            raise ConfigError(must("part", f"be one of {', '.join(PARTS)}", part, "Pick one of them"))
        return self._windows[part]

    def values(self, item: int) -> np.ndarray:
        """Raw values (time, channel) of the item at a position of the panel: a view unless columns are covariates."""
        values = self.panel.items[item].values
        return values if len(self._columns) == values.shape[1] else values[:, self._columns]

    def with_context(self, context: int) -> Task:
        """The same task with another context; raises what `Task` raises."""
        return Task(
            self.panel,
            context=context,
            horizon=self.horizon,
            split=self.split,
            scaler=self.scaler,
            covariates=self.covariates,
            short=self.short,
        )

    def without_covariates(self) -> Task:
        """The same windows of the same channels, scaled alike, for models without covariates.

        Example:
            >>> import tsdistill as td
            >>> known = td.Covariates(calendar=("time-of-day",), past=("EWR_pressure",))
            >>> task = td.Task(td.datasets.load("nyc-weather"), context=336, horizon=24, covariates=known)
            >>> len(task.channels), task.signature.future, task.without_covariates().signature.future
            (17, ('time-of-day.sin', 'time-of-day.cos'), ())
        """
        if self.covariates is None:
            return self
        plain = copy.copy(self)
        for cached in ("signature", "fingerprint"):
            plain.__dict__.pop(cached, None)
        plain.covariates = None
        # Views of the series that exists already; it is not scaled again.
        plain._windows = {part: windows.without_covariates() for part, windows in self._windows.items()}
        return plain

    def latest(self, share: float) -> Task:
        """The same task with only the newest windows to train on: those within the last `share` of the training rows.

        Scaled and evaluated as before, so that errors are comparable: what little data costs, and how much of that a
        teacher trained on more gives back.

        Example:
            >>> import tsdistill as td
            >>> task = td.Task(td.datasets.load("nyc-weather"), context=336, horizon=24)
            >>> few = task.latest(0.25)
            >>> len(few.train) < 0.25 * len(task.train), len(few.test) == len(task.test)
            (True, True)
        """
        if not 0 < share <= 1:
            raise ConfigError(must("share", "be above 0 and at most 1", share, "Give a share of the training rows"))
        newest = [
            (offset + round(borders.train * (1 - share)), offset + borders.train)
            for offset, borders in zip(self.offsets, self.borders, strict=True)
        ]
        train = self.train.beginning_in(newest)
        if not len(train):
            length = f"context + horizon = {self.context + self.horizon}"
            raise DataError(f"The last {share:g} of the training rows hold no window of {length} rows. Raise `share`.")
        shorter = copy.copy(self)
        shorter.__dict__.pop("fingerprint", None)
        shorter._windows = {**self._windows, "train": train}
        return shorter

    @functools.cached_property
    def fingerprint(self) -> str:
        """Digest of everything selection may see: training and validation windows and the signature."""
        return digest_of([self.train.fingerprint, self.validation.fingerprint, self.signature.digest])

    @functools.cached_property
    def _windows(self) -> dict[Part, Windows]:
        import torch

        covariates = self.covariates
        ends = np.cumsum([len(item) for item in self.panel.items])
        units = self._units
        scaler = Scaler(np.atleast_2d(units.mean), np.atleast_2d(units.scale), ends, np.atleast_2d(units.offset))
        series = self._scaled(self._columns, units)
        future = past = None
        if covariates is not None and covariates.known_ahead:
            planned = self._scaled(self._named(covariates.future), self._planned_scaler)
            features = np.concatenate([self._calendar(covariates), planned], axis=1)
            future = torch.from_numpy(np.asfortranarray(features))
        if covariates is not None and covariates.past:
            past = torch.from_numpy(self._scaled(self._named(covariates.past), self._past_scaler))
        starts: dict[Part, list[np.ndarray]] = {part: [] for part in PARTS}
        # Half the bytes, one number per row, wherever rows can be counted with them.
        counter = np.int32 if self.panel.n_rows < 2**31 else np.int64
        for offset, borders in zip(self.offsets, self.borders, strict=True):
            for part, begin, end in spans(borders, self.context):
                first = offset + max(begin, 0)
                last = offset + end - self.context - self.horizon
                starts[part].append(np.arange(first, last + 1, dtype=counter))
        tensor = torch.from_numpy(series)
        return {
            part: Windows(
                tensor,
                torch.from_numpy(np.concatenate(firsts)),
                self.context,
                self.horizon,
                future=future,
                past=past,
                scaler=scaler,
            )
            for part, firsts in starts.items()
        }

    @property
    def offsets(self) -> list[int]:
        """Row of the stacked series at which each item begins."""
        return np.cumsum([0, *[len(item) for item in self.panel.items[:-1]]]).tolist()

    def _named(self, names: tuple[str, ...]) -> list[int]:
        return [self.panel.channels.index(name) for name in names]

    def _scaled(self, columns: list[int], units: Fit) -> np.ndarray:
        """Some columns of all items one below the other, (row, column) float32, stored column by column.

        The arrays of `units` are (column,), or (item, column).
        """
        series = np.empty((len(columns), self.panel.n_rows), dtype=np.float32).T
        for number, (offset, item, held) in enumerate(zip(self.offsets, self.panel.items, self._holds, strict=True)):
            level, centre, unit = (values if values.ndim == 1 else values[number] for values in units)
            for first, block in blocks(item.values, held, columns, 0, len(item)):
                series[offset + first : offset + first + len(block)] = (block - level - centre) / unit
        return series

    def _calendar(self, covariates: Covariates) -> np.ndarray:
        """Calendar and holiday features of all items one below the other, (row, feature) float32."""
        n_features = len(covariates.known_ahead) - len(covariates.future)
        features = np.empty((self.panel.n_rows, n_features), dtype=np.float32)
        for offset, item in zip(self.offsets, self.panel.items, strict=True):
            if n_features and item.ds is not None:
                stamps = item.ds.tz_localize(None).to_numpy()
                rows = slice(offset, offset + len(item))
                features[rows] = clock.features(stamps, covariates.calendar, covariates.holidays)
        return features

    def _training(self, columns: list[int], only: int | None = None) -> Iterator[np.ndarray]:
        """The training rows of all items, or of only one, in blocks (row, column), float64."""
        for number in range(len(self.borders)) if only is None else (only,):
            values = self.panel.items[number].values
            n_rows = self.borders[number].train
            for _, block in blocks(values, self._holds[number], columns, 0, n_rows):
                yield block

    def _fit_scaler(self) -> Fit:
        """Offset, mean and scale (channel,) of the training rows of all items; 0, 0 and 1 where each has its own."""
        if self.scaler == "item":
            return _neutral(len(self._columns))
        return self._fitted(self._columns)

    @functools.cached_property
    def _units(self) -> Fit:
        """What the series is scaled with: (channel,) of all items, or (item, channel) of each."""
        if self.scaler != "item":
            return self._fit
        own = [
            self._fitted(self._columns, number) if borders.train else _neutral(len(self._columns))
            for number, borders in enumerate(self.borders)
        ]
        return Fit(*map(np.stack, zip(*own, strict=True)))

    @property
    def units(self) -> np.ndarray:
        """Raw units in one scaled unit, (item, channel)."""
        return np.broadcast_to(self._units.scale, (len(self.panel.items), len(self._columns)))

    @functools.cached_property
    def _planned_scaler(self) -> Fit:
        return self._fit_covariates(self.covariates.future if self.covariates else ())

    @functools.cached_property
    def _past_scaler(self) -> Fit:
        return self._fit_covariates(self.covariates.past if self.covariates else ())

    def _fit_covariates(self, names: tuple[str, ...]) -> Fit:
        """The scaling (column,) of the training rows; 0/1 columns stay as they are, however rare a 1 is."""
        columns = self._named(names)
        if not columns:
            return _neutral(0)
        own = self._fitted(columns)
        flag = is_flag(lambda: self._training(columns))
        return Fit(*(np.where(flag, neutral, values) for neutral, values in zip((0.0, 0.0, 1.0), own, strict=True)))

    def _fitted(self, columns: list[int], only: int | None = None) -> Fit:
        """The scaling of the training rows of all items, or of only one; without a scaler only its offset."""
        own, lost = fit(lambda: self._training(columns, only))
        if lost.any():
            names = [self.panel.channels[columns[place]] for place in np.flatnonzero(lost)]
            item = "" if only is None else f" in item {self.panel.items[only].unique_id!r}"
            level = float(np.abs(own.offset)[lost].max())
            raise DataError(
                f"the values of {', '.join(map(repr, names))}{item} must move by more than float64 can tell "
                f"apart at their level, got a level of {level:.3g}, where steps are {np.spacing(level):.3g}."
                " Subtract a constant while they are whole numbers or decimals, before they become float64."
            )
        neutral = _neutral(len(columns))
        return Fit(own.offset, neutral.mean, neutral.scale) if self.scaler is None else own


def _neutral(n_columns: int) -> Fit:
    """What leaves raw values as they are."""
    return Fit(np.zeros(n_columns), np.zeros(n_columns), np.ones(n_columns))


def _written(offset: np.ndarray) -> tuple[float, ...]:
    """Offsets as a signature has them: none at all where all are 0."""
    return tuple(offset.tolist()) if offset.any() else ()
