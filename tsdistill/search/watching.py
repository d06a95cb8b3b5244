"""What a study's pruner sees of a trial while its student is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from optuna import TrialPruned
from optuna.pruners import WilcoxonPruner
from optuna.trial import BaseTrial

from tsdistill.data import Task
from tsdistill.evaluation import window_losses
from tsdistill.exporting import Deployed
from tsdistill.models import Forecaster

N_BLOCKS = 16
"""Blocks of validation windows in time, which a `WilcoxonPruner` compares trials by."""


class Watch:
    """Reports a trial's errors, and stops it when the pruner says so.

    Most pruners compare trials at the same epoch. A `WilcoxonPruner` compares them on the same problems: it gets the
    trained student's errors on blocks of validation windows, before the student is pruned and deployed.
    """

    def __init__(self, trial: BaseTrial, task: Task) -> None:
        self.trial = trial
        self.task = task
        study = getattr(trial, "study", None)
        self.by_blocks = isinstance(getattr(study, "pruner", None), WilcoxonPruner)

    def on_epoch(self, line: Mapping[str, Any]) -> None:
        """Report the error of an epoch."""
        if not self.by_blocks:
            self._report(line.get("validation_error", line["validation_mse"]), line["epoch"])

    def on_stage(self, name: str, model: Forecaster | Deployed) -> None:
        """Report the errors of the student by blocks."""
        if self.by_blocks and name == "student":
            losses = window_losses(model, self.task)
            for step, block in enumerate(np.array_split(losses, min(N_BLOCKS, len(losses)))):
                self._report(float(block.mean()), step)

    def _report(self, error: float, step: int) -> None:
        self.trial.report(error, step)
        if self.trial.should_prune():
            raise TrialPruned
