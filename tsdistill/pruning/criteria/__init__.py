"""Criteria: how units are ranked before they are cut."""

from __future__ import annotations

from tsdistill.pruning.criteria.activation import Activation
from tsdistill.pruning.criteria.base import CRITERIA, TINY, AnyCriterion, Criterion
from tsdistill.pruning.criteria.loss import LossIncrease
from tsdistill.pruning.criteria.magnitude import L1, Magnitude, unit_norms
from tsdistill.pruning.criteria.redundancy import Redundancy
from tsdistill.pruning.criteria.taylor import Taylor

CRITERIA.include(Magnitude, L1, Taylor, Activation, Redundancy, LossIncrease)

__all__ = [
    "CRITERIA",
    "L1",
    "TINY",
    "Activation",
    "AnyCriterion",
    "Criterion",
    "LossIncrease",
    "Magnitude",
    "Redundancy",
    "Taylor",
    "unit_norms",
]
