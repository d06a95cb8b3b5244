"""Search with Optuna: a trial is a recipe, worth the validation error of what it deploys, within a budget of bytes."""

from __future__ import annotations

from tsdistill.search.objective import objective
from tsdistill.search.older import LSTMSpace, MLPSpace, PatchTSTSpace
from tsdistill.search.space import Space
from tsdistill.search.storage import create_study
from tsdistill.search.study import best_recipe, leaders, optimize, run_trials
from tsdistill.search.table import table
from tsdistill.search.workers import SearchResult, run, shared_teacher
from tsdistill.spec import Range

__all__ = [
    "LSTMSpace",
    "MLPSpace",
    "PatchTSTSpace",
    "Range",
    "SearchResult",
    "Space",
    "best_recipe",
    "create_study",
    "leaders",
    "objective",
    "optimize",
    "run",
    "run_trials",
    "shared_teacher",
    "table",
]
