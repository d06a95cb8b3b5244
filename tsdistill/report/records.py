"""The results of a comparison as data: every table, sentence and plot is made from these records only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from tsdistill.errors import ConfigError, nearest
from tsdistill.spec import Spec

if TYPE_CHECKING:
    import pandas as pd


class Row(Spec):
    """One model in one runtime: how well it forecasts and what that costs.

    Args:
        name: As given to `compare`, or of a baseline or control that was added.
        runtime: What ran it: "torch fp32", "onnx fp32", "onnx int8", "statsmodels", or "foreign" for a foreign
            teacher, whose size and speed are not known.
        role: "reference", "model", "baseline" or "control".
        kind: Its architecture; the class of a foreign teacher.
        mse: Mean squared error, scaled, as the literature reports it; None for a teacher that cannot forecast the part,
            with the reason in `remark`.
        mae: Mean absolute error, scaled.
        mse_raw: Mean squared error in the data's own units.
        mae_raw: Mean absolute error in the data's own units.
        mase: Mean absolute error over the seasonal naive error in training; None where all series are constant.
        wql: Weighted quantile loss over the report's `levels`, raw units; a forecast without quantiles counts as each
            of them. None where no model of the report has quantiles.
        coverage: Share of targets within the row's outermost symmetric pair of levels; None without quantiles.
        nominal_coverage: The share that a calibrated forecast has.
        crossing_rate: Share of neighbouring quantiles that cross.
        n_parameters: Weights, each counted once; None for a foreign teacher.
        size_bytes: Every file it needs to forecast; None for a foreign teacher, and for a statistical method, which is
            fitted to each window.
        latency_p50_ms: Median time of one forecast from raw values to raw values, one window, one thread.
        latency_p95_ms: 95th percentile of it.
        n_latency_runs: Forecasts timed.
        mse_ratio: Its MSE over the reference's, on the windows that it was scored on; above 1 it is worse.
        size_ratio: Its bytes over the reference's.
        speedup: The reference's median latency over its own; above 1 it is faster.
        mse_difference: Its MSE less the reference's.
        low: Lower end of the 95 % confidence interval of the difference.
        high: Upper end of it.
        p_value: Chance of such a difference between equally good forecasters; None: not tested.
        p_value_holm: The same, adjusted for the number of rows tested.
        mse_by_step: Scaled MSE at each step of the horizon.
        n_windows: Windows it was scored on, evenly spread over the part; None: all of them. Ratio, difference and
            p-values then compare it with the reference on the same windows.
        remark: Other information, such as warnings of its fits.
    """

    name: str
    runtime: str
    role: Literal["reference", "model", "baseline", "control"] = "model"
    kind: str | None = None
    mse: float | None = None
    mae: float | None = None
    mse_raw: float | None = None
    mae_raw: float | None = None
    mase: float | None = None
    wql: float | None = None
    coverage: float | None = None
    nominal_coverage: float | None = None
    crossing_rate: float | None = None
    n_parameters: int | None = None
    size_bytes: int | None = None
    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None
    n_latency_runs: int | None = None
    mse_ratio: float | None = None
    size_ratio: float | None = None
    speedup: float | None = None
    mse_difference: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    p_value_holm: float | None = None
    mse_by_step: tuple[float, ...] = ()
    n_windows: int | None = None
    remark: str | None = None

    @property
    def title(self) -> str:
        """Name and runtime, which together name a row."""
        return f"{self.name} ({self.runtime})"

    @property
    def measured_mse(self) -> float:
        """The MSE as a number to calculate with: NaN where the row was not scored."""
        return float("nan") if self.mse is None else self.mse


class Comparison(Spec):
    """The subject of a report against one other row.

    Args:
        subject: Name of the model the report is about: the last one given.
        other: Name of the row it is compared with: a baseline, or the same student without a teacher.
        relative: MSE of the subject over MSE of the other, less 1; below 0 the subject is better.
        low: Lower end of its 95 % confidence interval.
        high: Upper end of it.
        p_value: Chance of such a difference between equally good forecasters; None: too few windows for a test.
        n_windows: Windows that both were scored on, where they are not all of the part.
    """

    subject: str
    other: str
    relative: float
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    n_windows: int | None = None


class CandidateRow(Spec):
    """A student that was made as one of several, as it would be deployed, on the validation part.

    Args:
        name: Its architecture, with the fields that it differs in where there are several of it.
        reason: Why it is deployed, or why not.
        chosen: Whether it is the one that is deployed.
        validation_mse: Mean squared error, scaled; None for one that could not be made, as all other numbers.
        relative: How far this is above the least one among those within the budget, as a share.
        standard_error: Of that share; None over the budget.
        size_bytes: Every file it needs to forecast.
        latency_p50_ms: Median time of one forecast, one window, one thread.
        n_parameters: Weights, each counted once.
        precision: What it is deployed in.
        taught: Whether the teacher has shaped it: its control was not better, and its share is above 0.
    """

    name: str
    reason: str
    chosen: bool = False
    validation_mse: float | None = None
    relative: float | None = None
    standard_error: float | None = None
    size_bytes: int | None = None
    latency_p50_ms: float | None = None
    n_parameters: int | None = None
    precision: str | None = None
    taught: bool | None = None


class ExampleForecast(Spec):
    """One channel of one window in raw units: the context, the target, and the forecast of each row.

    Args:
        channel: Name of the channel.
        window: Position of the window in its part.
        start: Stamp of the first forecast step, if there are stamps.
        context: Last steps before the forecast.
        target: Observed values.
        forecasts: By row title.
    """

    channel: str
    window: int
    start: str | None = None
    context: tuple[float, ...]
    target: tuple[float, ...]
    forecasts: dict[str, tuple[float, ...]]


class Measurements(Spec):
    """The measurements of a comparison; a `Report` adds how to show them.

    Args:
        panel: Name of the data.
        notes: What was repaired in the data before it was used.
        context: Past steps of a window.
        horizon: Future steps of a window.
        channels: Names of the channels.
        frequency: Step width.
        part: The part that was scored.
        borders: The split of the task, as data.
        n_windows: Windows of each part.
        fingerprint: Digest of everything that selection could see.
        reference: Name of the model that ratios refer to.
        subject: Name of the model the report is about: the last one given.
        rows: The reference first, then the models as given, the control and the baselines.
        comparisons: The subject against its control and the baselines.
        levels: What weighted quantile losses are a mean over: the levels that all models with quantiles have in common.
        examples: A few windows at fixed positions, not chosen by their look.
        candidates: The students that the subject was chosen among, on validation; empty without such a choice.
        versions: Of the packages that can change numbers.
        machine: Processor, its INT8 abilities and the threads used.
    """

    panel: str | None = None
    notes: dict[str, Any] = Field(default_factory=dict)
    context: int
    horizon: int
    channels: tuple[str, ...]
    frequency: str | None = None
    part: str
    borders: dict[str, Any] = Field(default_factory=dict)
    n_windows: dict[str, int]
    fingerprint: str | None = None
    reference: str
    subject: str
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...] = ()
    levels: tuple[float, ...] = ()
    examples: tuple[ExampleForecast, ...] = ()
    candidates: tuple[CandidateRow, ...] = ()
    versions: dict[str, str] = Field(default_factory=dict)
    machine: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _read_older(cls, values: Any) -> Any:
        """Version 0.1 wrote `part` as `split`."""
        if not isinstance(values, dict) or "split" not in values or "part" in values:
            return values
        return {"part" if name == "split" else name: value for name, value in values.items()}

    def row(self, name: str, runtime: str | None = None) -> Row:
        """The row with a name; of several, the one in the runtime asked for, else the first.

        Raises:
            ConfigError: There is no such row.
        """
        for row in self.rows:
            if row.name == name and runtime in (None, row.runtime):
                return row
        known = {row.name for row in self.rows} if runtime is None else {row.title for row in self.rows}
        raise ConfigError(f"`name` must name a row, got name={name!r}, runtime={runtime!r}. {nearest(name, known)}")

    def to_frame(self) -> pd.DataFrame:
        """One line per row, one column per number; the curve over the horizon is left to `rows`."""
        import pandas as pd

        columns = [name for name in Row.model_fields if name != "mse_by_step"]
        return pd.DataFrame([{name: getattr(row, name) for name in columns} for row in self.rows], columns=columns)
