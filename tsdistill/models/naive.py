"""The forecast that every other one has to beat: what was seen one season ago."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal, Self

from torch import Tensor

from tsdistill.data.task import Signature
from tsdistill.errors import ConfigError, must
from tsdistill.models.activations import Activations
from tsdistill.models.base import Forecaster, ModelConfig
from tsdistill.models.ridge import NormalEquations
from tsdistill.spec import Tuned
from tsdistill.spec.limits import Steps


class SeasonalNaiveConfig(ModelConfig):
    """Repeats the last season of the context: forecast(h) = context(last - period + 1 + (h - 1) mod period).

    Use it as the baseline of every table; a period of 1 is the plain naive forecast.

    Args:
        period: Steps in a season (24 for hourly data with a daily rhythm).

    Example:
        >>> SeasonalNaiveConfig(period=24).period
        24

    Source: R. Hyndman and G. Athanasopoulos, "Forecasting: Principles and Practice", 3rd edition, 2021, section 5.2.
    Differs from the source: nothing.
    """

    kind: Literal["seasonal-naive"] = "seasonal-naive"
    period: Annotated[Steps, Tuned(1, 24)] = 24

    forecaster: ClassVar[type[Forecaster]]
    learns: ClassVar[bool] = False

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """A season that does not divide the horizon."""
        return (cls(period=7),)


class SeasonalNaive(Forecaster):
    """The forecaster a `SeasonalNaiveConfig` builds; it has nothing to train."""

    config: SeasonalNaiveConfig
    closed_form: ClassVar[bool] = True

    def __init__(self, config: SeasonalNaiveConfig, signature: Signature) -> None:
        super().__init__(config, signature)
        if config.period > signature.context:
            raise ConfigError(must("period", f"be at most context = {signature.context}", config.period, "Shorten it"))

    def activations(
        self,
        context: Tensor,
        future: Tensor | None = None,
        past: Tensor | None = None,
        *,
        attention: bool = False,
    ) -> Activations:
        """Nothing is hidden."""
        season = self.recent(context)[..., -self.config.period :]
        repeats = math.ceil(self.horizon / self.config.period)
        return Activations(forecast=season.repeat(1, 1, repeats)[..., : self.horizon].transpose(1, 2))

    def fit_closed_form(self, equations: NormalEquations) -> dict[str, Any]:
        """Nothing to solve."""
        return {}


SeasonalNaiveConfig.forecaster = SeasonalNaive
