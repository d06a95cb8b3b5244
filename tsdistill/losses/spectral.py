"""Losses on a forecast at coarser resolutions, and on the strength of its periods."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor
from torch.nn import functional

from tsdistill.data.task import Batch
from tsdistill.errors import ConfigError, must
from tsdistill.losses.base import LARGE, SMALL, BoundLoss, Example, Loss
from tsdistill.models.activations import Activations
from tsdistill.models.base import Forecaster
from tsdistill.spec.limits import MAX_ITEMS, Steps

TEMPERATURE = 0.1
"""What amplitudes are divided by before the softmax by default, in standard deviations of a channel."""

FLOOR = 0.01
"""Added to amplitudes before the logarithm by default, in standard deviations of a channel."""

SHORTEST = 4
"""Steps of the shortest horizon that has more than one frequency besides its mean."""


class MultiScaleLoss(Loss):
    """The student's forecast is the teacher's at coarser resolutions, whatever it does in between.

    mean over scales s of MSE(pool(student, s), pool(teacher, s)), pool the average of each s steps in turn; the last
    average is over the steps that are left.

    Use it beside an `OutputLoss` where a teacher is right about hours and days rather than about each step, or where
    single steps are noise. It leaves single steps free, so do not use it alone, nor where sharp peaks matter.
    Needs a horizon of at least the largest scale.

    Args:
        scales: How many steps are averaged at each resolution, rising, from 2.
        weight: Factor in a sum of losses.

    Example:
        >>> str(MultiScaleLoss(scales=(2, 6), weight=0.5))
        '0.5 * MSE(pool(student), pool(teacher); scales 2, 6)'

    Source: J. Ni et al., "TimeDistill: Efficient Long-Term Time Series Forecasting with MLP via Cross-Architecture
    Distillation", KDD 2026, multi-scale distillation at the level of forecasts. Differs from the source: forecasts at
    full resolution are left to `OutputLoss`, scales are given in steps instead of repeated halvings, and steps at the
    end that fill no whole average still count. Hidden states are not compared.
    """

    kind: Literal["multi-scale"] = "multi-scale"
    weight: Annotated[float, LARGE] = Field(default=1.0, gt=0)
    scales: tuple[Steps, ...] = Field(default=(2, 4, 8), max_length=MAX_ITEMS)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Scales that divide the horizon and that do not."""
        return (cls(), cls(scales=(3, 11)))

    @field_validator("scales")
    @classmethod
    def _rising(cls, scales: tuple[int, ...]) -> tuple[int, ...]:
        rising = all(low < high for low, high in itertools.pairwise(scales))
        if not scales or not rising or scales[0] < 2:
            remedy = "Sort them; a scale of 1 is td.OutputLoss(alpha=1)"
            raise ValueError(must("scales", "be rising whole numbers from 2", scales, remedy))
        return scales

    @property
    def shortest_horizon(self) -> int:
        """The largest scale."""
        return self.scales[-1]

    @property
    def formula(self) -> str:
        """MSE of the averages."""
        return f"MSE(pool(student), pool(teacher); scales {', '.join(map(str, self.scales))})"

    def bind(self, student: Forecaster, example: Example) -> BoundLoss:
        """Ready for a student whose horizon is long enough for each scale."""
        if self.scales[-1] > student.horizon:
            rule = f"be at most the horizon ({student.horizon})"
            raise ConfigError(must("scales", rule, self.scales, "Leave out the larger ones"))
        return _PooledError(self.scales)


class _PooledError(BoundLoss):
    def __init__(self, scales: tuple[int, ...]) -> None:
        super().__init__()
        self.scales = scales

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        # Averages are linear: those of the gap are the gap of those.
        gap = student.forecast.float() - teacher.forecast.detach().float()
        pooled = (functional.avg_pool1d(gap.transpose(1, 2), scale, ceil_mode=True) for scale in self.scales)
        return torch.stack([average.square().mean() for average in pooled]).mean()


class SpectralLoss(Loss):
    """The student's forecast holds the teacher's periods, as strong as they are there, wherever they begin.

    With a(f) = 2 / H * |FFT(forecast)(f)|, the amplitude of frequency f along a horizon of H steps, its mean (f = 0)
    left out: "divergence" is KL(softmax(a_teacher / T), softmax(a_student / T)) over frequencies, "log" is the MSE
    between log(a + floor); both are means over windows and channels, the second over frequencies as well.

    Use it beside an `OutputLoss` for series with several rhythms that a smooth student blurs. The divergence looks at
    the strongest periods; "log" at all of them, weak ones too, and so at a teacher's noise: do not use it with a rough
    teacher. Phases and level are left free, so do not use it alone. Needs a horizon of at least 4 steps. Computed in
    float32 whatever the precision.

    Args:
        measure: "divergence" or "log".
        temperature: T of the divergence, in standard deviations of a channel; None is 0.1. A small one looks at the
            strongest period only.
        floor: Amplitude below which "log" tells less and less apart, in standard deviations of a channel; None is 0.01.
        weight: Factor in a sum of losses.

    Example:
        >>> str(SpectralLoss())
        '0.1 * KL(spectrum(teacher), spectrum(student); temperature 0.1)'
        >>> str(SpectralLoss(measure="log"))
        '0.1 * MSE(log spectrum(student), log spectrum(teacher); floor 0.01)'

    Source: J. Ni et al., "TimeDistill: Efficient Long-Term Time Series Forecasting with MLP via Cross-Architecture
    Distillation", KDD 2026, multi-period distillation at the level of forecasts (tau is `temperature`); for "log", A.
    Gray and J. Markel, "Distance Measures for Speech Processing", IEEE Transactions on Acoustics, Speech, and Signal
    Processing 24(5), 1976 (the mean squared difference of log spectra). Differs from the source: amplitudes are those
    of waves in units of the data, so that a temperature means the same at every horizon (the source's 0.5 stands before
    amplitudes H / 2 times as large), and the divergence is summed over frequencies. The logarithm has a floor.
    """

    kind: Literal["spectral"] = "spectral"
    measure: Literal["divergence", "log"] = "divergence"
    temperature: float | None = Field(default=None, gt=0)
    floor: float | None = Field(default=None, gt=0)
    weight: Annotated[float, SMALL] = Field(default=0.1, gt=0)

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Either measure."""
        return (cls(), cls(measure="log"))

    @model_validator(mode="after")
    def _check(self) -> SpectralLoss:
        for name, measure in (("temperature", "divergence"), ("floor", "log")):
            value = getattr(self, name)
            if value is not None and self.measure != measure:
                remedy = f'Set measure="{measure}", or leave it out'
                raise ValueError(must(name, f'be left out with measure="{self.measure}"', value, remedy))
        return self

    @property
    def shortest_horizon(self) -> int:
        """The shortest with more than one frequency besides its mean."""
        return SHORTEST

    @property
    def formula(self) -> str:
        """The distance of the spectra."""
        if self.measure == "divergence":
            return f"KL(spectrum(teacher), spectrum(student); temperature {self.temperature or TEMPERATURE:g})"
        return f"MSE(log spectrum(student), log spectrum(teacher); floor {self.floor or FLOOR:g})"

    def bind(self, student: Forecaster, example: Example) -> BoundLoss:
        """Ready for a student whose horizon is long enough to have periods."""
        if student.horizon < SHORTEST:
            rule = f"be at least {SHORTEST} steps for a spectral loss"
            raise ConfigError(must("horizon", rule, student.horizon, "Lengthen it, or leave the loss out"))
        if self.measure == "divergence":
            return _SpectralDivergence(self.temperature or TEMPERATURE)
        return _LogSpectralError(self.floor or FLOOR)


class _SpectralDivergence(BoundLoss):
    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        student_values, teacher_values = (
            (_amplitudes(forecast) / self.temperature).log_softmax(1)
            for forecast in (student.forecast, teacher.forecast.detach())
        )
        return functional.kl_div(student_values, teacher_values, reduction="none", log_target=True).sum(1).mean()


class _LogSpectralError(BoundLoss):
    def __init__(self, floor: float) -> None:
        super().__init__()
        self.floor = floor

    def forward(self, student: Activations, teacher: Activations, batch: Batch) -> Tensor:
        student_values, teacher_values = (
            (_amplitudes(forecast) + self.floor).log() for forecast in (student.forecast, teacher.forecast.detach())
        )
        return functional.mse_loss(student_values, teacher_values)


def _amplitudes(forecast: Tensor) -> Tensor:
    """Amplitudes (batch, frequency, channel) of all waves along the horizon; in float32, as FFTs have no bfloat16."""
    return torch.fft.rfft(forecast.float(), dim=1)[:, 1:].abs() * (2 / forecast.shape[1])
