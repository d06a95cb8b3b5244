"""Every architecture in every form it can be deployed in; `python -m tests.matrix` prints the table of the guide.

A cell is a deployed forecaster, or the reason why there can be none.
"""

from __future__ import annotations

import functools
import string
import sys
from unittest import mock

import torch

import tsdistill as td
from tests import deployables
from tsdistill.models import MODELS
from tsdistill.models.base import Forecaster, ModelConfig
from tsdistill.quantization import QAT, Auto, choice

ARCHITECTURES: dict[str, ModelConfig] = {
    "patchtst": td.PatchTSTConfig(depth=2, width=6, heads=2, patch=7, stride=5),
    "inverted-transformer": td.models.InvertedTransformerConfig(depth=1, width=6, heads=2),
    "lstm": td.LSTMConfig(widths=(5, 3), patch=7),
    "gru": td.models.GRUConfig(widths=(5, 3), patch=7),
    "tcn": td.TCNConfig(width=7, depth=2, patch=5),
    "mlp": td.MLPConfig(width=5, depth=1),
    "tsmixer": td.models.TSMixerConfig(depth=1),
    "dlinear": td.models.DLinearConfig(kernel=5),
    "sparse-tsf": td.models.SparseTSFConfig(period=24),
    "timebase": td.models.TimeBaseConfig(period=5, basis=3),
    "cyclenet": td.models.CycleNetConfig(),
    "linear": td.LinearConfig(),
    "averaged-linear": td.models.AveragedLinearConfig(),
    "multi-resolution": td.models.MultiResolutionConfig(resolutions=(1, 3), borders=(7,), rank=3),
    "seasonal-naive": td.models.SeasonalNaiveConfig(period=24),
}
QUICK = td.Training(max_steps=3, batch_size=16, precision="float32")
"""Enough to see that trained weights arrive in what is deployed."""

FORMS: dict[str, td.Quantization | None] = {
    "fp32": None,
    **{
        name: form.replace(require_gain=False, max_error_increase=9.0)
        for name, form in {**Auto().variants(), "qat": QAT(training=QUICK)}.items()
    },
}
REASONS = {
    "convolutions": "convolutions: dynamic INT8 of them is slower than float32; use `static`",
    "LSTM layers": "LSTM layers: ONNX Runtime cannot run them on calibrated ranges; use `dynamic`",
    "closed form": "solved in closed form, not trained by steps; use `dynamic`",
    "nothing to quantize": "no layer with weights to quantize; use `td.export`",
    "no units, heads or widths to prune": "no units that could be pruned",
    "GRU layers": "GRU layers: ONNX Runtime has no integer products for them; use `weight-only`, or `qat` with 4 bits",
}
"""Words of an `UnsupportedError`, and what the table says of it."""


@functools.cache
def task_of(kind: str, standardized: bool = False) -> td.Task:
    """Hourly rows of three channels; standardized before they come in, a task scales nothing."""
    rows = deployables.hourly()
    if standardized:
        rows = (rows - rows.mean()) / rows.std()
    return td.Task(
        td.Panel.from_frame(rows.reset_index(), time="ds"),
        context=deployables.CONTEXT,
        horizon=deployables.HORIZON,
        covariates=td.Covariates(calendar=("time-of-day",)) if kind == "cyclenet" else None,
        scaler=None if standardized else "standard",
    )


@functools.cache
def forecaster(kind: str, pruned: bool = False, standardized: bool = False) -> Forecaster:
    """Untrained, with every weight off its initial zero; pruned without recovery."""
    if pruned:
        spec = td.Pruning(ratio=0.4, recovery=None)
        return td.prune(forecaster(kind), task_of(kind), spec, progress=False)
    model = ARCHITECTURES[kind].build(task_of(kind, standardized).signature, 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@functools.cache
def exported(kind: str, pruned: bool = False) -> td.Deployed:
    return td.export(forecaster(kind, pruned), task_of(kind))


def deployed(kind: str, form: str, pruned: bool = False) -> td.Deployed:
    """One cell; exported once for all forms, and again what is trained for its form.

    Raises:
        UnsupportedError: There is no such cell.
    """
    model, full, spec = forecaster(kind, pruned), exported(kind, pruned), FORMS[form]
    if spec is None:
        return full

    def known(source: Forecaster, task: td.Task) -> td.Deployed:
        return full if source is model else td.export(source, task)

    with mock.patch.object(choice, "export", known):
        return td.quantize(model, task_of(kind), spec, progress=False)


def row(kind: str) -> list[str]:
    """What the table says of an architecture: forms, then pruned, then pruned and in INT8."""

    def cell(form: str, pruned: bool = False) -> str:
        try:
            deployed(kind, form, pruned)
        except td.errors.UnsupportedError as error:
            return next(mark(words) for words in REASONS if words in str(error))
        return "yes"

    cells = [cell(form) for form in FORMS]
    # Pruned forecasters are of the same classes: one INT8 form stands for all, the first there is.
    made = [form for form, text in zip(FORMS, cells, strict=True) if text == "yes" and FORMS[form] is not None]
    return [kind, *cells, cell("fp32", True), cell(made[0] if made else "static", True)]


def mark(words: str) -> str:
    """The letter of a reason below the table."""
    return f"no ({string.ascii_lowercase[list(REASONS).index(words)]})"


def table(rows: list[list[str]]) -> str:
    """Markdown, with the reasons below."""
    header = ["architecture", *FORMS, "pruned", "pruned + INT8"]
    lines = [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]
    notes = [f"- ({string.ascii_lowercase[place]}) {text}" for place, text in enumerate(REASONS.values())]
    return "\n".join([*lines, "", *notes])


if __name__ == "__main__":
    assert set(ARCHITECTURES) == set(MODELS.kinds)
    print(table([row(kind) for kind in sys.argv[1:] or ARCHITECTURES]))
