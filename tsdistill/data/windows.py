"""Windows as views: a series is stored once, and every batch gathers the windows it needs from it.

The series lie in memory channel by channel, so that a window of a channel is one run of memory: it is copied as one
piece, and reaches the model in the order that it computes in (its last axis in time).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tsdistill.inputs.levels import offset_of, own_levels

if TYPE_CHECKING:
    import torch

    from tsdistill.data.signature import Signature

CARRIED_BYTES = 2**30
"""Larger series stay in the host's memory: the device's is for models."""

HASHED_ROWS = 1 << 14
"""Rows and starts hashed at once: bounds memory, changes nothing else."""


@dataclass(frozen=True)
class Batch:
    """Some windows: `context` (batch, context, channel) and `target` (batch, horizon, channel), both scaled.

    `index` holds the windows' positions within their part, so that cached teacher forecasts can be looked up. `mask`
    has the target's shape and is True where it counts. The covariates are `past` (batch, context, column) and `future`
    (batch, context + horizon, feature), scaled; what a task does not have is None.
    """

    context: torch.Tensor
    target: torch.Tensor
    index: torch.Tensor
    mask: torch.Tensor | None = None
    past: torch.Tensor | None = None
    future: torch.Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        tensors = {name: getattr(self, name) for name in ("context", "target", "mask", "past", "future")}
        moved = {name: None if tensor is None else tensor.to(device) for name, tensor in tensors.items()}
        return Batch(index=self.index, **moved)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Scaler:
    """How raw values were scaled, scaled = (raw - offset - mean) / scale, for all items alike or for each by itself.

    Args:
        mean: (1, channel), or (item, channel) where each item has its own.
        scale: The same shape, above 0.
        ends: Row of the stacked series after the last one of each item, (item,).
        offset: The same shape as `mean`: the level of what is far from zero, else 0.
    """

    mean: np.ndarray
    scale: np.ndarray
    ends: np.ndarray
    offset: np.ndarray

    def of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Offset, mean and scale (row, channel) at some rows of the stacked series."""
        item = np.searchsorted(self.ends, rows, side="right") if len(self.mean) > 1 else np.zeros(len(rows), dtype=int)
        return self.offset[item], self.mean[item], self.scale[item]


class Windows:
    """All windows of one part of a task, as views of one scaled series.

    Args:
        series: Scaled values of all items one below the other, (row, channel), float32.
        starts: First row of each window, (window,).
        context: Past steps of a window.
        horizon: Future steps of a window.
        future: Features known for context and horizon, scaled, (row, feature), or None.
        past: Columns known for the context only, scaled, (row, column), or None.
        scaler: How the series was scaled; None for a series in units of its own.
    """

    def __init__(
        self,
        series: torch.Tensor,
        starts: torch.Tensor,
        context: int,
        horizon: int,
        *,
        future: torch.Tensor | None = None,
        past: torch.Tensor | None = None,
        scaler: Scaler | None = None,
    ) -> None:
        self.starts = starts
        self.context = context
        self.horizon = horizon
        self.scaler = scaler
        self._steps = _Runs(series, context + horizon)
        self._future = None if future is None else _Runs(future, context + horizon)
        # Gathered over the context and no further: past covariates cannot reach into the horizon.
        self._past = None if past is None else _Runs(past, context)

    @property
    def series(self) -> torch.Tensor:
        """Scaled values of all items, (row, channel)."""
        return self._steps.series

    @property
    def future(self) -> torch.Tensor | None:
        """Scaled features known for context and horizon, (row, feature), or None."""
        return None if self._future is None else self._future.series

    @property
    def past(self) -> torch.Tensor | None:
        """Scaled columns known for the context only, (row, column), or None."""
        return None if self._past is None else self._past.series

    def __len__(self) -> int:
        return len(self.starts)

    def batch(self, index: torch.Tensor) -> Batch:
        """The windows at the positions `index` (batch,)."""
        starts = self.starts[index]
        steps = self._steps.gather(starts)
        return Batch(
            context=steps[:, : self.context],
            target=steps[:, self.context :],
            index=index,
            past=None if self._past is None else self._past.gather(starts),
            future=None if self._future is None else self._future.gather(starts),
        )

    def batches(self, batch_size: int, order: torch.Tensor | None = None) -> Iterator[Batch]:
        """Every window once, in `order` (a permutation of positions) or in time order; the last batch may be short."""
        import torch

        order = torch.arange(len(self)) if order is None else order
        # Cut on demand: a list of the cuts of a million windows takes megabytes.
        for first in range(0, len(order), batch_size):
            yield self.batch(order[first : first + batch_size])

    def subset(self, index: torch.Tensor) -> Windows:
        """The windows at the positions `index`, as views of the same series."""
        return self._with(self.starts[index], future=self.future, past=self.past)

    def on(self, device: torch.device) -> Windows:
        """The same windows, gathered on a device from a copy of the series there, if that is not too large.

        All tensors of a batch but `index` are then on that device. For the CPU it returns these windows themselves.
        """
        n_bytes = sum(runs.series.nbytes for runs in (self._steps, self._future, self._past) if runs is not None)
        if device.type == "cpu" or n_bytes > CARRIED_BYTES:
            return self
        series, future, past = (
            None if runs is None else runs.series.to(device) for runs in (self._steps, self._future, self._past)
        )
        assert series is not None
        return Windows(series, self.starts, self.context, self.horizon, future=future, past=past, scaler=self.scaler)

    def beginning_in(self, spans: Iterable[tuple[int, int]]) -> Windows:
        """The windows whose first row lies in one of some spans of rows (first, end)."""
        import torch

        chosen = torch.zeros(len(self), dtype=torch.bool)
        for first, end in spans:
            chosen |= (self.starts >= first) & (self.starts < end)
        return self.subset(torch.nonzero(chosen).flatten())

    def beginning_at(self, starts: torch.Tensor) -> Windows:
        """Other windows of the same series, by their first rows."""
        return self._with(starts, future=self.future, past=self.past)

    def without_covariates(self) -> Windows:
        """The same windows of the same series with no covariates."""
        return self._with(self.starts, future=None, past=None)

    def with_series(self, series: torch.Tensor) -> Windows:
        """The same windows of another series (row, channel) of the same rows, with no covariates."""
        return Windows(series, self.starts, self.context, self.horizon, scaler=self.scaler)

    def _with(self, starts: torch.Tensor, *, future: torch.Tensor | None, past: torch.Tensor | None) -> Windows:
        return Windows(self.series, starts, self.context, self.horizon, future=future, past=past, scaler=self.scaler)

    def units(self, index: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Mean and scale (batch, 1, channel) of the windows at `index`: raw = scaled * scale + mean + offset."""
        _, mean, scale = self._scaling(index)
        return mean, scale

    def offsets(self, index: torch.Tensor) -> np.ndarray:
        """What was subtracted from the raw values of the windows at `index` first, (batch, 1, channel): see `units`.

        It is kept apart, as float64 cannot hold the sum to the last digit.
        """
        return self._scaling(index)[0]

    def _scaling(self, index: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self.scaler is None:
            shape = (len(index), 1, self.series.shape[1])
            return np.zeros(shape), np.zeros(shape), np.ones(shape)
        offset, mean, scale = self.scaler.of(self.starts[index].numpy())
        return offset[:, None], mean[:, None], scale[:, None]

    @functools.cached_property
    def fingerprint(self) -> str:
        """Digest of the windows: of the rows they reach and of nothing else."""
        digest = hashlib.sha256(f"{self.context}+{self.horizon}".encode())
        starts = self.starts.numpy()
        length = self.context + self.horizon
        for name, runs, reach in (("", self._steps, length), ("future", self._future, length),
                                  ("past", self._past, self.context)):  # fmt: skip
            if runs is None:
                continue
            digest.update(name.encode())
            for begin, end in _reached(starts, reach, len(runs.series)):
                for first in range(begin, end, HASHED_ROWS):
                    rows = runs.series[first : min(first + HASHED_ROWS, end)].numpy()
                    digest.update(np.ascontiguousarray(rows).tobytes())
        origin = int(starts.min()) if len(starts) else 0
        for first in range(0, len(starts), HASHED_ROWS):
            digest.update((starts[first : first + HASHED_ROWS].astype(np.int64) - origin).tobytes())
        return digest.hexdigest()[:16]


def window_units(context: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (batch, 1, channel) of raw contexts (batch, context, channel), each by itself.

    The scale is 1 for a constant window. Sums are of differences to the last step, which are exact for values
    near it, so that a window far from zero keeps its digits; a deployed graph computes the same in float32.
    """
    last = context[:, -1:].astype(np.float64)
    offset = context - last
    mean = offset.mean(axis=1, keepdims=True)
    spread = (offset - mean).std(axis=1, keepdims=True)
    return mean + last, np.where(spread > 0, spread, 1.0)


def raw_inputs(windows: Windows, index: torch.Tensor, scaled: Signature, own: Signature) -> dict[str, np.ndarray]:
    """Inputs of a forecaster's graph for some windows in float32, by name: raw, less the forecaster's offsets.

    Args:
        windows: Where the windows are.
        index: Their positions, (batch,).
        scaled: How the windows' task scales.
        own: What the forecaster takes: steps, covariates and offsets.

    Returns:
        `context` (batch, context, channel) and, where the forecaster takes them, `future` (batch, context + horizon,
        feature) and `past` (batch, context, column).
    """
    batch = windows.batch(index)
    steps = {"context": own.context, "future": own.context + own.horizon, "past": own.context}
    batch = replace(batch, future=batch.future if own.future else None, past=batch.past if own.past else None)
    inputs, _ = less_offsets(batch, windows, scaled, own)
    return {name: values[:, -steps[name] :].astype(np.float32) for name, values in inputs.items()}


def less_offsets(
    batch: Batch, windows: Windows, scaled: Signature, own: Signature | None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Context and covariates of a batch as a forecaster's graph takes them, float64, by name; and the context's shift.

    Nothing far from zero is computed with, so that no digit is lost on the way from one offset to another.

    Args:
        batch: Some of the windows.
        windows: Where they are.
        scaled: How the windows' task scales.
        own: The forecaster's signature: its offsets are subtracted, or each window's own level where it standardises
            each by itself. None for raw values.

    Returns:
        The inputs, and what was subtracted from contexts besides the windows' own offsets, (1 or batch, 1, channel).
    """
    by_item = scaled.normalisation == "window" and windows.scaler is not None
    mean, scale = windows.units(batch.index) if by_item else (np.asarray(scaled.mean), np.asarray(scaled.scale))
    context = batch.context.numpy() * scale + mean
    offset = windows.offsets(batch.index) if by_item else _offset(scaled, "context", context.shape[-1])
    if own is not None and own.normalisation == "window":
        shift = own_levels(context if own.context >= context.shape[1] else context[:, -own.context :])
    else:
        shift = _offset(own, "context", context.shape[-1]) - offset
    inputs = {"context": context - shift if shift.any() else context}
    for name in ("future", "past"):
        if (values := getattr(batch, name)) is not None:
            mean, scale = (np.asarray(getattr(scaled, f"{name}_{statistic}")) for statistic in ("mean", "scale"))
            less = _offset(own, name, values.shape[-1]) - _offset(scaled, name, values.shape[-1])
            raw = values.numpy() * scale + mean
            inputs[name] = raw - less if less.any() else raw
    return inputs, shift


def _offset(signature: Signature | None, name: str, n_columns: int) -> np.ndarray:
    """The offset of one input, (1, 1, column); zeros where a signature has none or does not look at it."""
    is_seen = signature is not None and (name == "context" or getattr(signature, name))
    return (offset_of(signature, name, n_columns) if is_seen else np.zeros(n_columns))[None, None]


class _Runs:
    """Every run of `length` rows of a series (row, channel), as views of its memory."""

    def __init__(self, series: torch.Tensor, length: int) -> None:
        import torch

        n_rows, n_channels = series.shape
        # A copy only for a series that does not lie channel by channel; a task's does.
        flat = series.t().contiguous().view(-1)
        self.series = flat.view(n_channels, n_rows).t()
        self._shape = (n_channels, length)
        # Runs that begin in one channel and end in the next are here too and never read.
        self._runs = flat.as_strided((max(len(flat) - length + 1, 0), length), (1, 1))
        self._offsets = torch.arange(n_channels) * n_rows

    def gather(self, starts: torch.Tensor) -> torch.Tensor:
        """The runs that begin at the rows `starts` (batch,): (batch, length, channel)."""
        positions = (starts[:, None] + self._offsets).flatten().to(self._runs.device)
        return self._runs.index_select(0, positions).view(len(starts), *self._shape).transpose(1, 2)


def _reached(starts: np.ndarray, length: int, n_rows: int) -> Iterator[tuple[int, int]]:
    """First and last row (exclusive) of each stretch that windows of some length reach, in order."""
    # One byte per row, where the starts themselves, sorted, would take eight.
    begins = np.zeros(n_rows, dtype=bool)
    begins[starts] = True
    begin = end = 0
    for block in range(0, n_rows, HASHED_ROWS):
        rows = block + np.flatnonzero(begins[block : block + HASHED_ROWS])
        for run in np.split(rows, np.flatnonzero(np.diff(rows) > length) + 1) if len(rows) else ():
            if run[0] > end:
                if end > begin:
                    yield begin, end
                begin = int(run[0])
            end = int(run[-1]) + length
    if end > begin:
        yield begin, end
