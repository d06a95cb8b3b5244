"""Building blocks shared by the architectures: window normalisation, patches, attention, a transformer block."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from tsdistill.models.groups import Slice, WidthGroup

EPSILON = 1e-5


class WindowNorm(nn.Module):
    """Centres and scales each window of each channel by itself, and undoes it on the forecast.

    x' = (x - mean) / sqrt(variance + 1e-5) over the context's steps; y = y' * sqrt(variance + 1e-5) + mean.

    Source: T. Kim et al., "Reversible Instance Normalization for Accurate Time-Series Forecasting against Distribution
    Shift", ICLR 2022, equations 1 and 2. Differs from the source: no learned affine part, which the layers next to it
    can express.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(batch, channel, context) -> the same normalised, and (batch, channel, 1) centre and spread."""
        centre = x.mean(dim=-1, keepdim=True)
        centred = x - centre
        spread = (centred.square().mean(dim=-1, keepdim=True) + EPSILON).sqrt()
        return centred / spread, centre, spread


class Patches(nn.Module):
    """Cuts (batch, channel, context) into (batch, channel, token, patch), the last token ending at the last step.

    Steps at the start that do not fill a patch are left out: the recent past is never the part that is dropped.
    """

    def __init__(self, context: int, patch: int, stride: int) -> None:
        super().__init__()
        self.patch, self.stride = patch, stride
        self.n_tokens = (context - patch) // stride + 1
        self.skip = context - (self.n_tokens - 1) * stride - patch

    def forward(self, x: Tensor) -> Tensor:
        """Overlapping or adjoining patches as strided views."""
        if self.patch == self.stride:
            # A plain reshape: the same values as unfold, and one operator fewer in the exported graph.
            return x[..., self.skip :].reshape(*x.shape[:-1], self.n_tokens, self.patch)
        return x[..., self.skip :].unfold(-1, self.patch, self.stride)


class ChannelEmbedding(nn.Module):
    """A learned vector per channel, added to every token: how a channel-independent model tells channels apart."""

    def __init__(self, n_channels: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_channels, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, channel, token, width) with the channel's vector added."""
        return tokens + self.weight[None, :, None, :]


class Shortcut(nn.Linear):
    """A linear map from the normalised context to the horizon that starts at zero: it only ever adds what helps."""

    def reset_parameters(self) -> None:
        """Zero weights and biases."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


class ChannelLinear(nn.Module):
    """A linear map for every channel, (batch, channel, before) -> (batch, channel, after); it starts at zero."""

    def __init__(self, n_channels: int, before: int, after: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_channels, after, before))
        self.bias = nn.Parameter(torch.zeros(n_channels, after)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """One product per channel, the windows of a batch together."""
        mapped = (x.transpose(0, 1) @ self.weight.mT).transpose(0, 1)
        return mapped if self.bias is None else mapped + self.bias


class ChannelBias(nn.Module):
    """A learned number per channel and output, (batch, channel, output): the smallest channel identity there is."""

    def __init__(self, n_channels: int, n_outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_channels, n_outputs))

    def forward(self, outputs: Tensor) -> Tensor:
        """The outputs with their channel's numbers added."""
        return outputs + self.weight


class SmallMap(nn.Module):
    """A linear map of the last axis, or two with a hidden layer (ReLU) between them."""

    def __init__(self, before: int, after: int, hidden: int = 0, *, bias: bool = True) -> None:
        super().__init__()
        self.n_hidden = hidden
        self.expand = nn.Linear(before, hidden) if hidden else None
        self.last = nn.Linear(hidden or before, after, bias=bias)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(..., before) -> (..., after), and the hidden layer (..., hidden) if there is one."""
        if self.expand is None:
            return self.last(x), ()
        state = functional.relu(self.expand(x))
        return self.last(state), (state,)

    def first(self, name: str) -> str:
        """The weight that reads the inputs; `name` is the attribute this map stands in."""
        return f"{name}.{'last' if self.expand is None else 'expand'}.weight"

    def width_groups(self, name: str) -> tuple[WidthGroup, ...]:
        """The hidden units, for a config whose field `hidden` counts them; `name` is the attribute it stands in."""
        if self.expand is None:
            return ()
        incoming = (Slice(f"{name}.expand.weight", 0), Slice(f"{name}.expand.bias", 0))
        outgoing = (Slice(f"{name}.last.weight", 1),)
        return (WidthGroup(f"{name}.hidden", self.n_hidden, ("hidden", None), incoming, outgoing),)


class TokenDropout(nn.Module):
    """Drops the same entries of a vector at every token of a row: one mask per row instead of one per token.

    Source: Y. Gal and Z. Ghahramani, "A Theoretically Grounded Application of Dropout in Recurrent Neural Networks",
    NeurIPS 2016, section 4. Differs from the source: used between transformer blocks as well. Drawing a mask for
    every token is slow on a CPU, where random numbers come one after the other.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, tokens: Tensor) -> Tensor:
        """(rows, token, width) -> the same shape; the identity while not training."""
        if not self.training or self.share == 0:
            return tokens
        mask = torch.empty(tokens.shape[0], 1, tokens.shape[2], dtype=tokens.dtype, device=tokens.device)
        return tokens * mask.bernoulli_(1 - self.share).div_(1 - self.share)


class Attention(nn.Module):
    """Multi-head attention in plain linear layers, with a fused and an explicit path that agree.

    softmax(Q K^T / sqrt(head_width)) V per head. The explicit path is taken when the weights are asked for; the fused
    one is faster and keeps none. Plain layers export, quantize and prune like any other.

    Source: A. Vaswani et al., "Attention Is All You Need", NeurIPS 2017, equation 1. Differs from the source: the head
    width is free, so that pruning may leave 3 heads of 16 in a model of width 64.
    """

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, head_width
        self.query = nn.Linear(width, heads * head_width)
        self.key = nn.Linear(width, heads * head_width)
        self.value = nn.Linear(width, heads * head_width)
        self.out = nn.Linear(heads * head_width, width)

    def forward(self, tokens: Tensor, *, show: bool = False) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """(rows, token, width) -> the same shape; weights and values of every head when they are to be shown.

        Those are (rows, head, query, key) and (rows, head, token, head_width).
        """
        query, key, value = (
            layer(tokens).unflatten(-1, (self.heads, self.head_width)).transpose(-3, -2)
            for layer in (self.query, self.key, self.value)
        )
        shown = None
        if show:
            attention = (query @ key.transpose(-2, -1) / math.sqrt(self.head_width)).softmax(dim=-1)
            mixed = attention @ value
            shown = (attention, value)
        else:
            mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(-3, -2).flatten(-2)), shown


class TransformerBlock(nn.Module):
    """Attention and a feed-forward pair, each behind a layer norm and a residual connection (pre-norm)."""

    def __init__(self, width: int, heads: int, head_width: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, head_width)
        self.feedforward_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, feedforward)
        self.contract = nn.Linear(feedforward, width)
        self.dropout = TokenDropout(dropout)

    def forward(self, tokens: Tensor, *, show: bool = False) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """(rows, token, width) -> the same shape, and the attention's weights and values when they are to be shown."""
        mixed, shown = self.attention(self.attention_norm(tokens), show=show)
        tokens = tokens + self.dropout(mixed)
        inner = functional.gelu(self.expand(self.feedforward_norm(tokens)))
        return tokens + self.dropout(self.contract(inner)), shown
