"""Whether a forecaster's weights are numbers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tsdistill.errors import DivergenceError
from tsdistill.models.base import Forecaster


def not_finite(state: Mapping[str, Tensor], parameters: frozenset[str]) -> dict[str, int]:
    """Names of tensors that hold NaN or infinities where numbers are needed, and how many of them.

    A buffer of 0, 1 and infinities is a mask, and may hold them.

    Args:
        state: Tensors by name, as `state_dict` gives them.
        parameters: Those of them that are trained.
    """
    counts = {}
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            continue
        finite = tensor.isfinite()
        if bool(finite.all()) or (name not in parameters and _is_mask(tensor)):
            continue
        counts[name] = int((~finite).sum())
    return counts


def refuse_not_finite(forecaster: Forecaster, verb: str) -> None:
    """DivergenceError when a verb is given a forecaster, or one with a control, whose weights are no numbers."""
    parameters = frozenset(name for name, _ in forecaster.named_parameters())
    counts = not_finite(forecaster.state_dict(), parameters)
    if counts:
        raise DivergenceError(f"`{verb}` must get a forecaster of finite weights, but {described(counts)}")
    if forecaster.control is not None:
        refuse_not_finite(forecaster.control, f"{verb} (of its control)")


def described(counts: Mapping[str, int]) -> str:
    """What is wrong, in words: the modules whose weights are not finite, then their parameters."""
    modules = sorted({name.rpartition(".")[0] or name for name in counts})
    shown = ", ".join(f"`{module}`" for module in modules[:5]) + (", ..." if len(modules) > 5 else "")
    first = ", ".join(f"{count} numbers of `{name}`" for name, count in list(counts.items())[:5])
    return (
        f"the weights of {shown} are not finite: NaN or infinite are {first}{', ...' if len(counts) > 5 else ''}. "
        "Train it anew, with a lower learning rate or on repaired data."
    )


def _is_mask(tensor: Tensor) -> bool:
    magnitude = tensor.abs()
    return bool(((magnitude == 0) | (magnitude == 1) | torch.isinf(tensor)).all())
