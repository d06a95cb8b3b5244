"""The record that a forecaster shows its insides with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Activations:
    """What a forecaster did with a batch, in one fixed axis order whatever its architecture.

    Args:
        forecast: (batch, horizon, channel), scaled.
        hidden: Per depth, (batch, channel, token, width).
        attention: Per depth, (batch, channel, head, query, key), rows summing to 1; None when not asked for.
        distribution: (batch, horizon, channel, quantile or bin), scaled quantiles or logits of bins; None for a point
            head.
        support: (batch, 1 or horizon, channel, bin), scaled centres of the bins that logits are about, else None.
        values: Per depth, (batch, channel, head, token, width), what attention mixes; shown along with it.
        tokens_are: What tokens follow each other in: "time", or "channels" for a model with one token per channel.
        levels: Levels of the quantiles in `distribution`, rising; empty where it holds none. No tensor, so no part.
    """

    forecast: Tensor
    hidden: tuple[Tensor, ...] = ()
    attention: tuple[Tensor, ...] | None = None
    distribution: Tensor | None = None
    support: Tensor | None = None
    values: tuple[Tensor, ...] | None = None
    tokens_are: Literal["time", "channels"] = "time"
    levels: tuple[float, ...] = ()

    def parts(self) -> dict[str, Tensor]:
        """Every tensor by name, those of a depth numbered from 0: "forecast", "hidden.0", "attention.2"."""
        single = {"forecast": self.forecast, "distribution": self.distribution, "support": self.support}
        named = {name: tensor for name, tensor in single.items() if tensor is not None}
        for name in ("hidden", "attention", "values"):
            named |= {f"{name}.{depth}": tensor for depth, tensor in enumerate(getattr(self, name) or ())}
        return named

    def to(self, device: torch.device) -> Activations:
        """The same on another device."""
        if self.forecast.device == device:
            return self
        moved = Activations.of_parts({name: tensor.to(device) for name, tensor in self.parts().items()})
        return replace(moved, tokens_are=self.tokens_are, levels=self.levels)

    @classmethod
    def of_parts(cls, parts: Mapping[str, Tensor]) -> Activations:
        """Undo `parts`; of a depth that is not there an empty tensor takes the place."""
        fields: dict[str, Any] = {}
        for full, tensor in parts.items():
            name, _, depth = full.partition(".")
            if depth:
                fields.setdefault(name, {})[int(depth)] = tensor
            else:
                fields[name] = tensor
        for name, by_depth in fields.items():
            if isinstance(by_depth, dict):
                empty = torch.empty(0)
                fields[name] = tuple(by_depth.get(depth, empty) for depth in range(max(by_depth) + 1))
        return cls(**fields)
