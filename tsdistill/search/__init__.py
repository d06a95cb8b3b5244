"""Search with Optuna: a trial is a recipe, worth the validation error of what it deploys, within a budget of bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tsdistill.deprecation import moved_names
from tsdistill.search.compressing import Compression, compress
from tsdistill.search.finalists import Finalists, finalists
from tsdistill.search.objective import objective
from tsdistill.search.older import LSTMSpace, MLPSpace, PatchTSTSpace
from tsdistill.search.page import plot_study
from tsdistill.search.results import best_recipe, front, leaders
from tsdistill.search.server import serve
from tsdistill.search.space import Space
from tsdistill.search.storage import create_study, load_study
from tsdistill.search.study import optimize, run_trials
from tsdistill.search.table import table
from tsdistill.search.worker import shared_teacher
from tsdistill.search.workers import SearchResult, run
from tsdistill.spec import Range

__all__ = [
    "Compression",
    "Finalists",
    "LSTMSpace",
    "MLPSpace",
    "PatchTSTSpace",
    "Range",
    "SearchResult",
    "Space",
    "best_recipe",
    "compress",
    "create_study",
    "finalists",
    "front",
    "leaders",
    "load_study",
    "objective",
    "optimize",
    "plot_study",
    "run",
    "run_trials",
    "serve",
    "shared_teacher",
    "table",
]

MOVED = {
    "Found": "tsdistill.search.SearchResult",
}
"""Names of version 0.1, each with its place now; they go with version 0.3."""

if not TYPE_CHECKING:  # which would take any name for one of these
    __getattr__ = moved_names(__name__, MOVED)
