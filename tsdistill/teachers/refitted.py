"""Forecasters that are fitted anew to every window as teachers: any function of a series, any model of statsmodels."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tsdistill.data.task import Batch, Signature, Task
from tsdistill.errors import ConfigError, DataError, UnsupportedError, must
from tsdistill.inputs.levels import offset_of
from tsdistill.teachers.digests import check_name, teacher_digest
from tsdistill.teachers.inventory import inventory
from tsdistill.teachers.lending import own_copy
from tsdistill.teachers.places import Places

Forecasting = Callable[[np.ndarray, int], Any]
"""A series (time,) and a number of steps, to that many forecasts."""

N_TRIED = 3
"""Windows that a function is tried out on."""

N_PROBES = 32
"""Windows whose forecasts speak for a function that the digest cannot be sure of."""

MEMORY = 256
"""Fits that are remembered, for windows that share one."""


class RefittedTeacher:
    """A function of a series that forecasts every window and channel by itself; `from_function` makes one.

    Attributes:
        function: Takes a series and a number of steps.
        signature: Steps, channels and scaling of its task.
        stride: Every how many windows it is fitted.
        n_fits: Fits so far.
        n_warned: How many of them warned, by the name of the warning.
    """

    def __init__(self, function: Forecasting, task: Task, stride: int, made_of: Any, name: str | None = None) -> None:
        self.function = function
        self.name = name
        self.task = task
        self.stride = stride
        self.signature: Signature = task.without_covariates().signature
        self.n_fits = 0
        self.n_warned = Counter[str]()
        self._places = Places(task)
        self._paths = dict[tuple[int, int], np.ndarray]()
        self._made_of = made_of
        self.forecast(self._probes(N_TRIED))

    @property
    def digest(self) -> str:
        """Sixteen hex digits of the function: its code, constants, defaults, closure and the globals it looks at.

        Where a part does not say what it holds (`doubts`), forecasts of 32 windows speak for it.
        """
        details = ["refitted", self.stride, self.signature.digest]
        return teacher_digest(
            inventory(self._made_of), details, self.name, lambda: self.forecast(self._probes(N_PROBES))
        )

    @property
    def doubts(self) -> tuple[str, ...]:
        """What the digest cannot be sure of, each with its place; none for a teacher that has a name."""
        return () if self.name is not None else inventory(self._made_of, light=True).sentences()

    def _probes(self, n_windows: int) -> Batch:
        windows = self.task.train
        return windows.batch(torch.linspace(0, len(windows) - 1, min(n_windows, len(windows))).long())

    def check(self, task: Task) -> None:
        """Refuse a task of other windows."""
        self._places.check(task, "a forecaster that is refitted")

    def forecast(self, batch: Batch) -> Tensor:
        """Scaled forecasts (batch, horizon, channel) of training or validation windows.

        Raises:
            DataError: the function fails on a window, or what it gives is not one finite number per step.
            UnsupportedError: the windows are none of the task's training or validation windows, and with a stride above
                1, or a scaler per item, only these are known.
        """
        signature = self.signature
        part = self._places.locate(batch)
        bound = self.stride > 1 or signature.normalisation == "window"
        if part is None and bound:
            raise UnsupportedError(
                "A forecaster that is refitted every few windows, or in units of each item, knows the training and "
                "validation windows of its task only, got others. Use stride=1 and a common scaler."
            )
        if part is None:
            mean, scale = np.asarray(signature.mean), np.asarray(signature.scale)
            offset = offset_of(signature, "context", len(mean))
        else:
            mean, scale = self._places.windows(part).units(batch.index)
            offset = self._places.windows(part).offsets(batch.index)
        context = batch.context.cpu().numpy().astype(np.float64) * scale + mean + offset
        forecasts = np.empty((len(context), signature.horizon, context.shape[2]))
        if part is None or self.stride == 1:
            for window, channel in np.ndindex(len(context), context.shape[2]):
                forecasts[window, :, channel] = self._fitted(context[window, :, channel], signature.horizon, channel)
        else:
            ends = self._places.cutoffs(part)[batch.index.numpy()]
            for window, end in enumerate(ends):
                for channel in range(context.shape[2]):
                    forecasts[window, :, channel] = self._along(int(end), channel)
        return torch.from_numpy(((forecasts - offset - mean) / scale).astype(np.float32)).to(batch.context.device)

    def _along(self, end: int, channel: int) -> np.ndarray:
        """What follows a row of the stacked series, cut from the forecast of the last fit at or before it."""
        offset = int(self._places.offsets[self._places.items(np.array([end]))[0]])
        first = end - self.task.context + 1 - offset
        late = first % self.stride
        key = (end - late, channel)
        if key not in self._paths:
            if len(self._paths) >= MEMORY * len(self.signature.channels):
                self._paths.pop(next(iter(self._paths)))
            item = int(self._places.items(np.array([end]))[0])
            begin = first - late
            series = np.asarray(self.task.values(item)[begin : begin + self.task.context, channel], dtype=np.float64)
            self._paths[key] = self._fitted(series, self.signature.horizon + self.stride - 1, channel)
        return self._paths[key][late : late + self.signature.horizon]

    def _fitted(self, series: np.ndarray, n_steps: int, channel: int) -> np.ndarray:
        name = self.signature.channels[channel]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                forecast = np.asarray(self.function(series.copy(), n_steps), dtype=np.float64)
            except Exception as error:
                raise DataError(
                    f"The forecaster failed on a window of channel {name!r}: {type(error).__name__}: {error}. Let the "
                    "function answer for such a window too, for example with its last value."
                ) from error
        self.n_fits += 1
        self.n_warned.update({warning.category.__name__ for warning in caught})
        if forecast.shape != (n_steps,) or not np.isfinite(forecast).all():
            rest = "" if np.isfinite(forecast).all() else ", not all of them finite"
            raise DataError(
                f"The forecaster must give {n_steps} finite numbers for a window, got shape {forecast.shape} for "
                f"channel {name!r}{rest}. Check what it returns."
            )
        return forecast

    def __repr__(self) -> str:
        return f"<RefittedTeacher every {self.stride} windows, {self.n_fits:,} fits>"


def from_function(function: Forecasting, task: Task, *, stride: int = 1, name: str | None = None) -> RefittedTeacher:
    """Let any function of a series teach: it is given a context in raw units and returns the steps that follow.

    It is called for every training window and channel separately, so that teaching costs one call for each: at 20
    milliseconds, 10,000 windows of 7 channels take 23 minutes. With a `stride` it is called at every so many windows
    only, for `stride - 1` steps more, and the windows between take the rest of the last forecast: cheaper by that
    factor, never looking ahead, and older by up to `stride - 1` steps. A cache (`td.distill(cache=...)`) keeps the
    answers. Use it for what is fitted to one series at a time; for the methods that tsdistill brings,
    `td.evaluation.statistical` gives teachers.

    Args:
        function: Takes a series (context,) and a number of steps, gives that many forecasts.
        task: Whose windows to forecast.
        stride: Every how many windows of an item it is called.
        name: What you call exactly this version of it; see `td.wrap`.

    Returns:
        A teacher for this task; its digest holds the function's code and everything that the code looks at.

    Raises:
        ConfigError: `function` cannot be called, or `stride` is below 1.
        DataError: it fails on one of the three windows, or gives something else than finite numbers.

    Example:
        >>> from tsdistill.testing import toy_task
        >>> from_function(lambda series, n_steps: series[-24:][:n_steps], toy_task())
        <RefittedTeacher every 1 windows, 9 fits>
    """
    if not callable(function):
        raise ConfigError(must("function", "be callable with a series and a number of steps", function, "Write a def"))
    check_name(name)
    return RefittedTeacher(function, task, _stride(stride), function, name)


def from_statsmodels(
    model: Callable[..., Any],
    task: Task,
    *,
    settings: Mapping[str, Any] | None = None,
    fit: Mapping[str, Any] | None = None,
    stride: int = 1,
    name: str | None = None,
) -> RefittedTeacher:
    """Let a model class of statsmodels teach: `model(series, **settings).fit(**fit).forecast(n_steps)` for each window.

    See `from_function` for what a fit costs and what `stride` saves. A context that does not move is forecast not
    to move, without a fit.

    Args:
        model: Such as `statsmodels.tsa.holtwinters.ExponentialSmoothing`, `SARIMAX`, `ThetaModel` or `AutoReg`.
        task: Whose windows to forecast.
        settings: Keyword arguments of the model.
        fit: Keyword arguments of its `fit`, such as `{"disp": False}`.
        stride: Every how many windows of an item it is fitted.
        name: What you call exactly this version of it; see `td.wrap`.

    Returns:
        A teacher for this task.

    Raises:
        ConfigError: `model` cannot be called, or `stride` is below 1.
        DataError: a fit fails.

    Example:
        >>> from statsmodels.tsa.holtwinters import SimpleExpSmoothing
        >>> from tsdistill.testing import toy_task
        >>> teacher = from_statsmodels(SimpleExpSmoothing, toy_task(), settings={"initialization_method": "estimated"})
        >>> teacher
        <RefittedTeacher every 1 windows, 9 fits>
    """
    if not callable(model):
        raise ConfigError(must("model", "be a model class of statsmodels", model, "Give the class itself"))
    import statsmodels

    check_name(name)
    settings, fit = copy.deepcopy(dict(settings or {})), copy.deepcopy(dict(fit or {}))

    def refitted(series: np.ndarray, n_steps: int) -> np.ndarray:
        if np.ptp(series) == 0:
            return np.full(n_steps, series[-1])
        return np.asarray(model(series, **own_copy(settings)).fit(**own_copy(fit)).forecast(n_steps))

    made_of = [model, settings, fit, statsmodels.__version__]
    return RefittedTeacher(refitted, task, _stride(stride), made_of, name)


def _stride(stride: int) -> int:
    if not isinstance(stride, int) or isinstance(stride, bool) or stride < 1:
        raise ConfigError(must("stride", "be a whole number of at least 1", stride, "Leave it out to ask every window"))
    return stride
