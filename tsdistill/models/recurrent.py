"""What recurrent forecasters share: patches as steps, a stack of recurrent layers, and all steps forecast at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from tsdistill.data.task import Signature
from tsdistill.errors import ConfigError, must
from tsdistill.models.activations import Activations
from tsdistill.models.base import Forecaster, ModelConfig
from tsdistill.models.groups import Slice, WidthGroup
from tsdistill.models.heads import AnyHead, PointHead
from tsdistill.models.layers import ChannelEmbedding, Patches, Shortcut, TokenDropout, WindowNorm
from tsdistill.models.widths import columns_of_steps, context_group
from tsdistill.spec import Shorthand, Tuned
from tsdistill.spec.limits import MAX_DEPTH, MAX_WIDTH, Steps, WidthOrZero

Units = Annotated[int, Field(gt=0, le=MAX_WIDTH)]

PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
"""Parameters of one direction of a recurrent layer; all have the rows of every gate."""


class RecurrentConfig(ModelConfig):
    """Shape of a stack of recurrent layers over patches; a subclass says of which cell, by its `forecaster`.

    The fields are described at `LSTMConfig`.
    """

    widths: tuple[Units, ...] = Field(default=(64, 64), min_length=1, max_length=MAX_DEPTH)
    patch: Annotated[Steps, Tuned(12, 24, 48)] = 24
    embedding: WidthOrZero = 0
    dropout: float = Field(default=0.1, ge=0, lt=1)
    bidirectional: bool = False
    mixing: bool = False
    channel_embedding: bool = True
    shortcut: bool = True
    head: AnyHead = PointHead()

    shorthands: ClassVar[Mapping[str, Shorthand]] = {
        "width": Shorthand(lambda config: config.widths[0], Tuned(16, 32, 64, 128)),
        "depth": Shorthand(lambda config: len(config.widths), Tuned(1, 2)),
    }

    @model_validator(mode="before")
    @classmethod
    def _write_down_defaults(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        default = cls.model_fields["widths"].default
        values = _with_widths(values, default)
        if values.get("mixing") is True:
            values = {"channel_embedding": False, **values}
        # Written down once: pruning the first layer must not move the size of the embedding that feeds it.
        widths = values.get("widths", default)
        if not values.get("embedding") and isinstance(widths, list | tuple) and widths and isinstance(widths[0], int):
            return {**values, "embedding": widths[0]}
        return values

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.mixing and self.channel_embedding:
            rule = "be False with mixing=True, which reads a channel by weights of its own"
            raise ValueError(must("channel_embedding", rule, True, "Leave it out"))
        return self


def _with_widths(values: dict[str, Any], default: tuple[int, ...]) -> dict[str, Any]:
    """The values with `width` and `depth` written down as a width for every layer."""
    short = {name: values[name] for name in ("width", "depth") if name in values}
    if not short:
        return values
    widths = values.get("widths", default)
    if not isinstance(widths, list | tuple) or not widths:
        return {
            name: value for name, value in values.items() if name not in short
        }  # the rule of the field raises the error
    for name, value in short.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(must(name, "be a whole number above 0", value, "`widths` gives every layer its own width"))
        if value > (most := MAX_DEPTH if name == "depth" else MAX_WIDTH):
            raise ValueError(must(name, f"be at most {most:,}", value, "Lower it"))
    width, depth = short.get("width", widths[0]), short.get("depth", len(widths))
    kept = {name: value for name, value in values.items() if name not in short}
    if "width" in short or len(set(widths)) == 1:
        return {**kept, "widths": (width,) * depth}
    if depth > len(widths):
        rule = f"be at most {len(widths)} where layers have widths of their own"
        raise ValueError(must("depth", rule, depth, "Give `widths`, or `width` as well"))
    return {**kept, "widths": tuple(widths[:depth])}


class Recurrent(Forecaster):
    """A forecaster whose steps are patches, read by a stack of recurrent layers one after the other.

    A subclass sets `cell`, torch's class of a layer, and `n_gates`, the gates of a unit, each a row of its weights.
    """

    config: RecurrentConfig
    cell: ClassVar[type[nn.LSTM | nn.GRU]]
    n_gates: ClassVar[int]

    def __init__(self, config: RecurrentConfig, signature: Signature) -> None:
        super().__init__(config, signature)
        if config.patch > signature.context:
            raise ConfigError(must("patch", f"be at most context = {signature.context}", config.patch, "Shorten it"))
        self.norm = WindowNorm()
        self.patches = Patches(signature.context, config.patch, config.patch)
        n_channels = len(signature.channels)
        ways = 2 if config.bidirectional else 1
        self.n_together = n_channels if config.mixing else 1
        self.embed = nn.Linear(self.n_together * config.patch, config.embedding)
        self.channel = ChannelEmbedding(n_channels, config.embedding) if config.channel_embedding else nn.Identity()
        inputs = (config.embedding, *(ways * width for width in config.widths[:-1]))
        # One module per layer, so that pruning can leave each its own width.
        self.layers = nn.ModuleList(
            self.cell(before, width, batch_first=True, bidirectional=config.bidirectional)
            for before, width in zip(inputs, config.widths, strict=True)
        )
        self.dropout = TokenDropout(config.dropout)
        self.last = nn.Linear(ways * config.widths[-1], self.n_together * self.n_raw)
        self.shortcut = Shortcut(signature.context, self.n_raw) if config.shortcut else None

    def activations(
        self,
        context: Tensor,
        future: Tensor | None = None,
        past: Tensor | None = None,
        *,
        attention: bool = False,
    ) -> Activations:
        """Hidden states are each layer's outputs, one token per patch; there is no attention.

        With `mixing`, they are those of all channels together, (batch, 1, token, width).
        """
        x, centre, spread = self.norm(self.recent(context))
        batch, n_channels, _ = x.shape
        n_rows = n_channels // self.n_together
        patches = self.patches(x)
        if self.config.mixing:
            patches = patches.transpose(1, 2).flatten(2)[:, None]
        rows = self.channel(self.embed(patches)).flatten(0, 1)
        hidden = []
        for layer in self.layers:
            rows, _ = layer(rows)
            hidden.append(rows.unflatten(0, (batch, n_rows)))
            rows = self.dropout(rows)
        end = rows[:, -1]
        if self.config.bidirectional:
            # What reads backwards has seen everything at the first token, not at the last.
            width = self.config.widths[-1]
            end = torch.cat([end[:, :width], rows[:, 0, width:]], dim=1)
        raw = self.last(end).unflatten(0, (batch, n_rows))
        if self.config.mixing:
            raw = raw.reshape(batch, n_channels, self.n_raw)
        if self.shortcut is not None:
            raw = raw + self.shortcut(x)
        return self.conclude(raw, centre, spread, hidden=tuple(hidden))

    def width_groups(self) -> tuple[WidthGroup, ...]:
        """The units of every layer, the embedding of a patch, layers, and the oldest patches.

        A unit is a row of every gate, a recurrent column and a column of the next layer; one of two directions goes or
        stays as a pair. A layer can go if what it gives is as wide as what it reads; there is no residual connection to
        take its place, so that a model without it forecasts something else.
        """
        ways = ("", "_reverse") if self.config.bidirectional else ("",)
        groups = []
        for depth, width in enumerate(self.config.widths):
            here = f"layers.{depth}"
            last = depth == len(self.config.widths) - 1
            readers = ["last.weight"] if last else [f"layers.{depth + 1}.weight_ih_l0{way}" for way in ways]
            groups.append(
                WidthGroup(
                    name=f"layer{depth + 1}.units",
                    size=width,
                    field=("widths", depth),
                    incoming=tuple(
                        Slice(f"{here}.{name}_l0{way}", 0, repeat=self.n_gates) for way in ways for name in PARTS
                    ),
                    outgoing=(
                        *(Slice(f"{here}.weight_hh_l0{way}", 1) for way in ways),
                        *(Slice(reader, 1, repeat=len(ways)) for reader in readers),
                    ),
                )
            )
        sources = [Slice("embed.weight", 0), Slice("embed.bias", 0)]
        if self.config.channel_embedding:
            sources.append(Slice("channel.weight", 1))
        embedding = WidthGroup(
            name="embedding",
            size=self.config.embedding,
            field=("embedding", None),
            incoming=tuple(sources),
            outgoing=tuple(Slice(f"layers.0.weight_ih_l0{way}", 1) for way in ways),
            kind="width",
        )
        inputs = (self.config.embedding, *(len(ways) * width for width in self.config.widths[:-1]))
        sizes = enumerate(zip(inputs, self.config.widths, strict=True))
        pinned = tuple(depth for depth, (before, width) in sizes if before != len(ways) * width)
        layers = WidthGroup(
            name="layers",
            size=len(self.config.widths),
            field=("widths", None),
            incoming=tuple(Slice(f"layers.{{}}.{name}_l0{way}", None) for way in ways for name in PARTS),
            outgoing=(),
            kind="layers",
            exact=False,
            minimum=max(1, len(pinned)),
            pinned=pinned,
            stack="layers",
            per_unit=(("widths", self.config.widths),),
            inside="layer{}",
        )
        size = self.patches.n_tokens
        steps = self.config.patch
        shortcut = columns_of_steps("shortcut.weight", self.shortcut, n_steps=self.context, size=size, steps=steps)
        return (*groups, embedding, layers, context_group(size, shortcut, steps=steps))
