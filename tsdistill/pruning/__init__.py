"""Pruning: a pruned model is an ordinary model with a smaller config.

`plan_pruning` and `pruning_sensitivity` look first; `shrink` cuts a student out of a teacher by the same groups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tsdistill.deprecation import moved_names
from tsdistill.pruning.criteria import (
    CRITERIA,
    L1,
    Activation,
    AnyCriterion,
    Criterion,
    LossIncrease,
    Magnitude,
    Redundancy,
    Taylor,
)
from tsdistill.pruning.evidence import Evidence
from tsdistill.pruning.planning import Plan, PlanRow, macs_of, plan_pruning
from tsdistill.pruning.pruner import prune
from tsdistill.pruning.ranking import groups_of
from tsdistill.pruning.rebuilding import rebuild
from tsdistill.pruning.sensitivities import PruningSensitivity, pruning_sensitivity
from tsdistill.pruning.shrinking import shrink
from tsdistill.pruning.spec import Pruning

register = CRITERIA.register
"""Make a criterion of your own one that recipes can name: `td.pruning.register(MyCriterion)`, or as a decorator."""

__all__ = [
    "CRITERIA",
    "L1",
    "Activation",
    "AnyCriterion",
    "Criterion",
    "Evidence",
    "LossIncrease",
    "Magnitude",
    "Plan",
    "PlanRow",
    "Pruning",
    "PruningSensitivity",
    "Redundancy",
    "Taylor",
    "groups_of",
    "macs_of",
    "plan_pruning",
    "prune",
    "pruning_sensitivity",
    "rebuild",
    "register",
    "shrink",
]

MOVED = {
    "Sensitivity": "tsdistill.pruning.PruningSensitivity",
    "sensitivity": "tsdistill.pruning.pruning_sensitivity",
}
"""Names of version 0.1, each with its place now; they go with version 0.3."""

if not TYPE_CHECKING:  # which would take any name for one of these
    __getattr__ = moved_names(__name__, MOVED)
