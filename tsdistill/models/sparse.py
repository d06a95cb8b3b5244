"""One small map across periods, shared by all steps of a period: a forecaster of a hundred to a thousand weights."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal, Self

from torch import Tensor, nn

from tsdistill.data.task import Signature
from tsdistill.errors import ConfigError, must
from tsdistill.models.activations import Activations
from tsdistill.models.base import Forecaster, ModelConfig
from tsdistill.models.groups import Slice, WidthGroup
from tsdistill.models.heads import AnyHead, PointHead
from tsdistill.models.layers import ChannelBias, SmallMap, WindowNorm
from tsdistill.models.widths import context_group
from tsdistill.spec import Tuned
from tsdistill.spec.limits import Steps, WidthOrZero


class SparseTSFConfig(ModelConfig):
    """Shape of a sparse periodic forecaster: the same few weights forecast every hour of the day from that hour's past.

    x' = x + conv(x), a sliding aggregation as wide as a period; then each phase p of the period is a series of its own,
    and y(p + n * period) = sum over m of W[n, m] x'(p + m * period). One W of (context / period) x (horizon / period)
    serves all phases and channels.

    Use it where the bytes count: context 720, horizon 720 and a period of 24 take 925 weights. It wants a context of
    many periods and large steps: `Training(learning_rate=2e-2, batch_size=256, weight_decay=0)`. Where the period is
    one of several rhythms, `LinearConfig` comes closer.

    Args:
        period: Steps in a period. A context that is no multiple of it is used from the first whole period on; the last
            period forecast is cut at the horizon.
        hidden: Width of a hidden layer (ReLU) between past and coming periods; 0 for none, a linear map.
        channel_bias: Learn a bias per channel: all that channels differ in. It costs as much as the horizon is long.
        head: What is forecast for each step: a number, quantiles (`QuantileHead`) or bins (`BinnedHead`).

    Example:
        >>> SparseTSFConfig(period=24).hidden
        0

    Source: S. Lin et al., "SparseTSF: Modeling Long-term Time Series Forecasting with 1k Parameters", ICML 2024,
    section 3 (cross-period sparse forecasting, sliding aggregation). Differs from the source: windows are divided by
    their spread as well, which changes no forecast of a linear map, periods are counted from the last step, and there
    may be a bias per channel.
    """

    kind: Literal["sparse-tsf"] = "sparse-tsf"
    period: Steps = 24
    hidden: Annotated[WidthOrZero, Tuned(0, 16, 64)] = 0
    channel_bias: bool = False
    head: AnyHead = PointHead()

    forecaster: ClassVar[type[Forecaster]]

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """A linear map, and one with a hidden layer."""
        return (
            cls(period=5),
            cls(period=7, hidden=11, channel_bias=True),
        )


class SparseTSF(Forecaster):
    """The forecaster a `SparseTSFConfig` builds."""

    config: SparseTSFConfig

    def __init__(self, config: SparseTSFConfig, signature: Signature) -> None:
        super().__init__(config, signature)
        period = config.period
        if period > signature.context:
            raise ConfigError(must("period", f"be at most context = {signature.context}", period, "Shorten it"))
        self.n_past, self.n_ahead = signature.context // period, math.ceil(signature.horizon / period)
        self.norm = WindowNorm()
        reach = period // 2
        self.aggregate = nn.Conv1d(1, 1, 2 * reach + 1, padding=reach, bias=False)
        self.map = SmallMap(self.n_past, self.head.n_outputs * self.n_ahead, config.hidden, bias=config.hidden > 0)
        self.channel = ChannelBias(len(signature.channels), self.n_raw) if config.channel_bias else nn.Identity()

    def activations(
        self,
        context: Tensor,
        future: Tensor | None = None,
        past: Tensor | None = None,
        *,
        attention: bool = False,
    ) -> Activations:
        """The hidden state, where there is one, has a token per phase of the period."""
        x, centre, spread = self.norm(self.recent(context))
        batch, n_channels, _ = x.shape
        rows = x[..., -self.n_past * self.config.period :].flatten(0, 1)[:, None, :]
        rows = rows + self.aggregate(rows)
        # (batch, channel, phase, period): from here on every phase is a short series of its own.
        phases = rows.reshape(batch, n_channels, self.n_past, self.config.period).transpose(2, 3)
        ahead, hidden = self.map(phases)
        # (batch, channel, phase, output * period) -> (batch, channel, output, step)
        steps = ahead.unflatten(-1, (self.head.n_outputs, self.n_ahead)).permute(0, 1, 3, 4, 2).flatten(3)
        raw = self.channel(steps[..., : self.horizon].flatten(2))
        return self.conclude(raw, centre, spread, hidden=hidden)

    def width_groups(self) -> tuple[WidthGroup, ...]:
        """The hidden layer, where there is one, and the oldest periods."""
        periods = context_group(self.n_past, Slice(self.map.first("map"), 1), steps=self.config.period)
        return (*self.map.width_groups("map"), periods)


SparseTSFConfig.forecaster = SparseTSF
