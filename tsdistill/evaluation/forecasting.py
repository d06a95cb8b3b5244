"""Forecasts of any model for some windows: one interface to trainable, deployed and foreign ones of any scaling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tsdistill.data.windows import less_offsets, window_units
from tsdistill.errors import ConfigError, DataError, ShapeError, UnsupportedError, listed, must

if TYPE_CHECKING:
    import torch

    from tsdistill.data.task import Batch, Signature, Windows
    from tsdistill.exporting import Deployed
    from tsdistill.models import Forecaster
    from tsdistill.models.activations import Activations

Model = Any
"""A trainable forecaster, a deployed one, or anything else with `forecast(batch)` (the teacher protocol)."""


OR = ", or give td.teachers.PrivilegedTeacher(model, task), which is asked with inputs of its own"
"""What else can be done about a model that sees more than the task."""


@dataclass(frozen=True)
class Prediction:
    """Forecasts of a batch, scaled as the windows are.

    Args:
        forecast: (window, step, channel).
        quantiles: (window, step, channel, quantile), or None where the model gives none.
    """

    forecast: np.ndarray
    quantiles: np.ndarray | None = None


def forecasts(
    model: Model,
    windows: Windows,
    signature: Signature | None = None,
    *,
    batch_size: int = 256,
    order: torch.Tensor | None = None,
) -> np.ndarray:
    """Scaled forecasts of every window, whatever the model is.

    Args:
        model: A forecaster, a deployed one or a teacher.
        windows: What to forecast.
        signature: How the windows are scaled (`task.signature`). None: as the model was trained.
        batch_size: Windows forecast at once.
        order: (window,), positions of the windows to forecast; every one in time order if not given.

    Returns:
        (window, horizon, channel), float32, in the order of the windows.

    Raises:
        ShapeError: The model's channels, horizon or context do not fit the windows.
        ConfigError: `batch_size` is below 1.
        DataError: The model forecast something that is not finite.
        UnsupportedError: `model` cannot forecast.

    Example:
        >>> from tsdistill.models import SeasonalNaiveConfig
        >>> from tsdistill.testing import toy_task
        >>> task = toy_task()
        >>> forecasts(SeasonalNaiveConfig(period=24).build(task.signature), task.validation, task.signature).shape
        (91, 11, 3)
    """
    batches = [prediction.forecast for _, prediction in predictions_of(model, windows, signature, batch_size, order)]
    shape = (0, windows.horizon, windows.series.shape[1])
    return np.concatenate(batches) if batches else np.empty(shape, dtype=np.float32)


def quantile_levels(model: Model) -> tuple[float, ...]:
    """The quantile levels that a model forecasts; none for one that gives single numbers or bins."""
    from tsdistill.models.base import ModelConfig, levels_of

    config = getattr(model, "config", None)
    if isinstance(config, ModelConfig):
        return levels_of(config)
    from tsdistill.teachers import FoundationTeacher

    return model.levels if isinstance(model, FoundationTeacher) else ()


def predictions_of(
    model: Model, windows: Windows, signature: Signature | None, batch_size: int, order: torch.Tensor | None = None
) -> Iterator[tuple[Batch, Prediction]]:
    """Batches and their predictions, checked, both scaled as the windows are."""
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ConfigError(must("batch_size", "be a whole number of at least 1", batch_size, "Leave it out"))
    check_fits(model, windows, signature)
    predict = _predictor(model, windows, signature)
    n_levels = len(quantile_levels(model))
    for batch in windows.batches(batch_size, order):
        prediction = predict(batch)
        shape = tuple(batch.target.shape)
        outputs = [("forecast", "(window, step, channel)", prediction.forecast, shape)]
        if prediction.quantiles is not None:
            axes = "(window, step, channel, quantile)"
            outputs.append(("give quantiles of shape", axes, prediction.quantiles, (*shape, n_levels)))
        for verb, axes, values, expected in outputs:
            if values.shape != expected:
                raise ShapeError(
                    f"{_title(model)} must {verb} {expected} {axes}, got {values.shape}. Check the horizon and the "
                    "channels it was made for."
                )
            if bad := int((~np.isfinite(values)).reshape(len(values), -1).any(axis=1).sum()):
                raise DataError(
                    f"{_title(model)} must forecast finite numbers, got others in {bad} of {len(values)} windows "
                    f"(positions {int(batch.index[0])} to {int(batch.index[-1])}). It has diverged or overflowed; "
                    "train it again."
                )
        yield batch, prediction


def _predictor(model: Model, windows: Windows, signature: Signature | None) -> Callable[[Batch], Prediction]:
    """How a model forecasts a batch: in the scaling it was made for, with results scaled as the windows are."""
    from tsdistill.exporting import Deployed
    from tsdistill.models import Forecaster
    from tsdistill.teachers import FoundationTeacher

    own: Signature | None = getattr(model, "signature", None)
    if isinstance(model, Deployed):
        return _rescaled(lambda batch: _run(model, batch), model.signature, True, signature, windows)
    if not callable(getattr(model, "forecast", None)):
        raise UnsupportedError(
            f"`model` must be a forecaster, a deployed forecaster or a teacher with forecast(batch), got "
            f"{_title(model)}. Build one with td.train, td.distill or td.export."
        )
    device = _device(model)

    def predict(batch: Batch) -> Prediction:
        batch = _seen(batch, own).to(device)
        if isinstance(model, Forecaster) and quantile_levels(model):
            return _activated(model, batch)
        if isinstance(model, FoundationTeacher) and model.levels:
            return _prediction(model.activations(batch.context))
        return Prediction(model.forecast(batch).detach().float().cpu().numpy())

    if own is None or signature is None or _scaling(own, own) == _scaling(signature, own):
        return predict
    return _rescaled(predict, own, False, signature, windows)


def _rescaled(
    predict: Callable[[Batch], Prediction], own: Signature, raw: bool, signature: Signature | None, windows: Windows
) -> Callable[[Batch], Prediction]:
    """Forecast in another scaling than the windows': in raw units, or as the model's own signature scales."""
    windows_signature = signature or own

    def rescaled(batch: Batch) -> Prediction:
        batch = _seen(batch, own)
        mean, scale = _units(batch, windows_signature, windows)
        inputs, shift = less_offsets(batch, windows, windows_signature, own)
        values = inputs["context"]
        centre, spread = (np.zeros(1), np.ones(1)) if raw else (np.asarray(own.mean), np.asarray(own.scale))
        if not raw and own.normalisation == "window":
            centre, spread = window_units(values[:, -own.context :])
        inputs["context"] = (values - centre) / spread
        if not raw:
            for name in inputs.keys() - {"context"}:
                inputs[name] = (inputs[name] - _numbers(own, f"{name}_mean")) / _numbers(own, f"{name}_scale")
        prediction = predict(replace(batch, **{name: _float32(value) for name, value in inputs.items()}))
        centre = centre + shift
        forecast = ((prediction.forecast * spread + centre - mean) / scale).astype(np.float32)
        if prediction.quantiles is None:
            return Prediction(forecast)
        centre, spread, mean, scale = (array[..., None] for array in (centre, spread, mean, scale))
        return Prediction(forecast, ((prediction.quantiles * spread + centre - mean) / scale).astype(np.float32))

    return rescaled


def _units(batch: Batch, signature: Signature, windows: Windows) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale of a batch's values: of the item of each window, or of all alike."""
    if signature.normalisation == "window":
        return windows.units(batch.index)
    return np.asarray(signature.mean), np.asarray(signature.scale)


def _seen(batch: Batch, own: Signature | None) -> Batch:
    """The batch without the covariates that a model does not use; a foreign teacher gets them all."""
    if own is None:
        return batch
    return replace(batch, future=batch.future if own.future else None, past=batch.past if own.past else None)


def _scaling(signature: Signature, own: Signature) -> tuple[object, ...]:
    """How a signature scales the inputs of a model with the signature `own`."""
    future = (signature.future_mean, signature.future_scale, signature.future_offset) if own.future else ()
    past = (signature.past_mean, signature.past_scale, signature.past_offset) if own.past else ()
    return signature.normalisation, signature.mean, signature.scale, signature.offset, future, past


def _numbers(signature: Signature, name: str) -> np.ndarray:
    return np.asarray(getattr(signature, name))


def _float32(values: np.ndarray) -> torch.Tensor:
    import torch

    return torch.from_numpy(values.astype(np.float32))


def _activated(model: Forecaster, batch: Batch) -> Prediction:
    """Forecast and quantiles of a trainable forecaster."""
    import torch

    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            activations = model.activations(batch.context, batch.future, batch.past)
    finally:
        model.train(was_training)
    return _prediction(activations)


def _prediction(activations: Activations) -> Prediction:
    assert activations.distribution is not None  # only models with quantiles get here
    return Prediction(*(tensor.float().cpu().numpy() for tensor in (activations.forecast, activations.distribution)))


def _run(model: Deployed, batch: Batch) -> Prediction:
    """Forecast, and quantiles if it has them, of raw windows through the runtime that serves the model."""
    n_rows = len(batch.context)
    steps = {"context": model.context, "future": model.context + model.horizon}
    inputs = {
        name: np.ascontiguousarray(values[:, -steps.get(name, model.context) :].numpy())
        for name in ("context", "future", "past")
        if (values := getattr(batch, name)) is not None
    }
    # Dynamic INT8 scales activations over the whole batch. It is timed at batch 1, so it is scored at batch 1.
    size = 1 if model.mixes_windows else max(n_rows, 1)
    parts = [{name: values[row : row + size] for name, values in inputs.items()} for row in range(0, n_rows, size)]
    if not quantile_levels(model):
        return Prediction(np.concatenate([model.predictor.run(**part) for part in parts]))
    outputs = [model.predictor.outputs(**part) for part in parts]
    return Prediction(*(np.concatenate([output[name] for output in outputs]) for name in ("forecast", "quantiles")))


def _device(model: Model) -> Any:
    import torch

    parameters = getattr(model, "parameters", None)
    first = next(iter(parameters()), None) if callable(parameters) else None
    return torch.device("cpu") if first is None else first.device


def check_fits(model: Model, windows: Windows, signature: Signature | None = None) -> None:
    """Refuse a model whose channels, horizon or context are not the windows', all problems in one `ShapeError`."""
    own = getattr(model, "signature", None)
    if own is None:
        return
    channels = own.channels if signature is None else signature.channels
    problems = []
    if own.context > windows.context:
        remedy = f"Make the task's context longer: a model uses the last steps of a longer one{OR}"
        problems.append(must("context", f"be at least the model's {own.context} steps", windows.context, remedy))
    if own.horizon != windows.horizon:
        problems.append(must("horizon", f"be the model's {own.horizon} steps", windows.horizon, "Change the task's"))
    if own.channels != channels or len(own.channels) != windows.series.shape[1]:
        problems.append(
            must("channels", f"be the model's {list(own.channels)}", list(channels), "Select these columns")
        )
    for name in ("future", "past"):
        required = list(getattr(own, name))
        given = list(getattr(signature or own, name))
        if required and (required != given or getattr(windows, name) is None):
            given = given if getattr(windows, name) is not None else []
            problems.append(
                must(name, f"be the model's covariates {required}", given, f"Give the task covariates=...{OR}")
            )
    if problems:
        raise ShapeError(listed(problems, f"the task for {_title(model)}"))


def _title(model: Model) -> str:
    kind = getattr(getattr(model, "config", None), "kind", None)
    return f"{type(model).__name__}" + (f" {kind!r}" if isinstance(kind, str) else "")
