"""A transformer over patches of each channel (PatchTST class)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from tsdistill.data.task import Signature
from tsdistill.errors import ConfigError, must
from tsdistill.models.activations import Activations
from tsdistill.models.base import Forecaster, ModelConfig
from tsdistill.models.groups import Slice, WidthGroup
from tsdistill.models.heads import AnyHead, PointHead
from tsdistill.models.layers import ChannelEmbedding, Patches, Shortcut, TokenDropout, TransformerBlock, WindowNorm
from tsdistill.models.widths import columns_of_steps, context_group, spread, transformer_groups, with_head_width
from tsdistill.spec import Shorthand, Tuned
from tsdistill.spec.limits import Depth, Inner, Steps, StepsOrZero, Width, WidthOrZero
from tsdistill.spec.strict import whole


class PatchTSTConfig(ModelConfig):
    """Shape of a transformer whose tokens are patches of one channel; channels share all weights.

    Use it as a teacher (width 64 to 128, depth 3) wherever series have structure that a linear map cannot express, and
    as a small student (width 16 to 32, patches without overlap) where INT8 linear layers are wanted.

    Args:
        depth: Number of transformer blocks.
        width: Size of a token's vector.
        heads: Attention heads, one number or one per block.
        head_width: Size of a head; by default width // heads of the first block.
        feedforward: Inner size of the feed-forward pair, one number or one per block; by default 2 * width.
        patch: Steps in a patch.
        stride: Steps between patches; by default half a patch, equal to `patch` means no overlap. `overlap=False` is
            short for that.
        dropout: Share of activations dropped while training.
        channel_embedding: Learn a vector per channel (distinguishes channels without mixing them).
        shortcut: Add a linear map from the normalised context to the horizon beside the blocks; for data on which a
            linear map does well.
        head: What is forecast for each step: a number, quantiles (`QuantileHead`) or bins (`BinnedHead`).

    Example:
        >>> PatchTSTConfig(depth=2, width=32, heads=4).feedforward
        (64, 64)

    Source: Y. Nie et al., "A Time Series is Worth 64 Words: Long-term Forecasting with Transformers", ICLR 2023.
    Differs from the source: layer norm before each part instead of batch norm after it (nothing in a forecast then
    depends on its batch), an optional channel embedding, an optional linear shortcut, and patches counted back
    from the last step instead of padding the end.
    """

    kind: Literal["patchtst"] = "patchtst"
    depth: Annotated[Depth, Tuned(1, 2)] = 3
    width: Annotated[Width, Tuned(16, 32)] = 64
    heads: tuple[Width, ...] = 4  # type: ignore[assignment]
    head_width: WidthOrZero = 0
    feedforward: tuple[Inner, ...] = 0  # type: ignore[assignment]
    patch: Annotated[Steps, Tuned(16, 24, 48)] = 16
    stride: StepsOrZero = 0
    dropout: float = Field(default=0.1, ge=0, lt=1)
    channel_embedding: bool = True
    shortcut: bool = False
    head: AnyHead = PointHead()

    forecaster: ClassVar[type[Forecaster]]
    shorthands: ClassVar[Mapping[str, Shorthand]] = {
        "overlap": Shorthand(lambda config: config.stride < config.patch, Tuned(False))
    }

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Patches that overlap and patches that do not, blocks of different sizes."""
        return (
            cls(depth=2, width=14, heads=2, head_width=5, feedforward=(13, 11), patch=7, stride=3),
            cls(depth=1, width=6, heads=3, patch=7, stride=7, channel_embedding=False, shortcut=True),
        )

    @model_validator(mode="before")
    @classmethod
    def _spread(cls, values: Any) -> Any:
        values = with_head_width(cls, spread(cls, values, heads=4, feedforward=lambda width: 2 * width))
        if not isinstance(values, dict):
            return values
        patch = whole(values.get("patch", 16))
        values, overlap = {name: value for name, value in values.items() if name != "overlap"}, values.get("overlap")
        if not isinstance(overlap, bool | None):
            raise ValueError(must("overlap", "be true or false", overlap, "False makes `stride` as long as `patch`"))
        half = max(patch // 2, 1) if isinstance(patch, int) else patch
        if overlap is not None:
            return {**values, "stride": half if overlap else patch}
        return {**values, "stride": values.get("stride") or half}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.stride > self.patch:
            raise ValueError(
                must("stride", f"be at most patch = {self.patch}", self.stride, "Steps between patches would be unseen")
            )
        return self


class PatchTST(Forecaster):
    """The forecaster a `PatchTSTConfig` builds."""

    config: PatchTSTConfig

    def __init__(self, config: PatchTSTConfig, signature: Signature) -> None:
        super().__init__(config, signature)
        if config.patch > signature.context:
            raise ConfigError(must("patch", f"be at most context = {signature.context}", config.patch, "Shorten it"))
        width = config.width
        self.norm = WindowNorm()
        self.patches = Patches(signature.context, config.patch, config.stride)
        self.embed = nn.Linear(config.patch, width)
        self.position = nn.Parameter(torch.randn(self.patches.n_tokens, width) * 0.02)
        self.channel = ChannelEmbedding(len(signature.channels), width) if config.channel_embedding else nn.Identity()
        self.blocks = nn.ModuleList(
            TransformerBlock(width, heads, config.head_width, feedforward, config.dropout)
            for heads, feedforward in zip(config.heads, config.feedforward, strict=True)
        )
        self.last_norm = nn.LayerNorm(width)
        self.dropout = TokenDropout(config.dropout)
        self.last = nn.Linear(self.patches.n_tokens * width, self.n_raw)
        self.shortcut = Shortcut(signature.context, self.n_raw) if config.shortcut else None

    def activations(
        self,
        context: Tensor,
        future: Tensor | None = None,
        past: Tensor | None = None,
        *,
        attention: bool = False,
    ) -> Activations:
        """Hidden states are the tokens after each block."""
        x, centre, spread = self.norm(self.recent(context))
        batch, n_channels, _ = x.shape
        tokens = self.channel(self.embed(self.patches(x)) + self.position)
        rows = self.dropout(tokens.flatten(0, 1))
        hidden: list[Tensor] = []
        maps: list[Tensor] = []
        values: list[Tensor] = []
        for block in self.blocks:
            rows, shown = block(rows, show=attention)
            hidden.append(rows.unflatten(0, (batch, n_channels)))
            if shown is not None:
                for kept, tensor in zip((maps, values), shown, strict=True):
                    kept.append(tensor.unflatten(0, (batch, n_channels)))
        flat = self.dropout(self.last_norm(rows)).flatten(1).unflatten(0, (batch, n_channels))
        raw = self.last(flat)
        if self.shortcut is not None:
            raw = raw + self.shortcut(x)
        heads = {"attention": tuple(maps), "values": tuple(values)} if attention else {}
        return self.conclude(raw, centre, spread, hidden=tuple(hidden), **heads)

    def width_groups(self) -> tuple[WidthGroup, ...]:
        """Heads and feed-forward width of every block, the residual width, blocks, and the oldest patches.

        Most weights of a long context sit in the last layer, which reads every patch.
        """
        n_tokens = self.patches.n_tokens
        width = self.config.width
        stride = self.config.stride
        sources = [Slice("embed.weight", 0), Slice("embed.bias", 0), Slice("position", 1)]
        if self.config.channel_embedding:
            sources.append(Slice("channel.weight", 1))
        patches = context_group(
            n_tokens,
            Slice("last.weight", 1, block=width),
            columns_of_steps("shortcut.weight", self.shortcut, n_steps=self.context, size=n_tokens, steps=stride),
            steps=stride,
            incoming=(Slice("position", 0),),
        )
        readers = (Slice("last.weight", 1, repeat=n_tokens),)
        return (*transformer_groups(self.config, tuple(sources), readers), patches)


PatchTSTConfig.forecaster = PatchTST
