"""Seeing before cutting: what would go, and what it would save."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from tsdistill.data.task import Task
from tsdistill.errors import UnsupportedError, check_type, printable
from tsdistill.exporting import refuse_deployed, refuse_foreign
from tsdistill.models.base import Forecaster
from tsdistill.models.finite import refuse_not_finite
from tsdistill.pruning.evidence import Evidence
from tsdistill.pruning.ranking import UnitRanking, groups_of, notes_of
from tsdistill.pruning.rebuilding import rebuild
from tsdistill.pruning.spec import Pruning
from tsdistill.pruning.targets import WEIGHT_BYTES, ratio_for


@dataclass(frozen=True)
class PlanRow:
    """What a cut does to one group, and what that alone would save.

    Args:
        group: Its name.
        kind: What its units are.
        n_units: Units now.
        n_kept: Units that would stay.
        parameters_saved: Weights that go.
        macs_saved: Multiplications of one forecast (all channels) that go.
    """

    group: str
    kind: str
    n_units: int
    n_kept: int
    parameters_saved: int
    macs_saved: int

    @property
    def bytes_saved(self) -> int:
        """Of float32 weights."""
        return WEIGHT_BYTES * self.parameters_saved


@dataclass(frozen=True)
class Plan:
    """What a `Pruning` would cut out of a forecaster, as data; it prints as a table.

    Savings of single groups do not add up, since weights between two of them go with either; the totals are of all.

    Args:
        rows: One per group.
        kept: The units that would stay, by group.
        ratio: Share of units asked for.
        n_parameters: Weights before and after.
        macs: Multiplications of one forecast (batch 1, all channels) before and after.
        notes: Which groups keep their minimum where the ratio asked for less.
    """

    rows: tuple[PlanRow, ...]
    kept: dict[str, tuple[int, ...]]
    ratio: float
    n_parameters: tuple[int, int]
    macs: tuple[int, int]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain data."""
        rows = [{**asdict(row), "bytes_saved": row.bytes_saved} for row in self.rows]
        values = {**asdict(self), "rows": rows, "kept": {name: list(units) for name, units in self.kept.items()}}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def __str__(self) -> str:
        lines: list[tuple[str, ...]] = [("group", "units", "kept", "parameters", "MACs", "bytes")]
        for row in self.rows:
            saved = (row.parameters_saved, row.macs_saved, row.bytes_saved)
            lines.append(
                (printable(row.group), str(row.n_units), str(row.n_kept), *(f"-{number:,}" for number in saved))
            )
        before, after = self.n_parameters
        macs_before, macs_after = self.macs
        total = (before - after, macs_before - macs_after, WEIGHT_BYTES * (before - after))
        lines.append(("all", "", "", *(f"-{number:,}" for number in total)))
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        rows = [
            "  ".join(cell.rjust(width) if place else cell.ljust(width) for place, (cell, width) in enumerate(cells))
            for cells in (list(zip(line, widths, strict=True)) for line in lines)
        ]
        rows.append(f"{before:,} -> {after:,} weights, {macs_before:,} -> {macs_after:,} multiplications a forecast")
        return "\n".join([*rows, *map(printable, self.notes)])


def plan_pruning(forecaster: Forecaster, task: Task, pruning: Pruning | None = None) -> Plan:
    """What `prune` would remove in one round, and what it would save, without touching anything.

    Args:
        forecaster: Left as it is.
        task: Asked for windows where the criterion looks at data.
        pruning: Its ratio, criterion, ranking and groups; targets for sizes are searched for, as in `prune`.

    Returns:
        The plan.

    Raises:
        OrderError: the model was already exported or quantized.
        UnsupportedError: there is nothing to cut, a name fits no group, a criterion cannot rank one, a target is out of
            reach, or it is one for the error, which is only known after recovery.

    Example:
        >>> from tsdistill.models import MLPConfig
        >>> from tsdistill.testing import toy_task
        >>> task = toy_task()
        >>> plan = plan_pruning(MLPConfig(width=8, depth=1, hidden=16).build(task.signature), task)
        >>> plan.rows[0].n_units, plan.rows[0].n_kept, plan.rows[0].bytes_saved
        (16, 8, 544)
    """
    refuse_deployed(forecaster, "prune")
    refuse_foreign(forecaster)
    refuse_not_finite(forecaster, "prune")
    pruning = Pruning() if pruning is None else pruning
    check_type("task", task, Task, "Pass td.Task(panel, context=..., horizon=...)")
    check_type("pruning", pruning, Pruning, "Pass td.Pruning(ratio=...)")
    ranks = UnitRanking(forecaster, groups_of(forecaster, pruning), pruning, Evidence(forecaster, task))
    if pruning.max_error_increase is not None:
        raise UnsupportedError(
            "A plan cannot tell how far `max_error_increase` lets a model be cut, since that takes recoveries. "
            "Plan for a ratio, or look at `pruning_sensitivity`."
        )
    return planned(ranks, ratio_for(ranks, pruning.sizes) if pruning.ratio is None else pruning.ratio)


def planned(ranks: UnitRanking, ratio: float) -> Plan:
    """The plan of one round that removes `ratio` of what is there."""
    model = ranks.model
    groups = ranks.groups
    counts = ranks.counts(ratio, {group.name: group.size for group in groups})
    kept = ranks.kept(counts)
    before = macs_of(model)
    rows = []
    for group in groups:
        alone = rebuild(model, {group.name: kept[group.name]})
        saved = (model.n_parameters - alone.n_parameters, before - macs_of(alone))
        rows.append(PlanRow(group.name, group.kind, group.size, counts[group.name], *saved))
    smaller = rebuild(model, kept)
    return Plan(
        rows=tuple(rows),
        kept={name: tuple(units.tolist()) for name, units in kept.items()},
        ratio=ratio,
        n_parameters=(model.n_parameters, smaller.n_parameters),
        macs=(before, macs_of(smaller)),
        notes=tuple(notes_of(groups, counts, ratio)),
    )


def macs_of(model: Forecaster) -> int:
    """Multiply-accumulates of matrix products and convolutions in one forecast of all channels at batch 1."""
    shadow = copy.deepcopy(model).to("meta").eval()  # shapes without numbers: nothing is computed
    signature = model.signature
    steps = {"context": signature.context, "future": signature.context + signature.horizon, "past": signature.context}
    sizes = {"context": len(signature.channels), "future": len(signature.future), "past": len(signature.past)}
    inputs = [torch.empty(1, steps[name], size, device="meta") if size else None for name, size in sizes.items()]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shadow(*inputs)
    return int(counter.get_total_flops()) // 2
