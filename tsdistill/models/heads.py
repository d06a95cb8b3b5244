"""What is forecast for each future step: a number, quantiles that cannot cross, or a share for every bin."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn import functional

from tsdistill.errors import must
from tsdistill.spec import Family, Member
from tsdistill.spec.limits import MAX_ITEMS, Width

if TYPE_CHECKING:
    from tsdistill.models.activations import Activations

MEDIAN = 0.5


@dataclass(frozen=True)
class HeadOutput:
    """What a head makes of a model's raw outputs, still in units of the normalised window.

    Args:
        forecast: (batch, channel, horizon).
        distribution: (batch, channel, horizon, quantile or bin), or None.
        grid: (bin,), where the bins are, or None.
    """

    forecast: Tensor
    distribution: Tensor | None = None
    grid: Tensor | None = None


class Head(Member):
    """Base of the specs of what is forecast for each step: a number, quantiles, shares of bins.

    A subclass sets `kind` and `measure`, what its error is called, and writes `n_outputs`, `read` and `error`.
    """

    kind: str
    measure: ClassVar[str] = "error"
    probabilistic: ClassVar[bool] = True
    """Whether it gives more than one number per step; its error is then another than the squared error."""

    @property
    def n_outputs(self) -> int:
        """Numbers a model has to give per step."""
        raise NotImplementedError

    def read(self, raw: Tensor) -> HeadOutput:
        """Forecast and distribution of raw outputs (batch, channel, n_outputs, horizon)."""
        raise NotImplementedError

    def error(self, inside: Activations, target: Tensor) -> Tensor:
        """The error that a model with this head is trained by, a mean over windows, steps and channels."""
        raise NotImplementedError

    @classmethod
    def contract_problems(cls) -> list[str]:
        """A head writes all three."""
        missing = [name for name in ("n_outputs", "read", "error") if getattr(cls, name) is getattr(Head, name)]
        return [f"`{cls.__name__}` must write {name}. See `tsdistill.models.heads.Head`." for name in missing]


HEADS = Family("head", Head)
"""What a forecaster can give for each step."""

AnyHead = Annotated[Head, HEADS]
"""The type of a config's field that holds any head, by its `kind`."""


class PointHead(Head):
    """One number per step: the mean, as it minimises the squared error.

    error = mean over windows, steps and channels of (forecast - target)^2. Use it unless you need to know how sure a
    forecast is.

    Example:
        >>> PointHead().n_outputs
        1
    """

    kind: Literal["point"] = "point"
    measure: ClassVar[str] = "MSE"
    probabilistic: ClassVar[bool] = False

    @property
    def n_outputs(self) -> int:
        """Numbers a model has to give per step."""
        return 1

    def read(self, raw: Tensor) -> HeadOutput:
        """The only output, (batch, channel, 1, horizon) -> (batch, channel, horizon)."""
        return HeadOutput(raw.squeeze(2))

    def error(self, inside: Activations, target: Tensor) -> Tensor:
        """Mean squared error."""
        return functional.mse_loss(inside.forecast.float(), target)


class QuantileHead(Head):
    """Quantiles per step that cannot cross; the median is the forecast.

    q(0.5) is an output of its own; each level above it adds a positive step, softplus(output), to the level before, and
    each one below takes one away. error = mean over levels a of 2 * max(a * (y - q), (a - 1) * (y - q)), the pinball
    loss, whose term for the median is the absolute error.

    Use it where stock, staff or reserves are planned by how wrong a forecast may be. A point head has the lower squared
    error, since a median is no mean.

    Args:
        levels: Quantile levels in (0, 1), rising, 0.5 among them.

    Example:
        >>> QuantileHead(levels=(0.1, 0.5, 0.9)).n_outputs
        3

    Source: R. Koenker and G. Bassett, "Regression Quantiles", Econometrica 46(1), 1978 (the loss); Y. Park et al.,
    "Learning Quantile Functions without Quantile Crossing for Distribution-free Time Series Forecasting", AISTATS 2022,
    section 3 (positive increments). Differs from the source: increments start from the median instead of the lowest
    level, so that the point forecast does not hang on a sum.
    """

    kind: Literal["quantile"] = "quantile"
    levels: tuple[float, ...] = Field(default=(0.1, 0.25, 0.5, 0.75, 0.9), max_length=MAX_ITEMS)
    measure: ClassVar[str] = "pinball"

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Levels that are not spaced alike."""
        return (cls(levels=(0.05, 0.3, 0.5, 0.9)),)

    @field_validator("levels")
    @classmethod
    def _rising_with_median(cls, levels: tuple[float, ...]) -> tuple[float, ...]:
        rising = all(low < high for low, high in itertools.pairwise(levels))
        if not levels or not rising or not all(0 < level < 1 for level in levels) or MEDIAN not in levels:
            rule = "be rising numbers between 0 and 1 with 0.5 among them"
            raise ValueError(must("levels", rule, levels, "Sort them and add 0.5, the forecast itself"))
        return levels

    @property
    def n_outputs(self) -> int:
        """Numbers a model has to give per step."""
        return len(self.levels)

    def read(self, raw: Tensor) -> HeadOutput:
        """Median and positive steps away from it, (batch, channel, level, horizon)."""
        middle = self.levels.index(MEDIAN)
        median = raw[:, :, middle : middle + 1]
        parts = [median]
        if middle > 0:
            down = functional.softplus(raw[:, :, :middle]).flip(2).cumsum(2).flip(2)
            parts.insert(0, median - down)
        if middle < len(self.levels) - 1:
            parts.append(median + functional.softplus(raw[:, :, middle + 1 :]).cumsum(2))
        quantiles = torch.cat(parts, dim=2)
        return HeadOutput(median.squeeze(2), quantiles.transpose(2, 3))

    def error(self, inside: Activations, target: Tensor) -> Tensor:
        """Mean pinball loss over levels, twice so that the median's share is the absolute error."""
        assert inside.distribution is not None  # `read` gave it
        gap = target[..., None] - inside.distribution.float()
        level = torch.tensor(self.levels, device=gap.device, dtype=gap.dtype)
        return 2 * torch.maximum(level * gap, (level - 1) * gap).mean()


class BinnedHead(Head):
    """A share for every bin of value: forecasting as classification, with logits that a student can soften and copy.

    Bins are equally wide and centred at `n_bins` points from -reach to +reach in units of the window's own standard
    deviation; the forecast is the mean over bins. error = cross-entropy of the target's bin; targets beyond the outer
    bins count as the outer ones.

    Use it where a step's distribution has several humps, or for classic soft-label distillation with a temperature. A
    coarse grid costs squared error.

    Args:
        n_bins: Number of bins.
        reach: Centres of the outer bins, in standard deviations of the window.

    Example:
        >>> BinnedHead(n_bins=31).n_outputs
        31

    Source: A. Ansari et al., "Chronos: Learning the Language of Time Series", TMLR 2024, section 3.1 (uniform bins and
    cross-entropy). Differs from the source: windows are centred and divided by their standard deviation instead of
    their mean absolute value, all steps are forecast at once, and the forecast is the mean instead of a sample.
    """

    kind: Literal["bins"] = "bins"
    n_bins: Annotated[Width, Field(ge=3)] = 64
    reach: float = Field(default=5.0, gt=0)
    measure: ClassVar[str] = "cross-entropy"

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """A number of bins that is no power of 2."""
        return (cls(n_bins=13),)

    @property
    def n_outputs(self) -> int:
        """Numbers a model has to give per step."""
        return self.n_bins

    def read(self, raw: Tensor) -> HeadOutput:
        """Logits, (batch, channel, bin, horizon), and the mean they stand for."""
        logits = raw.transpose(2, 3)
        grid = torch.linspace(-self.reach, self.reach, self.n_bins, device=raw.device)
        # A sum and no product of matrices: bins are no weights, and no form of INT8 is to round them.
        return HeadOutput((logits.float().softmax(-1) * grid).sum(-1), logits, grid)

    def error(self, inside: Activations, target: Tensor) -> Tensor:
        """Cross-entropy of the bin that the target fell into."""
        assert inside.distribution is not None and inside.support is not None  # `read` gave both
        step = inside.support[..., 1] - inside.support[..., 0]
        place = ((target - inside.support[..., 0]) / step).round().clamp(0, self.n_bins - 1).long()
        logits = inside.distribution.float()
        return functional.cross_entropy(logits.flatten(0, -2), place.flatten())


HEADS.include(PointHead, QuantileHead, BinnedHead)
