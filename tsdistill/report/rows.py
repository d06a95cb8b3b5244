"""Rows and tests of a report, made from the scores and latencies of its entries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tsdistill.evaluation import LossComparison, holm
from tsdistill.report.entries import Entry
from tsdistill.report.foreign import RUNTIME
from tsdistill.report.pairing import paired
from tsdistill.report.records import Comparison, Row

SAME = 1e-6
"""Relative difference of window losses below which two rows are the same model in two runtimes."""

METRICS = ("mse", "mae", "mse_raw", "mae_raw", "mase", "wql", "coverage", "nominal_coverage", "crossing_rate")
"""Numbers of a row that `Scores` has under the same name."""


def rows_of(entries: list[Entry], times: Mapping[str, Any], horizon: int) -> tuple[Row, ...]:
    """One row per entry; the first entry is the reference."""
    base = entries[0]
    scored = [entry for entry in entries if not entry.unscored]
    numbers = {entry.title: entry.scores.to_dict() for entry in scored}
    tests = {entry.title: _tested(entry, base, horizon) for entry in scored[1:]}
    adjusted = holm({title: None if test is None else test.p_value for title, test in tests.items()})
    rows = []
    for entry in entries:
        foreign = entry.runtime == RUNTIME
        row = Row(
            name=entry.name,
            runtime=entry.runtime,
            role=entry.role,
            kind=type(entry.model).__name__ if foreign else getattr(entry.model.config, "kind", None),
            n_parameters=None if foreign else entry.model.n_parameters,
            size_bytes=entry.size_bytes,
            remark=entry.remark,
        )
        if entry.unscored:
            rows.append(row)
            continue
        scores = numbers[entry.title]
        latency = times.get(entry.title)
        test = tests.get(entry.title)
        row = row.replace(
            **{name: scores.get(name) for name in METRICS},
            mse_ratio=_ratio(scores["mse"], base.scores.mse_on(_places(entry))),
            size_ratio=_ratio(entry.size_bytes, base.size_bytes),
            mse_by_step=entry.scores.mse_by_step.tolist(),
            n_windows=None if entry.positions is None else len(entry.positions),
        )
        if latency is not None:
            base_latency = times.get(base.title)
            row = row.replace(
                latency_p50_ms=latency.p50_ms,
                latency_p95_ms=latency.p95_ms,
                n_latency_runs=latency.n_runs,
                speedup=_ratio(None if base_latency is None else base_latency.p50_ms, latency.p50_ms),
            )
        if test is not None:
            row = row.replace(
                mse_difference=test.mean_difference,
                low=test.low,
                high=test.high,
                p_value=test.p_value,
                p_value_holm=adjusted[entry.title],
            )
        rows.append(row)
    return tuple(rows)


def _ratio(value: float | None, base: float | None) -> float | None:
    return value / base if value is not None and base is not None and base > 0 else None


def _places(entry: Entry) -> np.ndarray | slice:
    return slice(None) if entry.positions is None else entry.positions


def _tested(entry: Entry, base: Entry, horizon: int) -> LossComparison | None:
    """The losses of a row less the reference's; None for the same model in another runtime."""
    losses = entry.scores.window_losses
    base_losses = base.scores.window_losses
    if entry.name == base.name and np.allclose(
        losses, base_losses, rtol=SAME * 1e3, atol=SAME * float(base_losses.mean())
    ):
        return None
    if entry.positions is None:
        return paired(entry.scores, base.scores, None, horizon)
    return _swapped(paired(base.scores, entry.scores, entry.positions, horizon))


def _swapped(test: LossComparison) -> LossComparison:
    """The same comparison with the two sides swapped."""
    low, high, statistic = (None if end is None else -end for end in (test.high, test.low, test.statistic))
    return replace(test, mean_difference=-test.mean_difference, low=low, high=high, statistic=statistic)


def comparisons_of(entries: list[Entry], subject: str, horizon: int) -> tuple[Comparison, ...]:
    """The subject as deployed against the control and the baselines."""
    subject_entry = [entry for entry in entries if entry.name == subject][-1]
    comparisons = []
    for entry in entries:
        base = float(entry.scores.window_losses.mean())
        if entry.role not in ("control", "baseline") or base == 0:
            continue
        test = paired(subject_entry.scores, entry.scores, entry.positions, horizon)
        comparisons.append(
            Comparison(
                subject=subject,
                other=entry.name,
                relative=test.mean_difference / base,
                low=None if test.low is None else test.low / base,
                high=None if test.high is None else test.high / base,
                p_value=test.p_value,
                n_windows=None if entry.positions is None else len(entry.positions),
            )
        )
    return tuple(comparisons)
