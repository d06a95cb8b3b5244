"""The models of a comparison as they are measured: trainable ones exported, the others as they are."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tsdistill.evaluation import Scores, StatisticalForecaster
from tsdistill.report.candidates import VERB
from tsdistill.report.foreign import RUNTIME, is_foreign

if TYPE_CHECKING:
    from tsdistill.data.task import Task


@dataclass
class Entry:
    """One row to be: the model as it is measured, and its scores; an `unscored` one cannot forecast the part."""

    name: str
    role: str
    model: Any
    runtime: str
    size_bytes: int | None
    positions: np.ndarray | None = None
    scores: Scores = field(init=False)
    remark: str | None = None
    unscored: bool = False

    @property
    def title(self) -> str:
        """Name and runtime, which together name a row."""
        return f"{self.name} ({self.runtime})"


def make_entries(
    models: Mapping[str, Any],
    task: Task,
    reference: str,
    with_control: str | None,
    baseline_models: Mapping[str, Any],
    positions: np.ndarray | None,
    bar: Any,
) -> list[Entry]:
    """All rows in order: reference, models, control, baselines; trainable ones exported."""
    from tsdistill.exporting import Deployed, export

    def deployed(name: str, role: str, model: Any) -> Entry:
        bar.note(f"export {name}")
        if not isinstance(model, Deployed):
            # The copy has no control: that is exported only where it gets a row. Nor has it the record of a choice,
            # which tells about other models and would count towards its size.
            model = copy.deepcopy(model)
            model.lineage = tuple(step for step in model.lineage if step.verb != VERB)
            model = export(model, task)
        bar.advance()
        return Entry(name, role, model, f"onnx {model.precision}", model.size_bytes)

    entries = []
    order = [reference, *(name for name in models if name != reference)]
    for name in order:
        model = models[name]
        if is_foreign(model):
            bar.advance()
            entries.append(Entry(name, "reference" if name == reference else "model", model, RUNTIME, None))
        elif name == reference and not isinstance(model, Deployed):
            from tsdistill.artifacts import size_bytes

            entries.append(Entry(name, "reference", model, "torch fp32", size_bytes(model)))
            entries.append(deployed(name, "model", model))
        else:
            entries.append(deployed(name, "reference" if name == reference else "model", model))
    if with_control is not None:
        entries.append(deployed(f"{with_control} without teacher", "control", models[with_control].control))
    for name, model in baseline_models.items():
        if isinstance(model, StatisticalForecaster):
            bar.advance()
            entries.append(Entry(name, "baseline", model, "statsmodels", None, positions))
        else:
            entries.append(deployed(name, "baseline", model))
    return entries
