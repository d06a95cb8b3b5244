"""A channel-mixing MLP: blocks that mix along time, then across channels (TSMixer class)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from tsdistill.data.task import Signature
from tsdistill.models.activations import Activations
from tsdistill.models.base import Forecaster, ModelConfig
from tsdistill.models.groups import Slice, WidthGroup
from tsdistill.models.heads import AnyHead, PointHead
from tsdistill.models.layers import Shortcut, WindowNorm
from tsdistill.models.widths import context_group, inner_groups, layer_group, spread
from tsdistill.spec import Tuned
from tsdistill.spec.limits import Depth, Inner, Width


class TSMixerConfig(ModelConfig):
    """Shape of an MLP that mixes along time, the same in all channels, then across channels, the same at all steps.

    Use it where channels drive each other and INT8 is wanted: it consists of linear layers. With one channel an
    `MLPConfig` does the same for less. It takes covariates: they are mixed like further channels over the context, and
    those known ahead once more with the forecast, step by step.

    Args:
        depth: Number of blocks.
        time_hidden: Inner size of the MLP along time, one number or one per block.
        channel_hidden: Inner size of the MLP across channels, one number or one per block.
        future_hidden: Inner size of the MLP that mixes a step's forecast with what is known of that step; not there
            without covariates known ahead.
        dropout: Share of activations dropped while training.
        head: What is forecast for each step: a number, quantiles (`QuantileHead`) or bins (`BinnedHead`).

    Example:
        >>> TSMixerConfig(depth=2, time_hidden=48).time_hidden
        (48, 48)

    Source: S. Chen et al., "TSMixer: An All-MLP Architecture for Time Series Forecasting", TMLR 2023, sections 4 and 5
    (covariates). Differs from the source: the MLP along time has an inner layer, which can be narrow, instead of a
    square matrix; layer norm over a window's steps and channels together instead of batch norm over them (nothing in a
    forecast then depends on its batch); the window is normalised first; covariates of the context enter the blocks as
    they are, and one MLP mixes those of the horizon in.
    """

    kind: Literal["tsmixer"] = "tsmixer"
    depth: Annotated[Depth, Tuned(1, 2)] = 2
    time_hidden: Annotated[tuple[Inner, ...], Tuned(16, 32, 64)] = 64  # type: ignore[assignment]
    channel_hidden: Annotated[tuple[Inner, ...], Tuned(8, 16, 32)] = 32  # type: ignore[assignment]
    future_hidden: Width = 32
    dropout: float = Field(default=0.3, ge=0, lt=1)
    head: AnyHead = PointHead()

    forecaster: ClassVar[type[Forecaster]]
    takes: ClassVar[frozenset[str]] = frozenset({"future", "past"})

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Blocks of different sizes, and the narrowest."""
        return (
            cls(depth=2, time_hidden=(13, 7), channel_hidden=(5, 11)),
            cls(depth=1, time_hidden=2, channel_hidden=1),
        )

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
    """Mixing along time, then across channels (and covariates, if there are some)."""

    def __init__(self, context: int, n_channels: int, time_hidden: int, channel_hidden: int, dropout: float) -> None:
        super().__init__()
        self.time = Mixing(context, n_channels, time_hidden, dropout)
        self.channels = Mixing(n_channels, context, channel_hidden, dropout)

    def forward(self, state: Tensor) -> Tensor:
        """(batch, channel, context) -> the same shape."""
        mixed: Tensor = self.channels(self.time(state).transpose(1, 2))
        return mixed.transpose(1, 2)


class FutureMixing(nn.Module):
    """Corrects each step's raw outputs by themselves and the known features of that step; starts with no correction."""

    def __init__(self, n_outputs: int, n_features: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(n_outputs + n_features, hidden)
        self.contract = Shortcut(hidden, n_outputs)

    def forward(self, raw: Tensor, future: Tensor) -> Tensor:
        """(batch, step, n_outputs) and (batch, step, feature) -> the first's shape."""
        change: Tensor = self.contract(functional.relu(self.expand(torch.cat([raw, future], dim=-1))))
        return raw + change


class TSMixer(Forecaster):
    """The forecaster a `TSMixerConfig` builds."""

    config: TSMixerConfig

    def __init__(self, config: TSMixerConfig, signature: Signature) -> None:
        super().__init__(config, signature)
        n_channels = len(signature.channels)
        n_future = len(signature.future)
        n_mixed = n_channels + n_future + len(signature.past)
        self.norm = WindowNorm()
        self.blocks = nn.ModuleList(
            TSMixerBlock(signature.context, n_mixed, time_hidden, channel_hidden, config.dropout)
            for time_hidden, channel_hidden in zip(config.time_hidden, config.channel_hidden, strict=True)
        )
        self.last = nn.Linear(signature.context, self.n_raw)
        n_outputs = n_channels * self.head.n_outputs
        self.mix_future = FutureMixing(n_outputs, n_future, config.future_hidden) if n_future else None

    def activations(
        self,
        context: Tensor,
        future: Tensor | None = None,
        past: Tensor | None = None,
        *,
        attention: bool = False,
    ) -> Activations:
        """Hidden states are the steps after each block, on a channel axis of 1.

        A step's vector holds the channels, then the features of `future`, then those of `past`.
        """
        x, centre, spread = self.norm(self.recent(context))
        future, past = self.covariates(future, past)
        known = [covariate[:, : self.context].transpose(1, 2) for covariate in (future, past) if covariate is not None]
        state = torch.cat([x, *known], dim=1)
        hidden = []
        for block in self.blocks:
            state = block(state)
            hidden.append(state.transpose(1, 2)[:, None])
        raw = self.last(state[:, : x.shape[1]])
        if self.mix_future is not None and future is not None:
            raw = self._mixed(raw, future[:, self.context :])
        return self.conclude(raw, centre, spread, hidden=tuple(hidden))

    def _mixed(self, raw: Tensor, future: Tensor) -> Tensor:
        """Raw outputs (batch, channel, n_outputs * horizon) mixed with the features of each step of the horizon."""
        assert self.mix_future is not None  # `activations` checked
        steps = raw.unflatten(-1, (self.head.n_outputs, self.horizon)).flatten(1, 2).transpose(1, 2)
        mixed: Tensor = self.mix_future(steps, future)
        return mixed.transpose(1, 2).unflatten(1, (raw.shape[1], self.head.n_outputs)).flatten(2)

    def width_groups(self) -> tuple[WidthGroup, ...]:
        """The inner widths of every block, along time and across channels, and that of the last mixing if there is.

        Then blocks, and the oldest steps: what is passed from block to block is as wide as the context is long.
        """
        config = self.config
        groups = inner_groups(
            config.time_hidden, field="time_hidden", group="block{}.time", module="blocks.{}.time"
        ) + inner_groups(
            config.channel_hidden, field="channel_hidden", group="block{}.channels", module="blocks.{}.channels"
        )
        blocks = [f"blocks.{place}.time" for place in range(config.depth)]
        outer = (
            layer_group(
                config.depth,
                writers=("time.contract", "channels.contract"),
                time_hidden=config.time_hidden,
                channel_hidden=config.channel_hidden,
            ),
            context_group(
                self.context,
                *(Slice(f"{block}.expand.weight", 1) for block in blocks),
                Slice("last.weight", 1),
                incoming=tuple(Slice(f"{block}.contract.{part}", 0) for block in blocks for part in ("weight", "bias")),
            ),
        )
        if self.mix_future is None:
            return (*groups, *outer)
        last = WidthGroup(
            name="future.hidden",
            size=config.future_hidden,
            field=("future_hidden", None),
            incoming=(Slice("mix_future.expand.weight", 0), Slice("mix_future.expand.bias", 0)),
            outgoing=(Slice("mix_future.contract.weight", 1),),
        )
        return (*groups, last, *outer)


TSMixerConfig.forecaster = TSMixer
