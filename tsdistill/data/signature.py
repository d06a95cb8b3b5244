"""What a forecaster takes and gives."""

from __future__ import annotations

import functools
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from tsdistill.data.covariates import Covariates
from tsdistill.data.reading_options import ReadingRecord
from tsdistill.errors import listed, must
from tsdistill.inputs.levels import is_apart, offset_of
from tsdistill.spec import Spec
from tsdistill.spec.limits import Steps

SAME = 1e-6
"""Part of a standard deviation by which two scalers may differ and still be one: other machines round otherwise."""


class Signature(Spec):
    """What a forecaster takes and gives: steps, channels, covariates, their scaling and step width.

    Args:
        context: Past steps a forecast is made from.
        horizon: Future steps forecast.
        channels: Names of the value columns, in order.
        mean: Per channel, subtracted before the model (raw units, less `offset`).
        scale: Per channel, divided by before the model (raw units, above 0).
        frequency: Step width as a pandas offset alias, or None when the data has no regular stamps.
        normalisation: "scaler": `mean` and `scale` bring raw values to the model. "window": the mean and the standard
            deviation of each window's own context do, per channel, and `mean` and `scale` are 0 and 1.
        future: Features known for context and horizon, in order: calendar, holiday, planned columns.
        past: Columns known for the context only.
        covariates: What the features are made from; None when there are none.
        future_mean: Per feature of `future`, subtracted before the model: 0 for calendar, holiday and 0/1 columns.
        future_scale: Per feature of `future`, divided by before the model: 1 for those.
        past_mean: Per column of `past`, likewise.
        past_scale: Per column of `past`, likewise.
        reading: How the table was read that the model was trained on. It changes no forecast, so it is no part of what
            is written and digested here; artifacts keep it in a record of its own.
        offset: Per channel, subtracted from raw values in float64 before anything else, and added to forecasts: float32
            does not hold the digits of values that move by 10 at a level of 1e9. Empty where no channel needs it. In
            training that is a level of several hundred deviations; in `served` it is four.
        future_offset: Per feature of `future`, likewise.
        past_offset: Per column of `past`, likewise.
    """

    context: Steps
    horizon: Steps
    channels: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    frequency: str | None = None
    normalisation: Literal["scaler", "window"] = "scaler"
    future: tuple[str, ...] = ()
    past: tuple[str, ...] = ()
    covariates: Covariates | None = None
    future_mean: tuple[float, ...] = ()
    future_scale: tuple[float, ...] = ()
    past_mean: tuple[float, ...] = ()
    past_scale: tuple[float, ...] = ()
    reading: ReadingRecord | None = Field(default=None, exclude=True, repr=False)
    offset: tuple[float, ...] = ()
    future_offset: tuple[float, ...] = ()
    past_offset: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _one_number_each(self) -> Self:
        problems = [
            must(
                f"{side}_{statistic}",
                f"hold one number for each of {list(names)}",
                numbers,
                "Give it, or no covariates",
            )
            for side, names in (("future", self.future), ("past", self.past))
            for statistic in ("mean", "scale")
            if len(numbers := getattr(self, f"{side}_{statistic}")) != len(names)
        ]
        problems += [
            must(name, f"be empty or hold one number for each of {list(names)}", offset, "Leave it out")
            for name, names in (("offset", self.channels), ("future_offset", self.future), ("past_offset", self.past))
            if len(offset := getattr(self, name)) not in (0, len(names))
        ]
        if problems:
            raise ValueError(listed(problems, "Signature"))
        return self

    @property
    def served(self) -> Signature:
        """The signature of what is served: means of more than a few deviations are offsets, subtracted in float64.

        Training scales in float64 and needs that only of what is much farther from zero.
        """
        return self._moved or self

    @functools.cached_property
    def _moved(self) -> Signature | None:
        """What is served where that differs. Never itself: what is cached is compared with the fields."""
        moved: dict[str, Any] = {}
        for side, column in (("", "context"), ("future_", "future"), ("past_", "past")):
            mean, scale = (np.asarray(getattr(self, f"{side}{statistic}")) for statistic in ("mean", "scale"))
            if (apart := is_apart(mean, scale)).any():
                offset = offset_of(self, column, len(mean)) + np.where(apart, mean, 0.0)
                moved |= {f"{side}offset": tuple(offset.tolist()),
                          f"{side}mean": tuple(np.where(apart, 0.0, mean).tolist())}  # fmt: skip
        return self.replace(**moved) if moved else None

    @property
    def is_raw(self) -> bool:
        """Whether scaled values are raw values, less an offset at most: a task without a scaler."""
        return self.normalisation == "scaler" and not any(self.mean) and all(scale == 1 for scale in self.scale)

    def scales_like(self, other: Signature, *sides: str) -> bool:
        """Whether two forecasters see the same numbers of the same values, but for rounding, with or without an offset.

        `sides` names covariates that have to agree too: "future", "past".
        """
        if self.normalisation != other.normalisation:
            return False
        for side in ("", *sides):
            name = f"{side}_scale" if side else "scale"
            scale, unit = np.asarray(getattr(self, name)), np.asarray(getattr(other, name))
            if scale.shape != unit.shape or (np.abs(unit - scale) > SAME * scale).any():
                return False
            # Apart, as the sum of an offset and a mean may lose digits.
            name, column = (f"{side}_mean", side) if side else ("mean", "context")
            apart = offset_of(self, column, len(scale)) - offset_of(other, column, len(scale))
            gap = apart + np.asarray(getattr(self, name)) - np.asarray(getattr(other, name))
            if (np.abs(gap) > SAME * scale).any():
                return False
        return True

    def centre(self, side: str = "") -> np.ndarray:
        """Offset and mean of the channels, or of a side's features ("future" or "past"), in one number each."""
        prefix = f"{side}_" if side else ""
        mean = np.asarray(getattr(self, f"{prefix}mean"), dtype=np.float64)
        return mean + offset_of(self, side or "context", len(mean))

    def without_covariates(self) -> Signature:
        """The same steps, channels and scaling, without covariates."""
        kept = ("context", "horizon", "channels", "mean", "scale", "frequency", "normalisation", "offset", "reading")
        return Signature(**{name: getattr(self, name) for name in kept})

    @property
    def record(self) -> dict[str, Any] | None:
        """How the training data was read, as an artifact keeps it."""
        return None if self.reading is None else self.reading.to_dict()

    def with_record(self, record: dict[str, Any] | None) -> Signature:
        """The same signature with what `record` gave; raises ConfigError for one that says nothing sensible."""
        return self if record is None else self.replace(reading=ReadingRecord.from_dict(record))

    def to_dict(self) -> dict[str, Any]:
        """The signature as plain data; what a forecaster without covariates or offsets does not need is left out.

        So files and digests of such forecasters stay those of versions without them.
        """
        written = super().to_dict()
        fields = type(self).model_fields
        optional = ("normalisation", "future", "past", "future_mean", "future_scale", "past_mean", "past_scale",
                    "offset", "future_offset", "past_offset")  # fmt: skip
        return {name: value for name, value in written.items()
                if name not in optional or getattr(self, name) != fields[name].default}  # fmt: skip
