"""Every architecture as it is served: exported, loaded without torch, of any batch size, and equal to torch.

The signatures have mean 0 and scale 1, so that what is compared is the forecast before its final scaling: raw values
far from zero cannot be written down to 2e-6 of a deviation in float32, whoever forecasts them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from tsdistill.artifacts import save
from tsdistill.data.task import Signature, Task
from tsdistill.exporting import export, parity_windows
from tsdistill.models import (
    MODELS,
    BinnedHead,
    Forecaster,
    LSTMConfig,
    MLPConfig,
    ModelConfig,
    PatchTSTConfig,
    QuantileHead,
)
from tsdistill.pruning import Pruning, prune
from tsdistill.runtime import load, verify
from tsdistill.testing import toy_signature, toy_task

UNSCALED = Task(toy_task().panel, context=47, horizon=11, split=toy_task().split, scaler=None)

BOUND = 2e-6
"""Standard deviations that an exported fp32 forecast may be away from torch's before the final scaling."""

LARGE = Signature(context=336, horizon=96, channels=tuple("abcdefg"), mean=(0.0,) * 7, scale=(1.0,) * 7, frequency="h")


def built(config: ModelConfig, signature: Signature | None = None) -> Forecaster:
    """With weights off their initial zeros, so that no path is silent, and of the size that trained ones have."""
    if signature is None:
        signature = toy_signature(config.takes, config.needs) if config.needs else toy_signature()
    n_channels = len(signature.channels)
    model = config.build(signature.replace(mean=(0.0,) * n_channels, scale=(1.0,) * n_channels)).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise * 0.2 / max(parameter.shape[-1] if parameter.ndim else 1, 9) ** 0.5)
    return model


def pruned(config: ModelConfig) -> Forecaster:
    model = prune(built(config, UNSCALED.signature), UNSCALED, Pruning(ratio=0.5, recovery=None))
    assert model.n_parameters < 0.8 * built(config, UNSCALED.signature).n_parameters
    return model


POINT = [config for config in MODELS.examples() if getattr(config, "head", None) in (None, PatchTSTConfig().head)]
CELLS: dict[str, Callable[[], Forecaster]] = {
    **{f"{config.kind}-{number}": partial(built, config) for number, config in enumerate(POINT)},
    "mlp-covariates": lambda: built(MLPConfig(width=7, depth=1), toy_signature(("future", "past"))),
    "mlp-quantiles": lambda: built(MLPConfig(width=7, depth=1, head=QuantileHead(levels=(0.1, 0.5, 0.7)))),
    "lstm-bins": lambda: built(LSTMConfig(widths=(5,), patch=11, head=BinnedHead(n_bins=13))),
    "lstm-pruned": lambda: pruned(LSTMConfig(widths=(14, 10), patch=11)),
    "patchtst-pruned": lambda: pruned(PatchTSTConfig(depth=2, width=6, heads=4, head_width=5, patch=11, stride=11)),
    "teacher": lambda: built(PatchTSTConfig(depth=3, width=128, heads=4, patch=16, stride=8), LARGE),
    "wide-lstm": lambda: built(LSTMConfig(widths=(256, 256), patch=16), LARGE),
}


def test_every_architecture_has_a_cell() -> None:
    assert {config.kind for config in POINT} == {
        kind for kind in MODELS.kinds if MODELS[kind].__module__.startswith("tsdistill.")
    }


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in CELLS])
def test_an_exported_forecaster_equals_torch_before_scaling(name: str, tmp_path: Path) -> None:
    model = CELLS[name]()
    deployed = export(model)
    assert list(deployed.parity["difference"]) == ["1", "5", "64"]
    served = load(save(deployed, tmp_path / "m"))
    assert verify(tmp_path / "m")["max_difference"] <= BOUND
    inputs, _ = parity_windows(model.signature, None)
    for batch in (1, 5, 64):
        some = {key: values[:batch] for key, values in inputs.items()}
        from_graph, from_torch = served.outputs(**some), model.outputs(**some)
        assert from_graph.keys() == from_torch.keys()
        # Random weights forecast several deviations, which float32 writes down in larger steps.
        gaps = {
            key: float(np.abs(from_graph[key] - from_torch[key]).max() / max(1, np.abs(from_torch[key]).max()))
            for key in from_graph
        }
        assert max(gaps.values()) <= BOUND, gaps
