"""What every table has to beat: the previous season, and a ridge regression that takes seconds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tsdistill.evaluation.scores import evaluate
from tsdistill.evaluation.statistical import Method, StatisticalForecaster, statistical

if TYPE_CHECKING:
    from tsdistill.data.task import Task
    from tsdistill.models import Forecaster


def seasonal_naive(task: Task) -> Forecaster:
    """The seasonal naive forecaster with the best of the data's periods.

    Use it as the floor: a model that loses to it has learnt nothing. The period is chosen on the validation part from
    `task.panel.periods`, of which those longer than the context cannot be used; without any it is 1, the last value.

    Args:
        task: What to forecast.

    Returns:
        A forecaster without parameters.

    Raises:
        Nothing beyond what the task itself raises.

    Example:
        >>> from tsdistill.testing import toy_task
        >>> seasonal_naive(toy_task()).config.period
        24
    """
    from tsdistill.models import SeasonalNaiveConfig
    from tsdistill.training import train

    periods = [period for period in task.panel.periods if period <= task.context] or [1]
    # Neither baseline uses covariates.
    candidates = [train(SeasonalNaiveConfig(period=period), task.without_covariates()) for period in periods]
    if len(candidates) == 1:
        return candidates[0]
    return min(candidates, key=lambda candidate: evaluate(candidate, task, "validation")["mse"])


def baselines(task: Task, names: Iterable[Method] = ()) -> dict[str, Forecaster | StatisticalForecaster]:
    """The forecasters that belong in every table, "seasonal naive" and "ridge", and statistical ones on request.

    The two take seconds and see the training and validation parts only. `compare` adds them by itself; use this to get
    them directly, for example to refuse a student that a ridge beats.

    Args:
        task: What to forecast.
        names: Statistical methods to add: "ets", "theta", "stl" (see `statistical`). They are fitted to each window, so
            that a forecast takes a thousand times as long.

    Returns:
        Forecasters by name.

    Raises:
        ConfigError: An unknown name, or "stl" where the context does not hold a season twice.

    Example:
        >>> from tsdistill.testing import toy_task
        >>> sorted(baselines(toy_task()))
        ['ridge', 'seasonal naive']
    """
    from tsdistill.models import LinearConfig
    from tsdistill.training import train

    # Baselines use no covariates.
    task = task.without_covariates()
    requested: dict[str, Forecaster | StatisticalForecaster] = {name: statistical(name, task) for name in names}
    return {"seasonal naive": seasonal_naive(task), "ridge": train(LinearConfig(), task), **requested}
