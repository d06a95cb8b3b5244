"""Data quality: a compact profile of trusted data, and checks of fresh data against it."""

from __future__ import annotations

from tsdistill.quality.gate import DataGate, DataReport, Finding, SuspectRows, check_data, reordered, suspect_rows
from tsdistill.quality.profile import DataProfile, SeriesProfile, profile_of

__all__ = [
    "DataGate",
    "DataProfile",
    "DataReport",
    "Finding",
    "SeriesProfile",
    "SuspectRows",
    "check_data",
    "profile_of",
    "reordered",
    "suspect_rows",
]
