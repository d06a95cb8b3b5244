"""From trained forecasters to deployed ones."""

from __future__ import annotations

from tsdistill.exporting.deployed import Deployed, refuse_deployed
from tsdistill.exporting.exporter import export, refuse_foreign
from tsdistill.exporting.graph import labelled, package_versions, stripped
from tsdistill.exporting.operators import float_operators
from tsdistill.exporting.parity import check_task, parity_report, parity_windows
from tsdistill.exporting.tracing import quiet

__all__ = [
    "Deployed",
    "check_task",
    "export",
    "float_operators",
    "labelled",
    "package_versions",
    "parity_report",
    "parity_windows",
    "quiet",
    "refuse_deployed",
    "refuse_foreign",
    "stripped",
]
