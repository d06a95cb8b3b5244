"""Which form of a forecaster is deployed: INT8 is measured against float32 and has to pay."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from tsdistill.data.task import Task
from tsdistill.errors import ConfigError, UnsupportedError, check_type, must, optional_path
from tsdistill.exporting import Deployed, export, package_versions, refuse_deployed, refuse_foreign
from tsdistill.models.base import Forecaster
from tsdistill.models.finite import refuse_not_finite
from tsdistill.models.provenance import machine, versions
from tsdistill.quantization.base import FULL, MIXED, OUTLIERS, QUANTIZATIONS, Quantization
from tsdistill.quantization.forms import Forms
from tsdistill.quantization.judging import (
    Candidate,
    Judge,
    accuracy_refusals,
    measure,
    refuse_vain_training,
    refuse_what_does_not_pay,
    table,
)
from tsdistill.quantization.sensitivities import fewest_outliers, mixed
from tsdistill.spec import LineageStep
from tsdistill.teachers import Teacher, adapt, teacher_info

SAME_SIZE = 0.02
"""Part by which bytes may differ and still be as good: of such forms the fastest is selected."""


def quantize(
    forecaster: Forecaster,
    task: Task,
    quantization: Quantization | None = None,
    *,
    teacher: Teacher | None = None,
    cache: str | Path | None = None,
    checkpoint: str | Path | None = None,
    progress: bool | None = None,
    timed: bool = True,
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
        timed: Take the time of every form, also with `require_gain=False`, where nothing goes by it.

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
    refuse_not_finite(forecaster, "quantize")
    spec = Quantization() if quantization is None else quantization
    check_type("quantization", spec, Quantization, "Pass td.Quantization(method=...)")
    check_type("task", task, Task, "Pass td.Task(panel, context=..., horizon=...)")
    if teacher is not None and not spec.needs_teacher:
        remedy = "Leave it out, or quantize with method='qat', which trains"
        raise ConfigError(must("teacher", f"be None with method={spec.method!r}", type(teacher).__name__, remedy))
    teacher = None if teacher is None else adapt(teacher, task)
    cache = optional_path("cache", cache)
    checkpoint = optional_path("checkpoint", checkpoint)
    spec.check_model(forecaster)
    full = export(forecaster, task)
    forms = Forms(full, task)
    judge = Judge(full, task)
    candidates = [Candidate(FULL, model=full, numbers=judge.errors(full))]
    options: dict[str, Any] = {"cache": cache, "progress": progress}
    facts: dict[str, Any] = {}
    for name, form in spec.variants(forecaster).items():
        # Without the clock the first form that keeps to the budget is selected, and the others need not be made.
        if spec.chooses and not spec.require_gain and any(not candidate.refused for candidate in candidates[1:]):
            break
        candidates.extend(_tried(name, form, forms, judge, asked=spec))
    if spec.needs_teacher:
        trained, facts["training"] = spec.trained(forecaster, task, teacher=teacher, checkpoint=checkpoint, **options)
        trained_forms = Forms(export(trained, task), task)
        form = spec.deployed_form(forecaster)
        candidates.extend(_tried(spec.method, form, trained_forms, judge, asked=spec))
    selected = _selected(candidates, task, spec, forecaster.config.kind, timed=timed)
    metrics = {"chosen": selected.name, "candidates": [candidate.to_dict() for candidate in candidates], **facts}
    control = full.control
    if control is not None:
        if spec.needs_teacher and forecaster.control is not None:
            beside = checkpoint.with_name(f"control-{checkpoint.name}") if checkpoint else None
            control = export(spec.trained(forecaster.control, task, checkpoint=beside, **options)[0], task)
        alike = control if selected.spec is None else Forms(control, task).deployed(selected.spec)
        control = _with_step(alike, task, spec, {"chosen": selected.name})
    assert selected.model is not None  # what cannot be made is refused
    return replace(_with_step(selected.model, task, spec, metrics, teacher), control=control)


def replay(model: Deployed) -> Quantization:
    """The spec that makes a deployed forecaster's form again, on any machine, without asking the clock.

    `quantize(method="auto")` chooses by time on the machine at hand; what it chose stands in the lineage, with the
    table of all forms. Use this to make the same artifact of the same forecaster elsewhere, or to keep a form for the
    models of the nights to come: `recipe.replace(quantization=replay(deployed))`.

    Raises:
        ConfigError: `model` was not made by `quantize`.

    Example:
        >>> from tsdistill.models import MLPConfig
        >>> from tsdistill.testing import toy_task
        >>> task = toy_task()
        >>> student = MLPConfig(width=32).build(task.signature)
        >>> chosen = quantize(student, task, Quantization(method="auto", require_gain=False))
        >>> replay(chosen).forms
        ('dynamic',)
        >>> quantize(student, task, replay(chosen)).onnx == chosen.onnx
        True
    """
    check_type("model", model, Deployed, "Pass what td.quantize gave")
    step = next((step for step in reversed(model.lineage) if step.verb == "quantize"), None)
    if step is None:
        raise ConfigError("`model` must have been made by td.quantize, got one that was exported as it is.")
    spec = QUANTIZATIONS.read(step.spec["quantization"])
    return spec.replace(forms=(step.metrics["chosen"],)) if spec.chooses else spec.replace(require_gain=False)


def candidate_table(model: Deployed) -> str:
    """The forms that `quantize` measured before it made a deployed forecaster; empty when it was exported as it is."""
    step = next((step for step in reversed(model.lineage) if step.verb == "quantize"), None)
    rows = step.metrics.get("candidates") if step is not None else None
    # Of a version before these numbers were kept.
    if step is None or not rows or "increase" not in rows[0]:
        return ""
    return table(rows, step.metrics["chosen"])


def _tried(name: str, spec: Quantization, forms: Forms, judge: Judge, *, asked: Quantization) -> list[Candidate]:
    """A form, refused when it cannot be made or is not accurate enough, and then those that leave some of it in float.

    What was asked for by its name lets errors through.
    """
    whole = Candidate(name, spec)
    try:
        whole.model = forms.deployed(spec)
    except UnsupportedError as error:
        if not asked.chooses:
            raise
        whole.refused.append(str(error))
        return [whole]
    full = judge.errors(judge.full)
    whole.numbers = judge.errors(whole.model)
    whole.details = spec.details(forms)
    whole.refused += accuracy_refusals(whole.numbers, full, spec)
    tried = [whole]
    if not asked.chooses or not whole.refused:
        return tried
    if "isolate" in type(spec).model_fields and accuracy_refusals({**whole.numbers, "batch_effect": 0.0}, full, spec):
        # Rounding alone is too much, and what is in float does not keep windows apart.
        spec = spec.replace(isolate=spec.is_isolated or whole.numbers.get("batch_effect", 0.0) > spec.max_batch_effect)
    for suffix, partly in ((OUTLIERS, fewest_outliers), (MIXED, mixed)):
        partial = partly(forms, judge, spec) if asked.may_try(f"{name}{suffix}") else None
        if partial is not None:
            model = forms.deployed(partial)
            candidate = Candidate(
                f"{name}{suffix}", partial, model, judge.errors(model), details=partial.details(forms)
            )
            candidate.refused += accuracy_refusals(candidate.numbers, full, spec)
            tried.append(candidate)
    return tried


def _selected(
    candidates: list[Candidate], task: Task, spec: Quantization, kind: str, *, timed: bool = True
) -> Candidate:
    """The one to deploy; all others have a reason by then."""
    if spec.named_form is not None:
        return _named(candidates, spec.named_form, spec)
    made = {candidate.name: candidate.model for candidate in candidates if candidate.model is not None}
    if timed or spec.require_gain:
        numbers = measure(made, task, spec)
    else:
        numbers = {name: {"graph_bytes": len(model.onnx)} for name, model in made.items()}
    for candidate in candidates:
        candidate.numbers |= numbers.get(candidate.name, {})
    asked = candidates[-1]
    if spec.require_gain:
        refuse_what_does_not_pay(candidates, spec if spec.chooses or asked.spec is None else asked.spec)
        if spec.needs_teacher:
            refuse_vain_training(asked, candidates[-2])
    if not spec.chooses:
        if asked.refused:
            raise UnsupportedError(
                f"INT8 does not pay for this {kind} forecaster: {'; '.join(asked.refused)}. Use method='auto' to get "
                "the best form for it, or take this one all the same with require_gain=False (bytes, latency) or a "
                "larger max_error_increase (accuracy)."
            )
        for candidate in candidates[:-1]:
            candidate.refused.append(f"method={spec.method!r} was asked for")
        return asked
    return _best([candidate for candidate in candidates if not candidate.refused], spec)


def _named(candidates: list[Candidate], name: str, spec: Quantization) -> Candidate:
    """The form of a name, or the whole one of a mixed form that need not be mixed; no clock is asked."""
    full, *others = candidates
    for candidate in candidates:
        if candidate.model is not None:
            candidate.numbers["graph_bytes"] = len(candidate.model.onnx)
    for candidate in others:
        n_bytes, full_bytes = (item.numbers.get("graph_bytes", 0) for item in (candidate, full))
        if spec.require_gain and not candidate.refused and n_bytes >= full_bytes:
            candidate.refused.append(f"it has {n_bytes:,} bytes against {full_bytes:,}")
    fitting = [candidate for candidate in others if not candidate.refused]
    selected = next((candidate for candidate in fitting if candidate.name == name), fitting[0] if fitting else full)
    for candidate in (full, *fitting):
        if candidate is not selected:
            candidate.refused.append(f"forms=({name!r},) was asked for")
    return selected


def _best(left: list[Candidate], spec: Quantization) -> Candidate:
    """The one of those not refused that is deployed; the others get their reason."""
    alike: list[Candidate] = []
    if spec.require_gain:
        small = (1 + SAME_SIZE) * min(candidate.numbers["graph_bytes"] for candidate in left)
        alike = [candidate for candidate in left if candidate.numbers["graph_bytes"] <= small]
        best = min(alike, key=lambda candidate: math.prod(candidate.numbers["latency_ms"].values()))
        reason = f"{best.name} is smaller, and no slower than max_latency_increase allows"
    else:
        best = left[1] if len(left) > 1 else left[0]
        reason = f"{best.name} keeps to the budget, and require_gain=False asks for no more"
    reason_of_alike = f"{best.name} is faster, and as small but for {SAME_SIZE:.0%} at most"
    for candidate in left:
        if candidate is not best:
            candidate.refused.append(reason_of_alike if candidate in alike else reason)
    return best


def _with_step(
    model: Deployed, task: Task, spec: Quantization, metrics: dict[str, Any], teacher: Teacher | None = None
) -> Deployed:
    step = LineageStep(
        verb="quantize",
        spec={"quantization": spec.to_dict()} | ({} if teacher is None else teacher_info(teacher)),
        seed=spec.seed,
        data=task.fingerprint,
        metrics=metrics,
        versions={**versions(), **package_versions("onnx", "onnxruntime", "onnxscript")},
        machine=machine(),
    )
    return replace(model, lineage=(*model.lineage, step))
