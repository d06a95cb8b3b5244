"""`compare` measures models and gives a `Report`: data first, then text and a page; `plot_history` shows a training."""

from __future__ import annotations

from tsdistill.report.comparison import compare
from tsdistill.report.history import plot_history, read_history
from tsdistill.report.report import Comparison, Example, Report, Row

__all__ = ["Comparison", "Example", "Report", "Row", "compare", "plot_history", "read_history"]
