"""How far a grid should reach: the range of some values, found by one of four observers.

The whole range rounds everything coarsely for the sake of a few far values; a shorter one rounds most values finely and
clamps the few. "min-max" takes the whole range, "percentile" leaves out a share, "mse" minimises the squared error that
rounding and clamping make together, and "entropy" the information that is lost on a histogram. `Spread` does them for
more values than can be held at once.

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
MakeGrid = Callable[[Tensor], Grid]
"""From how far a grid reaches to the grid."""

SHARE = 0.9999
"""Share of the values that "percentile" keeps within the range."""

N_REACHES = 100
"""Ranges that "mse" tries, evenly spread from almost nothing to the whole range."""

N_BINS = 2048
"""Bins of the histogram that "entropy" looks at."""

N_PLACES = 2**14
"""Bins of a `Spread`: 64 to a step of 8 bits over the whole range, and 256 KiB for what is known of them."""


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
        >>> [round(float(observe(far, name, symmetric=True).scale * 127), 1) for name in ("min-max", "percentile")]
        [50.0, 1.0]
    """
    if observer not in _REACHES:
        raise ConfigError(
            must("observer", f"be one of {', '.join(_REACHES)}", observer, "Leave it out for the default")
        )
    values = _checked(values)
    low, high = values.aminmax()

    def grid(reach: Tensor) -> Grid:
        return symmetric_grid(reach, bits=bits) if symmetric else affine_grid(*_within(low, high, reach), bits=bits)

    return grid(_REACHES[observer](values, torch.ones(len(values), dtype=torch.float64), grid, bits))


class Spread:
    """Where values lie between two ends, to observe more of them than can be held at once.

    Of every bin it keeps how many values fell into it and their sum, and no value: all are taken to be their bin's
    mean. The n values v of a bin that become the same x' have the squared error sum (v - x')^2 = n (mean - x')^2 +
    sum (v - mean)^2, whose last part is the same for every range. So "mse" tells ranges apart as on the values
    themselves, but for the bins that two steps share, and "percentile" is right to a bin.

    Args:
        low: Smallest of all the values to come.
        high: Largest of them.

    Example:
        >>> spread = Spread(-1, 10)
        >>> for values in (torch.linspace(-1, 1, 100_000), torch.tensor([10.0])):
        ...     spread.add(values)
        >>> [round(float(end), 1) for end in spread.best_range(bits=4)]
        [-1.0, 1.0]
    """

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = torch.tensor(float(low)), torch.tensor(float(high))
        self._counts, self._sums = torch.zeros(2, N_PLACES, dtype=torch.float64)

    def add(self, values: Tensor) -> None:
        """Take note of some values, of any shape.

        Raises:
            ConfigError: no values, or values that are not finite.
        """
        values = _checked(values).double()
        # Where both ends are the same there is no width to divide by, and one bin is enough.
        width = float(self.high.double() - self.low.double()) / N_PLACES or 1.0
        place = ((values - self.low) / width).long().clamp(0, N_PLACES - 1)
        self._counts += place.bincount(minlength=N_PLACES)
        self._sums += place.bincount(values, minlength=N_PLACES)

    def best_range(self, observer: Observer = "mse", *, bits: int = 8) -> tuple[Tensor, Tensor]:
        """Lowest and highest value of the affine grid that `observe(values, observer)` would take, within the ends."""
        held = self._counts > 0
        # The ends belong to it, though no value need be exactly there.
        means = torch.cat([(self._sums[held] / self._counts[held]).float(), self.low[None], self.high[None]])
        counts = torch.cat([self._counts[held], torch.zeros(2, dtype=torch.float64)])

        def grid(reach: Tensor) -> Grid:
            return affine_grid(*_within(self.low, self.high, reach), bits=bits)

        return _within(self.low, self.high, _REACHES[observer](means, counts, grid, bits))


def _checked(values: Tensor) -> Tensor:
    """Values in a row, once they are known to be good for a range."""
    values = values.detach().float().flatten()
    if values.numel() == 0 or not bool(values.isfinite().all()):
        raise ConfigError(
            f"`values` must be finite and at least one, got {values.numel()} of which {int(values.isfinite().sum())} "
            "are finite. Repair the data that they come from."
        )
    return values


def _within(low: Tensor, high: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
    """The part of a range that is no farther than a reach from 0."""
    return low.clamp(min=-reach), high.clamp(max=reach)


def _whole(values: Tensor, counts: Tensor, grid: MakeGrid, bits: int) -> Tensor:
    return values.abs().max()


def _percentile(values: Tensor, counts: Tensor, grid: MakeGrid, bits: int) -> Tensor:
    """The magnitude that a share of all values does not exceed."""
    size, order = values.abs().sort()
    place = torch.searchsorted(counts[order].cumsum(0), math.ceil(SHARE * float(counts.sum())))
    return size[place.clamp(max=len(size) - 1)]


def _least(values: Tensor, counts: Tensor, grid: MakeGrid, bits: int) -> Tensor:
    """The reach with the smallest squared error over values that were seen so many times."""
    reaches = values.abs().max() * torch.arange(1, N_REACHES + 1) / N_REACHES
    errors = [float((grid(reach).fake_quantize(values) - values).square().double() @ counts) for reach in reaches]
    # The last of equally good ones: nothing is clamped without need.
    return reaches[N_REACHES - 1 - errors[::-1].index(min(errors))]


def _entropy(values: Tensor, counts: Tensor, grid: MakeGrid, bits: int) -> Tensor:
    """The reach whose rounded histogram differs least from the clamped one, by the divergence sum p log(p / q)."""
    size, n_levels = values.abs(), 2 ** (bits - 1)
    top = size.max()
    if top == 0:
        return top
    place = (size.double() * N_BINS / float(top)).long().clamp(max=N_BINS - 1)
    counts = place.bincount(counts, minlength=N_BINS)
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


_REACHES: dict[str, Callable[[Tensor, Tensor, MakeGrid, int], Tensor]] = {
    "min-max": _whole,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _least,
}
