"""Segments as long as a period, a small basis of the past ones, and the coming ones composed of it."""

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
from tsdistill.models.layers import WindowNorm
from tsdistill.models.widths import context_group
from tsdistill.spec import Tuned
from tsdistill.spec.limits import Steps, Width


class TimeBaseConfig(ModelConfig):
    """Shape of a forecaster that takes a few typical segments out of the past and composes the coming ones of them.

    The context is cut into segments x(m) of one period. b(r) = sum over m of E[r, m] (x(m) - centre) + e[r] are the
    components of a basis, and the coming segment y(n) = sum over r of C[n, r] b(r) + c[n] + centre: a map across
    periods of rank `basis`, which all phases of the period and all channels share.

    Use it where the bytes count: a context of 720, a period of 24 and a basis of 6 take 214 weights for a horizon of 96
    and 396 for one of 720. It wants a context of many periods and large steps: `Training(learning_rate=5e-2,
    batch_size=256, weight_decay=0)`. `SparseTSFConfig` is its neighbour of full rank: on ETTh1 the two are
    alike four and eight days ahead, and that one comes closer two weeks and a month ahead (experiment 013).

    Args:
        period: Steps in a segment. A context that is no multiple of it is used from the first whole segment on; the
            last one forecast is cut at the horizon.
        basis: Components that past segments are reduced to.
        centre: What is taken off the segments and put back on the forecast: "phase", the mean of each step of the
            period over the context, so that a usual day goes past the map; or "window", the mean of the window.
        head: What is forecast for each step: a number, quantiles (`QuantileHead`) or bins (`BinnedHead`).

    Example:
        >>> TimeBaseConfig(period=24, basis=6).basis
        6

    Source: Q. Huang et al., "TimeBase: The Power of Minimalism in Efficient Long-term Time Series Forecasting", ICML
    2025, section 3 (basis extraction, segment-level forecasting). Differs from the source: windows are divided by their
    spread as well, segments are counted from the last step, without padding, and training has no penalty on components
    that are not orthogonal: whatever forecasts a basis can give, an orthogonal one can give as well.
    """

    kind: Literal["timebase"] = "timebase"
    period: Steps = 24
    basis: Annotated[Width, Tuned(3, 6, 12)] = 6
    centre: Literal["phase", "window"] = "phase"
    head: AnyHead = PointHead()

    forecaster: ClassVar[type[Forecaster]]

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Either centre."""
        return (
            cls(period=5, basis=3),
            cls(period=7, basis=5, centre="window"),
        )


class TimeBase(Forecaster):
    """The forecaster a `TimeBaseConfig` builds."""

    config: TimeBaseConfig

    def __init__(self, config: TimeBaseConfig, signature: Signature) -> None:
        super().__init__(config, signature)
        period = config.period
        if period > signature.context:
            raise ConfigError(must("period", f"be at most context = {signature.context}", period, "Shorten it"))
        self.n_past = signature.context // period
        self.n_ahead = math.ceil(signature.horizon / period)
        self.norm = WindowNorm()
        self.extract = nn.Linear(self.n_past, config.basis)
        self.last = nn.Linear(config.basis, self.head.n_outputs * self.n_ahead)

    def activations(
        self,
        context: Tensor,
        future: Tensor | None = None,
        past: Tensor | None = None,
        *,
        attention: bool = False,
    ) -> Activations:
        """The hidden state is the basis, (batch, channel, phase, component)."""
        x, centre, spread = self.norm(self.recent(context))
        # (batch, channel, phase, segment): every phase of the period is a short series of its own.
        phases = x[..., -self.n_past * self.config.period :].unflatten(-1, (self.n_past, self.config.period))
        phases = phases.transpose(2, 3)
        if self.config.centre == "phase":
            usual = phases.mean(dim=-1, keepdim=True)
            phases = phases - usual
            ahead = usual.transpose(2, 3).expand(-1, -1, self.n_ahead, -1).flatten(2)[..., : self.horizon]
            centre = centre + ahead * spread
        basis = self.extract(phases)
        # (batch, channel, phase, output * segment) -> (batch, channel, output, step)
        ahead = self.last(basis).unflatten(-1, (self.head.n_outputs, self.n_ahead))
        steps = ahead.permute(0, 1, 3, 4, 2).flatten(3)
        return self.conclude(steps[..., : self.horizon].flatten(2), centre, spread, hidden=(basis,))

    def width_groups(self) -> tuple[WidthGroup, ...]:
        """The components of the basis, and the oldest segments."""
        basis = WidthGroup(
            name="basis",
            size=self.config.basis,
            field=("basis", None),
            incoming=(Slice("extract.weight", 0), Slice("extract.bias", 0)),
            outgoing=(Slice("last.weight", 1),),
        )
        return basis, context_group(self.n_past, Slice("extract.weight", 1), steps=self.config.period)


TimeBaseConfig.forecaster = TimeBase
