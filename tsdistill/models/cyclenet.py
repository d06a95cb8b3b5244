"""A learned cycle per channel, taken off the context and put back on the horizon, and a small map of what remains."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from tsdistill import clock
from tsdistill.data.covariates import Covariates
from tsdistill.data.task import Signature
from tsdistill.errors import ConfigError, must
from tsdistill.models.activations import Activations
from tsdistill.models.base import Forecaster, ModelConfig
from tsdistill.models.groups import Slice, WidthGroup
from tsdistill.models.heads import AnyHead, PointHead
from tsdistill.models.layers import SmallMap, WindowNorm
from tsdistill.models.widths import context_group
from tsdistill.spec import Tuned
from tsdistill.spec.limits import WidthOrZero


class CycleNetConfig(ModelConfig):
    """Shape of a learned-cycle forecaster: Q holds what each channel does at each step of a day or a week.

    x' = x - Q[phase(t)] over the context; y = map(normalised x') + Q[phase(t + h)] over the horizon. The phase of a
    step is read off the calendar features of its time stamp, so that the cycle stays in place from window to window,
    which no window-normalised model can learn otherwise.

    Use it where channels have daily or weekly cycles, each its own; Q is a channel identity that can be read and drawn.
    It needs a task with that calendar and no other covariates: `td.Covariates(calendar=("time-of-day",))`. It takes
    larger steps than a transformer: `Training(learning_rate=5e-3, batch_size=128)`.

    Args:
        clock: The cycle, "time-of-day" or "time-of-week"; its length follows from the data's frequency.
        hidden: Width of a hidden layer (ReLU) of the map; 0 for none, a linear map.
        head: What is forecast for each step: a number, quantiles (`QuantileHead`) or bins (`BinnedHead`).

    Example:
        >>> CycleNetConfig(clock="time-of-week").needs.calendar
        ('time-of-week',)

    Source: S. Lin et al., "CycleNet: Enhancing Time Series Forecasting through Modeling Periodic Patterns", NeurIPS
    2024, section 3 (learnable recurrent cycles, residual cycle forecasting). Differs from the source: the phase comes
    from time stamps instead of a row counter, and windows are normalised after the cycle is taken off, not before.
    """

    kind: Literal["cyclenet"] = "cyclenet"
    clock: Literal["time-of-day", "time-of-week"] = "time-of-day"
    hidden: Annotated[WidthOrZero, Tuned(0, 16, 64)] = 0
    head: AnyHead = PointHead()

    forecaster: ClassVar[type[Forecaster]]
    takes: ClassVar[frozenset[str]] = frozenset({"future"})

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Either clock."""
        return (
            cls(),
            cls(clock="time-of-week", hidden=7),
        )

    @property
    def needs(self) -> Covariates:
        """The clock that the cycle is read off."""
        return Covariates(calendar=(self.clock,))


class CycleNet(Forecaster):
    """The forecaster a `CycleNetConfig` builds."""

    config: CycleNetConfig
    waves: Tensor

    def __init__(self, config: CycleNetConfig, signature: Signature) -> None:
        super().__init__(config, signature)
        n_steps = clock.steps(config.clock, signature.frequency)
        if n_steps is None:
            rule = (
                f"be one that a {config.clock.removeprefix('time-of-')} holds a whole number of steps of, two or more"
            )
            remedy = "Use another clock, or another model"
            raise ConfigError(must("frequency", rule, signature.frequency, remedy))
        self.cycle = nn.Parameter(torch.zeros(n_steps, len(signature.channels)))
        angle = 2 * math.pi * torch.arange(n_steps, dtype=torch.float64) / n_steps
        # Sine and cosine of every phase, (2, phase): the features' own order. Known from the config, so not saved.
        self.register_buffer("waves", torch.stack([angle.sin(), angle.cos()]).float(), persistent=False)
        self.norm = WindowNorm()
        self.map = SmallMap(signature.context, self.n_raw, config.hidden)

    def phases(self, future: Tensor) -> Tensor:
        """Step of the cycle (batch, time) that sine and cosine (batch, time, 2) of a clock are nearest to."""
        # A sum and no product of matrices: these are no weights, and no form of INT8 may round them.
        sine, cosine = self.waves
        return (future[..., :1] * sine + future[..., 1:] * cosine).argmax(dim=-1)

    def activations(
        self,
        context: Tensor,
        future: Tensor | None = None,
        past: Tensor | None = None,
        *,
        attention: bool = False,
    ) -> Activations:
        """The hidden state, where there is one, is a single token."""
        known, _ = self.covariates(future, past)
        assert known is not None  # the signature names it, so that `covariates` has refused its absence
        usual = self.cycle[self.phases(known)].transpose(1, 2)
        x, centre, spread = self.norm(self.recent(context) - usual[..., : self.context])
        raw, hidden = self.map(x)
        ahead = centre + usual[..., self.context :]
        return self.conclude(raw, ahead, spread, hidden=tuple(state[:, :, None, :] for state in hidden))

    def width_groups(self) -> tuple[WidthGroup, ...]:
        """The hidden layer, where there is one, and the oldest steps."""
        return (*self.map.width_groups("map"), context_group(self.context, Slice(self.map.first("map"), 1)))


CycleNetConfig.forecaster = CycleNet
