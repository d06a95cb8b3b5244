"""One linear map for the trend of a window, one for what remains."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import model_validator
from torch import Tensor, nn
from torch.nn import functional

from tsdistill.data.task import Signature
from tsdistill.errors import ConfigError, must
from tsdistill.models.activations import Activations
from tsdistill.models.base import Forecaster, ModelConfig
from tsdistill.models.groups import Slice, WidthGroup
from tsdistill.models.heads import AnyHead, PointHead
from tsdistill.models.layers import ChannelBias, ChannelLinear, Shortcut, WindowNorm
from tsdistill.models.widths import context_group
from tsdistill.spec import Tuned
from tsdistill.spec.limits import Steps


class DLinearConfig(ModelConfig):
    """Shape of a decomposition linear model: trend and remainder of the normalised context, a linear map for each.

    trend = moving average of the context, its ends held; forecast = A trend + B (context - trend). With one average the
    two maps can express no more than one can, but gradient steps weigh slow and quick movements differently.

    Use it as a linear student that a loss without a closed-form solution shapes, or with quantiles; for the squared
    error alone, `LinearConfig` is solved in a second. Large steps suit it: `Training(learning_rate=3e-3)`.

    Args:
        kernel: Steps of the moving average, an odd number.
        individual: Two maps for every channel instead of two for all: channel identity at its largest.
        channel_bias: Learn a bias per channel beside the shared maps: channel identity at its smallest.
        head: What is forecast for each step: a number, quantiles (`QuantileHead`) or bins (`BinnedHead`).

    Example:
        >>> DLinearConfig(kernel=25, channel_bias=True).individual
        False

    Source: A. Zeng et al., "Are Transformers Effective for Time Series Forecasting?", AAAI 2023, section 3. Differs
    from the source: windows are centred and scaled by themselves, weights start at zero, and the bias per channel.
    """

    kind: Literal["dlinear"] = "dlinear"
    kernel: Annotated[Steps, Tuned(5, 13, 25)] = 25
    individual: bool = False
    channel_bias: bool = False
    head: AnyHead = PointHead()

    forecaster: ClassVar[type[Forecaster]]

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """One map for all channels, one for each, and a bias for each."""
        return (
            cls(kernel=13),
            cls(kernel=7, individual=True),
            cls(kernel=1, channel_bias=True),
        )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kernel % 2 == 0:
            remedy = f"Use {self.kernel + 1}, which has a middle"
            raise ValueError(must("kernel", "be an odd number of steps", self.kernel, remedy))
        if self.individual and self.channel_bias:
            remedy = "Leave one of them out"
            raise ValueError(
                must("channel_bias", "be False where maps, with their biases, are individual", True, remedy)
            )
        return self


class DLinear(Forecaster):
    """The forecaster a `DLinearConfig` builds; untrained, it forecasts the window's mean."""

    config: DLinearConfig

    def __init__(self, config: DLinearConfig, signature: Signature) -> None:
        super().__init__(config, signature)
        context, n_channels = signature.context, len(signature.channels)
        if config.kernel > context:
            raise ConfigError(must("kernel", f"be at most context = {context}", config.kernel, "Shorten it"))
        self.norm = WindowNorm()
        self.trend, self.remainder = (
            ChannelLinear(n_channels, context, self.n_raw) if config.individual else Shortcut(context, self.n_raw)
            for _ in range(2)
        )
        self.channel = ChannelBias(n_channels, self.n_raw) if config.channel_bias else nn.Identity()

    def activations(
        self,
        context: Tensor,
        future: Tensor | None = None,
        past: Tensor | None = None,
        *,
        attention: bool = False,
    ) -> Activations:
        """Linear maps have no hidden states."""
        x, centre, spread = self.norm(self.recent(context))
        reach = self.config.kernel // 2
        trend = functional.avg_pool1d(functional.pad(x, (reach, reach), mode="replicate"), self.config.kernel, stride=1)
        raw = self.channel(self.trend(trend) + self.remainder(x - trend))
        return self.conclude(raw, centre, spread)

    def width_groups(self) -> tuple[WidthGroup, ...]:
        """The oldest steps, down to those that the moving average needs."""
        axis = 2 if self.config.individual else 1
        readers = (Slice(f"{name}.weight", axis) for name in ("trend", "remainder"))
        return (context_group(self.context, *readers, minimum=self.config.kernel),)


DLinearConfig.forecaster = DLinear
