"""A linear map from context to horizon, solved in closed form in one pass over the windows."""

from __future__ import annotations

import statistics
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor, nn

from tsdistill.data.task import Signature
from tsdistill.errors import must
from tsdistill.models.activations import Activations
from tsdistill.models.base import Forecaster, ModelConfig
from tsdistill.models.effects import Effects, adjust
from tsdistill.models.layers import ChannelLinear
from tsdistill.models.pooling import STRENGTHS, choose_pooled
from tsdistill.models.ridge import NormalEquations, Statistics, choose
from tsdistill.spec import Tuned
from tsdistill.spec.limits import MAX_ITEMS

CHOSEN = ("penalty", "strength", "alpha", "own_alpha", "effect_penalty")
"""What validation chose and a refit keeps."""


class LinearConfig(ModelConfig):
    """A ridge regression from a window's mean-subtracted context to its horizon, for all channels or for each.

    W = argmin |Y - X W|^2 + p * trace(X'X) / context * |W|^2, with the relative penalty p chosen on validation windows.

    Use it first: it takes seconds, it is hard to beat on several benchmarks, and as a student its distillation is
    exact. Channels that behave alike learn more together; where they do not, and each has thousands of windows, let
    each have its own map (`individual`), and where each has few, one that leans on the others (`pooling`).

    It takes what is known ahead: b'z, the effects of calendar, holidays and planned columns, is taken off the context
    and put on the horizon. Effects are the same at every step and differ from channel to channel; those of a clock are
    sines and cosines, so that hours and weekdays are not on one line. They are estimated first, by a ridge from targets
    less their window's mean on features less theirs, and W is solved for what they leave. How much they are shrunk, or
    that there are none, is chosen on validation.

    Args:
        penalties: Relative penalties to choose from.
        individual: A map and a penalty for every channel instead of one for all; takes context^2 * 8 bytes per channel
            to solve.
        pooling: Draw the map of every channel to that of all channels instead of to zero, as strongly as validation
            prefers. For channels that differ, each with too few windows for a map of its own. Only with `individual`.

    Example:
        >>> LinearConfig(individual=True, pooling=True).kind
        'linear'

    Source: A. Hoerl and R. Kennard, "Ridge Regression: Biased Estimation for Nonorthogonal Problems", Technometrics
    12(1), 1970, equation 2.1. Differs from the source: the penalty is relative to the mean diagonal of X'X, so that it
    does not change meaning with the number of windows, and the window's own mean takes the place of an intercept. D.
    Cochrane and G. Orcutt, "Application of Least Squares Regression to Relationships Containing Auto-Correlated Error
    Terms", Journal of the American Statistical Association 44(245), 1949, for effects beside a map of past errors.
    Differs from the source: there is no second round.
    """

    kind: Literal["linear"] = "linear"
    penalties: tuple[PositiveFloat, ...] = Field(
        default=(1e-6, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0), min_length=1, max_length=MAX_ITEMS
    )
    individual: Annotated[bool, Tuned(False, True)] = False
    pooling: bool = False

    forecaster: ClassVar[type[Forecaster]]
    takes: ClassVar[frozenset[str]] = frozenset({"future"})

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """One map for all channels, and one for each."""
        return (cls(), cls(individual=True), cls(individual=True, pooling=True))

    @model_validator(mode="after")
    def _pooled_maps(self) -> Self:
        if self.pooling and not self.individual:
            remedy = "Set individual=True: one map for all channels is pooled already"
            raise ValueError(must("pooling", "be False without `individual`", self.pooling, remedy))
        return self


class LinearMap(Forecaster):
    """One linear map of centred windows, for all channels or for each; zero, the window's mean, until it is solved."""

    closed_form: ClassVar[bool] = True

    def __init__(self, config: ModelConfig, signature: Signature, *, individual: bool) -> None:
        super().__init__(config, signature)
        context, horizon = signature.context, signature.horizon
        self.map = (
            ChannelLinear(len(signature.channels), context, horizon, bias=False)
            if individual
            else nn.Linear(context, horizon, bias=False)
        )
        nn.init.zeros_(self.map.weight)
        self.effects = Effects(signature) if signature.future else None

    def activations(
        self,
        context: Tensor,
        future: Tensor | None = None,
        past: Tensor | None = None,
        *,
        attention: bool = False,
    ) -> Activations:
        """A linear map has no hidden states."""
        x = self.recent(context)
        known, _ = self.covariates(future, past)
        effects = None
        if self.effects is not None and known is not None:
            effects = self.effects(known, x.transpose(1, 2)).transpose(1, 2)
        if effects is not None:
            x = x - effects[..., : self.context]
        centre = x.mean(dim=-1, keepdim=True)
        forecast = self.map(x - centre) + centre
        if effects is not None:
            forecast = forecast + effects[..., self.context :]
        return Activations(forecast=forecast.transpose(1, 2))


class Linear(LinearMap):
    """The forecaster a `LinearConfig` builds."""

    config: LinearConfig

    def __init__(self, config: LinearConfig, signature: Signature) -> None:
        super().__init__(config, signature, individual=config.individual)

    def fit_closed_form(self, equations: NormalEquations) -> dict[str, Any]:
        """Solve for every penalty, and every share of a teacher that may be chosen; keep the best on validation."""
        individual = self.config.individual
        if self.effects is None:
            return self.solve(*equations.statistics(individual=individual), equations.alphas)
        chosen = adjust(self.effects, equations, self.config.penalties, individual=individual)
        metrics = self.solve(chosen.learnt, chosen.judged, equations.alphas)
        return {**metrics, "effect_penalty": chosen.penalties if individual else chosen.penalties[0]}

    def refit_closed_form(self, equations: NormalEquations, choice: dict[str, Any]) -> dict[str, Any]:
        """Solve with the penalty and the share of the teacher that were chosen, for every channel where it has both."""
        individual = self.config.individual
        if self.effects is None:
            sums = Statistics.of(equations.train, equations.teacher, individual=individual)
        else:
            self.effects.estimate(self.effects.moments(equations.train), _each(choice["effect_penalty"], 1))
            sums = self.effects.statistics(equations.train, equations.teacher, individual=individual)
        kept = {name: choice[name] for name in CHOSEN if name in choice}
        if self.config.pooling:
            alpha = choice.get("alpha", equations.alphas[0])
            own = [choice.get("own_alpha", alpha)]
            maps = choose_pooled(sums, sums, [choice["penalty"]], [alpha], [choice["strength"]], own)
            self._set(maps.weights)
            return kept
        learnt = [*sums.channels()]
        penalties, alphas = (
            _each(choice["penalty"], len(learnt)),
            _each(choice.get("alpha", equations.alphas[0]), len(learnt)),
        )
        pairs = zip(learnt, penalties, alphas, strict=True)
        self._set(torch.stack([choose(own, own, [penalty], [alpha]).weight for own, penalty, alpha in pairs]))
        return kept

    def solve(self, learnt: Statistics, judged: Statistics, alphas: tuple[float, ...]) -> dict[str, Any]:
        """The same from statistics; with `individual`, penalty and share are chosen, and returned, for every channel.

        Where there were several shares, all candidates are returned with their errors: mean squared errors on
        validation, one row per share and one column per penalty (with `individual`, their means over channels).
        """
        penalties = self.config.penalties
        if self.config.pooling:
            return self._solve_pooled(learnt, judged, alphas)
        choices = [choose(*pair, penalties, alphas) for pair in zip(learnt.channels(), judged.channels(), strict=True)]
        self._set(torch.stack([choice.weight for choice in choices]))

        def per_channel(values: list[float]) -> list[float] | float:
            return values if self.config.individual else values[0]

        metrics: dict[str, Any] = {
            "penalty": per_channel([choice.penalty for choice in choices]),
            "validation_mse": statistics.fmean(float(choice.errors.min()) for choice in choices),
        }
        if len(alphas) > 1:
            errors = torch.stack([choice.errors for choice in choices]).mean(0)
            metrics["alpha"] = per_channel([choice.alpha for choice in choices])
            metrics["candidates"] = {
                "alpha": list(alphas),
                "penalty": list(penalties),
                "validation_mse": errors.tolist(),
            }
        return metrics

    def _solve_pooled(self, learnt: Statistics, judged: Statistics, alphas: tuple[float, ...]) -> dict[str, Any]:
        maps = choose_pooled(learnt, judged, self.config.penalties, alphas)
        self._set(maps.weights)
        metrics: dict[str, Any] = {
            "penalty": maps.penalty,
            "strength": maps.strength,
            "validation_mse": float(maps.errors.min()),
        }
        if len(alphas) > 1:
            table = {"alpha": list(alphas), "strength": list(STRENGTHS), "validation_mse": maps.errors.tolist()}
            metrics |= {"alpha": maps.alpha, "own_alpha": maps.own_alpha, "candidates": table}
        return metrics

    def _set(self, weights: Tensor) -> None:
        """Take maps (channel or one for all, context, horizon) over."""
        with torch.no_grad():
            self.map.weight.copy_(weights.mT if self.config.individual else weights[0].T)


def _each(value: Any, n_maps: int) -> list[Any]:
    """One number for every map: what was chosen for each, or for all."""
    return list(value) if isinstance(value, list | tuple) else [value] * n_maps


LinearConfig.forecaster = Linear
