"""Parity of a graph with the model it was made from, measured over windows at several batch sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from tsdistill.data.task import Signature, Task
from tsdistill.data.windows import raw_inputs
from tsdistill.errors import ArtifactError, ShapeError
from tsdistill.models.base import Forecaster
from tsdistill.runtime import OUTPUT, QUANTILES, TOLERANCE, difference

BATCHES = (1, 5, 64)
"""Batch sizes at which a graph is compared with the model it was made from."""

FAR = 10.0
"""Deviations from the mean beyond which a forecast is compared relative to its size."""

RESOLUTION = 1e-2
"""Steps of float32 at a channel's values may be this share of its standard deviation; a coarser channel is refused."""


Outputs = Callable[..., dict[str, np.ndarray]]
"""Forecast and, where there are some, quantiles of raw inputs given by name."""


def parity_report(
    forecast: Outputs,
    reference: Outputs,
    inputs: Mapping[str, np.ndarray],
    unit: np.ndarray,
    channels: tuple[str, ...],
) -> dict[str, Any]:
    """Difference of two forecasts of the same raw inputs at every batch size, in units of `unit` (channel,).

    `forecast` and `reference` take the arrays of `inputs` by name. The report holds `difference`, the largest per batch
    size, their `max_difference`, `where` that is, `mean_difference` at the largest batch size, and `reach`, how far the
    reference goes from the contexts' mean. Quantiles are compared like further steps of the horizon.
    """
    differences: dict[str, float] = {}
    worst = -1.0
    where = ""
    mean = 0.0
    reach = 0.0
    for size in BATCHES:
        places = np.linspace(0, len(inputs["context"]) - 1, size).astype(int)
        batch = {name: values[places] for name, values in inputs.items()}
        forecasts = _joined(forecast(**batch))
        expected = _joined(reference(**batch))
        differences[str(size)], place = difference(forecasts, expected, unit, channels)
        mean = float(np.mean(np.abs(forecasts.astype(np.float64) - expected) / unit))
        reach = max(reach, float(np.max(np.abs(expected - batch["context"].mean(axis=(0, 1))) / unit)))
        if not differences[str(size)] <= worst:
            worst = differences[str(size)]
            where = f"batch {size}, {place}"
    return {"difference": differences, "max_difference": worst, "mean_difference": mean, "where": where, "reach": reach}


def _joined(outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Forecasts and quantiles along one axis of steps, (batch, step, channel)."""
    forecast = outputs[OUTPUT]
    quantiles = outputs.get(QUANTILES)
    if quantiles is None:
        return forecast
    return np.concatenate([forecast, *np.moveaxis(quantiles, -1, 0)], axis=1)


def tolerance_of(parity: Mapping[str, Any]) -> float:
    """1e-4 of a standard deviation, and a share of the forecast where it lies far from the data.

    A diverged model forecasts hundreds of deviations, of which float32 keeps seven digits: that is a bad forecast, not
    a bad export, and a comparison shows it.
    """
    return TOLERANCE * max(1.0, parity["reach"] / FAR) if np.isfinite(parity["reach"]) else TOLERANCE


def parity_windows(signature: Signature, task: Task | None) -> tuple[dict[str, np.ndarray], str]:
    """Inputs to compare on, spread over the validation part or drawn from a seed, and their source.

    They are float32 and raw, less the signature's offsets, as graphs take them.
    """
    n_windows = max(BATCHES)
    if task is None:
        return _drawn(signature, n_windows), "synthetic"
    check_task(signature, task)
    windows = task.validation
    index = torch.linspace(0, len(windows) - 1, min(n_windows, len(windows))).long()
    return raw_inputs(windows, index, task.signature, signature), "validation"


def check_task(signature: Signature, task: Task) -> None:
    """ShapeError for a task whose windows are not what a forecaster takes."""
    given = task.signature
    if (given.channels, given.horizon) != (signature.channels, signature.horizon) or given.context < signature.context:
        raise ShapeError(
            f"`task` must have the forecaster's steps and channels ({signature.context} and {signature.horizon} steps "
            f"of {list(signature.channels)}), got {given.context} and {given.horizon} steps of {list(given.channels)}. "
            "Give the task it was trained on."
        )


def _drawn(signature: Signature, n_windows: int) -> dict[str, np.ndarray]:
    """Normal noise with the means and deviations of the signature."""
    random = np.random.default_rng(0)

    def draw(n_steps: int, mean: tuple[float, ...], scale: tuple[float, ...]) -> np.ndarray:
        noise = random.standard_normal((n_windows, n_steps, len(mean)))
        return (noise * np.asarray(scale) + np.asarray(mean)).astype(np.float32)

    inputs = {"context": draw(signature.context, signature.mean, signature.scale)}
    if signature.future:
        n_steps = signature.context + signature.horizon
        inputs["future"] = draw(n_steps, signature.future_mean, signature.future_scale)
    if signature.past:
        inputs["past"] = draw(signature.context, signature.past_mean, signature.past_scale)
    return inputs


def units(signature: Signature, contexts: np.ndarray) -> np.ndarray:
    """A standard deviation per channel: the scaler's, or that of the windows when the task had no scaler."""
    scale = np.asarray(signature.scale)
    if any(signature.mean) or any(scale != 1):
        return scale
    spread = contexts.astype(np.float64).std(axis=(0, 1))
    return np.where(spread > 0, spread, 1.0)


def check_resolution(signature: Signature, unit: np.ndarray, contexts: np.ndarray) -> None:
    """ArtifactError for a channel so far from zero that float32 cannot write down how it varies.

    What counts is where the scaler says the channel is and where the values are. A signature made by a task has offsets
    for such channels, which are subtracted from both; one made by hand, or by an earlier version, may lack them.
    """
    inside = np.abs(contexts.astype(np.float64)).min(axis=(0, 1))
    levels = np.maximum(np.abs(np.asarray(signature.mean)), inside)
    steps = np.spacing(levels.astype(np.float32)) / unit
    if steps.max() > RESOLUTION:
        channel = int(steps.argmax())
        raise ArtifactError(
            f"channel {signature.channels[channel]!r} must be far from the resolution of float32, got a level of "
            f"{levels[channel]:g} and a standard deviation of {unit[channel]:g}: one step of float32 is "
            f"{steps[channel]:.2g} deviations. Subtract a constant from this column before training, or train again on "
            "a td.Task, whose signature has an offset for it."
        )


def check_parity(parity: Mapping[str, Any], forecaster: Forecaster) -> None:
    """ArtifactError with numbers and place when a graph does not forecast what its model does."""
    if not parity["max_difference"] <= parity["tolerance"]:
        raise ArtifactError(
            f"the exported graph of this {forecaster.config.kind} forecaster must forecast what torch does to "
            f"{parity['tolerance']:g} standard deviations, got {parity['max_difference']:.3g} at {parity['where']} "
            f"(by batch size: {parity['difference']}, {parity['windows']} windows). Nothing was exported; report this."
        )
