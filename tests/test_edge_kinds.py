"""What becomes C: kinds of forecasters, heads, forms and inputs, each judged by its own self-test under sanitizers."""

from __future__ import annotations

import subprocess
from importlib import resources
from pathlib import Path

import pytest
import torch

import tsdistill as td
from tests.test_edge import SANITIZED, STRICT, needs_compiler
from tsdistill.edge import export_c
from tsdistill.errors import UnsupportedError
from tsdistill.exporting import Deployed, export
from tsdistill.models import (
    AveragedLinearConfig,
    BinnedHead,
    CycleNetConfig,
    InvertedTransformerConfig,
    ModelConfig,
    MultiResolutionConfig,
    QuantileHead,
)
from tsdistill.testing import toy_frame

CLOCK = td.Covariates(calendar=("time-of-day",))
LEVELS = QuantileHead(levels=(0.1, 0.5, 0.9))
KINDS: dict[str, ModelConfig] = {
    "quantiles": td.MLPConfig(width=5, depth=1, head=LEVELS),
    "quantiles far from zero": td.MLPConfig(width=5, depth=1, head=LEVELS),
    "quantiles of an LSTM": td.LSTMConfig(widths=(5,), patch=7, head=LEVELS),
    "bins": td.MLPConfig(width=5, depth=1, head=BinnedHead()),
    "an MLP with a clock": td.MLPConfig(width=5, depth=1),
    "a ridge with a clock": td.LinearConfig(),
    "a map per channel": td.LinearConfig(individual=True),
    "means of many steps": MultiResolutionConfig(rank=3),
    "the mean of ridges": AveragedLinearConfig(),
    "patches": td.PatchTSTConfig(depth=1, width=8, heads=2, patch=11, stride=11),
    "convolutions": td.models.TCNConfig(),
    "a GRU": td.models.GRUConfig(widths=(5,), patch=7),
    "channels as tokens": InvertedTransformerConfig(depth=1, width=8, heads=2),
}
FORMS = {
    "fp32": None,
    "dynamic": td.Quantization(method="dynamic"),
    "dynamic with outliers": td.Quantization(method="dynamic", outliers=4),
    "weights of 8 bits": td.Quantization(method="weight-only"),
    "weights of 4 bits": td.Quantization(method="weight-only", weight_bits=4, outliers=1),
}
FREE = {"require_gain": False, "max_error_increase": 1e9, "max_batch_effect": 1e9}
PAIRS = [("quantiles", "fp32"), ("means of many steps", "dynamic"), ("a map per channel", "dynamic with outliers")]
HEADS = ("quantiles", "quantiles far from zero", "quantiles of an LSTM", "bins")
MORE = [(kind, form) for kind in KINDS for form in FORMS if (kind, form) not in PAIRS and kind not in HEADS]
MORE = [(kind, form) for kind, form in MORE if kind not in ("convolutions", "a GRU") or "dynamic" not in form]
MORE += [(kind, "fp32") for kind in HEADS[1:]]


def task_of(kind: str) -> td.Task:
    frame = toy_frame()
    frame["load"] += 1e7 if "far" in kind else 0.0
    covariates = CLOCK if "clock" in kind else None
    return td.Task(td.Panel.from_frame(frame), context=47, horizon=11, covariates=covariates)


def deployed(kind: str, form: str) -> Deployed:
    """A model of a kind whose weights are not those of a new one, in a form."""
    task, config = task_of(kind), KINDS[kind]
    if config.forecaster.closed_form:
        model = td.train(config, task)
    else:
        model = config.build(task.signature).eval()
        draw = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn(weight.shape, generator=draw), alpha=0.05)
    spec = FORMS[form]
    return export(model, task) if spec is None else td.quantize(model, task, spec.replace(**FREE))


def self_test(model: Deployed, folder: Path) -> int:
    files = export_c(model, folder)
    (folder / "main.c").write_text(
        '#include "forecast.h"\nstatic forecast_state state;\nint main(void) { return forecast_selftest(&state); }\n'
    )
    sources = [str(files.source), str(folder / "main.c")]
    subprocess.run(
        ["gcc", *STRICT, *SANITIZED, "-o", str(folder / "p"), *sources, "-lm"], check=True, timeout=120, cwd=folder
    )
    return subprocess.run([str(folder / "p")], timeout=60).returncode


@needs_compiler
@pytest.mark.parametrize(("kind", "form"), PAIRS)
def test_c_forecasts_its_golden_windows(kind: str, form: str, tmp_path: Path) -> None:
    assert self_test(deployed(kind, form), tmp_path) == 0


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(("kind", "form"), MORE)
def test_every_kind_forecasts_its_golden_windows_in_every_form(kind: str, form: str, tmp_path: Path) -> None:
    assert self_test(deployed(kind, form), tmp_path) == 0


@needs_compiler
def test_a_self_test_can_fail(tmp_path: Path) -> None:
    model = deployed("quantiles", "fp32")
    files = export_c(model, tmp_path)
    code = files.source.read_text()
    assert code.count("golden_quantiles[window][i]") == 1
    files.source.write_text(code.replace("- golden_quantiles[window][i]", "- golden_quantiles[window][i] - 1e3f"))
    (tmp_path / "main.c").write_text(
        '#include "forecast.h"\nstatic forecast_state state;\nint main(void) { return forecast_selftest(&state); }\n'
    )
    program = str(tmp_path / "p")
    subprocess.run(
        ["gcc", *STRICT, "-o", program, str(files.source), str(tmp_path / "main.c"), "-lm"], check=True, timeout=120
    )
    assert subprocess.run([program], timeout=60).returncode == 3


@needs_compiler
def test_gates_are_as_exact_as_is_said(tmp_path: Path) -> None:
    kernel = (resources.files("tsdistill.edge") / "kernels" / "gates.c").read_text(encoding="utf-8")
    (tmp_path / "main.c").write_text(
        "#include <math.h>\n"
        + kernel
        + """
int main(void) {
    for (double x = -20; x <= 20; x += 1e-4) {
        const float f = (float)x;
        if (fabs(gate_tanh(f) - tanh(f)) > 5e-7 || fabs(gate_sigmoid(f) - 1 / (1 + exp(-(double)f))) > 5e-7) {
            return 1;
        }
    }
    return 0;
}
"""
    )
    subprocess.run(["gcc", "-O1", "-o", tmp_path / "p", tmp_path / "main.c", "-lm"], check=True, timeout=60)
    assert subprocess.run([tmp_path / "p"], timeout=60).returncode == 0


def test_a_clock_that_looks_its_place_up_has_no_form_yet(tmp_path: Path) -> None:
    task = task_of("a clock")
    model = export(CycleNetConfig(clock="time-of-day").build(task.signature), task)
    with pytest.raises(UnsupportedError, match="got ArgMax, GatherND"):
        export_c(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
