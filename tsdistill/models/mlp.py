"""A residual MLP from context to horizon."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from tsdistill.data.task import Signature
from tsdistill.models.activations import Activations
from tsdistill.models.base import Forecaster, ModelConfig
from tsdistill.models.groups import Slice, WidthGroup
from tsdistill.models.heads import AnyHead, PointHead
from tsdistill.models.layers import ChannelEmbedding, Shortcut, TokenDropout, WindowNorm
from tsdistill.models.widths import columns_of_steps, context_group, inner_groups, layer_group, spread, width_group
from tsdistill.spec import Tuned
from tsdistill.spec.limits import Depth, Inner, Width


class MLPConfig(ModelConfig):
    """Shape of a residual MLP that maps a channel's normalised context to its horizon; channels share all weights.

    Use it as the quickest student that is not linear: a handful of matrix products, which INT8 makes quicker still. It
    takes covariates: all their steps at once go through a linear layer and are added to every channel's embedding.

    Args:
        width: Size of the residual vector.
        depth: Number of residual blocks.
        hidden: Inner size of the blocks, one number or one per block; by default 2 * width.
        dropout: Share of activations dropped while training, the same ones in every channel of a window.
        channel_embedding: Learn a vector per channel.
        shortcut: Add a linear map from the normalised context to the horizon beside the blocks.
        head: What is forecast for each step: a number, quantiles (`QuantileHead`) or bins (`BinnedHead`).

    Example:
        >>> MLPConfig(width=32, depth=2).hidden
        (64, 64)

    Source: A. Das et al., "Long-term Forecasting with TiDE: Time-series Dense Encoder", TMLR 2023, section 4 (residual
    block, linear shortcut). Differs from the source: covariates go through one linear layer, without a projection of
    each step before it or a second look at them after the decoder; one linear decoder, window normalisation.
    """

    kind: Literal["mlp"] = "mlp"
    width: Annotated[Width, Tuned(16, 32, 64, 128)] = 64
    depth: Annotated[Depth, Tuned(1, 2, 3)] = 2
    hidden: tuple[Inner, ...] = 0  # type: ignore[assignment]
    dropout: float = Field(default=0.1, ge=0, lt=1)
    channel_embedding: bool = True
    shortcut: bool = True
    head: AnyHead = PointHead()

    forecaster: ClassVar[type[Forecaster]]
    takes: ClassVar[frozenset[str]] = frozenset({"future", "past"})

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Blocks of different sizes, and one block alone."""
        return (
            cls(width=7, depth=2, hidden=(13, 11)),
            cls(width=5, depth=1, shortcut=False, channel_embedding=False),
        )

    @model_validator(mode="before")
    @classmethod
    def _spread(cls, values: Any) -> Any:
        return spread(cls, values, hidden=lambda width: 2 * width)


class ResidualBlock(nn.Module):
    """A feed-forward pair behind a layer norm and a residual connection."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)
        self.dropout = TokenDropout(dropout)

    def forward(self, state: Tensor) -> Tensor:
        """(..., width) -> the same shape."""
        change: Tensor = self.contract(self.dropout(functional.gelu(self.expand(self.norm(state)))))
        return state + change


class MLP(Forecaster):
    """The forecaster an `MLPConfig` builds."""

    config: MLPConfig

    def __init__(self, config: MLPConfig, signature: Signature) -> None:
        super().__init__(config, signature)
        self.norm = WindowNorm()
        self.embed = nn.Linear(signature.context, config.width)
        n_future = len(signature.future) * (signature.context + signature.horizon)
        n_past = len(signature.past) * signature.context
        self.embed_future = nn.Linear(n_future, config.width) if n_future else None
        self.embed_past = nn.Linear(n_past, config.width) if n_past else None
        self.channel = ChannelEmbedding(len(signature.channels), config.width) if config.channel_embedding else None
        self.blocks = nn.ModuleList(ResidualBlock(config.width, hidden, config.dropout) for hidden in config.hidden)
        self.last_norm = nn.LayerNorm(config.width)
        self.dropout = TokenDropout(config.dropout)
        self.last = nn.Linear(config.width, self.n_raw)
        self.shortcut = Shortcut(signature.context, self.n_raw) if config.shortcut else None

    def activations(
        self,
        context: Tensor,
        future: Tensor | None = None,
        past: Tensor | None = None,
        *,
        attention: bool = False,
    ) -> Activations:
        """Hidden states are the residual vector after each block, as one token; there is no attention."""
        x, centre, spread = self.norm(self.recent(context))
        state = self.embed(x)
        future, past = self.covariates(future, past)
        for embed, given in ((self.embed_future, future), (self.embed_past, past)):
            if embed is not None and given is not None:
                state = state + embed(given.flatten(1))[:, None]
        if self.channel is not None:
            state = self.channel(state[:, :, None, :])[:, :, 0, :]
        hidden = []
        for block in self.blocks:
            state = block(state)
            hidden.append(state[:, :, None, :])
        raw = self.last(self.dropout(self.last_norm(state)))
        if self.shortcut is not None:
            raw = raw + self.shortcut(x)
        return self.conclude(raw, centre, spread, hidden=tuple(hidden))

    def width_groups(self) -> tuple[WidthGroup, ...]:
        """The inner width of every block, the residual width, blocks, and the oldest steps."""
        config = self.config
        context = self.context
        sources = [Slice("embed.weight", 0), Slice("embed.bias", 0)]
        if self.channel is not None:
            sources.append(Slice("channel.weight", 1))
        steps = [columns_of_steps("shortcut.weight", self.shortcut, n_steps=context, size=context)]
        # All steps of all features at once, those of a step together; what is ahead of the context stays.
        for name, embed, n_features, ahead in (
            ("embed_future", self.embed_future, len(self.signature.future), self.horizon),
            ("embed_past", self.embed_past, len(self.signature.past), 0),
        ):
            if embed is not None:
                sources += [Slice(f"{name}.weight", 0), Slice(f"{name}.bias", 0)]
                steps.append(Slice(f"{name}.weight", 1, block=n_features, rest=ahead * n_features))
        return (
            *inner_groups(config.hidden, field="hidden", group="block{}.hidden", module="blocks.{}"),
            width_group(
                config.width,
                config.depth,
                sources=tuple(sources),
                norms=("norm",),
                reads=("expand",),
                writes=("contract",),
                readers=(Slice("last.weight", 1),),
            ),
            layer_group(config.depth, writers=("contract",), hidden=config.hidden),
            context_group(context, Slice("embed.weight", 1), *steps),
        )


MLPConfig.forecaster = MLP
