"""Criteria that look at weights alone: their L2 and L1 norms."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from tsdistill.models.base import Forecaster
from tsdistill.models.groups import WidthGroup
from tsdistill.pruning.criteria.base import Criterion, over_slices
from tsdistill.pruning.evidence import Evidence


def unit_norms(model: Forecaster, group: WidthGroup) -> Tensor:
    """L2 norm of everything that produces or consumes a unit, (unit,); see `Magnitude`."""
    squares = {name: weights.detach().double().square() for name, weights in model.named_parameters()}
    return over_slices(squares, group).sqrt()


class Magnitude(Criterion):
    """L2 norm of everything that produces or consumes a unit.

    score(u) = sqrt(sum over the group's slices of |w_u|^2), each slice divided by its mean over units, so that a slice
    of large weights does not decide alone.

    Source: H. Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, section 3.1. Differs from the source: L2
    instead of L1, and all coupled slices count, not the producing one alone.
    """

    kind: Literal["magnitude"] = "magnitude"
    looks_at_data: ClassVar[bool] = False
    of_single_weights: ClassVar[bool] = True

    def score(self, model: Forecaster, group: WidthGroup, evidence: Evidence) -> Tensor:
        """Scores of the units of a group, (unit,)."""
        return unit_norms(model, group)


class L1(Criterion):
    """L1 norm of everything that produces or consumes a unit, each slice divided by its mean over units.

    Source: as of `Magnitude`. Differs from the source: all coupled slices count, not the producing one alone.
    """

    kind: Literal["l1"] = "l1"
    looks_at_data: ClassVar[bool] = False
    of_single_weights: ClassVar[bool] = True

    def score(self, model: Forecaster, group: WidthGroup, evidence: Evidence) -> Tensor:
        """Scores of the units of a group, (unit,)."""
        return over_slices({name: weights.detach().double().abs() for name, weights in model.named_parameters()}, group)
