"""What checks share: the error they raise, and how they compare."""

from __future__ import annotations

import copy

import torch

from tsdistill.models.base import Forecaster, ModelConfig
from tsdistill.testing.toys import toy_signature


class ContractError(AssertionError):
    """An object broke its contract; the message says which rule and by how much."""


def require(holds: bool, message: str) -> None:
    """Raise a ContractError with the message unless a rule holds."""
    if not holds:
        raise ContractError(f"{message}.")


def near(actual: torch.Tensor, wanted: torch.Tensor, message: str, tolerance: float = 2e-6) -> None:
    """Raise one where two tensors differ, relative to the size of the second."""
    size = max(1.0, float(wanted.detach().abs().max()))
    gap = float((actual - wanted).detach().abs().max()) / size
    require(gap <= tolerance, f"{message}: by {gap:.2g}, more than {tolerance:g}")


def built(model: ModelConfig | Forecaster) -> list[Forecaster]:
    """The forecaster itself, or those a config builds: with what it needs, or without covariates and with all."""
    if isinstance(model, Forecaster):
        return [model]
    if model.needs is not None:
        return [model.build(toy_signature(model.takes, model.needs))]
    return [model.build(toy_signature(takes)) for takes in ((), model.takes) if not takes or model.takes]


def shaken(model: Forecaster) -> Forecaster:
    """A copy with weights off their initial zeros, so that no check passes because a path is silent."""
    model = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def has_gradient(parameter: torch.nn.Parameter) -> bool:
    """Whether a backward pass has left anything in a parameter."""
    return parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
