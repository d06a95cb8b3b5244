"""Several teachers as one: averaged, weighed by their validation errors, or the best of them for each window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from tsdistill.data.task import Batch, Signature, Task
from tsdistill.errors import ConfigError, DataError, listed, must, nearest
from tsdistill.spec import digest_of
from tsdistill.teachers.base import Composed, Teacher, check_teacher, forecast_of
from tsdistill.teachers.places import Places

Weighing = Literal["equal", "validation", "best-per-window"]
WEIGHINGS: tuple[Weighing, ...] = get_args(Weighing)

CHUNK = 256
"""Windows that the members forecast at once while they are weighed."""


class TeacherEnsemble(Composed):
    """Several teachers of one task that teach together.

    "equal": forecast = the mean of the members'.
    "validation": forecast = sum of w_i * member_i with w >= 0, sum of w = 1, and w minimising the squared error of the
    sum on the validation part (so that it is there no worse than the best member, nor than the mean).
    "best-per-window": for each training window the forecast of the member whose squared error is smallest there.

    Use "equal" unless members differ a lot, "validation" if they do: a member that adds nothing gets no weight. The
    best per window is chosen by looking at what happened: an oracle, allowed on training windows only, which draws the
    lesson towards the truth and its noise. It can teach, and cannot be scored on other parts. An ensemble shows no
    hidden states, attention or quantiles: its members' would be those of different networks.

    Args:
        teachers: The members, each of this task.
        task: The task they teach.
        weights: "equal", "validation" or "best-per-window".

    Attributes:
        teachers: The members.
        weights: One number for each, or None for "best-per-window".
        signature: Steps, channels and scaling of the task.

    Raises:
        ConfigError: no teachers, or other weights; a mapping or a list of numbers among them.
        ShapeError: a member that forecasts something else.
        DataError: a member that has no forecasts of the validation windows it is to be weighed on.

    Example:
        >>> import tsdistill as td
        >>> from tsdistill.testing import toy_task
        >>> task = toy_task()
        >>> configs = (td.LinearConfig(), td.models.SeasonalNaiveConfig(period=24))
        >>> members = [td.train(config, task) for config in configs]
        >>> TeacherEnsemble(members, task)
        <TeacherEnsemble equal: 0.50 Linear, 0.50 SeasonalNaive>

    Source: J. Bates and C. Granger, "The Combination of Forecasts", Operational Research Quarterly 20(4), 1969 (weights
    that sum to one from the covariance of errors); L. Breiman, "Stacked Regressions", Machine Learning 24, 1996
    (weights that are not negative); S. You et al., "Learning from Multiple Teacher Networks", KDD 2017 (the mean of
    teachers). Differs from the source: errors of all steps and channels are pooled in scaled units, and the weights
    are those of the validation part, where none of the members was fitted.
    """

    members = ("teachers",)

    def __init__(self, teachers: Sequence[Teacher], task: Task, weights: Weighing = "equal") -> None:
        problems = []
        if not isinstance(teachers, Sequence) or not teachers:
            problems.append(must("teachers", "hold at least one teacher", teachers, "Give a list of them"))
        if weights not in WEIGHINGS:
            hint = nearest(weights, WEIGHINGS) if isinstance(weights, str) else "Leave it out for the mean"
            problems.append(must("weights", f"be one of {', '.join(WEIGHINGS)}", weights, hint))
        if problems:
            raise ConfigError(listed(problems, "TeacherEnsemble"))
        for teacher in teachers:
            check_teacher(teacher, task)
        self.teachers = tuple(teachers)
        self.weighing = weights
        self.signature: Signature = task.signature
        self._places = Places(task)
        self.weights: tuple[float, ...] | None = None
        if weights == "equal":
            self.weights = (1 / len(teachers),) * len(teachers)
        elif weights == "validation":
            self.weights = simplex_weights(self._error_products(task))

    @property
    def digest(self) -> str:
        """Sixteen hex digits of the members and how they are weighed."""
        members = [teacher.digest for teacher in self.teachers]
        task = self._places.task.train.fingerprint if self.weights is None else None
        return digest_of(["ensemble", self.weighing, self.weights, members, task])

    def check(self, task: Task) -> None:
        """Refuse a task that a member cannot teach, or whose training windows are others."""
        self._places.check(task, "an ensemble of teachers")
        for teacher in self.teachers:
            check_teacher(teacher, task)

    def forecast(self, batch: Batch) -> Tensor:
        """Scaled forecasts (batch, horizon, channel).

        Raises:
            DataError: the best per window is asked for, and the windows are not the training windows of the task.
        """
        forecasts = torch.stack([forecast_of(teacher, batch).float() for teacher in self.teachers])
        if self.weights is not None:
            return torch.einsum("mbhc,m->bhc", forecasts, forecasts.new_tensor(self.weights))
        self._places.require_training(batch, 'The best teacher of each window (weights="best-per-window")')
        best = (forecasts - batch.target).square().mean(dim=(2, 3)).argmin(dim=0)
        return forecasts[best, torch.arange(len(best), device=best.device)]

    def _error_products(self, task: Task) -> np.ndarray:
        """Mean product of every two members' errors on the validation part, (member, member)."""
        total, count = np.zeros((len(self.teachers),) * 2), 0
        for batch in task.validation.batches(CHUNK):
            errors = [
                (forecast_of(teacher, batch).cpu() - batch.target).double().flatten() for teacher in self.teachers
            ]
            stacked = torch.stack(errors)
            total += (stacked @ stacked.T).numpy()
            count += stacked.shape[1]
        return total / count

    def __repr__(self) -> str:
        names = [type(teacher).__name__ for teacher in self.teachers]
        shares = [""] * len(names) if self.weights is None else [f"{weight:.2f} " for weight in self.weights]
        return f"<TeacherEnsemble {self.weighing}: {', '.join(map(''.join, zip(shares, names, strict=True)))}>"


def simplex_weights(products: np.ndarray) -> tuple[float, ...]:
    """Weights w >= 0 that sum to 1 and minimise w' P w, for mean products P of errors (member, member).

    Up to its size, the minimiser of v' P v + (sum of v - 1)^2 over v >= 0 is the same: for a direction w the best size
    leaves q / (1 + q) of q = w' P w. So that one run of non-negative least squares finds it.

    Example:
        >>> import numpy as np
        >>> [round(weight, 6) for weight in simplex_weights(np.diag([1.0, 3.0]))]
        [0.75, 0.25]
    """
    from scipy.optimize import nnls

    if not np.isfinite(products).all():
        raise DataError(
            "Teachers cannot be weighed: an error on the validation part is not finite. Leave that one out."
        )
    scale = np.trace(products) / len(products)
    if scale == 0:
        return (1 / len(products),) * len(products)
    values, vectors = np.linalg.eigh(products / scale)
    root = np.sqrt(np.clip(values, 0.0, None))[:, None] * vectors.T
    solution, _ = nnls(np.vstack([root, np.ones(len(products))]), np.append(np.zeros(len(products)), 1.0))
    return tuple((solution / solution.sum()).tolist())
