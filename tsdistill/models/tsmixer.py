"""A channel-mixing MLP: blocks that mix along time, then across channels (TSMixer class)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from tsdistill.data.task import Signature
from tsdistill.models.base import Activations, Forecaster, ModelConfig, WidthGroup
from tsdistill.models.heads import AnyHead, PointHead
from tsdistill.models.layers import WindowNorm
from tsdistill.models.widths import inner_groups, spread


class TSMixerConfig(ModelConfig):
    """Shape of an MLP that mixes along time, the same in all channels, then across channels, the same at all steps.

    Use it where channels drive each other and INT8 is wanted: it consists of linear layers. With one channel an
    `MLPConfig` does the same for less.

    Args:
        depth: Number of blocks.
        time_hidden: Inner size of the MLP along time, one number or one per block.
        channel_hidden: Inner size of the MLP across channels, one number or one per block.
        dropout: Share of activations dropped while training.
        head: What is said of each step: a number, quantiles (`QuantileHead`) or bins (`BinnedHead`).

    Example:
        >>> TSMixerConfig(depth=2, time_hidden=48).time_hidden
        (48, 48)

    Source: S. Chen et al., "TSMixer: An All-MLP Architecture for Time Series Forecasting", TMLR 2023, section 4.
    Differs from the source: the MLP along time has an inner layer, which can be narrow, instead of a square matrix;
    layer norm over a window's steps and channels together instead of batch norm over them (nothing in a forecast then
    depends on its batch); the window is normalised first.
    """

    kind: Literal["tsmixer"] = "tsmixer"
    depth: int = Field(default=2, ge=1)
    time_hidden: tuple[int, ...] = 64  # type: ignore[assignment]
    channel_hidden: tuple[int, ...] = 32  # type: ignore[assignment]
    dropout: float = Field(default=0.3, ge=0, lt=1)
    head: AnyHead = PointHead()

    forecaster: ClassVar[type[Forecaster]]

    @model_validator(mode="before")
    @classmethod
    def _spread(cls, values: Any) -> Any:
        return spread(cls, values, time_hidden=64, channel_hidden=32)


class Mixing(nn.Module):
    """A feed-forward pair along the last axis, behind a norm over a whole window and a residual connection."""

    def __init__(self, size: int, other: int, hidden: int, dropout: float) -> None:
        super().__init__()
        # Over both axes, so that a single channel does not vanish; no weights, which the layers after it can express.
        self.norm = nn.LayerNorm((other, size), elementwise_affine=False)
        self.expand = nn.Linear(size, hidden)
        self.contract = nn.Linear(hidden, size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, state: Tensor) -> Tensor:
        """(batch, other, size) -> the same shape."""
        change: Tensor = self.contract(self.dropout(functional.relu(self.expand(self.norm(state)))))
        return state + self.dropout(change)


class TSMixerBlock(nn.Module):
    """Mixing along time, then across channels."""

    def __init__(self, context: int, n_channels: int, time_hidden: int, channel_hidden: int, dropout: float) -> None:
        super().__init__()
        self.time = Mixing(context, n_channels, time_hidden, dropout)
        self.channels = Mixing(n_channels, context, channel_hidden, dropout)

    def forward(self, state: Tensor) -> Tensor:
        """(batch, channel, context) -> the same shape."""
        mixed: Tensor = self.channels(self.time(state).transpose(1, 2))
        return mixed.transpose(1, 2)


class TSMixer(Forecaster):
    """The forecaster a `TSMixerConfig` builds."""

    config: TSMixerConfig

    def __init__(self, config: TSMixerConfig, signature: Signature) -> None:
        super().__init__(config, signature)
        self.norm = WindowNorm()
        self.blocks = nn.ModuleList(
            TSMixerBlock(signature.context, len(signature.channels), time_hidden, channel_hidden, config.dropout)
            for time_hidden, channel_hidden in zip(config.time_hidden, config.channel_hidden, strict=True)
        )
        self.last = nn.Linear(signature.context, self.n_raw)

    def activations(
        self,
        context: Tensor,
        future: Tensor | None = None,
        past: Tensor | None = None,
        *,
        attention: bool = False,
    ) -> Activations:
        """Hidden states are the steps after each block, each a vector over channels, on a channel axis of 1."""
        state, centre, spread = self.norm(self.recent(context))
        hidden = []
        for block in self.blocks:
            state = block(state)
            hidden.append(state.transpose(1, 2)[:, None])
        return self.conclude(self.last(state), centre, spread, hidden=tuple(hidden))

    def width_groups(self) -> tuple[WidthGroup, ...]:
        """The inner widths of every block, along time and across channels."""
        config = self.config
        return inner_groups(
            config.time_hidden, field="time_hidden", group="block{}.time", module="blocks.{}.time"
        ) + inner_groups(
            config.channel_hidden, field="channel_hidden", group="block{}.channels", module="blocks.{}.channels"
        )


TSMixerConfig.forecaster = TSMixer
