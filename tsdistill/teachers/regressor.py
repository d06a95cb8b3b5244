"""Any scikit-learn regressor as a teacher: fitted on windows, all channels pooled."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tsdistill.data.task import Batch, Task, Windows
from tsdistill.errors import ConfigError, DataError, ShapeError, must
from tsdistill.teachers.digests import check_name, teacher_digest
from tsdistill.teachers.inventory import inventory

CHUNK = 512
"""Windows gathered at once while examples are collected."""

N_PROBES = 64
"""Windows that a fitted regressor is tried out on; their forecasts speak for parts that do not say what they hold."""


class RegressorTeacher:
    """A scikit-learn regressor that maps a context to the horizon, each channel by itself; `from_sklearn` makes one.

    Attributes:
        regressor: The fitted regressor; a copy of the one that was given.
        signature: Steps, channels and scaling of its task.
        n_examples: Windows times channels that it was fitted on.
    """

    def __init__(self, regressor: Any, task: Task, n_examples: int, name: str | None = None) -> None:
        self.regressor = regressor
        self.name = name
        self.signature = task.without_covariates().signature
        self.n_examples = n_examples
        index = torch.linspace(0, len(task.train) - 1, min(N_PROBES, len(task.train))).long()
        self._probes = task.train.batch(index)
        self.forecast(self._probes)  # a wrong shape or a number that is not finite is found now

    @property
    def digest(self) -> str:
        """Sixteen hex digits of its class and everything that it holds: parameters, arrays, trees.

        Nothing is pickled. Where a part does not say what it holds (`doubts`), forecasts of 64 windows of the training
        part speak for it.
        """
        import sklearn

        details = ["regressor", self.signature.digest, sklearn.__version__]
        return teacher_digest(inventory(self.regressor), details, self.name, lambda: self.forecast(self._probes))

    @property
    def doubts(self) -> tuple[str, ...]:
        """What the digest cannot be sure of, each with its place; none for a teacher that has a name."""
        return () if self.name is not None else inventory(self.regressor, light=True).sentences()

    def check(self, task: Task) -> None:
        """Refuse a task that scales otherwise."""
        if not self.signature.scales_like(task.signature):
            raise ShapeError(
                "`teacher` must see values scaled as those of the task, but it was fitted for another one. Fit it for "
                "this task."
            )

    def forecast(self, batch: Batch) -> Tensor:
        """Scaled forecasts (batch, horizon, channel)."""
        context = batch.context[:, -self.signature.context :].cpu().numpy().astype(np.float64)
        n_windows, _, n_channels = context.shape
        examples, centre = _centred(context)
        outputs = np.asarray(self.regressor.predict(examples), dtype=np.float64).reshape(len(examples), -1)
        if outputs.shape[1] != self.signature.horizon or not np.isfinite(outputs).all():
            whole = "" if np.isfinite(outputs).all() else ", not all finite"
            raise DataError(
                f"{type(self.regressor).__name__} must forecast {self.signature.horizon} finite numbers for each "
                f"window, got {outputs.shape[1]}{whole}. Use another regressor."
            )
        forecasts = (outputs + centre).reshape(n_windows, n_channels, -1).transpose(0, 2, 1)
        return torch.from_numpy(np.ascontiguousarray(forecasts, dtype=np.float32)).to(batch.context.device)

    def __repr__(self) -> str:
        return f"<RegressorTeacher {type(self.regressor).__name__}, fitted on {self.n_examples:,} examples>"


def from_sklearn(
    regressor: Any, task: Task, *, n_windows: int | None = 10_000, seed: int = 0, name: str | None = None
) -> RegressorTeacher:
    """Fit a scikit-learn regressor on windows of the training part, so that it can teach.

    Every channel of a window is an example: its scaled context, less the mean of that context, gives its horizon, less
    the same mean, as in the ridge of `LinearConfig`. All channels share the regressor. One that has a single output is
    fitted once for every step of the horizon (`MultiOutputRegressor`), which costs so many times as much. Use it for
    forests, boosted trees, nearest neighbours or kernels that do well on your data and are too slow or too large to
    serve.

    Args:
        regressor: Any regressor of scikit-learn, or one that behaves like it; a copy is fitted.
        task: Whose training windows to learn from. Covariates are not looked at.
        n_windows: Windows to fit on, drawn without replacement; None or more than there are: all of them.
        seed: What they are drawn with. The regressor's own randomness is its `random_state`.
        name: What you call exactly this version of it; see `td.wrap`.

    Returns:
        A teacher.

    Raises:
        ConfigError: `regressor` has no `fit` and `predict`, or `n_windows` is below 1.
        DataError: what it forecasts is not finite or not one number per step.

    Example:
        >>> from sklearn.neighbors import KNeighborsRegressor
        >>> from tsdistill.testing import toy_task
        >>> from_sklearn(KNeighborsRegressor(7), toy_task(), n_windows=101)
        <RegressorTeacher KNeighborsRegressor, fitted on 303 examples>

    Source: pooling the windows of all series into one regression: P. Montero-Manso and R. Hyndman, "Principles and
    algorithms for forecasting groups of time series: Locality and globality", International Journal of Forecasting
    37(4), 2021. Differs from the source: windows are centred before they are pooled.
    """
    from sklearn.base import clone
    from sklearn.multioutput import MultiOutputRegressor
    from sklearn.utils import get_tags

    if not (callable(getattr(regressor, "fit", None)) and callable(getattr(regressor, "predict", None))):
        remedy = "Give an object such as RandomForestRegressor()"
        raise ConfigError(must("regressor", "have fit and predict", type(regressor).__name__, remedy))
    if n_windows is not None and (not isinstance(n_windows, int) or n_windows < 1):
        raise ConfigError(must("n_windows", "be a whole number of at least 1, or None", n_windows, "Leave it out"))
    check_name(name)
    fitted = clone(regressor)
    if task.horizon > 1 and not get_tags(fitted).target_tags.multi_output:
        fitted = MultiOutputRegressor(fitted)
    windows = _drawn(task.train, n_windows, seed)
    examples, targets = _examples(windows)
    fitted.fit(examples, targets[:, 0] if task.horizon == 1 else targets)
    return RegressorTeacher(fitted, task, len(examples), name)


def _drawn(windows: Windows, n_windows: int | None, seed: int) -> Windows:
    if n_windows is None or n_windows >= len(windows):
        return windows
    kept = np.random.default_rng(seed).choice(len(windows), n_windows, replace=False)
    return windows.subset(torch.from_numpy(np.sort(kept)))


def _examples(windows: Windows) -> tuple[np.ndarray, np.ndarray]:
    """Contexts (window * channel, context) and targets (window * channel, horizon), both less the context's mean."""
    contexts, targets = [], []
    for batch in windows.batches(CHUNK):
        context, centre = _centred(batch.context.numpy().astype(np.float64))
        target = batch.target.numpy().astype(np.float64).transpose(0, 2, 1).reshape(len(context), -1)
        contexts.append(context)
        targets.append(target - centre)
    return np.concatenate(contexts), np.concatenate(targets)


def _centred(context: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(batch, context, channel) as (batch * channel, context) less its mean, and the mean."""
    rows = context.transpose(0, 2, 1).reshape(-1, context.shape[1])
    centre = rows.mean(axis=1, keepdims=True)
    return rows - centre, centre
