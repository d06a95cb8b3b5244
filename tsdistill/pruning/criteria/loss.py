"""What the validation error gains when a unit is silenced."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor

from tsdistill.models.base import Forecaster
from tsdistill.models.groups import WidthGroup
from tsdistill.pruning.criteria.base import Criterion
from tsdistill.pruning.evidence import Evidence
from tsdistill.pruning.rebuilding import rebuild


class LossIncrease(Criterion):
    """What the error on validation windows gains when a unit is silenced, all others in place.

    score(u) = error with the outgoing weights of u at zero - error. Of a context it is the error without a unit and all
    older ones, of layers without residual connections that of the model without one. Use it for heads, blocks and
    contexts; of hidden units there are many, and each takes a pass.

    Source: the brute-force criterion of P. Molchanov et al., "Pruning Convolutional Neural Networks for Resource
    Efficient Inference", ICLR 2017, section 2.1 ("oracle"). Differs from the source: validation windows, and the signed
    change: a unit that does harm goes first.
    """

    kind: Literal["loss"] = "loss"

    def score(self, model: Forecaster, group: WidthGroup, evidence: Evidence) -> Tensor:
        """Scores of the units of a group, (unit,)."""
        scores = torch.zeros(group.size, dtype=torch.float64)
        base = evidence.error(model)
        for unit in range(group.size):
            if group.ordered:
                left = list(range(min(unit + 1, group.size - group.minimum), group.size))
                scores[unit] = evidence.error(rebuild(model, {group.name: left})) - base
                continue
            if not group.outgoing:
                if unit not in group.pinned and group.size > group.minimum:
                    left = [other for other in range(group.size) if other != unit]
                    scores[unit] = evidence.error(rebuild(model, {group.name: left})) - base
                continue
            silent = copy.deepcopy(model)
            group.silence(dict(silent.named_parameters()), torch.tensor([unit]))
            scores[unit] = evidence.error(silent) - base
        return scores
