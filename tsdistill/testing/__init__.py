"""Checks that an object keeps its contract, for our own tests and for those of users who extend tsdistill.

`check_architecture(MyConfig)`, `check_loss(MyLoss)` and `check_criterion(MyCriterion)` are one line for a class of
your own. `check_forecaster(config)`, `check_pruning(config)` and `check_loss(loss)` are about one thing by itself,
`check_losses(losses, teacher, student, task)` is about the terms of a distillation that is going to run. They raise
`ContractError` with the rule that was broken. Each has a planted fault in the test suite that it must find.
"""

from __future__ import annotations

from tsdistill.testing.cutting import check_pruning
from tsdistill.testing.forecasters import check_forecaster
from tsdistill.testing.members import check_architecture, check_criterion
from tsdistill.testing.pairing import CheckedTerm, check_losses
from tsdistill.testing.rules import ContractError
from tsdistill.testing.terms import check_loss
from tsdistill.testing.toys import (
    BATCH,
    CHANNELS,
    CONTEXT,
    COVARIATES,
    HORIZON,
    toy_batch,
    toy_frame,
    toy_panel,
    toy_signature,
    toy_task,
)

__all__ = [
    "BATCH",
    "CHANNELS",
    "CONTEXT",
    "COVARIATES",
    "HORIZON",
    "CheckedTerm",
    "ContractError",
    "check_architecture",
    "check_criterion",
    "check_forecaster",
    "check_loss",
    "check_losses",
    "check_pruning",
    "toy_batch",
    "toy_frame",
    "toy_panel",
    "toy_signature",
    "toy_task",
]
