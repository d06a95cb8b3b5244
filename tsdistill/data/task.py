"""A forecasting task: which past steps a model sees, which future steps it owes, and on which rows it is judged.

Windows are views. The scaled series is stored once; a batch gathers its windows through a strided view of it, so memory
grows with the series and not with windows times context.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from tsdistill.data.repair import hold
from tsdistill.data.split import Borders, Split
from tsdistill.errors import ConfigError, DataError, listed, must
from tsdistill.spec import Spec, digest_of

if TYPE_CHECKING:
    import torch

    from tsdistill.data.panel import Panel

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")


class Signature(Spec):
    """What a forecaster takes and gives: steps, channels, their scaling and step width.

    Args:
        context: Past steps a forecast is made from.
        horizon: Future steps forecast.
        channels: Names of the value columns, in order.
        mean: Per channel, subtracted before the model (raw units).
        scale: Per channel, divided by before the model (raw units, above 0).
        frequency: Step width as a pandas offset alias, or None when the data has no regular stamps.
    """

    context: int
    horizon: int
    channels: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    frequency: str | None = None


@dataclass(frozen=True)
class Batch:
    """Some windows: `context` (batch, context, channel) and `target` (batch, horizon, channel), both scaled.

    `index` holds the windows' positions within their part, so that cached teacher forecasts can be looked up. `mask`
    (target's shape, True where it counts) and the covariates `past` and `future` are None when a task has none.
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


class Windows:
    """All windows of one part of a task, as views of one scaled series.

    Args:
        series: Scaled values of all items one below the other, (row, channel), float32.
        starts: First row of each window, (window,).
        context: Past steps of a window.
        horizon: Future steps of a window.
    """

    def __init__(self, series: torch.Tensor, starts: torch.Tensor, context: int, horizon: int) -> None:
        self.series, self.starts, self.context, self.horizon = series, starts, context, horizon
        # (row, channel, step): the strided view that every batch is gathered from.
        self._view = series.unfold(0, context + horizon, 1)

    def __len__(self) -> int:
        return len(self.starts)

    def batch(self, index: torch.Tensor) -> Batch:
        """The windows at the positions `index` (batch,)."""
        steps = self._view[self.starts[index]].transpose(1, 2)
        return Batch(context=steps[:, : self.context], target=steps[:, self.context :], index=index)

    def batches(self, batch_size: int, order: torch.Tensor | None = None) -> Iterator[Batch]:
        """Every window once, in `order` (a permutation of positions) or in time order; the last batch may be short."""
        import torch

        order = torch.arange(len(self)) if order is None else order
        for chunk in order.split(batch_size):
            yield self.batch(chunk)

    def subset(self, index: torch.Tensor) -> Windows:
        """The windows at the positions `index`, as views of the same series."""
        return Windows(self.series, self.starts[index], self.context, self.horizon)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Digest of the windows: of the rows they reach and of nothing else."""
        reached = np.zeros(len(self.series) + 1, dtype=np.int64)
        starts = self.starts.numpy()
        np.add.at(reached, starts, 1)
        np.add.at(reached, np.minimum(starts + self.context + self.horizon, len(self.series)), -1)
        rows = np.cumsum(reached[:-1]) > 0
        digest = hashlib.sha256(f"{self.context}+{self.horizon}".encode())
        digest.update(np.ascontiguousarray(self.series.numpy()[rows]).tobytes())
        digest.update((starts - starts.min() if len(starts) else starts).tobytes())
        return digest.hexdigest()[:16]


class Task:
    """A panel with a context, a horizon, a split, and a scaler fitted on the training part only.

    Args:
        panel: The data.
        context: Past steps a model sees.
        horizon: Future steps a model forecasts.
        split: How to cut each item; by default the panel's own borders, else 70 / 10 / 20 %.
        scaler: "standard" (mean and standard deviation of the training rows, per channel) or None (raw values).

    Raises:
        ConfigError: context or horizon below 1, or an unknown scaler.
        DataError: an item is too short for the windows of a part; every such item is listed.

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
        scaler: Literal["standard"] | None = "standard",
    ) -> None:
        problems = [
            must(name, "be a whole number of at least 1", value, "Give a number of steps")
            for name, value in (("context", context), ("horizon", horizon))
            if not isinstance(value, int) or isinstance(value, bool) or value < 1
        ]
        if scaler not in ("standard", None):
            problems.append(must("scaler", 'be "standard" or None', scaler, "Leave it out for the default"))
        if problems:
            raise ConfigError(listed(problems, "Task"))
        self.panel, self.context, self.horizon = panel, context, horizon
        self.split = split or panel.split or Split.fractions(0.7, 0.1, 0.2)
        self.scaler = scaler
        self.borders = self._borders()
        self._values = self._known_values()
        self.mean, self.scale = self._fit_scaler()

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the value columns."""
        return self.panel.channels

    @functools.cached_property
    def signature(self) -> Signature:
        """What a forecaster for this task takes and gives."""
        return Signature(
            context=self.context,
            horizon=self.horizon,
            channels=self.channels,
            mean=tuple(self.mean.tolist()),
            scale=tuple(self.scale.tolist()),
            frequency=self.panel.frequency,
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
            raise ConfigError(must("split", f"be one of {', '.join(PARTS)}", part, "Pick one of them"))
        return self._windows[part]

    @functools.cached_property
    def fingerprint(self) -> str:
        """Digest of everything selection may see: training and validation windows and the signature."""
        seen = [self.train.fingerprint, self.validation.fingerprint, self.signature.digest]
        return digest_of(seen)

    @functools.cached_property
    def _windows(self) -> dict[Part, Windows]:
        import torch

        n_rows = sum(len(item.values) for item in self.panel.items)
        series = np.empty((n_rows, len(self.channels)), dtype=np.float32)
        starts: dict[Part, list[np.ndarray]] = {part: [] for part in PARTS}
        offset = 0
        for values, borders in zip(self._values, self.borders, strict=True):
            rows = len(values)
            series[offset : offset + rows] = (values - self.mean) / self.scale
            for part, begin, end in _spans(borders, self.context):
                starts[part].append(offset + np.arange(begin, end - self.context - self.horizon + 1))
            offset += rows
        tensor = torch.from_numpy(series)
        return {
            part: Windows(tensor, torch.from_numpy(np.concatenate(firsts)), self.context, self.horizon)
            for part, firsts in starts.items()
        }

    def _known_values(self) -> list[np.ndarray]:
        """Values of each item in which no part has learnt, through interpolation, what the next part begins with."""
        known, problems = [], []
        for item, cut in zip(self.panel.items, self.borders, strict=True):
            values = item.values
            if item.marks is not None and self.panel.notes.get("fill") == "interpolate":
                values = values.copy()
                for border in (cut.train, cut.validation):
                    problems += [
                        f"channel {self.channels[channel]!r} of item {item.unique_id!r} has no observed value before "
                        f"row {border}, where a part of the split ends. Leave the channel out, or split later."
                        for channel in hold(values, item.marks, border)
                    ]
            known.append(values)
        if problems:
            raise DataError(listed(problems, "the task"))
        return known

    def _borders(self) -> list[Borders]:
        borders, problems = [], []
        for item in self.panel.items:
            try:
                cut = self.split.borders(len(item.values), item.ds)
            except DataError as error:
                problems.append(f"item {item.unique_id!r}: {error}")
                continue
            for part, begin, end in _spans(cut, self.context):
                if begin < 0 or end - begin < self.context + self.horizon:
                    problems.append(
                        f"item {item.unique_id!r} has {max(end - max(begin, 0), 0)} rows for the {part} part (context "
                        f"included), fewer than context + horizon = {self.context + self.horizon}. "
                        "Use a shorter context or horizon, more data, or another split."
                    )
            borders.append(cut)
        if problems:
            raise DataError(listed(problems, "the task"))
        return borders

    def _fit_scaler(self) -> tuple[np.ndarray, np.ndarray]:
        n_channels = len(self.channels)
        if self.scaler is None:
            return np.zeros(n_channels), np.ones(n_channels)
        rows = np.concatenate([values[: cut.train] for values, cut in zip(self._values, self.borders, strict=True)])
        spread = rows.std(axis=0)
        # A channel that never moves in training is only centred: dividing by its spread would be dividing by nothing,
        # or by the rounding of its mean.
        still = spread <= 1e-12 * np.abs(rows).max(axis=0)
        return rows.mean(axis=0), np.where(still, 1.0, spread)


def _spans(borders: Borders, context: int) -> list[tuple[Part, int, int]]:
    """First and last row (exclusive) that the windows of each part may touch."""
    return [
        ("train", 0, borders.train),
        ("validation", borders.train - context, borders.validation),
        ("test", borders.validation - context, borders.test),
    ]
