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
from tsdistill.teachers.base import Composed, Teacher, check_teacher, forecast_of, reached_by, title_of
from tsdistill.teachers.places import Places
from tsdistill.teachers.privileged import adapt

Weighing = Literal["equal", "validation", "best-per-window"]
WEIGHINGS: tuple[Weighing, ...] = get_args(Weighing)

CHUNK = 256
"""Windows that the members forecast at once while they are weighed."""

TINY = 1e-30
"""In the place of a sum of weights that is 0."""


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

    Members may differ in context, covariates, channels and scaling: a forecaster whose own task follows from its
    signature joins as it is, any other as a `PrivilegedTeacher`. Where a member has no lesson (its longer context
    reaches back before the first row) the others share its weight; where none has, the window carries none.

    Args:
        teachers: The members, of this task or of others over its series.
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
        self.teachers = tuple(adapt(teacher, task) for teacher in teachers)
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
        forecasts, reached = self._asked(batch)
        if self.weights is None:
            self._places.require_training(batch, 'The best teacher of each window (weights="best-per-window")')
            errors = (forecasts - batch.target).square().mean(dim=(2, 3))
            best = (errors if reached is None else errors.masked_fill(~reached, torch.inf)).argmin(dim=0)
            forecast = forecasts[best, torch.arange(len(best), device=best.device)]
        elif reached is None:
            return torch.einsum("mbhc,m->bhc", forecasts, forecasts.new_tensor(self.weights))
        else:
            shares = forecasts.new_tensor(self.weights)[:, None] * reached
            forecast = torch.einsum("mbhc,mb->bhc", forecasts, shares / shares.sum(0).clamp_min(TINY))
        if reached is not None and not (known := reached.any(dim=0)).all():
            # Nobody has a lesson here: any of them gives the truth in training windows, and an error in others.
            forecast[~known] = forecast_of(self.teachers[self._active[0]], _of_windows(batch, ~known)).float()
        return forecast

    def reaches(self, batch: Batch) -> Tensor:
        """Which windows of a batch a member with a weight has a lesson for, (batch,) of True and False."""
        reached = self._reached(batch)
        return torch.ones(len(batch.index), dtype=torch.bool) if reached is None else reached.any(dim=0)

    @property
    def _active(self) -> list[int]:
        """Members that count."""
        return [n for n in range(len(self.teachers)) if self.weights is None or self.weights[n] > 0]

    def _reached(self, batch: Batch) -> Tensor | None:
        """Who has a lesson for which window, (member, batch), False for those without a weight; None: all for all."""
        by_member = {number: reached_by(self.teachers[number], batch) for number in self._active}
        if all(windows is None for windows in by_member.values()):
            return None
        reached = torch.zeros(len(self.teachers), len(batch.index), dtype=torch.bool)
        for number, windows in by_member.items():
            reached[number] = True if windows is None else windows
        return reached

    def _asked(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Forecasts (member, batch, horizon, channel), 0 where one has no lesson, and who has one for what."""
        reached = self._reached(batch)
        forecasts = torch.zeros(len(self.teachers), *batch.target.shape, device=batch.target.device)
        for number in self._active:
            if reached is None or reached[number].all():
                forecasts[number] = forecast_of(self.teachers[number], batch).float()
            elif reached[number].any():
                some = _of_windows(batch, reached[number])
                forecasts[number, reached[number]] = forecast_of(self.teachers[number], some).float()
        return forecasts, None if reached is None else reached.to(batch.target.device)

    def _error_products(self, task: Task) -> np.ndarray:
        """Mean product of every two members' errors on the validation windows that all have a lesson for."""
        total, count = np.zeros((len(self.teachers),) * 2), 0
        for batch in task.validation.batches(CHUNK):
            forecasts, reached = self._asked(batch)
            errors = (forecasts.cpu() - batch.target).double()
            stacked = (errors if reached is None else errors[:, reached.all(dim=0)]).flatten(1)
            total += (stacked @ stacked.T).numpy()
            count += stacked.shape[1]
        if not count:
            raise DataError(
                "Teachers cannot be weighed: no validation window is one that all of them can forecast. Leave out "
                "those with the longest contexts."
            )
        return total / count

    @property
    def remark(self) -> str:
        """Its members and their weights, for a report."""
        shares = [""] * len(self.teachers) if self.weights is None else [f"{weight:.2f} " for weight in self.weights]
        return ", ".join(map("".join, zip(shares, map(title_of, self.teachers), strict=True)))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.weighing}: {self.remark}>"


def _of_windows(batch: Batch, chosen: Tensor) -> Batch:
    """Some windows of a batch."""
    fields = {name: getattr(batch, name) for name in ("context", "target", "mask", "past", "future")}
    parts = {name: None if values is None else values[chosen] for name, values in fields.items()}
    return Batch(index=batch.index[chosen.cpu()], **parts)  # type: ignore[arg-type]


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
