"""Measure models side by side. What is deployed is what is measured: every row but one is an exported graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tsdistill.data.split import PARTS
from tsdistill.data.windows import less_offsets
from tsdistill.deprecation import renamed_argument
from tsdistill.errors import ConfigError, ShapeError, UnsupportedError, check_type, listed, must, nearest
from tsdistill.evaluation import (
    METHODS,
    Method,
    StatisticalForecaster,
    check_fits,
    measure_latency,
    quantile_levels,
    score,
)
from tsdistill.evaluation import baselines as make_baselines
from tsdistill.progress import open_bar
from tsdistill.report.candidates import rows_of_choice
from tsdistill.report.entries import Entry, make_entries
from tsdistill.report.examples import examples
from tsdistill.report.foreign import RUNTIME, chosen_reference, is_foreign, refuse_misfit, unscored_reason, unwrapped
from tsdistill.report.machine import machine, versions
from tsdistill.report.pairing import spread
from tsdistill.report.report import Report
from tsdistill.report.rows import comparisons_of, rows_of
from tsdistill.training.refitting import is_refitted

if TYPE_CHECKING:
    from tsdistill.data.task import Part, Task
    from tsdistill.exporting import Deployed
    from tsdistill.models import Forecaster
    from tsdistill.teachers import Teacher

REFITTED = "fitted again on training and validation rows, once everything had been chosen"
"""What is remarked of a row whose model has learnt from validation rows."""

BASELINES = ("seasonal naive", "ridge")


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
    (the teacher) gets a second row, run by torch, to which ratios refer. Rows for a seasonal naive forecast,
    a ridge regression and, where there is one, the same student without a teacher are always added.

    A foreign teacher is a row too, with its accuracy but no bytes and no latency. One that cannot forecast the part (a
    table that does not cover it, an oracle) has an empty row with the reason, and cannot be the reference. Of a
    `TrustedTeacher` the teacher inside is measured.

    Use it once, at the end, on the test part. To choose between models use `evaluate` on the validation part.

    Args:
        models: By name, in the order in which they were made: the teacher first, the most compressed one last. The last
            one is the subject of the verdict.
        task: Data, context and horizon.
        part: The part to score.
        reference: Name of the model that ratios refer to; if not given, the first one that can be scored.
        baselines: Statistical methods to add: "ets", "theta", "stl" (see `td.evaluation.statistical`).
        n_baseline_windows: Windows that these are scored on, evenly spread over the part: they are refitted to each, at
            tens of milliseconds per channel. They are compared with other rows on the same windows.
        latency: Also time each row: one window, one thread, raw values in and out, in turns.
        n_latency_runs: Forecasts to time of each row.
        progress: Show a progress bar; None shows one in a terminal only.

    Returns:
        A `Report`.

    Raises:
        ConfigError: No models, a name that is empty or belongs to an added row, an unknown reference, part or baseline,
            or "stl" where the context does not hold a season twice.
        UnsupportedError: A statistical forecaster is among the models: ask for it by `baselines`. Or the reference or
            the last model cannot forecast the part, or a model is no forecaster.
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
    from tsdistill.data.task import Task

    check_type("models", models, Mapping, 'Pass models by name: {"teacher": teacher, ...}')
    check_type("task", task, Task, "Pass td.Task(panel, context=..., horizon=...)")
    models, remarks = unwrapped(models)
    _check(models, task, part, reference, baselines, n_baseline_windows)
    foreign = {name: model for name, model in models.items() if is_foreign(model)}
    reasons = {name: unscored_reason(model, task, part) for name, model in foreign.items()}
    unscored = {name: reason for name, reason in reasons.items() if reason is not None}
    reference = chosen_reference(models, reference, unscored)
    with_control = [name for name, model in models.items() if getattr(model, "control", None) is not None]
    n_steps = 2 * (len(models) + len(BASELINES) + len(baselines) + 1 + bool(with_control)) + 2
    with open_bar("compare", n_steps, progress) as bar:
        positions = spread(len(task.windows(part)), n_baseline_windows)
        baseline_models = make_baselines(task, baselines)
        entries = make_entries(
            models, task, reference, with_control[-1] if with_control else None, baseline_models, positions, bar
        )
        for entry in entries:
            entry.unscored = entry.name in unscored
            entry.remark = unscored.get(entry.name, remarks.get(entry.name))
        scored = [entry for entry in entries if not entry.unscored]
        levels = _common_levels(scored)
        for entry in scored:
            bar.note(f"score {entry.title}")
            entry.scores = score(entry.model, task, part, levels=levels, positions=entry.positions)
            if isinstance(entry.model, StatisticalForecaster):
                entry.remark = entry.model.remark
            elif getattr(entry.model, "mixes_windows", False):
                entry.remark = (
                    "scored and timed one window at a time; others in its batch moved a forecast by up to "
                    f"{entry.model.batch_effect:.2g} standard deviations, which isolate=True prevents"
                )
            if is_refitted(entry.model):
                entry.remark = "; ".join(filter(None, [REFITTED, entry.remark]))
            bar.advance()
        bar.note("latency")
        times = _latencies(scored, task, part, n_latency_runs) if latency else {}
        bar.advance()
        bar.note("examples")
        forecasts = examples({entry.title: entry.model for entry in scored}, task, part)
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
        rows=rows_of(entries, times, task.horizon),
        comparisons=comparisons_of(scored, subject, task.horizon),
        levels=levels,
        examples=forecasts,
        candidates=rows_of_choice(models.values()),
        versions=versions(),
        machine=machine(),
    )


def _check(
    models: Mapping[str, Any],
    task: Task,
    part: str,
    reference: str | None,
    baselines: Sequence[str],
    n_baseline_windows: int,
) -> None:
    """Every problem of the call in one error."""
    problems = []
    if not models:
        raise ConfigError(must("models", "hold at least one forecaster", {}, 'Pass {"teacher": teacher, ...}'))
    for name in models:
        if not isinstance(name, str) or not name.strip():
            problems.append(must("models", "have names", name, "Name every model"))
        elif name in (*BASELINES, *baselines) or name.endswith(" without teacher"):
            problems.append(must("models", "not use the name of a row that is added anyway", name, "Rename it"))
    if reference is not None and reference not in models:
        problems.append(f"`reference` must name one of the models, got {reference!r}. {nearest(reference, models)}")
    problems += [
        must("baselines", f"be made of {', '.join(METHODS)}", name, nearest(str(name), METHODS))
        for name in baselines
        if name not in METHODS
    ]
    if len(set(baselines)) < len(baselines):
        problems.append(must("baselines", "name each method once", list(baselines), "Leave out the repeated ones"))
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


def _common_levels(entries: list[Entry]) -> tuple[float, ...]:
    """Quantile levels that all models with quantiles give: a loss over different levels could not be compared."""
    per_model = [levels for entry in entries if (levels := quantile_levels(entry.model))]
    if not per_model:
        return ()
    return tuple(level for level in per_model[0] if all(level in levels for levels in per_model))


def _latencies(entries: list[Entry], task: Task, part: Part, n_runs: int) -> dict[str, Any]:
    """Latency of one raw forecast of the part's first window, by title."""
    import torch

    first = task.windows(part).subset(torch.tensor([0]))
    (batch,) = first.batches(1)
    raw, _ = less_offsets(batch, first, task.signature, None)

    def call(model: Any) -> Callable[[], object]:
        # A model takes the covariates it was made for, of its own steps.
        steps = {"future": model.signature.context + task.horizon, "past": model.signature.context}
        covariates = {
            name: raw[name][:, -n_steps:] for name, n_steps in steps.items() if getattr(model.signature, name)
        }
        return lambda: model.predict(raw["context"], **covariates)

    timed = {entry.title: entry.model for entry in entries if entry.runtime != RUNTIME}
    slow = {title: call(model) for title, model in timed.items() if isinstance(model, StatisticalForecaster)}
    quick = {title: call(model) for title, model in timed.items() if title not in slow}
    # Timed separately: the others would have few turns if they waited for fits.
    return {**measure_latency(quick, n_runs=n_runs), **measure_latency(slow, n_runs=min(n_runs, 3), warmup=1)}
