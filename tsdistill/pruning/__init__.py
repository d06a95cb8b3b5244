"""Pruning: a pruned model is an ordinary model with a smaller config; `plan_pruning` and `sensitivity` look first.

`shrink` cuts a student out of a teacher by the same groups.
"""

from __future__ import annotations

from tsdistill.pruning.criteria import CRITERIA, Criterion
from tsdistill.pruning.evidence import Evidence
from tsdistill.pruning.planning import Plan, PlanRow, macs_of, plan_pruning
from tsdistill.pruning.pruner import prune
from tsdistill.pruning.rebuilding import rebuild
from tsdistill.pruning.sensitivities import Sensitivity, sensitivity
from tsdistill.pruning.shrinking import shrink
from tsdistill.pruning.spec import Pruning

__all__ = [
    "CRITERIA",
    "Criterion",
    "Evidence",
    "Plan",
    "PlanRow",
    "Pruning",
    "Sensitivity",
    "macs_of",
    "plan_pruning",
    "prune",
    "rebuild",
    "sensitivity",
    "shrink",
]
