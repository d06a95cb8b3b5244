"""Structured pruning: a pruned model is an ordinary model with a smaller config."""

from __future__ import annotations

from tsdistill.pruning.criteria import CRITERIA, Criterion
from tsdistill.pruning.pruner import Pruning, prune
from tsdistill.pruning.rebuilding import rebuild

__all__ = ["CRITERIA", "Criterion", "Pruning", "prune", "rebuild"]
