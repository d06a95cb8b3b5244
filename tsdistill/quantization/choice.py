"""Which form of a forecaster is deployed: INT8 is measured against float32 and has to pay."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from tsdistill.data.task import Task
from tsdistill.errors import ConfigError, UnsupportedError, must
from tsdistill.exporting import Deployed, export, package_versions, refuse_deployed, refuse_foreign
from tsdistill.models.base import Forecaster, versions
from tsdistill.quantization.forms import Forms
from tsdistill.quantization.judging import (
    FULL,
    Candidate,
    Judge,
    accuracy_refusals,
    measure,
    refuse_what_does_not_pay,
    table,
)
from tsdistill.quantization.qat import deployed_form, refuse_untrainable, refuse_vain_training, train_rounded
from tsdistill.quantization.sensitivities import mixed
from tsdistill.quantization.spec import Quantization
from tsdistill.spec import LineageStep
from tsdistill.teachers import Teacher, teacher_info

EVERY: dict[str, dict[str, Any]] = {
    "dynamic": {"method": "dynamic"},
    "static": {"method": "static"},
    "weight-only-8": {"method": "weight-only", "weight_bits": 8},
    "weight-only-4": {"method": "weight-only", "weight_bits": 4},
}
"""What "auto" tries, by the names in its table."""

SAME_SIZE = 0.02
"""Part by which bytes may differ and still be as good: of such forms the fastest is taken."""


def quantize(
    forecaster: Forecaster,
    task: Task,
    quantization: Quantization | None = None,
    *,
    teacher: Teacher | None = None,
    cache: Path | None = None,
    checkpoint: Path | None = None,
    progress: bool | None = None,
) -> Deployed:
    """Deploy a forecaster in INT8 where that pays, and refuse with numbers where it does not.

    The forecaster is exported in float32, its layers become 8-bit integer products ("dynamic", "static") or are
    stored in 8 or 4 bits ("weight-only"), the forecaster being trained for that before or not ("qat"), and the forms
    are measured through the runtime that serves them: MSE on the validation part, over all and for the step and
    channel that suffer most, bytes of the graph, and median latency on one thread, taking turns. "auto" does so with
    every form there can be, leaves in float the layers that cost more than the budget, and takes the smallest of the
    fastest (the fastest of those within 2 % of its bytes); the table with the reason of every refusal is kept in the
    lineage and printed by `tsdistill quantize`. A quantile head is held to the budget by its weighted quantile loss as
    well. Use it as the last step of every recipe; the test part is never read. A `control` is deployed in the form that
    was chosen for the forecaster.

    Args:
        forecaster: A trained forecaster; left as it was.
        task: Its task; the validation part is read, and for static INT8 and "qat" the training part.
        quantization: Method and budget; defaults to `Quantization()`.
        teacher: Who teaches with method "qat"; without one the truth alone does.
        cache: Folder for the teacher's forecasts.
        checkpoint: A file to keep the state of "qat" in, so that a stopped run continues (the control keeps its own
            beside it).
        progress: Show progress bars of "qat"; None shows them in a terminal only.

    Returns:
        A deployed forecaster: "int8", "int8-weights" or "int4-weights", or "fp32" if the method is "auto" and
        everything else was refused.

    Raises:
        UnsupportedError: `forecaster` is none: distil it into one. Or the method is not "auto" and its form does not
            pay, cannot do one of the layers, or has nothing to quantize; the message has the numbers and what to use.
        ArtifactError: The exported graph does not agree with torch, or a layer stayed in float.
        OrderError: `forecaster` is deployed already.
        ConfigError: `quantization` is no spec or `task` no task, `keep_float` names a layer that is none, or a teacher
            is given to another method than "qat".
        ShapeError: The task is not the forecaster's.
        DataError: A training window is not finite.
        DivergenceError: Loss or gradient became infinite or NaN with "qat".

    Example:
        >>> from tsdistill.models import MLPConfig
        >>> from tsdistill.testing import toy_task
        >>> task = toy_task()
        >>> student = MLPConfig(width=32).build(task.signature)
        >>> quantize(student, task, Quantization(require_gain=False)).precision
        'int8'
    """
    refuse_deployed(forecaster, "quantize")
    refuse_foreign(forecaster)
    spec = Quantization() if quantization is None else quantization
    if not isinstance(spec, Quantization):
        raise ConfigError(must("quantization", "be a Quantization", spec, "Pass td.Quantization(method=...)"))
    if not isinstance(task, Task):
        remedy = "Its validation windows judge, and its training windows calibrate: pass td.Task(...)"
        raise ConfigError(must("task", "be the forecaster's Task", task, remedy))
    if teacher is not None and spec.method != "qat":
        remedy = "Leave it out, or quantize with method='qat', which trains"
        raise ConfigError(must("teacher", f"be None with method={spec.method!r}", type(teacher).__name__, remedy))
    if spec.method == "qat":
        refuse_untrainable(forecaster, spec)
    full = export(forecaster, task)
    forms, judge = Forms(full, task), Judge(full, task)
    candidates = [Candidate(FULL, model=full, numbers=judge.errors(full))]
    how: dict[str, Any] = {"cache": cache, "progress": progress}
    facts: dict[str, Any] = {}
    wanted = {name: spec.replace(**values) for name, values in EVERY.items()} if spec.method == "auto" else None
    asked = deployed_form(forecaster, spec)
    for name, each in (wanted or {asked.method: asked}).items():
        # Without the clock the first form that keeps to the budget is taken, and the others need not be made.
        if wanted is not None and not spec.require_gain and any(not found.refused for found in candidates[1:]):
            break
        candidates.extend(_tried(name, each, forms, judge, loud=wanted is None))
    if spec.method == "qat":
        trained, facts["training"] = train_rounded(
            forecaster, task, spec, teacher=teacher, checkpoint=checkpoint, **how
        )
        candidates.extend(_tried("qat", asked, Forms(export(trained, task), task), judge, loud=True))
    taken = _taken(candidates, task, spec, forecaster.config.kind)
    metrics = {"chosen": taken.name, "candidates": [each.to_dict() for each in candidates], **facts}
    control = full.control
    if control is not None:
        if spec.method == "qat" and forecaster.control is not None:
            beside = checkpoint.with_name(f"control-{checkpoint.name}") if checkpoint else None
            control = export(train_rounded(forecaster.control, task, spec, checkpoint=beside, **how)[0], task)
        alike = control if taken.spec is None else Forms(control, task).deployed(taken.spec)
        control = _with_step(alike, task, spec, {"chosen": taken.name})
    assert taken.model is not None  # what cannot be made is refused
    return replace(_with_step(taken.model, task, spec, metrics, teacher), control=control)


def candidate_table(model: Deployed) -> str:
    """The forms that `quantize` measured before it made a deployed forecaster; empty when it was exported as it is."""
    step = next((each for each in reversed(model.lineage) if each.verb == "quantize"), None)
    rows = step.metrics.get("candidates") if step is not None else None
    # Of a version before these numbers were kept.
    if step is None or not rows or "increase" not in rows[0]:
        return ""
    return table(rows, step.metrics["chosen"])


def _tried(name: str, spec: Quantization, forms: Forms, judge: Judge, *, loud: bool) -> list[Candidate]:
    """A form, refused when it cannot be made or is not accurate enough, and then a mixed one if that is.

    `loud` lets errors through, and leaves it at what was asked for.
    """
    found = Candidate(name, spec)
    try:
        found.model = forms.deployed(spec)
    except UnsupportedError as error:
        if loud:
            raise
        found.refused.append(str(error))
        return [found]
    full = judge.errors(judge.full)
    found.numbers, found.told = judge.errors(found.model), forms.told(spec)
    found.refused += accuracy_refusals(found.numbers, full, spec)
    if loud or not found.refused or spec.method == "weight-only":
        return [found]
    less = mixed(forms, judge, spec)
    if less is None:
        return [found]
    model = forms.deployed(less)
    rest = Candidate(f"{name}-mixed", less, model, judge.errors(model), told=forms.told(less))
    rest.refused += accuracy_refusals(rest.numbers, full, spec)
    return [found, rest]


def _taken(candidates: list[Candidate], task: Task, spec: Quantization, kind: str) -> Candidate:
    """The one to deploy; all others have a reason by then."""
    made = {each.name: each.model for each in candidates if each.model is not None}
    numbers = measure(made, task, spec)
    for each in candidates:
        each.numbers |= numbers.get(each.name, {})
    asked = candidates[-1]
    if spec.require_gain:
        refuse_what_does_not_pay(candidates, asked.spec if spec.method == "qat" and asked.spec else spec)
        if spec.method == "qat":
            refuse_vain_training(asked, candidates[-2])
    if spec.method != "auto":
        if asked.refused:
            raise UnsupportedError(
                f"INT8 does not pay for this {kind} forecaster: {'; '.join(asked.refused)}. Use method='auto' to get "
                "the best form for it, or take this one all the same with require_gain=False (bytes, latency) or a "
                "larger max_error_increase (accuracy)."
            )
        for each in candidates[:-1]:
            each.refused.append(f"method={spec.method!r} was asked for")
        return asked
    left, reason_of_alike = [each for each in candidates if not each.refused], ""
    if spec.require_gain:
        small = (1 + SAME_SIZE) * min(each.numbers["graph_bytes"] for each in left)
        alike = [each for each in left if each.numbers["graph_bytes"] <= small]
        taken = min(alike, key=lambda each: math.prod(each.numbers["latency_ms"].values()))
        reason = f"{taken.name} is smaller, and no slower than max_latency_increase allows"
        reason_of_alike = f"{taken.name} is faster, and as small but for {SAME_SIZE:.0%} at most"
    else:
        taken, alike = left[1] if len(left) > 1 else left[0], []
        reason = f"{taken.name} keeps to the budget, and require_gain=False asks for no more"
    for each in left:
        if each is not taken:
            each.refused.append(reason_of_alike if each in alike else reason)
    return taken


def _with_step(
    model: Deployed, task: Task, spec: Quantization, metrics: dict[str, Any], teacher: Teacher | None = None
) -> Deployed:
    step = LineageStep(
        verb="quantize",
        spec={"quantization": spec.to_dict()} | ({} if teacher is None else teacher_info(teacher)),
        seed=spec.training.seed if spec.method == "qat" else None,
        data=task.fingerprint,
        metrics=metrics,
        versions={**versions(), **package_versions("onnx", "onnxruntime", "onnxscript")},
    )
    return replace(model, lineage=(*model.lineage, step))
