"""What cannot be deployed as it is says so in one error, and a student too small for INT8 stays in float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tsdistill as td
from tests.deployables import HORIZON, forecaster, hourly, task
from tsdistill.errors import UnsupportedError
from tsdistill.exporting import export
from tsdistill.models import Activations, Forecaster, LinearConfig, MLPConfig, ModelConfig, SparseTSFConfig
from tsdistill.models.mlp import MLP
from tsdistill.quantization import Auto, Quantization, quantize


class Repeat(nn.Module):
    """Somebody's own module: the newest steps again."""

    def forward(self, context: Tensor) -> Tensor:
        return context[:, -HORIZON:]


FOREIGN: dict[str, Callable[[], Any]] = {
    "TeacherEnsemble": lambda: td.teachers.TeacherEnsemble(
        [forecaster("linear"), forecaster("seasonal-naive")], task()
    ),
    "WrappedTeacher": lambda: td.wrap(Repeat(), task()),
    "Repeat": Repeat,
    "NoneType": lambda: None,
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_no_forecaster_is_to_be_distilled_first(name: str) -> None:
    model = FOREIGN[name]()
    words = rf"`forecaster` must be a trained forecaster of tsdistill, got a {name}\. Distil .* td\.distill\(.*td\.wrap"
    with pytest.raises(UnsupportedError, match=words):
        export(model)
    for method in ("dynamic", "auto", "qat"):
        for verb in (quantize, td.quantization_sensitivity):
            with pytest.raises(UnsupportedError, match=words):
                verb(model, task(), Quantization(method=method))
    with pytest.raises(UnsupportedError, match=words):
        td.prune(model, task())


def reading(change: Callable[[Tensor], Tensor]) -> Forecaster:
    """A forecaster that does something more to its forecast."""

    def activations(self: MLP, context: Tensor, *covariates: Tensor | None, **options: Any) -> Activations:
        inside = MLP.activations(self, context, *covariates, **options)
        return replace(inside, forecast=change(inside.forecast))

    made: Forecaster = type("Odd", (MLP,), {"activations": activations})(MLPConfig(width=5, depth=1), task().signature)
    return made


def turned_round(forecast: Tensor) -> Tensor:
    return -forecast if forecast.sum() > 0 else forecast


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda y: y - y.median(dim=1, keepdim=True).values, r"operators that ONNX has, got aten\.median\. Replace it"),
        (turned_round, r"a Odd must be the same steps for every input.*data-dependent expression.* Change it there"),
    ],
    ids=["an operator", "a branch"],
)
def test_what_no_graph_can_hold_is_named(change: Callable[[Tensor], Tensor], words: str) -> None:
    with pytest.raises(UnsupportedError, match=words) as caught:
        export(reading(change), task())
    # One line for people: torch's own is full of control codes and tells whom to write.
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()


SMALL: dict[str, tuple[ModelConfig, int, int]] = {
    "linear, 77 weights": (LinearConfig(), 11, 7),
    "sparse, 145 weights": (SparseTSFConfig(period=24), 720, 96),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_student_too_small_for_int8_stays_in_float32_for_its_bytes(name: str) -> None:
    config, context, horizon = SMALL[name]
    small = td.Task(td.Panel.from_frame(hourly(1499).reset_index(), time="ds"), context=context, horizon=horizon)
    model = config.build(small.signature).eval()
    assert f"{model.n_parameters} weights" in name
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    # A budget that no form misses: nothing but bytes and the clock has a say.
    deployed = quantize(model, small, Quantization(method="auto", max_error_increase=9.0))
    metrics = deployed.lineage[-1].metrics
    rows = {row["name"]: row for row in metrics["candidates"]}
    full, n_bytes = rows.pop("fp32"), len(deployed.onnx)
    assert (deployed.precision, metrics["chosen"], full["refused"]) == ("fp32", "fp32", [])
    assert full["graph_bytes"] == n_bytes
    assert set(rows) == set(Auto().variants())
    made = {form: row for form, row in rows.items() if "graph_bytes" in row}
    assert set(rows) - set(made) == ({"dynamic"} if config.kind == "sparse-tsf" else set())  # it has a convolution
    for form, row in made.items():
        assert row["graph_bytes"] > n_bytes, form
        assert row["refused"][0] == f"it has {row['graph_bytes']:,} bytes against {n_bytes:,}"
