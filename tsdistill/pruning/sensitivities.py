"""How much accuracy a model loses with some of each group: error curves without recovery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tsdistill.data.task import Task
from tsdistill.errors import ConfigError, check_type, must, printable
from tsdistill.exporting import refuse_deployed, refuse_foreign
from tsdistill.models.base import Forecaster
from tsdistill.models.finite import refuse_not_finite
from tsdistill.pruning.evidence import Evidence
from tsdistill.pruning.ranking import UnitRanking, groups_of
from tsdistill.pruning.rebuilding import rebuild
from tsdistill.pruning.repairing import folded, refitted
from tsdistill.pruning.spec import Pruning

if TYPE_CHECKING:
    import pandas as pd

RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class PruningSensitivity:
    """Validation errors of a model from which one group at a time was cut, without recovery; it prints as a table.

    Args:
        error: Of the whole model, over the same windows.
        ratios: Shares cut.
        errors: By group, one for every ratio.
        measure: What the error is: "MSE" for a point head.
    """

    error: float
    ratios: tuple[float, ...]
    errors: dict[str, tuple[float, ...]]
    measure: str = "MSE"

    def to_dict(self) -> dict[str, Any]:
        """The curves as plain data."""
        curves = {name: list(curve) for name, curve in self.errors.items()}
        return {"measure": self.measure, "error": self.error, "ratios": list(self.ratios), "errors": curves}

    def to_frame(self) -> pd.DataFrame:
        """A row for every group and ratio."""
        import pandas as pd

        rows = [(name, ratio, error) for name, curve in self.errors.items()
                for ratio, error in zip(self.ratios, curve, strict=True)]  # fmt: skip
        return pd.DataFrame(rows, columns=["group", "ratio", "error"])

    def figure(self) -> dict[str, Any]:
        """The curves as plain plotly data, `plotly.graph_objects.Figure(**figure)` draws them."""
        traces: list[dict[str, Any]] = [
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": name,
                "x": [0.0, *self.ratios],
                "y": [self.error, *curve],
                "hovertemplate": "%{x:.0%} cut: %{y:.4g}",
            }
            for name, curve in self.errors.items()
        ]
        layout = {
            "xaxis": {"title": {"text": "share of the group cut"}, "tickformat": ".0%"},
            "yaxis": {"title": {"text": f"validation {self.measure}"}},
            "showlegend": True,
        }
        return {"data": traces, "layout": layout}

    def __str__(self) -> str:
        names = [printable(name) for name in self.errors]
        width = max(len("group"), *map(len, names))
        lines = ["  ".join(["group".ljust(width), *(f"{ratio:>6.0%}" for ratio in self.ratios)])]
        for name, curve in zip(names, self.errors.values(), strict=True):
            lines.append("  ".join([name.ljust(width), *(f"{error:6.3f}" for error in curve)]))
        return "\n".join([*lines, f"validation {self.measure} without a cut: {self.error:.4f}"])


def pruning_sensitivity(
    forecaster: Forecaster, task: Task, pruning: Pruning | None = None, *, ratios: Sequence[float] = RATIOS
) -> PruningSensitivity:
    """Validation error when one group at a time loses a share of its units, without recovery.

    Use it before pruning: a group whose curve stays flat can lose more, and one that rises at once nothing.

    Args:
        forecaster: Left as it is.
        task: Validation windows judge; training windows serve criteria and repair.
        pruning: Its criterion, groups and repair.
        ratios: Shares to cut.

    Returns:
        One curve per group.

    Raises:
        OrderError: the model was already exported or quantized.
        ConfigError: a ratio is not between 0 and 1.
        UnsupportedError: there is nothing to cut, or a name fits no group.

    Example:
        >>> from tsdistill.models import MLPConfig
        >>> from tsdistill.testing import toy_task
        >>> task = toy_task()
        >>> model = MLPConfig(width=8, depth=2, hidden=16).build(task.signature)
        >>> sorted(pruning_sensitivity(model, task, ratios=(0.5,)).errors)
        ['block1.hidden', 'block2.hidden']
    """
    refuse_deployed(forecaster, "prune")
    refuse_foreign(forecaster)
    refuse_not_finite(forecaster, "prune")
    pruning = Pruning() if pruning is None else pruning
    check_type("task", task, Task, "Pass td.Task(panel, context=..., horizon=...)")
    check_type("pruning", pruning, Pruning, "Pass td.Pruning(ratio=...)")
    if not ratios or not all(0 <= ratio < 1 for ratio in ratios):
        raise ConfigError(must("ratios", "be shares from 0 to below 1", ratios, "Leave it out for 10 % to 90 %"))
    evidence = Evidence(forecaster, task)
    ranks = UnitRanking(forecaster, groups_of(forecaster, pruning.replace(ranking="local")), pruning, evidence)
    errors: dict[str, tuple[float, ...]] = {}
    for group in ranks.groups:
        curve = []
        for ratio in ratios:
            n_kept = max(group.minimum, group.size - round(group.size * ratio))
            keep = {group.name: ranks.kept({group.name: n_kept})[group.name]}
            if pruning.repair:
                cut = rebuild(forecaster, keep, mend=lambda whole, units: folded(whole, units, evidence.train))
                cut = refitted(cut, forecaster, evidence.train)
            else:
                cut = rebuild(forecaster, keep)
            curve.append(evidence.error(cut))
        errors[group.name] = tuple(curve)
    return PruningSensitivity(evidence.error(forecaster), tuple(ratios), errors, forecaster.head.measure)
