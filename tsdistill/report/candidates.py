"""The candidates that a deployed model was chosen among: on validation, before the test part was read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tsdistill.report.records import CandidateRow, Measurements
from tsdistill.report.words import error, milliseconds, size
from tsdistill.spec import LineageStep

VERB = "choose"
"""The step of a lineage that records a choice."""


def choice_of(model: Any) -> dict[str, Any] | None:
    """The whole record of the choice that a student came out of; None where there was none."""
    steps: Iterable[LineageStep] = getattr(model, "lineage", ())
    records = (dict(step.metrics) for step in reversed(tuple(steps)) if step.verb == VERB)
    return next((record for record in records if "candidates" in record), None)


def rows_of_choice(models: Iterable[Any]) -> tuple[CandidateRow, ...]:
    """A row for every candidate that models came out of; none where there was no choice."""
    for model in models:
        if (choice := choice_of(model)) is not None:
            return tuple(CandidateRow(**row, chosen=row["name"] == choice["chosen"]) for row in choice["candidates"])
    return ()


def cells(report: Measurements) -> dict[str, list[str]]:
    """Cells by heading, a line for each candidate; nothing where there were none."""
    rows = report.candidates
    if not rows:
        return {}
    return {
        "candidate": [row.name for row in rows],
        "precision": [row.precision or "-" for row in rows],
        "val. MSE": [error(row.validation_mse) for row in rows],
        "above the best": [_above(row) for row in rows],
        "size": [size(row.size_bytes) for row in rows],
        "ms": [milliseconds(row.latency_p50_ms) for row in rows],
        "taught": ["-" if row.taught is None else "yes" if row.taught else "no" for row in rows],
    }


def sentence(report: Measurements) -> str:
    """Which candidate is deployed, why, and why not the others; empty where there were none."""
    chosen = [row for row in report.candidates if row.chosen]
    if not chosen:
        return ""
    (row,) = chosen
    share = "the teacher has shaped it" if row.taught else "the teacher has no share in it"
    others = "; ".join(f"{other.name}: {other.reason}" for other in report.candidates if not other.chosen)
    return (
        f"Of {len(report.candidates)} candidates, {row.name} is deployed ({row.reason}; {share})."
        f"{f' Not deployed: {others}.' if others else ''}"
    )


def _above(row: CandidateRow) -> str:
    """Such as: +1.2 +- 0.4 %."""
    if row.relative is None:
        return "-"
    spread = "" if not row.standard_error else f" +- {100 * row.standard_error:.1f}"
    return f"{100 * row.relative:+.1f}{spread} %" if row.relative else "best"
