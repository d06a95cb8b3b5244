"""`compare` measures models and gives a `Report`: data first, then text and a page.

`plot_history` shows a training, `plot_sensitivity` what pruning would cost.
"""

from __future__ import annotations

from tsdistill.report.comparison import compare
from tsdistill.report.history import plot_history, read_history
from tsdistill.report.records import Comparison, ExampleForecast, Measurements, Row
from tsdistill.report.report import Report
from tsdistill.report.sensitivities import plot_sensitivity

__all__ = [
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
