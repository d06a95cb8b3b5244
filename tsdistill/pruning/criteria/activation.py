"""The weights that read a unit, times the size of what passes through it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from tsdistill.models.base import Forecaster
from tsdistill.models.groups import WidthGroup
from tsdistill.pruning.criteria.base import TINY, Criterion, passing_through
from tsdistill.pruning.evidence import Evidence


class Activation(Criterion):
    """The weights that read a unit times the size of what passes through it.

    score(u) = sum over outgoing weights of |w| * |x|_2, x over training windows; each reading layer is divided by its
    mean over units.

    Source: M. Sun et al., "A Simple and Effective Pruning Approach for Large Language Models" (Wanda), ICLR 2024,
    equation 1. Differs from the source: summed over all weights that read a unit, so that whole units are ranked.
    """

    kind: Literal["activation"] = "activation"

    def score(self, model: Forecaster, group: WidthGroup, evidence: Evidence) -> Tensor:
        """Scores of the units of a group, (unit,)."""
        total = torch.zeros(group.size, dtype=torch.float64)
        parameters = dict(model.named_parameters())
        for slice_, passing in passing_through(group, evidence):
            columns = parameters[slice_.parameter].detach().double().abs().flatten(1).sum(dim=0)
            weights = columns[slice_.positions(torch.arange(group.size), group.size)]
            score = (weights * passing.double().square().mean(dim=0).sqrt()).sum(dim=(0, 2))
            total += score / score.mean().clamp(min=TINY)
        return total
