"""Small forecasters of every architecture and what becomes of them, made once for all tests of deployment."""

from __future__ import annotations

import functools
from unittest import mock

import numpy as np
import pandas as pd
import torch

from tsdistill.data.panel import Panel
from tsdistill.data.task import Task
from tsdistill.exporting import Deployed, export
from tsdistill.models import (
    Forecaster,
    LinearConfig,
    LSTMConfig,
    MLPConfig,
    ModelConfig,
    PatchTSTConfig,
    SeasonalNaiveConfig,
)
from tsdistill.quantization import Quantization, choice, quantize
from tsdistill.spec import LineageStep

CONTEXT, HORIZON, CHANNELS = 29, 7, ("load", "pressure", "wind")

CONFIGS: dict[str, ModelConfig] = {
    "patchtst": PatchTSTConfig(depth=2, width=6, heads=2, patch=7, stride=5),
    "lstm": LSTMConfig(widths=(5, 3), patch=7),
    "mlp": MLPConfig(width=5, depth=1),
    "linear": LinearConfig(),
    "seasonal-naive": SeasonalNaiveConfig(period=24),
}
KINDS = tuple(CONFIGS)

FORCED = Quantization(require_gain=False, max_error_increase=0.5)
"""INT8 whatever it costs: models this small gain nothing from it, and a test must not depend on the clock."""


def hourly(n_rows: int = 211, seed: int = 0) -> pd.DataFrame:
    """Three channels with a daily rhythm; pressure stands far from zero."""
    rng = np.random.default_rng(seed)
    angle = np.arange(n_rows)[:, None] * 2 * np.pi / 24 + np.arange(3)
    values = np.sin(angle) * [9, 8, 3] + [50, 1012, 0] + rng.normal(size=(n_rows, 3))
    stamps = pd.date_range("2013-01-01", periods=n_rows, freq="h", name="ds")
    return pd.DataFrame(values, columns=list(CHANNELS), index=stamps)


@functools.cache
def task() -> Task:
    return Task(Panel.from_frame(hourly().reset_index(), time="ds"), context=CONTEXT, horizon=HORIZON)


def fresh(kind: str, seed: int = 0) -> Forecaster:
    """An untrained forecaster whose every weight, also those that start at zero, has something to say."""
    model = CONFIGS[kind].build(task().signature, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.with_step(LineageStep(verb="train", seed=seed, metrics={"mse": 0.5})).eval()


@functools.cache
def forecaster(kind: str) -> Forecaster:
    return fresh(kind)


@functools.cache
def exported(kind: str) -> Deployed:
    return export(forecaster(kind), task())


@functools.cache
def int8(kind: str) -> Deployed:
    return quantized(kind)


def quantized(kind: str, quantization: Quantization = FORCED) -> Deployed:
    """What `quantize` makes of a forecaster, without exporting it anew: that takes the most time by far."""
    with mock.patch.object(choice, "export", return_value=exported(kind)):
        return quantize(forecaster(kind), task(), quantization)


def contexts(batch: int = 5, seed: int = 0) -> np.ndarray:
    """Raw contexts (batch, context, channel)."""
    rows = hourly(CONTEXT + batch * 11, seed).to_numpy()
    return np.stack([rows[start : start + CONTEXT] for start in range(0, batch * 11, 11)]).astype(np.float32)


def in_deviations(difference: np.ndarray) -> float:
    """Largest difference in standard deviations of its channel."""
    return float(np.abs(difference / np.asarray(task().signature.scale)).max())
