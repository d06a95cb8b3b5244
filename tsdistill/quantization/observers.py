"""How far a grid should reach: the range of some values, found by one of four observers.

The whole range rounds everything coarsely for the sake of a few far values; a shorter one rounds most values finely and
clamps the few. "min-max" takes the whole range, "percentile" leaves out a share, "mse" minimises the squared error that
rounding and clamping make together, and "entropy" the information that is lost on a histogram.

Source: "entropy": S. Migacz, "8-bit Inference with TensorRT", GPU Technology Conference 2017; "mse": R. Banner et al.,
"Post Training 4-Bit Quantization of Convolutional Networks for Rapid-Deployment", NeurIPS 2019, section 3. Differs from
the sources: the squared error is measured on the values themselves and not on a distribution fitted to them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from tsdistill.errors import ConfigError, must
from tsdistill.quantization.affine import Grid, affine_grid, symmetric_grid

Observer = Literal["min-max", "percentile", "entropy", "mse"]

SHARE = 0.9999
"""Share of the values that "percentile" keeps within the range."""

N_REACHES = 100
"""Ranges that "mse" tries, evenly spread from almost nothing to the whole range."""

N_BINS = 2048
"""Bins of the histogram that "entropy" looks at."""


def observe(values: Tensor, observer: Observer = "min-max", *, bits: int = 8, symmetric: bool = False) -> Grid:
    """The grid for values like these.

    Args:
        values: What was seen of a weight or an activation, of any shape.
        observer: How far the grid reaches: "min-max", "percentile", "entropy" or "mse".
        bits: 2 to 8.
        symmetric: A grid with 0 in its middle (weights) instead of one from smallest to largest (activations).

    Raises:
        ConfigError: no values, values that are not finite, no such observer, or bits out of range.

    Example:
        >>> far = torch.cat([torch.linspace(-1, 1, 10_000), torch.tensor([50.0])])
        >>> [round(float(observe(far, how, symmetric=True).scale * 127), 1) for how in ("min-max", "percentile")]
        [50.0, 1.0]
    """
    if observer not in _REACHES:
        raise ConfigError(
            must("observer", f"be one of {', '.join(_REACHES)}", observer, "Leave it out for the default")
        )
    values = values.detach().float().flatten()
    if values.numel() == 0 or not bool(values.isfinite().all()):
        raise ConfigError(
            f"`values` must be finite and at least one, got {values.numel()} of which {int(values.isfinite().sum())} "
            "are finite. Repair the data that they come from."
        )

    def grid(reach: Tensor) -> Grid:
        if symmetric:
            return symmetric_grid(reach, bits=bits)
        return affine_grid(values.min().clamp(min=-reach), values.max().clamp(max=reach), bits=bits)

    return grid(_REACHES[observer](values, grid, bits))


def _whole(values: Tensor, grid: Callable[[Tensor], Grid], bits: int) -> Tensor:
    return values.abs().max()


def _percentile(values: Tensor, grid: Callable[[Tensor], Grid], bits: int) -> Tensor:
    """The magnitude that a share of all values does not exceed."""
    return values.abs().kthvalue(math.ceil(SHARE * len(values))).values


def _squared(values: Tensor, grid: Callable[[Tensor], Grid], bits: int) -> Tensor:
    """The reach with the smallest squared error."""
    reaches = values.abs().max() * torch.arange(1, N_REACHES + 1) / N_REACHES
    errors = [float((grid(reach).fake_quantize(values) - values).square().mean()) for reach in reaches]
    # The last of equally good ones: nothing is clamped without need.
    return reaches[N_REACHES - 1 - errors[::-1].index(min(errors))]


def _entropy(values: Tensor, grid: Callable[[Tensor], Grid], bits: int) -> Tensor:
    """The reach whose rounded histogram differs least from the clamped one, by the divergence sum p log(p / q)."""
    size, n_levels = values.abs(), 2 ** (bits - 1)
    top = size.max()
    if top == 0:
        return top
    counts = torch.histc(size, N_BINS, 0, float(top)).double()
    best, reach = math.inf, top
    for n_kept in range(N_BINS, n_levels - 1, -max(1, n_levels // 8)):
        kept = counts[:n_kept].clone()
        kept[-1] += counts[n_kept:].sum()
        # A level stands for a run of bins; what it holds is spread over those of them that hold anything.
        level = torch.arange(n_kept) * n_levels // n_kept
        held = torch.zeros(n_levels, dtype=torch.float64).index_add_(0, level, counts[:n_kept])
        filled = torch.zeros(n_levels, dtype=torch.float64).index_add_(0, level, (kept > 0).double())
        p = kept / kept.sum()
        # One value more, spread over all bins: a bin that only far values fill would else be worth infinitely much.
        q = ((held / filled.clamp(min=1))[level] + 1 / n_kept) / (counts[:n_kept].sum() + 1)
        seen = p > 0
        divergence = float((p[seen] * (p[seen] / q[seen]).log()).sum())
        if divergence < best:
            best, reach = divergence, top * n_kept / N_BINS
    return reach


_REACHES: dict[str, Callable[[Tensor, Callable[[Tensor], Grid], int], Tensor]] = {
    "min-max": _whole,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _squared,
}
