"""`compare` measures models side by side and gives a `Report`: data first, then text, frames and a page."""

from __future__ import annotations

from tsdistill.report.comparison import compare
from tsdistill.report.report import Comparison, Example, Report, Row

__all__ = ["Comparison", "Example", "Report", "Row", "compare"]
