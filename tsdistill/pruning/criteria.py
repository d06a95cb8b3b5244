"""How much a unit is worth: functions of a model and one of its width groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from tsdistill.models.base import Forecaster
from tsdistill.models.groups import WidthGroup

Criterion = Callable[[Forecaster, WidthGroup], Tensor]
"""(model, group) -> one score per unit, (unit,); the lowest go first."""


def magnitude(model: Forecaster, group: WidthGroup) -> Tensor:
    """L2 norm of everything that produces or consumes a unit.

    score(u) = sqrt(sum over the group's slices of |w_u|^2), each slice divided by its mean over units, so that a slice
    of large weights does not decide alone.

    Source: H. Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, section 3.1. Differs from the source: L2
    instead of L1, and all coupled slices count, not the producing one alone.
    """
    squares = {name: weights.detach().double().square() for name, weights in model.named_parameters()}
    total = torch.zeros(group.size, dtype=torch.float64)
    for each in group.slices:
        power = each.sums(squares, group.size)
        total += power / power.mean().clamp(min=torch.finfo(torch.float64).tiny)
    return total.sqrt()


CRITERIA: Mapping[str, Criterion] = {"magnitude": magnitude}
"""Criteria by the name a `Pruning` spec gives."""
