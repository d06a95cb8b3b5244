"""Single weights set to zero by their magnitude: the textbook method, reported as what it is."""

from __future__ import annotations

import copy
import gzip
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from tsdistill.errors import UnsupportedError
from tsdistill.models.base import Forecaster
from tsdistill.pruning.spec import Pruning


def masks_of(model: Forecaster, ratio: float, locally: bool) -> dict[str, Tensor]:
    """Which weights stay, by parameter: those of the largest magnitude; biases and norms all stay.

    Source: S. Han et al., "Learning both Weights and Connections for Efficient Neural Networks", NeurIPS 2015, section
    3. Differs from the source: an exact share instead of a threshold in units of a layer's standard deviation.
    """
    weights = {name: weight.detach().abs() for name, weight in model.named_parameters() if weight.ndim > 1}
    if not weights:
        raise UnsupportedError(f"A {model.config.kind!r} model has no weight matrices to prune. Leave this step out.")
    if locally:
        return {name: _largest(weight.flatten(), ratio).view_as(weight) for name, weight in weights.items()}
    kept = _largest(torch.cat([weight.flatten() for weight in weights.values()]), ratio)
    parts = kept.split([weight.numel() for weight in weights.values()])
    return {name: part.view_as(weight) for (name, weight), part in zip(weights.items(), parts, strict=True)}


def _largest(size: Tensor, ratio: float) -> Tensor:
    kept = torch.ones(len(size), dtype=torch.bool)
    kept[torch.sort(size, stable=True).indices[: round(len(size) * ratio)]] = False
    return kept


def masked(model: Forecaster, masks: Mapping[str, Tensor]) -> Forecaster:
    """A copy with zeros where a mask is False."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in masks:
                weight.mul_(masks[name])
    return model


@contextmanager
def held(model: Forecaster, masks: Mapping[str, Tensor]) -> Iterator[None]:
    """While it is trained, no gradient reaches what is masked; AdamW then leaves a zero where it is.

    Raises:
        UnsupportedError: the architecture is solved in closed form, which fills every zero again.
    """
    if model.closed_form:
        raise UnsupportedError(
            f"A {model.config.kind!r} model is solved in closed form, which would fill the zeros again. Use "
            "recovery=None."
        )
    handles = [
        weight.register_hook(lambda gradient, mask=masks[name]: gradient * mask.to(gradient.device))
        for name, weight in model.named_parameters()
        if name in masks
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def zeros_in(model: Forecaster, whole: Forecaster) -> dict[str, Any]:
    """Zeros counted, and what they are worth: bytes of the weights as they are, and compressed."""
    weights = [weight for weight in model.parameters() if weight.ndim > 1]
    before, after = (save(dict(forecaster.state_dict())) for forecaster in (whole, model))
    return {
        "n_zeros": sum(int((weight == 0).sum()) for weight in weights),
        "n_weights": sum(weight.numel() for weight in weights),
        "weights_bytes": len(after),
        "compressed_bytes_before": len(gzip.compress(before, mtime=0)),
        "compressed_bytes": len(gzip.compress(after, mtime=0)),
    }


def cut_weights(model: Forecaster, pruning: Pruning, share: float) -> tuple[Forecaster, dict[str, Tensor]]:
    """A copy with a share of its weights at zero, and the masks that say where."""
    masks = masks_of(model, share, pruning.ranks_locally)
    return masked(model, masks), masks
