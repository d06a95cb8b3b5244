"""`compare` measures models and gives a `Report`: data first, then text and a page.

`plot_history` shows a training, `plot_sensitivity` what pruning would cost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tsdistill.deprecation import moved_names
from tsdistill.report.comparison import compare
from tsdistill.report.history import plot_history, read_history
from tsdistill.report.records import CandidateRow, Comparison, ExampleForecast, Measurements, Row
from tsdistill.report.report import Report
from tsdistill.report.sensitivities import plot_sensitivity

__all__ = [
    "CandidateRow",
    "Comparison",
    "ExampleForecast",
    "Measurements",
    "Report",
    "Row",
    "compare",
    "plot_history",
    "plot_sensitivity",
    "read_history",
]

MOVED = {
    "Example": "tsdistill.report.ExampleForecast",
}
"""Names of version 0.1, each with its place now; they go with version 0.3."""

if not TYPE_CHECKING:  # which would take any name for one of these
    __getattr__ = moved_names(__name__, MOVED)
