"""Score a model on every window of a part: one pass, nothing dropped, the same whatever the batch size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tsdistill.data.windows import window_units
from tsdistill.errors import ConfigError, DataError, ShapeError, UnsupportedError, listed, must
from tsdistill.metrics import Axis, Total, mae, mse, naive_scale

if TYPE_CHECKING:
    from tsdistill.data.task import Batch, Part, Signature, Task, Windows

Model = Any
"""A trainable forecaster, a deployed one, or anything else with `forecast(batch)` (the teacher protocol)."""


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
    """

    squared: Total
    absolute: Total
    squared_by_step: Total
    absolute_by_step: Total
    scale: np.ndarray
    yardstick: np.ndarray
    times: np.ndarray

    @property
    def window_losses(self) -> np.ndarray:
        """Mean squared scaled error of each window, (window,), in the order of the part's windows."""
        return np.asarray(Total(self.squared.sum.sum(axis=1), self.squared.count.sum(axis=1)).mean)

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
        return numbers


def evaluate(model: Model, task: Task, split: Part = "validation", *, batch_size: int = 256) -> dict[str, float]:
    """Errors of a model on every window of a part of a task.

    mse = mean over windows, steps and channels of (forecast - target)^2 on scaled data, as the literature reports it;
    mae likewise; mse_raw and mae_raw in the data's own units; mase = mae over the seasonal naive error in training.

    Use it with "validation" to choose between models and with "test" once, at the end. A deployed model is scored
    through the runtime that serves it; in INT8 one window at a time, as it was timed, because batch mates would move
    its scale. A model trained with another scaling is scored on its own scale and brought back.

    Args:
        model: A forecaster, a deployed one or a teacher.
        task: What to forecast. Its channels and horizon must be the model's; its context must be at least as long.
        split: "train", "validation" or "test".
        batch_size: Windows forecast at once; changes speed and nothing else.

    Returns:
        "mse", "mae" (scaled), "mse_raw", "mae_raw" (raw units), "mase" (left out when no item ever moved in training)
        and "n_windows".

    Raises:
        ShapeError: The model's channels, horizon or context do not fit the task.
        ConfigError: `split` is no part, or `batch_size` is below 1.
        DataError: The model forecast something that is not finite.
        UnsupportedError: `model` is none of the three kinds.

    Example:
        >>> from tsdistill.models import LinearConfig
        >>> from tsdistill.testing import toy_task
        >>> from tsdistill.training import train
        >>> task = toy_task()
        >>> found = evaluate(train(LinearConfig(), task), task)
        >>> sorted(found)
        ['mae', 'mae_raw', 'mase', 'mse', 'mse_raw', 'n_windows']
    """
    return score(model, task, split, batch_size=batch_size).to_dict()


def score(model: Model, task: Task, split: Part = "validation", *, batch_size: int = 256) -> Scores:
    """The errors behind `evaluate`, by window, step and channel; same arguments and errors."""
    windows = task.windows(split)
    by_window: list[tuple[Total, Total]] = []
    steps = [Total(0.0, 0), Total(0.0, 0)]
    for batch, forecast in _forecast_batches(model, windows, task.signature, batch_size):
        target = batch.target.numpy()
        mask = None if batch.mask is None else batch.mask.numpy()
        squared, absolute = (metric(forecast, target, by=_FINE, mask=mask) for metric in (mse, mae))
        by_window.append((_over(squared, 1), _over(absolute, 1)))
        steps = [total + _over(fine, 0) for total, fine in zip(steps, (squared, absolute), strict=True)]
    items, rows = origins(task, windows)
    return Scores(
        squared=_stacked([squared for squared, _ in by_window]),
        absolute=_stacked([absolute for _, absolute in by_window]),
        squared_by_step=steps[0],
        absolute_by_step=steps[1],
        scale=task.units[items],
        yardstick=(_naive_scales(task) / task.units)[items],
        times=_times(task, items, rows),
    )


def forecasts(
    model: Model, windows: Windows, signature: Signature | None = None, *, batch_size: int = 256
) -> np.ndarray:
    """Scaled forecasts of every window, whatever the model is.

    Args:
        model: A forecaster, a deployed one or a teacher.
        windows: What to forecast.
        signature: How the windows are scaled (`task.signature`). None: as the model was trained.
        batch_size: Windows forecast at once.

    Returns:
        (window, horizon, channel), float32, in the order of the windows.

    Raises:
        ShapeError: The model's channels, horizon or context do not fit the windows.
        ConfigError: `batch_size` is below 1.
        DataError: The model forecast something that is not finite.
        UnsupportedError: `model` cannot forecast.

    Example:
        >>> from tsdistill.models import SeasonalNaiveConfig
        >>> from tsdistill.testing import toy_task
        >>> task = toy_task()
        >>> forecasts(SeasonalNaiveConfig(period=24).build(task.signature), task.validation, task.signature).shape
        (91, 11, 3)
    """
    found = [forecast for _, forecast in _forecast_batches(model, windows, signature, batch_size)]
    shape = (0, windows.horizon, windows.series.shape[1])
    return np.concatenate(found) if found else np.empty(shape, dtype=np.float32)


def window_losses(model: Model, task: Task, split: Part = "validation", *, batch_size: int = 256) -> np.ndarray:
    """Mean squared scaled error of each window, (window,), in order: what `compare_losses` takes.

    Args:
        model: A forecaster, a deployed one or a teacher.
        task: What to forecast.
        split: "train", "validation" or "test".
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
    return score(model, task, split, batch_size=batch_size).window_losses


_FINE: tuple[Axis, ...] = ("window", "step", "channel")


def _over(total: Total, axis: int) -> Total:
    return Total(total.sum.sum(axis=axis), total.count.sum(axis=axis))


def _stacked(totals: list[Total]) -> Total:
    return Total(np.concatenate([total.sum for total in totals]), np.concatenate([total.count for total in totals]))


def _mean(total: Total, unit: np.ndarray | float = 1.0) -> float:
    """The mean of scaled errors by window and channel, each in its own unit."""
    return float((total.sum * unit).sum() / total.count.sum())


def _forecast_batches(
    model: Model, windows: Windows, signature: Signature | None, batch_size: int
) -> Iterator[tuple[Batch, np.ndarray]]:
    """Batches and their checked forecasts, both scaled as the windows are."""
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ConfigError(must("batch_size", "be a whole number of at least 1", batch_size, "Leave it out"))
    check_fits(model, windows, signature)
    forecast = _forecast_function(model, getattr(model, "signature", None), signature, windows)
    for batch in windows.batches(batch_size):
        found = forecast(batch)
        if found.shape != tuple(batch.target.shape):
            raise ShapeError(
                f"{_title(model)} must forecast {tuple(batch.target.shape)} (window, step, channel), got "
                f"{found.shape}. Check the horizon and the channels it was made for."
            )
        if bad := int((~np.isfinite(found)).any(axis=(1, 2)).sum()):
            raise DataError(
                f"{_title(model)} must forecast finite numbers, got others in {bad} of {len(found)} windows (positions "
                f"{int(batch.index[0])} to {int(batch.index[-1])}). It has diverged or overflowed; train it again."
            )
        yield batch, found


def _forecast_function(
    model: Model, own: Signature | None, signature: Signature | None, windows: Windows
) -> Callable[[Batch], np.ndarray]:
    """What forecasts a batch, in and out scaled as the windows are; the model sees the scaling it was made for."""
    from tsdistill.exporting import Deployed

    if isinstance(model, Deployed):
        ours = signature or model.signature
        # Dynamic INT8 scales activations over the whole batch. It is timed at batch 1, so it is scored at batch 1.
        rows = 1 if model.precision == "int8" else None

        def through_runtime(batch: Batch) -> np.ndarray:
            mean, scale = _units(ours, windows, batch)
            raw = (batch.context.numpy() * scale + mean).astype(np.float32)
            parts = [raw[row : row + rows] for row in range(0, len(raw), rows)] if rows else [raw]
            found = np.concatenate([np.asarray(model.predict(part)) for part in parts])
            return ((found - mean) / scale).astype(np.float32)

        return through_runtime
    if not callable(getattr(model, "forecast", None)):
        raise UnsupportedError(
            f"`model` must be a forecaster, a deployed forecaster or a teacher with forecast(batch), got "
            f"{_title(model)}. Build one with td.train, td.distill or td.export."
        )
    device = _device(model)
    if own is None or signature is None or _scaling(own) == _scaling(signature):
        return lambda batch: np.asarray(model.forecast(batch.to(device)).detach().float().cpu().numpy())

    def rescaled(batch: Batch) -> np.ndarray:
        import torch

        mean, scale = _units(signature, windows, batch)
        raw = batch.context.numpy() * scale + mean
        centre, spread = np.asarray(own.mean), np.asarray(own.scale)
        if own.normalisation == "window":
            centre, spread = window_units(raw[:, -own.context :])
        moved = torch.from_numpy(((raw - centre) / spread).astype(np.float32))
        found = model.forecast(dataclasses.replace(batch, context=moved).to(device)).detach().float().cpu().numpy()
        return ((found * spread + centre - mean) / scale).astype(np.float32)

    return rescaled


def _scaling(signature: Signature) -> tuple[object, ...]:
    return signature.normalisation, signature.mean, signature.scale


def _units(signature: Signature, windows: Windows, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale that windows were scaled with: of the item of each, or of all alike."""
    if signature.normalisation == "window":
        return windows.units(batch.index)
    return np.asarray(signature.mean), np.asarray(signature.scale)


def _device(model: Model) -> Any:
    import torch

    parameters = getattr(model, "parameters", None)
    first = next(iter(parameters()), None) if callable(parameters) else None
    return torch.device("cpu") if first is None else first.device


def check_fits(model: Model, windows: Windows, signature: Signature | None = None) -> None:
    """Refuse a model whose channels, horizon or context are not the windows', all problems in one `ShapeError`."""
    own = getattr(model, "signature", None)
    if own is None:
        return
    channels = own.channels if signature is None else signature.channels
    problems = []
    if own.context > windows.context:
        remedy = "Make the task's context longer: a model uses the last steps of a longer one"
        problems.append(must("context", f"be at least the model's {own.context} steps", windows.context, remedy))
    if own.horizon != windows.horizon:
        problems.append(must("horizon", f"be the model's {own.horizon} steps", windows.horizon, "Change the task's"))
    if own.channels != channels or len(own.channels) != windows.series.shape[1]:
        problems.append(
            must("channels", f"be the model's {list(own.channels)}", list(channels), "Select these columns")
        )
    if problems:
        raise ShapeError(listed(problems, f"the task for {_title(model)}"))


def _title(model: Model) -> str:
    kind = getattr(getattr(model, "config", None), "kind", None)
    return f"{type(model).__name__}" + (f" {kind!r}" if isinstance(kind, str) else "")


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
        mine = items == number
        times[mine] = ds.to_numpy(dtype="datetime64[ns]")[rows[mine]]
    return times
