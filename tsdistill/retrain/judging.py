"""Candidate, incumbent and seasonal naive forecast on the same newest windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from tsdistill.data import Task
from tsdistill.errors import DataError, ShapeError
from tsdistill.evaluation import LossComparison, Scores, check_fits, compare_losses, score, seasonal_naive
from tsdistill.evaluation.scores import origins
from tsdistill.exporting import Deployed
from tsdistill.metrics import Total
from tsdistill.quality import SuspectRows
from tsdistill.retrain.gate import Gate, Score, rule
from tsdistill.retrain.job import Cut, moment

NAIVE = "seasonal naive"


@dataclass(frozen=True)
class Served:
    """What is served while a candidate is judged.

    Args:
        folder: Its folder, relative to the store; None when nothing is served yet.
        model: The incumbent; None when there is none or it is damaged.
        details: Of its own retraining, from its manifest.
        problem: Why it cannot be used.
        rolled_back: Digest of the model that was last taken back by hand.
    """

    folder: str | None = None
    model: Deployed | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None
    rolled_back: str | None = None


FEW = 0.5
"""Share of the judging windows that must be left before filled cells count as truth again."""


def judge(
    gate: Gate,
    task: Task,
    cut: Cut,
    candidate: Deployed,
    served: Served,
    suspects: Sequence[SuspectRows] | None = None,
) -> dict[str, Any]:
    """Decision, reason and numbers, as fields of a `Verdict`.

    All are scored on every window of the task's test part, in the task's scale. An incumbent with a longer context
    gets it from the rows before; one that cannot be scored on these windows is kept, or not counted if it is damaged.
    Windows with suspect rows judge nothing.
    """
    incumbent = served.model
    notes = [served.problem] if served.problem else []
    judged = task
    obstacle = None
    if incumbent is not None:
        judged, obstacle = _common_task(task, incumbent)
        if obstacle is not None:
            incumbent = None
        else:
            obstacle = _same(candidate, incumbent, served) or _unfair(served, cut)
    positions, left_out = _usable(judged, suspects)
    notes += left_out
    if positions is not None and not len(positions):
        obstacle, positions = (
            "Every judging window holds filled, stuck or spiked values, so nothing can be shown.",
            None,
        )
    n_windows = len(judged.test) if positions is None else len(positions)
    scores = {
        name: score(model, judged, "test", positions=positions)
        for name, model in (("candidate", candidate), (NAIVE, seasonal_naive(task)))
    }
    if incumbent is not None:
        try:
            scores["incumbent"] = score(incumbent, judged, "test", positions=positions)
        except DataError as error:
            notes.append(f"The incumbent cannot be used: {error}")
        until = served.details.get("judged_until")
        if obstacle is None and until is not None and moment(until) >= moment(cut.judged_from):
            notes.append(
                "Some of these windows also judged the incumbent when it was promoted, which favours it a little."
            )
    comparison, robust = (_compared(scores, task.horizon, kind) for kind in ("squared", "absolute"))
    errors = {name: measured.to_dict() for name, measured in scores.items()}
    ruling = rule(
        gate,
        candidate=errors["candidate"]["mse"],
        naive=errors[NAIVE]["mse"],
        incumbent=errors["incumbent"]["mse"] if "incumbent" in errors else None,
        comparison=comparison,
        robust=robust,
        obstacle=obstacle,
        first=served.folder is None,
    )
    known = {"candidate": _known(candidate, cut.seen_until), NAIVE: {}}
    if incumbent is not None:
        known["incumbent"] = _known(incumbent, served.details.get("seen_until"))
    return {
        "decision": ruling.decision,
        "reason": ruling.reason,
        "notes": tuple(notes),
        "n_windows": n_windows,
        "n_left_out": len(judged.test) - n_windows,
        "mae_p_value": robust.p_value if robust else None,
        "scores": {name: Score(mse=values["mse"], mae=values["mae"], **known[name]) for name, values in errors.items()},
        "difference": comparison.mean_difference if comparison else None,
        "low": comparison.low if comparison else None,
        "high": comparison.high if comparison else None,
        "p_value": comparison.p_value if comparison else None,
    }


def _common_task(task: Task, incumbent: Deployed) -> tuple[Task, str | None]:
    """A task both can be scored on, with the same windows and scale; or why there is none."""
    signature = incumbent.signature
    remedy = "To serve forecasts of another shape, give the job another store."
    if signature.frequency != task.panel.frequency:
        problem = f"it forecasts steps of {signature.frequency}, the data has steps of {task.panel.frequency}"
        return task, f"The incumbent cannot be compared: {problem}. {remedy}"
    try:
        if signature.context > task.context:
            task = task.with_context(signature.context)
        check_fits(incumbent, task.test, task.signature)
    except (DataError, ShapeError) as error:
        return task, f"The incumbent cannot be compared: {error} {remedy}"
    return task, None


def _same(candidate: Deployed, incumbent: Deployed, served: Served) -> str | None:
    if candidate.digest == incumbent.digest:
        return "The candidate is the incumbent itself: neither the data nor the recipe has changed."
    if candidate.digest == served.rolled_back:
        return "The candidate is the very model that was rolled back by hand. Change the recipe, or wait for new data."
    return None


def _unfair(served: Served, cut: Cut) -> str | None:
    """Why the judging windows are no fair test of the incumbent."""
    seen = served.details.get("seen_until")
    if seen is None:
        return "The incumbent does not say until when it has seen data, so these windows may be no test of it."
    if moment(seen) < moment(cut.judged_from):
        return None
    return (
        f"The incumbent has seen these windows: it was trained and selected on data until {seen}, judging begins at "
        f"{cut.judged_from}. No fair comparison is possible. Run with newer data (or a later --as-of), or with another "
        "store."
    )


def _compared(
    scores: Mapping[str, Scores], horizon: int, kind: Literal["squared", "absolute"]
) -> LossComparison | None:
    if "incumbent" not in scores:
        return None
    candidate, incumbent = scores["candidate"], scores["incumbent"]
    losses = [_window_losses(getattr(measured, kind)) for measured in (candidate, incumbent)]
    return compare_losses(*losses, horizon=horizon, times=candidate.times)


def _window_losses(total: Total) -> np.ndarray:
    return np.asarray(Total(total.sum.sum(axis=1), total.count.sum(axis=1)).mean)


def _usable(task: Task, suspects: Sequence[SuspectRows] | None) -> tuple[np.ndarray | None, list[str]]:
    """Positions of the judging windows without suspect rows (None for all of them), and a note on the others."""
    if suspects is None or not any(rows.filled.any() or rows.broken.any() for rows in suspects):
        return None, []
    items, first = origins(task, task.test)
    broken, filled = (
        np.array(
            [
                kinds[item][max(row - reach, 0) : row + task.horizon].sum()
                for item, row in zip(items.tolist(), first.tolist(), strict=True)
            ]
        )
        for kinds, reach in (
            ([rows.broken for rows in suspects], task.context),
            ([rows.filled for rows in suspects], 0),
        )
    )
    usable = broken == 0
    whole = usable & (filled == 0)
    notes = []
    if whole.mean() < FEW <= usable.mean():
        # Scattered gaps reach nearly every window of a wide panel; then those with the fewest stay.
        whole = usable & (filled <= np.quantile(filled[usable], FEW))
        notes.append("Most judging windows hold filled values; those with the fewest are judged.")
    if n_left_out := int((~whole).sum()):
        notes.append(
            f"{n_left_out} of {len(whole)} judging windows hold filled, stuck or spiked values and judge nothing."
        )
    return (np.flatnonzero(whole) if n_left_out else None), notes


def _known(model: Deployed, seen_until: str | None) -> dict[str, Any]:
    return {"size_bytes": model.size_bytes, "model": model.digest, "seen_until": seen_until}
