"""Repair without training: the units that stay are made to replace those that go.

Least squares on training windows: the outputs of the units that go are regressed on those of the units that stay,
x_gone = B x_kept + c, at every place where a linear, pointwise or recurrent layer reads them, and the regression is
folded into that layer: W_kept += W_gone B, bias += W_gone c. Last of all the forecasting layer is fitted to its
outputs before the cut, given what it reads now.

Source: for one layer this is the update of B. Hassibi and D. Stork, "Second Order Derivatives for Network Pruning:
Optimal Brain Surgeon", NeurIPS 1993, equation 5, with the layer's own inputs in the Hessian, as in E. Frantar and D.
Alistarh, "Optimal Brain Compression", NeurIPS 2022, section 3. Differs from the sources: whole units at once, an
intercept, a ridge penalty chosen on windows held out, and recurrent weights, whose own outputs are the inputs (what the
repaired units then feed back is not followed through time).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tsdistill.data.task import Windows
from tsdistill.models.base import Forecaster
from tsdistill.models.groups import Slice, WidthGroup
from tsdistill.models.ridge import one_thread
from tsdistill.pruning.evidence import inputs_of

PENALTIES = (1e-6, 1e-4, 1e-2, 1e-1)
"""Ridge penalties to choose from, relative to the mean variance of what stays."""

HELD_OUT = 4
"""One of so many rows judges the penalty."""


@one_thread()
def regress(given: Tensor, wanted: Tensor, penalties: tuple[float, ...] = PENALTIES) -> tuple[Tensor, Tensor]:
    """Weights (given, wanted) and intercept (wanted,) of a ridge regression of rows on rows, float64.

    The penalty is the one that is best on the last rows; where none of them beats the mean, the weights are zero.
    """
    given, wanted = given.double(), wanted.double()
    n_fit = len(given) - len(given) // HELD_OUT if len(penalties) > 1 else len(given)
    judged = (given[n_fit:], wanted[n_fit:])
    best: float | None = None
    if len(penalties) > 1:
        lowest = float((judged[1] - wanted[:n_fit].mean(0)).square().sum())
        for penalty, (weights, intercept) in zip(
            penalties, _solved(given[:n_fit], wanted[:n_fit], penalties), strict=True
        ):
            error = float((judged[1] - judged[0] @ weights - intercept).square().sum())
            if error < lowest:
                lowest, best = error, penalty
    else:
        best = penalties[0]
    if best is None:
        return given.new_zeros(given.shape[1], wanted.shape[1]), wanted.mean(0)
    return _solved(given, wanted, (best,))[0]


def _solved(given: Tensor, wanted: Tensor, penalties: tuple[float, ...]) -> list[tuple[Tensor, Tensor]]:
    centre, middle = given.mean(0), wanted.mean(0)
    x, y = given - centre, wanted - middle
    values, vectors = torch.linalg.eigh(x.mT @ x)
    values = values.clamp(min=0)
    projected = vectors.mT @ (x.mT @ y)
    unit = values.mean().clamp(min=torch.finfo(torch.float64).tiny)
    solutions = []
    for penalty in penalties:
        weights = vectors @ (projected / (values + penalty * unit)[:, None])
        solutions.append((weights, middle - centre @ weights))
    return solutions


def folded(model: Forecaster, keep: Mapping[WidthGroup, Tensor], windows: Windows) -> Forecaster:
    """A copy, not yet cut, in which the readers of the kept units make up for the units that are about to go."""
    model = copy.deepcopy(model)
    read = inputs_of(model, windows)
    parameters = dict(model.named_parameters())
    for group, units in keep.items():
        gone = torch.ones(group.size, dtype=torch.bool)
        gone[units] = False
        lost = torch.arange(group.size)[gone]
        for slice_ in group.outgoing:
            if len(lost) and slice_.axis == 1 and slice_.parameter in read:
                _fold(slice_, group.size, units, lost, read[slice_.parameter], parameters)
    return model


def _fold(
    slice_: Slice, size: int, units: Tensor, lost: Tensor, rows: Tensor, parameters: Mapping[str, nn.Parameter]
) -> None:
    """Fold the regression of what is lost on what is kept into one layer, run by run."""
    weight, bias = parameters[slice_.parameter], parameters.get(_bias_of(slice_.parameter))
    matrix = weight.detach().flatten(1).double()
    shift = torch.zeros(len(matrix), dtype=torch.float64)
    for kept, gone in zip(
        slice_.positions(units, size).flatten(1), slice_.positions(lost, size).flatten(1), strict=True
    ):
        fit, intercept = regress(rows[:, kept], rows[:, gone])
        matrix[:, kept] += matrix[:, gone] @ fit.mT
        shift += matrix[:, gone] @ intercept
    with torch.no_grad():
        weight.copy_(matrix.view_as(weight))
        if bias is not None:
            bias.add_(shift)


def _bias_of(weight: str) -> str:
    module, _, name = weight.rpartition(".")
    return f"{module}.{name.replace('weight', 'bias')}"


def refitted(smaller: Forecaster, whole: Forecaster, windows: Windows) -> Forecaster:
    """A copy whose forecasting layer gives the outputs of the whole model's, as well as its inputs allow.

    Left as it is where the context was cut: the two then see differently normalised windows.
    """
    model = copy.deepcopy(smaller)
    layer, before = getattr(model, "last", None), getattr(whole, "last", None)
    alike = isinstance(layer, nn.Linear) and isinstance(before, nn.Linear) and smaller.context == whole.context
    if not alike or layer is None or before is None:
        return model
    given, inputs_before = (inputs_of(forecaster, windows)["last.weight"] for forecaster in (model, whole))
    with torch.no_grad():
        weights, intercept = regress(given, before(inputs_before) - layer(given))
        layer.weight.add_(weights.mT)
        if layer.bias is not None:
            layer.bias.add_(intercept)
    return model
