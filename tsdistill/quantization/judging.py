"""What a quantized form costs and gains: measured beside float32, and held against a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from tsdistill.data.task import Task
from tsdistill.errors import printable
from tsdistill.evaluation import measure_latency
from tsdistill.evaluation.scores import Scores, score
from tsdistill.exporting import Deployed, parity_windows
from tsdistill.quantization.base import FULL, Quantization

N_JUDGED = 1024
"""Validation windows that forms are compared on, spread over time: they are paired, so more would tell little more."""

N_RUNS, REBUILDS, MAX_SECONDS = 500, 5, 10.0
"""Calls of each form that are timed, sessions that make them one after the other, and seconds for one batch size: of
fewer the medians of calls of less than a millisecond move by as much as what a form may lose."""

CLOCK = 0.02
"""What the clock errs by all the same: "auto" keeps as far from `max_latency_increase`, to hold it another day too."""

UNNOTICED_MS = 0.02
"""By as much a form may be slower whatever `max_latency_increase`: of small models, whose forecasts take a few times
that, the fixed cost of an operator or two would be all that decides."""


@dataclass
class Candidate:
    """A form that may be deployed, what was measured of it, and why it is not selected.

    Args:
        name: "fp32", "dynamic", "static", "dynamic-mixed", "weight-only-8" and so on.
        spec: What it was made by; None for fp32.
        model: The deployed form; None when it cannot be made.
        numbers: For the lineage.
        refused: Reasons; empty for the one that is selected.
        details: How it was made.
    """

    name: str
    spec: Quantization | None = None
    model: Deployed | None = None
    numbers: dict[str, Any] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """A row of the table in the lineage."""
        return {"name": self.name, **self.details, **self.numbers, "refused": list(self.refused)}


class Judge:
    """Validation errors over the same windows, against those of float32; of quantile heads also of their quantiles."""

    def __init__(self, full: Deployed, task: Task) -> None:
        self.full, self.task = full, task
        n_windows = len(task.validation)
        self._positions = np.unique(np.linspace(0, n_windows - 1, min(n_windows, N_JUDGED)).astype(int))
        self._scores: Scores | None = None

    def errors(self, model: Deployed) -> dict[str, Any]:
        """MSE, by which share it is above float32's, and the same for the step or channel that suffers most."""
        if self._scores is None:
            self._scores = self._score(self.full)
        full = self._scores
        scores = full if model is self.full else self._score(model)
        names = [f"step {step + 1}" for step in range(model.horizon)]
        names += [f"channel {channel!r}" for channel in model.signature.channels]
        by_part = [np.concatenate([item.mse_by_step, item.mse_by_channel]) for item in (scores, full)]
        increases = _increase(*by_part)
        worst = int(np.argmax(np.nan_to_num(increases, nan=np.inf)))
        errors = scores.to_dict()
        reference = full.to_dict()
        numbers = {
            "mse": errors["mse"],
            "increase": _increase_of(errors, reference, "mse"),
            "worst_increase": float(increases[worst]),
            "worst": names[worst],
            "difference": model.parity["max_difference"],
            "batch_effect": model.batch_effect if model.mixes_windows else 0.0,
        }
        if "wql" in errors:
            numbers |= {"wql": errors["wql"], "wql_increase": _increase_of(errors, reference, "wql")}
        return numbers | {name: errors[name] for name in ("coverage",) if name in errors}

    def _score(self, model: Deployed) -> Scores:
        return score(model, self.task, "validation", positions=self._positions)


def _increase_of(errors: Mapping[str, float], full: Mapping[str, float], name: str) -> float:
    return float(_increase(np.asarray(errors[name]), np.asarray(full[name])))


def _increase(errors: np.ndarray, full: np.ndarray) -> np.ndarray:
    """Errors / full - 1; where float32 makes no error, infinite for any."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((full == 0) & (errors == 0), 0.0, np.where(full == 0, np.inf, errors / full - 1))


def measure(candidates: Mapping[str, Deployed], task: Task, spec: Quantization) -> dict[str, dict[str, Any]]:
    """Bytes of the graph and latency at every batch size, side by side on one thread."""
    inputs, _ = parity_windows(next(iter(candidates.values())).signature, task)
    n_windows = len(inputs["context"])

    def calls(batch: Mapping[str, np.ndarray]) -> dict[str, Callable[[], object]]:
        """Of sessions of their own."""
        covariates = batch.get("future"), batch.get("past")
        return {
            name: partial(model.reloaded().predict, batch["context"], *covariates) for name, model in candidates.items()
        }

    table: dict[str, dict[str, Any]] = {
        name: {"graph_bytes": len(model.onnx), "latency_ms": {}} for name, model in candidates.items()
    }
    for size in spec.batch_sizes:
        batch = {name: np.ascontiguousarray(values[np.arange(size) % n_windows]) for name, values in inputs.items()}
        latencies = measure_latency(partial(calls, batch), n_runs=N_RUNS, rebuilds=REBUILDS, max_seconds=MAX_SECONDS)
        for name, latency in latencies.items():
            table[name]["latency_ms"][str(size)] = latency.paired_ms
    return table


def accuracy_refusals(numbers: Mapping[str, Any], full: Mapping[str, Any], spec: Quantization) -> list[str]:
    """Why a form is not accurate enough; empty when it is. Not a number is never enough."""
    reasons = []
    for name, increase, title in (("mse", "increase", "MSE"), ("wql", "wql_increase", "weighted quantile loss")):
        if not numbers.get(increase, 0.0) <= spec.max_error_increase:
            reasons.append(
                f"its validation {title} is {numbers[name]:.4g} against {full[name]:.4g} in float32, "
                f"{numbers[increase]:+.1%} where max_error_increase allows {spec.max_error_increase:+.1%}"
            )
    if not numbers["worst_increase"] <= spec.worst_error_increase:
        reasons.append(
            f"the MSE of {numbers['worst']} rises by {numbers['worst_increase']:+.1%} where max_worst_error_increase "
            f"allows {spec.worst_error_increase:+.1%}"
        )
    if not numbers.get("batch_effect", 0.0) <= spec.max_batch_effect:
        reasons.append(
            f"other windows in its batch move a forecast by up to {numbers['batch_effect']:.2g} standard deviations "
            f"where max_batch_effect allows {spec.max_batch_effect:.2g}; isolate=True keeps them apart"
        )
    return reasons


def refuse_what_does_not_pay(candidates: list[Candidate], spec: Quantization) -> None:
    """Add to each candidate why it is not selected for its bytes or its time; those refused before do not count."""
    left = [candidate for candidate in candidates if not candidate.refused]
    full = next(candidate for candidate in left if candidate.name == FULL)
    for candidate in left:
        n_bytes, full_bytes = (numbers["graph_bytes"] for numbers in (candidate.numbers, full.numbers))
        if candidate is not full and n_bytes >= full_bytes:
            candidate.refused.append(f"it has {n_bytes:,} bytes against {full_bytes:,}")
    fair = [candidate for candidate in left if not candidate.refused or not spec.chooses]
    sizes = [str(size) for size in spec.batch_sizes]
    fastest = {size: min(fair, key=lambda candidate: candidate.numbers["latency_ms"][size]) for size in sizes}

    def slowdown(candidate: Candidate, size: str) -> float:
        least = float(fastest[size].numbers["latency_ms"][size])
        return max(float(candidate.numbers["latency_ms"][size]) - UNNOTICED_MS, least) / least

    allowed = 1 + spec.max_latency_increase
    explanation = f"{spec.max_latency_increase:+.0%} and {UNNOTICED_MS} ms"
    if spec.chooses:
        allowed -= CLOCK
        explanation += f", less {CLOCK:.0%} that the clock may err by"
        # Where no form is among the fastest at every batch size, the one that is least behind is.
        least = min(max(slowdown(candidate, size) for size in sizes) for candidate in fair)
        if least > allowed:
            allowed = least
            explanation += f", or {least - 1:+.1%} as no form is fast at every batch size"
    for candidate in left:
        if not spec.held_to_latency or (candidate is full and not spec.chooses):
            continue
        for size in sizes:
            if slowdown(candidate, size) > allowed:
                takes = "one window takes" if size == "1" else f"{size} windows take"
                candidate.refused.append(
                    f"{takes} {candidate.numbers['latency_ms'][size]:.3f} ms against "
                    f"{fastest[size].numbers['latency_ms'][size]:.3f} ms in {fastest[size].name}, more than "
                    f"max_latency_increase allows ({explanation})"
                )


def refuse_vain_training(trained: Candidate, plain: Candidate) -> None:
    """Add to a trained form why it is not selected: the same form without the training forecasts as well."""
    # A quantile head is trained for its quantiles; the error of the median alone may well rise.
    name, title = ("wql", "weighted quantile loss") if "wql" in trained.numbers else ("mse", "MSE")
    error = trained.numbers[name]
    if not error < plain.numbers[name]:
        trained.refused.append(
            f"its validation {title} is {error:.4g} against {plain.numbers[name]:.4g} with method={plain.name!r}, "
            "which trains nothing"
        )


def table(rows: list[dict[str, Any]], chosen: str) -> str:
    """The candidates of a lineage for people, with the reason of each refusal."""
    sizes = list(next((row["latency_ms"] for row in rows if "latency_ms" in row), {}))
    effects = [_batch_effect(row) for row in rows]
    header = [
        "form",
        "MSE",
        "change",
        "worst",
        *(["batch effect"] if any(effects) else []),
        "bytes",
        *(f"ms at {size}" for size in sizes),
        "",
    ]
    lines = [header]
    for row, effect in zip(rows, effects, strict=True):
        verdict = "selected" if row["name"] == chosen else "; ".join(row["refused"])
        if "mse" not in row:
            lines.append([row["name"], *[""] * (len(header) - 2), verdict])
            continue
        worst = f"{row['worst_increase']:+.2%} {row['worst']}"
        changes = ["", ""] if row["name"] == FULL else [f"{row['increase']:+.2%}", worst]
        changes += [f"{effect:.2g}" if effect else ""] if any(effects) else []
        times = [f"{row['latency_ms'][size]:.3f}" if "latency_ms" in row else "" for size in sizes]
        n_bytes = f"{row['graph_bytes']:,}" if "graph_bytes" in row else ""
        lines.append([row["name"], f"{row['mse']:.4f}", *changes, n_bytes, *times, verdict])
        if row.get("float_layers"):
            lines.append([f"  in float: {', '.join(row['float_layers'])}", *[""] * (len(header) - 1)])
    lines = [[printable(cell) for cell in line] for line in lines]
    plain = [line for line in lines if not line[0].startswith("  ")]
    widths = [max(len(line[place]) for line in plain) for place in range(len(header) - 1)]
    shown = []
    for line in lines:
        if line[0].startswith("  "):
            shown.append(line[0])
            continue
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:-1], widths[1:], strict=True)),
        ]
        shown.append("  ".join([*cells, line[-1]]).rstrip())
    return "\n".join(shown)


def _batch_effect(row: Mapping[str, Any]) -> float:
    """How far other windows in a batch move a forecast; lineages of version 0.1 have it under another name."""
    return float(row.get("batch_effect", row.get("batch_mates", 0.0)))
