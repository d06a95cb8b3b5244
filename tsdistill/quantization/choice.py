"""Which form of a forecaster is deployed: INT8 is measured against float32 and has to pay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from tsdistill.data.task import Task
from tsdistill.errors import ConfigError, UnsupportedError, must
from tsdistill.evaluation import evaluate, measure_latency
from tsdistill.exporting import Deployed, export, package_versions, parity_report, parity_windows, refuse_deployed
from tsdistill.models.base import Forecaster, versions
from tsdistill.quantization.spec import Quantization
from tsdistill.runtime import Predictor, difference
from tsdistill.spec import LineageStep

REPLAY_TOLERANCE = 0.05
"""Golden INT8 forecasts may differ between machines by this many standard deviations, or by twice what INT8 itself
moves a forecast where that is more: processors without VNNI instructions round and saturate in other places."""


def quantize(forecaster: Forecaster, task: Task, quantization: Quantization | None = None) -> Deployed:
    """Deploy a forecaster in INT8 where that pays, and refuse with numbers where it does not.

    The forecaster is exported in float32, its LSTM and linear layers (attention projections and heads included) become
    8-bit integer products, and both forms are measured through the runtime that serves them: MSE on the validation
    part, bytes of the graph, and median latency of one window on one thread, taking turns. The table of candidates is
    kept in the lineage. Use it as the last step of every recipe; the test part is never read. A `control` is deployed
    in the form that was chosen for the forecaster.

    Args:
        forecaster: A trained forecaster; left as it was.
        task: Its task; the validation part is read.
        quantization: Method and budget; defaults to `Quantization()`.

    Returns:
        A deployed forecaster, "int8", or "fp32" if the method is "auto" and INT8 was refused.

    Raises:
        UnsupportedError: The method is "dynamic" and INT8 does not pay or has nothing to quantize; the message has the
            numbers.
        ArtifactError: The exported graph does not agree with torch, or a layer stayed in float.
        OrderError: `forecaster` is deployed already.
        ConfigError: `quantization` is no spec.
        ShapeError: The task is not the forecaster's.

    Example:
        >>> from tsdistill.models import MLPConfig
        >>> from tsdistill.testing import toy_task
        >>> task = toy_task()
        >>> student = MLPConfig(width=32).build(task.signature)
        >>> quantize(student, task, Quantization(require_gain=False)).precision
        'int8'
    """
    refuse_deployed(forecaster, "quantize")
    spec = Quantization() if quantization is None else quantization
    if not isinstance(spec, Quantization):
        raise ConfigError(must("quantization", "be a Quantization", spec, "Pass td.Quantization(method=...)"))
    full = export(forecaster, task)
    candidates = {"fp32": full}
    try:
        candidates["int8"] = _dynamic(full, task, spec)
        table = _measured(candidates, task)
        refusals = _refusals(table["fp32"], table["int8"], spec)
    except UnsupportedError as error:
        if spec.method != "auto":
            raise
        table, refusals = _measured(candidates, task), [str(error)]
    if refusals and spec.method != "auto":
        raise UnsupportedError(
            f"INT8 does not pay for this {forecaster.config.kind} forecaster: {'; '.join(refusals)}. Use method='auto' "
            "to get float32 where that is better, or take INT8 all the same with require_gain=False (bytes, latency) "
            "or a larger max_error_increase (accuracy)."
        )
    chosen = "fp32" if refusals else "int8"
    metrics = {
        "chosen": chosen,
        "refused": refusals,
        "candidates": [{"name": name, **numbers} for name, numbers in table.items()],
    }
    control = full.control
    if control is not None:
        control = _with_step(control if refusals else _dynamic(control, task, spec), task, spec, {"chosen": chosen})
    return replace(_with_step(candidates[chosen], task, spec, metrics), control=control)


def _dynamic(full: Deployed, task: Task, spec: Quantization) -> Deployed:
    """The dynamic INT8 form of an fp32 one, compared with it on the same windows."""
    from tsdistill.quantization.dynamic import dynamic_graph

    graph = dynamic_graph(full.onnx, per_channel=spec.per_channel, weight_bits=spec.weight_bits)
    levels = full.predictor.levels
    predictor = Predictor(graph, full.signature, precision="int8", isolate=spec.isolate, levels=levels)
    inputs, source = parity_windows(full.signature, task)
    unit, channels = np.asarray(full.parity["unit"]), full.signature.channels
    parity = parity_report(predictor.outputs, full.predictor.outputs, inputs, unit, channels)
    alone = Predictor(graph, full.signature, precision="int8", isolate=True, levels=levels)
    mates, _ = difference(predictor.run(**inputs), alone.run(**inputs), unit, channels)
    golden = {name: values for name, values in full.golden.items() if name != "forecast"}
    return replace(
        full,
        onnx=graph,
        precision="int8",
        isolate=spec.isolate,
        golden={**golden, "forecast": predictor.run(**golden)},
        parity={
            **parity,
            "against": "fp32",
            "windows": source,
            # How far a forecast moves when 63 other windows share its batch.
            "batch_mates": mates,
            "tolerance": max(REPLAY_TOLERANCE, 2 * parity["max_difference"]),
            "unit": unit.tolist(),
        },
        control=None,
    )


def _measured(candidates: dict[str, Deployed], task: Task) -> dict[str, dict[str, Any]]:
    """Validation error, bytes of the graph and latency of every candidate, measured side by side."""
    inputs, _ = parity_windows(next(iter(candidates.values())).signature, task)
    window = {name: values[:1] for name, values in inputs.items()}

    def call(model: Deployed) -> Callable[[], object]:
        return lambda: model.predict(window["context"], window.get("future"), window.get("past"))

    latency = measure_latency({name: call(model) for name, model in candidates.items()}, n_runs=100)
    return {
        name: {
            "mse": evaluate(model, task, split="validation")["mse"],
            "graph_bytes": len(model.onnx),
            "latency_ms": latency[name].p50_ms,
            "difference": model.parity["max_difference"],
        }
        for name, model in candidates.items()
    }


def _refusals(full: dict[str, Any], int8: dict[str, Any], spec: Quantization) -> list[str]:
    """Why INT8 is not taken; empty when it is."""
    reasons = []
    increase = int8["mse"] / full["mse"] - 1 if full["mse"] > 0 else float(int8["mse"] > 0)
    if not increase <= spec.max_error_increase:
        reasons.append(
            f"its validation MSE is {int8['mse']:.4g} against {full['mse']:.4g} in float32, {increase:+.1%} where "
            f"max_error_increase allows {spec.max_error_increase:+.1%}"
        )
    if spec.require_gain and int8["graph_bytes"] >= full["graph_bytes"]:
        reasons.append(f"it has {int8['graph_bytes']:,} bytes against {full['graph_bytes']:,}")
    if spec.require_gain and int8["latency_ms"] > full["latency_ms"] * (1 + spec.max_latency_increase):
        reasons.append(
            f"one window takes {int8['latency_ms']:.3f} ms against {full['latency_ms']:.3f} ms, more than "
            f"max_latency_increase allows ({spec.max_latency_increase:+.0%})"
        )
    return reasons


def _with_step(model: Deployed, task: Task, spec: Quantization, metrics: dict[str, Any]) -> Deployed:
    step = LineageStep(
        verb="quantize",
        spec={"quantization": spec.to_dict()},
        data=task.fingerprint,
        metrics=metrics,
        versions={**versions(), **package_versions("onnx", "onnxruntime", "onnxscript")},
    )
    return replace(model, lineage=(*model.lineage, step))
