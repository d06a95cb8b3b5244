"""Measure models side by side. What is deployed is what is measured: every row but one is an exported graph."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tsdistill.data.split import PARTS
from tsdistill.errors import ConfigError, ShapeError, UnsupportedError, listed, must, nearest
from tsdistill.evaluation import (
    METHODS,
    LossComparison,
    Method,
    Scores,
    StatisticalForecaster,
    check_fits,
    holm,
    measure_latency,
    quantile_levels,
    score,
)
from tsdistill.evaluation import baselines as make_baselines
from tsdistill.evaluation.forecasting import raw_inputs
from tsdistill.evaluation.renaming import renamed_argument
from tsdistill.progress import open_bar
from tsdistill.report.examples import examples
from tsdistill.report.foreign import RUNTIME, chosen_reference, is_foreign, refuse_misfit, silence, unwrapped
from tsdistill.report.machine import machine, versions
from tsdistill.report.pairing import paired, spread
from tsdistill.report.records import Comparison, Row
from tsdistill.report.report import Report

if TYPE_CHECKING:
    from tsdistill.data.task import Part, Task
    from tsdistill.exporting import Deployed
    from tsdistill.models import Forecaster
    from tsdistill.teachers import Teacher

BASELINES = ("seasonal naive", "ridge")
SAME = 1e-6
"""Relative difference of window losses below which two rows are the same model in two runtimes."""
METRICS = ("mse", "mae", "mse_raw", "mae_raw", "mase", "wql", "coverage", "nominal_coverage", "crossing_rate")
"""Numbers of a row that `Scores` knows by the same name."""


@dataclass
class _Entry:
    """One row in the making: the model as it will be measured, and what was measured; `silent` ones cannot be asked."""

    name: str
    role: str
    model: Any
    runtime: str
    size_bytes: int | None
    positions: np.ndarray | None = None
    scores: Scores = field(init=False)
    remark: str | None = None
    silent: bool = False

    @property
    def title(self) -> str:
        return f"{self.name} ({self.runtime})"


@renamed_argument("split", "part")
def compare(
    models: Mapping[str, Forecaster | Deployed | Teacher],
    task: Task,
    *,
    part: Part = "test",
    reference: str | None = None,
    baselines: Sequence[Method] = (),
    n_baseline_windows: int = 50,
    latency: bool = True,
    n_latency_runs: int = 200,
    progress: bool | None = None,
) -> Report:
    """Measure forecasters on one part of a task: accuracy, bytes and latency of what would be deployed.

    A trainable forecaster is exported and measured in ONNX Runtime; a deployed one is measured as it is. The reference
    (the teacher) gets a second row, run by torch, and that is what ratios refer to. Rows for a seasonal naive forecast,
    a ridge regression and, where there is one, the same student without a teacher are always added.

    Any other teacher is a row too, with its accuracy and nothing that would have to be invented: no bytes, no latency.
    One that cannot be asked about the part (a table that does not cover it, an oracle) has an empty row that says why,
    and is no reference. Of a `TrustedTeacher` the teacher inside is measured.

    Use it once, at the end, on the test part. To choose between models use `evaluate` on the validation part.

    Args:
        models: By name, in the order in which they were made: the teacher first, the most compressed one last. The last
            one is what the verdict is about.
        task: Data, context and horizon.
        part: The part to score.
        reference: Name of the model that ratios refer to; if not given, the first one that can be scored.
        baselines: Statistical methods to add: "ets", "theta", "stl" (see `td.statistical`).
        n_baseline_windows: Windows that these are scored on, evenly spread over the part: they are refitted to each, at
            tens of milliseconds per channel. Whatever compares them with another row looks at the same windows.
        latency: Also time each row: one window, one thread, raw values in and out, in turns.
        n_latency_runs: Forecasts to time of each row.
        progress: Show a progress bar; None shows one in a terminal only.

    Returns:
        A `Report`.

    Raises:
        ConfigError: No models, a name that is empty or belongs to an added row, an unknown reference, part or baseline,
            or "stl" where the context does not hold a season twice.
        UnsupportedError: A statistical forecaster is among the models: ask for it by `baselines`. Or the reference or
            the last model cannot be asked about the part, or a model is nothing that forecasts.
        ShapeError: A model's channels, horizon or context do not fit the task; all of them are listed.
        DataError: A model forecast something that is not finite.
        ArtifactError: An exported graph does not agree with its model.

    Example:
        >>> from tsdistill.models import LinearConfig
        >>> from tsdistill.testing import toy_task
        >>> from tsdistill.training import train
        >>> task = toy_task()
        >>> report = compare({"teacher": train(LinearConfig(), task)}, task, latency=False)
        >>> [(row.name, row.runtime) for row in report.rows][:2]
        [('teacher', 'torch fp32'), ('teacher', 'onnx fp32')]
    """
    models, remarks = unwrapped(models)
    _check(models, task, part, reference, baselines, n_baseline_windows)
    asked = {name: silence(model, task, part) for name, model in models.items() if is_foreign(model)}
    silent = {name: why for name, why in asked.items() if why is not None}
    reference = chosen_reference(models, reference, silent)
    with_control = [name for name, model in models.items() if getattr(model, "control", None) is not None]
    n_steps = 2 * (len(models) + len(BASELINES) + len(baselines) + 1 + bool(with_control)) + 2
    with open_bar("compare", n_steps, progress) as bar:
        positions = spread(len(task.windows(part)), n_baseline_windows)
        baseline_models = make_baselines(task, baselines)
        every = _entries(
            models, task, reference, with_control[-1] if with_control else None, baseline_models, positions, bar
        )
        for entry in every:
            entry.silent = entry.name in silent
            entry.remark = silent.get(entry.name, remarks.get(entry.name))
        entries = [entry for entry in every if not entry.silent]
        levels = _common_levels(entries)
        for entry in entries:
            bar.note(f"score {entry.title}")
            entry.scores = score(entry.model, task, part, levels=levels, positions=entry.positions)
            if isinstance(entry.model, StatisticalForecaster):
                entry.remark = entry.model.remark
            elif getattr(entry.model, "mixes_windows", False):
                entry.remark = (
                    "scored and timed one window at a time; others in its batch moved a forecast by up to "
                    f"{entry.model.batch_effect:.2g} standard deviations, which isolate=True prevents"
                )
            bar.advance()
        bar.note("latency")
        times = _latencies(entries, task, part, n_latency_runs) if latency else {}
        bar.advance()
        bar.note("examples")
        shown = examples({entry.title: entry.model for entry in entries}, task, part)
        bar.advance()
    subject = list(models)[-1]
    return Report(
        panel=task.panel.name,
        notes={name: value for name, value in task.notes.items() if value is not None},
        context=task.context,
        horizon=task.horizon,
        channels=task.channels,
        frequency=task.panel.frequency,
        part=part,
        borders=task.split.to_dict(),
        n_windows={name: len(task.windows(name)) for name in PARTS},
        fingerprint=task.fingerprint,
        reference=reference,
        subject=subject,
        rows=_rows(every, times, task.horizon),
        comparisons=_comparisons(entries, subject, task.horizon),
        levels=levels,
        examples=shown,
        versions=versions(),
        machine=machine(),
    )


def _check(
    models: Mapping[str, Any],
    task: Task,
    part: str,
    reference: str | None,
    asked: Sequence[str],
    n_baseline_windows: int,
) -> None:
    """Every problem of the call in one error."""
    problems = []
    if not models:
        raise ConfigError(must("models", "hold at least one forecaster", {}, 'Pass {"teacher": teacher, ...}'))
    for name in models:
        if not isinstance(name, str) or not name.strip():
            problems.append(must("models", "have names", name, "Name every model"))
        elif name in (*BASELINES, *asked) or name.endswith(" without teacher"):
            problems.append(must("models", "not use the name of a row that is added anyway", name, "Rename it"))
    if reference is not None and reference not in models:
        problems.append(f"`reference` must name one of the models, got {reference!r}. {nearest(reference, models)}")
    problems += [
        must("baselines", f"be made of {', '.join(METHODS)}", name, nearest(str(name), METHODS))
        for name in asked
        if name not in METHODS
    ]
    if len(set(asked)) < len(asked):
        problems.append(must("baselines", "name each method once", list(asked), "Leave out the repeated ones"))
    if not isinstance(n_baseline_windows, int) or n_baseline_windows < 1:
        remedy = "Leave it out for the default"
        problems.append(must("n_baseline_windows", "be a whole number of at least 1", n_baseline_windows, remedy))
    if problems:
        raise ConfigError(listed(problems, "compare"))
    if slow := [name for name, model in models.items() if isinstance(model, StatisticalForecaster)]:
        raise UnsupportedError(
            f"`models` must be forecasters or deployed ones, got a statistical forecaster: {', '.join(slow)}. Ask for "
            f'it by baselines=("{models[slow[0]].config.kind}",).'
        )
    misfits = []
    for name, model in models.items():
        try:
            check_fits(model, task.windows(part), task.signature)  # type: ignore[arg-type]
            refuse_misfit(model, task)
        except ShapeError as error:
            misfits.append(f"{name!r}: {error}")
    if misfits:
        raise ShapeError(listed(misfits, "compare"))


def _entries(
    models: Mapping[str, Any],
    task: Task,
    reference: str,
    with_control: str | None,
    baseline_models: Mapping[str, Any],
    positions: np.ndarray | None,
    bar: Any,
) -> list[_Entry]:
    """All rows in order: reference, models, control, baselines; trainable ones exported."""
    from tsdistill.exporting import Deployed, export

    def deployed(name: str, role: str, model: Any) -> _Entry:
        bar.note(f"export {name}")
        if not isinstance(model, Deployed):
            # The copy has no control: that is exported only where it gets a row.
            model = export(copy.deepcopy(model), task)
        bar.advance()
        return _Entry(name, role, model, f"onnx {model.precision}", model.size_bytes)

    entries = []
    order = [reference, *(name for name in models if name != reference)]
    for name in order:
        model = models[name]
        if is_foreign(model):
            bar.advance()
            entries.append(_Entry(name, "reference" if name == reference else "model", model, RUNTIME, None))
        elif name == reference and not isinstance(model, Deployed):
            from tsdistill.artifacts import size_bytes

            entries.append(_Entry(name, "reference", model, "torch fp32", size_bytes(model)))
            entries.append(deployed(name, "model", model))
        else:
            entries.append(deployed(name, "reference" if name == reference else "model", model))
    if with_control is not None:
        entries.append(deployed(f"{with_control} without teacher", "control", models[with_control].control))
    for name, model in baseline_models.items():
        if isinstance(model, StatisticalForecaster):
            bar.advance()
            entries.append(_Entry(name, "baseline", model, "statsmodels", None, positions))
        else:
            entries.append(deployed(name, "baseline", model))
    return entries


def _common_levels(entries: list[_Entry]) -> tuple[float, ...]:
    """Quantile levels that all models with quantiles give: a loss over different levels could not be compared."""
    given = [levels for entry in entries if (levels := quantile_levels(entry.model))]
    return tuple(level for level in given[0] if all(level in levels for levels in given)) if given else ()


def _latencies(entries: list[_Entry], task: Task, part: Part, n_runs: int) -> dict[str, Any]:
    """Latency of one raw forecast of the part's first window, by title."""
    import torch

    first = task.windows(part).subset(torch.tensor([0]))
    (batch,) = first.batches(1)
    raw = {name: values.astype(np.float32) for name, values in raw_inputs(batch, task.signature, first).items()}

    def call(model: Any) -> Callable[[], object]:
        # A model takes the covariates it was made for, of its own steps.
        steps = {"future": model.signature.context + task.horizon, "past": model.signature.context}
        known = {name: raw[name][:, -n_steps:] for name, n_steps in steps.items() if getattr(model.signature, name)}
        return lambda: model.predict(raw["context"], **known)

    timed = {entry.title: entry.model for entry in entries if entry.runtime != RUNTIME}
    slow = {title: call(model) for title, model in timed.items() if isinstance(model, StatisticalForecaster)}
    quick = {title: call(model) for title, model in timed.items() if title not in slow}
    # Apart from the others, whose turns would be few if they waited for fits.
    return {**measure_latency(quick, n_runs=n_runs), **measure_latency(slow, n_runs=min(n_runs, 3), warmup=1)}


def _rows(every: list[_Entry], times: Mapping[str, Any], horizon: int) -> tuple[Row, ...]:
    base, entries = every[0], [entry for entry in every if not entry.silent]
    numbers = {entry.title: entry.scores.to_dict() for entry in entries}
    tests = {entry.title: _tested(entry, base, horizon) for entry in entries[1:]}
    adjusted = holm({title: None if test is None else test.p_value for title, test in tests.items()})
    rows = []
    for entry in every:
        foreign = entry.runtime == RUNTIME
        row = Row(
            name=entry.name,
            runtime=entry.runtime,
            role=entry.role,
            kind=type(entry.model).__name__ if foreign else getattr(entry.model.config, "kind", None),
            n_parameters=None if foreign else entry.model.n_parameters,
            size_bytes=entry.size_bytes,
            remark=entry.remark,
        )
        if entry.silent:
            rows.append(row)
            continue
        scores, time, test = numbers[entry.title], times.get(entry.title), tests.get(entry.title)
        row = row.replace(
            **{name: scores.get(name) for name in METRICS},
            mse_ratio=_ratio(scores["mse"], base.scores.mse_on(_places(entry))),
            size_ratio=_ratio(entry.size_bytes, base.size_bytes),
            mse_by_step=entry.scores.mse_by_step.tolist(),
            n_windows=None if entry.positions is None else len(entry.positions),
        )
        if time is not None:
            first = times.get(base.title)
            row = row.replace(
                latency_p50_ms=time.p50_ms,
                latency_p95_ms=time.p95_ms,
                n_latency_runs=time.n_runs,
                speedup=_ratio(None if first is None else first.p50_ms, time.p50_ms),
            )
        if test is not None:
            row = row.replace(
                mse_difference=test.mean_difference,
                low=test.low,
                high=test.high,
                p_value=test.p_value,
                p_value_holm=adjusted[entry.title],
            )
        rows.append(row)
    return tuple(rows)


def _ratio(value: float | None, base: float | None) -> float | None:
    return value / base if value is not None and base is not None and base > 0 else None


def _places(entry: _Entry) -> np.ndarray | slice:
    return slice(None) if entry.positions is None else entry.positions


def _tested(entry: _Entry, base: _Entry, horizon: int) -> LossComparison | None:
    """The losses of a row less the reference's; None for the same model in another runtime."""
    losses, base_losses = entry.scores.window_losses, base.scores.window_losses
    if entry.name == base.name and np.allclose(
        losses, base_losses, rtol=SAME * 1e3, atol=SAME * float(base_losses.mean())
    ):
        return None
    if entry.positions is None:
        return paired(entry.scores, base.scores, None, horizon)
    return _turned(paired(base.scores, entry.scores, entry.positions, horizon))


def _turned(test: LossComparison) -> LossComparison:
    """The same comparison with the two sides swapped."""
    low, high, statistic = (None if end is None else -end for end in (test.high, test.low, test.statistic))
    return replace(test, mean_difference=-test.mean_difference, low=low, high=high, statistic=statistic)


def _comparisons(entries: list[_Entry], subject: str, horizon: int) -> tuple[Comparison, ...]:
    """The subject as deployed against the control and the baselines."""
    about = [entry for entry in entries if entry.name == subject][-1]
    comparisons = []
    for entry in entries:
        base = float(entry.scores.window_losses.mean())
        if entry.role not in ("control", "baseline") or base == 0:
            continue
        test = paired(about.scores, entry.scores, entry.positions, horizon)
        comparisons.append(
            Comparison(
                subject=subject,
                other=entry.name,
                relative=test.mean_difference / base,
                low=None if test.low is None else test.low / base,
                high=None if test.high is None else test.high / base,
                p_value=test.p_value,
                n_windows=None if entry.positions is None else len(entry.positions),
            )
        )
    return tuple(comparisons)
