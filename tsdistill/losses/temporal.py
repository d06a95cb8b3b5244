"""Losses on how a forecast moves along time: its slopes, its smoothness, its trend."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator
from torch import Tensor
from torch.nn import functional

from tsdistill.data.task import Batch
from tsdistill.errors import ConfigError, must
from tsdistill.losses.base import LARGE, SMALL, BoundLoss, Example, Loss
from tsdistill.models.activations import Activations
from tsdistill.models.base import Forecaster
from tsdistill.spec.limits import Steps


class TemporalLoss(Loss):
    """The student's forecast moves from step to step as the teacher's does.

    MSE(D^order student, D^order teacher), D the difference between neighbouring steps of the horizon: order 1 keeps
    slopes, order 2 keeps smoothness.

    Use it beside an `OutputLoss` when the shape of a forecast matters, or when truth is noisy and the teacher is
    smooth. On its own it leaves the level free. Needs a horizon longer than `order`.

    Args:
        order: How many times to take differences, 1 or 2.
        weight: Factor in a sum of losses.

    Example:
        >>> str(TemporalLoss(weight=0.05, order=2))
        '0.05 * MSE(diff2(student), diff2(teacher))'

    Source: V. Le Guen and N. Thome, "Shape and Time Distortion Loss for Training Deep Time Series Forecasting Models",
    NeurIPS 2019, for the aim (shape beside error). Differs from the source: plain differences against a teacher
    instead of a soft alignment with the truth.
    """

    kind: Literal["temporal"] = "temporal"
    order: Literal[1, 2] = 1
    weight: Annotated[float, SMALL] = Field(default=0.1, gt=0)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Either order."""
        return (cls(), cls(order=2, weight=0.3))

    @property
    def shortest_horizon(self) -> int:
        """Longer than the order."""
        return self.order + 1

    @property
    def formula(self) -> str:
        """MSE of the differences."""
        diff = "diff" if self.order == 1 else f"diff{self.order}"
        return f"MSE({diff}(student), {diff}(teacher))"

    def bind(self, student: Forecaster, example: Example) -> BoundLoss:
        """Ready for a student whose horizon is long enough to have differences."""
        if student.horizon <= self.order:
            raise ConfigError(must("order", f"be below the horizon ({student.horizon})", self.order, "Lower it"))
        return _DifferenceError(self.order)


class _DifferenceError(BoundLoss):
    def __init__(self, order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        moves = student.forecast.float().diff(n=self.order, dim=1)
        return functional.mse_loss(moves, teacher.forecast.detach().to(moves.dtype).diff(n=self.order, dim=1))


class SmoothnessLoss(Loss):
    """The student's forecast is no rougher than the teacher's.

    mean over windows and channels of max(0, R(student) - R(teacher))^2, where R is the mean over the horizon of the
    absolute second difference, |y(t+1) - 2 y(t) + y(t-1)|, or of the absolute first one, |y(t+1) - y(t)|, which is the
    total variation per step. With side="both" a student that is smoother than its teacher counts too.

    Use it beside an `OutputLoss` when a small student jitters from step to step where its teacher does not: unlike
    `TemporalLoss(order=2)` it does not fix where to bend, only how much in all. Do not use it with a rough teacher, of
    which it asks nothing, nor alone: a flat line is as smooth as can be. A student that is smoother from the start gets
    no gradient from it until it is not, so that weights cannot be normalised by it then (`side="both"` can). Needs a
    horizon longer than the difference.

    Args:
        measure: "second-difference" lets straight slopes be; "total-variation" lets jumps be, as long as they are few.
        side: "rougher" or "both".
        weight: Factor in a sum of losses.

    Example:
        >>> str(SmoothnessLoss())
        '0.1 * mean(max(0, mean|diff2(student)| - mean|diff2(teacher)|)^2)'

    Source: S.-J. Kim et al., "l1 Trend Filtering", SIAM Review 51(2), 2009, section 1 (absolute second differences in
    the place of the squared ones of Hodrick and Prescott); L. Rudin, S. Osher and E. Fatemi, "Nonlinear Total Variation
    Based Noise Removal Algorithms", Physica D 60, 1992, section 2 (total variation). Differs from the source: roughness
    is not driven to zero but to the teacher's, window by window, so that the term vanishes for a student that equals
    its teacher.
    """

    kind: Literal["smoothness"] = "smoothness"
    measure: Literal["second-difference", "total-variation"] = "second-difference"
    side: Literal["rougher", "both"] = "rougher"
    weight: Annotated[float, SMALL] = Field(default=0.1, gt=0)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Either measure and side."""
        return (cls(), cls(measure="total-variation", side="both"))

    @property
    def order(self) -> int:
        """How many times differences are taken."""
        return 2 if self.measure == "second-difference" else 1

    @property
    def shortest_horizon(self) -> int:
        """Longer than the difference."""
        return self.order + 1

    @property
    def formula(self) -> str:
        """Squared excess of roughness."""
        diff = "diff2" if self.order == 2 else "diff"
        gap = f"mean|{diff}(student)| - mean|{diff}(teacher)|"
        return f"mean(max(0, {gap})^2)" if self.side == "rougher" else f"mean(({gap})^2)"

    def bind(self, student: Forecaster, example: Example) -> BoundLoss:
        """Ready for a student whose horizon is long enough to have differences."""
        if student.horizon <= self.order:
            rule = f'be longer than {self.order} steps for measure="{self.measure}"'
            raise ConfigError(must("horizon", rule, student.horizon, "Lengthen it, or leave the loss out"))
        return _ExcessRoughness(self.order, both=self.side == "both")


class _ExcessRoughness(BoundLoss):
    def __init__(self, order: int, *, both: bool) -> None:
        super().__init__()
        self.order = order
        self.both = both

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        student_roughness, teacher_roughness = (
            forecast.float().diff(n=self.order, dim=1).abs().mean(1)
            for forecast in (student.forecast, teacher.forecast.detach())
        )
        gap = student_roughness - teacher_roughness
        return (gap if self.both else gap.relu()).square().mean()


class DecompositionLoss(Loss):
    """The student's forecast has the teacher's trend, and the teacher's movements around it.

    share * MSE(trend(student), trend(teacher)) + (1 - share) * MSE(rest(student), rest(teacher)), trend the moving
    average over `trend` steps with the ends of the horizon held, rest = forecast - trend.

    Use it beside an `OutputLoss` to choose which of the two the student should take from its teacher: a share above 0.5
    where the seasons are noise to a small student, below where they are what counts; with `trend` about one season
    long. Do not use it to follow a teacher evenly: at 0.5 it is about half of an MSE to the teacher's forecast, which
    `OutputLoss(alpha=1)` expresses more plainly. At 0 the level is left free.

    Args:
        trend: Steps of the moving average, an odd number from 3, at most the horizon.
        share: Share of the trend, from 0 to 1.
        weight: Factor in a sum of losses.

    Example:
        >>> str(DecompositionLoss(trend=25, share=0.7))
        '(0.7 * MSE(trend(student), trend(teacher)) + 0.3 * MSE(rest(student), rest(teacher)); trend 25)'

    Source: H. Wu et al., "Autoformer: Decomposition Transformers with Auto-Correlation for Long-Term Series
    Forecasting", NeurIPS 2021, equation 1 (the decomposition; X_t is the trend, X_s the rest). Differs from the source:
    forecasts are taken apart in the loss, against a teacher's, and not in the model.
    """

    kind: Literal["decomposition"] = "decomposition"
    trend: Annotated[Steps, Field(ge=3)] = 25
    share: float = Field(default=0.5, ge=0, le=1)
    weight: Annotated[float, LARGE] = Field(default=1.0, gt=0)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Both parts, and the trend alone."""
        return (cls(trend=5), cls(trend=11, share=1.0))

    @field_validator("trend")
    @classmethod
    def _odd(cls, trend: int) -> int:
        if trend % 2 == 0:
            raise ValueError(must("trend", "be an odd number of steps", trend, f"Use {trend + 1}, which has a middle"))
        return trend

    @property
    def shortest_horizon(self) -> int:
        """One moving average."""
        return self.trend

    @property
    def formula(self) -> str:
        """The two errors, shared out."""
        parts = ((self.share, "trend"), (1 - self.share, "rest"))
        terms = " + ".join(f"{share:g} * MSE({part}(student), {part}(teacher))" for share, part in parts)
        return f"({terms}; trend {self.trend})"

    def bind(self, student: Forecaster, example: Example) -> BoundLoss:
        """Ready for a student whose horizon is long enough to have a trend."""
        if self.trend > student.horizon:
            raise ConfigError(must("trend", f"be at most the horizon ({student.horizon})", self.trend, "Shorten it"))
        return _PartErrors(self.trend, self.share)


class _PartErrors(BoundLoss):
    def __init__(self, trend: int, share: float) -> None:
        super().__init__()
        self.trend = trend
        self.share = share

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        # Averages are linear: the parts of the gap are the gaps of the parts.
        gap = (student.forecast.float() - teacher.forecast.detach().float()).transpose(1, 2)
        reach = self.trend // 2
        slow = functional.avg_pool1d(functional.pad(gap, (reach, reach), mode="replicate"), self.trend, stride=1)
        return self.share * slow.square().mean() + (1 - self.share) * (gap - slow).square().mean()
