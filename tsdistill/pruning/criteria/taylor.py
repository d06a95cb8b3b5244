"""What the loss would change without a unit, to first order."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from tsdistill.errors import UnsupportedError
from tsdistill.models.base import Forecaster
from tsdistill.models.groups import WidthGroup
from tsdistill.pruning.criteria.base import Criterion
from tsdistill.pruning.evidence import Evidence


class Taylor(Criterion):
    """What the loss would change without a unit, to first order, as the root mean square over batches.

    score(u) = sqrt(mean over batches of (sum over outgoing weights of u of gradient * weight)^2); gradient * weight
    summed over what reads a unit is the unit's output times the gradient that reaches it.

    Source: P. Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019, equations 8 and 10.
    Differs from the source: gates are put on what a unit hands on, not on its own weights, and roots are taken.
    """

    kind: Literal["taylor"] = "taylor"

    def score(self, model: Forecaster, group: WidthGroup, evidence: Evidence) -> Tensor:
        """Scores of the units of a group, (unit,)."""
        if not group.outgoing:
            raise UnsupportedError(
                f"`criterion` must be one that can rank {group.name!r}, whose units have no gates to put on what they "
                'hand on. Use "loss", or leave the group out.'
            )
        total = torch.zeros(group.size, dtype=torch.float64)
        parameters = dict(model.named_parameters())
        for gradient in evidence.gradients:
            products = {name: gradient[name] * parameters[name].detach() for name in gradient}
            total += sum(
                (slice_.sums(products, group.size) for slice_ in group.outgoing), torch.zeros(group.size)
            ).square()
        return (total / len(evidence.gradients)).sqrt()
