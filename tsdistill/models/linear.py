"""A linear map from context to horizon, solved in closed form in one pass over the windows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from tsdistill.data.task import Batch, Signature, Windows
from tsdistill.models.activations import Activations
from tsdistill.models.base import Forecaster, ModelConfig
from tsdistill.models.layers import ChannelLinear
from tsdistill.models.ridge import Statistics


class LinearConfig(ModelConfig):
    """A ridge regression from a window's mean-subtracted context to its horizon, for all channels or for each.

    W = argmin |Y - X W|^2 + p * trace(X'X) / context * |W|^2, with the relative penalty p chosen on validation windows.

    Use it first: it takes seconds, it is hard to beat on several benchmarks, and as a student its distillation is
    exact. Channels that behave alike learn more together; where they do not, and each has thousands of windows, let
    each have its own map (`individual`).

    Args:
        penalties: Relative penalties to choose from.
        individual: A map and a penalty for every channel instead of one for all; takes context^2 * 8 bytes per channel
            to solve.

    Example:
        >>> LinearConfig(individual=True).kind
        'linear'

    Source: A. Hoerl and R. Kennard, "Ridge Regression: Biased Estimation for Nonorthogonal Problems", Technometrics
    12(1), 1970, equation 2.1. Differs from the source: the penalty is relative to the mean diagonal of X'X, so that it
    does not change meaning with the number of windows, and the window's own mean takes the place of an intercept.
    """

    kind: Literal["linear"] = "linear"
    penalties: tuple[PositiveFloat, ...] = Field(
        default=(1e-6, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0), min_length=1
    )
    individual: bool = False

    forecaster: ClassVar[type[Forecaster]]


class Linear(Forecaster):
    """The forecaster a `LinearConfig` builds; its weights are zero until solved, which forecasts the window's mean."""

    config: LinearConfig

    def __init__(self, config: LinearConfig, signature: Signature) -> None:
        super().__init__(config, signature)
        context, horizon = signature.context, signature.horizon
        self.map = (
            ChannelLinear(len(signature.channels), context, horizon, bias=False)
            if config.individual
            else nn.Linear(context, horizon, bias=False)
        )
        nn.init.zeros_(self.map.weight)

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
        centre = x.mean(dim=-1, keepdim=True)
        return Activations(forecast=(self.map(x - centre) + centre).transpose(1, 2))

    def fit_closed_form(
        self, train: Windows, validation: Windows, *, target: Callable[[Batch], Tensor]
    ) -> dict[str, Any]:
        """Solve for every penalty from one pass over the training windows, keep the best on validation.

        With `individual`, the penalty recorded is a list, one for every channel.
        """
        penalties, individual = self.config.penalties, self.config.individual
        learnt = Statistics.of(train, target, individual=individual)
        judged = Statistics.of(validation, lambda batch: batch.target, individual=individual)
        weights = learnt.solve(penalties)
        found, best = torch.stack([judged.mean_squared_error(weight) for weight in weights]).min(0)
        weight = weights[0]
        for number, trial in enumerate(weights):
            weight = torch.where((best == number)[..., None, None], trial, weight)
        with torch.no_grad():
            self.map.weight.copy_(weight.mT)
        chosen = [penalties[number] for number in best.flatten().tolist()]
        return {"penalty": chosen if individual else chosen[0], "validation_mse": float(found.mean())}


LinearConfig.forecaster = Linear
