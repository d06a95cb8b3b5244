"""A trained forecaster becomes a deployed one, checked against torch."""

from __future__ import annotations

import copy

import numpy as np

from tsdistill.data.task import Task
from tsdistill.errors import UnsupportedError, check_type
from tsdistill.exporting.deployed import Deployed, refuse_deployed
from tsdistill.exporting.graph import graph_of, package_versions
from tsdistill.exporting.parity import (
    check_parity,
    check_resolution,
    parity_report,
    parity_windows,
    tolerance_of,
    units,
)
from tsdistill.models.base import Forecaster, levels_of
from tsdistill.models.finite import refuse_not_finite
from tsdistill.models.provenance import machine, versions
from tsdistill.runtime import Predictor
from tsdistill.spec import LineageStep

GOLDEN_WINDOWS = 8
GOLDEN_BYTES = 256 * 1024
"""Golden windows travel with the model, so there are few of them: at most eight, and fewer of large ones."""


def export(forecaster: Forecaster, task: Task | None = None) -> Deployed:
    """Turn a trained forecaster into an ONNX graph that takes and gives raw units, and check it against torch.

    The scaler stands inside the graph, before and after the model: forecast = model((context - mean) / scale) *
    scale + mean. Input `context` (batch, context, channel), output `forecast` (batch, horizon, channel), both
    float32, of any batch size; covariates are further inputs, `future` and `past`, and the quantiles of a quantile
    head a further output, `quantiles` (batch, horizon, channel, quantile). Channels whose mean is
    more than four deviations from zero go in and come out less the signature's `offset`, which `predict` takes care of.
    Use it for serving in float32 and as the base of every INT8 form; `quantize` calls it by itself.

    The graph's forecasts are compared with torch's at batch sizes 1, 5 and 64, over validation windows spread through
    time, or over seeded synthetic windows when there is no task. They must agree to 1e-4 of a channel's standard
    deviation. The input is not changed; its `control`, if there is one, is exported alike.

    Args:
        forecaster: A trained forecaster.
        task: Where real windows are taken from; only its validation part is read.

    Returns:
        A deployed forecaster in fp32.

    Raises:
        ArtifactError: The graph's forecasts differ from torch's, or a channel is too coarse in float32.
        OrderError: `forecaster` is deployed already.
        ShapeError: The task's steps or channels are not the forecaster's.
        UnsupportedError: `forecaster` is a foreign teacher or a module of your own; or the model uses an operator that
            ONNX does not have.

    Example:
        >>> from tsdistill.data.task import Signature
        >>> from tsdistill.models import LinearConfig
        >>> signature = Signature(context=29, horizon=7, channels=("load",), mean=(50.0,), scale=(3.0,), frequency="h")
        >>> deployed = export(LinearConfig().build(signature))
        >>> deployed.precision, deployed.predict(np.full((5, 29, 1), 50.0)).shape
        ('fp32', (5, 7, 1))
    """
    refuse_deployed(forecaster, "export")
    refuse_foreign(forecaster)
    refuse_not_finite(forecaster, "export")
    check_type("task", task, Task, "Pass td.Task(panel, context=..., horizon=...)", optional=True)
    model = copy.deepcopy(forecaster).cpu().eval()
    signature = forecaster.signature.served
    inputs, source = parity_windows(signature, task)
    step = LineageStep(
        verb="export",
        data=task.fingerprint if task is not None else None,
        versions={**versions(), **package_versions("onnx", "onnxruntime", "onnxscript")},
        machine=machine(),
    )
    unit = units(signature, inputs["context"])
    check_resolution(signature, unit, inputs["context"])
    graph = graph_of(model)
    predictor = Predictor(graph, signature, levels=levels_of(forecaster.config))
    parity = parity_report(predictor.outputs, model.outputs, inputs, unit, signature.channels)
    parity |= {"against": "torch", "windows": source, "unit": unit.tolist()}
    parity["tolerance"] = tolerance_of(parity)
    check_parity(parity, forecaster)
    golden = _golden(inputs, forecaster)
    return Deployed(
        onnx=graph,
        config=forecaster.config,
        signature=signature,
        precision="fp32",
        lineage=(*forecaster.lineage, step),
        n_parameters=forecaster.n_parameters,
        golden={**golden, **predictor.outputs(**golden)},
        parity=parity,
        control=export(forecaster.control, task) if forecaster.control is not None else None,
    )


def refuse_foreign(model: object) -> None:
    """UnsupportedError for anything but a forecaster of tsdistill: its scaling, channels and steps are unknown."""
    if not isinstance(model, Forecaster):
        raise UnsupportedError(
            f"`forecaster` must be a trained forecaster of tsdistill, got a {type(model).__name__}. Distil a teacher "
            "into one first, td.distill(teacher, config, task); td.wrap(module, task) makes a teacher of a module."
        )


def _golden(inputs: dict[str, np.ndarray], forecaster: Forecaster) -> dict[str, np.ndarray]:
    """A few of the windows, spread over them; their forecasts count towards the size."""
    n_windows = len(inputs["context"])
    signature = forecaster.signature
    n_outputs = signature.horizon * len(signature.channels) * (1 + len(levels_of(forecaster.config)))
    bytes_per_window = sum(values[0].nbytes for values in inputs.values()) + 4 * n_outputs
    n_golden = int(np.clip(GOLDEN_BYTES // bytes_per_window, 1, GOLDEN_WINDOWS))
    step = max(n_windows // n_golden, 1)
    return {name: np.ascontiguousarray(values[::step][:n_golden]) for name, values in inputs.items()}
