"""Scheduled retraining: fresh data in, a judged and promoted model out, unattended."""

from __future__ import annotations

from tsdistill.quality import DataGate
from tsdistill.retrain.copying import export_model
from tsdistill.retrain.gate import Gate, Score, Verdict
from tsdistill.retrain.job import Job
from tsdistill.retrain.runner import rollback, run_job
from tsdistill.retrain.store import Store

__all__ = ["DataGate", "Gate", "Job", "Score", "Store", "Verdict", "export_model", "rollback", "run_job"]
