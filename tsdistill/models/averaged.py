"""The mean of ridge regressions at several contexts and centres: one linear map, solved in one pass."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from tsdistill.data.task import Signature
from tsdistill.errors import ConfigError, must
from tsdistill.models.base import Forecaster, ModelConfig
from tsdistill.models.linear import LinearMap
from tsdistill.models.ridge import NormalEquations, Statistics
from tsdistill.models.rolling import Block, Centre, best_penalty, rolling_parts, solve, squared_error
from tsdistill.spec import Tuned
from tsdistill.spec.limits import MAX_ITEMS, Count, Steps

SHARES = (0.25, 0.35, 0.5, 0.7, 1.0)
"""Contexts that are averaged by default, as shares of the task's."""

MAX_BLOCKS = 64
"""Every block of time is a solution more for every context and penalty."""


class AveragedLinearConfig(ModelConfig):
    """The mean of ridge regressions at several contexts and centres, deployed as the one linear map that it is.

    forecast = 1/n * sum over (context, centre) of W' (x - c) + c, with x the last steps of a window and c their centre.
    Every penalty is chosen by rolling origins: training and validation windows are cut into blocks of time, and each
    block is forecast by what the blocks before it have taught.

    Use it in place of `LinearConfig` where the task has a long context: no single context has to be chosen, which one
    validation part cannot do reliably, and the penalty rests on several stretches of time. It costs a few solutions per
    context. Give the task the longest context that its shortest series bears. Not for short series: even the shortest
    of the contexts should hold several seasons.

    Args:
        contexts: Steps of each ridge; by default a quarter, .35, .5, .7 and the whole of the task's context.
        centres: What each is centred by: "window" (its own mean) or a number of last steps.
        penalties: Relative penalties to choose from.
        n_best: Average only so many of them, those with the least error over rolling origins; None averages all.
        n_blocks: Blocks of time that the training windows are cut into.
        individual: A map for every channel instead of one for all.

    Example:
        >>> AveragedLinearConfig(contexts=(48, 168), n_best=1).kind
        'averaged-linear'

    Source: A. Hoerl and R. Kennard, "Ridge Regression: Biased Estimation for Nonorthogonal Problems", Technometrics
    12(1), 1970, equation 2.1, for each ridge; L. Tashman, "Out-of-sample tests of forecasting accuracy", International
    Journal of Forecasting 16(4), 2000, section 3, for rolling origins; J. Bates and C. Granger, "The Combination of
    Forecasts", Operational Research Quarterly 20(4), 1969, for the mean. Differs from the sources: the penalty is
    relative to the mean diagonal of X'X, and weights of the mean are equal.
    """

    kind: Literal["averaged-linear"] = "averaged-linear"
    contexts: tuple[Steps, ...] | None = Field(default=None, min_length=1, max_length=MAX_ITEMS)
    centres: tuple[Literal["window"] | Steps, ...] = Field(default=("window",), min_length=1, max_length=MAX_ITEMS)
    penalties: tuple[PositiveFloat, ...] = Field(default=(1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0), min_length=1)
    n_best: Annotated[Count | None, Tuned(None, 1, 3)] = None
    n_blocks: int = Field(default=4, ge=2, le=MAX_BLOCKS)
    individual: Annotated[bool, Tuned(False, True)] = False

    forecaster: ClassVar[type[Forecaster]]

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """All contexts, the best of several centres, and a map for every channel."""
        return (cls(), cls(contexts=(7, 19), centres=("window", 3), n_best=2), cls(individual=True, n_blocks=2))

    def steps(self, context: int) -> tuple[int, ...]:
        """Context of each ridge in a task of some context, shortest first."""
        if self.contexts is None:
            return tuple(sorted({max(1, round(share * context)) for share in SHARES}))
        if max(self.contexts) > context:
            remedy = "Take shorter ones, or a task with a longer context"
            raise ConfigError(must("contexts", f"be at most the task's, {context}", self.contexts, remedy))
        return tuple(sorted(set(self.contexts)))


@dataclass(frozen=True)
class _Ridge:
    """A ridge of one context and centre, and its error over rolling origins."""

    context: int
    centre: Centre
    penalty: float
    error: float


@dataclass(frozen=True)
class _Choice:
    """The ridges to average, and the sums of training and validation windows that they are solved and judged by."""

    ridges: list[_Ridge]
    learnt: Statistics
    judged: Statistics

    def mean(self, learnt: Statistics, *, taught: bool = False) -> Tensor:
        """The mean of the maps, (context, horizon)."""
        maps = [solve(learnt, ridge.context, ridge.centre, ridge.penalty, taught=taught) for ridge in self.ridges]
        return torch.stack(maps).mean(0)


class AveragedLinear(LinearMap):
    """The forecaster an `AveragedLinearConfig` builds."""

    config: AveragedLinearConfig

    def __init__(self, config: AveragedLinearConfig, signature: Signature) -> None:
        config.steps(signature.context)  # refused before anything is read
        super().__init__(config, signature, individual=config.individual)

    def fit_closed_form(self, equations: NormalEquations) -> dict[str, Any]:
        """Choose by rolling origins, then solve for all training windows and average."""
        individual = self.config.individual
        channels: list[int | None] = [*range(len(self.signature.channels))] if individual else [None]
        lessons = [] if equations.teacher is None else [*equations.statistics(individual=individual)[0].channels()]
        weights, alphas, errors, choices = [], [], [], []
        for number, channel in enumerate(channels):
            choice = self._choice(equations, channel)
            blends = {0.0: choice.mean(choice.learnt)}
            if lessons and any(equations.alphas):
                taught = choice.mean(lessons[number], taught=True)
                blends = {alpha: (1 - alpha) * blends[0.0] + alpha * taught for alpha in sorted(equations.alphas)}
            n_values = choice.judged.n_rows * self.horizon
            mse = {alpha: squared_error(weight, choice.judged) / n_values for alpha, weight in blends.items()}
            alpha = min(mse, key=mse.__getitem__)  # of equally good ones that with less of the teacher
            weights.append(blends[alpha].T)
            alphas.append(alpha)
            errors.append(mse[alpha])
            choices.append(choice.ridges)
        with torch.no_grad():
            self.map.weight.copy_(torch.stack(weights) if individual else weights[0])
        members = [[asdict(ridge) for ridge in ridges] for ridges in choices]
        edges = {min(self.config.penalties), max(self.config.penalties)}
        return {
            "members": members if individual else members[0],
            "n_at_edge": sum(ridge.penalty in edges for ridges in choices for ridge in ridges),
            "validation_mse": sum(errors) / len(errors),
            **({"alpha": alphas if individual else alphas[0]} if len(equations.alphas) > 1 else {}),
        }

    def refit_closed_form(self, equations: NormalEquations, choice: dict[str, Any]) -> dict[str, Any]:
        """Solve and average the ridges that were chosen, with the share of the teacher that was."""
        individual = self.config.individual
        learnt = [*Statistics.of(equations.train, equations.teacher, individual=individual).channels()]
        members = choice["members"] if individual else [choice["members"]]
        alpha = choice.get("alpha", equations.alphas[0])
        weights = []
        for number, sums in enumerate(learnt):
            ridges = [_Ridge(**member) for member in members[number]]
            share = alpha[number] if isinstance(alpha, list | tuple) else alpha
            own = _Choice(ridges, sums, sums)
            blend = own.mean(sums)
            if share:
                blend = (1 - share) * blend + share * own.mean(sums, taught=True)
            weights.append(blend.T)
        with torch.no_grad():
            self.map.weight.copy_(torch.stack(weights) if individual else weights[0])
        return {name: choice[name] for name in ("members", "alpha") if name in choice}

    def _choice(self, equations: NormalEquations, channel: int | None) -> _Choice:
        """The ridges for one channel, or for all; made once for a student and its control."""
        key = f"{self.config.digest} {channel}"
        if key not in equations.choices:
            parts, whole, judged = rolling_parts(equations, channel, self.config.n_blocks)
            equations.choices[key] = _Choice(self._ridges(parts), whole, judged)
        choice: _Choice = equations.choices[key]
        return choice

    def _ridges(self, parts: list[Block]) -> list[_Ridge]:
        """The ridges to average, each with the penalty that rolling origins prefer, in the order of their contexts."""
        ridges = []
        for centre in self.config.centres:
            penalty = None
            for context in self.config.steps(self.signature.context):
                penalty, error = best_penalty(parts, context, centre, self.config.penalties, penalty)
                ridges.append(_Ridge(context, centre, penalty, error))
        ridges.sort(key=lambda ridge: ridge.context)
        best_first = sorted(ridges, key=lambda ridge: ridge.error)
        return [ridge for ridge in ridges if ridge in best_first[: self.config.n_best]]


AveragedLinearConfig.forecaster = AveragedLinear
