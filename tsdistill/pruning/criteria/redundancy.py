"""Which units others can replace."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from tsdistill.models.base import Forecaster
from tsdistill.models.groups import WidthGroup
from tsdistill.pruning.criteria.base import TINY, Criterion, passing_through
from tsdistill.pruning.evidence import Evidence


class Redundancy(Criterion):
    """How unlike the most similar other unit a unit is; of two alike, the one that moves less goes first.

    The pair with the highest |correlation| is found, its unit of less variance is taken out with the score 1 -
    |correlation|, and so on with those that are left, so that a group of twins keeps one of them.

    Source: the idea of Y. He et al., "Filter Pruning via Geometric Median for Deep Convolutional Neural Networks
    Acceleration", CVPR 2019, section 3.3: what others can replace goes. Differs from the source: outputs instead of
    weights, correlations instead of distances, and one by one.
    """

    kind: Literal["redundancy"] = "redundancy"

    def score(self, model: Forecaster, group: WidthGroup, evidence: Evidence) -> Tensor:
        """Scores of the units of a group, (unit,)."""
        _, passing = max(passing_through(group, evidence), key=lambda pair: len(pair[1]))
        outputs = passing.double().permute(0, 1, 3, 2).reshape(-1, group.size)
        outputs = outputs - outputs.mean(dim=0)
        size = outputs.norm(dim=0)
        likeness = (outputs.mT @ outputs / torch.outer(size, size).clamp(min=TINY)).abs().fill_diagonal_(-1)
        scores = torch.full((group.size,), torch.inf, dtype=torch.float64)
        highest = 0.0
        for _ in range(group.size - 1):
            one, other = divmod(int(likeness.argmax()), group.size)
            goes = one if size[one] <= size[other] else other
            # A unit that does not move at all is replaced by a bias: nothing is lost with it.
            highest = max(highest, 1 - float(likeness[one, other]))
            scores[goes] = highest
            likeness[goes], likeness[:, goes] = -2, -2
        scores[size <= 1e-12 * size.max().clamp(min=TINY)] = 0
        return scores.clamp(max=2 * max(highest, 0.5))
