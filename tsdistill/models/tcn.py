"""A convolutional network over patches of each channel: depthwise-separable, dilated, causal (TCN class)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from tsdistill.data.task import Signature
from tsdistill.errors import ConfigError, must
from tsdistill.models.activations import Activations
from tsdistill.models.base import Forecaster, ModelConfig
from tsdistill.models.groups import Slice, WidthGroup
from tsdistill.models.heads import AnyHead, PointHead
from tsdistill.models.layers import ChannelEmbedding, Patches, Shortcut, TokenDropout, WindowNorm
from tsdistill.models.widths import columns_of_steps, context_group, inner_groups, layer_group, spread, width_group
from tsdistill.spec import Tuned
from tsdistill.spec.limits import MAX_STEPS, Depth, Inner, Steps, Width


class TCNConfig(ModelConfig):
    """Shape of a network of depthwise-separable causal convolutions over one channel; channels share all weights.

    Block d convolves over `kernel` tokens that lie 2^d apart (d = 0, 1, ...), so that `depth` blocks see
    1 + (kernel - 1) * (2^depth - 1) tokens of `patch` steps each. Depthwise filters cost kernel * hidden weights where
    a full convolution costs kernel * hidden^2.

    Use it as a small student: plain convolutions and ReLUs, with no recurrence, no softmax and no norm inside, which
    static INT8 likes. It takes longer to train than an `MLPConfig` of its size. Choose depth, kernel and patch so that
    the blocks see the whole context; only the shortcut sees what lies before.

    Args:
        width: Size of a token's vector between blocks.
        depth: Number of blocks.
        hidden: Inner (expanded) size of the blocks, one number or one per block; by default 2 * width.
        kernel: Tokens that a filter spans.
        dilations: Tokens between the taps of each block's filters; by default 2^d. A pruned model that lacks a block
            keeps those of the others.
        patch: Steps in a token; 1 works on single steps.
        dropout: Share of activations dropped while training.
        channel_embedding: Learn a vector per channel.
        shortcut: Add a linear map from the normalised context to the horizon beside the blocks.
        head: What is forecast for each step: a number, quantiles (`QuantileHead`) or bins (`BinnedHead`).

    Example:
        >>> TCNConfig(width=16, depth=3).hidden
        (32, 32, 32)

    Source: S. Bai et al., "An Empirical Evaluation of Generic Convolutional and Recurrent Networks for Sequence
    Modeling", arXiv 1803.01271, 2018, section 3 (causal, dilated, residual); A. Howard et al., "MobileNets: Efficient
    Convolutional Neural Networks for Mobile Vision Applications", arXiv 1704.04861, 2017, section 3.1 (depthwise-
    separable); M. Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, section 3.3
    (expand, filter, contract). Differs from the sources: patches as tokens, one linear layer gives the whole horizon
    from the last token, and no norm in the blocks, which start as the identity instead.
    """

    kind: Literal["tcn"] = "tcn"
    width: Annotated[Width, Tuned(16, 32, 64)] = 64
    depth: Annotated[Depth, Tuned(2, 3)] = 3
    hidden: tuple[Inner, ...] = 0  # type: ignore[assignment]
    kernel: Annotated[Steps, Field(ge=2)] = 3
    dilations: tuple[Annotated[int, Field(gt=0, le=MAX_STEPS)], ...] | None = None
    patch: Annotated[Steps, Tuned(8, 12, 24)] = 24
    dropout: float = Field(default=0.1, ge=0, lt=1)
    channel_embedding: bool = True
    shortcut: bool = True
    head: AnyHead = PointHead()

    forecaster: ClassVar[type[Forecaster]]

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Patches and single steps."""
        return (
            cls(width=7, depth=2, hidden=(13, 11), kernel=3, patch=5),
            cls(width=5, depth=1, kernel=2, patch=1, shortcut=False, channel_embedding=False),
        )

    @model_validator(mode="before")
    @classmethod
    def _spread(cls, values: Any) -> Any:
        return spread(cls, values, hidden=lambda width: 2 * width)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.dilations is not None and len(self.dilations) != self.depth:
            rule = f"hold one number for each of depth = {self.depth} blocks"
            raise ValueError(must("dilations", rule, self.dilations, "Leave it out for 1, 2, 4, ..."))
        return self

    @property
    def spacing(self) -> tuple[int, ...]:
        """Tokens between the taps of each block's filters."""
        return self.dilations or tuple(2**place for place in range(self.depth))


class SeparableBlock(nn.Module):
    """Expand every token, filter each inner unit along time by itself, contract; with a residual connection."""

    def __init__(self, width: int, hidden: int, kernel: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.kernel, self.dilation = kernel, dilation
        self.expand = nn.Conv1d(width, hidden, 1)
        self.depthwise = nn.Conv1d(hidden, hidden, kernel, dilation=dilation, groups=hidden)
        self.contract = nn.Conv1d(hidden, width, 1)
        self.dropout = TokenDropout(dropout)
        nn.init.zeros_(self.contract.weight)
        nn.init.zeros_(self.contract.bias)  # type: ignore[arg-type]

    def forward(self, tokens: Tensor) -> Tensor:
        """(rows, width, token) -> the same shape; no token sees a later one."""
        inner = functional.relu(self.expand(tokens))
        change = self.contract(functional.relu(self._filtered(inner))).transpose(1, 2)
        return tokens + self.dropout(change).transpose(1, 2)

    def _filtered(self, inner: Tensor) -> Tensor:
        """The depthwise convolution over what came before, (rows, hidden, token) -> the same shape."""
        padded = functional.pad(inner, ((self.kernel - 1) * self.dilation, 0))
        if not self.training:
            filtered: Tensor = self.depthwise(padded)
            return filtered
        # The same numbers as a sum over shifts: the backward pass of a depthwise convolution takes twice as long.
        weight, bias = self.depthwise.weight, self.depthwise.bias
        assert bias is not None  # a convolution has one by default
        n_tokens = inner.shape[-1]
        total = bias[:, None]
        for tap in range(self.kernel):
            start = tap * self.dilation
            total = total + padded[..., start : start + n_tokens] * weight[:, :, tap]
        return total


class TCN(Forecaster):
    """The forecaster a `TCNConfig` builds."""

    config: TCNConfig

    def __init__(self, config: TCNConfig, signature: Signature) -> None:
        super().__init__(config, signature)
        if config.patch > signature.context:
            raise ConfigError(must("patch", f"be at most context = {signature.context}", config.patch, "Shorten it"))
        width = config.width
        self.norm = WindowNorm()
        self.patches = Patches(signature.context, config.patch, config.patch)
        self.embed = nn.Linear(config.patch, width)
        self.channel = ChannelEmbedding(len(signature.channels), width) if config.channel_embedding else nn.Identity()
        self.blocks = nn.ModuleList(
            # Taps beyond the first token see zeros, however far: no more of them are made than there are tokens.
            SeparableBlock(width, hidden, config.kernel, min(dilation, self.patches.n_tokens), config.dropout)
            for hidden, dilation in zip(config.hidden, config.spacing, strict=True)
        )
        self.last_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
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
        """Hidden states are the tokens after each block; there is no attention."""
        x, centre, spread = self.norm(self.recent(context))
        batch, n_channels, _ = x.shape
        rows = self.channel(self.embed(self.patches(x))).flatten(0, 1).transpose(1, 2)
        hidden = []
        for block in self.blocks:
            rows = block(rows)
            hidden.append(rows.transpose(1, 2).unflatten(0, (batch, n_channels)))
        raw = self.last(self.dropout(self.last_norm(rows[:, :, -1]))).unflatten(0, (batch, n_channels))
        if self.shortcut is not None:
            raw = raw + self.shortcut(x)
        return self.conclude(raw, centre, spread, hidden=tuple(hidden))

    def width_groups(self) -> tuple[WidthGroup, ...]:
        """The inner width of every block, the residual width, blocks, and the oldest patches.

        An inner unit is a row of `expand`, a filter of `depthwise` and a column of `contract`.
        """
        config = self.config
        n_tokens = self.patches.n_tokens
        sources = [Slice("embed.weight", 0), Slice("embed.bias", 0)]
        if config.channel_embedding:
            sources.append(Slice("channel.weight", 1))
        columns = {"n_steps": self.context, "size": n_tokens, "steps": config.patch}
        return (
            *inner_groups(
                config.hidden,
                field="hidden",
                group="block{}.hidden",
                module="blocks.{}",
                between=("depthwise.weight", "depthwise.bias"),
            ),
            width_group(
                config.width,
                config.depth,
                sources=tuple(sources),
                reads=("expand",),
                writes=("contract",),
                readers=(Slice("last.weight", 1),),
            ),
            layer_group(config.depth, writers=("contract",), hidden=config.hidden, dilations=config.spacing),
            context_group(n_tokens, columns_of_steps("shortcut.weight", self.shortcut, **columns), steps=config.patch),
        )


TCNConfig.forecaster = TCN
