"""An LSTM that reads patches as steps and forecasts all steps at once."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from tsdistill.data.task import Signature
from tsdistill.errors import ConfigError, must
from tsdistill.models.base import Activations, Forecaster, ModelConfig, Slice, WidthGroup
from tsdistill.models.heads import AnyHead, PointHead
from tsdistill.models.layers import ChannelEmbedding, Patches, Shortcut, TokenDropout, WindowNorm


class LSTMConfig(ModelConfig):
    """Shape of a stacked LSTM over patches of one channel; channels share all weights.

    Use it as a student that INT8 makes faster at every width, or as a wide teacher. Reading patches of 12 to 24 steps
    instead of single steps is what makes it accurate and quick: the recurrence is a dozen steps long, not hundreds.

    Args:
        widths: Units of each layer; their number is the depth.
        patch: Steps in a patch; patches do not overlap.
        embedding: Size a patch is mapped to before the first layer; by default the first layer's width.
        dropout: Share of activations dropped between layers while training.
        channel_embedding: Learn a vector per channel.
        shortcut: Add a linear map from the normalised context to the horizon beside the LSTM, so that what is linear
            need not pass through the recurrence.
        head: What is said of each step: a number, quantiles (`QuantileHead`) or bins (`BinnedHead`).

    Example:
        >>> LSTMConfig(widths=(64, 64), patch=24).widths
        (64, 64)

    Source: S. Hochreiter and J. Schmidhuber, "Long Short-Term Memory", Neural Computation 9(8), 1997; segments as
    steps and all future steps at once: S. Lin et al., "SegRNN: Segment Recurrent Neural Network for Long-Term Time
    Series Forecasting", arXiv 2308.11200, 2023. Differs from the source: one linear head gives the whole horizon,
    windows are centred and scaled rather than shifted by their last value, and there is an optional linear shortcut.
    """

    kind: Literal["lstm"] = "lstm"
    widths: tuple[PositiveInt, ...] = Field(default=(64, 64), min_length=1)
    patch: int = Field(default=24, ge=1)
    embedding: int = Field(default=0, ge=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    channel_embedding: bool = True
    shortcut: bool = True
    head: AnyHead = PointHead()

    forecaster: ClassVar[type[Forecaster]]

    @model_validator(mode="before")
    @classmethod
    def _embed_as_wide_as_the_first_layer(cls, values: Any) -> Any:
        # Written down once: pruning the first layer must not move the size of the embedding that feeds it.
        if isinstance(values, dict) and not values.get("embedding"):
            widths = values.get("widths", (64, 64))
            if isinstance(widths, list | tuple) and widths and isinstance(widths[0], int):
                return {**values, "embedding": widths[0]}
        return values


class LSTM(Forecaster):
    """The forecaster an `LSTMConfig` builds."""

    config: LSTMConfig

    def __init__(self, config: LSTMConfig, signature: Signature) -> None:
        super().__init__(config, signature)
        if config.patch > signature.context:
            raise ConfigError(must("patch", f"be at most context = {signature.context}", config.patch, "Shorten it"))
        self.norm = WindowNorm()
        self.patches = Patches(signature.context, config.patch, config.patch)
        self.embed = nn.Linear(config.patch, config.embedding)
        self.channel = (
            ChannelEmbedding(len(signature.channels), config.embedding) if config.channel_embedding else nn.Identity()
        )
        inputs = (config.embedding, *config.widths[:-1])
        # One module per layer, so that pruning can leave each its own width.
        self.layers = nn.ModuleList(
            nn.LSTM(before, width, batch_first=True) for before, width in zip(inputs, config.widths, strict=True)
        )
        self.dropout = TokenDropout(config.dropout)
        self.last = nn.Linear(config.widths[-1], self.n_raw)
        self.shortcut = Shortcut(signature.context, self.n_raw) if config.shortcut else None

    def activations(
        self,
        context: Tensor,
        future: Tensor | None = None,
        past: Tensor | None = None,
        *,
        attention: bool = False,
    ) -> Activations:
        """Hidden states are each layer's outputs, one token per patch; there is no attention."""
        x, centre, spread = self.norm(self.recent(context))
        batch, n_channels, _ = x.shape
        rows = self.channel(self.embed(self.patches(x))).flatten(0, 1)
        hidden = []
        for layer in self.layers:
            rows, _ = layer(rows)
            hidden.append(rows.unflatten(0, (batch, n_channels)))
            rows = self.dropout(rows)
        raw = self.last(rows[:, -1]).unflatten(0, (batch, n_channels))
        if self.shortcut is not None:
            raw = raw + self.shortcut(x)
        return self.conclude(raw, centre, spread, hidden=tuple(hidden))

    def width_groups(self) -> tuple[WidthGroup, ...]:
        """The units of every layer: four gate rows each, the recurrent columns and the next layer's columns."""
        groups = []
        for depth, width in enumerate(self.config.widths):
            here = f"layers.{depth}"
            last = depth == len(self.config.widths) - 1
            groups.append(
                WidthGroup(
                    name=f"layer{depth + 1}.units",
                    size=width,
                    field=("widths", depth),
                    incoming=tuple(
                        Slice(f"{here}.{name}_l0", 0, repeat=4)
                        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                    ),
                    outgoing=(
                        Slice(f"{here}.weight_hh_l0", 1),
                        Slice("last.weight" if last else f"layers.{depth + 1}.weight_ih_l0", 1),
                    ),
                )
            )
        return tuple(groups)


LSTMConfig.forecaster = LSTM
