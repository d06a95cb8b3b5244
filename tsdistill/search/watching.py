"""What a study's pruner sees of a trial while its student is made, and what is not worth deploying."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from optuna import TrialPruned
from optuna.pruners import NopPruner, WilcoxonPruner
from optuna.trial import BaseTrial, FrozenTrial, TrialState

from tsdistill.data import Task
from tsdistill.evaluation import evaluate, window_losses
from tsdistill.exporting import Deployed
from tsdistill.models import Forecaster
from tsdistill.recipe import Recipe

N_BLOCKS = 16
"""Blocks of validation windows in time, which a `WilcoxonPruner` compares trials by."""

MARGIN = 0.02
"""Share by which a student's error has to lie above that of a deployed model to be beaten: rounding may lower an error
by chance, by far less."""

FEWEST = 10
"""Complete trials before one is stopped ahead of being deployed."""


class Watch:
    """Reports a trial's errors, and stops it when the pruner says so, or when it is beaten before it is deployed.

    Most pruners compare trials at the same epoch. A `WilcoxonPruner` compares them on the same problems: it gets the
    trained student's errors on blocks of validation windows, before the student is pruned and deployed.

    To write, round and score a graph may take longer than to train a small student. So a trial whose trained student
    another trial beats, of the same architecture with no more weights, is stopped ahead of that: it would be neither
    the best nor on the front. Only where the study's pruner may stop trials at all, and once ten are complete.

    Args:
        trial: The trial.
        recipe: What it makes.
        task: Its task.
        by_size: Whether fewer weights of an architecture can stand for less of every cost that is limited.
    """

    def __init__(self, trial: BaseTrial, recipe: Recipe, task: Task, *, by_size: bool = True) -> None:
        self.trial = trial
        self.task = task
        self.kind = recipe.student.model.kind
        self.last = "pruned" if recipe.pruning is not None else "student"
        self.study = getattr(trial, "study", None)
        pruner = getattr(self.study, "pruner", None)
        self.by_blocks = isinstance(pruner, WilcoxonPruner)
        self.may_stop = by_size and self.study is not None and not isinstance(pruner, NopPruner)
        if recipe.student.training.refit is not None:
            self.may_stop = False  # what was fitted again has no validation error

    def on_epoch(self, line: Mapping[str, Any]) -> None:
        """Report the error of an epoch."""
        if not self.by_blocks:
            self._report(line.get("validation_error", line["validation_mse"]), line["epoch"])

    def on_stage(self, name: str, model: Forecaster | Deployed) -> None:
        """Report the errors of the student by blocks; stop a trial that is beaten."""
        if self.by_blocks and name == "student":
            losses = window_losses(model, self.task)
            for step, block in enumerate(np.array_split(losses, min(N_BLOCKS, len(losses)))):
                self._report(float(block.mean()), step)
        if self.may_stop and name == self.last and isinstance(model, Forecaster):
            self._stop_beaten(model)

    def _report(self, error: float, step: int) -> None:
        self.trial.report(error, step)
        if self.trial.should_prune():
            raise TrialPruned

    def _stop_beaten(self, model: Forecaster) -> None:
        assert self.study is not None  # else nothing may be stopped
        trials = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        rivals = [trial for trial in trials if self._is_rival(trial, model)]
        if len(trials) < FEWEST or not rivals:
            return
        error = model.lineage[-1].metrics.get("validation_mse")
        error = evaluate(model, self.task, part="validation")["mse"] if error is None else float(error)
        best = min(rivals, key=lambda trial: float(trial.values[0]))
        if best.values[0] * (1 + MARGIN) < error:
            reason = (
                f"trained and not deployed: trial {best.number} has {error / best.values[0] - 1:.1%} less error with "
                "no more weights"
            )
            self.trial.set_user_attr("reason", reason)
            self.trial.set_user_attr("n_parameters", model.n_parameters)
            raise TrialPruned(reason)

    def _is_rival(self, trial: FrozenTrial, model: Forecaster) -> bool:
        kept = trial.user_attrs
        return (
            kept.get("kind") == self.kind
            and kept.get("n_parameters", model.n_parameters + 1) <= model.n_parameters
            and all(excess <= 0 for excess in trial.constraints.values())
        )
