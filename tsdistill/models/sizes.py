"""How many weights a config asks for, found out before any of them is made."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from tsdistill.data.signature import Signature
from tsdistill.errors import ConfigError
from tsdistill.spec.limits import MAX_PARAMETERS, MAX_STEPS

if TYPE_CHECKING:
    from tsdistill.models.base import ModelConfig

IN_PLACE = (torch.Tensor.normal_, torch.Tensor.mul, torch.Tensor.__mul__)
"""What leaves a shape as it is."""

MATRICES = 16
"""Squares of the largest size that a layer has at most, for a look that builds nothing."""


def check_size(config: ModelConfig, signature: Signature | None = None) -> None:
    """ConfigError for a config with more weights than `MAX_PARAMETERS`; nothing is allocated.

    Args:
        config: What may be too large.
        signature: What it is to be built for; without one it is held against the smallest task it fits.
    """
    sizes = [size for size in _numbers(config) if size > 0]
    depth = max([len(value) for value in dict(config).values() if isinstance(value, tuple)] + [_depth(config), 1])
    largest = max(sizes, default=1)
    around = 1 if signature is None else signature.context * signature.horizon * len(signature.channels) ** 2
    if MATRICES * depth * largest * max(largest, around) <= MAX_PARAMETERS:
        return
    n_weights = _counted(config, signature) if signature is not None else _least(config)
    if n_weights is not None and n_weights > MAX_PARAMETERS:
        raise ConfigError(
            f"A model must have at most {MAX_PARAMETERS:,} weights, and this {config.kind!r} model would have "
            f"{n_weights:,.0f}. Lower its depth or its widths."
        )


def _depth(config: ModelConfig) -> int:
    depth = getattr(config, "depth", 1)
    return depth if isinstance(depth, int) else 1


def _numbers(value: Any) -> Iterator[int]:
    """Every whole number of a config, those of its head among them."""
    if isinstance(value, int) and not isinstance(value, bool):
        yield value
    elif isinstance(value, tuple):
        yield len(value)
        for item in value:
            yield from _numbers(item)
    elif hasattr(type(value), "model_fields"):
        for item in dict(value).values():
            yield from _numbers(item)


class _Undrawn(TorchFunctionMode):
    """Draws and scales nothing: torch takes seconds to load what does that for shapes without numbers."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.randn:
            return torch.empty(*args, **(kwargs or {}))
        return args[0] if func in IN_PLACE else func(*args, **(kwargs or {}))


@functools.lru_cache(maxsize=256)
def _least(config: ModelConfig) -> float | None:
    """Weights of a config for one channel, one step ahead and the shortest context that it takes."""
    needs = config.needs
    ahead, past = ((), ()) if needs is None else (needs.known_ahead, needs.past)
    known: dict[str, Any] = {"covariates": needs, "future": ahead, "past": past}
    for side in ("future", "past"):
        known |= {f"{side}_mean": (0.0,) * len(known[side]), f"{side}_scale": (1.0,) * len(known[side])}
    context = 1
    while context <= 2 * MAX_STEPS:
        steps = {"context": min(context, MAX_STEPS), "horizon": 1}
        signature = Signature(**steps, channels=("y",), mean=(0.0,), scale=(1.0,), frequency="h", **known)
        try:
            return _counted(config, signature)
        except ConfigError:  # a patch, a period or a kernel is longer than the context
            context *= 2
    return None


def _counted(config: ModelConfig, signature: Signature) -> float | None:
    """Weights of shapes without numbers; None where the architecture cannot be built of them."""
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), _Undrawn():
            return config.forecaster(config, signature).n_parameters
    except ConfigError:
        raise
    except (RuntimeError, OverflowError) as error:
        # Sizes whose product no whole number holds.
        return float("inf") if isinstance(error, OverflowError) or "overflow" in str(error).lower() else None
    except Exception:  # an architecture of the user's own may ask for numbers; it is built as it is
        return None
