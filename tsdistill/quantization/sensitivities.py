"""What quantizing one layer alone costs, and which layers or inputs to leave in float for a budget."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from tsdistill.data.task import Task
from tsdistill.errors import UnsupportedError, check_type, printable
from tsdistill.exporting import export, refuse_deployed, refuse_foreign
from tsdistill.models.base import Forecaster
from tsdistill.models.finite import refuse_not_finite
from tsdistill.quantization.base import WORST, Quantization
from tsdistill.quantization.forms import Forms
from tsdistill.quantization.judging import Judge, accuracy_refusals
from tsdistill.quantization.layers import Layer

if TYPE_CHECKING:
    import pandas as pd


TRIED = (4, 16, 64)
"""Inputs that "auto" leaves in float, fewest first: with more, few bytes would be saved."""


@dataclass(frozen=True)
class LayerSensitivity:
    """What quantizing one layer alone does.

    Args:
        layer: Its name, for `keep_float`.
        operator: "Conv", "GRU", "Gemm", "LSTM" or "MatMul".
        n_weights: Weights in it.
        increase: Share by which the validation MSE rises.
        worst_increase: The same of the single step or channel that suffers most.
        worst: Which that is.
        difference: Largest change of a forecast, in standard deviations.
    """

    layer: str
    operator: str
    n_weights: int
    increase: float
    worst_increase: float
    worst: str
    difference: float


@dataclass(frozen=True)
class QuantizationSensitivity:
    """Every layer of a forecaster with what quantizing it alone costs, the costliest first; it prints as a table.

    Args:
        method: How the layers were quantized.
        mse: Validation MSE in float32.
        layers: Costliest first.
    """

    method: str
    mse: float
    layers: tuple[LayerSensitivity, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        rows = [{item.name: getattr(layer, item.name) for item in fields(layer)} for layer in self.layers]
        return {"method": self.method, "mse": self.mse, "layers": rows}

    def to_frame(self) -> pd.DataFrame:
        """A row for every layer."""
        import pandas as pd

        return pd.DataFrame(self.to_dict()["layers"], columns=[item.name for item in fields(LayerSensitivity)])

    def __str__(self) -> str:
        names = [printable(row.layer) for row in self.layers]
        width = max(len("layer"), *map(len, names))
        lines = [f"{'layer':{width}}  operator   weights     MSE   worst"]
        for name, row in zip(names, self.layers, strict=True):
            lines.append(
                f"{name:{width}}  {row.operator:8} {row.n_weights:>9,} {row.increase:+7.2%} "
                f"{row.worst_increase:+7.2%} {printable(row.worst)}"
            )
        return "\n".join([*lines, f"validation MSE in float32: {self.mse:.4f}; {self.method}, one layer at a time"])


def quantization_sensitivity(
    forecaster: Forecaster, task: Task, quantization: Quantization | None = None
) -> QuantizationSensitivity:
    """Validation error of a forecaster of which only one layer at a time is quantized.

    increase = MSE(one layer in INT8) / MSE(float32) - 1. Use it to see which layers to name in `keep_float` when INT8
    costs more than it may; `quantize` with method "auto" does so by itself. The increases do not add up exactly.

    Args:
        forecaster: Left as it is.
        task: Validation windows judge, training windows calibrate.
        quantization: The method and its options; "auto" stands for "static" where there are convolutions and for
            "dynamic" elsewhere, "qat" for the form it deploys. Layers in `keep_float` and those that the method
            cannot do are left out.

    Returns:
        One record per layer, the costliest first.

    Raises:
        OrderError: The forecaster is deployed already.
        ConfigError: `quantization` is no spec, or names a layer that is none.
        ShapeError: The task is not the forecaster's.
        UnsupportedError: There is nothing to quantize, or `forecaster` is none.

    Example:
        >>> from tsdistill.models import MLPConfig
        >>> from tsdistill.testing import toy_task
        >>> task = toy_task()
        >>> sensitivity = quantization_sensitivity(MLPConfig(width=8, depth=1).build(task.signature), task)
        >>> sorted(row.layer for row in sensitivity.layers)
        ['blocks.0.contract', 'blocks.0.expand', 'embed', 'last', 'shortcut']
    """
    refuse_deployed(forecaster, "quantize")
    refuse_foreign(forecaster)
    refuse_not_finite(forecaster, "quantize")
    spec = Quantization() if quantization is None else quantization
    check_type("quantization", spec, Quantization, "Pass td.Quantization(method=...)")
    check_type("task", task, Task, "Pass td.Task(panel, context=..., horizon=...)")
    spec = spec.deployed_form(forecaster)
    full = export(forecaster, task)
    return measured(Forms(full, task), Judge(full, task), spec)


def measured(forms: Forms, judge: Judge, spec: Quantization) -> QuantizationSensitivity:
    """The same of a forecaster that is exported already."""
    operators = spec.ability.operators
    able = [layer for layer in forms.layers if layer.operator in operators and layer.name not in spec.keep_float]
    if not able:
        forms.deployed(spec)  # raises what is wrong with it
        raise UnsupportedError(
            f"`method` must fit the model, got method={spec.method!r}: there is nothing to quantize."
        )
    names = [layer.name for layer in forms.layers]

    def alone(layer: Layer) -> LayerSensitivity:
        others = tuple(name for name in names if name != layer.name)
        errors = judge.errors(forms.deployed(spec.replace(keep_float=others)))
        kept = {name: errors[name] for name in ("increase", "worst_increase", "worst", "difference")}
        return LayerSensitivity(layer.name, layer.operator, forms.n_weights[layer.name], **kept)

    rows = sorted((alone(layer) for layer in able), key=_cost, reverse=True)
    return QuantizationSensitivity(spec.method, judge.errors(forms.full)["mse"], tuple(rows))


def mixed(forms: Forms, judge: Judge, spec: Quantization) -> Quantization | None:
    """The same spec with as few layers in float as the budget needs, the costliest first; None when it needs all."""
    if not spec.mixes_layers:
        return None
    order = [row.layer for row in measured(forms, judge, spec).layers]
    full = judge.errors(forms.full)

    def fits(n_kept: int) -> bool:
        errors = judge.errors(forms.deployed(_keeping(spec, order[:n_kept])))
        return not accuracy_refusals(errors, full, spec)

    low = 1
    high = len(order)  # sure to do: it leaves nothing to round
    while low < high:
        middle = (low + high) // 2
        if fits(middle):
            high = middle
        else:
            low = middle + 1
    return _keeping(spec, order[:low]) if low < len(order) else None


def fewest_outliers(forms: Forms, judge: Judge, spec: Quantization) -> Quantization | None:
    """The same spec with as few inputs in float as the error budget needs; None where no number tried is enough."""
    if "outliers" not in type(spec).model_fields:
        return None
    full = judge.errors(forms.full)
    for n_inputs in TRIED:
        partial = spec.replace(outliers=n_inputs)
        try:
            errors = judge.errors(forms.deployed(partial))
        except UnsupportedError:
            return None
        if not accuracy_refusals(errors, full, spec):
            return partial
    return None


def _keeping(spec: Quantization, names: list[str]) -> Quantization:
    return spec.replace(keep_float=(*spec.keep_float, *names))


def _cost(row: LayerSensitivity) -> float:
    """The larger of what it costs on the whole and at its worst, on one scale."""
    cost = max(row.increase, row.worst_increase / WORST)
    return cost if cost == cost else float("inf")
