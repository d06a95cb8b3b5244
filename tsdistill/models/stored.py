"""Weights from a file that fit a model."""

from __future__ import annotations

from pathlib import Path

import torch

from tsdistill.errors import ArtifactError, listed
from tsdistill.models.base import Forecaster
from tsdistill.models.finite import described, not_finite


def fitting(skeleton: Forecaster, content: bytes, folder: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a file of weights, by name.

    Args:
        skeleton: The model without memory.
        content: A safetensors file.
        folder: Where it lies, for messages.

    Raises:
        ArtifactError: Tensors that are missing, extra or misshapen, all in one error, or that are not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as unpack

    expected = skeleton.state_dict()
    try:
        weights: dict[str, torch.Tensor] = unpack(content)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:  # stricter than the walk through its header
        raise ArtifactError(f"The weights in {folder} cannot be used: {error}. Save the model again.") from None
    problems = [f"tensor {name!r} is missing" for name in expected.keys() - weights.keys()]
    problems += [f"tensor {name!r} is not the model's" for name in weights.keys() - expected.keys()]
    for name in expected.keys() & weights.keys():
        parameter, weight = expected[name], weights[name]
        if (parameter.shape, parameter.dtype) != (weight.shape, weight.dtype):
            problems.append(
                f"tensor {name!r} must be {parameter.dtype} of shape {tuple(parameter.shape)}, got {weight.dtype} of "
                f"shape {tuple(weight.shape)}"
            )
    if problems:
        raise ArtifactError(listed([f"{problem}." for problem in sorted(problems)], f"the weights in {folder}"))
    counts = not_finite(weights, frozenset(name for name, _ in skeleton.named_parameters()))
    if counts:
        raise ArtifactError(f"The model in {folder} cannot forecast: {described(counts)}")
    return weights
