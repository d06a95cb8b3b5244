"""Statistical forecasters, from statsmodels: fitted to the context of every window."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, get_args, overload

import numpy as np

from tsdistill.errors import ConfigError, DataError, must, nearest
from tsdistill.inputs import predict_raw
from tsdistill.spec import Spec, digest_of
from tsdistill.spec.limits import Steps

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from tsdistill.data.task import Batch, Signature, Task

Method = Literal["ets", "theta", "stl"]
METHODS: tuple[Method, ...] = get_args(Method)


class Statistical(Spec):
    """A statistical method and its season.

    Args:
        kind: "ets", "theta" or "stl".
        period: Steps of a season; 1 for none.

    Example:
        >>> Statistical(kind="theta", period=24).period
        24
    """

    kind: Method
    period: Steps = 1


class StatisticalForecaster:
    """A local statistical method: it uses the context of a window and nothing else.

    It has no weights: its few parameters are estimated again from every context, for each channel by itself, so that it
    cannot look ahead, needs no training part and treats items it has never seen like any other. It has the `forecast`
    and `digest` of a teacher. It cannot be exported, pruned or quantized.

    Values are divided by the channel's scale and not centred before a fit, because a multiplicative season needs
    the true zero. Of a task with `scaler="item"` it sees standardised values, and all its seasons are additive; so
    they are of a channel so far from zero that it has an offset in the signature, which is subtracted.
    A channel that is constant in a window is forecast as constant.

    Attributes:
        config: The method and its season.
        signature: Steps, channels and scaling.
        n_fits: Fits so far.
        n_warned: How many of them statsmodels warned about, by the name of the warning.
    """

    n_parameters = 0

    def __init__(self, config: Statistical, signature: Signature) -> None:
        self.config = config
        self.signature = signature
        self.n_fits = 0
        self.n_warned = Counter[str]()

    @property
    def digest(self) -> str:
        """Sixteen hex digits of the method, the signature and the version of statsmodels."""
        import statsmodels

        return digest_of([self.config.digest, self.signature.digest, statsmodels.__version__])

    @property
    def remark(self) -> str:
        """Its season, its fits so far and their warnings, in one line."""
        season = f"season of {self.config.period} steps" if self.config.period > 1 else "no season"
        warned = ", ".join(f"{name} {count}" for name, count in sorted(self.n_warned.items())) or "none with a warning"
        return f"{season}; {self.n_fits} fits, {warned}"

    def forecast(self, batch: Batch) -> torch.Tensor:
        """Scaled forecasts (batch, horizon, channel) of a batch, window by window and channel by channel.

        Raises:
            DataError: statsmodels cannot fit a window; the message says which.
        """
        import torch

        level = np.asarray(self.signature.mean) / np.asarray(self.signature.scale)
        values = batch.context.cpu().numpy().astype(np.float64) + level
        return torch.from_numpy((self._fitted(values) - level).astype(np.float32))

    @overload
    def predict(self, x: np.ndarray) -> np.ndarray: ...
    @overload
    def predict(self, x: pd.DataFrame) -> pd.DataFrame: ...
    def predict(self, x: np.ndarray | pd.DataFrame) -> np.ndarray | pd.DataFrame:
        """Raw-unit forecasts: arrays (batch, context, channel) give (batch, horizon, channel), frames give frames."""
        scale = np.asarray(self.signature.scale)

        def run(context: np.ndarray) -> np.ndarray:
            return (self._fitted(context / scale) * scale).astype(np.float32)

        return predict_raw(x, self.signature, run)

    def _fitted(self, values: np.ndarray) -> np.ndarray:
        """Forecasts of uncentred contexts (batch, context, channel)."""
        values = values[:, -self.signature.context :]
        forecasts = np.empty((len(values), self.signature.horizon, values.shape[2]))
        for window, channel in np.ndindex(len(values), values.shape[2]):
            try:
                forecasts[window, :, channel] = self._one(values[window, :, channel])
            except (ValueError, np.linalg.LinAlgError) as error:
                name = self.signature.channels[channel]
                raise DataError(
                    f"{self.config.kind} cannot be fitted to window {window} of the batch, channel {name!r}: {error}. "
                    "Leave this method or this channel out."
                ) from error
        return forecasts

    def _one(self, series: np.ndarray) -> np.ndarray:
        horizon = self.signature.horizon
        if np.ptp(series) == 0:
            return np.full(horizon, series[-1])
        with warnings.catch_warnings(record=True) as raised:
            warnings.simplefilter("always")
            forecast = _FIT[self.config.kind](series, self.config.period, horizon)
        self.n_fits += 1
        self.n_warned.update({warning.category.__name__ for warning in raised})
        return forecast

    def __repr__(self) -> str:
        return f"<StatisticalForecaster {self.config.kind}, {self.remark}>"


def statistical(method: Method, task: Task, *, period: int | None = None) -> StatisticalForecaster:
    """A statistical forecaster of a task: the classical baseline of a network.

    "ets": additive exponential smoothing with a damped trend and an additive season (Holt-Winters). "theta": the Theta
    method, deseasonalised where the season passes a test. "stl": a season by STL, repeated, and a first-order
    autoregression (Burg) of what remains.

    Use it to know whether a network is worth its training. It is refitted to every window (tens of milliseconds per
    channel), so that `compare(..., baselines=("theta",))` scores some windows only. As a teacher it has to forecast
    every training window first.

    Args:
        method: "ets", "theta" or "stl".
        task: What to forecast.
        period: Steps of a season. None: the shortest of the data's periods; no season if the context does not hold it
            twice.

    Returns:
        A forecaster without weights.

    Raises:
        ConfigError: Unknown method, a period that does not fit twice into the context, or "stl" without a season.

    Example:
        >>> from tsdistill.testing import toy_panel
        >>> from tsdistill.data import Task
        >>> statistical("theta", Task(toy_panel(), context=48, horizon=11))
        <StatisticalForecaster theta, season of 24 steps; 0 fits, none with a warning>

    Source: R. Hyndman, A. Koehler, K. Ord, R. Snyder, "Forecasting with Exponential Smoothing", Springer 2008, chapter
    2, ETS(A,Ad,A). V. Assimakopoulos, K. Nikolopoulos, "The theta model: a decomposition approach to forecasting",
    International Journal of Forecasting 16(4), 2000. R. Cleveland et al., "STL: A Seasonal-Trend Decomposition
    Procedure Based on Loess", Journal of Official Statistics 6(1), 1990. J. Burg, "Maximum Entropy Spectral Analysis",
    1975.

    Differs from the source: ETS is not chosen among its forms by an information criterion, which would multiply the
    time. What STL leaves is often forecast by ETS; on hourly weather and transformer loads an autoregression did
    better, and by Burg's estimate it is stationary in every window.
    """
    if method not in METHODS:
        raise ConfigError(must("method", f"be one of {', '.join(METHODS)}", method, nearest(str(method), METHODS)))
    longest = task.context // 2
    if period is None:
        shortest = task.panel.periods[0] if task.panel.periods else 1
        period = shortest if shortest <= longest else 1
    elif not isinstance(period, int) or not 1 <= period <= max(longest, 1):
        raise ConfigError(must("period", f"fit twice into the context of {task.context} steps", period, "Shorten it"))
    if method == "stl" and period == 1:
        rule = f"have a season that fits twice into the context of {task.context} steps"
        raise ConfigError(
            must("task", f'{rule} for "stl"', list(task.panel.periods), 'Lengthen the context, or ask for "theta"')
        )
    return StatisticalForecaster(Statistical(kind=method, period=period), task.without_covariates().signature)


def _ets(series: np.ndarray, period: int, horizon: int) -> np.ndarray:
    from statsmodels.tsa.holtwinters import ExponentialSmoothing

    season = {"seasonal": "add", "seasonal_periods": period} if period > 1 else {}
    model = ExponentialSmoothing(series, trend="add", damped_trend=True, **season)
    # A search over a grid first takes five times as long, for errors that were the same to a percent.
    return np.asarray(model.fit(use_brute=False).forecast(horizon))


def _theta(series: np.ndarray, period: int, horizon: int) -> np.ndarray:
    from statsmodels.tsa.forecasting.theta import ThetaModel

    return np.asarray(ThetaModel(series, period=period, deseasonalize=period > 1).fit().forecast(horizon))


def _stl(series: np.ndarray, period: int, horizon: int) -> np.ndarray:
    from statsmodels.regression.linear_model import burg
    from statsmodels.tsa.seasonal import STL

    season = STL(series, period=period).fit().seasonal
    rest = series - season
    steps = np.arange(horizon)
    # The remainder of a perfect season is rounding, from which nothing can be estimated.
    memory = float(burg(rest, order=1)[0][0]) if np.ptp(rest) > 1e-9 * np.abs(series).max() else 0.0
    mean = rest.mean()
    return np.asarray(mean + memory ** (steps + 1) * (rest[-1] - mean) + season[-period:][steps % period])


_FIT: dict[Method, Callable[[np.ndarray, int, int], np.ndarray]] = {"ets": _ets, "theta": _theta, "stl": _stl}
