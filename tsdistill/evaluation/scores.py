"""Score a model on every window of a part: one pass, nothing dropped, the same whatever the batch size."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tsdistill.deprecation import renamed_argument
from tsdistill.errors import check_type
from tsdistill.evaluation.forecasting import Model, Prediction, predictions_of, quantile_levels
from tsdistill.metrics import Axis, Total, coverage, crossing_rate, mae, mse, naive_scale, wql

if TYPE_CHECKING:
    from tsdistill.data.task import Batch, Part, Task, Windows


@dataclass(frozen=True, eq=False)
class QuantileScores:
    """How well quantiles forecast, by window and channel.

    Args:
        levels: What the weighted quantile loss is a mean over.
        loss: Pinball losses over the size of the targets, both in raw units.
        nominal: Share that the widest symmetric pair of the model's own levels should cover; None where it has none.
        covered: Targets within that pair.
        crossed: Neighbouring levels of which the upper lies below the lower; None for fewer than two levels.
    """

    levels: tuple[float, ...]
    loss: Total
    nominal: float | None = None
    covered: Total | None = None
    crossed: Total | None = None

    def to_dict(self) -> dict[str, float]:
        """Weighted quantile loss, and coverage and crossing rate where the model has quantiles."""
        numbers = {"wql": float(self.loss.sum.sum() / size) if (size := float(self.loss.count.sum())) else None}
        if self.covered is not None:
            numbers |= {"coverage": _mean(self.covered), "nominal_coverage": self.nominal}
        if self.crossed is not None:
            numbers["crossing_rate"] = _mean(self.crossed)
        return {name: value for name, value in numbers.items() if value is not None}


@dataclass(frozen=True, eq=False)
class Scores:
    """Errors of one model on the windows of one part, kept fine enough for every table, curve and test made from them.

    Args:
        squared: Squared scaled errors by window and channel.
        absolute: Absolute scaled errors by window and channel.
        squared_by_step: Squared scaled errors by step and channel.
        absolute_by_step: Absolute scaled errors by step and channel.
        scale: (window, channel), raw units in one scaled unit.
        yardstick: (window, channel), scaled seasonal naive error of the window's item in training; NaN or 0 if there is
            none.
        times: (window,), when each window's target begins: windows of several items at one time share a label.
        quantiles: Scores of the quantiles, where levels were given or the model has some.
    """

    squared: Total
    absolute: Total
    squared_by_step: Total
    absolute_by_step: Total
    scale: np.ndarray
    yardstick: np.ndarray
    times: np.ndarray
    quantiles: QuantileScores | None = None

    @property
    def window_losses(self) -> np.ndarray:
        """Mean squared scaled error of each window, (window,), in the order of the part's windows."""
        return np.asarray(Total(self.squared.sum.sum(axis=1), self.squared.count.sum(axis=1)).mean)

    def mse_on(self, positions: np.ndarray | slice) -> float:
        """Mean squared scaled error of the windows at some positions."""
        return _mean(Total(self.squared.sum[positions], self.squared.count[positions]))

    @property
    def mse_by_step(self) -> np.ndarray:
        """Mean squared scaled error of each step of the horizon, (step,)."""
        return np.asarray(Total(self.squared_by_step.sum.sum(axis=1), self.squared_by_step.count.sum(axis=1)).mean)

    @property
    def mse_by_channel(self) -> np.ndarray:
        """Mean squared scaled error of each channel, (channel,)."""
        return np.asarray(Total(self.squared.sum.sum(axis=0), self.squared.count.sum(axis=0)).mean)

    def to_dict(self) -> dict[str, float]:
        """The numbers of `evaluate`."""
        usable = self.yardstick > 0
        scaled = np.divide(self.absolute.sum, self.yardstick, out=np.zeros_like(self.yardstick), where=usable)
        numbers = {
            "mse": _mean(self.squared),
            "mae": _mean(self.absolute),
            "mse_raw": _mean(self.squared, self.scale**2),
            "mae_raw": _mean(self.absolute, self.scale),
            "n_windows": float(len(self.times)),
        }
        if counted := float(self.absolute.count[usable].sum()):
            numbers["mase"] = float(scaled.sum()) / counted
        return numbers if self.quantiles is None else {**numbers, **self.quantiles.to_dict()}


@renamed_argument("split", "part")
def evaluate(model: Model, task: Task, part: Part = "validation", *, batch_size: int = 256) -> dict[str, float]:
    """Errors of a model on every window of a part of a task.

    mse = mean over windows, steps and channels of (forecast - target)^2 on scaled data, as the literature reports it;
    mae likewise; mse_raw and mae_raw in the data's own units; mase = mae over the seasonal naive error in training. For
    a model with a quantile head also: wql = pinball loss of its levels over the summed size of the targets (raw units,
    see `metrics.wql`), coverage = share of targets within its outermost symmetric pair of levels, which should be
    nominal_coverage, and crossing_rate = share of neighbouring levels that cross (0 by construction, measured all the
    same).

    Use it with "validation" to choose between models and with "test" once, at the end. A deployed model is scored
    through the runtime that serves it; in INT8 one window at a time, as it was timed, because other windows of a batch
    would change its scale. A model trained with another scaling is scored on its own scale and brought back.

    Args:
        model: A forecaster, a deployed one or a teacher.
        task: What to forecast. Its channels and horizon must be the model's; its context must be at least as long.
        part: "train", "validation" or "test".
        batch_size: Windows forecast at once; changes speed and nothing else.

    Returns:
        "mse", "mae" (scaled), "mse_raw", "mae_raw" (raw units), "mase" (left out without a varying item in training)
        and "n_windows"; with quantiles "wql", "coverage", "nominal_coverage" and "crossing_rate".

    Raises:
        ShapeError: The model's channels, horizon or context do not fit the task.
        ConfigError: `part` is not a part of a task, or `batch_size` is below 1.
        DataError: The model forecast something that is not finite.
        UnsupportedError: `model` is neither a forecaster nor a teacher.

    Example:
        >>> from tsdistill.models import LinearConfig
        >>> from tsdistill.testing import toy_task
        >>> from tsdistill.training import train
        >>> task = toy_task()
        >>> scores = evaluate(train(LinearConfig(), task), task)
        >>> sorted(scores)
        ['mae', 'mae_raw', 'mase', 'mse', 'mse_raw', 'n_windows']
    """
    return score(model, task, part, batch_size=batch_size).to_dict()


@renamed_argument("split", "part")
def score(
    model: Model,
    task: Task,
    part: Part = "validation",
    *,
    batch_size: int = 256,
    levels: tuple[float, ...] = (),
    positions: np.ndarray | None = None,
) -> Scores:
    """The errors behind `evaluate`, by window, step and channel.

    Args:
        model: A forecaster, a deployed one or a teacher.
        task: What to forecast.
        part: "train", "validation" or "test".
        batch_size: Windows forecast at once.
        levels: Take the weighted quantile loss over these levels, which a model with quantiles must have; the forecast
            of any other model counts as each of its quantiles. Nothing: over the model's own.
        positions: (window,), score only the windows at these positions of the part, rising.

    Returns:
        `Scores`, of which tables, curves and tests are made.

    Raises:
        ShapeError, ConfigError, DataError, UnsupportedError: As `evaluate`.
    """
    from tsdistill.data.task import Task

    check_type("task", task, Task, "Pass td.Task(panel, context=..., horizon=...)")
    windows = _chosen(task.windows(part), positions)
    by_window: list[tuple[Total, Total]] = []
    quantiles = []
    steps = [Total(0.0, 0), Total(0.0, 0)]
    own = quantile_levels(model)
    levels = levels or own
    for batch, prediction in predictions_of(model, windows, task.signature, batch_size):
        target = batch.target.numpy()
        mask = None if batch.mask is None else batch.mask.numpy()
        squared, absolute = (metric(prediction.forecast, target, by=_FINE, mask=mask) for metric in (mse, mae))
        by_window.append((_over(squared, 1), _over(absolute, 1)))
        steps = [total + _over(fine, 0) for total, fine in zip(steps, (squared, absolute), strict=True)]
        if levels:
            quantiles.append(_quantile_scores(prediction, batch, windows, own, levels))
    items, rows = origins(task, windows)
    return Scores(
        squared=_stacked([squared for squared, _ in by_window]),
        absolute=_stacked([absolute for _, absolute in by_window]),
        squared_by_step=steps[0],
        absolute_by_step=steps[1],
        scale=task.units[items],
        yardstick=(_naive_scales(task) / task.units)[items],
        times=_times(task, items, rows),
        quantiles=_joined(quantiles) if quantiles else None,
    )


def _chosen(windows: Windows, positions: np.ndarray | None) -> Windows:
    import torch

    return windows if positions is None else windows.subset(torch.from_numpy(np.asarray(positions, dtype=np.int64)))


def _quantile_scores(
    prediction: Prediction,
    batch: Batch,
    windows: Windows,
    own: tuple[float, ...],
    levels: tuple[float, ...],
) -> QuantileScores:
    """Scores of one batch; a forecast without quantiles counts as each of them."""
    mean, scale = windows.units(batch.index)
    scaled = batch.target.numpy()
    mask = None if batch.mask is None else batch.mask.numpy()
    by: tuple[Axis, ...] = ("window", "channel")
    if prediction.quantiles is None:
        quantiles = np.repeat(prediction.forecast[..., None], len(levels), axis=-1)
    else:
        quantiles = prediction.quantiles[..., [own.index(level) for level in levels]]
    raw, target = quantiles * scale[..., None] + mean[..., None], scaled * scale + mean
    loss = wql(raw, target, levels, by=by, mask=mask)
    if (offset := windows.offsets(batch.index)).any():
        # Errors do not change with a level, and keep their digits without it; the size of the targets does change.
        loss = Total(loss.sum, wql(raw, target + offset, levels, by=by, mask=mask).count)
    if prediction.quantiles is None:
        return QuantileScores(levels, loss)
    crossed = crossing_rate(prediction.quantiles, by=by, mask=mask) if len(own) > 1 else None
    if (pair := outer_pair(own)) is None:
        return QuantileScores(levels, loss, crossed=crossed)
    low, high = (prediction.quantiles[..., place] for place in pair)
    nominal = round(own[pair[1]] - own[pair[0]], 6)
    return QuantileScores(levels, loss, nominal, coverage(low, high, scaled, by=by, mask=mask), crossed)


def outer_pair(levels: tuple[float, ...]) -> tuple[int, int] | None:
    """Positions of the outermost two levels that leave out as much below as above, None if there are no such two.

    Example:
        >>> outer_pair((0.05, 0.1, 0.5, 0.9))
        (1, 3)
    """
    for low, level in enumerate(levels):
        for high in range(len(levels) - 1, low, -1):
            if abs(level + levels[high] - 1) < 1e-9:
                return low, high
    return None


def _joined(scores: list[QuantileScores]) -> QuantileScores:
    first = scores[0]

    def joined(totals: Iterable[Total | None]) -> Total | None:
        known = [total for total in totals if total is not None]
        return _stacked(known) if known else None

    return QuantileScores(
        levels=first.levels,
        loss=_stacked([part.loss for part in scores]),
        nominal=first.nominal,
        covered=joined(part.covered for part in scores),
        crossed=joined(part.crossed for part in scores),
    )


@renamed_argument("split", "part")
def window_losses(model: Model, task: Task, part: Part = "validation", *, batch_size: int = 256) -> np.ndarray:
    """Mean squared scaled error of each window, (window,), in order: what `compare_losses` takes.

    Args:
        model: A forecaster, a deployed one or a teacher.
        task: What to forecast.
        part: "train", "validation" or "test".
        batch_size: Windows forecast at once.

    Returns:
        (window,), float64.

    Raises:
        ShapeError, ConfigError, DataError, UnsupportedError: As `evaluate`.

    Example:
        >>> from tsdistill.models import SeasonalNaiveConfig
        >>> from tsdistill.testing import toy_task
        >>> task = toy_task()
        >>> window_losses(SeasonalNaiveConfig(period=24).build(task.signature), task).shape
        (91,)
    """
    return score(model, task, part, batch_size=batch_size).window_losses


_FINE: tuple[Axis, ...] = ("window", "step", "channel")


def _over(total: Total, axis: int) -> Total:
    return Total(total.sum.sum(axis=axis), total.count.sum(axis=axis))


def _stacked(totals: list[Total]) -> Total:
    return Total(np.concatenate([total.sum for total in totals]), np.concatenate([total.count for total in totals]))


def _mean(total: Total, unit: np.ndarray | float = 1.0) -> float:
    """The mean of scaled errors by window and channel, each in its own unit."""
    return float((total.sum * unit).sum() / total.count.sum())


def origins(task: Task, windows: Windows) -> tuple[np.ndarray, np.ndarray]:
    """Item of each window and the row in it where the target begins, (window,) each."""
    lengths = np.array([len(item.values) for item in task.panel.items])
    ends = np.cumsum(lengths)
    starts = windows.starts.numpy()
    items = np.searchsorted(ends, starts, side="right")
    return items, starts - (ends - lengths)[items] + windows.context


def _naive_scales(task: Task) -> np.ndarray:
    """Seasonal naive error of each item in training, (item, channel), raw units."""
    period = task.panel.periods[0] if task.panel.periods else 1
    return np.stack([naive_scale(task.values(number)[: cut.train], period) for number, cut in enumerate(task.borders)])


def _times(task: Task, items: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """A sortable label of the time at which each window's target begins."""
    stamps = [item.ds for item in task.panel.items if item.ds is not None]
    if len(stamps) < len(task.panel.items):
        return rows
    times = np.empty(len(rows), dtype="datetime64[ns]")
    for number, ds in enumerate(stamps):
        windows = items == number
        times[windows] = ds.to_numpy(dtype="datetime64[ns]")[rows[windows]]
    return times
