"""What a comparison found, as data: every table, sentence and plot is made from these records and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from tsdistill.spec import Spec

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console, ConsoleOptions, RenderResult


class Row(Spec):
    """One model in one runtime: how well it forecasts and what that costs.

    Args:
        name: As given to `compare`, or of a baseline or control that was added.
        runtime: What ran it: "torch fp32", "onnx fp32", "onnx int8", "statsmodels", or "foreign" for a teacher that is
            no forecaster of ours, whose size and speed are not known.
        role: "reference", "model", "baseline" or "control".
        kind: Its architecture; the class of a foreign teacher.
        mse: Mean squared error, scaled, as the literature reports it; None for a teacher that cannot be asked about the
            part, of which `remark` says why.
        mae: Mean absolute error, scaled.
        mse_raw: Mean squared error in the data's own units.
        mae_raw: Mean absolute error in the data's own units.
        mase: Mean absolute error over the seasonal naive error in training; None where nothing moved in training.
        wql: Weighted quantile loss over the report's `levels`, raw units; a forecast without quantiles stands for each
            of them. None where no model of the report has quantiles.
        coverage: Share of targets within the row's outermost symmetric pair of levels; None without quantiles.
        nominal_coverage: What that share should be.
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
        remark: What else there is to say of it, such as warnings that its fits gave.
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
    """The subject of a report against one other row: what a reader wants to know before using it.

    Args:
        subject: Name of the model the report is about: the last one given.
        other: Name of what it is held against: a baseline, or the same student without a teacher.
        relative: MSE of the subject over MSE of the other, less 1; below 0 the subject is better.
        low: Lower end of its 95 % confidence interval.
        high: Upper end of it.
        p_value: Chance of such a difference between equally good forecasters; None: too few windows to tell.
        n_windows: Windows that both were scored on, where they are not all of the part.
    """

    subject: str
    other: str
    relative: float
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    n_windows: int | None = None


class ExampleForecast(Spec):
    """One channel of one window in raw units: what went before, what happened, and what each row forecast.

    Args:
        channel: Name of the channel.
        window: Position of the window in its part.
        start: Stamp of the first forecast step, if there are stamps.
        context: Last steps before the forecast.
        target: What happened.
        forecasts: By row title.
    """

    channel: str
    window: int
    start: str | None = None
    context: tuple[float, ...]
    target: tuple[float, ...]
    forecasts: dict[str, tuple[float, ...]]


class Report(Spec):
    """A comparison of forecasters on one task; print it, or take it as a frame, JSON or an HTML page.

    Made by `compare`. Everything in it is data: two reports are equal when their values are, and `Report.from_json`
    gives back what `to_json` wrote.

    Args:
        panel: Name of the data.
        notes: What was repaired in the data before it was used.
        context: Past steps of a window.
        horizon: Future steps of a window.
        channels: Names of the channels.
        frequency: Step width.
        split: The part that was scored.
        borders: The split, as data.
        n_windows: Windows of each part.
        fingerprint: Digest of everything that selection could see.
        reference: Name of the model that ratios refer to.
        subject: Name of the model the report is about: the last one given.
        rows: The reference first, then the models as given, the control and the baselines.
        comparisons: The subject against its control and the baselines.
        levels: What weighted quantile losses are a mean over: the levels that all models with quantiles have in common.
        examples: A few windows, taken at fixed places, not chosen by how they look.
        versions: Of the packages that can change numbers.
        machine: Processor, its INT8 abilities and the threads used.

    Example:
        >>> row = Row(
        ...     name="naive", runtime="onnx fp32", mse=1.0, mae=0.8, mse_raw=4.0, mae_raw=1.6,
        ...     n_parameters=0, size_bytes=7,
        ... )
        >>> report = Report(
        ...     context=29, horizon=7, channels=("a",), split="test", n_windows={"test": 5},
        ...     reference="naive", subject="naive", rows=(row,),
        ... )
        >>> Report.from_json(report.to_json()) == report
        True
    """

    panel: str | None = None
    notes: dict[str, Any] = Field(default_factory=dict)
    context: int
    horizon: int
    channels: tuple[str, ...]
    frequency: str | None = None
    split: str
    borders: dict[str, Any] = Field(default_factory=dict)
    n_windows: dict[str, int]
    fingerprint: str | None = None
    reference: str
    subject: str
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...] = ()
    levels: tuple[float, ...] = ()
    examples: tuple[ExampleForecast, ...] = ()
    versions: dict[str, str] = Field(default_factory=dict)
    machine: dict[str, Any] = Field(default_factory=dict)

    def row(self, name: str, runtime: str | None = None) -> Row:
        """The row with a name; of several, the one in the runtime asked for, else the first.

        Raises:
            ConfigError: There is no such row.
        """
        from tsdistill.errors import ConfigError, nearest

        for row in self.rows:
            if row.name == name and runtime in (None, row.runtime):
                return row
        known = {row.name for row in self.rows} if runtime is None else {row.title for row in self.rows}
        raise ConfigError(f"`name` must name a row, got name={name!r}, runtime={runtime!r}. {nearest(name, known)}")

    @property
    def verdict(self) -> tuple[str, ...]:
        """What the numbers say, in plain sentences; one paragraph each."""
        from tsdistill.report.verdict import verdict

        return verdict(self)

    def to_frame(self) -> pd.DataFrame:
        """One line per row, one column per number; the curve over the horizon is left to `rows`."""
        import pandas as pd

        columns = [name for name in Row.model_fields if name != "mse_by_step"]
        return pd.DataFrame([{name: getattr(row, name) for name in columns} for row in self.rows], columns=columns)

    def to_text(self, width: int = 100, *, ascii_only: bool = False) -> str:
        """The tables and the verdict as plain text, at most `width` columns wide.

        Args:
            width: Columns of the terminal; narrower ones fold the model names.
            ascii_only: Draw lines with ASCII characters.
        """
        from tsdistill.report.text import to_text

        return to_text(self, width, ascii_only=ascii_only)

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained page: verdict, tables, interactive plots. It needs no network.

        The page is written beside its place and moved there, so that a reader never sees half of it.

        Args:
            path: The file to write; its folder is made.

        Returns:
            The path.

        Raises:
            ArtifactError: The file cannot be written.
        """
        from tsdistill.report.page import write_page

        return write_page(self, Path(path))

    def __str__(self) -> str:
        from tsdistill.report.text import for_terminal

        return for_terminal(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from tsdistill.report.text import renderables

        yield from renderables(self, options.max_width, ascii_only=options.ascii_only)
