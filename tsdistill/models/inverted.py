"""A transformer whose tokens are whole channels (iTransformer class)."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from tsdistill.data.task import Signature
from tsdistill.models.activations import Activations
from tsdistill.models.base import Forecaster, ModelConfig
from tsdistill.models.groups import Slice, WidthGroup
from tsdistill.models.heads import AnyHead, PointHead
from tsdistill.models.layers import ChannelEmbedding, Shortcut, TokenDropout, TransformerBlock, WindowNorm
from tsdistill.models.widths import columns_of_steps, context_group, spread, transformer_groups, with_head_width
from tsdistill.spec import Tuned
from tsdistill.spec.limits import Depth, Inner, Width, WidthOrZero


class InvertedTransformerConfig(ModelConfig):
    """Shape of a transformer with one token per channel: attention mixes channels, linear layers see the time.

    Use it as a teacher where channels drive each other (weather stations, traffic, a load and its temperature), and as
    a student with few tokens: its cost does not grow with the context. With one channel it is a residual MLP. It takes
    covariates: each feature is one more token, which channels attend to and which is not forecast.

    Args:
        depth: Number of transformer blocks.
        width: Size of a token's vector.
        heads: Attention heads, one number or one per block.
        head_width: Size of a head; by default width // heads of the first block.
        feedforward: Inner size of the feed-forward pair, one number or one per block; by default 2 * width.
        dropout: Share of activations dropped while training. Much by default: what one channel seems to reveal of
            another is learnt by heart within an epoch of a few thousand rows. Lower it where there are many more.
        channel_embedding: Learn a vector per channel, so that attention can tell channels apart.
        shortcut: Add a linear map from the normalised context to the horizon beside the blocks.
        head: What is forecast for each step: a number, quantiles (`QuantileHead`) or bins (`BinnedHead`).

    Example:
        >>> InvertedTransformerConfig(depth=2, width=64, heads=4).head_width
        16

    Source: Y. Liu et al., "iTransformer: Inverted Transformers Are Effective for Time Series Forecasting", ICLR 2024,
    section 3.1. Differs from the source: layer norm before each part instead of after it, an optional channel embedding
    and an optional linear shortcut, covariates that reach over the horizon.
    """

    kind: Literal["inverted-transformer"] = "inverted-transformer"
    depth: Annotated[Depth, Tuned(1, 2)] = 2
    width: Annotated[Width, Tuned(16, 32, 64)] = 64
    heads: tuple[Width, ...] = 4  # type: ignore[assignment]
    head_width: WidthOrZero = 0
    feedforward: tuple[Inner, ...] = 0  # type: ignore[assignment]
    dropout: float = Field(default=0.5, ge=0, lt=1)
    channel_embedding: bool = True
    shortcut: bool = True
    head: AnyHead = PointHead()

    forecaster: ClassVar[type[Forecaster]]
    takes: ClassVar[frozenset[str]] = frozenset({"future", "past"})

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Blocks of different sizes, and one block alone."""
        return (
            cls(depth=2, width=14, heads=(2, 3), head_width=5, feedforward=(13, 11)),
            cls(depth=1, width=6, heads=3, channel_embedding=False, shortcut=False),
        )

    @model_validator(mode="before")
    @classmethod
    def _spread(cls, values: Any) -> Any:
        return with_head_width(cls, spread(cls, values, heads=4, feedforward=lambda width: 2 * width))


class FeatureTokens(nn.Module):
    """One token per feature: all its steps through a linear layer, and a learned vector that identifies it."""

    def __init__(self, n_steps: int, n_features: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(n_steps, width)
        self.feature = nn.Parameter(torch.zeros(n_features, width))

    def forward(self, covariates: Tensor) -> Tensor:
        """(batch, step, feature) -> (batch, feature, width)."""
        return self.embed(covariates.transpose(1, 2)) + self.feature


class InvertedTransformer(Forecaster):
    """The forecaster an `InvertedTransformerConfig` builds."""

    config: InvertedTransformerConfig

    def __init__(self, config: InvertedTransformerConfig, signature: Signature) -> None:
        super().__init__(config, signature)
        width = config.width
        n_channels = len(signature.channels)
        self.norm = WindowNorm()
        self.embed = nn.Linear(signature.context, width)
        self.channel = ChannelEmbedding(n_channels, width) if config.channel_embedding else nn.Identity()
        n_steps, n_future, n_past = signature.context + signature.horizon, len(signature.future), len(signature.past)
        self.embed_future = FeatureTokens(n_steps, n_future, width) if n_future else None
        self.embed_past = FeatureTokens(signature.context, n_past, width) if n_past else None
        self.blocks = nn.ModuleList(
            TransformerBlock(width, heads, config.head_width, feedforward, config.dropout)
            for heads, feedforward in zip(config.heads, config.feedforward, strict=True)
        )
        self.last_norm = nn.LayerNorm(width)
        self.dropout = TokenDropout(config.dropout)
        self.last = nn.Linear(width, self.n_raw)
        self.shortcut = Shortcut(signature.context, self.n_raw) if config.shortcut else None

    def activations(
        self,
        context: Tensor,
        future: Tensor | None = None,
        past: Tensor | None = None,
        *,
        attention: bool = False,
    ) -> Activations:
        """Hidden states are the channels' tokens after each block, on a channel axis of 1.

        Queries and keys of the attention are channels, then features of `future`, then those of `past`.
        """
        x, centre, spread = self.norm(self.recent(context))
        n_channels = x.shape[1]
        tokens = [self.channel(self.embed(x)[:, :, None, :])[:, :, 0, :]]
        future, past = self.covariates(future, past)
        for embed, given in ((self.embed_future, future), (self.embed_past, past)):
            if embed is not None and given is not None:
                tokens.append(embed(given))
        rows = self.dropout(torch.cat(tokens, dim=1))
        hidden: list[Tensor] = []
        maps: list[Tensor] = []
        values: list[Tensor] = []
        for block in self.blocks:
            rows, shown = block(rows, show=attention)
            hidden.append(rows[:, None, :n_channels])
            if shown is not None:
                for kept, tensor in zip((maps, values), shown, strict=True):
                    kept.append(tensor[:, None])
        raw = self.last(self.dropout(self.last_norm(rows[:, :n_channels])))
        if self.shortcut is not None:
            raw = raw + self.shortcut(x)
        heads = {"attention": tuple(maps), "values": tuple(values)} if attention else {}
        return replace(self.conclude(raw, centre, spread, hidden=tuple(hidden), **heads), tokens_are="channels")

    def width_groups(self) -> tuple[WidthGroup, ...]:
        """Heads and feed-forward width of every block, the residual width, blocks, and the oldest steps."""
        sources = [Slice("embed.weight", 0), Slice("embed.bias", 0)]
        if self.config.channel_embedding:
            sources.append(Slice("channel.weight", 1))
        for name, embed in (("embed_future", self.embed_future), ("embed_past", self.embed_past)):
            if embed is not None:
                sources += [
                    Slice(f"{name}.embed.weight", 0),
                    Slice(f"{name}.embed.bias", 0),
                    Slice(f"{name}.feature", 1),
                ]
        n_steps = {"n_steps": self.context, "size": self.context}
        steps = context_group(
            self.context,
            Slice("embed.weight", 1),
            columns_of_steps("shortcut.weight", self.shortcut, **n_steps),
            columns_of_steps("embed_past.embed.weight", self.embed_past, **n_steps),
            columns_of_steps(
                "embed_future.embed.weight",
                self.embed_future,
                n_steps=self.context + self.horizon,
                size=self.context,
            ),
        )
        return (*transformer_groups(self.config, tuple(sources), (Slice("last.weight", 1),)), steps)


InvertedTransformerConfig.forecaster = InvertedTransformer
